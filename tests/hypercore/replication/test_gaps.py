"""Logs of which some blocks are nowhere to be had: reading them, and following their history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from hypercore import Core, Corestore, Snapshot, open_corestore
from hypercore.crypto import KeyPair
from hypercore.manifest import Manifest
from hypercore.replication.forks import StuckFork
from hypercore.replication.hotswap import MAX_CHECK_SECONDS
from hypercore.replication.messages import HaveBits, MessageType, Sync, Want
from tests.support.claimed_lengths import claimed_around
from tests.support.claiming_peers import stranger
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import of_type
from tests.support.replicating_cores import replicating
from tests.support.replicator_pair import Channel, Node

KEY_PAIR = KeyPair.from_seed(b"\x07" * 32)
KEY = Manifest.single_signer(KEY_PAIR.public_key).key


@asynccontextmanager
async def log_and_copy() -> AsyncIterator[tuple[Corestore, Core, Core]]:
    """An empty log, the store that it is in, and a copy in another store."""
    async with open_corestore(None) as store, open_corestore(None) as other_store:
        core = await store.get(name="log")
        yield store, core, await other_store.get(key=core.key)


def _sync(fork: int, length: int) -> bytes:
    return Sync(fork, length, 0, False, True, True, has_manifest=True, allow_push=False).encode()


def test_who_comes_to_our_history_is_told_again_what_is_here() -> None:
    """JavaScript forgets some of what it was told before: it goes by the blocks that it had."""
    log = MemoryLog(KEY_PAIR)
    log.append([b"old"] * 4)
    node = Node(log)
    channel = Channel(node, Node(MemoryLog(key=KEY)))
    end = channel.ends[0]
    end.receive([(MessageType.SYNC, _sync(0, 4)), (MessageType.WANT, Want(0, 64).encode())], 0.0)
    log.clear(1, 2)
    log.truncate(3)
    log.append([b"new"])
    node.changed()
    end.take(1000)
    end.sent.clear()
    end.receive([(MessageType.SYNC, _sync(1, 4))], 0.0)
    end.take(1000)
    (told,) = of_type(end.sent, MessageType.BITFIELD)
    assert HaveBits.decode(told).words[0] == 0b1101
    # Once: else some bytes, sent again and again, had us look through all of its windows.
    end.sent.clear()
    end.receive([(MessageType.SYNC, _sync(fork, 4)) for fork in (0, 1)], 0.0)
    assert not len(end.peer.uploads)
    log.truncate(3)
    log.append([b"newer"])
    node.changed()
    end.receive([(MessageType.SYNC, _sync(2, 4))], 0.0)
    end.take(1000)
    assert of_type(end.sent, MessageType.BITFIELD)


async def part(core: Core, copy: Core, block: int) -> None:
    """Have the writer part from what it has shown, in blocks that it lacks; the copy holds one."""
    await core.append([b"old %d" % index for index in range(17)])
    async with replicating(core, copy):
        await copy.wait_length(17)
        await copy.get(block)
    await core.truncate(13)
    await core.append([b"new"] * 4)
    await core.clear(8, 16)


async def test_a_block_behind_a_hundred_million_that_nobody_has_is_found() -> None:
    """Its window is asked about when the peer has said that it has nothing before."""
    index = 100_000_000
    async with open_corestore(None) as store, open_corestore(None) as other_store:
        core, copy = await store.get(key=KEY), await other_store.get(key=KEY)
        core.commit([claimed_around(KEY_PAIR, 27, index, b"here")])
        async with replicating(core, copy):
            await copy.wait_length(2**27)
            copy.prefetch(range(2**27))
            await trio.testing.wait_all_tasks_blocked()
            assert await copy.get(index, wait=False) == b"here"


async def test_a_reader_of_an_older_history_gets_all_of_the_new_one_from_who_has_gaps() -> None:
    """What the peer has was told while the reader's log still had its old, shorter end."""
    async with log_and_copy() as (_, core, copy):
        await core.append([b"old"] * 8)
        async with replicating(core, copy):
            await copy.wait_length(8)
            await copy.get(7)
        await core.truncate(5)
        await core.append([b"new"] * 100)
        await core.clear(0, 1)
        async with replicating(core, copy):
            copy.prefetch(range(1, 105))
            await trio.testing.wait_all_tasks_blocked()
            assert copy.head == core.head
            assert copy.has_range(1, 105)


