"""Blocks of other nodes' cores, kept within a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair
from hypercore.log import Changeset
from hypercore.manifest import Manifest
from hypercore.replication.messages import PROTOCOL
from node.block_cache import BlockCache
from node.mesh.block_uses import BlockUses, UsedLog
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import connected, open_mesh_node
from tests.node.mesh.test_mesh import upload
from tests.support.claimed_lengths import claimed_length
from tests.support.stream_pair import open_mux_pair

BLOCK = 100
COUNT = 5000  # blocks: ranges 0 to 3 are whole, of range 4 there are 904


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[Corestore, Core, Core]]:
    """A store with a copy of somebody's core, connected to it: (store, copy, original)."""
    async with (
        open_corestore(None) as theirs,
        open_corestore(None) as ours,
        open_mux_pair(PROTOCOL) as (left, right),
        trio.open_nursery() as nursery,
    ):
        original = await theirs.get(name="log")
        await original.append([b"%0100d" % number for number in range(COUNT)])
        copy = await ours.get(key=original.key)
        nursery.start_soon(theirs.replicate, left)
        nursery.start_soon(ours.replicate, right)
        with trio.fail_after(20):
            await copy.wait_length(COUNT)
        yield ours, copy, original
        nursery.cancel_scope.cancel()


def nothing_kept() -> Mapping[bytes, tuple[int, int | None]]:
    return {}


async def grow_old(cache: BlockCache) -> None:
    """What was used until now may go from here on."""
    for _ in range(3):
        await cache.trim()


async def test_the_least_used_ranges_go() -> None:
    async with replicated() as (ours, copy, _):
        own = await ours.get(name="own")
        await own.append([b"x" * 1000] * 1000)
        uses = BlockUses()
        cache = BlockCache(ours, uses, 300_000, nothing_kept)
        await copy.download(0, COUNT)
        await cache.trim()
        assert cache.statistics().bytes == COUNT * BLOCK, "what just came is safe"
        await grow_old(cache)
        statistics = cache.statistics()
        assert statistics.bytes <= 300_000 * 0.9
        assert statistics.blocks == copy.bitfield.count(0, COUNT) == statistics.bytes // BLOCK
        assert statistics.evicted_blocks == COUNT - statistics.blocks
        assert own.bitfield.count(0, 1000) == 1000, "ours is no cache"
        # Range 0 is read again, so it is not the next one to go.
        log = UsedLog(copy, uses)
        with trio.fail_after(20):
            assert await log.get_many([5]) == [b"%0100d" % 5]
            assert log.get_local(5) is not None
            await copy.download(0, COUNT)
        for _ in range(3):
            log.get_local(5)
            await cache.trim()
        assert copy.has_range(0, 1024)
        assert cache.statistics().bytes <= 300_000


async def test_what_is_mirrored_stays() -> None:
    async with replicated() as (ours, copy, _):
        await copy.download(0, COUNT)
        part = BlockCache(ours, BlockUses(), 1, lambda: {copy.key: (1000, 2000)})
        await grow_old(part)
        assert copy.bitfield.count(0, COUNT) == 1000
        assert copy.has_range(1000, 2000)
        assert part.statistics().blocks == 0, "it does not count"
        whole = BlockCache(ours, BlockUses(), 1, lambda: {copy.key: (0, None)})
        await grow_old(whole)
        assert copy.bitfield.count(0, COUNT) == 1000


async def test_a_core_costs_what_is_held_of_it_however_long_it_is_said_to_be() -> None:
    """The whole node waited, every few seconds, while all its ranges were looked at."""
    key_pair = KeyPair.from_seed(bytes(32))
    async with open_corestore(None) as store:
        core = await store.get(manifest=Manifest.single_signer(key_pair.public_key))
        core.commit([claimed_length(key_pair, 45)])
        core.commit([Changeset(blocks=[(1 << 40, bytes(BLOCK))])])
        cache = BlockCache(store, BlockUses(), 0, nothing_kept)
        await cache.trim()
        assert cache.statistics().blocks == 1


async def test_cores_that_are_not_open() -> None:
    async with replicated() as (ours, copy, _):
        await copy.download(0, COUNT)
        key, discovery_key = copy.key, copy.discovery_key
        async with open_corestore(None) as empty:
            assert not BlockCache(empty, BlockUses(), 1, nothing_kept).statistics().bytes
        cache = BlockCache(ours, BlockUses(), 1, nothing_kept)
        await copy.close()
        await grow_old(cache)
        again = await ours.get(key=key)
        assert again.discovery_key == discovery_key
        assert again.bitfield.count(0, COUNT) == 0


async def test_values_stay_readable_when_the_blocks_they_came_in_are_gone() -> None:
    author = Author(1)
    values = [author.value(f"{number}") for number in range(50)]
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload(holder, *(value.edit("[]", with_header=True) for value in values))
        cache = BlockCache(asker.cores, asker.mesh.uses, 1, nothing_kept)
        async with connected(holder, asker):
            for value in values[:25]:
                assert await asker.host.load(value.id) is not None
            await grow_old(cache)
            assert cache.statistics().evicted_blocks > 0
            assert cache.statistics().blocks == 0
            for value in values:
                assert await asker.host.load(value.id) is not None
