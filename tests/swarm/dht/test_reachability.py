from __future__ import annotations

import pytest

from swarm.announcement import Address
from swarm.dht.messages import Internal
from swarm.dht.reachability import (
    RETEST_SECONDS,
    STABLE_SECONDS,
    FirewallTest,
    Probe,
    Role,
    Settled,
    Standing,
    StandingOutput,
)
from swarm.dht.requests import Via
from tests.support.dht_network import public_host

PORT = 4000
HOST = "203.0.113.5"
OPEN: Address = (HOST, PORT)
MAPPED: Address = (HOST, 31_000)
NODES = [(public_host(i), 4000) for i in range(20)]


def create_standing(
    role: Role = Role.ADAPTIVE, *, is_open: bool = False, observed: Address | None = MAPPED
) -> Standing:
    standing = Standing(role, PORT, is_open=is_open, public_address=None, now=0.0)
    if observed is not None:
        for node in NODES[:4]:
            standing.observe(node, observed, standing.via, 1.0)
    return standing


def run_test(
    standing: Standing, pongs: list[tuple[Address, Via] | None], *, for_role: bool = True
) -> Address | None:
    probes = standing.test(NODES, 10.0, for_role=for_role)
    last: list[StandingOutput] = probes
    for probe, pong in zip(probes, pongs, strict=True):
        assert isinstance(probe, Probe)
        assert last == probes or last == []
        if pong is None:
            last = standing.probe_timed_out(probe.test)
        else:
            last = standing.probe_answered(probe.test, *pong)
    (settled,) = last
    assert isinstance(settled, Settled)
    return settled.address


ARRIVED = (OPEN, Via.SERVER)


def test_five_nodes_of_different_parties_are_asked() -> None:
    candidates = [("192.0.2.1", 1), ("192.0.2.2", 1), ("127.0.0.1", 1), ("127.0.0.1", 2), *NODES]
    test = FirewallTest(candidates, PORT)
    calls = list(test.calls)
    assert [call.to for call in calls] == [candidates[i] for i in (0, 2, 3, 4, 5)]
    assert {call.command for call in calls} == {Internal.PING_NAT}
    assert {call.value for call in calls} == {PORT.to_bytes(2, "little")}


@pytest.mark.parametrize(
    ("pongs", "is_open"),
    [
        ([ARRIVED] * 5, True),
        ([ARRIVED] * 3 + [None] * 2, True),
        ([ARRIVED] * 2 + [None] * 3, False),
        ([None] * 5, False),
        ([(OPEN, Via.CLIENT)] * 5, False),
        ([ARRIVED] * 2 + [(OPEN, Via.CLIENT)] * 3, False),
        ([(("192.0.2.77", PORT), Via.SERVER)] * 5, False),
        ([((HOST, 5000), Via.SERVER)] * 5, False),
    ],
)
def test_most_must_arrive_where_they_should(
    pongs: list[tuple[Address, Via] | None], is_open: bool
) -> None:
    standing = create_standing()
    assert standing.via is Via.CLIENT
    assert run_test(standing, pongs) == (OPEN if is_open else None)
    assert standing.is_firewalled == standing.is_ephemeral == (not is_open)
    assert standing.public_address == (OPEN if is_open else None)
    assert standing.via is (Via.SERVER if is_open else Via.CLIENT)


def test_a_test_without_a_role_leaves_us_ephemeral() -> None:
    standing = create_standing(Role.EPHEMERAL)
    assert run_test(standing, [ARRIVED] * 5, for_role=False) == OPEN
    assert (standing.is_firewalled, standing.is_ephemeral) == (False, True)


def test_without_a_clear_address_there_is_nothing_to_test() -> None:
    unknown = create_standing(observed=None)
    assert unknown.test(NODES, 10.0, for_role=True) == [Settled(None)]
    assert create_standing().test((), 10.0, for_role=True) == [Settled(None)]
    randomized = create_standing(observed=None)
    for i, node in enumerate(NODES):
        randomized.observe(node, (HOST, 1000 + i), Via.CLIENT, 1.0)
    assert randomized.test(NODES, 10.0, for_role=True) == [Settled(None)]


def test_an_open_node_knows_as_soon_as_it_is_told_where_it_is() -> None:
    standing = create_standing(Role.PERSISTENT, is_open=True, observed=None)
    assert not standing.is_test_due(5.0)
    standing.observe(NODES[0], OPEN, Via.SERVER, 5.0)
    assert standing.is_test_due(5.0)
    assert standing.test((), 5.0, for_role=True) == [Settled(OPEN)]
    assert not standing.is_ephemeral
    assert not standing.is_test_due(1e6), "nothing more to become"


def test_only_the_socket_that_asks_shows_how_we_are_mapped() -> None:
    standing = create_standing(observed=None)
    standing.observe(NODES[0], OPEN, Via.SERVER, 1.0)
    assert standing.nat.address is None
    standing.observe(NODES[0], MAPPED, Via.CLIENT, 1.0)
    standing.observe(NODES[0], ("6.6.6.6", 6), Via.CLIENT, 2.0)
    assert standing.nat.address == MAPPED, "one witness has one say"


def test_when_to_test() -> None:
    ephemeral = create_standing(Role.EPHEMERAL)
    assert not ephemeral.is_test_due(1e6)
    adaptive = create_standing(Role.ADAPTIVE)
    assert not adaptive.is_test_due(STABLE_SECONDS - 1)
    assert adaptive.is_test_due(STABLE_SECONDS)
    adaptive.test(NODES, STABLE_SECONDS, for_role=True)
    assert not adaptive.is_test_due(1e6), "one is under way"


def test_the_same_network_is_not_tested_again() -> None:
    standing = create_standing()
    assert run_test(standing, [None] * 5) is None
    later = 10.0 + RETEST_SECONDS
    assert not standing.is_test_due(later), "same host as last time"
    for node in NODES:
        standing.observe(node, ("192.0.2.200", 7), Via.CLIENT, later)
    assert not standing.is_test_due(later - 1)
    assert standing.is_test_due(later)


def test_after_sleep_an_adaptive_node_starts_anew() -> None:
    for role, is_ephemeral in ((Role.ADAPTIVE, True), (Role.PERSISTENT, False)):
        standing = create_standing(role)
        run_test(standing, [ARRIVED] * 5)
        standing.forget(1000.0)
        assert standing.is_ephemeral == is_ephemeral
        assert not standing.is_test_due(1000.0 + RETEST_SECONDS - 1)
