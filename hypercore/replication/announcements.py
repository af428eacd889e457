"""Telling peers where we stand: lengths (sync) and blocks (range).

**What is announced is durable.** The head in memory may be ahead of the disk. Peers are told of,
and are given proofs of, the last head that the disk has: a length that a power cut takes back,
signed again with another history, would be a fork of our own making.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf

from hypercore import flat_tree
from hypercore.log import Head
from hypercore.replication.messages import MessageType, Range, Sync
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog

LAST_BLOCKS = 256
"""New blocks this close to the end are announced to every peer; older ones where wanted."""

MAX_UNSYNCED_HEADS = 64
"""Heads remembered until they are durable; beyond that the newest takes the last one's place."""


class Announcer:
    """What was announced of one log, and what is to be."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self._unsynced: deque[Head] = deque()
        self.served = log.head
        """The last durable head: what peers are told of and get proofs of."""
        self.due_at = inf
        """When what is held back is to be announced at the latest."""
        self._waiting: tuple[int, int] | None = None

        if log.durable_length < log.head.length:
            self.served = Head(log.head.fork, 0, 0, ())
        self.advance()

    def advance(self) -> tuple[int, int] | None:
        """Look at the log again; returns the (start, stop) of blocks that are newly served."""
        head = self._log.head
        served = self.served
        unsynced = self._unsynced
        if head is not served and (not unsynced or unsynced[-1] is not head):
            while unsynced and unsynced[-1].fork == head.fork and unsynced[-1].length > head.length:
                unsynced.pop()  # the disk lost it, and the log was read anew
            if len(unsynced) == MAX_UNSYNCED_HEADS:
                unsynced.pop()
            unsynced.append(head)
        durable_length = self._log.durable_length
        while unsynced:
            oldest = unsynced[0]
            if oldest.fork == head.fork and oldest.length > durable_length:
                break
            unsynced.popleft()
            if oldest.fork == head.fork:
                self.served = oldest
        if self.served.fork != served.fork or self.served.length <= served.length:
            return None
        start = served.length
        held = min(self._log.bitfield.first_unset(start), self.served.length)
        return (start, held) if held > start else None

    def hold_back(self, run: tuple[int, int] | None, delay_seconds: float, now: float) -> bool:
        """Whether what is newly served can be announced later, with more; `due_at` says when."""
        if run is not None:
            self._waiting = (run[0] if self._waiting is None else self._waiting[0], run[1])
        self.due_at = min(self.due_at, now + delay_seconds)
        return now < self.due_at

    @property
    def is_holding_back(self) -> bool:
        return self.due_at < inf

    @property
    def held_back(self) -> list[tuple[int, int]]:
        """The runs of blocks that are to be announced."""
        return [] if self._waiting is None else [self._waiting]

    def take_held_back(self) -> list[tuple[int, int]]:
        """As `held_back`; the caller announces them now."""
        held_back, self._waiting, self.due_at = self.held_back, None, inf
        return held_back

    def sync(self, peer: RemotePeer, *, is_downloading: bool, allows_push: bool = False) -> None:
        """Send where we stand, unless the peer knows all that matters to it."""
        head = self.served
        theirs = peer.sync
        is_same_fork = theirs is not None and theirs.fork == head.fork
        sync = Sync(
            fork=head.fork,
            length=head.length,
            remote_length=theirs.length if theirs is not None and is_same_fork else 0,
            can_upgrade=self._can_upgrade(peer),
            uploading=True,
            downloading=is_downloading,
            has_manifest=self._log.verifier is not None
            and not self._log.verifier.is_compat
            and self._log.manifest is not None,
            allow_push=allows_push,
        )
        sent = peer.sent_sync
        if sent is not None:
            # A peer that is not behind us does not act on these two; one behind us waits for them.
            is_behind = theirs is not None and is_same_fork and theirs.length < head.length
            is_news = is_behind and (
                sent.remote_length != sync.remote_length or sent.can_upgrade != sync.can_upgrade
            )
            if not is_news and (
                sent.fork == sync.fork
                and sent.length == sync.length
                and sent.downloading == sync.downloading
                and sent.has_manifest == sync.has_manifest
                and sent.allow_push == sync.allow_push
            ):
                return
        peer.sent_sync = sync
        if sent is None or sent.fork == sync.fork:
            peer.outbox.append((MessageType.SYNC, sync.encode()))
        else:
            self._change_history(peer, sent.length, sync)

    def _change_history(self, peer: RemotePeer, old_length: int, sync: Sync) -> None:
        """Announce that blocks of the old history are gone, from where it parted at the latest.

        What is here from there on is told: all that is behind a gap the peer may know only from
        what it was told once.
        """
        length = self.served.length
        contiguous = min(self._log.contiguous_length, length)
        common = max(contiguous, min(peer.common_length or 0, length))
        peer.common_length = None
        peer.sent_contiguous = min(peer.sent_contiguous, common)
        if old_length > common:
            dropped = Range(common, old_length - common, drop=True)
            peer.outbox.append((MessageType.RANGE, dropped.encode()))
        peer.outbox.append((MessageType.SYNC, sync.encode()))
        held = min(self._log.bitfield.first_unset(common), length)
        if contiguous < length and held > common:
            peer.outbox.append((MessageType.RANGE, Range(common, held - common).encode()))

    def _can_upgrade(self, peer: RemotePeer) -> bool:
        """Whether we can prove the way from the peer's length to ours: we have its roots."""
        head = self.served
        theirs = peer.sync
        if theirs is None:
            return head.fork == 0
        if theirs.fork != head.fork:
            return False
        if theirs.length == 0:
            return True
        if theirs.length >= head.length:
            return False
        roots = {root.index for root in head.roots}
        read_node = self._log.read_node
        return all(
            root in roots or read_node(root) is not None
            for root in flat_tree.full_roots(theirs.length)
        )

    def have_all(self, peer: RemotePeer) -> None:
        """The first announcement: our contiguous prefix, if there is one."""
        contiguous = min(self._log.contiguous_length, self.served.length)
        if contiguous > 0:
            peer.sent_contiguous = contiguous
            peer.outbox.append((MessageType.RANGE, Range(0, contiguous).encode()))

    def have(self, peer: RemotePeer, runs: Iterable[tuple[int, int]]) -> None:
        """Announce new blocks, given as half-open runs.

        Once all blocks are here, that is announced once for each length. Before that, the last
        blocks are announced, and those that the peer wants to hear of, if it lacks them.
        """
        length = self.served.length
        contiguous = min(self._log.contiguous_length, length)
        if contiguous == length:
            if contiguous > peer.sent_contiguous:
                peer.sent_contiguous = contiguous
                peer.outbox.append((MessageType.RANGE, Range(0, contiguous).encode()))
            return
        for start, stop in runs:
            end = min(stop, length)
            if start >= end or peer.has_range(start, end):
                continue
            if end + LAST_BLOCKS >= length or peer.received_wants.covers(start, end):
                peer.outbox.append((MessageType.RANGE, Range(start, end - start).encode()))

    def dropped(self, peer: RemotePeer, start: int, stop: int) -> None:
        """Announce that blocks are no longer here."""
        peer.sent_contiguous = min(peer.sent_contiguous, start)
        peer.outbox.append((MessageType.RANGE, Range(start, stop - start, drop=True).encode()))


def runs_of(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Block numbers as half-open runs, in order."""
    runs: list[tuple[int, int]] = []
    start = stop = -1
    for index in sorted(indices):
        if index != stop:
            if start >= 0:
                runs.append((start, stop))
            start = index
        stop = index + 1
    if start >= 0:
        runs.append((start, stop))
    return runs
