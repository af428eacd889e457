"""One UDX stream, as a machine: packets in, packets and bytes out.

| state     | is                                         | left by                              |
|-----------|--------------------------------------------|--------------------------------------|
| IDLE      | known by its id; takes data, answers none  | connect, destroy                     |
| CONNECTED | bytes flow, either end may end its half    | both ended, reset, destroy, time out |
| LINGERING | closed; tells a remote that missed it      | a few time-outs of the remote later  |
| GONE      | closed, silent                             |                                      |

There is no handshake: ids, and the first sequence numbers if they are not 0, come from a layer
above. Nothing is authenticated either. Whoever knows an id and a number can end a stream, and that
is all that a packet, however malformed, can do.

Source: libudx of udx-native 1.21.3; what it lacks is LINGERING: there, a remote that missed the
last acknowledgement asks for it until it gives up.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import assert_never

from hypercore.crypto import Entropy, system_entropy
from swarm.udx.flight import SentPacket
from swarm.udx.mtu import BASE_MTU
from swarm.udx.outputs import (
    Closed,
    CloseReason,
    Gone,
    MessageReceived,
    Output,
    Readable,
    RemoteChanged,
    Transmit,
    Writable,
)
from swarm.udx.packet import (
    DATA,
    DESTROY,
    END,
    HEADER_BYTES,
    HEARTBEAT,
    MESSAGE,
    SACK,
    Packet,
    encode_packet,
    encode_sacks,
    extend_seq,
)
from swarm.udx.path import MAX_OVERHEAD_BYTES, Path
from swarm.udx.receiver import MAX_AHEAD_PACKETS, WINDOW_BYTES, Receiver
from swarm.udx.sender import Sender
from swarm.udx.statistics import UdxStatistics

SEND_BUFFER_BYTES = 2**18
"""Unsent bytes beyond which a stream is not `is_writable`; the original's high-water mark."""

LINGER_TIMEOUTS = 8
"""A remote asks again after one time-out, and then after every two: four times. If a fifth of all
packets is lost, one remote in 300 is not told."""


class State(enum.Enum):
    """See the table above."""

    IDLE = enum.auto()
    CONNECTED = enum.auto()
    LINGERING = enum.auto()
    GONE = enum.auto()


