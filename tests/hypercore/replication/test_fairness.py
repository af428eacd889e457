"""Slow and fast peers, urgent reads and large downloads: how long things take, in virtual time."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypercore.replication.demand import Priority
from hypercore.replication.hotswap import CHECK_SECONDS
from hypercore.replication.messages import MessageType, Request
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, copy_of, of_type, reader
from tests.support.replicator_pair import Node
from tests.support.slow_links import Network, bytes_before_block


def log_of(count: int, size: int) -> MemoryLog:
    log = MemoryLog(KEY_PAIR)
    log.append([b"%d:" % index + bytes(size) for index in range(count)])
    return log


def holds(node: Node, length: int) -> bool:
    return node.log.contiguous_length >= length


def has_blocks(node: Node, count: int) -> bool:
    return len(node.log.blocks) >= count


def test_a_slow_peer_does_not_make_a_download_slow() -> None:
    """ "uses hotswaps to avoid long download tail", with its speeds and sizes."""
    log = log_of(100, 60_000)
    alone, both = Network(), Network()
    single = Node(reader())
    alone.join(Node(log), single, bytes_per_second=1e7)
    alone.want(single, range(100))
    fast_alone = alone.run(lambda: holds(single, 100))

    leecher = Node(reader())
    fast = both.join(Node(log), leecher, bytes_per_second=1e7)
    slow = both.join(Node(copy_of(log)), leecher, bytes_per_second=1e6)
    both.want(leecher, range(100))
    assert both.run(lambda: holds(leecher, 100)) < 1.15 * fast_alone
    fast_counters, slow_counters = (link.ends[1].peer.counters for link in (fast, slow))
    assert fast_counters.hotswaps > 0
    assert slow_counters.hotswaps == 0
    assert slow.ends[1].peer.wire.sent[MessageType.CANCEL] > 0
    assert fast_counters.blocks_received > slow_counters.blocks_received > 0


@pytest.mark.parametrize("slow_peers", [1, 20])
def test_one_quick_peer_is_enough(slow_peers: int) -> None:
    """ "hotswap works for a download with many slow peers": twenty of ten seconds' latency."""
    log = log_of(500, 4)
    network = Network()
    leecher = Node(reader())
    slow = [
        network.join(Node(copy_of(log)), leecher, round_trip_seconds=20.0)
        for _ in range(slow_peers)
    ]
    network.run(lambda: leecher.log.head.length == 500)
    network.join(Node(log), leecher, round_trip_seconds=0.001)
    started = network.now
    network.want(leecher, range(500))
    assert network.run(lambda: holds(leecher, 500)) - started < 4 * CHECK_SECONDS
    owed = [request for link in slow for request in link.ends[1].peer.inflight]
    assert all(request.upgrade is not None for request in owed)


Links = list[tuple[float, float]]
"""Seconds of a round trip, and bytes a second, of each."""

ONE_FAST = [*[(1.0, 2e4)] * 3, (1.0, 1.2e6)]


def download_seconds(log: MemoryLog, links: Links) -> float:
    network = Network()
    leecher = Node(reader())
    length = log.head.length
    for round_trip, rate in links:
        network.join(Node(log), leecher, round_trip_seconds=round_trip, bytes_per_second=rate)
    network.want(leecher, range(length))
    return network.run(lambda: holds(leecher, length))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 2.0), st.floats(2e4, 1e7)), min_size=1, max_size=5),
    st.sampled_from([20, 1_000, 20_000]),
    st.sampled_from([150, 400]),
)
@example(ONE_FAST, 20_000, 150)
@example(ONE_FAST[::-1], 20_000, 150)
@example([(1.0, 8e4), (0.5, 2e4), (1.0, 2e4), (1.0, 2e4)], 20_000, 20)
@example([(0.008, 4.6e6), (0.001, 3.5e4), (0.002, 4.5e5), (0.007, 4.6e4)], 20_000, 150)
def test_more_peers_never_cost_much(links: Links, size: int, count: int) -> None:
    """With any others beside it, the best peer's download takes about as long as with it alone."""
    log = copy_of(log_of(count, size))
    best = min(download_seconds(log, [link]) for link in links)
    # Beside the best: finding out (a check or two, and a round trip of who was asked for the
    # head first), and what the slow one had in its pipe.
    slowest = max(round_trip for round_trip, _ in links)
    seconds = download_seconds(log, links)
    assert seconds < 1.5 * best + 4 * CHECK_SECONDS + 4 * slowest


