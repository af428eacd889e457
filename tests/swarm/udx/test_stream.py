"""The cases of the original's own test suite, on a virtual clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.udx.congestion import BbrState
from swarm.udx.outputs import CloseReason, Gone, Readable, Transmit
from swarm.udx.packet import (
    DATA,
    DESTROY,
    END,
    HEADER_BYTES,
    HEARTBEAT,
    MESSAGE,
    SACK,
    Packet,
    decode_packet,
    encode_packet,
)
from swarm.udx.path import Path
from swarm.udx.stream import SEND_BUFFER_BYTES, State, UdxStream
from tests.support.lossy_link import Conditions
from tests.support.udx_pair import UdxEnd, UdxPair

NO_DELAY = Conditions(delay=0.001)


def pattern(size: int) -> bytes:
    blocks = (hashlib.sha256(b"%d" % i).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


BYTES = pattern(200_000)


def sent_by(end: UdxEnd) -> list[Packet]:
    return [decode_packet(datagram) for _, datagram in end.transmitted]


def numbered(end: UdxEnd) -> list[Packet]:
    """Packets that carry something with a number."""
    return [packet for packet in sent_by(end) if packet.flags & (DATA | END)]


def close_both(pair: UdxPair) -> None:
    """The other end ends, too, and both know."""
    pair.right.ends_after = True
    pair.run(lambda: pair.left.closed is not None and pair.right.closed is not None)
    assert pair.left.closed is pair.right.closed is CloseReason.ENDED


def test_a_few_bytes_there_and_back() -> None:
    pair = UdxPair(NO_DELAY)
    pair.left.to_send = b"hello"
    pair.run(lambda: pair.right.received == b"hello")
    pair.right.to_send = b"hello yourself"
    pair.run(lambda: pair.left.received == b"hello yourself")
    pair.left.ends_after = True
    close_both(pair)


def test_both_end_at_once_without_a_byte() -> None:
    pair = UdxPair(NO_DELAY)
    pair.left.ends_after = True
    close_both(pair)
    assert not pair.left.received


def test_one_side_ends_and_the_other_still_writes() -> None:
    pair = UdxPair()
    pair.transfer(b"question")
    data = pattern(300_000)
    pair.right.to_send = data
    pair.run(lambda: pair.left.received == data)
    assert pair.left.closed is None
    close_both(pair)


def test_an_end_leaves_with_the_last_bytes() -> None:
    pair = UdxPair(NO_DELAY)
    pair.left.to_send = b"bye"
    pair.link.passes = lambda direction, datagram: False
    pair.carry_out(0, pair.left.machine.send(b"", pair.now))
    assert numbered(pair.left) == []
    pair.link.passes = None
    pair.transfer(b"bye")
    assert [packet.flags for packet in numbered(pair.left)] == [DATA, END]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(loss=0.01),
        Conditions(loss=0.1),
        Conditions(loss=0.2),
        Conditions(reorder=0.5),
        Conditions(duplicate=0.5),
        Conditions(delay=0.05, loss=0.05, reorder=0.2, duplicate=0.1),
        Conditions(rate=1_000_000, queue_bytes=20_000, loss=0.02),
        Conditions(loss=0.05, mtu=1280),
    ],
    ids=str,
)
def test_bytes_arrive_in_order_over_any_link(conditions: Conditions, seed: int) -> None:
    data = pattern(400_000)
    pair = UdxPair(conditions, seed=seed)
    pair.right.to_send = pattern(100_000)
    pair.transfer(data)
    assert pair.right.received == data
    close_both(pair)
    assert pair.left.received == pattern(100_000)


@settings(max_examples=40)
@given(
    st.builds(
        Conditions,
        delay=st.floats(0, 0.3),
        loss=st.floats(0, 0.1),
        reorder=st.floats(0, 1),
        duplicate=st.floats(0, 1),
        rate=st.none() | st.floats(50_000, 10_000_000),
        queue_bytes=st.integers(5_000, 200_000),
        mtu=st.integers(1200, 1600),
    ),
    st.integers(0, 2**32),
    st.integers(5_000, 200_000),
)
def test_bytes_arrive_over_links_of_all_kinds(
    conditions: Conditions, seed: int, window_bytes: int
) -> None:
    pair = UdxPair(conditions, seed=seed, window_bytes=window_bytes)
    pair.right.to_send = BYTES[:20_000]
    pair.transfer(BYTES[:60_000])
    close_both(pair)
    assert pair.left.received == BYTES[:20_000]
    assert pair.right.received == BYTES[:60_000]


def test_a_clean_link_needs_no_packet_twice() -> None:
    pair = UdxPair()
    data = pattern(3_000_000)
    pair.transfer(data)
    assert pair.right.received == data
    assert pair.left.machine.statistics().retransmissions == 0
    assert [packet.seq for packet in numbered(pair.left)] == list(range(len(numbered(pair.left))))


@pytest.mark.parametrize("first_seqs", [(5, 0), (2**32 - 3, 2**31 - 3), (2**31, 2**32 - 1)])
def test_numbers_begin_anywhere_and_wrap_around(first_seqs: tuple[int, int]) -> None:
    pair = UdxPair(Conditions(loss=0.02), first_seqs=first_seqs, seed=4)
    data = pattern(100_000)
    pair.right.to_send = data
    pair.transfer(data)
    close_both(pair)
    assert pair.left.received == pair.right.received == data
    assert numbered(pair.left)[0].seq == first_seqs[0]


def test_the_larger_packets_of_a_better_path_are_found() -> None:
    pair = UdxPair()
    pair.transfer(pattern(1_000_000))
    assert pair.left.machine.statistics().mtu == 1500
    sizes = {len(datagram) + 28 for _, datagram in pair.left.transmitted}
    assert max(sizes) == 1500


@pytest.mark.parametrize("mtu", [1200, 1280, 1400, 1492])
def test_a_path_of_smaller_packets_costs_probes_and_no_congestion(mtu: int) -> None:
    pair = UdxPair(Conditions(mtu=mtu))
    data = pattern(4_000_000)
    pair.transfer(data)
    statistics = pair.left.machine.statistics()
    assert pair.right.received == data
    assert mtu - 32 < statistics.mtu <= mtu
    assert statistics.recoveries == statistics.timeouts == 0
    assert statistics.retransmissions <= 20


def test_messages_have_no_order_and_no_number() -> None:
    pair = UdxPair(NO_DELAY)
    for data in (b"", b"a", bytes(1152)):
        pair.carry_out(0, pair.left.machine.send_message(data))
    pair.run(lambda: len(pair.right.messages) == 3)
    assert pair.right.messages == [b"", b"a", bytes(1152)]
    assert {packet.seq for packet in sent_by(pair.left)} == {0}
    with pytest.raises(ValueError, match="1153 bytes, at most 1152"):
        pair.left.machine.send_message(bytes(1153))


def test_a_reader_that_does_not_read_stops_the_sender() -> None:
    pair = UdxPair(window_bytes=50_000)
    pair.right.reads = False
    data = pattern(500_000)
    pair.left.to_send = data
    pair.run_for(20)
    buffered = pair.right.machine.statistics().buffered_bytes
    assert 40_000 < buffered < 57_000
    assert pair.right.machine.statistics().packets_dropped == 0
    assert not pair.left.machine.is_writable
    assert sent_by(pair.left)[-1].flags == HEARTBEAT
    assert pair.left.closed is None  # its heartbeats are answered
    pair.right.reads = True
    pair.left.ends_after = True
    pair.run(lambda: pair.right.machine.has_read_all)
    assert pair.right.received == data


def test_room_is_told_even_if_that_packet_is_lost() -> None:
    pair = UdxPair(window_bytes=50_000)
    pair.right.reads = False
    data = pattern(200_000)
    pair.left.to_send = data
    pair.run_for(5)
    pair.link.passes = lambda direction, datagram: direction == 0
    pair.right.reads = True
    pair.run_for(0.1)
    pair.link.passes = None
    pair.run(lambda: pair.right.received == data, 10)


def test_what_cannot_leave_is_bounded_by_who_asks_for_room() -> None:
    pair = UdxPair(window_bytes=50_000)
    pair.right.reads = False
    pair.left.to_send = bytes(10_000_000)
    pair.run_for(5)
    assert pair.left.machine.statistics().queued_bytes < SEND_BUFFER_BYTES + 2**16 + 60_000


def test_destroyed_here_is_reset_there() -> None:
    pair = UdxPair()
    pair.left.to_send = pattern(1_000_000)
    pair.run(lambda: len(pair.right.received) > 100_000)
    pair.carry_out(0, pair.left.machine.destroy(pair.now))
    pair.run(lambda: pair.right.closed is not None)
    assert (pair.left.closed, pair.right.closed) == (CloseReason.DESTROYED, CloseReason.RESET)
    assert pair.right.machine.state is State.GONE
    assert pair.left.machine.destroy(pair.now) == []


@pytest.mark.parametrize("has_end", [True, False])
def test_what_arrived_before_a_reset_is_read_if_it_is_all(has_end: bool) -> None:
    pair = UdxPair()
    pair.right.reads = False
    pair.left.to_send = b"all of it"
    pair.left.ends_after = has_end
    pair.run(lambda: pair.left.machine.has_sent_all and pair.right.machine.is_readable)
    pair.carry_out(0, pair.left.machine.destroy(pair.now))
    pair.run(lambda: pair.right.closed is CloseReason.RESET)
    machine = pair.right.machine
    assert machine.read(100) == (b"all of it" if has_end else b"")
    assert machine.has_read_all == has_end


def test_a_destroy_that_was_lost_is_repeated_to_who_goes_on() -> None:
    pair = UdxPair()
    pair.right.to_send = pattern(10_000)
    pair.run(lambda: len(pair.left.received) == 10_000)
    pair.link.passes = lambda direction, datagram: direction == 1
    pair.carry_out(0, pair.left.machine.destroy(pair.now))
    pair.run_for(0.1)
    pair.link.passes = None
    assert pair.right.closed is None
    pair.right.to_send = b"are you there?"
    pair.run(lambda: pair.right.closed is CloseReason.RESET, 1)


def test_a_lost_last_acknowledgement_is_repeated() -> None:
    pair = UdxPair()
    pair.transfer(b"all")
    pair.right.ends_after = True
    # The last thing left says is that it has right's end.
    pair.link.passes = lambda direction, datagram: direction == 1
    pair.run(lambda: pair.left.closed is CloseReason.ENDED)
    pair.run_for(0.05)
    assert pair.right.closed is None
    pair.link.passes = None
    took = pair.run(lambda: pair.right.closed is CloseReason.ENDED)
    assert took < 1.5
    pair.run(lambda: pair.left.machine.state is State.GONE)


def test_a_remote_that_vanished_is_given_up() -> None:
    pair = UdxPair()
    pair.left.to_send = pattern(100_000)
    pair.run(lambda: len(pair.right.received) > 20_000)
    pair.link.passes = lambda direction, datagram: False
    took = pair.run(lambda: pair.left.closed is CloseReason.TIMED_OUT)
    assert 12 < took < 16
    assert pair.left.machine.deadline is None


def test_a_remote_that_vanished_with_its_window_closed_is_given_up() -> None:
    pair = UdxPair(window_bytes=50_000)
    pair.right.reads = False
    pair.left.to_send = pattern(500_000)
    pair.run_for(5)
    pair.link.passes = lambda direction, datagram: direction == 0
    took = pair.run(lambda: pair.left.closed is CloseReason.TIMED_OUT)
    assert 10 < took < 20


def test_an_outage_of_some_seconds_is_survived() -> None:
    pair = UdxPair(Conditions(delay=0.02))
    data = pattern(2_000_000)
    pair.left.to_send = data
    pair.run(lambda: len(pair.right.received) > 500_000)
    pair.link.passes = lambda direction, datagram: False
    pair.run_for(6)
    pair.link.passes = None
    took = pair.run(lambda: pair.right.received == data)
    assert took < 5
    assert pair.left.machine.statistics().timeouts >= 3


def test_packets_before_the_connection_are_kept_and_acknowledged_after_it() -> None:
    pair = UdxPair(is_connected=False)
    pair.connect(0)
    pair.left.to_send = b"early"
    pair.run_for(0.5)
    assert pair.right.received == b"early"
    assert sent_by(pair.right) == []
    pair.connect(1)
    assert [(packet.flags, packet.ack) for packet in sent_by(pair.right)] == [(0, 1)]
    pair.run(lambda: pair.left.machine.has_sent_all, 0.1)


def test_packets_that_come_before_it_is_known_where_they_begin_come_again() -> None:
    data = pattern(400_000)
    pair = UdxPair(Conditions(delay=0.02, loss=0.05), is_connected=False, first_seqs=(1000, 0))
    pair.connect(0)
    pair.left.to_send = data[:5000]
    pair.run_for(0.1)
    pair.connect(1, first_ack=1000)
    pair.left.to_send += data[5000:]
    pair.run(lambda: pair.right.received == data, 60)


def test_a_stream_that_was_never_connected() -> None:
    stream = UdxStream(1, now=0)
    assert stream.deadline is None
    forbidden_calls: list[Callable[[], object]] = [
        lambda: stream.send(b"x", 0),
        lambda: stream.send_end(0),
        lambda: stream.send_message(b"x"),
        lambda: stream.change_remote(Path(1, ("peer", 1)), 0),
    ]
    for forbidden in forbidden_calls:
        with pytest.raises(RuntimeError, match="IDLE"):
            forbidden()
    _closed, gone = stream.destroy(0)
    assert isinstance(gone, Gone)
    assert stream.state is State.GONE
    assert stream.receive([Packet(DATA, 1, 0, 0, 0, (), b"late")], 0) == []
    with pytest.raises(RuntimeError, match="GONE"):
        stream.connect(Path(1, ("peer", 1)), 0)


def test_no_bytes_after_the_end() -> None:
    pair = UdxPair(NO_DELAY)
    pair.carry_out(0, pair.left.machine.send_end(pair.now))
    with pytest.raises(RuntimeError, match="ended"):
        pair.left.machine.send(b"more", pair.now)


def test_one_acknowledgement_for_a_batch_and_none_for_an_acknowledgement() -> None:
    stream = UdxStream(1, now=0)
    stream.connect(Path(7, ("peer", 1)), 0)
    packets = [Packet(DATA, 1, 2**20, seq, 0, (), b"%d" % seq) for seq in range(10)]
    readable, transmit = stream.receive(packets, 0.1)
    assert readable == Readable()
    assert isinstance(transmit, Transmit)
    (answer,) = map(decode_packet, transmit.datagrams)
    assert (answer.flags, answer.stream_id, answer.ack, answer.payload) == (0, 7, 10, b"")
    assert stream.receive([Packet(0, 1, 2**20, 10, 0, (), b"")], 0.2) == []
    assert stream.read(100) == b"0123456789"


def test_what_is_missing_is_told_by_ranges() -> None:
    stream = UdxStream(1, now=0)
    stream.connect(Path(7, ("peer", 1)), 0)
    packets = [Packet(DATA, 1, 2**20, seq, 0, (), b"x") for seq in (1, 2, 5)]
    (transmit,) = stream.receive(packets, 0.1)
    assert isinstance(transmit, Transmit)
    (answer,) = map(decode_packet, transmit.datagrams)
    assert (answer.flags, answer.ack, list(answer.sacks)) == (SACK, 0, [(1, 3), (5, 6)])


def test_answers_travel_with_bytes() -> None:
    pair = UdxPair(NO_DELAY)
    pair.left.to_send = b"ping"
    pair.right.to_send = b"pong"
    pair.run(lambda: bool(pair.left.received and pair.right.received))
    pair.run_for(0.1)
    assert len(pair.left.transmitted) + len(pair.right.transmitted) <= 4


def test_a_heartbeat_is_answered_and_says_nothing_else() -> None:
    stream = UdxStream(1, now=0)
    stream.connect(Path(7, ("peer", 1)), 0)
    outputs = stream.receive([Packet(HEARTBEAT | DATA, 1, 0, 0, 0, (), b"not read")], 0.1)
    (transmit,) = outputs
    assert isinstance(transmit, Transmit)
    assert decode_packet(transmit.datagrams[0])[:5] == (0, 7, 4 * 2**20, 0, 0)
    assert not stream.is_readable


def test_the_remote_changes_when_the_old_way_is_empty() -> None:
    pair = UdxPair(Conditions(delay=0.05))
    data = pattern(500_000)
    pair.left.to_send = data
    pair.run(lambda: len(pair.right.received) > 50_000)
    old, new = Path(2, ("peer", 1)), Path(2, ("peer", 2))
    before = len(pair.left.transmitted)
    under_way = pair.left.machine.statistics().in_flight
    pair.link.passes = lambda direction, datagram: False  # so some of the old has to go again
    pair.run_for(0.06)
    pair.link.passes = None
    pair.carry_out(0, pair.left.machine.change_remote(new, pair.now))
    assert under_way > 0
    assert pair.left.changes == 0
    assert pair.left.machine.statistics().mtu == 1200
    pair.left.ends_after = True
    pair.run(lambda: pair.right.machine.has_read_all)
    pair.run(lambda: pair.left.changes == 1)
    assert pair.right.received == data
    sent = pair.left.transmitted[before:]
    assert {path for path, _ in sent} == {old, new}
    last_old = max(decode_packet(datagram).seq for path, datagram in sent if path == old)
    first_new = min(
        decode_packet(datagram).seq
        for path, datagram in sent
        if path == new and decode_packet(datagram).flags & DATA
    )
    assert last_old < first_new


@pytest.mark.parametrize("is_old_way_gone", [True, False])
def test_what_was_under_way_arrives_if_either_way_carries_it(is_old_way_gone: bool) -> None:
    """Found in review: it was repeated the old way only, until the stream was given up."""
    old, new = 2, 3

    def is_carried(direction: int, datagram: bytes) -> bool:
        if is_old_way_gone:
            return direction == 1 or decode_packet(datagram).stream_id != old
        return direction == 1 or decode_packet(datagram).stream_id != new or len(datagram) <= 1200

    pair = UdxPair(Conditions(delay=0.05))
    data = pattern(500_000)
    pair.left.to_send = data
    pair.run(lambda: pair.left.machine.statistics().mtu > 1400 and bool(pair.left.to_send))
    pair.link.passes = lambda direction, datagram: direction == 1
    pair.run_for(0.11)
    pair.link.passes = is_carried
    pair.carry_out(0, pair.left.machine.change_remote(Path(new, ("peer", 2)), pair.now))
    pair.left.ends_after = True
    pair.run(lambda: pair.right.machine.has_read_all or pair.left.closed is not None)
    assert pair.left.closed is None
    assert pair.right.received == data
    assert pair.left.changes == 1


def test_a_remote_changes_at_once_when_nothing_is_under_way() -> None:
    pair = UdxPair(NO_DELAY)
    pair.left.to_send = b"one"
    pair.run(lambda: pair.left.machine.has_sent_all)
    pair.carry_out(0, pair.left.machine.change_remote(Path(2, ("peer", 2)), pair.now))
    assert pair.left.changes == 1


def test_what_was_probed_on_the_old_way_is_not_believed_of_the_new_one() -> None:
    pair = UdxPair(Conditions(delay=0.05))
    pair.left.to_send = pattern(300_000)
    pair.run(lambda: max(len(datagram) for _, datagram in pair.left.transmitted) > 1400)
    pair.carry_out(0, pair.left.machine.change_remote(Path(2, ("peer", 2), max_mtu=1300), pair.now))
    pair.run(lambda: pair.left.changes == 1)
    pair.run(lambda: pair.left.machine.has_sent_all)
    assert pair.left.machine.statistics().mtu == 1300


def test_ipv6_leaves_less_room() -> None:
    stream = UdxStream(1, now=0)
    stream.connect(Path(7, ("::1", 1), is_ipv6=True), 0)
    (transmit,) = stream.send(bytes(5000), 0)
    assert isinstance(transmit, Transmit)
    assert len(transmit.datagrams[0]) == 1200 - 48
    assert stream.max_message_bytes == 1200 - 68


def test_sixteen_streams_do_not_mix() -> None:
    pairs = [UdxPair(Conditions(loss=0.05), seed=seed) for seed in range(16)]
    for number, pair in enumerate(pairs):
        data = pattern(64_000 + number)
        pair.transfer(data)
        assert pair.right.received == data


def test_statistics_add_up() -> None:
    pair = UdxPair(Conditions(delay=0.01, loss=0.02), seed=5)
    pair.transfer(pattern(2_000_000))
    close_both(pair)
    left, right = pair.left.machine.statistics(), pair.right.machine.statistics()
    assert left.bytes_sent == sum(len(datagram) for _, datagram in pair.left.transmitted)
    assert left.packets_sent == len(pair.left.transmitted)
    assert right.packets_received <= left.packets_sent
    assert right.bytes_received >= 2_000_000
    assert left.retransmissions == len(numbered(pair.left)) - len(
        {packet.seq for packet in numbered(pair.left)}
    )
    assert left.min_round_trip_seconds == pytest.approx(0.02)
    assert left.bbr_state in BbrState
    assert (left.queued_bytes, left.in_flight, right.buffered_bytes) == (0, 0, 0)


class TestStrangers:
    """What packets that the remote did not send can do."""

    def connected(self) -> tuple[UdxPair, UdxStream]:
        pair = UdxPair(Conditions(delay=0.05))
        pair.left.to_send = BYTES
        pair.run(lambda: len(pair.right.received) > 50_000)
        return pair, pair.left.machine

    def finish(self, pair: UdxPair) -> None:
        pair.run(lambda: pair.right.received == BYTES)
        assert pair.left.closed is pair.right.closed is None

    def test_a_reset_has_to_guess_the_number(self) -> None:
        pair, stream = self.connected()
        for seq in (2**14, 2**31, 2**32 - 1):
            pair.carry_out(0, stream.receive([Packet(DESTROY, 1, 0, seq, 0, (), b"")], pair.now))
        assert pair.left.closed is None
        self.finish(pair)

    def test_acknowledgements_of_what_was_never_sent(self) -> None:
        pair, stream = self.connected()
        for ack in (2**20, 2**31 - 1):
            packet = Packet(SACK, 1, 0, 0, ack, [(ack, ack + 5)], b"")
            pair.carry_out(0, stream.receive([packet], pair.now))
        self.finish(pair)

    def test_ranges_that_make_no_sense(self) -> None:
        pair, stream = self.connected()
        ranges = [(5, 5), (9, 3), (0, 2**31), (2**32 - 1, 2**32 - 1), (10**6, 10**6 + 1)]
        packet = Packet(SACK, 1, 2**22, 0, 0, ranges, b"")
        pair.carry_out(0, stream.receive([packet], pair.now))
        self.finish(pair)

    def test_old_windows_are_not_believed(self) -> None:
        pair, stream = self.connected()
        pair.carry_out(0, stream.receive([Packet(0, 1, 0, 2**32 - 1, 1, (), b"")], pair.now))
        self.finish(pair)

    def test_bytes_for_a_stream_beyond_its_window(self) -> None:
        pair, stream = self.connected()
        for seq in range(0, 2**32, 2**26):
            flood = [Packet(DATA, 1, 0, seq + i, 0, (), bytes(1400)) for i in range(50)]
            pair.carry_out(0, stream.receive(flood, pair.now))
        assert stream.statistics().buffered_bytes < 2 * 4 * 2**20

    def test_messages_of_any_size(self) -> None:
        pair, stream = self.connected()
        datagram = encode_packet(MESSAGE, 1, 2**22, 0, 0, bytes(2048 - HEADER_BYTES))
        pair.carry_out(0, stream.receive([decode_packet(datagram)], pair.now))
        assert pair.left.messages == [bytes(2048 - HEADER_BYTES)]
        self.finish(pair)
