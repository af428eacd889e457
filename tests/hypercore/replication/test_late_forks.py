"""Following a writer to another history, beside peers that claim one and show nothing."""

from __future__ import annotations

import pytest

from hypercore.replication.forks import TURN_SECONDS, StuckFork
from hypercore.replication.hotswap import MAX_CHECK_SECONDS
from hypercore.replication.messages import MessageType, Request, Sync
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import copy_of, of_type, writer
from tests.support.replicator_pair import Channel, Endpoint, Node, settle
from tests.support.slow_links import Network

SILENT_PEERS = 12
FOUND_OUT = TURN_SECONDS + MAX_CHECK_SECONDS
"""By then others are asked as well: who is late is noticed with the next look."""


def forked(length: int, common: int) -> tuple[MemoryLog, MemoryLog]:
    """A log, and what its writer made of it."""
    old, fork = writer(length), writer(length)
    fork.truncate(common)
    fork.append([b"another"] * (length - common))
    return old, fork


def claim(node: Node, fork: int, length: int = 100) -> Endpoint:
    """An end that says to have a later fork; for what follows the test speaks."""
    end = Endpoint(node)
    sync = Sync(fork, length, 0, False, True, True, True, False)
    end.receive([(MessageType.SYNC, sync.encode())], 0.0)
    return end


def requests(end: Endpoint) -> list[Request]:
    return [Request.decode(payload) for payload in of_type(end.sent, MessageType.REQUEST)]


@pytest.mark.parametrize("fork", [1, 2**40])
def test_many_that_claim_a_fork_and_are_silent_take_hardly_longer_than_one(fork: int) -> None:
    old, later = forked(100, 60)
    leecher = Node(copy_of(old))
    silent = [claim(leecher, fork) for _ in range(SILENT_PEERS)]
    assert sum(len(requests(end)) for end in silent) == 1
    network = Network()
    network.join(Node(later), leecher, round_trip_seconds=0.01)
    assert network.run(lambda: leecher.log.head == later.head) < FOUND_OUT + 1.0
    # One is asked again what it claimed beyond that.
    assert sum(len(requests(end)) for end in silent) == SILENT_PEERS + (fork > later.head.fork)
    assert not leecher.errors


def test_who_answers_each_step_as_late_as_can_be_keeps_nobody_waiting() -> None:
    old, later = forked(4096, 60)
    leecher = Node(copy_of(old))
    network = Network()
    slow = network.join(Node(later), leecher, round_trip_seconds=0.9 * TURN_SECONDS)
    network.run(lambda: slow.ends[1].peer.length > 0)
    network.join(Node(later), leecher, round_trip_seconds=0.01)
    started = network.now
    assert network.run(lambda: leecher.log.head == later.head) - started < FOUND_OUT + 1.0
    assert not leecher.errors


def seconds_beside(claimants: int) -> float:
    """How long it takes to follow a peer that is far, beside those that come, claim and go."""
    old, later = forked(100, 60)
    leecher = Node(copy_of(old))
    network = Network()
    ends = [claim(leecher, 1)] if claimants else []
    link = network.join(Node(later), leecher, round_trip_seconds=1.0)
    link.ends[1].peer.inflight.round_trip_guess = 1.0

    def come_and_go() -> None:
        ends.append(claim(leecher, 1))
        ends[-2].close(network.now)
        if len(ends) < claimants:
            network.at(network.now + 0.9 * TURN_SECONDS, come_and_go)

    if claimants:
        network.at(0.9 * TURN_SECONDS, come_and_go)
    return network.run(lambda: leecher.log.head == later.head)


def test_who_leaves_just_before_its_time_is_up_keeps_nobody_waiting() -> None:
    """Each is followed by the next that claims the same, and seems to be nearer."""
    assert seconds_beside(20) < seconds_beside(0) + FOUND_OUT


def test_who_cannot_lead_on_is_not_waited_for() -> None:
    """It proves its head, and has none of the blocks through which the way could be asked for."""
    old, later = forked(4096, 60)
    bare = copy_of(later)
    bare.clear(0, 4096)
    leecher = Node(copy_of(old))
    network = Network()
    link = network.join(Node(bare), leecher, round_trip_seconds=0.01)
    network.run(lambda: link.ends[1].peer.inflight.round_trip_seconds > 0)
    network.join(Node(later), leecher, round_trip_seconds=0.01)
    started = network.now
    assert network.run(lambda: leecher.log.head == later.head) - started < 1.0
    assert not leecher.errors


