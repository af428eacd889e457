"""A reader that was away while its writer pruned the tree that leads on from where it is."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore import Core, Corestore, open_corestore
from hypercore.replication.settings import ReplicationSettings
from tests.support.memory_mux import FIRST_KEY, SECOND_KEY
from tests.support.replicating_cores import replicating

SEED = bytes(32)


async def grown(store: Corestore, length: int, text: bytes = b"block") -> Core:
    core = await store.get(name="log")
    await core.append([b"%s %d" % (text, index) for index in range(core.length, length)])
    return core


async def copy_of(core: Core, store: Corestore, writer: bytes | None = FIRST_KEY) -> Core:
    """All of it, as a reader that believes this peer to be the writer."""
    copy = await store.get(key=core.key)
    copy.replication.configure(ReplicationSettings(writer=writer))
    async with replicating(core, copy):
        await copy.download(0, core.length)
    return copy


async def prune(core: Core, stop: int) -> None:
    await core.clear(0, stop)
    await core.prune()


async def settle(core: Core, copy: Core) -> None:
    async with replicating(core, copy):
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_it_begins_anew() -> None:
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await grown(ours, 100)
        copy = await copy_of(core, theirs)
        await grown(ours, 200)
        await prune(core, 150)
        async with replicating(core, copy):
            await copy.wait_length(200)
            assert await copy.get(199) == b"block 199"
            assert not copy.has(0)
            assert (copy.fork, copy.contiguous_length) == (0, 0)
            await grown(ours, 201)
            assert await copy.get(200) == b"block 200", "and goes on"
        assert copy.fork_proof is None


async def test_others_hear_that_it_has_given_up_what_it_had() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_corestore(None) as others,
    ):
        core = await grown(ours, 100)
        copy = await copy_of(core, theirs)
        await grown(ours, 200)
        await prune(core, 150)
        third = await others.get(key=core.key)
        async with replicating(copy, third):
            await third.wait_length(100)
            assert third.peers[0].contiguous_length == 100
            await settle(core, copy)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert third.peers[0].contiguous_length == 0


@pytest.mark.parametrize("writer", [None, SECOND_KEY])
async def test_whoever_is_not_the_writer_is_not_believed(writer: bytes | None) -> None:
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await grown(ours, 100)
        copy = await copy_of(core, theirs, writer)
        await grown(ours, 200)
        await prune(core, 150)
        await settle(core, copy)
        assert copy.length == copy.contiguous_length == 100


async def test_a_writer_that_only_cleared_is_followed_as_ever() -> None:
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await grown(ours, 100)
        copy = await copy_of(core, theirs)
        await grown(ours, 200)
        await core.clear(0, 150)
        await settle(core, copy)
        assert copy.length == 200
        assert copy.contiguous_length == 100


async def test_another_history_of_the_writer_does_not_take_its_place() -> None:
    async with (
        open_corestore(None, primary_key=SEED) as ours,
        open_corestore(None, primary_key=SEED) as again,
        open_corestore(None) as theirs,
    ):
        copy = await copy_of(await grown(ours, 150), theirs)
        core = await grown(again, 200, b"other")
        assert core.key == copy.key
        await prune(core, 190)
        await settle(core, copy)
        assert copy.length == copy.contiguous_length == 150
        assert await copy.get(0) == b"block 0"
