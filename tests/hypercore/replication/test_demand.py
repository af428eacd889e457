from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from hypercore.bitfield import PAGE_BITS, PAGE_BYTES, Bitfield
from hypercore.replication.demand import PIECE_BLOCKS, Demand, Priority
from hypercore.replication.messages import Range
from hypercore.replication.remote import RemotePeer
from hypercore.replication.statistics import Counters
from hypercore.replication.uploads import Uploads
from hypercore.replication.wanted_blocks import (
    MAX_GAPS,
    NEAR_BLOCKS,
    RUN_BLOCKS,
    WantedBlocks,
)
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import reader, writer
from tests.support.replicator_pair import Channel, Node, settle

EVERYTHING = (1 << 30, 1 << 30)


class CountedBitfield(Bitfield):
    """Counts how often somebody looks for what is missing."""

    looks = 0

    def first_unset(self, start: int = 0) -> int:
        self.looks += 1
        return super().first_unset(start)


class Store:
    def __init__(self, held: range = range(0)) -> None:
        self.bitfield = CountedBitfield()
        self.bitfield.set_range(held.start, held.stop)


class Peer:
    """Has the blocks given; all, when none are."""

    def __init__(self, blocks: set[int] | None = None, told: range = range(0)) -> None:
        self.blocks = blocks
        self.told = told

    def offers(self, index: int) -> bool:
        return self.blocks is None or index in self.blocks

    def offered(self, pool: BitMap64) -> Iterator[int]:
        return (index for index in pool if self.offers(index))

    def next_offered(self, index: int) -> int | None:
        if self.blocks is None:
            return index
        return min((block for block in self.blocks if block >= index), default=None)

    def has_told(self, index: int) -> bool:
        return index in self.told


def remote_peer() -> RemotePeer:
    counters = Counters()
    return RemotePeer(Uploads(MemoryLog(key=bytes(32)), counters), counters)


def test_single_blocks_come_before_ranges() -> None:
    demand = Demand(Store())
    demand.want(range(3))
    demand.want([70, 50])
    assert demand.take(Peer(), (4, 4), 100) == [50, 70, 0, 1]
    assert demand.take(Peer(), (4, 4), 100) == [2]
    assert demand.take(Peer(), (4, 4), 100) == []


def test_single_blocks_do_not_wait_for_the_window_of_ranges() -> None:
    demand = Demand(Store())
    demand.want(range(10))
    demand.want([11, 12, 13])
    assert demand.take(Peer(), (3, 1), 100) == [11, 12, 13]


def test_only_what_is_below_the_length_is_asked_for() -> None:
    demand = Demand(Store())
    demand.want(range(100))
    demand.want([150])
    assert demand.take(Peer(), EVERYTHING, 10) == list(range(10))
    assert demand.take(Peer(), EVERYTHING, 10) == []
    assert demand.take(Peer(), EVERYTHING, 12) == [10, 11]
    assert demand.take(Peer(), EVERYTHING, 151) == [150, *range(12, 100)]


def test_what_is_held_is_not_asked_for() -> None:
    demand = Demand(Store(range(5, 10)))
    demand.want(range(12))
    demand.want([7])
    assert demand.take(Peer(), EVERYTHING, 100) == [0, 1, 2, 3, 4, 10, 11]


def test_a_log_of_which_nobody_has_anything_may_be_said_to_be_of_any_length() -> None:
    """Who writes it needs one signature for that; looking for who has a block of it took ages."""
    length = 2**45
    peer = remote_peer()
    demand = Demand(Store())
    demand.want(range(length))
    assert demand.take(peer, EVERYTHING, length) == []
    peer.receive_range(Range(70_000, 3), length)
    assert demand.take(peer, EVERYTHING, length) == [70_000, 70_001, 70_002]


