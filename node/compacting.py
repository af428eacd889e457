"""[trio] Compaction of the data bee in the background: room that comes back by itself.

Each edit of a value leaves dead blocks behind: the row of its session as it was before, and paths
through the tree. When the log has grown by a twentieth, or something was erased, a sample tells
how much of it is dead; above the configured share the bee is compacted beside reads and writes, a
few hundred blocks at a time. A stop or a crash in between leaves a bee that is compacted in part.

Nodes that follow this one's log are noted (`followers`), so that pruning its Merkle tree cuts
nobody off who was away for less than a month.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from bee.bee import Bee
from bee.errors import BeeError
from hypercore.core import Core
from hypercore.encoding import DecodeError
from hypercore.errors import (
    BlockNotAvailable,
    CoreFrozen,
    CorruptStorage,
    NotWritable,
    StorageFailed,
)
from hypercore.replication.departures import Departure
from node.followers import Followers
from node.web.status import CompactionStatus

LOOK_SECONDS = 5.0
"""Between two looks at who is connected, and how long the log is."""

REST_SHARE = 20
"""Estimates, compactions and rewriting files take at most one part in so many of the time."""

RETRY_SECONDS = 60.0
"""How long to wait after a failed write: the disk is full, say, and somebody has to make room."""

_GROWTH_SHARE = 20
_MIN_GROWTH = 256
_FOLLOWERS_KEY = b"followers"
_UNFIT = (BeeError, BlockNotAvailable, CorruptStorage, NotWritable, CoreFrozen)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CompactionOptions:
    """When to compact: both must be reached. `dead_share` None is never."""

    dead_share: float | None = 0.5
    """Dead bytes as a share of those of all blocks held."""
    min_bytes: int = 16 * 2**20
    """Dead bytes."""


class Compacting:
    """Run `run` in a task. `reclaim` makes the files let go of rows that were deleted."""

    def __init__(
        self,
        bee: Bee[bytes, bytes],
        core: Core,
        reclaim: Callable[[], Awaitable[None]],
        options: CompactionOptions,
    ) -> None:
        self._bee = bee
        self._core = core
        self._reclaim = reclaim
        self._options = options
        self.is_member: Callable[[bytes], bool] = lambda _: False
        """Whether a peer of the core is a member of our mesh, or was one, if there is a mesh."""
        self._followers = Followers()
        self._departed: deque[Departure] = deque()
        self._estimated_length = 0
        self._is_woken = False
        self._is_unsaved = False
        self._next_at = -math.inf
        self._status = CompactionStatus()

    def status(self) -> CompactionStatus:
        return self._status

    async def reclaim(self) -> None:
        """Let go of what an erasure left in the files, and look at the bee again.

        Cancel: it is finished first.
        """
        self._is_woken = True
        await self._reclaim()

    async def run(self) -> None:
        """Look, and compact when it is worth it, until cancelled.

        Cancel: the bee is compacted in part; the next run does the rest.
        """
        self._read_followers()
        with self._core.replication.departures.noted() as self._departed:
            await self._look_forever()

    async def _look_forever(self) -> None:
        while True:
            # Not at once: after a start clients come back and load everything.
            await trio.sleep(LOOK_SECONDS)
            if self._look() or self._is_unsaved:
                await self._save_followers()
            if trio.current_time() >= self._next_at and self._is_due():
                started = trio.current_time()
                await self.compact_if_worth()
                took = trio.current_time() - started
                self._next_at = max(self._next_at, trio.current_time() + REST_SHARE * took)

    def _is_due(self) -> bool:
        if self._options.dead_share is None:
            return False
        growth = self._core.length - self._estimated_length
        held = self._core.bitfield.count(0, self._core.length)
        return self._is_woken or growth >= max(_MIN_GROWTH, held // _GROWTH_SHARE)

    async def compact_if_worth(self) -> bool:
        """Estimate how much is dead, and compact if that is above the bounds; returns whether.

        Cancel: as `run`.
        """
        async with self._core.exclusive():
            pass  # while our own log is being fetched back, not all of it can be read
        self._is_woken = False
        self._estimated_length = self._core.length
        try:
            estimate = await self._bee.estimate_dead()
            self._status = self._status.estimated(estimate.byte_share, estimate.size_bytes)
            share = self._options.dead_share
            if (
                share is None
                or estimate.byte_share < share
                or estimate.size_bytes < self._options.min_bytes
            ):
                return False
            await self._compact()
        except _UNFIT as error:
            # The bee is damaged, and says where; reads and writes of the rest go on.
            _log.error("cannot compact", error=str(error))
            return False
        except StorageFailed as error:
            _log.warning("compaction interrupted", error=str(error))
            self._is_woken = True
            self._next_at = trio.current_time() + RETRY_SECONDS
            return False
        return True

    async def _compact(self) -> None:
        started = trio.current_time()
        before = self._status
        _log.info("compacting", dead_share=before.dead_share, dead_bytes=before.dead_bytes)
        self._status = before.begun()
        try:
            done = await self._bee.compact(prune=False)
            pruned = await self._prune()
            await self._reclaim()
        finally:
            self._status = before
        self._estimated_length = self._core.length
        self._status = before.finished(done.blocks, done.size_bytes)
        _log.info(
            "compacted",
            blocks=done.blocks,
            bytes=done.size_bytes,
            blocks_kept=done.kept,
            nodes_moved=done.rewritten,
            subtrees_pruned=pruned,
            seconds=round(trio.current_time() - started, 1),
        )

    async def _save_followers(self) -> None:
        self._is_unsaved = True
        try:
            await self._core.write_local({_FOLLOWERS_KEY: self._followers.encode()})
        except StorageFailed:
            return  # a full disk, say: with the next look
        self._is_unsaved = False

    async def _prune(self) -> int:
        # A member that leaves while blocks are cleared is noted here; from this look until `prune`
        # has listed the connected peers nobody else runs.
        self._look()
        lengths = self._followers.lengths()
        if lengths is None:
            _log.info("not pruned", reason="nodes that are away may be at too many lengths")
            return 0
        return await self._core.prune(lengths)

    def _look(self) -> bool:
        """Note who follows our log; returns whether that has to be written down."""
        peers = [(peer.remote_public_key, peer.length) for peer in self._core.replication.peers]
        now, departed = int(time.time()), list(self._departed)
        self._departed.clear()
        return self._followers.look(peers, self._core.length, now, self.is_member, departed)

    def _read_followers(self) -> None:
        record = self._core.get_local_value(_FOLLOWERS_KEY)
        if record is None:
            return
        try:
            self._followers = Followers.decode(record, self._core.length, int(time.time()))
        except DecodeError as error:
            _log.warning("followers unreadable", error=str(error))
