"""What is under way, what of it has arrived, and what is lost.

Loss is told by time, not by counting: a packet is lost when one that was sent after it has
arrived, and it is older than a round trip and a bit.

Source: RFC 8985 (RACK), as in libudx (udx-native 1.21.3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.udx.known_ranges import KnownRanges
from swarm.udx.packet import SackRange
from swarm.udx.path import Path
from swarm.udx.round_trip import RoundTrip

_ENOUGH_SACKS = 3
"""This many packets out of order mean a loss, unless the path is known to reorder."""

_ROUNDING_SECONDS = 1e-6  # differences of times are no more exact


class SentPacket:
    """A packet with a sequence number, from when it is cut until it is acknowledged."""

    __slots__ = (
        "delivered",
        "delivered_at",
        "first_sent_at",
        "flags",
        "is_app_limited",
        "path",
        "payload",
        "probe_bytes",
        "sent_at",
        "seq",
        "timeouts",
        "transmissions",
    )

    def __init__(self, seq: int, flags: int, payload: bytes | memoryview, path: Path) -> None:
        self.seq = seq
        self.flags = flags
        self.payload = payload
        self.path = path
        self.transmissions = 0
        self.timeouts = 0
        self.probe_bytes = 0
        """The MTU to which it was padded as a probe; 0 when it is no probe, or no longer one."""
        self.sent_at = self.delivered_at = self.first_sent_at = 0.0
        self.delivered = 0
        self.is_app_limited = False


@dataclass(slots=True)
class Arrivals:
    """What one batch of acknowledgements says has arrived."""

    count: int = 0
    bytes: int = 0
    newest: SentPacket | None = None
    """The one sent last."""
    probed_bytes: int = 0
    """The largest MTU that passed."""


class Flight:
    """The packets between the first one that is not acknowledged and the next one to be sent."""

    def __init__(self, round_trip: RoundTrip) -> None:
        self.unacked_seq = 0
        """Everything before has arrived."""
        self.next_seq = 0
        self.sacked = 0
        """Packets that have arrived beyond `unacked_seq`."""
        self.has_seen_reordering = False
        self._round_trip = round_trip
        self._sent: OrderedDict[int, SentPacket] = OrderedDict()  # by time of sending
        self._lost: OrderedDict[int, SentPacket] = OrderedDict()  # to be sent again
        self._sacked_ranges = KnownRanges()
        self._rack_sent_at = -1.0  # of the packet sent last among those that arrived
        self._rack_next_seq = 0
        self._rack_seconds = 0.0
        self._highest_arrived = 0  # one past the highest seq that arrived

    @property
    def in_flight(self) -> int:
        """Packets that are neither acknowledged nor lost."""
        return len(self._sent)

    @property
    def lost_count(self) -> int:
        return len(self._lost)

    @property
    def is_empty(self) -> bool:
        """Whether everything sent was acknowledged."""
        return self.unacked_seq == self.next_seq

    def start_at(self, seq: int) -> None:
        """Both ends agreed to begin here. Requires that nothing was sent."""
        self.unacked_seq = self.next_seq = self._rack_next_seq = self._highest_arrived = seq

    def add(self, packet: SentPacket) -> None:
        """The packet leaves now, for the first time or again."""
        packet.transmissions += 1
        self._sent[packet.seq] = packet
        if packet.seq == self.next_seq:
            self.next_seq += 1

    def pop_lost(self) -> SentPacket:
        """The next packet to send again. Requires `lost_count`."""
        return self._lost.popitem(last=False)[1]

    def pop_last(self) -> SentPacket | None:
        """The packet with the highest number, to send it again, if it is under way."""
        return self._sent.pop(self.next_seq - 1, None)

    def acknowledge(self, ack: int, now: float, arrivals: Arrivals) -> None:
        """Everything before `ack` has arrived. Requires unacked_seq <= ack <= next_seq."""
        expected = self.sacked
        self.sacked -= (ack - self.unacked_seq) - self._take(self.unacked_seq, ack, now, arrivals)
        assert 0 <= self.sacked <= expected
        self.unacked_seq = ack
        self._sacked_ranges.forget_before(ack)

    def acknowledge_ranges(
        self, ranges: Sequence[SackRange], now: float, arrivals: Arrivals
    ) -> None:
        """These have arrived, too. Requires unacked_seq <= start < stop <= next_seq of each."""
        # What was told before is not looked through again: with hundreds of packets under way a
        # range that grows by one would be most of the work at 1 % loss, and ranges that overlap,
        # in one packet or one after the other, would keep us from everything else.
        for start, stop in ranges:
            for first, last in self._sacked_ranges.add(start, stop):
                self.sacked += self._take(first, last, now, arrivals)

    def find_lost(self, now: float, *, is_eager: bool) -> tuple[list[SentPacket], float | None]:
        """Move what is lost to what is sent again; also say when to look again.

        With `is_eager`, a packet that others have overtaken is not given any more time, unless
        the path was seen to reorder.
        """
        minimum, smoothed = self._round_trip.minimum, self._round_trip.smoothed
        patience = 0.0
        if self.has_seen_reordering or not (is_eager or self.sacked >= _ENOUGH_SACKS):
            patience = min((minimum or 0.0) / 4, smoothed or 0.0)
        patience += self._rack_seconds
        lost: list[SentPacket] = []
        look_again: float | None = None
        newest, newest_seq = self._rack_sent_at, self._rack_next_seq - 1
        for packet in self._sent.values():
            if packet.sent_at > newest:
                break
            if packet.sent_at == newest and packet.seq >= newest_seq:
                continue
            if packet.sent_at + patience > now:
                look_again = packet.sent_at + patience
                break
            lost.append(packet)
        self._lose(lost)
        return lost, look_again

    def find_timed_out(self, now: float) -> list[SentPacket]:
        """After a timeout: the first packet is lost, and all that are older than a round trip."""
        oldest = now - self._rack_seconds
        first = self.unacked_seq
        lost = [p for p in self._sent.values() if p.seq == first or p.sent_at < oldest]
        for packet in lost:
            packet.timeouts += 1
        self._lose(lost)
        # The first packet goes first, whenever it was lost.
        self._lost = OrderedDict(sorted(self._lost.items()))
        return lost

    def forget_probes(self) -> None:
        """What is under way says nothing of the MTU any more."""
        for packets in (self._sent, self._lost):
            for packet in packets.values():
                packet.probe_bytes = 0

    def clear(self) -> None:
        """Forget everything, since nobody will hear of it."""
        self._sent.clear()
        self._lost.clear()
        self._sacked_ranges.clear()

    def _lose(self, packets: list[SentPacket]) -> None:
        for packet in packets:
            del self._sent[packet.seq]
            self._lost[packet.seq] = packet

    def _take(self, start: int, stop: int, now: float, arrivals: Arrivals) -> int:
        """Remove packets that have arrived; return how many of them are news."""
        sent, lost = self._sent, self._lost
        newest = arrivals.newest
        count = 0
        for seq in range(start, stop):
            packet = sent.pop(seq, None)
            if packet is None:
                packet = lost.pop(seq, None)
                if packet is None:
                    continue
            count += 1
            arrivals.bytes += len(packet.payload)
            if newest is None or packet.sent_at >= newest.sent_at:
                newest = packet
            if seq + 1 < self._highest_arrived and packet.transmissions == 1:
                self.has_seen_reordering = True
            if packet.probe_bytes > arrivals.probed_bytes:
                arrivals.probed_bytes = packet.probe_bytes
        if count:
            arrivals.count += count
            arrivals.newest = newest
            self._highest_arrived = max(self._highest_arrived, stop)
            assert newest is not None
            self._note_newest(newest, now)
        return count

    def _note_newest(self, packet: SentPacket, now: float) -> None:
        """Remember the packet that was sent last, unless its answer is to an earlier copy."""
        seconds = now - packet.sent_at
        least = (self._round_trip.minimum or 0.0) - _ROUNDING_SECONDS
        if packet.transmissions > 1 and seconds < least:
            return
        self._rack_seconds = seconds
        if (packet.sent_at, packet.seq + 1) > (self._rack_sent_at, self._rack_next_seq):
            self._rack_sent_at = packet.sent_at
            self._rack_next_seq = packet.seq + 1
