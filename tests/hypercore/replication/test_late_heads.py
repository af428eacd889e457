"""A longer head of a peer that is far, beside peers that claim one and go away."""

from __future__ import annotations

from hypercore.replication.heads import PATIENCE_SECONDS
from hypercore.replication.hotswap import MAX_CHECK_SECONDS
from hypercore.replication.messages import MessageType, Range, Sync
from tests.support.replicated_logs import reader, writer
from tests.support.replicator_pair import Endpoint, Node
from tests.support.slow_links import Network


def claim(node: Node) -> Endpoint:
    """An end that says to have a longer log; for what follows the test speaks."""
    end = Endpoint(node)
    sync = Sync(0, 100, node.log.head.length, True, True, True, True, False)
    end.receive([(MessageType.SYNC, sync.encode())], 0.0)
    return end


def seconds_beside(claimants: int) -> float:
    """How long it takes to get the head, while one after another claims one for a while."""
    leecher, network = Node(reader()), Network()
    ends = [claim(leecher)] if claimants else []
    link = network.join(Node(writer(50)), leecher, round_trip_seconds=1.0)
    link.ends[1].peer.inflight.round_trip_guess = 1.0
    network.carry_out(leecher, leecher.replicator.expect_head(1, 0.0, keeps_channels=True))

    def come_and_go() -> None:
        ends.append(claim(leecher))
        ends[-2].close(network.now)
        if len(ends) < claimants:
            network.at(network.now + 0.9 * PATIENCE_SECONDS, come_and_go)

    if claimants:
        network.at(0.9 * PATIENCE_SECONDS, come_and_go)
    return network.run(lambda: leecher.log.head.length == 50)


def push(network: Network, holder: Endpoint, index: int) -> None:
    """The holder sends a block that an extension has asked for, and with it its head."""
    _, outputs = holder.node.replicator.push_asked(holder.peer, [index])
    network.carry_out(holder.node, outputs)


def test_who_leaves_just_before_its_time_is_up_keeps_nobody_waiting() -> None:
    """Each is followed by the next that claims the same, and seems to be nearer."""
    assert seconds_beside(20) < seconds_beside(0) + PATIENCE_SECONDS + MAX_CHECK_SECONDS


def test_the_next_head_is_asked_of_one_peer_again() -> None:
    leecher, network = Node(reader()), Network()
    gone = claim(leecher)
    nodes = [Node(writer(50)) for _ in range(4)]
    links = [network.join(node, leecher, round_trip_seconds=0.1) for node in nodes]
    network.at(0.9 * PATIENCE_SECONDS, lambda: gone.close(network.now))
    network.run(lambda: leecher.log.head.length == 50)
    before = [link.ends[1].peer.counters.requests_sent for link in links]
    for node in nodes:
        node.log.append([b"more"])
        node.changed()
    network.run(lambda: leecher.log.head.length == 51)
    after = [link.ends[1].peer.counters.requests_sent for link in links]
    assert sum(after) - sum(before) == 1


def test_a_block_asked_for_with_a_head_that_never_comes_is_asked_of_others() -> None:
    """Found by chance: the head came from another peer, the block was waited for without end."""
    leecher, network = Node(reader()), Network()
    network.want(leecher, [11])
    end = Endpoint(leecher)
    sync = Sync(0, 100, 0, True, True, True, True, False)
    has_all = (int(MessageType.RANGE), Range(0, 100).encode())
    end.receive([(int(MessageType.SYNC), sync.encode()), has_all], 0.0)
    (asked,) = [request for request in end.peer.inflight if request.upgrade is not None]
    assert asked.index == 11
    source = Node(writer(50))
    link = network.join(source, leecher, round_trip_seconds=0.1)
    link.ends[1].peer.expected.allow(1)
    link.ends[1].peer.was_allowed_push = True
    network.at(0.5, lambda: push(network, link.ends[0], 3))
    network.run(lambda: leecher.log.head.length == 50)
    network.run(lambda: leecher.log.bitfield.get(11), limit_seconds=60.0)
    assert network.now < PATIENCE_SECONDS + MAX_CHECK_SECONDS + 1.0
    assert not leecher.errors
