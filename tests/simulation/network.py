"""An internet of hosts in memory: TCP as programs see it, with links that fail.

A link from one host to another has a latency, a rate, and a share of segments that are lost; it
may be cut, in one direction or in both. What is lost or cut is sent again after a time-out that
doubles, as TCP does: so a stream stalls, keeps its order, and after a cut it goes on only with the
next repetition. Streams overtake each other. A host that loses its power says nothing; one that
only loses a process says so.

Nodes open sockets with trio as ever: `Network` is trio's socket factory, and the host on which a
task runs is in `CURRENT_HOST`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tests.simulation.sockets import SimulatedSocket

PORT = 4000

FIRST_REPETITION_SECONDS = 0.2
LONGEST_REPETITION_SECONDS = 120.0
CONNECT_REPETITIONS = (0.0, 1.0, 3.0, 7.0)
"""When a dial knocks. Linux goes on, but dials are given up before."""

UNACKNOWLEDGED_SECONDS = 60.0
"""What nodes set as TCP_USER_TIMEOUT."""

WINDOW_BYTES = 1 << 18
"""What may be under way or unread; who wants to send more waits."""

CURRENT_HOST: ContextVar[Host] = ContextVar("current_host")

Action = Callable[[], None]


@dataclass(slots=True)
class Link:
    """One direction between two hosts."""

    latency: float = 0.001
    jitter: float = 0.0
    loss: float = 0.0
    bytes_per_second: float = 1e8
    is_cut: bool = False


@dataclass(eq=False)
class Host:
    """A machine with an address; `is_on` until its power is cut."""

    number: int
    is_on: bool = True
    clock_error_seconds: float = 0.0
    """What its clock says beyond the time that it is."""
    listener: SimulatedSocket | None = None
    sockets: dict[SimulatedSocket, None] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"10.0.{self.number >> 8}.{self.number & 255}"


class Network(trio.abc.SocketFactory):
    """Hosts, the links between them, and what arrives when."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.hosts: list[Host] = []
        self.bytes_delivered = 0
        self.segments_delivered = 0
        self.digest = 0
        """Of all that arrived, when and where."""
        self._links: dict[tuple[int, int], Link] = {}
        self._events: list[tuple[float, int, Action]] = []
        self._number = count()
        self._changed = trio.Event()

    def add_host(self) -> Host:
        host = Host(len(self.hosts))
        self.hosts.append(host)
        return host

    def link(self, source: int, target: int) -> Link:
        return self._links.setdefault((source, target), Link())

    @property
    def links(self) -> dict[tuple[int, int], Link]:
        return self._links

    def find(self, address: str) -> Host | None:
        return next((host for host in self.hosts if host.address == address), None)

    def socket(
        self, family: int | None = None, type: int | None = None, proto: int | None = None
    ) -> SimulatedSocket:
        """As trio's socket factory: a socket on the host of the task that wants one."""
        from tests.simulation.sockets import SimulatedSocket

        return SimulatedSocket(self, CURRENT_HOST.get())

    def at(self, time: float, action: Action) -> None:
        heapq.heappush(self._events, (time, next(self._number), action))
        if self._events[0][2] is action:
            self._changed.set()

    async def run(self) -> None:
        """Let things happen when they are due, until cancelled."""
        while True:
            next_at = self._events[0][0] if self._events else math.inf
            if next_at > trio.current_time():
                self._changed = trio.Event()
                with trio.move_on_at(next_at):
                    await self._changed.wait()
                continue
            _, _, action = heapq.heappop(self._events)
            action()

    def delivered(self, direction: Direction, size: int) -> None:
        self.bytes_delivered += size
        self.segments_delivered += 1
        event = (self.digest, trio.current_time(), direction.source, direction.target, size)
        self.digest = hash(event)


class Direction:
    """One direction of a connection: an ordered queue over an unreliable link."""

    def __init__(self, network: Network, sender: SimulatedSocket, receiver: SimulatedSocket):
        self._network = network
        self._sender = sender
        self._receiver = receiver
        self.source = sender.host.number
        self.target = receiver.host.number
        self._forward = network.link(self.source, self.target)
        self._backward = network.link(self.target, self.source)
        self._queue: deque[bytes | None] = deque()
        self._is_waiting = False
        self._patience = FIRST_REPETITION_SECONDS
        self.repetitions = 0
        """In vain, one after the other."""
        self._arrives_at = 0.0
        self._stuck_since: float | None = None
        self._withheld = 0
        self.open_bytes = 0
        """Sent, and not known to be read."""

    def send(self, data: bytes | None) -> None:
        """Queue bytes, or the end of them (None)."""
        self._queue.append(data)
        self.open_bytes += len(data or b"")
        if not self._is_waiting:
            self._transmit()

    def was_read(self, size: int) -> None:
        """The receiver's window opens again, once the sender hears of it."""
        self._withheld += size
        if not self._is_waiting:
            self._acknowledge()

    def _acknowledge(self) -> None:
        if self._sender.is_silenced:
            return
        if self._backward.is_cut:
            self._repeat()
            return
        self._stuck_since = None
        self.repetitions = 0
        self.open_bytes -= self._withheld
        self._withheld = 0
        self._sender.window_opened()

    def _transmit(self) -> None:
        now = trio.current_time()
        link = self._forward
        while self._queue:
            if self._sender.is_silenced:
                return
            if link.is_cut or self._network.chance.random() < link.loss:
                self._repeat()
                return
            data = self._queue.popleft()
            self._patience = FIRST_REPETITION_SECONDS
            size = len(data or b"")
            delay = link.latency + link.jitter * self._network.chance.random()
            leaves = max(now, self._arrives_at - delay) + size / link.bytes_per_second
            self._arrives_at = leaves + delay
            self._network.at(self._arrives_at, lambda data=data: self._arrive(data))  # type: ignore[misc]
        self._acknowledge()

    def _repeat(self) -> None:
        """Nothing gets through now; TCP tries again by itself."""
        now = trio.current_time()
        if self._stuck_since is None:
            self._stuck_since = now
        if now - self._stuck_since > UNACKNOWLEDGED_SECONDS:
            self._sender.break_off("timed out")
            return
        self._is_waiting = True
        self._network.at(now + self._patience, self._try_again)
        self.repetitions += 1
        self._patience = min(2 * self._patience, LONGEST_REPETITION_SECONDS)

    def _try_again(self) -> None:
        self._is_waiting = False
        if self._queue:
            self._transmit()
        else:
            self._acknowledge()

    def _arrive(self, data: bytes | None) -> None:
        """At the other end; an end that is gone answers with a reset, if its machine is on."""
        receiver = self._receiver
        if not receiver.host.is_on:
            self._repeat_lost(data)
            return
        self._network.delivered(self, len(data or b""))
        if receiver.is_gone:
            if data is not None and not self._backward.is_cut:
                delay = self._backward.latency
                self._network.at(trio.current_time() + delay, self._sender.be_reset)
            return
        receiver.arrive(data)

    def _repeat_lost(self, data: bytes | None) -> None:
        self._queue.appendleft(data)
        if not self._is_waiting:
            self._repeat()