def test_a_fast_peer_among_slow_ones_is_found_with_the_first_share() -> None:
    log = copy_of(log_of(150, 20_000))
    alone = download_seconds(log, ONE_FAST[-1:])
    for links in (ONE_FAST, ONE_FAST[::-1]):
        assert download_seconds(log, links) < 1.75 * alone


def test_a_queue_that_is_over_is_not_taken_for_distance() -> None:
    """The quick peer is idle, and its answers came late because there were many of them."""
    log = copy_of(log_of(150, 20_000))
    quick, slow = (0.16, 1.2e6), (0.001, 3.4e4)
    alone = download_seconds(log, [quick])
    assert download_seconds(log, [quick, slow]) < 1.25 * alone


def test_peers_of_which_nothing_is_known_get_equal_shares() -> None:
    log = copy_of(log_of(150, 100))
    network = Network()
    leecher = Node(reader())
    links = [network.join(Node(log), leecher, round_trip_seconds=0.1) for _ in range(3)]
    network.run(lambda: leecher.log.head.length == 150)
    network.want(leecher, range(150))
    assert [len(link.ends[1].peer.inflight) for link in links] == [50, 50, 50]
    network.run(lambda: holds(leecher, 150))
    assert sum(link.ends[1].peer.counters.requests_sent for link in links) == 151


def test_newcomers_that_have_their_share_take_nothing_from_one_another() -> None:
    """One of them has shown how far away it is, the others nothing: that makes these no quicker."""
    log = copy_of(log_of(150, 20_000))
    network = Network()
    leecher = Node(reader())
    links = [
        network.join(Node(log), leecher, round_trip_seconds=round_trip, bytes_per_second=rate)
        for round_trip, rate in ONE_FAST
    ]
    network.want(leecher, range(150))
    asked = [link.ends[1].peer.inflight for link in links]
    network.run(lambda: sum(map(len, asked)) >= 149)
    assert min(map(len, asked)) == 37
    assert not any(link.ends[1].peer.wire.sent[MessageType.CANCEL] for link in links)


def test_the_share_of_who_has_nothing_is_asked_of_who_has_it() -> None:
    log = copy_of(log_of(100, 100))
    bare = copy_of(log)
    bare.clear(0, 100)
    network = Network()
    leecher = Node(reader())
    links = [
        network.join(Node(held), leecher, round_trip_seconds=0.1) for held in (bare, log, bare)
    ]
    network.run(lambda: leecher.log.head.length == 100)
    network.want(leecher, range(100))
    assert [len(link.ends[1].peer.inflight) for link in links] == [0, 64, 0]


def test_a_read_goes_to_the_peer_that_answers_soonest() -> None:
    log = log_of(1_000, 100)
    network = Network()
    leecher = Node(reader())
    far = network.join(Node(copy_of(log)), leecher, round_trip_seconds=0.5)
    near = network.join(Node(log), leecher, round_trip_seconds=0.01)
    network.want(leecher, range(600))
    network.run(lambda: holds(leecher, 600))
    for index in range(700, 710):
        before = network.now
        network.want(leecher, [index])
        network.run(partial(leecher.log.bitfield.get, index))
        assert network.now - before < 0.02
    assert near.ends[1].peer.counters.blocks_received > far.ends[1].peer.counters.blocks_received


def test_what_is_pushed_after_an_hour_makes_nobody_slow() -> None:
    """Nothing was owed in that hour: it is not the time that two blocks take."""
    log = log_of(1_000, 100)
    network = Network()
    leecher = Node(reader())
    far = network.join(Node(copy_of(log)), leecher, round_trip_seconds=0.5)
    near = network.join(Node(log), leecher, round_trip_seconds=0.01)
    network.run(lambda: leecher.log.head.length == 1_000)
    network.at(3600.0, lambda: None)
    network.run(lambda: network.now >= 3600.0)
    near.ends[1].peer.expected.allow(10)
    holder = near.ends[0]
    _, outputs = holder.node.replicator.push_asked(holder.peer, range(700, 710))
    network.carry_out(holder.node, outputs)
    network.run(partial(leecher.log.bitfield.has_range, 700, 710))
    far_before = far.ends[1].peer.counters.requests_sent
    network.want(leecher, [800])
    network.run(partial(leecher.log.bitfield.get, 800))
    assert far.ends[1].peer.counters.requests_sent == far_before


