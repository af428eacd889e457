"""Logs to replicate in tests, and a look at what travels between them."""

from __future__ import annotations

from hypercore.crypto import KeyPair
from hypercore.replication.messages import (
    MessageType,
)
from tests.support.memory_log import MemoryLog
from tests.support.replicator_pair import Channel, Message, Node, settle

KEY_PAIR = KeyPair.from_seed(bytes(32))


def block(index: int) -> bytes:
    return b"block %d " % index + b"x" * (index % 7)


def writer(length: int, *, is_lazy: bool = False) -> MemoryLog:
    log = MemoryLog(KEY_PAIR, is_lazy=is_lazy)
    if length:
        log.append([block(index) for index in range(length)])
    return log


def reader() -> MemoryLog:
    return MemoryLog(key=writer(0).key)


def copy_of(log: MemoryLog) -> MemoryLog:
    """A reader that has everything already."""
    copy = reader()
    source, target = Node(log), Node(copy)
    target.want(range(log.head.length))
    settle(Channel(source, target))
    assert copy.contiguous_length == log.head.length
    return copy


def of_type(messages: list[Message], message_type: MessageType) -> list[bytes]:
    return [payload for kind, payload in messages if kind == message_type]


class Recorder:
    """Notes what travels to one end of a channel."""

    def __init__(self, channel: Channel, end: int) -> None:
        self.messages: list[Message] = []
        self._end = end
        channel.change = self._note

    def _note(self, end: int, messages: list[Message]) -> list[Message]:
        if end == self._end:
            self.messages += messages
        return messages

    def of(self, message_type: MessageType) -> list[bytes]:
        return of_type(self.messages, message_type)


def sparse_writer(length: int, gaps: list[range]) -> MemoryLog:
    log = writer(length)
    for gap in gaps:
        log.clear(gap.start, gap.stop)
    return log
