"""Two punchers, with a NAT before each, and a clock that is a variable."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.announcement import Address
from swarm.dht.holepunch import (
    BIRTHDAY_SOCKETS,
    CONSISTENT_TRIES,
    MAX_ANSWERED_PROBES,
    RANDOM_TRIES,
    GaveUp,
    OpenSockets,
    Punched,
    Puncher,
    PunchOutput,
    SendProbe,
    Strategy,
)
from swarm.dht.nat import SocketNat
from swarm.dht.peer_messages import NatKind, PunchRound

HERE, THERE = "192.0.2.1", "198.51.100.1"
STRANGER: Address = ("203.0.113.9", 53)


def sampled(*seen_as: Address, is_open: bool = False) -> SocketNat:
    nat = SocketNat(is_open=is_open)
    for index, address in enumerate(seen_as):
        nat.add(address, (f"203.0.113.{index}", 1))
    return nat


def consistent(host: str) -> SocketNat:
    return sampled(*[(host, 4000)] * 4)


def at_random(host: str) -> SocketNat:
    return sampled(*[(host, 5000 + index) for index in range(4)])


@pytest.mark.parametrize(
    ("nat", "kind", "addresses"),
    [
        (sampled(), NatKind.UNKNOWN, None),
        (sampled((HERE, 1), (HERE, 1)), NatKind.UNKNOWN, None),
        (sampled((HERE, 1), (HERE, 1), (HERE, 1)), NatKind.CONSISTENT, ((HERE, 1),)),
        (sampled((HERE, 1), (HERE, 2), (HERE, 3)), NatKind.RANDOM, ((HERE, 0),)),
        (sampled((HERE, 1), (HERE, 1), (HERE, 3)), NatKind.UNKNOWN, None),
        (sampled((HERE, 1), (HERE, 1), (HERE, 3), (HERE, 4)), NatKind.RANDOM, ((HERE, 0),)),
        (
            sampled((HERE, 1), (THERE, 2), (HERE, 1), (THERE, 2)),
            NatKind.CONSISTENT,
            ((HERE, 1), (THERE, 2)),
        ),
        (sampled((HERE, 1), (HERE, 1), (THERE, 3), (THERE, 4)), NatKind.UNKNOWN, None),
        (
            sampled((HERE, 1), (HERE, 1), (THERE, 3), (THERE, 4), (THERE, 5)),
            NatKind.RANDOM,
            ((THERE, 0),),
        ),
        (sampled((HERE, 1), is_open=True), NatKind.OPEN, ((HERE, 1),)),
    ],
)
def test_what_is_seen_tells_the_nat(
    nat: SocketNat, kind: NatKind, addresses: tuple[Address, ...] | None
) -> None:
    assert (nat.kind, nat.addresses) == (kind, addresses)


def test_each_witness_is_heard_once_and_none_after_the_verdict() -> None:
    nat = SocketNat(is_open=False)
    for _ in range(5):
        nat.add((HERE, 1), STRANGER)
    assert (nat.samples, nat.kind) == (1, NatKind.UNKNOWN)
    nat = consistent(HERE)
    nat.freeze()
    for index in range(20):
        nat.add((HERE, 100 + index), ("203.0.114.1", index + 1))
    assert nat.kind is NatKind.CONSISTENT
    assert nat.samples == 16, "and not for ever"


@dataclass
class End:
    """A puncher and its home's router, which lets in only answers."""

    puncher: Puncher
    host: str
    is_random: bool
    chance: random.Random
    ports: dict[object, int] = field(default_factory=dict)
    expected: set[tuple[int, Address]] = field(default_factory=set)
    punched: Punched | None = None
    has_given_up: bool = False

    def map(self, index: int, to: Address) -> int:
        key = (index, to) if self.is_random else index
        if key not in self.ports:
            self.ports[key] = self.chance.randrange(1024, 65536) if self.is_random else 4000 + index
        return self.ports[key]

    def socket_of(self, port: int) -> int:
        key = next(key for key, used in self.ports.items() if used == port)
        return key[0] if isinstance(key, tuple) else int(str(key))


def create_end(host: str, other: str, *, is_random: bool, is_initiator: bool, seed: int) -> End:
    chance = random.Random(seed)
    nat = at_random(host) if is_random else consistent(host)
    end = End(Puncher(nat, chance.randbytes, is_initiator=is_initiator), host, is_random, chance)
    end.map(0, (other, 0))
    return end


def carry_out(outputs: list[PunchOutput], end: End, other: End, log: list[SendProbe]) -> None:
    for output in outputs:
        match output:
            case SendProbe(index, to, is_low_ttl):
                log.append(output)
                port = end.map(index, to)
                end.expected.add((port, to))
                if is_low_ttl or to[0] != other.host:
                    continue
                if (to[1], (end.host, port)) in other.expected:
                    arrived = other.puncher.probed(other.socket_of(to[1]), (end.host, port))
                    carry_out(arrived, other, end, log)
            case Punched():
                end.punched = output
            case GaveUp():
                end.has_given_up = True
            case OpenSockets(count):
                assert count == BIRTHDAY_SOCKETS - 1


