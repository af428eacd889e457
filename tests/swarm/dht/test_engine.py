"""A node among others, on a simulated network with a virtual clock."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.announcement import Address
from swarm.dht.engine import DhtEngine
from swarm.dht.interface import Settings
from swarm.dht.messages import (
    Command,
    Internal,
    Request,
    Response,
    decode_datagram,
    encode_address,
    node_id,
)
from swarm.dht.neighborhood import MAX_INTRODUCTIONS
from swarm.dht.pacing import FIRST_TIMEOUT_SECONDS
from swarm.dht.query import QueryPlan
from swarm.dht.reachability import STABLE_SECONDS, Role
from swarm.dht.requests import MAX_REQUESTS, Answered, Call, TimedOut, Transmit, Via
from swarm.dht.routing_table import distance
from swarm.dht.upkeep import REFRESH_SECONDS
from swarm.dht.walks import MAX_HINTS_PER_TICK
from tests.support.dht_network import (
    UNIX_MS,
    Nat,
    Network,
    QueryRecord,
    SimulatedNode,
    build_network,
    member,
    public_host,
)

TARGET = b"\x5a" * 32
GUEST = public_host(700)
NODE: Address = (public_host(701), 4000)


def join(
    network: Network,
    nodes: list[SimulatedNode],
    settings: Settings,
    host: str = GUEST,
    nat: Nat = Nat.NONE,
) -> SimulatedNode:
    node = SimulatedNode(network, replace(settings, bootstrap=(nodes[0].server,)), host, nat=nat)
    node.start()
    network.run(lambda: node.is_bootstrapped)
    return node


def tables_with(nodes: list[SimulatedNode], address: Address) -> int:
    return sum(node.engine.table.get(address) is not None for node in nodes)


def find(node: SimulatedNode, target: bytes = TARGET) -> list[Address]:
    result = node.query(QueryPlan(target, Internal.FIND_NODE, True)).result
    assert result is not None
    return [reply.source for reply in result.closest]


def test_members_find_one_another() -> None:
    _, nodes = build_network(1, 40)
    real = {node.server for node in nodes}
    for node in nodes:
        assert not node.engine.statistics.is_ephemeral
        assert node.engine.own_id == node_id(node.server)
        assert node.engine.public_address == node.server
        known = {entry.address for entry in node.engine.table}
        assert len(known) > 15
        assert known < real
    nearest = sorted(real - {nodes[7].server}, key=lambda a: distance(node_id(a), TARGET))
    assert find(nodes[7]) == nearest[:20]


def test_a_guest_sees_all_and_is_seen_by_none() -> None:
    network, nodes = build_network(2, 30)
    guest = join(network, nodes, Settings(4000))
    assert guest.engine.own_id is None
    assert find(guest) == find(nodes[3]) or len(find(guest)) == 20
    network.run_for(30)
    assert tables_with(nodes, guest.server) == tables_with(nodes, guest.client) == 0


def test_a_reachable_guest_learns_that_it_is() -> None:
    network, nodes = build_network(3, 30)
    guest = join(network, nodes, Settings(4000))
    statistics = guest.engine.statistics
    assert (statistics.is_firewalled, statistics.is_ephemeral) == (False, True)
    assert guest.engine.public_address == guest.server


def test_a_guest_behind_a_nat_learns_that_it_cannot_be_reached() -> None:
    network, nodes = build_network(4, 30)
    guest = join(network, nodes, Settings(4000, role=Role.PERSISTENT), nat=Nat.CONSISTENT)
    statistics = guest.engine.statistics
    assert (statistics.is_firewalled, statistics.is_ephemeral) == (True, True)
    assert (statistics.public_host, statistics.public_port) == guest.client
    assert guest.engine.public_address is None
    assert len(find(guest)) == 20, "but it can ask"


def test_a_guest_behind_a_random_nat_has_a_host_and_no_port() -> None:
    network, nodes = build_network(5, 30)
    guest = join(network, nodes, Settings(4000), nat=Nat.RANDOM)
    statistics = guest.engine.statistics
    assert (statistics.public_host, statistics.public_port) == (GUEST, None)
    assert statistics.is_firewalled


def test_who_wants_to_stay_and_can_be_reached_becomes_a_member_at_once() -> None:
    network, nodes = build_network(6, 30)
    node = join(network, nodes, Settings(4000, role=Role.PERSISTENT))
    assert node.engine.own_id == node_id(node.server)
    node.refresh()
    network.run_for(30)
    assert tables_with(nodes, node.server) > 5


def test_an_adaptive_node_becomes_a_member_after_a_while_and_a_guest_after_sleep() -> None:
    network, nodes = build_network(7, 10)
    node = join(network, nodes, Settings(4000, role=Role.ADAPTIVE))
    network.run_for(STABLE_SECONDS - 60)
    ids = [node.engine.own_id]
    network.run_for(120)
    ids.append(node.engine.own_id)
    node.engine.wake_up(network.now)
    ids.append(node.engine.own_id)
    assert ids == [None, node_id(node.server), None]
    answered = nodes[3].call(Call(node.server, Internal.PING, True))
    assert isinstance(answered, Answered)
    assert answered.response.id is None


def test_a_machine_that_slept_looks_around_anew() -> None:
    network, nodes = build_network(8, 10)
    node = join(network, nodes, Settings(4000, role=Role.ADAPTIVE))
    network.run_for(STABLE_SECONDS + 60)
    was_ephemeral = node.engine.statistics.is_ephemeral
    before = node.engine.statistics.requests.sent
    node.engine.advance(network.now + 3600)
    assert (was_ephemeral, node.engine.statistics.is_ephemeral) == (False, True)
    assert node.engine.statistics.requests.sent == before, "the network may need a moment, too"


def test_who_moves_finds_out_anew_whether_strangers_reach_it() -> None:
    """Found in review: who could be reached once said so wherever it was, and nobody punched."""
    network, nodes = build_network(12, 30)
    node = join(network, nodes, Settings(4000))
    found = [node.engine.public_address]
    for nat in (Nat.CONSISTENT, Nat.NONE, Nat.RANDOM):
        node.move(nat)
        network.run_for(30)
        found.append(node.engine.public_address)
    assert found == [node.server, None, node.server, None]
    assert node.engine.statistics.is_firewalled


def test_who_moves_may_be_without_a_network_for_a_while() -> None:
    network, nodes = build_network(13, 30)
    node = join(network, nodes, Settings(4000, role=Role.ADAPTIVE))
    network.loss = 1.0
    node.move(Nat.NONE)
    network.run_for(300)
    found = [node.engine.public_address]
    network.loss = 0.0
    node.refresh()
    network.run_for(30)
    found.append(node.engine.public_address)
    assert found == [None, node.server]
    assert node.engine.own_id is None, "it is not offered to others yet"


def test_those_who_vanish_are_forgotten() -> None:
    network, nodes = build_network(9, 14)
    gone = nodes[10]
    assert tables_with(nodes, gone.server) > 5
    gone.stop()
    network.run_for(4 * REFRESH_SECONDS)
    assert tables_with([node for node in nodes if node is not gone], gone.server) == 0


@pytest.mark.parametrize(
    "call",
    [
        # To a peer that is gone: whoever passes it on is not to blame.
        Call(NODE, Command.PEER_HANDSHAKE, target=TARGET),
        Call(NODE, Command.PEER_HOLEPUNCH, target=TARGET),
        # As to find out what a router does; a packet may get lost.
        Call(NODE, Internal.PING, True, retries=0),
    ],
)
def test_not_everything_that_goes_unanswered_shows_who_is_down(call: Call) -> None:
    """Found in review: strangers could have us forget the nodes that led to their dead keys."""
    network, nodes = build_network(14, 10)
    caller, node = nodes[2], nodes[5]
    assert caller.engine.table.get(node.server) is not None
    network.loss = 1.0 if call.is_internal else 0.0
    assert isinstance(caller.call(replace(call, to=node.server)), TimedOut)
    assert caller.engine.table.get(node.server) is not None


def test_a_network_survives_half_of_it_vanishing() -> None:
    network, nodes = build_network(10, 24)
    for node in nodes[1::2]:
        node.stop()
    left = nodes[0::2]
    alive = {node.server for node in left} - {left[5].server}
    first = set(find(left[5]))
    assert first <= alive
    assert len(first) >= len(alive) / 2, "half of those that each of them knows are gone"
    network.run_for(2 * REFRESH_SECONDS)
    assert set(find(left[5])) == alive


def test_who_comes_before_its_bootstrap_node_finds_it_later() -> None:
    network = Network(11)
    early = SimulatedNode(network, member((("60.1.7.9", 4000),)), GUEST)
    early.start()
    network.run(lambda: early.is_bootstrapped)
    assert len(early.engine.table) == 0
    first = replace(member(), public_address=("60.1.7.9", 4000))
    late = SimulatedNode(network, first, "60.1.7.9")
    late.start()
    network.run_for(60)
    assert early.engine.table.get(late.server) is not None
    assert late.engine.table.get(early.server) is not None
    assert not early.engine.statistics.is_ephemeral


def test_a_hint_makes_us_look_and_a_false_one_does_no_harm() -> None:
    network, nodes = build_network(12, 30)
    node = nodes[5]
    neighbors = [entry.address for entry in node.engine.table]
    gone = next(other for other in nodes if other.server in neighbors)
    here = next(other for other in nodes if other.server in neighbors and other is not gone)
    gone.stop()
    guest = join(network, nodes, Settings(4000))
    for address in (gone.server, here.server):
        hint = Call(node.server, Internal.DOWN_HINT, True, value=encode_address(address))
        assert isinstance(guest.call(hint), Answered)
    network.run_for(10)
    assert node.engine.table.get(gone.server) is None
    assert node.engine.table.get(here.server) is not None


def test_a_call_is_answered_or_times_out() -> None:
    network, nodes = build_network(13, 5)
    answered = nodes[1].call(Call(nodes[2].server, Internal.PING, True))
    assert isinstance(answered, Answered)
    assert answered.response.to == nodes[1].server
    nowhere: Address = ("192.0.2.1", 1)
    before = network.now
    assert isinstance(nodes[1].call(Call(nowhere, Internal.PING, True, retries=1)), TimedOut)
    assert network.now - before == pytest.approx(2 * FIRST_TIMEOUT_SECONDS)


def test_what_is_cancelled_tells_nothing_more() -> None:
    network, nodes = build_network(14, 30)
    engine = nodes[1].engine
    handle, _ = engine.call(Call(nodes[2].server, Internal.PING, True), network.now)
    number, outputs = engine.query(QueryPlan(TARGET, Internal.FIND_NODE, True), network.now)
    assert outputs
    engine.cancel_call(handle)
    engine.cancel_query(number)
    engine.cancel_query(number)
    network.run_for(10)
    assert engine.statistics.requests.active == 0
    assert (nodes[1].calls, nodes[1].queries) == ({}, {})


def test_more_queries_than_there_is_room_for_wait_their_turn() -> None:
    network, nodes = build_network(17, 30)
    engine = nodes[1].engine
    nowhere = Call(("192.0.2.1", 1), Internal.PING, True, retries=0, timeout_seconds=1.0)
    taken = [engine.call(nowhere, network.now)[0] for _ in range(MAX_REQUESTS)]
    numbers = [
        engine.query(QueryPlan(TARGET, Internal.FIND_NODE, True), network.now)[0] for _ in range(3)
    ]
    engine.cancel_query(numbers[2])
    for handle in taken:
        engine.cancel_call(handle)
    assert engine.statistics.requests.active == 0, "the queries have not begun"
    for number in numbers[:2]:
        nodes[1].queries[number] = QueryRecord([])
    network.run(lambda: None not in [nodes[1].queries[number].result for number in numbers[:2]])
    for number in numbers[:2]:
        result = nodes[1].queries[number].result
        assert result is not None
        assert (len(result.closest), result.timeouts) == (20, 0)


# What a liar may try.


def create_engine(role: Role = Role.PERSISTENT) -> DhtEngine:
    settings = Settings(4000, role=role, is_open=True, public_address=("203.0.113.5", 4000))
    engine = DhtEngine(settings, random.Random(1).randbytes, 0.0, UNIX_MS)
    engine.start(0.0)
    assert (engine.own_id is None) == (role is Role.EPHEMERAL)
    return engine


def introduce(engine: DhtEngine, address: Address, now: float = 1.0) -> list[Transmit]:
    """A request that seems to come from a member at this address."""
    request = Request(7, ("203.0.113.5", 4000), Internal.PING, True, node_id(address))
    outputs = engine.receive(request.encode(), address, Via.SERVER, now)
    return [output for output in outputs if isinstance(output, Transmit)]


def test_an_address_that_only_asks_is_not_believed_in() -> None:
    engine = create_engine()
    address: Address = ("192.0.2.1", 4000)
    ping, pong = introduce(engine, address)
    assert len(engine.table) == 0
    assert ping.to == pong.to == address
    question = decode_datagram(ping.data)
    assert isinstance(question, Request)
    answer = Response(question.transaction, ("203.0.113.5", 4000), node_id(address))
    engine.receive(answer.encode(), ("192.0.2.2", 4000), Via.SERVER, 1.1)
    assert len(engine.table) == 0, "somebody else answered"
    engine.receive(answer.encode(), address, Via.SERVER, 1.1)
    assert engine.table.get(address) is not None


def test_a_flood_of_faked_members_makes_us_ping_a_few() -> None:
    engine = create_engine()
    sent = [introduce(engine, (f"192.0.{i >> 8}.{i & 255}", 4000)) for i in range(2000)]
    pings = [
        transmit
        for outputs in sent
        for transmit in outputs
        if isinstance(decode_datagram(transmit.data), Request)
    ]
    assert len(pings) == MAX_INTRODUCTIONS
    assert len(engine.table) == 0


def test_a_wrong_id_is_no_id() -> None:
    engine = create_engine()
    request = Request(7, ("203.0.113.5", 4000), Internal.PING, True, bytes(32))
    outputs = engine.receive(request.encode(), ("192.0.2.1", 4000), Via.SERVER, 1.0)
    assert len(outputs) == 1, "a pong and no ping"


def test_requests_cannot_tell_us_who_we_are() -> None:
    engine = create_engine(Role.EPHEMERAL)
    for i in range(50):
        lie = Request(7, ("6.6.6.6", 666), Internal.PING, True, node_id((f"192.0.2.{i}", 4000)))
        engine.receive(lie.encode(), (f"192.0.2.{i}", 4000), Via.SERVER, 1.0)
    assert engine.statistics.public_host == "203.0.113.5"


def test_who_is_nobody_cannot_tell_us_who_we_are_either() -> None:
    network, nodes = build_network(15, 5)
    liar: Address = ("192.0.2.66", 4000)

    def lie(data: bytes, source: Address, _: Address) -> None:
        request = decode_datagram(data)
        assert isinstance(request, Request)
        network.send(Response(request.transaction, ("6.6.6.6", 666)).encode(), liar, source)

    network.endpoints[liar] = lie
    guest = SimulatedNode(network, Settings(4000), GUEST)
    guest.start()
    assert isinstance(guest.call(Call(liar, Internal.PING, True)), Answered)
    assert guest.engine.statistics.public_host is None
    assert isinstance(guest.call(Call(nodes[1].server, Internal.PING, True)), Answered)
    assert guest.engine.statistics.public_host == GUEST


def test_hints_about_nodes_that_are_down_have_a_limit() -> None:
    network, nodes = build_network(16, 3)
    told: list[float] = []
    dead = [[(public_host(2000 + 20 * i + j), 4000) for j in range(20)] for i in range(4)]

    def tell_of(group: list[Address], address: Address) -> None:
        def answer(data: bytes, source: Address, _: Address) -> None:
            request = decode_datagram(data)
            assert isinstance(request, Request)
            if request.is_internal and request.command == Internal.DOWN_HINT:
                told.append(network.now)
            response = Response(request.transaction, source, node_id(address), None, tuple(group))
            network.send(response.encode(), address, source)

        network.endpoints[address] = answer

    referrers = [(public_host(3000 + i), 4000) for i in range(16)]
    for i, address in enumerate(referrers):
        tell_of(dead[i % 4], address)
    nodes[1].query(QueryPlan(TARGET, Internal.FIND_NODE, True), remembered=referrers)
    network.run_for(1)
    assert len(told) > MAX_HINTS_PER_TICK, "in the long run"
    busiest = max(sum(0 <= later - start < 4.8 for later in told) for start in told)
    assert busiest <= 2 * MAX_HINTS_PER_TICK, "of two ticks, at worst"


def test_nobody_answers_from_nowhere() -> None:
    engine = create_engine()
    ping = Request(7, ("203.0.113.5", 4000), Internal.PING, True).encode()
    for source in (("192.0.2.1", 0), ("0.0.0.0", 5), ("255.255.255.255", 5)):
        assert engine.receive(ping, source, Via.SERVER, 1.0) == []


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from([Via.SERVER, Via.CLIENT]))
def test_any_datagrams_leave_a_node_working(datagrams: list[bytes], via: Via) -> None:
    engine = create_engine()
    source: Address = ("192.0.2.1", 4000)
    for data in datagrams:
        for datagram in (data, b"\x03" + data, b"\x13" + data):
            engine.receive(datagram, source, via, 1.0)
    ping = Request(7, ("203.0.113.5", 4000), Internal.PING, True).encode()
    (pong,) = engine.receive(ping, source, Via.SERVER, 2.0)
    assert isinstance(pong, Transmit)