class FarPeer(Peer):
    """Has one block in eight million, and counts how often that is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def offers(self, index: int) -> bool:
        return index % (2 * NEAR_BLOCKS) == 0

    def next_offered(self, index: int) -> int | None:
        self.looks += 1
        return -(-index // (2 * NEAR_BLOCKS)) * 2 * NEAR_BLOCKS


def test_gaps_without_end_are_not_all_remembered() -> None:
    wanted, peer, bitfield = WantedBlocks(), FarPeer(), Bitfield()
    wanted.add_range(range(2**45))
    pieces = 0
    while wanted.write_out(peer, bitfield, 2**45):
        pieces += 1
        assert pieces <= 2 * MAX_GAPS
    assert pieces > MAX_GAPS // 2  # what is looked for among them
    peer.looks = 0
    wanted.write_out(peer, bitfield, 2**45)
    assert peer.looks <= MAX_GAPS + 2


def test_what_nobody_has_is_passed_over() -> None:
    length = 2**45
    peer = remote_peer()
    demand = Demand(Store())
    demand.want(range(length))
    for start in (2**31, 2**30, 2**32 - 3, 0, 2**31 + 2**25):  # however far, and in any order
        peer.receive_range(Range(start, 3), length)
        assert demand.take(peer, EVERYTHING, length) == [start, start + 1, start + 2]
    demand.put_back(2**31)
    assert demand.take(peer, EVERYTHING, length) == [2**31]
    demand.unwant(range(length))
    assert not demand.missing(peer, length, 2**21, 8)


def test_every_other_block_is_wanted_as_fast_as_all() -> None:
    """What is left of a log that was swept: to look for each run of one block took four seconds."""
    store, length = Store(), 2**21
    for page in range(length // PAGE_BITS):
        store.bitfield.load_page(page, b"\x55" * PAGE_BYTES)
    peer, demand = remote_peer(), Demand(store)
    demand.want(range(length))
    store.bitfield.looks = 0
    for index in (length - 2, length - 1):  # held, and not
        peer.receive_range(Range(index, 1), length)
    assert demand.take(peer, EVERYTHING, length) == [length - 1]
    assert store.bitfield.looks < 1000


def test_a_range_may_be_of_any_length() -> None:
    demand = Demand(Store())
    demand.want(range(2**53 - 1))
    length = 3 * PIECE_BLOCKS
    assert demand.take(Peer(), (2, 2), length) == [0, 1]
    assert demand.take(Peer({length - 1}), (2, 2), length) == [length - 1]


def test_what_came_to_nothing_is_asked_for_again_if_wanted() -> None:
    demand = Demand(Store())
    demand.want([1, 2])
    demand.want(range(10, 12))
    assert demand.take(Peer(), EVERYTHING, 100) == [1, 2, 10, 11]
    assert demand.unwant([2]) == [2]
    for index in (1, 2, 10):
        demand.put_back(index)
    assert demand.take(Peer(), EVERYTHING, 100) == [1, 10]


def test_a_block_wanted_twice_is_wanted_until_both_gave_it_up() -> None:
    demand = Demand(Store())
    demand.want([4])
    demand.want([4])
    demand.take(Peer(), EVERYTHING, 100)
    assert demand.unwant([4]) == []
    assert demand.unwant([4]) == [4]
    assert demand.unwant([4]) == []


def test_a_block_of_a_range_stays_wanted_when_the_single_want_goes() -> None:
    demand = Demand(Store())
    demand.want(range(10))
    demand.want([4])
    assert demand.unwant([4]) == []
    assert sorted(demand.take(Peer(), EVERYTHING, 100)) == list(range(10))


def test_equal_ranges_are_given_up_one_by_one() -> None:
    demand = Demand(Store())
    demand.want(range(10))
    demand.want(range(10))
    demand.unwant(range(10))
    assert demand.take(Peer(), EVERYTHING, 100) == list(range(10))
    assert demand.unwant(range(10)) == list(range(10))
    assert demand.unwant(range(10)) == []


def test_demand_ends_when_everything_is_here() -> None:
    store = Store()
    demand = Demand(store)
    demand.want(range(3))
    demand.want([5])
    for index in demand.take(Peer(), EVERYTHING, 10):
        store.bitfield.set_range(index, index + 1)
        demand.settle(index)
    assert demand
    assert demand.take(Peer(), EVERYTHING, 10) == []
    assert not demand


def test_the_block_that_comes_with_an_upgrade() -> None:
    demand = Demand(Store())
    assert demand.first_beyond(10, 20) is None
    demand.want(range(5, 2**40))
    assert demand.first_beyond(10, 20) == 10
    demand.unwant(range(5, 2**40))
    demand.want([17, 13, 30])
    assert demand.first_beyond(10, 20) == 13
    demand.ask(13)
    assert demand.first_beyond(10, 13) is None


def test_windows_to_ask_about() -> None:
    demand = Demand(Store())
    demand.want([3, 100, 250, 251, 900])
    assert demand.missing(Peer({3}), 1000, 100, 8) == [100, 250, 900]
    assert demand.missing(Peer({3}), 1000, 100, 2) == [100, 250]
    assert demand.missing(Peer({3}), 200, 100, 8) == [100]
    assert demand.missing(Peer({3}, told=range(100, 300)), 1000, 100, 8) == [900]
    demand.want(range(2**40), Priority.RANDOM)
    assert demand.missing(Peer({3}, told=range(2**30)), 2**40, 2**21, 2) == [2**30, 2**30 + 2**21]


def test_a_truncated_log_is_wanted_again_from_there() -> None:
    store = Store()
    demand = Demand(store)
    demand.want(range(2**40))
    for index in demand.take(Peer(), EVERYTHING, 20):
        store.bitfield.set_range(index, index + 1)
        demand.settle(index)
    store.bitfield.set_range(10, 20, False)
    demand.rewind()
    assert demand.take(Peer(), EVERYTHING, 15) == [10, 11, 12, 13, 14]


def test_what_came_together_with_what_cuts_it_off_is_still_wanted() -> None:
    """As a push of the old history does, of a peer that leads on to the new one."""
    store = Store()
    demand = Demand(store)
    demand.want(BitMap64([7]))
    assert demand.take(Peer(), EVERYTHING, 10) == [7]
    demand.rewind()
    demand.settle(7)
    assert demand
    assert demand.take(Peer(), EVERYTHING, 10) == [7]
    held(demand, store, 7)
    assert not demand


def held(demand: Demand, store: Store, *indices: int) -> None:
    for index in indices:
        store.bitfield.set_range(index, index + 1)
        demand.settle(index)


def test_what_a_reader_comes_to_next_comes_before_downloads() -> None:
    demand = Demand(Store())
    demand.want(range(100))
    demand.want(range(200, 204), Priority.AHEAD)
    demand.want([50])
    assert demand.take(Peer(), (6, 6), 300) == [50, 200, 201, 202, 203, 0]
    demand.put_back(202)
    demand.put_back(0)
    assert demand.take(Peer(), (2, 2), 300) == [202, 0]


def test_a_list_of_blocks_is_no_more_urgent_than_a_range() -> None:
    store = Store(range(3))
    demand = Demand(store)
    wanted = BitMap64([1, 7, 2**40])
    demand.want(wanted)
    demand.want([5])
    assert demand.take(Peer(), EVERYTHING, 2**41) == [5, 7, 2**40]
    assert demand.is_wanted(7)
    assert not demand.is_wanted(1)
    assert sorted(demand.unwant(wanted)) == [7, 2**40]
    assert demand.unwant(wanted) == []
    for index in (5, 7, 2**40):
        demand.put_back(index)
    assert demand.take(Peer(), EVERYTHING, 2**41) == [5]


def test_a_list_ends_when_all_of_it_is_here() -> None:
    store = Store()
    demand = Demand(store)
    demand.want(BitMap64([3, 4]))
    assert demand.take(Peer(), EVERYTHING, 10) == [3, 4]
    held(demand, store, 3)
    assert demand
    held(demand, store, 4)
    assert not demand


def test_a_list_and_a_range_want_a_block_until_both_are_taken_back() -> None:
    demand = Demand(Store())
    demand.want(range(10))
    demand.want(BitMap64([4, 20]))
    assert demand.unwant(range(10)) == []
    assert demand.take(Peer(), EVERYTHING, 30) == [4, 20]
    demand.want(range(3, 6))
    assert demand.unwant(BitMap64([4, 20])) == [20]


def test_a_random_order_is_one_of_short_runs() -> None:
    taken = {}
    for seed in (1, 2):
        demand = Demand(Store(), seed)
        demand.want(range(2**40), Priority.RANDOM)
        taken[seed] = demand.take(Peer(), (160, 160), 10_000)
        assert len(set(taken[seed])) == 160
        jumps = [one for one, other in pairwise(taken[seed]) if other != one + 1]
        assert len(jumps) <= 160 // RUN_BLOCKS
        assert len(jumps) > 5
    assert len(set(taken[1]) & set(taken[2])) < 80
    assert Demand(Store(), 1).take(Peer(), (1, 1), 10) == []


def test_a_random_order_finds_the_last_block_that_a_peer_has() -> None:
    demand = Demand(Store(), 7)
    demand.want(range(5_000), Priority.RANDOM)
    assert demand.take(Peer({3}), (9, 9), 5_000) == [3]
    assert demand.take(Peer({3}), (9, 9), 5_000) == []
    assert sorted(demand.take(Peer(), EVERYTHING, 5_000)) == [
        index for index in range(5_000) if index != 3
    ]


def test_only_forced_blocks_are_taken_where_peers_push() -> None:
    demand = Demand(Store())
    demand.want(range(10))
    demand.want([3, 20])
    demand.force([3])
    assert demand.take_forced(Peer(), 10, 30) == [3]
    assert demand.take_forced(Peer(), 10, 30) == []
    demand.put_back(3)
    assert demand.take_forced(Peer(), 10, 30) == [3]
    assert demand.unwant([3]) == []  # of the range it is wanted still
    assert not demand.has_forced
    demand.force([77])
    assert not demand.has_forced, "nobody wants it"


blocks = st.sets(st.integers(0, 60), max_size=30)
numbers = st.integers(0, 60)
actions = st.sampled_from(["want", "unwant", "list", "unlist", "point", "take", "fail", "arrive"])


class Play:
    """A demand and, beside it, what it should know."""

    def __init__(self, held: set[int]) -> None:
        self.store = Store()
        for index in held:
            self.store.bitfield.set_range(index, index + 1)
        self.demand = Demand(self.store, seed=3)
        self.ranges: list[range] = []
        self.lists: list[range] = []
        self.points: set[int] = set()
        self.asked: set[int] = set()

    def act(self, action: str, one: int, other: int) -> None:
        priority = Priority((one + other) % len(Priority))
        listed = range(one, one + other % 7, 2)
        match action:
            case "want":
                self.demand.want(range(one, other), priority)
                self.ranges.append(range(one, other))
            case "unwant":
                self.asked.difference_update(self.demand.unwant(range(one, other), priority))
                if range(one, other) in self.ranges:
                    self.ranges.remove(range(one, other))
            case "list":
                self.demand.want(BitMap64(listed), priority)
                self.lists.append(listed)
            case "unlist":
                self.asked.difference_update(self.demand.unwant(BitMap64(listed), priority))
                if listed in self.lists:
                    self.lists.remove(listed)
            case "point":
                self.demand.want([one])
                self.points.add(one)
            case "take":
                self.take(one)
            case "fail" if self.asked:
                self.demand.put_back(self.asked.pop())
            case "arrive" if self.asked:
                self.arrive(min(self.asked))

    def take(self, limit: int) -> bool:
        taken = self.demand.take(Peer(), (limit, limit), 80)
        assert len(set(taken)) == len(taken)
        assert not self.asked & set(taken)
        assert not any(self.store.bitfield.get(index) for index in taken)
        self.asked.update(taken)
        return bool(taken)

    def arrive(self, index: int) -> None:
        self.asked.discard(index)
        self.store.bitfield.set_range(index, index + 1)
        self.demand.settle(index)


@given(blocks, st.lists(st.tuples(actions, numbers, numbers), max_size=40))
def test_in_the_end_all_that_is_wanted_was_asked_for_once(
    held: set[int], script: list[tuple[str, int, int]]
) -> None:
    play = Play(held)
    for action, one, other in script:
        play.act(action, one, other)
    while play.take(5) or play.asked:
        for index in list(play.asked):
            play.arrive(index)
    wanted = play.points.union(*play.ranges, *play.lists)
    assert all(play.store.bitfield.get(index) for index in wanted)


@pytest.mark.parametrize("as_list", [False, True])
def test_what_waits_for_a_reader_waits_for_a_download_when_the_reader_is_gone(
    as_list: bool,
) -> None:
    """Found by chance: it was in the pool of the reader only, and then in none."""
    asker = Node(reader())
    channel = Channel(Node(writer(100)), asker)
    settle(channel)
    ahead = BitMap64(range(20, 60)) if as_list else range(20, 60)
    asker.carry_out(asker.replicator.want(range(100), 0.0, Priority.LINEAR))
    asker.carry_out(asker.replicator.want(ahead, 0.0, Priority.AHEAD))
    channel.ends[1].close(0.0)
    asker.carry_out(asker.replicator.unwant(ahead, 0.0, Priority.AHEAD))
    settle(Channel(Node(writer(100)), asker))
    assert asker.log.contiguous_length == 100