def punch(client: End, server: End, seconds: float) -> list[SendProbe]:
    """What was sent, until a probe came through to the client, or time is up."""
    log: list[SendProbe] = []
    now = 0.0
    ends = ((client, server), (server, client))
    for end, other in ends:
        carry_out(end.puncher.start(now), end, other, log)
    while now < seconds and client.punched is None:
        deadlines = [end.puncher.deadline for end, _ in ends]
        due = [when for when in deadlines if when is not None]
        if not due:
            break
        now = max(now, min(due))
        for end, other in ends:
            carry_out(end.puncher.advance(now), end, other, log)
    return log


@pytest.mark.parametrize(
    ("ours", "theirs", "seed"),
    [
        (False, False, 1),
        *[(False, True, s) for s in range(5)],
        *[(True, False, s) for s in range(5)],
    ],
)
def test_the_client_gets_through(ours: bool, theirs: bool, seed: int) -> None:
    client = create_end(HERE, THERE, is_random=ours, is_initiator=True, seed=seed)
    server = create_end(THERE, HERE, is_random=theirs, is_initiator=False, seed=seed + 100)
    for end, other in ((client, server), (server, client)):
        nat = other.puncher.nat
        end.puncher.hear(
            PunchRound(nat.kind, addresses=nat.addresses, is_punching=True), other.host
        )
    expected = {
        (False, False): Strategy.BOTH_CONSISTENT,
        (False, True): Strategy.THEY_ARE_RANDOM,
        (True, False): Strategy.WE_ARE_RANDOM,
    }[ours, theirs]
    assert client.puncher.strategy is expected
    log = punch(client, server, 60.0)
    assert client.punched is not None, f"seed {seed}"
    assert client.punched.remote[0] == THERE
    assert client.puncher.is_done
    assert len(log) < 2 * RANDOM_TRIES + BIRTHDAY_SOCKETS


def test_two_random_nats_are_not_even_tried() -> None:
    puncher = Puncher(at_random(HERE), random.Random(1).randbytes, is_initiator=True)
    puncher.hear(PunchRound(NatKind.RANDOM, addresses=((THERE, 0),), is_punching=True), THERE)
    assert puncher.is_unstable
    assert puncher.strategy is None
    assert puncher.start(0.0) == []
    assert not puncher.is_punching


@pytest.mark.parametrize("nat", [consistent(HERE), at_random(HERE)])
def test_nobody_is_flooded_that_was_not_proven_to_be_the_remote(nat: SocketNat) -> None:
    """A peer may name any address: without a proof it gets two probes in ten seconds, or none."""
    puncher = Puncher(nat, random.Random(1).randbytes, is_initiator=True)
    other = NatKind.CONSISTENT if nat.kind is NatKind.RANDOM else NatKind.RANDOM
    puncher.hear(PunchRound(other, addresses=(STRANGER,), is_punching=True), "198.51.100.77")
    assert puncher.start(0.0) == []
    puncher.hear(PunchRound(NatKind.CONSISTENT, addresses=(STRANGER,), is_punching=True), None)
    if nat.kind is NatKind.RANDOM:
        assert puncher.start(0.0) == []
        return
    outputs = puncher.start(0.0)
    for second in range(1, 12):
        outputs += puncher.advance(float(second))
    assert outputs == [SendProbe(0, STRANGER)] * 2 + [GaveUp()]
    assert puncher.deadline is None


def test_a_punch_ends() -> None:
    for nat, other, tries in (
        (consistent(HERE), NatKind.CONSISTENT, CONSISTENT_TRIES),
        (consistent(HERE), NatKind.RANDOM, RANDOM_TRIES),
        (at_random(HERE), NatKind.CONSISTENT, RANDOM_TRIES + BIRTHDAY_SOCKETS - 1),
    ):
        puncher = Puncher(nat, random.Random(1).randbytes, is_initiator=True)
        puncher.hear(PunchRound(other, addresses=((THERE, 9),), is_punching=True), THERE)
        outputs = puncher.start(0.0)
        while (deadline := puncher.deadline) is not None:
            outputs += puncher.advance(deadline)
        assert sum(isinstance(output, SendProbe) for output in outputs) == tries
        assert outputs[-1] == GaveUp()
        assert puncher.is_done
        assert deadline is None


def test_a_clock_that_jumps_does_not_send_all_at_once() -> None:
    puncher = Puncher(consistent(HERE), random.Random(1).randbytes, is_initiator=True)
    puncher.hear(PunchRound(NatKind.RANDOM, addresses=((THERE, 0),), is_punching=True), THERE)
    puncher.start(0.0)
    assert len(puncher.advance(1000.0)) == 5
    assert len(puncher.advance(1000.0)) == 0


