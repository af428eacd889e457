"""Cores by name and by key, who may open a store, and replication of many cores at once."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hypercore import (
    Core,
    Corestore,
    CorruptStorage,
    Durability,
    KeyPair,
    Manifest,
    NotWritable,
    StoreLocked,
    UsageError,
    discovery_key,
    open_corestore,
)
from hypercore.replication.messages import PROTOCOL
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import STORE_HEAD_KEY, AuthRecord, StoreHead
from hypercore.storage.memory import MemoryStorage
from hypercore.storage.rocks import RocksStorage
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.stream_pair import open_mux_pair

VECTORS = Path(__file__).parents[1] / "vectors" / "hypercore" / "keys.json"
NAMED: list[dict[str, Any]] = json.loads(VECTORS.read_text())["corestore"]
PAIR = KeyPair.from_seed(b"\x03" * 32)


@pytest.mark.parametrize("vector", NAMED, ids=[vector["name"] for vector in NAMED])
async def test_names_give_the_keys_that_javascript_derives(vector: dict[str, Any]) -> None:
    async with open_corestore(None, primary_key=bytes.fromhex(vector["primaryKey"])) as root:
        store = root
        for name in vector["namespace"]:
            store = store.namespace(name)
        core = await store.get(name=vector["name"])
        assert core.key.hex() == vector["key"]
        assert core.discovery_key.hex() == vector["discoveryKey"]
        assert core.manifest is not None
        assert core.manifest.encode().hex() == vector["manifest"]
        assert core.key_pair is not None
        assert core.key_pair.public_key.hex() == vector["publicKey"]
        assert store.names() == [vector["name"]]
        assert root.discovery_keys() == [core.discovery_key]
        assert root.primary_key.hex() == vector["primaryKey"]


async def test_namespaces_keep_names_apart() -> None:
    async with open_corestore(None) as store:
        inner = store.namespace("inner")
        one = await store.get(name="log")
        other = await inner.get(name="log")
        assert one.key != other.key
        assert (await store.namespace("inner").get(name="log")).key == other.key
        await store.get(name="another")
        assert store.names() == ["another", "log"]
        assert inner.names() == ["log"]
        assert len(store.discovery_keys()) == 3
        assert len(store.open_cores()) == 3


async def test_a_directory_may_be_named_by_a_string(tmp_path: Path) -> None:
    async with open_corestore(str(tmp_path)) as store:
        await (await store.get(name="log")).append(b"one")
    async with open_corestore(tmp_path) as store:
        assert await (await store.get(name="log")).get(0) == b"one"


@pytest.mark.parametrize("key", [b"", b"12", bytes(33), bytes(32).hex().encode()])
async def test_what_is_no_key_makes_no_core(tmp_path: Path, key: bytes) -> None:
    async with open_corestore(tmp_path) as store:
        with pytest.raises(UsageError, match="a key has 32 bytes"):
            await store.get(key=key)
        with pytest.raises(UsageError, match="a key has 32 bytes"):
            await store.purge(key=key)
        assert store.discovery_keys() == []
        assert [summary async for summary in store.cores()] == []


async def test_names_survive(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        key = (await store.get(name="log", user_data={"made by": b"a test"})).key
        primary_key = store.primary_key
    async with open_corestore(tmp_path, primary_key=primary_key) as store:
        core = await store.get(name="log", user_data={"made by": b"nobody"})
        assert core.key == key
        assert core.is_writable
        assert core.get_user_data("made by") == b"a test"
        assert (await store.get(key=key)).key == core.key


async def test_cores_by_key_pair_and_manifest() -> None:
    async with open_corestore(None) as store:
        core = await store.get(key_pair=PAIR)
        manifest = Manifest.single_signer(PAIR.public_key)
        assert core.is_writable
        assert core.key == manifest.key
        assert (await store.get(manifest=manifest)).key == core.key
        assert (await store.get(key=manifest.key, manifest=manifest)).key == core.key


async def test_a_reader_may_turn_out_to_own_the_key_pair(tmp_path: Path) -> None:
    key = Manifest.single_signer(PAIR.public_key).key
    async with open_corestore(tmp_path) as store:
        core = await store.get(key=key)
        assert not core.is_writable
        assert core.manifest is None


async def test_which_core() -> None:
    async with open_corestore(None) as store:
        with pytest.raises(UsageError, match="which core"):
            await store.get()
        with pytest.raises(UsageError, match="exclude one another"):
            await store.get(name="log", key=bytes(32))
        with pytest.raises(UsageError, match="manifest hashes to"):
            await store.get(key=bytes(32), manifest=Manifest.single_signer(PAIR.public_key))
        assert store.discovery_keys() == []
        assert await store.find(bytes(32)) is None


async def test_another_primary_key_is_refused(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, primary_key=bytes(32)):
        pass
    with pytest.raises(UsageError, match="another primary key"):
        async with open_corestore(tmp_path, primary_key=b"\x01" * 32):
            pass
    async with open_corestore(tmp_path) as store:  # and it was closed again
        assert store.primary_key == bytes(32)


async def test_one_opener_at_a_time(tmp_path: Path) -> None:
    async with open_corestore(tmp_path):
        with pytest.raises(StoreLocked):
            async with open_corestore(tmp_path):
                pass


async def test_reading_beside_a_writer(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as writer:
        core = await writer.get(name="log")
        await core.append(b"one")
        async with open_corestore(tmp_path, read_only=True) as store:
            assert store.is_read_only
            copy = await store.get(name="log")
            assert await copy.get(0) == b"one"
            assert not copy.is_writable
            with pytest.raises(NotWritable):
                await copy.append(b"x")
            with pytest.raises(UsageError, match="read-only"):
                await store.get(name="new")


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
    with pytest.raises(trio.ClosedResourceError):
        await store.get(name="log")
    for call in (lambda: core.get(0), lambda: core.append(b"x")):
        with pytest.raises(trio.ClosedResourceError):
            await call()


async def test_a_lost_store_head_is_refused(tmp_path: Path) -> None:
    """Going on would give the next core another one's pointers."""
    async with open_corestore(tmp_path) as store:
        await store.get(name="log")
    storage = RocksStorage(tmp_path, Durability.OS)
    batch = storage.batch()
    batch.delete(STORE_HEAD_KEY)
    storage.commit(batch)
    storage.close()
    with pytest.raises(CorruptStorage, match="store head"):
        async with open_corestore(tmp_path):
            pass


