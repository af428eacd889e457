"""The sending half of a UDX stream: what leaves when, and what is sent again.

| timer     | runs                                   | then                                      |
|-----------|----------------------------------------|-------------------------------------------|
| timeout   | while anything is under way            | what is overdue is lost, begin anew       |
| tail      | 2 round trips after the last new data  | the last packet goes again, to get a SACK |
| reordered | while a packet may only be late        | it is lost                                |
| window    | while the remote has no room           | a heartbeat asks for news                 |
| pace      | while the rate forbids to send         | the next burst leaves                     |

Source: libudx (udx-native 1.21.3); RFC 6298, RFC 8985.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from swarm.udx.congestion import Bbr, Recovery
from swarm.udx.delivery_rate import DeliveryRate
from swarm.udx.flight import Arrivals, Flight, SentPacket
from swarm.udx.mtu import MtuSearch
from swarm.udx.outgoing import OutgoingBytes, Payload
from swarm.udx.pacer import Pacer, burst_bytes
from swarm.udx.packet import (
    DATA,
    END,
    HEADER_BYTES,
    MAX_PADDING_BYTES,
    MAX_SACK_RANGES,
    Packet,
    SackRange,
    extend_seq,
)
from swarm.udx.path import Path
from swarm.udx.round_trip import RoundTrip

MAX_TIMEOUTS = 6
"""A packet that times out more often than this ends the stream: after 13 s at least."""

MAX_WINDOW_BYTES = 4 * 2**20
"""What a remote may make us keep for it, whatever window it advertises."""

_TAIL_SECONDS = 1.0  # before anything is known of the round trip
_TAIL_ACK_SECONDS = 0.002  # the answer to a single packet may be held back so long


class _End(enum.Enum):
    OPEN = enum.auto()
    QUEUED = enum.auto()
    SENT = enum.auto()


class Sender:
    """Cuts bytes into packets and looks after them until they have arrived."""

    def __init__(self, now: float, first_phase: int) -> None:
        self.round_trip = RoundTrip()
        self.flight = Flight(self.round_trip)
        self.bbr = Bbr(now, first_phase)
        self.mtu = MtuSearch()
        self.remote_window = MAX_WINDOW_BYTES
        self.retransmissions = 0
        self.timeouts = 0
        self.recoveries = 0
        self.is_timed_out = False
        """Whether the remote is given up."""
        self._path: Path | None = None
        self._path_before: Path | None = None  # of the packets before this number
        self._changed_at = 0
        self._rate = DeliveryRate(now)
        self._pacer = Pacer(now)
        self._unsent = OutgoingBytes()
        self._flight_bytes = 0
        self._end = _End.OPEN
        self._recovery = Recovery.OPEN
        self._recovery_ends_at = 0  # a seq
        self._window_seq = self._window_ack = 0  # of the packet that told the window
        self._window_known_at = now
        self._last_sacks: set[SackRange] = set()
        self._heartbeats = 0  # that were not answered
        self._timeout_at: float | None = None
        self._tail_at: float | None = None
        self._reordered_at: float | None = None
        self._window_at: float | None = None
        self._pace_at: float | None = None
        self._tail_seq: int | None = None  # of a probe of the tail that is under way
        self._may_probe_tail = True  # once for each sample of the round trip
        self._wants_tail_probe = False

    @property
    def queued_bytes(self) -> int:
        """Bytes that have not been acknowledged, sent or not."""
        return self._unsent.size + self._flight_bytes

    @property
    def unsent_bytes(self) -> int:
        return self._unsent.size

    @property
    def has_ended(self) -> bool:
        """Whether our end has arrived, and all before it."""
        return self._end is _End.SENT and self.flight.is_empty

    @property
    def deadline(self) -> float | None:
        earliest: float | None = None
        for at in (
            self._pace_at,
            self._reordered_at,
            self._tail_at,
            self._timeout_at,
            self._window_at,
        ):
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def start_at(self, seq: int) -> None:
        """Begin with this number. Requires that nothing was sent."""
        self.flight.start_at(seq)
        self._window_ack = seq

    def expect_from(self, seq: int) -> None:
        """The remote begins with this number."""
        self._window_seq = seq

    def change_path(self, path: Path) -> None:
        """Send new packets this way; those under way go both ways in turn until they arrive."""
        self._path_before, self._path = self._path, path
        self._changed_at = self.flight.next_seq
        self.mtu = MtuSearch(path.max_mtu)
        self.flight.forget_probes()

    def queue(self, data: Payload) -> None:
        """Append bytes, which must not change any more. Requires that no end was queued."""
        self._unsent.add(data)

    def queue_end(self) -> None:
        """There will be no more bytes."""
        if self._end is _End.OPEN:
            self._end = _End.QUEUED

    def clear(self) -> None:
        """Forget everything, since nobody will hear of it."""
        self._unsent.clear()
        self.flight.clear()
        self._flight_bytes = 0
        self._timeout_at = self._tail_at = self._reordered_at = None
        self._window_at = self._pace_at = None

    def receive(self, packets: Sequence[Packet], now: float) -> None:
        """What packets say of those we sent. One batch counts as one acknowledgement.

        Of their SACKs the last one is read, since it repeats the others: that takes a third off
        the work of a sender whose remote answers every packet, as the original does.
        """
        flight = self.flight
        before = ack = flight.unacked_seq
        arrivals = Arrivals()
        last_sack: Packet | None = None
        for packet in packets:
            told = extend_seq(packet.ack, before)
            if told > flight.next_seq:
                continue  # of something that was never sent
            self._heartbeats = 0
            if told >= before:
                self._note_window(packet, told, now)
                ack = max(ack, told)
            if len(packet.sacks) >= MAX_SACK_RANGES:  # perhaps not all, so the next may differ
                self._receive_sacks(packet, now, arrivals)
            elif packet.sacks:
                last_sack = packet
        if ack > before:
            flight.acknowledge(ack, now, arrivals)
        if last_sack is not None:
            self._receive_sacks(last_sack, now, arrivals)
        self._flight_bytes -= arrivals.bytes
        if arrivals.count:
            self._settle(arrivals, now)
        if ack > before or arrivals.count:
            self._restart_timers(now, is_advanced=ack > before)

    def advance(self, now: float) -> bool:
        """A timer ran out; whether a heartbeat is to be sent. `take` has what else is due."""
        if self._pace_at is not None and now >= self._pace_at:
            self._pace_at = None
        if self._reordered_at is not None and now >= self._reordered_at:
            self._find_lost(now)
        if self._tail_at is not None and now >= self._tail_at:
            self._tail_at = None
            if self._tail_seq is None and self._may_probe_tail:
                self._wants_tail_probe = True
                self._timeout_at = now + self.round_trip.timeout
        if self._timeout_at is not None and now >= self._timeout_at:
            self._time_out(now)
        if self._window_at is not None and now >= self._window_at:
            self._heartbeats += 1
            self.is_timed_out |= self._heartbeats > MAX_TIMEOUTS
            self._window_at = now + 2 * self.round_trip.timeout
            return True
        return False

    def take(self, now: float, *, has_more: bool = False) -> list[SentPacket]:
        """Packets that leave now; `has_more` when the user waits to queue more."""
        path = self._path
        if path is None:
            return []
        payload_bytes = self.mtu.mtu - path.overhead_bytes
        packet_bytes = payload_bytes + HEADER_BYTES
        flight, bbr, pacer = self.flight, self.bbr, self._pacer
        rate = bbr.pacing_rate * packet_bytes
        bbr.burst = int(burst_bytes(rate, packet_bytes) / packet_bytes)
        pacer.fill(rate, packet_bytes, now)
        if flight.is_empty and self._rate.is_app_limited:
            pacer.rest(rate, packet_bytes)
        leaving: list[SentPacket] = []
        if self._wants_tail_probe:
            self._wants_tail_probe = False
            self._probe_tail(path, payload_bytes, now, leaving)
        while flight.lost_count and flight.in_flight < bbr.window and pacer.may_send:
            self._send_again(flight.pop_lost(), now, leaving)
        room = min(bbr.window, self._remote_room(payload_bytes))
        new_from = flight.next_seq
        while self._has_new and flight.in_flight < room and pacer.may_send:
            self._send_new(path, payload_bytes, now, leaving)
        if flight.next_seq > new_from:
            self._expect_tail(now)
        self._set_pace(rate, packet_bytes, room, now)
        if not (self._has_new or has_more or flight.lost_count) and flight.in_flight < bbr.window:
            self._rate.run_dry(flight.in_flight)
        return leaving

    @property
    def _has_new(self) -> bool:
        return self._unsent.size > 0 or self._end is _End.QUEUED

    def _remote_room(self, payload_bytes: int) -> int:
        """Packets that the remote has room for: any room is room for one."""
        window = min(self.remote_window, MAX_WINDOW_BYTES)
        return max(1, window // payload_bytes) if window else 0

    def _send_new(
        self, path: Path, payload_bytes: int, now: float, leaving: list[SentPacket]
    ) -> None:
        payload = self._unsent.cut(payload_bytes)
        flags = DATA if payload else 0
        if self._end is _End.QUEUED and not self._unsent.size:
            flags |= END
            self._end = _End.SENT
        packet = SentPacket(self.flight.next_seq, flags, payload, path)
        wanted = self.mtu.wanted
        if wanted is not None and 0 < wanted - path.overhead_bytes - len(payload) <= (
            MAX_PADDING_BYTES
        ):
            packet.probe_bytes = wanted
            self.mtu.start_probe()
        self._flight_bytes += len(payload)
        self._launch(packet, now, leaving)

    def _send_again(self, packet: SentPacket, now: float, leaving: list[SentPacket]) -> None:
        self.retransmissions += 1
        if packet.seq < self._changed_at:
            self._choose_path(packet)
        self._launch(packet, now, leaving)

    def _choose_path(self, packet: SentPacket) -> None:
        """Take turns: the old way may be closed by now, the new one too narrow for this packet."""
        path = self._path if packet.transmissions % 2 == 0 else self._path_before
        if path is not None:
            packet.path = path

    def _launch(self, packet: SentPacket, now: float, leaving: list[SentPacket]) -> None:
        flight = self.flight
        if not flight.in_flight and self._rate.is_app_limited:
            self.bbr.receive_idle_start(now)
        self._rate.stamp(packet, now, is_idle=flight.is_empty)
        flight.add(packet)
        self._pacer.spend(len(packet.payload) + HEADER_BYTES)
        if self._timeout_at is None:
            self._timeout_at = now + self.round_trip.timeout
        leaving.append(packet)

    def _probe_tail(
        self, path: Path, payload_bytes: int, now: float, leaving: list[SentPacket]
    ) -> None:
        """Send something after what may be lost, so that a SACK tells."""
        if self._has_new and self.remote_window > 0:
            self._send_new(path, payload_bytes, now, leaving)
        else:
            packet = self.flight.pop_last()
            if packet is None:
                return
            self._stop_probing_mtu(packet)
            self._send_again(packet, now, leaving)
        self._tail_seq = self.flight.next_seq - 1
        self._may_probe_tail = False

    def _expect_tail(self, now: float) -> None:
        """Decide when to probe the tail, if what was just sent is the last for now."""
        flight = self.flight
        self._tail_at = None
        if flight.is_empty or flight.sacked or self._recovery is not Recovery.OPEN:
            return
        smoothed = self.round_trip.smoothed
        seconds = _TAIL_SECONDS if smoothed is None else 2 * smoothed
        if flight.in_flight + flight.lost_count == 1:
            seconds += _TAIL_ACK_SECONDS
        self._tail_at = now + seconds
        if self._timeout_at is not None:
            self._tail_at = min(self._tail_at, self._timeout_at)

    def _set_pace(self, rate: float, packet_bytes: int, room: int, now: float) -> None:
        flight = self.flight
        is_waiting = flight.lost_count > 0 and flight.in_flight < self.bbr.window
        is_waiting |= self._has_new and flight.in_flight < room
        self._pace_at = None
        if is_waiting:
            self._pace_at = max(now, self._pacer.ready_at(rate, packet_bytes))
        if self._has_new and not self.remote_window and flight.is_empty:
            if self._window_at is None:
                self._window_at = max(now, self._window_known_at + self.round_trip.timeout)
        else:
            self._window_at = None

    def _note_window(self, packet: Packet, ack: int, now: float) -> None:
        """Take the remote's window, unless a newer packet has told it already."""
        seq = extend_seq(packet.seq, self._window_seq)
        if seq > self._window_seq or (seq == self._window_seq and ack >= self._window_ack):
            self.remote_window = packet.window
            self._window_seq, self._window_ack = seq, ack
            self._window_known_at = now

    def _receive_sacks(self, packet: Packet, now: float, arrivals: Arrivals) -> None:
        # At 2 % loss a SACK has 30 ranges of which one is news. Looking for it in a set takes
        # 3 µs, extending the numbers of all of them 40.
        fresh = [pair for pair in packet.sacks if pair not in self._last_sacks]
        self._last_sacks = set(packet.sacks)
        unacked = self.flight.unacked_seq
        stop_seq = self.flight.next_seq
        ranges = [
            (start, stop)
            for start, stop in (
                (extend_seq(low, unacked), extend_seq(high, unacked)) for low, high in fresh
            )
            if unacked <= start < stop <= stop_seq
        ]
        if ranges:
            self.flight.acknowledge_ranges(ranges, now, arrivals)

    def _settle(self, arrivals: Arrivals, now: float) -> None:
        """Learn from what has arrived: time, losses, rate."""
        newest = arrivals.newest
        assert newest is not None
        self.mtu.receive_ack()
        if arrivals.probed_bytes:
            self.mtu.receive_probe_ack(arrivals.probed_bytes)
        seconds: float | None = None
        if newest.transmissions == 1:
            seconds = now - newest.sent_at
            self.round_trip.add(seconds, now)
            self._may_probe_tail = True
        unacked = self.flight.unacked_seq
        if self._tail_seq is not None and unacked > self._tail_seq:
            self._tail_seq = None
        if self._recovery is not Recovery.OPEN and unacked >= self._recovery_ends_at:
            self._recovery = Recovery.OPEN
        lost = self._find_lost(now)
        sample = self._rate.sample(
            newest,
            acked=arrivals.count,
            lost=lost,
            round_trip=seconds,
            minimum=self.round_trip.minimum,
            now=now,
        )
        self.bbr.receive_sample(
            sample, self.flight.in_flight, self._rate.delivered, self._recovery, now
        )

    def _find_lost(self, now: float) -> int:
        """Queue what is lost to be sent again; return how much of it tells of congestion."""
        is_eager = self._recovery is not Recovery.OPEN
        lost, self._reordered_at = self.flight.find_lost(now, is_eager=is_eager)
        congested = sum(not self._stop_probing_mtu(packet) for packet in lost)
        if congested and self._recovery is Recovery.OPEN:
            self.recoveries += 1
            self.bbr.receive_recovery_start()
            self._start_recovery(Recovery.RECOVERY)
        return congested

    def _stop_probing_mtu(self, packet: SentPacket) -> bool:
        """Whether this packet was a probe: it goes again without padding."""
        if not packet.probe_bytes:
            return False
        self.mtu.receive_probe_loss(packet.probe_bytes)
        packet.probe_bytes = 0
        return True

    def _start_recovery(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._recovery_ends_at = self.flight.next_seq
        self._tail_seq = None
        self._tail_at = None

    def _time_out(self, now: float) -> None:
        self.timeouts += 1
        lost = self.flight.find_timed_out(now)
        for packet in lost:
            self._stop_probing_mtu(packet)
            self.is_timed_out |= packet.timeouts > MAX_TIMEOUTS
        self._start_recovery(Recovery.LOSS)
        self.bbr.receive_timeout(self.flight.in_flight)
        self._reordered_at = None
        self._timeout_at = now + 2 * self.round_trip.timeout

    def _restart_timers(self, now: float, *, is_advanced: bool) -> None:
        if self.flight.is_empty:
            self._timeout_at = self._tail_at = self._reordered_at = None
            return
        self._timeout_at = now + self.round_trip.timeout
        if is_advanced:
            self._expect_tail(now)
        elif self.flight.sacked:
            self._tail_at = None
