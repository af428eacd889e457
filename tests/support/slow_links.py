"""Replicators joined by links with a latency and a bandwidth, in virtual time, without trio."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from hypercore.replication.demand import Priority
from hypercore.replication.messages import Data, MessageType
from hypercore.replication.outputs import Output
from tests.support.replicator_pair import Endpoint, Message, Node

OVERHEAD_BYTES = 8
"""Of each message, for its frame."""

TURN_BYTES = 1 << 16


@dataclass
class Direction:
    """What one end sends to the other."""

    sender: Endpoint
    receiver: Endpoint
    seconds: float
    bytes_per_second: float
    busy_until: float = 0.0
    bytes_sent: int = 0
    is_cut: bool = False
    delivered: list[Message] = field(default_factory=list)


class Link:
    """One connection of two nodes."""

    def __init__(
        self, network: Network, one: Node, other: Node, seconds: float, bytes_per_second: float
    ) -> None:
        ends = Endpoint(one), Endpoint(other)
        self.directions = tuple(
            Direction(sender, receiver, seconds, bytes_per_second)
            for sender, receiver in (ends, ends[::-1])
        )
        self.ends = ends

    def cut(self) -> None:
        """From now on nothing arrives; nobody is told."""
        for direction in self.directions:
            direction.is_cut = True


class Network:
    """Nodes and links, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._links: list[Link] = []
        self._nodes: list[Node] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def join(
        self,
        one: Node,
        other: Node,
        *,
        round_trip_seconds: float = 0.0,
        bytes_per_second: float = 1e9,
    ) -> Link:
        link = Link(self, one, other, round_trip_seconds / 2, bytes_per_second)
        self._links.append(link)
        for node in (one, other):
            if node not in self._nodes:
                self._nodes.append(node)
        return link

    def want(
        self, node: Node, indices: Iterable[int], priority: Priority = Priority.LINEAR
    ) -> None:
        self.carry_out(node, node.replicator.want(indices, self.now, priority))

    def carry_out(self, node: Node, outputs: list[Output]) -> None:
        node.carry_out(outputs)

    def at(self, time: float, action: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._number), action))

    def run(self, until: Callable[[], bool], limit_seconds: float = 1e4) -> float:
        """Let time pass until something is true; returns when that was."""
        while not until():
            self._send()
            deadlines = [node.replicator.deadline for node in self._nodes]
            next_event = self._events[0][0] if self._events else float("inf")
            time = min([next_event, *deadlines])
            assert time < limit_seconds, f"nothing more happens after {self.now} seconds"
            self.now = max(self.now, time)
            if self._events and next_event <= self.now:
                heappop(self._events)[2]()
            for node in self._nodes:
                if node.replicator.deadline <= self.now:
                    node.carry_out(node.replicator.advance(self.now))
        return self.now

    def _send(self) -> None:
        for link in self._links:
            for direction in link.directions:
                if direction.busy_until <= self.now:
                    self._send_turn(direction)

    def _send_turn(self, direction: Direction) -> None:
        """Give the wire what is queued, and a turn of bulk."""
        end = direction.sender
        end.take(TURN_BYTES)
        messages, end.sent = end.sent, []
        if not messages:
            return
        size = sum(len(payload) + OVERHEAD_BYTES for _, payload in messages)
        direction.bytes_sent += size
        direction.busy_until = self.now + size / direction.bytes_per_second
        self.at(direction.busy_until, lambda: None)
        if not direction.is_cut:
            arrives = direction.busy_until + direction.seconds
            self.at(arrives, lambda: self._deliver(direction, messages))

    def _deliver(self, direction: Direction, messages: list[Message]) -> None:
        direction.delivered += messages
        if not direction.receiver.is_closed:
            direction.receiver.receive(messages, self.now)


def bytes_before_block(direction: Direction, index: int, start: int) -> int:
    """Payload bytes delivered from the message numbered `start` up to the answer for a block."""

    size = 0
    for kind, payload in direction.delivered[start:]:
        size += len(payload)
        if kind == MessageType.DATA:
            block = Data.decode(payload).proof.block
            if block is not None and block.index == index:
                return size
    raise AssertionError(f"block {index} never came")