@pytest.mark.parametrize(("cores", "datas"), [(0, 2), (2, 1)])
async def test_counters_below_the_pointers_in_use_are_refused(cores: int, datas: int) -> None:
    """JavaScript gives the next core another one's pointers, and overwrites its blocks."""
    storage = MemoryStorage()
    catalog = Catalog(storage, bytes(32))

    def create(number: int) -> None:
        key = bytes([number]) * 32
        catalog.create(AuthRecord(key, discovery_key(key)), None, {"note": b"x"})

    create(1)
    create(2)
    rows = dict(storage.items(b"", b"\xff"))
    head = StoreHead.decode(rows[STORE_HEAD_KEY])
    batch = storage.batch()
    batch.put(STORE_HEAD_KEY, replace(head, cores=cores, datas=datas).encode())
    storage.commit(batch)
    catalog.reload()
    with pytest.raises(CorruptStorage, match="counters are below"):
        create(3)
    assert dict(storage.items(b"\x01", b"\xff")) == {k: v for k, v in rows.items() if k[0]}


async def test_opening_can_be_cancelled_anywhere(tmp_path: Path) -> None:
    async def open_and_append() -> None:
        async with open_corestore(tmp_path) as store:
            await (await store.get(name="log")).append(b"x")

    assert await cancel_everywhere(open_and_append) > 1
    async with open_corestore(tmp_path) as store:
        assert (await store.get(name="log")).length >= 1


# --- replication ---------------------------------------------------------------------------------


async def filled(store: Corestore, name: str, count: int = 10) -> Core:
    core = await store.get(name=name)
    await core.append([b"%s %d" % (name.encode(), index) for index in range(count)])
    return core


async def test_all_open_cores_are_replicated_and_later_ones_too() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        first = await filled(ours, "first")
        copy = await theirs.get(key=first.key)
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            assert await copy.get(3) == b"first 3"
            second = await filled(ours, "second")
            later = await theirs.get(key=second.key)
            assert await later.get(9) == b"second 9"
            await second.append(b"live")
            assert await later.get(10) == b"live"
        assert ours.statistics().connections == 1
        assert ours.statistics().open_cores == 2
        assert ours.statistics().failures == {}
        nursery.cancel_scope.cancel()