async def test_a_new_history_is_followed_whose_writer_lacks_what_the_reader_lacks_too() -> None:
    """No block is left by way of which it could be asked where the histories part."""
    async with log_and_copy() as (_, core, copy):
        await part(core, copy, 1)
        async with replicating(core, copy):
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert copy.head == core.head
            assert await copy.get(1, wait=False) == b"old 1"
            assert await copy.get(16) == b"new"


async def test_what_a_writer_with_gaps_keeps_of_its_old_history_is_still_to_be_had_of_it() -> None:
    async with log_and_copy() as (_, core, copy):
        await core.append([b"old %d" % index for index in range(30)])
        await core.clear(10, 18)
        async with replicating(core, copy):
            await copy.wait_length(30)
            await copy.get(25)
            await core.truncate(21)
            await copy.wait_change(30, 0)
            assert await copy.get(20) == b"old 20"


async def test_what_a_writer_with_gaps_appends_to_the_place_of_the_old_history_is_told() -> None:
    async with log_and_copy() as (store, core, copy):
        await core.append([b"old %d" % index for index in range(30)])
        await core.clear(10, 18)
        async with replicating(core, copy):
            await copy.wait_length(30)
            await copy.get(25)
            async with store.atom(core) as atom:
                atom[core].truncate(21)
                atom[core].append([b"new"] * 4)
            await copy.wait_change(30, 0)
            assert await copy.get(22) == b"new"


async def test_a_read_goes_on_of_a_block_that_is_in_both_histories() -> None:
    """Its reader holds none of the blocks around it, and has followed the log as it grew."""
    async with log_and_copy() as (_, core, copy):
        async with replicating(core, copy):
            for index in range(17):
                await core.append([b"old %d" % index])
                await copy.wait_length(index + 1)
        snapshot = copy.snapshot()
        read: list[bytes] = []

        async def get(reader: Core | Snapshot) -> None:
            read.append(await reader.get(9))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, copy)
            nursery.start_soon(get, snapshot)
            await trio.testing.wait_all_tasks_blocked()
            await core.truncate(13)
            await core.append([b"new"] * 4)
            async with replicating(core, copy):
                await trio.testing.wait_all_tasks_blocked()
                await trio.testing.wait_all_tasks_blocked()
        assert read == [b"old 9"] * 2
        assert copy.head == core.head


async def test_who_alone_has_blocks_where_two_histories_part_is_told_and_goes_on_without_them() -> (
    None
):
    """They may be the last copies: they are not given up unasked, which nobody could see."""
    async with log_and_copy() as (_, core, copy):
        await part(core, copy, 9)
        async with replicating(core, copy):
            await trio.testing.wait_all_tasks_blocked()
            assert copy.head != core.head
            assert copy.stuck_fork == StuckFork(fork=1, start=8, stop=16)
            await copy.clear(0, 8)
            await trio.testing.wait_all_tasks_blocked()
            assert copy.stuck_fork == StuckFork(fork=1, start=8, stop=16)
            assert await copy.get(9, wait=False) == b"old 9"
            await copy.clear(8, 16)
            await trio.testing.wait_all_tasks_blocked()
            assert copy.head == core.head
            assert copy.replication.stuck_fork is None
            assert await copy.get(16) == b"new"


async def test_what_is_given_up_has_it_follow_beside_one_that_claims_and_is_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with log_and_copy() as (_, core, copy):
        await part(core, copy, 9)
        async with replicating(core, copy):
            await trio.testing.wait_all_tasks_blocked()
            claim = Sync(1, 17, 0, False, True, True, has_manifest=True, allow_push=False)
            async with stranger(copy, claim):
                assert copy.stuck_fork is None, "it may have what the other one lacks"
                await copy.clear(8, 16)
                await trio.sleep(MAX_CHECK_SECONDS)
                assert copy.head == core.head
