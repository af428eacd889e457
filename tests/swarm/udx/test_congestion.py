from __future__ import annotations

import pytest

from swarm.udx.congestion import (
    INITIAL_WINDOW_PACKETS,
    MIN_WINDOW_PACKETS,
    Bbr,
    BbrState,
    Recovery,
)
from swarm.udx.delivery_rate import DeliveryRate, RateSample
from swarm.udx.flight import SentPacket
from swarm.udx.pacer import CREDIT_SECONDS, MAX_CREDIT_BYTES, Pacer, burst_bytes
from swarm.udx.packet import DATA
from swarm.udx.path import Path
from tests.support.lossy_link import Conditions
from tests.support.udx_pair import UdxPair

PATH = Path(1, ("peer", 1))
ROUND_TRIP = 0.1


class Model:
    """A model that hears once a round trip that all it sent has arrived."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delivered = 0
        self.bbr = Bbr(self.now, first_phase=0)

    def deliver(
        self,
        count: int,
        *,
        lost: int = 0,
        in_flight: int = 0,
        recovery: Recovery = Recovery.OPEN,
        round_trip: float | None = ROUND_TRIP,
        is_app_limited: bool = False,
    ) -> None:
        self.now += ROUND_TRIP
        prior = self.delivered
        self.delivered += count
        sample = RateSample(count, lost, round_trip, count, ROUND_TRIP, prior, is_app_limited)
        self.bbr.receive_sample(sample, in_flight, self.delivered, recovery, self.now)

    def fill_pipe(self, count: int = 100) -> None:
        """Startup and drain, over a path of `count` packets."""
        for _ in range(6):
            self.deliver(count, in_flight=2 * count)
        assert self.bbr.state is BbrState.DRAIN
        self.deliver(count, in_flight=count // 2)


def test_it_begins_with_ten_packets_and_no_idea() -> None:
    bbr = Bbr(0, 0)
    assert (bbr.window, bbr.bandwidth, bbr.state) == (10, 0, BbrState.STARTUP)


def test_the_rate_grows_while_the_path_delivers_more() -> None:
    model = Model()
    count = INITIAL_WINDOW_PACKETS
    for _ in range(5):
        model.deliver(count)
        assert model.bbr.bandwidth == pytest.approx(count / ROUND_TRIP)
        assert model.bbr.pacing_rate >= 2.8 * model.bbr.bandwidth
        assert model.bbr.window >= 2 * count
        count *= 2
    assert model.bbr.state is BbrState.STARTUP


def test_three_rounds_without_more_fill_the_pipe_and_drain_it() -> None:
    model = Model()
    model.fill_pipe(100)
    bbr = model.bbr
    assert bbr.state is BbrState.PROBE_BANDWIDTH
    assert bbr.bandwidth == pytest.approx(1000)
    assert 200 <= bbr.window <= 310
    assert bbr.pacing_rate == pytest.approx(0.99 * 1000, rel=0.3)


def test_an_application_with_little_to_say_does_not_fill_a_pipe() -> None:
    model = Model()
    for _ in range(20):
        model.deliver(5, is_app_limited=True)
    assert model.bbr.state is BbrState.STARTUP


def test_the_phases_probe_for_more_and_make_up_for_it() -> None:
    model = Model()
    model.fill_pipe(100)
    gains: list[float] = []
    for _ in range(16):
        model.now += 0.001  # so that more than a round trip has passed
        model.deliver(100, in_flight=150)
        gains.append(round(model.bbr.pacing_rate / model.bbr.bandwidth / 0.99, 2))
    assert gains.count(1.25) == 2
    assert gains.count(0.75) == 2
    assert gains[gains.index(1.25) + 1] == 0.75


def test_a_path_that_got_slower_is_believed_after_ten_rounds() -> None:
    model = Model()
    model.fill_pipe(100)
    for _ in range(9):
        model.deliver(50)
    assert model.bbr.bandwidth == pytest.approx(1000)
    for _ in range(3):
        model.deliver(50)
    assert model.bbr.bandwidth == pytest.approx(500)


def test_losses_do_not_change_the_rate() -> None:
    model = Model()
    model.fill_pipe(100)
    before = model.bbr.window
    model.bbr.receive_recovery_start()
    for _ in range(3):
        model.deliver(98, lost=2, in_flight=100, recovery=Recovery.RECOVERY)
    model.deliver(100, in_flight=100)
    assert model.bbr.bandwidth >= 980
    assert model.bbr.window >= before - 10


def test_in_the_first_round_of_a_recovery_one_leaves_for_each_that_arrives() -> None:
    model = Model()
    model.fill_pipe(100)
    model.bbr.receive_recovery_start()
    model.now += 0.01
    sample = RateSample(10, 5, ROUND_TRIP, 10, 0.01, model.delivered - 50, is_app_limited=False)
    model.bbr.receive_sample(sample, 80, model.delivered, Recovery.RECOVERY, model.now)
    assert model.bbr.window == 90


def test_after_a_timeout_it_begins_with_one_and_gets_its_window_back() -> None:
    model = Model()
    model.fill_pipe(100)
    before = model.bbr.window
    model.bbr.receive_timeout(0)
    assert model.bbr.window == 1
    model.deliver(1, recovery=Recovery.LOSS)
    assert model.bbr.window == MIN_WINDOW_PACKETS
    model.deliver(4)
    assert model.bbr.window == before


def test_every_ten_seconds_it_looks_how_short_the_path_is() -> None:
    model = Model()
    model.fill_pipe(100)
    for _ in range(105):
        model.deliver(100, in_flight=100, round_trip=0.2)
    states = [model.bbr.state]
    assert model.bbr.window == MIN_WINDOW_PACKETS
    for _ in range(5):
        model.deliver(4, in_flight=4)
    states.append(model.bbr.state)
    assert states == [BbrState.PROBE_ROUND_TRIP, BbrState.PROBE_BANDWIDTH]
    assert model.bbr.window > 100


def test_a_stream_that_was_idle_need_not_probe_and_starts_at_its_rate() -> None:
    model = Model()
    model.fill_pipe(100)
    model.now += 60
    model.bbr.receive_idle_start(model.now)
    assert model.bbr.pacing_rate == pytest.approx(0.99 * model.bbr.bandwidth)
    model.deliver(10)
    assert model.bbr.state is BbrState.PROBE_BANDWIDTH


def launch(rate: DeliveryRate, seq: int, now: float, *, is_idle: bool = False) -> SentPacket:
    packet = SentPacket(seq, DATA, b"", PATH)
    rate.stamp(packet, now, is_idle=is_idle)
    return packet


def test_a_sample_takes_the_longer_of_sending_and_hearing() -> None:
    rate = DeliveryRate(0)
    packets = [launch(rate, seq, 1 + seq * 0.01, is_idle=seq == 0) for seq in range(10)]
    # Answers that come all at once: sending took 0.09 s, hearing 0.2.
    sample = rate.sample(packets[9], acked=10, lost=0, round_trip=0.1, minimum=0.01, now=1.2)
    assert sample.delivered == 10
    assert sample.interval == pytest.approx(0.2)
    assert not sample.is_app_limited


def test_a_sample_shorter_than_any_round_trip_says_nothing() -> None:
    rate = DeliveryRate(0)
    packet = launch(rate, 0, 1.0, is_idle=True)
    sample = rate.sample(packet, acked=1, lost=0, round_trip=None, minimum=0.1, now=1.05)
    assert sample.interval == 0


def test_samples_are_limited_by_the_application_until_what_it_left_out_is_through() -> None:
    rate = DeliveryRate(0)
    first = launch(rate, 0, 1.0, is_idle=True)
    rate.run_dry(1)
    second = launch(rate, 1, 1.05)
    assert not rate.sample(
        first, acked=1, lost=0, round_trip=0.1, minimum=0.1, now=1.1
    ).is_app_limited
    assert rate.sample(
        second, acked=1, lost=0, round_trip=0.1, minimum=0.1, now=1.15
    ).is_app_limited
    assert not rate.is_app_limited


def empty(pacer: Pacer, size: int) -> int:
    """Send packets as long as they may leave; how many bytes those were."""
    sent = 0
    while pacer.may_send:
        pacer.spend(size)
        sent += size
    return sent


def test_the_pacer_lets_out_its_rate_and_little_at_once() -> None:
    pacer = Pacer(0)
    rate, size, now = 1e6, 1000, 0.0
    empty(pacer, size)
    sent = 0
    while now < 1:
        now = pacer.ready_at(rate, size)
        pacer.fill(rate, size, now)
        burst = empty(pacer, size)
        assert burst <= 3 * size
        sent += burst
    assert sent == pytest.approx(1e6, rel=0.08)
    assert burst_bytes(rate, size) == 2000


def test_the_pacer_makes_up_for_pauses_that_are_not_long() -> None:
    pacer = Pacer(0)
    empty(pacer, 1000)
    pacer.fill(1e6, 1000, 0.09)
    assert empty(pacer, 1000) == pytest.approx(90_000, abs=2000)
    pacer.fill(1e6, 1000, 100.0)
    assert empty(pacer, 1000) == pytest.approx(1e6 * CREDIT_SECONDS, abs=1000)
    pacer.fill(1e9, 1000, 200.0)
    assert empty(pacer, 1000) <= MAX_CREDIT_BYTES + 1000


def test_the_pacer_does_not_make_up_for_having_nothing_to_send() -> None:
    pacer = Pacer(0)
    pacer.fill(1e6, 1000, 100.0)
    pacer.rest(1e6, 1000)
    assert empty(pacer, 1000) == burst_bytes(1e6, 1000) == 2000


@pytest.mark.parametrize("stall", [0.02, 0.05])
def test_a_machine_that_wakes_up_late_does_not_slow_down(stall: float) -> None:
    rate = 5_000_000
    pair = UdxPair(Conditions(delay=0.01, rate=rate, queue_bytes=1_000_000), seed=8)
    pair.left.to_send = bytes(15_000_000)
    while pair.now < 1002:
        pair.run_for(stall, step=stall)
    before = len(pair.right.received)
    while pair.now < 1003:
        pair.run_for(stall, step=stall)
    # A round trip takes as long as it takes us to notice, but that is all.
    assert len(pair.right.received) - before > 0.6 * rate


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.02])
def test_a_slow_path_is_used_by_nine_tenths_whatever_it_loses(loss: float) -> None:
    rate = 1_250_000  # 10 Mbit/s, with a queue of a round trip
    conditions = Conditions(delay=0.025, rate=rate, queue_bytes=62_500, loss=loss)
    pair = UdxPair(conditions, seed=6)
    pair.left.to_send = bytes(20_000_000)
    pair.run_for(2)
    before = pair.left.machine.statistics(), len(pair.right.received)
    pair.run_for(3)
    after = pair.left.machine.statistics(), len(pair.right.received)
    assert after[1] - before[1] > 0.9 * 3 * rate
    assert after[0].timeouts == 0
    resent = after[0].retransmissions - before[0].retransmissions
    assert resent < (loss + 0.01) * (after[0].packets_sent - before[0].packets_sent)


@pytest.mark.slow
def test_the_queue_of_a_slow_path_does_not_stay_full() -> None:
    rate = 1_250_000
    pair = UdxPair(Conditions(delay=0.02, rate=rate, queue_bytes=500_000), seed=7)
    pair.left.to_send = bytes(10_000_000)
    pair.run_for(4)
    waits: list[float] = []
    for _ in range(100):
        pair.run_for(0.02)
        waits.append(pair.left.machine.statistics().round_trip_seconds or 0)
    assert sum(waits) / len(waits) < 0.1  # 0.04 empty, 0.44 full
