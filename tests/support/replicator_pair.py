"""Replicators joined in memory: messages are carried until nobody has any, without trio."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from hypercore.errors import RemoteProtocolError
from hypercore.replication.outputs import (
    AbortConnection,
    Answerable,
    EndChannel,
    ExtensionReceived,
    Output,
    Transmit,
)
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicator import Replicator
from tests.support.memory_log import MemoryLog

Message = tuple[int, bytes]


class Node:
    """A log, its replicator, and what happened to it."""

    def __init__(self, log: MemoryLog, seed: int = 0) -> None:
        self.log = log
        self.replicator = Replicator(log, seed)
        self.ends: dict[RemotePeer, Endpoint] = {}
        self.errors: list[RemoteProtocolError] = []
        self.extensions: list[tuple[str, bytes]] = []

    def carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            end = self.ends.get(output.peer)
            if end is None:
                continue
            match output:
                case Transmit(_, messages):
                    end.sent += messages
                case Answerable():
                    end.is_answerable = True
                case ExtensionReceived(_, name, payload):
                    self.extensions.append((name, payload))
                case EndChannel(_, error) | AbortConnection(_, error):
                    if error is not None:
                        self.errors.append(error)
                    end.is_closed = True

    def want(self, indices: range | list[int]) -> None:
        self.carry_out(self.replicator.want(indices, 0.0))

    def unwant(self, indices: range | list[int]) -> None:
        self.carry_out(self.replicator.unwant(indices, 0.0))

    def changed(self) -> None:
        self.carry_out(self.replicator.log_changed(0.0))


class Endpoint:
    """One end of a channel."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.sent: list[Message] = []
        self.is_answerable = False
        self.is_closed = False
        self.peer, outputs = node.replicator.add_peer()
        node.ends[self.peer] = self
        node.carry_out(outputs)

    def take(self, max_bytes: int) -> None:
        if self.is_answerable and not self.is_closed:
            answers = self.node.replicator.take(self.peer, max_bytes)
            self.is_answerable = bool(answers)
            self.sent += answers

    def receive(self, messages: list[Message], now: float) -> None:
        self.node.carry_out(self.node.replicator.receive(self.peer, messages, now))

    def close(self, now: float) -> None:
        self.is_closed = True
        self.node.carry_out(self.node.replicator.remove_peer(self.peer, now))
        self.node.ends.pop(self.peer, None)


class Channel:
    """Two ends; `change` may rewrite what travels to the first (0) or second (1) end."""

    def __init__(self, one: Node, other: Node) -> None:
        self.ends = (Endpoint(one), Endpoint(other))
        self.change: Callable[[int, list[Message]], list[Message]] = lambda _, messages: messages
        self.messages_carried = 0

    def step(self, now: float, max_bytes: int = 1 << 16) -> bool:
        """Carry what waits, in both directions; False when there was nothing."""
        moved = False
        for number, (sender, receiver) in enumerate((self.ends, self.ends[::-1])):
            sender.take(max_bytes)
            messages, sender.sent = sender.sent, []
            if messages:
                moved = True
                self.messages_carried += len(messages)
                if not receiver.is_closed:
                    receiver.receive(self.change(1 - number, messages), now)
        if any(end.is_closed for end in self.ends):
            for number, (sender, receiver) in enumerate((self.ends, self.ends[::-1])):
                # What was sent before the close arrives before it.
                if sender.is_closed and sender.sent and not receiver.is_closed:
                    receiver.receive(self.change(1 - number, sender.sent), now)
            for end in self.ends:
                end.close(now)
                end.sent = []
        return moved


def settle(*channels: Channel, rounds: int = 100_000, max_bytes: int = 1 << 16) -> None:
    """Carry messages until none is left, 10 ms a round."""
    for round_number in count():
        assert round_number < rounds, "they never stop talking"
        moved = [channel.step(round_number / 100, max_bytes) for channel in channels]
        if not any(moved):
            return