async def test_stored_cores_are_opened_when_asked_for_and_closed_again(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        key = (await filled(store, "stored")).key
    async with (
        open_corestore(tmp_path) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        copy = await theirs.get(key=key)
        with trio.fail_after(20):
            assert await copy.get(3) == b"stored 3"
            assert [core.key for core in ours.open_cores()] == [key]
            await copy.close()
            await trio.testing.wait_all_tasks_blocked()
        assert ours.open_cores() == []
        nursery.cancel_scope.cancel()


async def test_a_discreet_store_offers_nothing_and_serves_who_knows_the_key() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        known = await filled(ours, "known")
        await filled(ours, "secret")
        nursery.start_soon(partial(ours.replicate, our_mux, is_discreet=True))
        copy = await theirs.get(key=known.key)
        nursery.start_soon(copy.serve, their_mux)
        with trio.fail_after(20):
            assert await copy.get(0) == b"known 0"
        await filled(ours, "later")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):  # whatever was offered waits there already
            pytest.fail(f"offered {await anext(their_mux.remote_opens(PROTOCOL))}")
        nursery.cancel_scope.cancel()


async def test_only_what_is_allowed_is_replicated() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        public = await filled(ours, "public")
        private = await filled(ours, "private")
        nursery.start_soon(ours.replicate, our_mux, lambda core: core.key == public.key)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            assert await (await theirs.get(key=public.key)).get(0) == b"public 0"
        hidden = await theirs.get(key=private.key)
        await trio.testing.wait_all_tasks_blocked()
        assert hidden.length == 0
        assert not await hidden.update()
        nursery.cancel_scope.cancel()


async def test_an_unknown_core_is_rejected_and_the_rest_goes_on() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        core = await filled(ours, "log")
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        unknown = await theirs.get(key=b"\x01" * 32)
        copy = await theirs.get(key=core.key)
        with trio.fail_after(20):
            assert await copy.get(0) == b"log 0"
        assert not await unknown.update()
        assert await ours.find(discovery_key(b"\x01" * 32)) is None
        nursery.cancel_scope.cancel()


async def test_a_broken_core_is_left_out_and_reported(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        broken = await filled(store, "broken")
        await filled(store, "sound")
    storage = RocksStorage(tmp_path, Durability.OS)
    batch = storage.batch()
    batch.delete(b"\x04\x00\x00")
    storage.commit(batch)
    storage.close()
    async with (
        open_corestore(tmp_path) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        sound = await ours.get(name="sound")
        with pytest.raises(CorruptStorage, match="head is missing"):
            await ours.get(name="broken")
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        await theirs.get(key=broken.key)
        with trio.fail_after(20):
            assert await (await theirs.get(key=sound.key)).get(0) == b"sound 0"
            await trio.testing.wait_all_tasks_blocked()
        failures = ours.statistics().failures
        assert isinstance(failures[broken.discovery_key], CorruptStorage)
        nursery.cancel_scope.cancel()


async def test_replicating_ends_with_the_connection() -> None:
    async with open_corestore(None) as ours:
        await filled(ours, "log")
        async with trio.open_nursery() as nursery:
            async with open_mux_pair(PROTOCOL) as (our_mux, _):
                nursery.start_soon(ours.replicate, our_mux)
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(5) as scope:
                await trio.testing.wait_all_tasks_blocked()
            assert not scope.cancelled_caught
        assert ours.statistics().connections == 0


async def sync(ours: Corestore, theirs: Corestore, copy: Core, length: int) -> bool:
    """Whether the copy gets to this length over a connection."""
    async with (
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.move_on_after(30):
            await copy.wait_length(length)
            for index in range(length - 10, length):
                assert await copy.get(index) == b"log %d" % (index % 50)
        nursery.cancel_scope.cancel()
    return copy.length >= length


async def test_who_can_follow_a_pruned_log(autojump_clock: trio.testing.MockClock) -> None:
    async with open_corestore(None) as ours:
        core = await filled(ours, "log", 50)
        async with open_corestore(None) as told, open_corestore(None) as untold:
            copies = []
            for store in (told, untold):
                copies.append(await store.get(key=core.key))
                assert await sync(ours, store, copies[-1], 50)
            await filled(ours, "log", 50)
            await core.clear(0, 80)
            await core.prune(lengths=[50])
            assert await sync(ours, told, copies[0], 100)
            await core.append([b"log %d" % index for index in range(50)])
            await core.prune()
            assert not await sync(ours, untold, copies[1], 150), "it has to begin anew"
            async with open_corestore(None) as fresh:
                assert await sync(ours, fresh, await fresh.get(key=core.key), 150)


async def test_connected_peers_can_follow_a_pruned_log() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        core = await filled(ours, "log", 50)
        copy = await theirs.get(key=core.key)
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            await copy.wait_length(50)
            await trio.testing.wait_all_tasks_blocked()
            async with core.exclusive():
                core.append_nowait([b"log %d" % index for index in range(50)])
                await core.clear(0, 90)  # nothing was announced yet of what was appended
                await core.prune()
            assert await copy.get(99) == b"log 49"
        nursery.cancel_scope.cancel()


async def test_a_store_that_cannot_be_opened_as_was_asked_is_not_left_open(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Durability\.parse reads one from text\), not str"):
        async with open_corestore(tmp_path, durability="commit"):  # type: ignore[arg-type]  # text
            pass
    assert os.listdir(tmp_path) == []
    async with open_corestore(tmp_path, durability=Durability.parse("commit")):
        pass
