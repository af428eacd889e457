"""[trio] What happens to a log, found by comparing when somebody looks: so nothing piles up.

An iterator remembers what it told last and tells what is different now. A reader that looks seldom
gets several appends as one event, and a peer that came and went meanwhile is no event at all;
nobody is ever waited for, and nothing is kept that could grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from hypercore.block_reader import CutWatch
from hypercore.handle import Handle
from hypercore.replication.peer_handle import PeerHandle
from hypercore.replication.statistics import Counters


@dataclass(frozen=True, slots=True)
class Appended:
    """Blocks [start, length) are new, by our own hand or in a head that a peer sent."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """All blocks from `length` on are gone; `fork` is that of the history that goes on."""

    length: int
    fork: int


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """A peer replicates this core from now on."""

    peer: PeerHandle


@dataclass(frozen=True, slots=True)
class PeerRemoved:
    """The peer is gone."""

    peer: PeerHandle


@dataclass(frozen=True, slots=True)
class Downloaded:
    """So many blocks, of so many bytes, came from peers."""

    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """So many blocks, of so many bytes, were sent to peers."""

    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RemoteContiguous:
    """Some connected peer has all blocks below `length`; none has more in a row."""

    length: int


CoreEvent: TypeAlias = (
    Appended | Truncated | PeerAdded | PeerRemoved | Downloaded | Uploaded | RemoteContiguous
)


class CoreEvents:
    """What happens from now on; ends when the core is closed."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._replication = handle.shared.replication
        self._cuts = CutWatch()
        handle.shared.users.histories.add(self._cuts)
        self._length = handle.log.head.length
        self._peers = set(self._replication.peers)
        self._totals = self._replication.totals()
        self._contiguous = self._remote_contiguous()
        self._pending: Iterator[CoreEvent] = iter(())

    def __aiter__(self) -> CoreEvents:
        return self

    async def __anext__(self) -> CoreEvent:
        """Cancel: no event is lost."""
        while True:
            await self._handle.spend(1)
            event = next(self._pending, None)
            if event is not None:
                return event
            if self._handle.is_closed:
                raise StopAsyncIteration
            changes = self._differences()
            if changes:
                self._pending = iter(changes)
            else:
                await self._replication.activity.park()

    def _differences(self) -> list[CoreEvent]:
        events = self._history_changes()
        peers = set(self._replication.peers)
        if peers != self._peers:
            events += [PeerRemoved(peer) for peer in self._peers - peers]
            events += [PeerAdded(peer) for peer in peers - self._peers]
            self._peers = peers
        totals = self._replication.totals()
        if totals != self._totals:
            events += _transfers(self._totals, totals)
            self._totals = totals
        contiguous = self._remote_contiguous()
        if contiguous != self._contiguous:
            self._contiguous = contiguous
            events.append(RemoteContiguous(contiguous))
        return events

    def _history_changes(self) -> list[CoreEvent]:
        events: list[CoreEvent] = []
        head = self._handle.log.head
        cut = self._cuts.take()
        if cut is not None and cut < self._length:
            events.append(Truncated(cut, head.fork))
            self._length = cut
        if head.length > self._length:
            events.append(Appended(self._length, head.length))
        self._length = head.length
        return events

    def _remote_contiguous(self) -> int:
        return max((peer.contiguous_length for peer in self._replication.peers), default=0)


def _transfers(before: Counters, now: Counters) -> list[CoreEvent]:
    events: list[CoreEvent] = []
    if now.blocks_received != before.blocks_received:
        received = now.bytes_received - before.bytes_received
        events.append(Downloaded(now.blocks_received - before.blocks_received, received))
    if now.blocks_sent != before.blocks_sent:
        sent = now.bytes_sent - before.bytes_sent
        events.append(Uploaded(now.blocks_sent - before.blocks_sent, sent))
    return events
