"""Two UDX streams joined by a lossy link; time passes only as they need it."""

from __future__ import annotations

from collections.abc import Callable

from swarm.udx.outputs import Closed, CloseReason, MessageReceived, Output, RemoteChanged, Transmit
from swarm.udx.packet import decode_packet
from swarm.udx.path import Path
from swarm.udx.receiver import WINDOW_BYTES
from swarm.udx.stream import UdxStream
from tests.support.lossy_link import Conditions, LossyLink

PIECE_BYTES = 2**16


class UdxEnd:
    """One machine, what it still has to send, and what came out of it."""

    def __init__(self, machine: UdxStream) -> None:
        self.machine = machine
        self.to_send = b""
        self.ends_after = False
        self.reads = True
        self.received = bytearray()
        self.messages: list[bytes] = []
        self.closed: CloseReason | None = None
        self.changes = 0
        self.transmitted: list[tuple[Path, bytes]] = []


class UdxPair:
    """`left` has id 1, `right` has id 2. `run` lets them talk."""

    def __init__(
        self,
        conditions: Conditions | None = None,
        *,
        seed: int = 1,
        window_bytes: int = WINDOW_BYTES,
        first_seqs: tuple[int, int] = (0, 0),
        is_connected: bool = True,
        first_phase: int = 0,
    ) -> None:
        self.link = LossyLink(conditions or Conditions(), seed)
        self.left, self.right = self.ends = [
            UdxEnd(
                UdxStream(
                    number + 1,
                    now=self.now,
                    first_seq=first_seqs[number],
                    window_bytes=window_bytes,
                    entropy=lambda size: bytes((first_phase,)) * size,
                )
            )
            for number in (0, 1)
        ]
        if is_connected:
            for number in (0, 1):
                self.connect(number, first_ack=first_seqs[1 - number])

    @property
    def now(self) -> float:
        return self.link.now

    def connect(self, number: int, *, first_ack: int = 0) -> None:
        path = Path(2 - number, ("peer", 1))
        end = self.ends[number]
        self.carry_out(number, end.machine.connect(path, self.now, first_ack=first_ack))

    def carry_out(self, number: int, outputs: list[Output]) -> None:
        end = self.ends[number]
        for output in outputs:
            match output:
                case Transmit(path, datagrams):
                    for datagram in datagrams:
                        end.transmitted.append((path, datagram))
                        self.link.send(number, datagram)
                case MessageReceived(data):
                    end.messages.append(data)
                case Closed(reason):
                    assert end.closed is None
                    end.closed = reason
                case RemoteChanged():
                    end.changes += 1
                case _:
                    pass

    def run(self, is_done: Callable[[], bool], seconds: float = 600) -> float:
        """Let time pass until something holds; return how much did."""
        start = self.now
        while True:
            self._work()
            if is_done():
                return self.now - start
            times = [end.machine.deadline for end in self.ends] + [self.link.next_at]
            next_at = min((at for at in times if at is not None), default=None)
            assert next_at is not None, f"nothing ever happens again, after {self.now - start} s"
            self.link.now = max(self.now, next_at)
            assert self.now - start <= seconds, f"not done after {seconds} s"
            self._deliver()

    def run_for(self, seconds: float, *, step: float = 0.0) -> None:
        """Let time pass, whatever happens or does not; both ends look every `step` only."""
        stop_at = self.now + seconds
        while True:
            self._work()
            times = [end.machine.deadline for end in self.ends] + [self.link.next_at]
            next_at = min((at for at in times if at is not None), default=stop_at)
            self.link.now = min(max(self.now + step, next_at), stop_at)
            self._deliver()
            if self.now >= stop_at:
                return

    def transfer(self, data: bytes, *, seconds: float = 600) -> float:
        """Send from left to right, with an end; how long it took."""
        self.left.to_send = data
        self.left.ends_after = True
        return self.run(lambda: self.right.machine.has_read_all, seconds)

    def _deliver(self) -> None:
        for direction, datagrams in self.link.receive():
            packets = [decode_packet(datagram) for datagram in datagrams]
            target = 1 - direction
            self.carry_out(target, self.ends[target].machine.receive(packets, self.now))
        for number, end in enumerate(self.ends):
            deadline = end.machine.deadline
            if deadline is not None and self.now >= deadline:
                self.carry_out(number, end.machine.advance(self.now))

    def _work(self) -> None:
        """What the users of both ends do: write while there is room, and read."""
        for number, end in enumerate(self.ends):
            machine = end.machine
            while end.to_send and machine.is_writable:
                piece, end.to_send = end.to_send[:PIECE_BYTES], end.to_send[PIECE_BYTES:]
                self.carry_out(number, machine.send(piece, self.now))
            if end.ends_after and not end.to_send and end.closed is None:
                end.ends_after = False
                self.carry_out(number, machine.send_end(self.now))
            if end.reads:
                while data := machine.read(PIECE_BYTES):
                    end.received += data
                self.carry_out(number, machine.update_window())
