"""Follows hypercore 11.37.1 test/remote-length.js with ours on both sides: the machine alone.

All tests of the original have their counterpart here; with JavaScript on one side they are in
`tests/interop/originals/test_remote_length.py`.
"""

from __future__ import annotations

from tests.support.replicated_logs import block, reader, writer
from tests.support.replicator_pair import Channel, Node, settle

BITS_PER_PAGE = 32_768


def test_the_writer_announces_the_new_contiguous_length() -> None:
    log = writer(0)
    a, b = Node(log), Node(reader())
    channel = Channel(a, b)
    settle(channel)
    seen = channel.ends[1].peer
    assert seen.contiguous_length == 0
    for length in (1, 2):
        log.append([block(length - 1)])
        a.changed()
        settle(channel)
        assert seen.contiguous_length == length


def test_contiguous_length_is_announced_on_update() -> None:
    a, b, c = Node(writer(2)), Node(reader()), Node(reader())
    upper, lower = Channel(a, b), Channel(b, c)
    settle(upper, lower)
    assert lower.ends[1].peer.contiguous_length == 0
    assert upper.ends[1].peer.contiguous_length == 2
    b.want([0])
    settle(upper, lower)
    assert lower.ends[1].peer.contiguous_length == 1
    assert upper.ends[0].peer.contiguous_length == 0, "who has it is not told"


def test_ranges_are_announced_of_a_big_core() -> None:
    length = BITS_PER_PAGE + 10
    a, b, c = Node(writer(length)), Node(reader()), Node(reader())
    upper, lower = Channel(a, b), Channel(b, c)
    settle(upper, lower)
    last = length - 1
    assert not lower.ends[1].peer.offers(last)
    assert upper.ends[1].peer.offers(last)
    b.want([last])
    settle(upper, lower)
    assert lower.ends[1].peer.offers(last)
    assert not upper.ends[0].peer.offers(last)
    c.want([last, last - 1])
    settle(upper, lower)
    assert sorted(c.log.blocks) == [last]


def test_truncation_is_announced_and_limits_the_hint() -> None:
    log = writer(2)
    a, b = Node(log), Node(reader())
    channel = Channel(a, b)
    b.want(range(1 << 40))
    settle(channel)
    assert channel.ends[1].peer.contiguous_length == 2
    assert a.log.remote_contiguous_length == b.log.remote_contiguous_length == 2
    log.truncate(1)
    a.changed()
    settle(channel)
    assert channel.ends[1].peer.contiguous_length == 1
    assert b.log.head.length == 1
    assert a.log.remote_contiguous_length == b.log.remote_contiguous_length == 1
