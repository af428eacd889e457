from __future__ import annotations

import pytest

from swarm.dht.nat import MAX_SAMPLES, RESAMPLE_SECONDS, NatSampler, Witnesses

HOST = "192.0.2.1"


def sample(*ports: int, host: str = HOST) -> NatSampler:
    sampler = NatSampler()
    for port in ports:
        sampler.add((host, port))
    return sampler


def test_nothing_is_known_at_first() -> None:
    sampler = NatSampler()
    assert (sampler.host, sampler.port, sampler.address) == (None, None, None)


def test_all_see_the_same() -> None:
    for count in range(1, 40):
        sampler = sample(*[5] * count)
        assert sampler.address == (HOST, 5)
        assert len(sampler) == min(count, MAX_SAMPLES)


def test_all_see_the_same_host_and_another_port() -> None:
    sampler = sample(*range(1, 9))
    assert (sampler.host, sampler.port, sampler.address) == (HOST, None, None)


@pytest.mark.parametrize(
    ("right", "wrong", "agreed"),
    [(2, 1, False), (3, 1, True), (6, 1, True), (5, 2, False), (6, 2, True), (12, 3, True),
     (13, 3, True), (11, 4, False)],
)  # fmt: skip
def test_how_many_may_disagree(right: int, wrong: int, agreed: bool) -> None:
    sampler = sample(*[5] * right)
    for index in range(wrong):
        sampler.add((f"198.51.100.{index}", 5))
    assert (sampler.address == (HOST, 5)) == agreed


def test_a_new_address_is_learned_when_the_old_samples_are_gone() -> None:
    sampler = sample(*[5] * MAX_SAMPLES)
    for _ in range(MAX_SAMPLES):
        sampler.add(("198.51.100.1", 6))
    assert sampler.address == ("198.51.100.1", 6)


def test_a_witness_is_heard_once_in_a_while() -> None:
    witnesses = Witnesses()
    assert witnesses.admit(("192.0.2.1", 1), 0.0)
    assert not witnesses.admit(("192.0.2.1", 2), 1.0), "the same host"
    assert not witnesses.admit(("192.0.2.200", 1), 1.0), "the same party"
    assert witnesses.admit(("198.51.100.1", 1), 1.0)
    assert witnesses.admit(("192.0.2.1", 1), RESAMPLE_SECONDS)
    assert witnesses.admit(("127.0.0.1", 1), 2.0)
    assert witnesses.admit(("127.0.0.1", 2), 2.0), "private hosts are no party"


def test_only_so_many_witnesses_are_remembered() -> None:
    witnesses = Witnesses()
    for port in range(1, 400):
        witnesses.admit(("127.0.0.1", port), 0.0)
    assert witnesses.admit(("127.0.0.1", 1), 1.0), "forgotten"
    assert not witnesses.admit(("127.0.0.1", 399), 1.0)