def test_when_one_cannot_lead_on_another_that_was_there_before_is_asked() -> None:
    """Found by chance: nothing more came from either, and nobody looked at them again."""
    old, later = forked(4096, 60)
    bare = copy_of(later)
    bare.clear(0, 4096)
    leecher = Node(copy_of(old))
    network = Network()
    network.join(Node(bare), leecher, round_trip_seconds=0.01)
    network.join(Node(later), leecher, round_trip_seconds=0.02)
    assert network.run(lambda: leecher.log.head == later.head) < TURN_SECONDS
    assert not leecher.errors


def test_no_block_has_to_be_given_up_while_one_that_is_slow_may_show_the_way() -> None:
    old, later = forked(16, 12)
    gapped = copy_of(later)
    gapped.clear(8, 16)
    leecher = Node(copy_of(old))

    def stuck() -> StuckFork | None:
        return leecher.replicator.heads.forks.stuck

    network = Network()
    network.join(Node(gapped), leecher, round_trip_seconds=0.01)
    slow = network.join(Node(later), leecher, round_trip_seconds=30.0)
    network.run(lambda: slow.ends[1].peer.length > 0)
    assert stuck() is None
    slow.ends[1].close(network.now)
    assert stuck() == StuckFork(1, 8, 16)
    again = network.join(Node(later), leecher, round_trip_seconds=30.0)
    network.run(lambda: again.ends[1].peer.length > 0)
    assert stuck() is None
    network.run(lambda: stuck() is not None or leecher.log.head == later.head)
    assert leecher.log.head == later.head


def test_a_block_that_came_while_one_was_asked_for_the_last_time_can_be_given_up() -> None:
    old, later = forked(16, 9)
    gapped, nothing = copy_of(later), copy_of(old)
    gapped.clear(0, 13)
    nothing.clear(0, 16)
    leecher = Node(nothing)
    forks = leecher.replicator.heads.forks
    before, link = Channel(Node(old), leecher), Channel(Node(gapped), leecher)
    settle(before)
    # Its head is asked for again, now that it has said which blocks it has.
    while link.ends[1].peer.claims.asked < 2:
        link.step(0.0)
    leecher.want([9])
    settle(before)
    settle(link)
    assert forks.stuck == StuckFork(1, 8, 12)
    nothing.clear(8, 12)
    leecher.carry_out(leecher.replicator.blocks_dropped(8, 12))
    leecher.carry_out(leecher.replicator.advance_heads(0.0))
    settle(link)
    assert leecher.log.head == later.head


def test_nobody_is_asked_twice_at_the_same_time_when_nobody_is_late() -> None:
    old, later = forked(1000, 60)
    leecher = Node(copy_of(old))
    network = Network()
    links = [network.join(Node(later), leecher, round_trip_seconds=0.1) for _ in range(4)]
    network.run(lambda: leecher.log.head == later.head)
    asked = [link.ends[1].peer.counters.requests_sent for link in links]
    assert sorted(asked)[:3] == [0, 0, 0]


def test_the_next_fork_is_asked_of_one_peer_again() -> None:
    old, later = forked(100, 60)
    leecher = Node(copy_of(old))
    silent = claim(leecher, 1)
    network = Network()
    nodes = [Node(copy_of(later)) for _ in range(4)]
    links = [network.join(node, leecher, round_trip_seconds=0.1) for node in nodes]
    network.run(lambda: leecher.log.head == later.head)
    silent.close(network.now)
    before = sum(link.ends[1].peer.counters.requests_sent for link in links)
    seeder = Node(later)
    link = network.join(seeder, leecher, round_trip_seconds=0.1)
    later.truncate(50)
    seeder.changed()
    network.run(lambda: leecher.log.head == later.head)
    assert sum(link.ends[1].peer.counters.requests_sent for link in links) == before
    assert link.ends[1].peer.counters.requests_sent > 0
