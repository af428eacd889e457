"""Follows hypercore 11.37.1 test/extension.js with ours on both sides: the machine alone.

Both tests have their counterpart here; with JavaScript on one side they are in
`tests/interop/originals/test_extension.py`.
"""

from __future__ import annotations

from hypercore.replication.messages import Extension, MessageType
from tests.support.replicated_logs import Recorder, reader, writer
from tests.support.replicator_pair import Channel, Node, settle


def test_basic_extension() -> None:
    a, b = Node(writer(0)), Node(reader())
    channel = Channel(a, b)
    for text in (b"hello", b"world"):
        b.carry_out(b.replicator.send_extension("test-extension", text, channel.ends[1].peer))
    settle(channel)
    assert a.extensions == [("test-extension", b"hello"), ("test-extension", b"world")]


def test_two_extensions() -> None:
    a, b = Node(writer(0)), Node(reader())
    channel = Channel(a, b)
    settle(channel)
    sent = Recorder(channel, 0)
    for name in ("test-extension-1", "test-extension-2", "test-extension-2", "test-extension-1"):
        b.carry_out(b.replicator.send_extension(name, b"x", None))
    settle(channel)
    assert [name[-1] for name, _ in a.extensions] == ["1", "2", "2", "1"]
    names = [Extension.decode(payload).name for payload in sent.of(MessageType.EXTENSION)]
    assert names == ["test-extension-1", "test-extension-2", "", "test-extension-1"]
