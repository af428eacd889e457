"""What one peer has, wants, was told and still owes us: the peer's side of the scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from bitarray import bitarray
from pyroaring import BitMap64

from hypercore.block_sets import blocks_from, first_of
from hypercore.encoding import MAX_UINT
from hypercore.errors import RemoteProtocolError
from hypercore.log import Head
from hypercore.replication.beyond_end import BeyondEnd
from hypercore.replication.expected import PATIENCE_SECONDS, ExpectedPushes
from hypercore.replication.hotswap import Speed
from hypercore.replication.inflight import Inflight, InflightRequest
from hypercore.replication.messages import HaveBits, Range, Sync
from hypercore.replication.statistics import Counters, WireCounts
from hypercore.replication.uploads import Uploads
from hypercore.replication.wants import ReceivedWants, SentWants

MAX_TRACKED = 1 << 32
"""Blocks above this are known of a peer only as part of its contiguous prefix."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a peer was probed, and until when it may answer."""

    error: RemoteProtocolError
    deadline: float


@dataclass(slots=True)
class Reports:
    """Proofs of its whole history that a peer was asked for, or sent, without being suspected."""

    compared_at: float = -inf
    awaited: int = 0
    """Asked for, and not received yet."""

    idle: int = 0
    """Proofs that nobody asked for and that show nothing new."""


@dataclass(slots=True)
class Claims:
    """Heads that the peer has said it has."""

    has_proven: bool = False
    """The peer has proven one to us on this channel."""

    asked: int = 0
    """How often it was asked for its head since it proved one."""

    waited_in_vain: tuple[Head, Sync | None] | None = None
    """Our head and the peer's sync when an update ceased to wait for more from the peer."""

    shown: Head | None = None
    """The last head that the peer has proven to us on this channel, of any history."""

    def proven(self, head: Head) -> None:
        self.has_proven = True
        self.shown = head
        self.asked = 0