class UdxStream:
    """One end of a stream, addressed by the remote as `local_id`; our first packet is `first_seq`.

    Bytes given to it must not change any more. Nothing grows without a bound: unsent
    bytes are the shell's to bound with `is_writable`, and unread ones are bounded by the window.
    """

    def __init__(
        self,
        local_id: int,
        *,
        now: float,
        first_seq: int = 0,
        window_bytes: int = WINDOW_BYTES,
        entropy: Entropy = system_entropy,
    ) -> None:
        self.local_id = local_id
        self._state = State.IDLE
        self._receiver = Receiver(window_bytes)
        self._sender = Sender(now, first_phase=entropy(1)[0] % 7)
        self._sender.start_at(first_seq)
        self._path: Path | None = None
        self._is_ack_due = False
        self._is_end_told = False
        self._is_send_ended = False
        self._was_writable = True
        self._changed_at_seq: int | None = None
        self._advertised = window_bytes
        self._window_bytes = window_bytes
        self._linger_until = 0.0
        self._last_words = b""
        self._bytes_received = self._bytes_sent = 0
        self._packets_received = self._packets_sent = 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def path(self) -> Path | None:
        """Where new packets go; None before it is connected."""
        return self._path

    @property
    def is_readable(self) -> bool:
        """Whether `read` has something to give, the end included."""
        return self._receiver.is_readable or self._receiver.has_ended

    @property
    def buffered_bytes(self) -> int:
        """What has arrived and was not read, with what each piece of it costs."""
        return self._receiver.buffered_bytes

    @property
    def has_read_all(self) -> bool:
        """Whether the remote has ended, and all of it was read."""
        return self._receiver.has_ended and not self._receiver.is_readable

    @property
    def is_writable(self) -> bool:
        return self._state is State.CONNECTED and self._sender.unsent_bytes < SEND_BUFFER_BYTES

    @property
    def has_sent_all(self) -> bool:
        """Whether the remote has all that we sent."""
        return self._sender.queued_bytes == 0 and self._sender.flight.is_empty

    @property
    def max_message_bytes(self) -> int:
        """The largest message that the path is known to carry."""
        if self._path is None:
            return BASE_MTU - MAX_OVERHEAD_BYTES
        return self._sender.mtu.mtu - self._path.overhead_bytes

    @property
    def deadline(self) -> float | None:
        """When `advance` wants to be called."""
        match self._state:
            case State.IDLE | State.GONE:
                return None
            case State.CONNECTED:
                return self._sender.deadline
            case State.LINGERING:
                return self._linger_until
            case _:
                assert_never(self._state)

    def statistics(self) -> UdxStatistics:
        sender = self._sender
        payload_bytes = sender.mtu.mtu - (self._path.overhead_bytes if self._path else 0)
        return UdxStatistics(
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
            packets_received=self._packets_received,
            packets_sent=self._packets_sent,
            packets_dropped=self._receiver.dropped_packets,
            retransmissions=sender.retransmissions,
            timeouts=sender.timeouts,
            recoveries=sender.recoveries,
            round_trip_seconds=sender.round_trip.smoothed,
            min_round_trip_seconds=sender.round_trip.minimum,
            window=sender.bbr.window,
            in_flight=sender.flight.in_flight,
            bandwidth=sender.bbr.bandwidth * payload_bytes,
            mtu=sender.mtu.mtu,
            bbr_state=sender.bbr.state,
            queued_bytes=sender.queued_bytes,
            buffered_bytes=self._receiver.buffered_bytes,
        )

    def connect(self, path: Path, now: float, *, first_ack: int = 0) -> list[Output]:
        """Begin to send; the remote's first packet is `first_ack`. Requires a stream in IDLE."""
        if self._state is not State.IDLE:
            raise RuntimeError(f"cannot connect a stream that is {self._state.name}")
        self._state = State.CONNECTED
        if first_ack:
            self._receiver.start_at(first_ack)
            self._is_end_told = False
            self._sender.expect_from(first_ack)
        self._path = path
        self._sender.change_path(path)
        return self._flush(now, [])

    def change_remote(self, path: Path, now: float) -> list[Output]:
        """Send what is new another way. Requires a connected stream.

        What is under way may still need the old one, which therefore should be kept until
        `RemoteChanged`; when it is gone, this takes a round trip or two more.
        """
        if self._state is not State.CONNECTED:
            raise RuntimeError(f"cannot change the remote of a stream that is {self._state.name}")
        self._path = path
        self._sender.change_path(path)
        self._changed_at_seq = self._sender.flight.next_seq
        return self._flush(now, [])

    def receive(self, packets: Sequence[Packet], now: float) -> list[Output]:
        """Packets for `local_id` that arrived together: they are answered together."""
        self._packets_received += len(packets)
        match self._state:
            case State.IDLE | State.CONNECTED:
                return self._receive(packets, now)
            case State.LINGERING:
                return self._repeat_last_words(packets)
            case State.GONE:
                return []
            case _:
                assert_never(self._state)

    def send(self, data: bytes | memoryview, now: float) -> list[Output]:
        """Queue bytes, and send what may leave. Requires a connected stream without an end."""
        if self._state is not State.CONNECTED or self._is_send_ended:
            raise RuntimeError(f"cannot send on a stream that is {self._state.name} or ended")
        self._sender.queue(data)
        # More may be queued right after this; if not, the next acknowledgement sees it.
        outputs = self._flush(now, [], has_more=True)
        self._was_writable = self.is_writable
        return outputs

    def send_end(self, now: float) -> list[Output]:
        """End our half. Requires a connected stream."""
        if self._state is not State.CONNECTED:
            raise RuntimeError(f"cannot end a stream that is {self._state.name}")
        self._is_send_ended = True
        self._sender.queue_end()
        return self._flush(now, [])

    def send_message(self, data: bytes) -> list[Output]:
        """Send bytes that may be lost, doubled or overtaken.

        Requires a connected stream and at most `max_message_bytes`.
        """
        if self._state is not State.CONNECTED or self._path is None:
            raise RuntimeError(f"cannot send a message on a stream that is {self._state.name}")
        if len(data) > self.max_message_bytes:
            raise ValueError(f"message of {len(data)} bytes, at most {self.max_message_bytes}")
        return [self._transmit(MESSAGE, data)]

    def read(self, max_bytes: int) -> bytes:
        """Take bytes that arrived; empty when there are none (see `has_read_all`)."""
        return self._receiver.read(max_bytes)

    def update_window(self) -> list[Output]:
        """After `read`: tell a remote that was short of room that there is some again."""
        if self._state is not State.CONNECTED:
            return []
        half = self._window_bytes // 2
        if self._advertised > half or self._receiver.window - self._advertised < half // 2:
            return []
        return [self._acknowledge()]

    def widen(self, window_bytes: int) -> list[Output]:
        """Have room for more from now on, and tell the remote."""
        self._window_bytes = window_bytes
        self._receiver.widen(window_bytes)
        return [self._acknowledge()] if self._state is State.CONNECTED else []

    def destroy(self, now: float) -> list[Output]:
        """Close at once, whatever is under way."""
        match self._state:
            case State.IDLE:
                self._state = State.GONE
                return [Closed(CloseReason.DESTROYED), Gone()]
            case State.CONNECTED:
                farewell = self._transmit(DESTROY)
                self._last_words = farewell.datagrams[0]
                return [farewell, *self._close(CloseReason.DESTROYED, now)]
            case State.LINGERING | State.GONE:
                return []
            case _:
                assert_never(self._state)

    def advance(self, now: float) -> list[Output]:
        """The deadline passed."""
        match self._state:
            case State.IDLE | State.GONE:
                return []
            case State.CONNECTED:
                outputs: list[Output] = []
                if self._sender.advance(now):
                    outputs.append(self._transmit(HEARTBEAT))
                return self._flush(now, outputs)
            case State.LINGERING:
                if now < self._linger_until:
                    return []
                self._state = State.GONE
                return [Gone()]
            case _:
                assert_never(self._state)

    def _receive(self, packets: Sequence[Packet], now: float) -> list[Output]:
        receiver = self._receiver
        outputs: list[Output] = []
        had_bytes = receiver.is_readable
        self._bytes_received += sum(HEADER_BYTES + len(packet.payload) for packet in packets)
        answers: list[Packet] = []
        for packet in packets:
            flags = packet.flags
            if flags & HEARTBEAT:  # the rest of it says nothing, as in the original
                self._is_ack_due = True
                continue
            if flags & (DATA | END):
                seq = extend_seq(packet.seq, receiver.ack)
                receiver.receive(seq, flags, packet.payload)
                self._is_ack_due = True
            if flags & DESTROY and self._is_near(packet.seq):
                return [*outputs, *self._close(CloseReason.RESET, now)]
            if flags & MESSAGE:
                outputs.append(MessageReceived(packet.payload))
            answers.append(packet)
        if receiver.is_readable and not had_bytes:
            outputs.append(Readable())
        if receiver.has_ended and not self._is_end_told:
            self._is_end_told = True
            outputs.append(Readable())
        if self._state is State.IDLE:
            return outputs
        self._sender.receive(answers, now)
        return self._flush(now, outputs)

    def _is_near(self, seq: int) -> bool:
        """Whether a number can be the remote's next one: a stranger would have to guess it."""
        return 0 <= extend_seq(seq, self._receiver.ack) - self._receiver.ack < MAX_AHEAD_PACKETS

    def _flush(self, now: float, outputs: list[Output], *, has_more: bool = False) -> list[Output]:
        """Send what may leave, acknowledge what came, and notice when the stream is over."""
        sender, receiver = self._sender, self._receiver
        if sender.is_timed_out:
            return [*outputs, *self._close(CloseReason.TIMED_OUT, now)]
        leaving = sender.take(now, has_more=has_more or not self._was_writable)
        if leaving:
            self._encode(leaving, outputs)
        if self._is_ack_due and (not leaving or receiver.sack_ranges):
            outputs.append(self._acknowledge())
        self._is_ack_due = False
        if self._changed_at_seq is not None and sender.flight.unacked_seq >= self._changed_at_seq:
            self._changed_at_seq = None
            outputs.append(RemoteChanged())
        if sender.has_ended and receiver.has_ended:
            assert self._path is not None
            self._last_words = self._encode_unnumbered(self._path, 0)
            return [*outputs, *self._close(CloseReason.ENDED, now)]
        if not self._was_writable and self.is_writable:
            self._was_writable = True
            outputs.append(Writable())
        return outputs

    def _encode(self, packets: list[SentPacket], outputs: list[Output]) -> None:
        """Encode packets; those in a row that go the same way are one output."""
        ack, window = self._receiver.ack, self._receiver.window
        self._advertised = window
        path = packets[0].path
        datagrams: list[bytes] = []
        for packet in packets:
            if packet.path is not path:
                outputs.append(Transmit(path, datagrams))
                path, datagrams = packet.path, []
            padding = 0
            if packet.probe_bytes:
                padding = packet.probe_bytes - path.overhead_bytes - len(packet.payload)
            datagram = encode_packet(
                packet.flags, path.remote_id, window, packet.seq, ack, packet.payload, padding
            )
            self._bytes_sent += len(datagram)
            datagrams.append(datagram)
        self._packets_sent += len(packets)
        outputs.append(Transmit(path, datagrams))

    def _acknowledge(self) -> Transmit:
        ranges = self._receiver.sack_ranges
        if ranges:
            return self._transmit(SACK, encode_sacks(ranges))
        return self._transmit(0)

    def _transmit(self, flags: int, payload: bytes = b"") -> Transmit:
        """One packet without a number of its own."""
        assert self._path is not None
        datagram = self._encode_unnumbered(self._path, flags, payload)
        self._advertised = self._receiver.window
        self._bytes_sent += len(datagram)
        self._packets_sent += 1
        return Transmit(self._path, [datagram])

    def _encode_unnumbered(self, path: Path, flags: int, payload: bytes = b"") -> bytes:
        seq = self._sender.flight.next_seq
        receiver = self._receiver
        return encode_packet(flags, path.remote_id, receiver.window, seq, receiver.ack, payload)

    def _close(self, reason: CloseReason, now: float) -> list[Output]:
        self._sender.clear()
        if reason is CloseReason.DESTROYED or not self._receiver.has_ended:
            self._receiver.clear()  # a part without its end is never taken for the whole
        if not self._last_words:  # the remote knows, or does not listen
            self._state = State.GONE
            return [Closed(reason), Gone()]
        self._state = State.LINGERING
        self._linger_until = now + LINGER_TIMEOUTS * self._sender.round_trip.timeout
        return [Closed(reason)]

    def _repeat_last_words(self, packets: Sequence[Packet]) -> list[Output]:
        """A remote that still sends something with a number has missed our last words."""
        assert self._path is not None
        if any(packet.flags & DESTROY for packet in packets):
            self._state = State.GONE
            return [Gone()]
        if any(packet.flags & (DATA | END | HEARTBEAT) for packet in packets):
            return [Transmit(self._path, [self._last_words])]
        return []