def test_a_stranger_who_found_a_socket_of_the_server_gets_few_answers() -> None:
    server = Puncher(consistent(HERE), random.Random(1).randbytes, is_initiator=False)
    answers = [server.probed(0, STRANGER) for _ in range(MAX_ANSWERED_PROBES + 100)]
    assert sum(map(len, answers)) == MAX_ANSWERED_PROBES
    assert server.probed(0, ("0.0.0.0", 1)) == server.probed(0, (THERE, 0)) == []
    server.stop()
    assert server.probed(0, (THERE, 9)) == []


def test_a_stranger_who_found_a_socket_of_the_client_does_not_end_the_punch() -> None:
    """Each node that is asked how the socket appears could: one byte, and we went there."""
    client = Puncher(consistent(HERE), random.Random(1).randbytes, is_initiator=True)
    assert client.probed(0, STRANGER) == []
    client.hear(PunchRound(NatKind.CONSISTENT, addresses=((THERE, 9),), is_punching=True), THERE)
    client.start(0.0)
    assert client.probed(0, STRANGER) == []
    assert client.is_punching
    assert client.probed(0, (THERE, 10)) == [Punched(0, (THERE, 10))]


def test_a_server_that_answers_before_it_said_where_it_is_came_through() -> None:
    client = Puncher(consistent(HERE), random.Random(1).randbytes, is_initiator=True)
    assert client.open_session((THERE, 9)) == [SendProbe(0, (THERE, 9), True)]
    assert client.probed(0, (THERE, 9)) == [Punched(0, (THERE, 9))]


def test_a_remote_that_sends_from_another_host_is_found_when_nothing_else_came() -> None:
    client = Puncher(consistent(HERE), random.Random(1).randbytes, is_initiator=True)
    client.hear(PunchRound(NatKind.CONSISTENT, addresses=((THERE, 9),), is_punching=True), THERE)
    outputs = client.start(0.0)
    assert client.probed(0, STRANGER) == []
    while (deadline := client.deadline) is not None:
        outputs += client.advance(deadline)
    assert outputs[-1] == Punched(0, STRANGER)


def test_addresses_where_nobody_is_are_not_probed() -> None:
    puncher = Puncher(consistent(HERE), random.Random(1).randbytes, is_initiator=True)
    nowhere: tuple[Address, ...] = (("0.0.0.0", 5), ("255.255.255.255", 5), (THERE, 0))
    many = tuple((THERE, port) for port in range(1, 30))
    puncher.hear(PunchRound(NatKind.CONSISTENT, addresses=nowhere), THERE)
    assert puncher.strategy is None
    puncher.hear(PunchRound(NatKind.CONSISTENT, addresses=(*nowhere, *many)), THERE)
    assert len(puncher.start(0.0)) == 8


_ADDRESSES = st.tuples(st.sampled_from([HERE, THERE, STRANGER[0]]), st.integers(0, 2**16 - 1))
_ROUNDS = st.builds(
    PunchRound,
    nat=st.sampled_from(NatKind),
    is_punching=st.booleans(),
    addresses=st.none() | st.lists(_ADDRESSES, max_size=3).map(tuple),
)
_STEPS = st.one_of(
    st.tuples(st.just("hear"), _ROUNDS, st.none() | st.sampled_from([THERE, STRANGER[0]])),
    st.just(("start",)),
    st.tuples(st.just("advance"), st.floats(0, 30)),
    st.tuples(st.just("probed"), st.integers(0, BIRTHDAY_SOCKETS - 1), _ADDRESSES),
)


@given(
    nat=st.sampled_from([consistent, at_random]),
    is_initiator=st.booleans(),
    opening=st.sampled_from(NatKind).map(
        lambda kind: [
            ("hear", PunchRound(kind, addresses=((THERE, 9),), is_punching=True), THERE),
            ("start",),
        ]
    ),
    steps=st.lists(_STEPS, max_size=30),
)
def test_a_remote_that_says_this_and_then_that_breaks_nothing(
    nat: Callable[[str], SocketNat],
    is_initiator: bool,
    opening: list[tuple[Any, ...]],
    steps: list[tuple[Any, ...]],
) -> None:
    """Found in review: random probes went where the last round said, which may be nowhere."""
    puncher = Puncher(nat(HERE), random.Random(1).randbytes, is_initiator=is_initiator)
    now, proven, sent = 0.0, set(), 0
    for name, *arguments in [*opening, *steps]:
        outputs: list[PunchOutput] = []
        if name == "hear":
            puncher.hear(*arguments)
            proven.add(arguments[1])
        elif name == "start":
            outputs = puncher.start(now)
        elif name == "advance":
            now += arguments[0]
            outputs = puncher.advance(now)
        else:
            outputs = puncher.probed(*arguments)
        probes = [output for output in outputs if isinstance(output, SendProbe)]
        sent += len(probes)
        if len(probes) > 3:
            assert {probe.to[0] for probe in probes} <= proven, "a flood, and nobody wants it"
    assert sent <= BIRTHDAY_SOCKETS + RANDOM_TRIES + MAX_ANSWERED_PROBES
