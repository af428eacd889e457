"""Bees of two cores that replicate: what a read takes is pushed, whoever is at the other end."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from bee import Bee
from bee.extension import NAME
from bee.extension_messages import CacheHint, IteratorRequest
from hypercore import Core, open_corestore
from hypercore.corestore import corestore_on
from hypercore.encoding import encode_buffer
from hypercore.replication.expected import PATIENCE_SECONDS
from hypercore.replication.peer_handle import PeerHandle
from hypercore.storage.memory import MemoryStorage
from tests.support.replicating_cores import replicating
from tests.support.storage_rows import lose_blocks

COUNT = 2_000


@asynccontextmanager
async def copies(*, answers: bool = True) -> AsyncIterator[tuple[Core, Core]]:
    """A core with a bee, and a copy of it of which only the head is here."""
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        bee = Bee(core, extension=answers)
        async with bee.batch() as batch:
            for number in range(COUNT):
                await batch.put(b"%05d" % number, b"value %d" % number)
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(core.length)
            yield core, copy


async def test_gets_and_scans_take_hardly_a_request() -> None:
    async with copies() as (_, copy):
        bee = Bee(copy)
        for number in (1_500, 3, 1_999):
            snapshot = bee.snapshot()
            entry = await snapshot.get(b"%05d" % number)
            assert entry is not None
            assert entry.value == b"value %d" % number
            assert snapshot.reads.round_trips <= 2
        snapshot = bee.snapshot()
        found = [entry.key async for entry in snapshot.range(gte=b"00500", lt=b"00600")]
        assert found == [b"%05d" % number for number in range(500, 600)]
        assert snapshot.reads.round_trips <= 2
        total = copy.statistics().replication.total
        assert total.pushes_received > 100
        assert total.requests_sent <= 40
        assert total.answers_ignored <= 40


async def test_gets_from_who_pushes_take_one_round_trip_and_few_blocks() -> None:
    async with copies() as (_, copy):
        bee = Bee(copy)
        assert await bee.get(b"01000") is not None
        await trio.testing.wait_all_tasks_blocked()
        before = copy.statistics().replication.total
        numbers = random.Random(1).sample(range(COUNT), 50)
        for number in numbers:
            snapshot = bee.snapshot()
            entry = await snapshot.get(b"%05d" % number)
            assert entry is not None
            assert entry.value == b"value %d" % number
            assert snapshot.reads.round_trips <= 1
        after = copy.statistics().replication.total
        assert after.requests_sent == before.requests_sent
        # Of the some five nodes on the way most are here by then, and of others one key is enough.
        assert after.blocks_received - before.blocks_received < 4 * len(numbers)
        assert await bee.get_many([b"%05d" % number for number in range(0, COUNT, 7)])


async def test_what_was_cleared_since_is_pushed_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copies() as (_, copy):
        keys = [b"%05d" % number for number in range(0, COUNT, 97)]
        for _ in range(3):
            started, bee = trio.current_time(), Bee(copy)
            for key in keys:
                assert await bee.get(key) is not None
            assert trio.current_time() - started < PATIENCE_SECONDS
            await copy.clear(0, copy.length)


async def test_many_readers_at_once_get_what_they_ask_for() -> None:
    async with copies() as (core, copy):
        bee = Bee(copy)

        async def read(number: int) -> None:
            entry = await bee.get(b"%05d" % number)
            assert entry is not None
            assert entry.value == b"value %d" % number

        async with trio.open_nursery() as nursery:
            for number in range(0, COUNT, 10):
                nursery.start_soon(read, number)
        assert core.statistics().replication.total.invalid_requests == 0


async def test_a_writer_that_goes_on_writing() -> None:
    async with copies() as (core, copy):
        writer, bee = Bee(core), Bee(copy)
        for number in range(30):
            await writer.put(b"new %d" % number, b"1")
            await copy.wait_length(core.length)
            assert await bee.get(b"new %d" % number) is not None
            assert await bee.get(b"%05d" % (number * 50)) is not None


async def test_a_peer_that_announces_blocks_and_sends_none_costs_little(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copies(answers=False) as (core, copy):

        async def lie(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
            hint = CacheHint(tuple(range(1, 120)), pushed=True)
            return [encode_buffer(hint.encode())]

        core.set_extension(NAME, lie)
        bee = Bee(copy)
        started = trio.current_time()
        for number in range(0, COUNT, 100):
            assert await bee.get(b"%05d" % number) is not None
        # It was believed once.
        assert PATIENCE_SECONDS <= trio.current_time() - started < 2 * PATIENCE_SECONDS
        assert not copy.peers[0].keeps_word


async def test_what_a_peer_announced_that_died_comes_from_another_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copies(answers=False) as (core, copy), open_corestore(None) as store:
        dying = await store.get(key=core.key)
        async with replicating(core, dying):
            await dying.wait_length(core.length)
            await dying.download()
        death = trio.CancelScope()
        announced = CacheHint(tuple(range(1, 120)), pushed=True)

        async def announce(_payload: bytes, peer: PeerHandle) -> list[bytes]:
            peer.send_extension(NAME, encode_buffer(announced.encode()))
            await trio.sleep(0.1)
            death.cancel()
            return []

        async def live() -> None:
            with death:
                async with replicating(dying, copy):
                    await trio.sleep_forever()

        dying.set_extension(NAME, announce)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await trio.testing.wait_all_tasks_blocked()
            assert [peer.contiguous_length for peer in copy.peers] == [core.length] * 2
            started = trio.current_time()
            keys = [b"%05d" % number for number in range(120)]
            assert all(await Bee(copy).get_many(keys))
        assert death.cancelled_caught
        assert 0.1 <= trio.current_time() - started < PATIENCE_SECONDS


async def test_pushes_that_nobody_asked_for_are_not_kept() -> None:
    async with copies() as (core, copy):
        core.peers[0].push_blocks(range(100, 200))
        assert (await copy.get(3)) is not None  # it comes after them
        assert copy.get_local(150) is None


async def test_hints_that_name_what_is_not_there() -> None:
    async with copies(answers=False) as (core, copy):

        async def lie(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
            hint = CacheHint((0, core.length, 2**40), pushed=True)
            return [encode_buffer(hint.encode())] * 100

        core.set_extension(NAME, lie)
        assert await Bee(copy).get(b"00100") is not None


async def test_the_newest_entry_comes_with_the_head() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        writer = Bee(core)
        for number in range(200):
            await writer.put(b"%03d" % number, b"old")
        copy = await other.get(key=core.key)
        bee = Bee(copy)
        assert await bee.get_newest(b"100") is None  # nobody to ask
        async with replicating(core, copy):
            with copy.finding_peers():
                entry = await bee.get_newest(b"100")
            assert entry is not None
            assert entry.value == b"old"
            assert bee.version == writer.version
            await writer.put(b"100", b"new")
            await copy.wait_length(core.length)
            entry = await bee.get_newest(b"100")
            assert entry is not None
            assert entry.value == b"new"
            assert copy.statistics().replication.total.pushes_received > 5


async def test_a_bee_whose_core_was_closed_leaves_its_peers_to_the_one_before() -> None:
    """Found in review: a look into a core by another session took the answers with it."""
    async with copies() as (core, copy):
        session = core.session()
        assert await Bee(session).get(b"00001") is not None
        session.release()
        bee = Bee(copy)
        snapshot = bee.snapshot()
        assert await snapshot.get(b"01500") is not None
        assert snapshot.reads.round_trips <= 2
        assert copy.statistics().replication.total.pushes_received > 0


async def test_what_a_peer_asks_for_is_pushed_as_far_as_the_disk_has_it() -> None:
    """Found in review: a block that the disk had lost ended more than the answer."""
    storage = MemoryStorage()
    with corestore_on(storage) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        for number in range(300):
            await bee.put(b"%05d" % number, b"value %d" % number)
        discovery_key = core.discovery_key
    lose_blocks(storage, discovery_key, range(50, 60))
    with corestore_on(storage) as store:
        async with open_corestore(None) as other:
            core = await store.get(name="bee")
            bee = Bee(core)
            copy = await other.get(key=core.key)
            Bee(copy)
            async with replicating(core, copy):
                await copy.wait_length(core.length)
                (peer,) = core.peers
                (theirs,) = copy.peers
                theirs.allow_pushes(1000)
                assert bee.push(peer, [(b"", b"\xff")]) > 0
                copy.send_extension(NAME, encode_buffer(IteratorRequest(300).encode()))
                await trio.testing.wait_all_tasks_blocked()
                assert core.peers == (peer,)
                assert copy.info().blocks_held > 1
