"""Following a writer that truncated: the tests about forks in hypercore's test/replicate.js.

Those of its remote contiguous length after a reorg, and of its timer, are with replication. What
the search for the common part does node by node is in `tests/hypercore/test_fork_search.py` and
`tests/hypercore/replication/test_forks.py`; `tests/interop/test_replication.py` has JavaScript.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore import Core, Corestore, open_corestore
from hypercore.replication.messages import PROTOCOL
from tests.support.storage_rows import verify_core
from tests.support.stream_pair import open_mux_pair


@asynccontextmanager
async def replicating(*pairs: tuple[Corestore, Corestore]) -> AsyncIterator[None]:
    """Each pair on a connection of its own, until the block ends."""

    async def connect(one: Corestore, other: Corestore) -> None:
        async with open_mux_pair(PROTOCOL) as (mux, other_mux), trio.open_nursery() as nursery:
            nursery.start_soon(one.replicate, mux)
            nursery.start_soon(other.replicate, other_mux)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for pair in pairs:
                nursery.start_soon(connect, *pair)
            yield
            nursery.cancel_scope.cancel()


async def wait_head(copy: Core, core: Core) -> None:
    """Until the copy has the writer's history."""
    while copy.head != core.head:  # a fork may be shorter, and so no length tells
        await trio.testing.wait_all_tasks_blocked(0.001)


def letters(text: str) -> list[bytes]:
    return [letter.encode() for letter in text]


@pytest.mark.parametrize(
    ("before", "length", "after"), [("abcde", 4, "e"), ("abcdeghijk", 4, "Fghijk")]
)
async def test_from_nothing_to_a_fork(before: str, length: int, after: str) -> None:
    """basic replication from fork; eager replication from bigger fork."""
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await ours.get(name="log")
        await core.append(letters(before))
        await core.truncate(length)
        await core.append(letters(after))
        assert core.fork == 1
        copy = await theirs.get(key=core.key)
        async with replicating((ours, theirs)):
            await copy.wait_length(core.length)
            await copy.download()
        assert copy.head == core.head
        assert copy.statistics().replication.total.blocks_received == core.length
        assert verify_core(theirs.storage, copy.discovery_key) == core.length


@pytest.mark.parametrize("length", [0, 1, 30, 49])
async def test_reconnected_after_a_truncation(length: int) -> None:
    """high latency reorg; contiguous length after fork: only what differs is fetched."""
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await ours.get(name="log")
        await core.append([b"data"] * 50)
        copy = await theirs.get(key=core.key)
        async with replicating((ours, theirs)):
            await copy.wait_length(50)
            await copy.download()
        await core.truncate(length)
        await core.append([b"fork"] * 50)
        async with replicating((ours, theirs)):
            await wait_head(copy, core)
            assert copy.contiguous_length == length
            await copy.download()
        assert (copy.fork, copy.contiguous_length) == (1, length + 50)
        blocks = [block async for block in copy.blocks()]
        assert blocks == [b"data"] * length + [b"fork"] * 50
        assert copy.statistics().replication.total.blocks_received == 100
        assert verify_core(theirs.storage, copy.discovery_key) == length + 50


async def test_several_forks_missed() -> None:
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await ours.get(name="log")
        await core.append([b"data"] * 100)
        copy = await theirs.get(key=core.key)
        async with replicating((ours, theirs)):
            await copy.wait_length(100)
            await copy.download()
        for length in (90, 40, 60):
            await core.truncate(min(length, core.length))
            await core.append([b"fork %d" % length] * 30)
        async with replicating((ours, theirs)):
            await wait_head(copy, core)
            assert copy.fork == 3
            assert copy.contiguous_length == 40
            await copy.download()
        assert verify_core(theirs.storage, copy.discovery_key) == core.length


async def test_passed_on_by_a_sparse_peer() -> None:
    """fork gossip with oob batch."""
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_corestore(None) as third,
    ):
        core = await ours.get(name="log")
        await core.append([b"."] * 10_000)
        middle, far = await theirs.get(key=core.key), await third.get(key=core.key)
        async with replicating((ours, theirs), (theirs, third)):
            assert await middle.get(9984) == b"."
            await far.wait_length(10_000)
            await core.truncate(9_999)
            await wait_head(far, core)
            assert far.fork == 1
            assert await far.get(9984) == b"."


async def test_cut_and_grown_in_an_atom_while_a_peer_downloads() -> None:
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core, other = await ours.get(name="log"), await ours.get(name="other")
        await core.append([b"old"] * 2000)
        copy, copy_of_other = await theirs.get(key=core.key), await theirs.get(key=other.key)
        async with replicating((ours, theirs)):
            await copy.wait_length(2000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy.download, 0, 1500)
                await copy.get(700)
                async with ours.atom(core, other) as atom:
                    atom[core].truncate(1000)
                    atom[core].append([b"new"] * 700)
                    atom[other].append(b"at once")
            await wait_head(copy, core)
            assert await copy_of_other.get(0) == b"at once"
            await copy.download()
        assert [block async for block in copy.blocks(999, 1001)] == [b"old", b"new"]
        assert verify_core(theirs.storage, copy.discovery_key) == 1700
