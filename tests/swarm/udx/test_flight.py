"""Loss detection by time, with the example of RFC 8985, section 3.4."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from swarm.udx.flight import Arrivals, Flight, SentPacket
from swarm.udx.packet import DATA
from swarm.udx.path import Path
from swarm.udx.round_trip import RoundTrip

PATH = Path(1, ("peer", 1))


def launch(flight: Flight, now: float, count: int = 1) -> None:
    for _ in range(count):
        resend(flight, SentPacket(flight.next_seq, DATA, b"x", PATH), now)


def resend(flight: Flight, packet: SentPacket, now: float) -> None:
    packet.sent_at = now
    flight.add(packet)


def numbers(packets: list[SentPacket]) -> list[int]:
    return [packet.seq for packet in packets]


def test_what_others_overtook_is_lost_after_a_quarter_round_trip() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1, 0)
    flight = Flight(round_trip)
    launch(flight, 1.0)
    launch(flight, 1.01)
    arrivals = Arrivals()
    flight.acknowledge_ranges([(1, 2)], 1.11, arrivals)
    assert (arrivals.count, flight.sacked, flight.in_flight) == (1, 1, 1)
    lost, look_again = flight.find_lost(1.11, is_eager=False)
    assert (lost, look_again) == ([], 1.0 + 0.1 + 0.025)
    lost, look_again = flight.find_lost(1.125, is_eager=False)
    assert (numbers(lost), look_again) == ([0], None)
    assert (flight.in_flight, flight.lost_count) == (0, 1)


def test_three_that_overtook_it_are_enough() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1, 0)
    flight = Flight(round_trip)
    launch(flight, 1.0, 4)
    flight.acknowledge_ranges([(1, 4)], 1.1, Arrivals())
    assert numbers(flight.find_lost(1.1, is_eager=False)[0]) == [0]


def test_a_path_that_reorders_is_given_time_for_ever() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1, 0)
    flight = Flight(round_trip)
    launch(flight, 1.0, 3)
    flight.acknowledge_ranges([(2, 3)], 1.1, Arrivals())
    flight.acknowledge(1, 1.1, Arrivals())
    assert flight.has_seen_reordering
    launch(flight, 1.2, 4)
    flight.acknowledge_ranges([(4, 7)], 1.3, Arrivals())
    lost, look_again = flight.find_lost(1.3, is_eager=True)
    assert numbers(lost) == [1]
    assert look_again == 1.2 + 0.1 + 0.025


def test_the_example_of_the_standard() -> None:
    """P1 to P3 are lost, a probe of the tail finds it, and P1 is lost once more."""
    round_trip = RoundTrip()
    flight = Flight(round_trip)
    launch(flight, 0.0, 4)
    flight.acknowledge(1, 0.1, Arrivals())
    round_trip.add(0.1, 0.1)
    assert flight.find_lost(0.1, is_eager=False)[0] == []

    probe = flight.pop_last()
    assert probe is not None
    assert probe.seq == 3
    resend(flight, probe, 0.3)
    flight.acknowledge_ranges([(3, 4)], 0.4, Arrivals())
    lost, _ = flight.find_lost(0.4, is_eager=False)
    assert numbers(lost) == [1, 2]
    resend(flight, flight.pop_lost(), 0.4)
    resend(flight, flight.pop_lost(), 0.4)

    flight.acknowledge_ranges([(2, 4)], 0.5, Arrivals())
    lost, _ = flight.find_lost(0.5, is_eager=True)
    assert numbers(lost) == [1]
    resend(flight, flight.pop_lost(), 0.5)
    flight.acknowledge(4, 0.6, Arrivals())
    assert (flight.is_empty, flight.in_flight, flight.sacked) == (True, 0, 0)


def test_an_answer_to_the_first_copy_says_nothing_of_the_second() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1, 0)
    flight = Flight(round_trip)
    launch(flight, 1.0, 2)
    flight.find_timed_out(2.0)
    resend(flight, flight.pop_lost(), 2.0)
    resend(flight, flight.pop_lost(), 2.0)
    launch(flight, 1.99)
    # Much too soon for the copy of 2.0: it is an answer to that of 1.0.
    flight.acknowledge_ranges([(1, 2)], 2.001, Arrivals())
    assert flight.find_lost(2.5, is_eager=True)[0] == []


def test_a_timeout_takes_the_first_and_what_is_older_than_a_round_trip() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1, 0)
    flight = Flight(round_trip)
    launch(flight, 1.0, 2)
    flight.acknowledge(1, 1.1, Arrivals())
    launch(flight, 1.95)
    assert numbers(flight.find_timed_out(2.0)) == [1]
    launch(flight, 2.06)
    assert numbers(flight.find_timed_out(2.1)) == [2]
    assert flight.pop_lost().seq == 1


def test_ranges_that_overlap_are_not_looked_through_each() -> None:
    """One packet of 2 kB cost a sixth of a second, with a full window under way."""

    def cost(packets: list[list[tuple[int, int]]]) -> float:
        flight = Flight(RoundTrip())
        launch(flight, 1.0, 3000)
        began = time.thread_time()
        for ranges in packets:
            flight.acknowledge_ranges(ranges, 1.1, Arrivals())
        return time.thread_time() - began

    nested = [(1 + index, 2999 - index) for index in range(250)]
    plain = min(cost([[(1, 2999)]]) for _ in range(3))
    assert min(cost([nested]) for _ in range(3)) < 20 * plain
    assert min(cost([[pair] for pair in nested]) for _ in range(3)) < 20 * plain
    assert min(cost([[pair] for pair in reversed(nested)]) for _ in range(3)) < 20 * plain


@given(st.data())
def test_counts_hold_whatever_is_acknowledged_in_whatever_order(data: st.DataObject) -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1, 0)
    flight = Flight(round_trip)
    now = 1.0
    arrived: set[int] = set()
    for _ in range(data.draw(st.integers(1, 30))):
        now += 0.03
        launch(flight, now, data.draw(st.integers(0, 5)))
        first, stop = flight.unacked_seq, flight.next_seq
        arrivals = Arrivals()
        fresh: set[int] = set()
        if data.draw(st.booleans()):
            ack = data.draw(st.integers(first, stop))
            fresh |= set(range(ack)) - arrived
            flight.acknowledge(ack, now, arrivals)
        first = flight.unacked_seq
        if first < stop:
            ranges = []
            for _ in range(data.draw(st.integers(0, 3))):
                low = data.draw(st.integers(first, stop - 1))
                ranges.append((low, data.draw(st.integers(low + 1, stop))))
                fresh |= set(range(*ranges[-1])) - arrived
            flight.acknowledge_ranges(ranges, now, arrivals)
        arrived |= fresh
        assert arrivals.count == len(fresh)
        flight.find_lost(now, is_eager=data.draw(st.booleans()))
        if flight.lost_count and data.draw(st.booleans()):
            resend(flight, flight.pop_lost(), now)
        if data.draw(st.integers(0, 9)) == 0:
            flight.find_timed_out(now)
        missing = stop - len(arrived)
        assert flight.in_flight + flight.lost_count == missing
        assert flight.sacked == len([seq for seq in arrived if seq >= flight.unacked_seq])
