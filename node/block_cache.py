"""[trio] Blocks of other nodes' cores are a cache: beyond its limit the least used ones go.

What was merged lives on in this node's own core, so a block of another core is only good for not
having to be fetched again. Mirrors are safe, and so is what was used in the last seconds.

Ranges of 1,024 blocks are given up, one commit for each, until the cache is a tenth below its
limit. Peers are told, as of every block that is cleared. The disk gets the room back when the
database rewrites its files, as it does by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import trio

from hypercore.bitfield import PAGE_BITS, Bitfield
from hypercore.core import Core
from hypercore.corestore import Corestore
from hypercore.errors import HypercoreError
from node.mesh.block_uses import RANGE_BLOCKS, RANGE_SHIFT, BlockUses
from node.web.status import CacheStatus
from swarm.io.tasks import open_background_nursery

TRIM_SECONDS = 5.0
"""How often the cache is measured. What was used in about two of these spans is safe, and may
exceed the limit."""

_TARGET = 0.9
_SAFE_TICKS = 2

_log = structlog.get_logger(__name__)

Kept = Callable[[], Mapping[bytes, tuple[int, int | None]]]
"""Blocks [start, stop) that are to stay, by the key of their core."""


@dataclass(slots=True)
class _Range:
    """What is held of one range: `count` blocks of `size` bytes."""

    count: int
    size: int


class BlockCache:
    """Measures and trims; run `run`, or call `trim`."""

    def __init__(self, store: Corestore, uses: BlockUses, limit_bytes: int, kept: Kept) -> None:
        self._store = store
        self._uses = uses
        self._limit = limit_bytes
        self._kept = kept
        self._ranges: dict[bytes, dict[int, _Range]] = {}
        """What may be given up, by discovery key and number of the range."""
        self._keys: dict[bytes, bytes] = {}
        self._closed_measured: set[bytes] = set()
        self._evicted_blocks = 0
        self._evicted_bytes = 0

    def statistics(self) -> CacheStatus:
        ranges = [item for core in self._ranges.values() for item in core.values()]
        return CacheStatus(
            limit=self._limit,
            bytes=sum(item.size for item in ranges),
            blocks=sum(item.count for item in ranges),
            evicted_blocks=self._evicted_blocks,
            evicted_bytes=self._evicted_bytes,
        )

    async def run(self) -> None:
        """Trim every few seconds, until cancelled. Cancel: as `trim`."""
        while True:
            try:
                await self.trim()
            except HypercoreError as error:
                # A bad disk, or a core that was purged meanwhile: what is left is measured again.
                _log.warning("cache not trimmed", reason=str(error))
            await trio.sleep(TRIM_SECONDS)

    async def trim(self) -> None:
        """Measure what is cached, and give up the least used ranges beyond the limit.

        Raises: what clearing raises. Cancel: what was given up is gone.
        """
        await self._measure()
        self._uses.tick += 1
        total = self.statistics().bytes
        if total <= self._limit:
            return
        target = self._limit * _TARGET
        before = self._evicted_blocks, self._evicted_bytes
        for discovery_key, number in self._by_use():
            if total <= target:
                break
            total -= await self._evict(discovery_key, number)
            await trio.lowlevel.checkpoint()
        _log.info(
            "cache trimmed",
            blocks=self._evicted_blocks - before[0],
            bytes=self._evicted_bytes - before[1],
            bytes_left=total,
        )

    def _by_use(self) -> list[tuple[bytes, int]]:
        """Ranges that may go, those not used for longest first."""
        newest = self._uses.tick - _SAFE_TICKS
        found: list[tuple[int, bytes, int]] = []
        for discovery_key, ranges in self._ranges.items():
            uses = self._uses.of(self._keys[discovery_key])
            found.extend(
                (used, discovery_key, number)
                for number in ranges
                if (used := uses.get(number, -1)) < newest
            )
        return [(discovery_key, number) for _, discovery_key, number in sorted(found)]

    async def _evict(self, discovery_key: bytes, number: int) -> int:
        """Give up one range; returns its bytes. Raises: what clearing raises."""
        core = await self._store.find(discovery_key)
        held = self._ranges[discovery_key].pop(number)
        if core is None:
            return held.size
        try:
            start, stop = self._bounds(core, number)
            kept = self._kept().get(core.key)
            for first, last in _without(start, stop, kept):
                self._evicted_blocks += await core.clear(first, last)
            self._evicted_bytes += held.size
            self._uses.forget(core.key, number)
        finally:
            await core.close()
        return held.size

    async def _measure(self) -> None:
        """Look at open cores, and once at those that are not."""
        open_keys = set()
        for core in self._store.open_cores():
            open_keys.add(core.discovery_key)
            self._closed_measured.discard(core.discovery_key)
            await self._measure_core(core)
        stored = set(self._store.discovery_keys())
        for gone in self._ranges.keys() - stored:
            del self._ranges[gone]
        for discovery_key in stored - open_keys - self._closed_measured:
            closed = await self._store.find(discovery_key)
            if closed is None:
                continue
            try:
                await self._measure_core(closed)
            finally:
                await closed.close()
            self._closed_measured.add(discovery_key)

    async def _measure_core(self, core: Core) -> None:
        if core.is_writable or core.is_closed:
            return
        before = self._ranges.get(core.discovery_key, {})
        ranges: dict[int, _Range] = {}
        uses = self._uses.of(core.key)
        kept = self._kept().get(core.key)
        for number in _marked_ranges(core.bitfield):
            start, stop = self._bounds(core, number)
            pieces = _without(start, stop, kept)
            count = sum(core.bitfield.count(first, last) for first, last in pieces)
            if not count:
                continue
            earlier = before.get(number)
            if earlier is not None and earlier.count == count:
                ranges[number] = earlier
                continue
            if earlier is not None and count > earlier.count:
                uses[number] = self._uses.tick
            ranges[number] = _Range(count, _held_bytes(core, pieces))
            await trio.lowlevel.checkpoint()
        self._ranges[core.discovery_key] = ranges
        self._keys[core.discovery_key] = core.key

    @staticmethod
    def _bounds(core: Core, number: int) -> tuple[int, int]:
        start = number << RANGE_SHIFT
        return start, min(start + RANGE_BLOCKS, core.length)


def _marked_ranges(held: Bitfield) -> Iterator[int]:
    """Ranges that may hold blocks, in order; the length is only what its writer says it is."""
    for page in held.pages():
        first = page * PAGE_BITS >> RANGE_SHIFT
        yield from range(first, first + (PAGE_BITS >> RANGE_SHIFT))


def _without(start: int, stop: int, kept: tuple[int, int | None] | None) -> list[tuple[int, int]]:
    """[start, stop) without what is kept."""
    if kept is None:
        return [(start, stop)]
    first, last = kept[0], stop if kept[1] is None else kept[1]
    pieces = [(start, min(stop, first)), (max(start, last), stop)]
    return [(begin, end) for begin, end in pieces if begin < end]


def _held_bytes(core: Core, pieces: list[tuple[int, int]]) -> int:
    """Bytes of the blocks that are here, as their leaves tell."""
    total = 0
    for start, stop in pieces:
        for index in range(start, stop):
            if core.bitfield.get(index):
                leaf = core.read_node(2 * index)
                total += 0 if leaf is None else leaf.size
    return total


@asynccontextmanager
async def open_block_cache(
    store: Corestore, uses: BlockUses, limit_bytes: int, kept: Kept
) -> AsyncIterator[BlockCache]:
    """A cache that is kept within its limit until the block ends."""
    async with open_background_nursery() as nursery:
        cache = BlockCache(store, uses, limit_bytes, kept)
        nursery.start_soon(cache.run)
        yield cache
