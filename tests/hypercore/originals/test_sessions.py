"""What hypercore 11.37.1's test/sessions.js covers, and the sessions of basic.js.

Without a counterpart: truncating a checkout, and checkouts of prologued cores, for a checkout is
for reading; "cannot set checkout if name not set" and its error, for ours needs no name; weak
sessions, which only the store has (`open_cores`).

A key pair is the log's, not one session's: with it every session that is not read-only may write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from hypercore import (
    JSON,
    Core,
    Corestore,
    KeyPair,
    Manifest,
    NotWritable,
    UsageError,
    encode_id,
)
from tests.support.cancel_everywhere import cancel_everywhere

PAIR = KeyPair.from_seed(b"\x03" * 32)


async def test_a_writable_session_of_a_core_that_was_opened_to_read(store: Corestore) -> None:
    manifest = Manifest.single_signer(PAIR.public_key)
    core = await store.get(manifest=manifest)
    assert not core.is_writable
    with pytest.raises(NotWritable):
        await core.append(b"hello")
    reader = core.session(read_only=True)
    session = await store.get(manifest=manifest, key_pair=PAIR)
    assert session.is_writable
    await session.append(b"world")
    assert core.length == 1
    with pytest.raises(NotWritable):
        await reader.append(b"hello")


async def test_a_session_with_an_encoding_of_its_own(core: Core) -> None:
    await core.append(b'{"a":1}')
    async with core.session() as session:
        values = session.encoded(JSON)
        await values.append({"b": 2})
        assert await values.get(0) == {"a": 1}
        assert await values.get(1) == {"b": 2}
    assert await core.get(1) == b'{"b":2}'


async def test_sessions_are_counted(store: Corestore, core: Core) -> None:
    assert core.info().sessions == 1
    session = core.session()
    assert core.info().sessions == 2
    assert [open_core.key for open_core in store.open_cores()] == [core.key]
    assert core.info().sessions == 2, "the store's own handles do not count"
    await session.close()
    assert core.info().sessions == 1


async def test_sessions_share_the_log(core: Core) -> None:
    async with core.session() as session:
        assert session.key == core.key
        assert encode_id(session.key) == encode_id(core.key)
        await session.append(b"test")
        assert await core.get(0) == await session.get(0) == b"test"
        await session.set_user_data("a", b"1")
        assert core.get_user_data("a") == b"1"


async def test_closing_one_leaves_the_others(store: Corestore, core: Core) -> None:
    session = core.session()
    await core.close()
    await core.close()
    await session.append(b"still open")
    with pytest.raises(trio.ClosedResourceError):
        core.session()
    with pytest.raises(trio.ClosedResourceError):
        await core.append(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await core.update()
    with pytest.raises(trio.ClosedResourceError):
        core.prefetch([0])
    await session.close()
    assert store.open_cores() == []


async def test_closing_a_session_wakes_who_waits_at_it_and_nobody_else(
    store: Corestore, core: Core
) -> None:
    reader = await store.get(key=bytes(32))
    session = reader.session()
    waits = []
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "download": lambda: session.download(0, 1),
        "follow": lambda: anext(session.follow()),
        "get": lambda: session.get(0),
        "length": lambda: session.wait_length(1),
        "seek": lambda: session.seek(1),
    }

    async def expect_closed(name: str) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await calls[name]()
        waits.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.get, 0)
        for name in calls:
            nursery.start_soon(expect_closed, name)
        await trio.testing.wait_all_tasks_blocked()
        await session.close()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(waits) == sorted(calls)
        nursery.cancel_scope.cancel()


WRITES: list[Callable[[Core], Awaitable[object]]] = [
    lambda core: core.append(b"abc"),
    lambda core: core.truncate(0),
    lambda core: core.prune(),
    lambda core: core.append_stream().send_all(b"abc"),
    lambda core: core.encoded(JSON).append("abc"),
]


async def test_read_only_sessions(core: Core) -> None:
    async with core.session(read_only=True) as session, session.session() as of_session:
        assert core.is_writable
        await core.append(b"abc")
        for reader in (session, of_session):
            assert not reader.is_writable
            for call in WRITES:
                with pytest.raises(NotWritable, match="read-only"):
                    await call(reader)
            assert await reader.get(0) == b"abc"
    assert core.length == 1


async def test_a_session_that_may_write_does_not_make_a_reader_a_writer(
    store: Corestore,
) -> None:
    reader = await store.get(key=bytes(32))
    async with reader.session() as session:
        assert not session.is_writable
        with pytest.raises(NotWritable):
            await session.append(b"abc")


async def test_exclusive_sessions_come_one_after_the_other(core: Core) -> None:
    order = []

    async def write(name: str) -> None:
        async with core.exclusive_session() as session:
            order.append(name)
            await session.append(name.encode())
            await trio.testing.wait_all_tasks_blocked()
            order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "a")
        nursery.start_soon(write, "b")
    assert order in (["a", "a", "b", "b"], ["b", "b", "a", "a"])
    assert core.length == 2


async def test_giving_up_waiting_for_an_exclusive_session(core: Core) -> None:
    async def write() -> None:
        async with core.exclusive_session() as session:
            await session.append(b"x")

    async with core.exclusive_session():
        with trio.move_on_after(0):
            await write()
        assert core.info().sessions == 2
    await cancel_everywhere(write)
    assert core.info().sessions == 1


async def test_an_unknown_core_is_not_opened_twice_with_two_keys(store: Corestore) -> None:
    core = await store.get(name="secret", encryption_key=b"\x05" * 32)
    with pytest.raises(UsageError, match="another encryption key"):
        await store.get(name="secret", encryption_key=b"\x06" * 32)
    assert core.info().sessions == 1