def test_a_read_overtakes_a_download() -> None:
    """A block that somebody waits for is not behind the hundreds that were asked for before."""
    log = log_of(4_000, 10_000)
    network = Network()
    leecher = Node(reader())
    link = network.join(Node(log), leecher, round_trip_seconds=0.02, bytes_per_second=1e6)
    network.want(leecher, range(3_000))
    network.run(lambda: holds(leecher, 200))
    in_flight = len(link.ends[1].peer.inflight)
    assert in_flight > 200
    before, carried = network.now, len(link.directions[0].delivered)
    network.want(leecher, [3_500])
    asked = Request.decode(of_type(link.ends[1].sent, MessageType.REQUEST)[-1])
    assert asked.priority == 1
    network.run(lambda: leecher.log.bitfield.get(3_500))
    # What is in the pipe, and one turn of the writer: not the 2 MB and more that are asked for.
    assert bytes_before_block(link.directions[0], 3_500, carried) < 250_000
    assert network.now - before < 0.3
    network.run(lambda: holds(leecher, 3_000))
    assert not leecher.errors
    assert link.ends[1].peer.counters.answers_ignored == 0


def test_a_reader_in_sequence_comes_before_a_download() -> None:
    log = log_of(2_000, 10_000)
    network = Network()
    leecher = Node(reader())
    network.join(Node(log), leecher, round_trip_seconds=0.02, bytes_per_second=1e6)
    network.want(leecher, range(1_500))
    network.run(lambda: holds(leecher, 100))
    network.want(leecher, range(1_600, 1_700), Priority.AHEAD)
    network.run(lambda: leecher.log.bitfield.has_range(1_600, 1_700))
    assert leecher.log.contiguous_length < 800


def test_a_bulk_of_reads_shares_its_paths() -> None:
    """Only a few blocks overtake: hundreds in a row would each bring a whole path."""
    log = log_of(4_000, 10)
    network = Network()
    leecher = Node(reader())
    link = network.join(Node(log), leecher, round_trip_seconds=0.05)
    network.want(leecher, range(1_000))
    network.run(lambda: holds(leecher, 100))
    network.want(leecher, list(range(2_000, 2_300)))
    sent = of_type(link.ends[1].sent, MessageType.REQUEST)
    assert not any(Request.decode(payload).priority for payload in sent)
    network.run(lambda: leecher.log.bitfield.has_range(2_000, 2_300) and holds(leecher, 1_000))


def test_downloads_in_random_order_differ_and_end() -> None:
    log = log_of(5_000, 10)
    first: list[set[int]] = []
    for seed in (1, 2):
        network = Network()
        leecher = Node(reader(), seed)
        network.join(Node(log), leecher, round_trip_seconds=0.1)
        network.want(leecher, range(5_000), Priority.RANDOM)
        network.run(partial(has_blocks, leecher, 500))
        first.append(set(leecher.log.blocks))
        network.run(partial(holds, leecher, 5_000))
        assert not leecher.errors
    assert len(first[0] & first[1]) < 200


def test_leechers_in_random_order_give_each_other_what_they_have() -> None:
    """The seeder's link carries little more than each block once."""
    count, size = 400, 5_000
    log = log_of(count, size)
    network = Network()
    leechers = [Node(reader(), seed) for seed in range(4)]
    seeder = Node(log)
    links = [
        network.join(seeder, leecher, round_trip_seconds=0.05, bytes_per_second=1e5)
        for leecher in leechers
    ]
    for place, one in enumerate(leechers):
        for other in leechers[place + 1 :]:
            network.join(one, other, round_trip_seconds=0.005, bytes_per_second=1e7)
    for leecher in leechers:
        network.want(leecher, range(count), Priority.RANDOM)
    seconds = network.run(lambda: all(holds(leecher, count) for leecher in leechers))
    alone = count * size / 1e5
    assert seconds < 0.6 * alone
    assert sum(link.directions[0].bytes_sent for link in links) < 2.2 * count * size


def test_a_silent_peer_is_asked_for_nothing_that_others_have() -> None:
    log = log_of(300, 100)
    network = Network()
    leecher = Node(reader())
    silent = network.join(Node(copy_of(log)), leecher, round_trip_seconds=0.01)
    network.want(leecher, range(10))
    network.run(lambda: holds(leecher, 10))
    silent.cut()
    network.join(Node(log), leecher, round_trip_seconds=0.01)
    started = network.now
    network.want(leecher, range(10, 300))
    network.run(lambda: holds(leecher, 300))
    assert network.now - started < 4 * CHECK_SECONDS