class RemotePeer:
    """One peer of one core, from its handshake to the end of its channel."""

    def __init__(self, uploads: Uploads, counters: Counters, public_key: bytes = b"") -> None:
        self.public_key = public_key
        self.uploads = uploads
        self.counters = counters
        self.wire = WireCounts()
        self.inflight = Inflight()
        self.speed = Speed()
        self.expected = ExpectedPushes()
        self.sync: Sync | None = None
        """What the peer last said of itself."""

        self.sent_sync: Sync | None = None
        self.sent_contiguous = 0
        """The contiguous length that we announced last."""

        self.refused_length = -1
        """The peer had no proof of its way to this length; do not ask for it again."""

        self.was_asked_manifest = False
        self.was_allowed_push = False
        self.claims = Claims()
        self.refused_fork = -1
        """The peer had no proof of this fork."""

        self.suspicion: Suspicion | None = None
        """Why it was asked for its whole head, when what it sent does not fit what we hold."""

        self.has_answered_probe = False
        """The peer showed its head, and that was of no other history than ours."""

        self.reports = Reports()

        self.knows_conflict = False
        """The peer was sent the evidence that the core's writer signed two histories."""

        self.parked: list[InflightRequest] = []
        """Open requests whose answer came before the nodes it builds on."""

        self.common_length: int | None = None
        """What is left of the history that it was told of last, if ours was cut since."""

        self.sent_wants = SentWants()
        self.received_wants = ReceivedWants()
        self._beyond = BeyondEnd(self.sent_wants)
        self.outbox: list[tuple[int, bytes]] = []
        self.last_extension_sent = self.last_extension_received = ""
        self.is_gone = False
        self._contiguous = 0
        self._others = BitMap64()
        self._lacks = BitMap64()

    def truncating(self, length: int) -> None:
        """Our log is about to be cut to that length."""
        before = self.common_length
        self.common_length = length if before is None else min(before, length)

    @property
    def contiguous_length(self) -> int:
        return self._contiguous

    @property
    def length(self) -> int:
        return self.sync.length if self.sync else 0

    @property
    def told_length(self) -> int:
        """The length that we announced to it."""
        return self.sent_sync.length if self.sent_sync else 0

    @property
    def push_patience_seconds(self) -> float:
        """For how long nothing may come of what the peer has announced."""
        return max(PATIENCE_SECONDS, 4 * self.inflight.best_guess)

    @property
    def deadline(self) -> float:
        """When something is due for it even though nothing happens."""
        # All peers of a core are asked after each message: of 200, `min` took 58 us, this takes 41.
        expected, uploads = self.expected.deadline, self.uploads.deadline
        return expected if expected < uploads else uploads  # noqa: FURB136

    # --- what it has ---------------------------------------------------------------------

    def receive_range(self, message: Range, length: int) -> None:
        """Note what the peer got or dropped; beyond `length` (ours) the prefix and one more run."""
        start = message.start
        # No log is longer, and the peer's contiguous length is kept on the disk, as one integer.
        end = min(start + message.length, MAX_UINT)
        known = min(length, MAX_TRACKED)
        if message.drop:
            self._beyond.drop(start, end)
            if start < self._contiguous:
                self._keep(end, min(self._contiguous, known))
                if max(end, known) < self._contiguous:
                    self._note_beyond(max(end, known), self._contiguous)
                self._contiguous = start
            if start < min(end, known):
                self.sent_wants.note_told(start, min(end, known))
                self._others.remove_range(start, min(end, known))
                self.uploads.sent.remove_range(start, min(end, known))
        elif start <= self._contiguous:
            self._contiguous = max(self._contiguous, end)
            if self._lacks:
                self._lacks.remove_range(start, min(end, MAX_TRACKED))
        else:
            if start < min(end, known):
                self._others.add_range(start, min(end, known))
                self._lacks.remove_range(start, min(end, known))
            if end > known:
                self._note_beyond(max(start, known), end)

    def _note_beyond(self, start: int, stop: int) -> None:
        self._beyond.note(start, stop)
        run = self._beyond.run
        self._lacks.remove_range(run.start, min(run.stop, MAX_TRACKED))

    def reached(self, length: int) -> None:
        """Our log has `length` blocks now."""
        run = self._beyond.reached(min(length, MAX_TRACKED))
        if run:
            self._others.add_range(run.start, run.stop)

    def receive_bits(self, message: HaveBits, length: int) -> None:
        """Take over a bitfield: for the blocks it covers it is the whole truth."""
        start = message.start
        known = min(length, MAX_TRACKED)
        bits = bitarray(endian="little")
        bits.frombytes(message.words)
        stop = min(start + len(bits), known)
        ahead = _only_run(bits, max(0, stop - start))
        if start >= stop:
            if ahead is not None:
                self._beyond.forgot(start, start + len(bits))
            if bits:
                self._contiguous = min(self._contiguous, start)
                self._beyond.drop(start, start + len(bits))
            return
        self._beyond.drop(start, start + len(bits))
        if ahead:
            self._note_beyond(start + ahead.start, start + ahead.stop)
        elif ahead is not None:
            self._beyond.forgot(stop, start + len(bits))
        del bits[stop - start :]
        if start < self._contiguous:
            self._keep(stop, min(self._contiguous, known))
            self._contiguous = start
        self.sent_wants.note_told(start, stop)
        self._others.remove_range(start, stop)
        self._lacks.remove_range(start, stop)
        self._others |= BitMap64(bits.search(1)).shift(start)

    def _keep(self, start: int, stop: int) -> None:
        """What was known as part of the prefix is known by itself from now on."""
        if start < stop:
            self._others.add_range(start, stop)

    def lacks(self, index: int) -> None:
        """The peer has no such block after all; it is not asked again until it announces it."""
        if index < MAX_TRACKED:
            self._others.discard(index)
            self._lacks.add(index)

    def offers(self, index: int) -> bool:
        if index in self._lacks:
            return False
        return index < self._contiguous or index in self._others or index in self._beyond.run

    def next_offered(self, index: int) -> int | None:
        """The first block from `index` on that the peer has, of those that `offered` counts."""
        while index < self._contiguous or self._others:
            if index >= self._contiguous:
                found = first_of(self._others, index)
                if found is None:
                    break
                index = found
            if index not in self._lacks:
                return index
            index += 1
        return None

    def has_told(self, index: int) -> bool:
        """Whether it has said which blocks of this window it has, and can be asked about others."""
        return self.sent_wants.is_told(index) and not self.sent_wants.is_full

    def nearest(self, index: int) -> Iterator[int]:
        """Blocks on both sides of `index` that it has, or was sent on this channel."""
        if self._contiguous:
            yield min(self._contiguous - 1, index)
        for known in (self._others, self.uploads.sent):
            count = known.rank(index) if known else 0  # those up to `index`, itself among them
            if count:
                yield known[count - 1]
            if count < len(known):
                yield known[count]

    def has_range(self, start: int, stop: int) -> bool:
        """Whether the peer has all of [start, stop), as far as is known."""
        start = max(start, self._contiguous)
        if start >= stop or self._others.contains_range(start, stop):
            return True
        run = self._beyond.run
        return run.start <= start and stop <= run.stop

    def may_have(self, index: int) -> bool:
        """Whether asking it for the block could help, now or after a want."""
        if self.sync is None:
            return True
        if index >= self.sync.length or index in self._lacks:
            return False
        return self.offers(index) or not self.sent_wants.is_told(index)

    def offered(self, pool: BitMap64) -> Iterator[int]:
        """Those blocks of `pool` that the peer has, ascending."""
        if self._lacks:
            pool = pool - self._lacks
        if not pool or self._contiguous > pool.max():
            return blocks_from(pool)
        return self._offered_sparsely(pool)

    def _offered_sparsely(self, pool: BitMap64) -> Iterator[int]:
        contiguous = self._contiguous
        if contiguous:
            for index in blocks_from(pool):
                if index >= contiguous:
                    break
                yield index
        if self._others:
            yield from blocks_from(pool & self._others, contiguous)

    # --- what may be asked of it ------------------------------------------------------------

    def proves_blocks(self, fork: int, length: int) -> bool:
        """Whether its proofs can end in our tree of `length` blocks."""
        sync = self.sync
        if sync is None or not sync.uploading or sync.fork != fork or self.is_gone:
            return False
        # A shorter tree than ours ends in other roots; it serves once we proved that we have them.
        return sync.length >= length or (self.sent_sync is not None and self.sent_sync.can_upgrade)

    def can_upgrade_us(self, fork: int, length: int) -> bool:
        """Whether it is ahead of us and has said that it can prove the way from our length."""
        sync = self.sync
        if sync is None or self.is_gone or not sync.uploading:
            return False
        if sync.length <= length or sync.length == self.refused_length:
            return False
        if sync.fork != fork:
            # An empty log has no history to lose: it may start with a later fork.
            return length == 0 and sync.fork > fork
        return sync.can_upgrade and sync.remote_length == length

    def has_left_behind(self, fork: int, length: int) -> bool:
        """Whether it is ahead, knows our length, and cannot prove the way from there."""
        sync = self.sync
        return (
            sync is not None
            and sync.fork == fork
            and sync.length > length
            and sync.remote_length == length
            and not sync.can_upgrade
        )

    def may_upgrade_us(self, fork: int, length: int) -> bool:
        """Whether it can upgrade us, or may say so once it heard of our length."""
        sync = self.sync
        if sync is None:
            return True
        if not sync.uploading or sync.length <= length or sync.length == self.refused_length:
            return False
        if sync.fork != fork:
            return length == 0 and sync.fork > fork
        return sync.can_upgrade or sync.remote_length != length


def _only_run(bits: bitarray, start: int) -> range | None:
    """The only run of ones from `start` on, empty if there are more; None where there is none."""
    first = bits.find(1, start)
    if first < 0:
        return None
    stop = bits.find(0, first)
    if stop < 0:
        return range(first, len(bits))
    return range(first, stop) if bits.find(1, stop) < 0 else range(0)


def soonest_first(peers: Sequence[RemotePeer], now: float) -> Sequence[RemotePeer]:
    """The order in which to ask: those first that answer soonest, last those that claimed in vain.

    Else a peer that refuses at once what it claimed, and claims more, would always be asked next.
    """
    if len(peers) < 2:
        return peers
    return sorted(
        peers,
        key=lambda peer: (
            peer.claims.asked > 1,
            peer.speed.expected_seconds(peer.inflight, len(peer.inflight), now),
        ),
    )
