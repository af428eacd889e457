"""Rows and keys that cannot be stored are refused before anything is touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercore import (
    UTF8,
    Core,
    Corestore,
    KeyPair,
    Manifest,
    UsageError,
    encode_id,
    open_corestore,
)
from hypercore.corestore import corestore_on
from tests.support.stored_logs import FaultyStorage

PAIR = KeyPair.from_seed(bytes(32))

MISTAKES: list[Callable[[Core, Any], Awaitable[object]]] = [
    lambda core, rows: core.append(b"more", local=rows),
    lambda core, rows: core.append_pieces([[b"more"]], local=rows),
    lambda core, rows: core.clear_many([0], local=rows),
    lambda core, rows: core.write_local(rows),
]


async def fill(store: Corestore) -> Core:
    core = await store.get(name="log")
    await core.append([b"one", b"two"])
    return core


@pytest.mark.parametrize("call", MISTAKES)
@pytest.mark.parametrize("rows", [{b"k": "text"}, {"k": b"v"}, {b"k": bytearray(1)}, {b"k": 1}])
@pytest.mark.parametrize("is_on_disk", [False, True])
async def test_what_is_no_row_leaves_the_log_as_it_is(
    tmp_path: Path, call: Callable[[Core, Any], Awaitable[object]], rows: Any, is_on_disk: bool
) -> None:
    async with open_corestore(tmp_path if is_on_disk else None) as store:
        core = await fill(store)
        with pytest.raises(TypeError, match="local row is bytes, not"):
            await call(core, rows)
        assert core.length == 2
        assert await core.get(0) == b"one"
        assert await core.append(b"three", local={b"k": b"v", b"none": None}) == 2


async def test_user_data_is_text_and_bytes() -> None:
    async with open_corestore(None) as store:
        core = await fill(store)
        with pytest.raises(TypeError, match="user data is bytes, not str"):
            await core.set_user_data("k", "v")  # type: ignore[arg-type]  # the point of it
        with pytest.raises(TypeError, match="key of user data is str, not bytes"):
            await core.set_user_data(b"k", b"v")  # type: ignore[arg-type]  # the point of it
        with pytest.raises(TypeError):
            await store.get(name="new", user_data={"k": "v"})  # type: ignore[dict-item]  # as above
        assert store.names() == ["log"]


@pytest.mark.parametrize("group", [b"", b"short", bytes(33)])
async def test_what_is_no_group_costs_no_core(tmp_path: Path, group: bytes) -> None:
    async with open_corestore(tmp_path) as store:
        await fill(store)
        for name in ("log", "new"):
            with pytest.raises(UsageError, match="a group has 32 bytes"):
                await store.get(name=name, group=group)
    async with open_corestore(tmp_path) as store:
        assert store.names() == ["log"]
        core = await store.get(name="log", group=bytes(32))
        await core.append(b"three")
        assert store.group_updates(bytes(32)) == [core.key]


@pytest.mark.parametrize("primary_key", [b"", b"short", bytes(33)])
async def test_what_is_no_primary_key_makes_no_store(tmp_path: Path, primary_key: bytes) -> None:
    with pytest.raises(UsageError, match="a primary key has 32 bytes"):
        async with open_corestore(tmp_path, primary_key=primary_key):
            pass
    async with open_corestore(tmp_path, primary_key=bytes(32)) as store:
        assert store.primary_key == bytes(32)


@pytest.mark.parametrize(
    ("public_key", "secret_key"),
    [
        (PAIR.public_key, PAIR.secret_key[:32]),
        (PAIR.public_key[:31], PAIR.secret_key),
        (PAIR.public_key, KeyPair.from_seed(bytes(31) + b"1").secret_key),
    ],
)
def test_what_is_no_key_pair(public_key: bytes, secret_key: bytes) -> None:
    with pytest.raises(UsageError, match="key pair"):
        KeyPair(public_key, secret_key)


@pytest.mark.parametrize("key", ["k" * 32, bytearray(32)])
@pytest.mark.parametrize("kind", ["encryption_key", "block_key"])
async def test_what_is_no_encryption_key_makes_no_core(kind: str, key: Any) -> None:
    async with open_corestore(None) as store:
        with pytest.raises(TypeError, match="an encryption key is bytes, not"):
            await store.get(name="log", **{kind: key})
        assert store.names() == []


async def test_a_name_is_text() -> None:
    async with open_corestore(None) as store:
        name: Any = b"log"
        with pytest.raises(TypeError):
            await store.get(name=name)
        with pytest.raises(TypeError):
            store.namespace(name)
        assert store.names() == []


async def test_nobody_waits_for_what_is_no_group() -> None:
    async with open_corestore(None) as store:
        with pytest.raises(UsageError, match="a group has 32 bytes"):
            store.watch_group(b"short")


async def test_what_is_no_group_is_not_said_to_have_no_cores() -> None:
    async with open_corestore(None) as store:
        with pytest.raises(UsageError, match="a group has 32 bytes"):
            store.group_updates(b"short")


def test_a_key_of_another_size_has_no_id() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 33"):
        encode_id(bytes(33))


async def test_a_text_is_no_bytes() -> None:
    async with open_corestore(None) as store:
        values = (await store.get(name="log")).encoded(UTF8)
        with pytest.raises(TypeError):
            await values.append(b"bytes")  # type: ignore[arg-type]  # the point of it


async def test_a_core_that_cannot_be_opened_is_not_left_open() -> None:
    storage = FaultyStorage()
    manifest = Manifest.single_signer(PAIR.public_key)
    with corestore_on(storage) as store:
        await (await store.get(key=manifest.key)).close()
        storage.fails_before = True
        with pytest.raises(OSError, match="device"):
            await store.get(manifest=manifest)
        assert store.open_cores() == []
