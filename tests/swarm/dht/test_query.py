from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.announcement import Address
from swarm.dht.hosts import party_of
from swarm.dht.messages import Command, Internal, Response, node_id
from swarm.dht.query import (
    CAUTIOUS_CONCURRENCY,
    CONCURRENCY,
    MAX_CLOSEST_PER_PARTY,
    MAX_VISITS,
    MAX_VISITS_PER_PARTY,
    Ask,
    Finished,
    HintDown,
    Query,
    QueryOutput,
    QueryPlan,
    QueryResult,
    Replied,
    Reply,
)
from swarm.dht.requests import Call
from swarm.dht.routing_table import ROW_SIZE, distance
from tests.support.dht_network import public_host

TARGET = b"\x5a" * 32
OWN_ID = bytes(32)
PLAN = QueryPlan(TARGET, Internal.FIND_NODE, True)
US: Address = ("203.0.113.1", 1)
NODES = sorted(
    ((public_host(i), 4000) for i in range(300)),
    key=lambda address: distance(node_id(address), TARGET),
)


@dataclass
class World:
    """Answers a query at once, in random order; a node is what `answer` makes of it."""

    query: Query
    answer: Callable[[Address], Response | None]
    choice: random.Random = field(default_factory=lambda: random.Random(1))
    visited: list[Address] = field(default_factory=list)
    hints: list[HintDown] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    commits: list[Call] = field(default_factory=list)
    most_at_once: int = 0
    result: QueryResult | None = None
    _asked: list[Ask] = field(default_factory=list)

    def run(self) -> QueryResult:
        self._take(self.query.start())
        while self._asked:
            self.most_at_once = max(self.most_at_once, len(self._asked))
            ask = self._asked.pop(self.choice.randrange(len(self._asked)))
            response = self.answer(ask.call.to)
            if ask.is_commit:
                self.commits.append(ask.call)
                error = 0 if response is None else response.error
                outputs = (
                    self.query.commit_timed_out()
                    if response is None
                    else self.query.commit_answered(error)
                )
            elif response is None:
                outputs = self.query.timed_out(ask.call.to)
            else:
                outputs = self.query.answered(ask.call.to, response, 0.1)
            self._take(outputs)
        assert self.result is not None, "the query did not end"
        return self.result

    def _take(self, outputs: Sequence[QueryOutput]) -> None:
        for output in outputs:
            assert self.result is None, "something came after the end"
            match output:
                case Ask(call, is_commit):
                    self._asked.append(output)
                    if not is_commit:
                        self.visited.append(call.to)
                case HintDown():
                    self.hints.append(output)
                case Replied(reply):
                    self.replies.append(reply)
                case Finished(result):
                    self.result = result
                    self._asked.clear()


def knows_all(address: Address, nodes: Sequence[Address] = NODES) -> Response:
    """Of a node that knows who is closest, and tells in no order."""
    closer = random.Random(address[1]).sample(nodes[:20], min(20, len(nodes)))
    return Response(0, US, node_id(address), b"t" * 32, tuple(closer))


def knows_neighbors(address: Address) -> Response:
    """Of a node that knows some who are about twice as close as itself."""
    index = NODES.index(address)
    around = NODES[index // 2 : index // 2 + 20]
    return Response(0, US, node_id(address), b"t" * 32, tuple(around))


def sources(result: QueryResult) -> list[Address]:
    return [reply.source for reply in result.closest]


@pytest.mark.parametrize("seed", range(5))
def test_the_walk_ends_at_the_closest_nodes(seed: int) -> None:
    world = World(Query(PLAN, OWN_ID, NODES[-3:]), knows_neighbors, random.Random(seed))
    result = world.run()
    assert sources(result) == NODES[:20]
    assert result.replies == len(world.replies) == len(world.visited) < 80
    assert len(set(world.visited)) == len(world.visited), "nobody is asked twice"
    assert CONCURRENCY / 2 < world.most_at_once <= CONCURRENCY


def test_with_nobody_to_ask_it_ends_at_once() -> None:
    assert World(Query(PLAN, OWN_ID, ()), knows_all).run() == QueryResult()


def test_nodes_without_an_id_answer_but_store_nothing() -> None:
    ephemeral = set(NODES[:10])

    def answer(address: Address) -> Response:
        full = knows_all(address)
        if address in ephemeral:
            return Response(0, US, None, full.token, full.closer_nodes)
        return full

    world = World(Query(PLAN, OWN_ID, NODES[40:44]), answer)
    result = world.run()
    assert not ephemeral & set(sources(result))
    assert ephemeral <= {reply.source for reply in world.replies}


def test_an_id_must_be_that_of_the_address() -> None:
    world = World(
        Query(PLAN, OWN_ID, NODES[:5]), lambda address: Response(0, US, TARGET, b"t" * 32)
    )
    assert world.run().closest == ()
    assert {reply.id for reply in world.replies} == {None}


def test_an_error_is_no_reply_but_still_points_on() -> None:
    def answer(address: Address) -> Response:
        full = knows_all(address)
        if address == NODES[50]:
            return Response(0, US, full.id, None, full.closer_nodes, 1)
        return full

    world = World(Query(PLAN, OWN_ID, NODES[50:51]), answer)
    assert sources(world.run()) == NODES[:20]
    assert NODES[50] not in {reply.source for reply in world.replies}


def test_who_referred_a_silent_node_is_told() -> None:
    def answer(address: Address) -> Response | None:
        return None if address in NODES[5:10] else knows_all(address)

    world = World(Query(PLAN, OWN_ID, NODES[60:64]), answer)
    result = world.run()
    assert result.timeouts == 5
    assert {hint.about for hint in world.hints} == set(NODES[5:10])
    referrers = {hint.to for hint in world.hints}
    assert not referrers & set(NODES[5:10])
    assert sources(result)[:5] == NODES[:5]


def test_slow_nodes_do_not_hold_the_others_up() -> None:
    query = Query(PLAN, OWN_ID, NODES[:40])
    asked = [output.call.to for output in query.start() if isinstance(output, Ask)]
    assert asked == NODES[:CONCURRENCY], "the closest ones first"
    outputs = query.delayed(asked[0])
    assert [output.call.to for output in outputs if isinstance(output, Ask)] == [NODES[10]]
    assert query.delayed(asked[0]) == [], "it can be slow only once"
    assert query.answered(asked[0], knows_all(asked[0]), 2.0) == [
        Replied(Reply(asked[0], node_id(asked[0]), knows_all(asked[0]), 2.0))
    ], "its place was given away already"


def test_it_does_not_wait_for_the_slow_when_it_has_enough() -> None:
    slow = NODES[0]
    query = Query(PLAN, OWN_ID, NODES[:21])
    pending = [output.call.to for output in query.start() if isinstance(output, Ask)]
    pending.remove(slow)
    pending += [output.call.to for output in query.delayed(slow) if isinstance(output, Ask)]
    done: list[QueryOutput] = []
    while pending and not done:
        address = pending.pop()
        outputs = query.answered(address, Response(0, US, node_id(address)), 0.1)
        pending += [output.call.to for output in outputs if isinstance(output, Ask)]
        done = [output for output in outputs if isinstance(output, Finished)]
    assert done
    assert query.timed_out(slow) == []


def test_remembered_nodes_are_asked_first_and_carefully() -> None:
    query = Query(PLAN, OWN_ID, NODES[100:120], remembered=NODES[:20])
    asked = [output.call.to for output in query.start() if isinstance(output, Ask)]
    assert asked == NODES[:CAUTIOUS_CONCURRENCY]
    world = World(Query(PLAN, OWN_ID, NODES[100:120], remembered=NODES[:20]), knows_all)
    assert sources(world.run()) == NODES[:20]
    assert world.visited[:3] == NODES[:3]
    assert not set(NODES[100:120]) & set(world.visited)


def test_when_remembered_nodes_are_gone_the_table_helps() -> None:
    def answer(address: Address) -> Response | None:
        return None if address in NODES[200:220] else knows_all(address)

    world = World(Query(PLAN, OWN_ID, NODES[100:105], remembered=NODES[200:220]), answer)
    result = world.run()
    assert result.timeouts == 20
    assert sources(result) == NODES[:20]


def test_a_few_remembered_nodes_are_joined_by_the_table_at_once() -> None:
    query = Query(PLAN, OWN_ID, NODES[100:120], remembered=NODES[:3])
    asked = [output.call.to for output in query.start() if isinstance(output, Ask)]
    assert len(asked) == CONCURRENCY
    assert asked[:3] == NODES[:3]


def test_we_do_not_visit_ourselves_nor_nowhere() -> None:
    own = NODES[0]
    bad: list[Address] = [own, ("0.0.0.0", 1), ("192.0.2.1", 0), ("239.1.1.1", 5)]
    world = World(
        Query(PLAN, node_id(own), NODES[50:52]),
        lambda address: Response(0, US, node_id(address), None, tuple(bad)),
    )
    world.run()
    assert sorted(world.visited) == sorted(NODES[50:52])


def test_strangers_cannot_make_us_probe_our_own_network() -> None:
    inside = tuple(("192.168.0.1", port) for port in range(1, 21))

    def answer(address: Address) -> Response:
        return Response(0, US, node_id(address), None, inside)

    world = World(Query(PLAN, OWN_ID, NODES[:2]), answer)
    world.run()
    assert sorted(world.visited) == sorted(NODES[:2])
    world = World(Query(PLAN, OWN_ID, [("192.168.0.9", 7)]), answer)
    world.run()
    assert len(world.visited) == 21, "a neighbor may"


def sybils(count: int, host: str = "203.0.113.66") -> list[Address]:
    """That many ports of a host that happen to be closest to the target."""
    ports = sorted(range(1, 60_000), key=lambda port: distance(node_id((host, port)), TARGET))
    return [(host, port) for port in ports[:count]]


def test_one_host_cannot_take_the_places_next_to_a_target() -> None:
    attackers = sybils(40)
    assert distance(node_id(attackers[19]), TARGET) < distance(node_id(NODES[0]), TARGET)

    def answer(address: Address) -> Response:
        if address in attackers:
            return Response(0, US, node_id(address), b"t" * 32, tuple(attackers[:20]))
        full = knows_neighbors(address)
        return Response(0, US, full.id, full.token, (*attackers, *full.closer_nodes))

    world = World(Query(PLAN, OWN_ID, NODES[-5:]), answer)
    result = world.run()
    party = party_of(attackers[0][0])
    taken = [reply for reply in result.closest if party_of(reply.source[0]) == party]
    assert len(taken) == MAX_CLOSEST_PER_PARTY
    assert len(result.closest) == ROW_SIZE
    visits = [address for address in world.visited if party_of(address[0]) == party]
    assert len(visits) == 8 == MAX_VISITS_PER_PARTY, "nor can it make us send it many datagrams"


def test_where_there_is_one_party_only_it_may_have_all_places() -> None:
    nodes = [("203.0.113.66", port) for port in range(1, 8)]
    world = World(Query(PLAN, OWN_ID, nodes[:2]), lambda address: knows_all(address, nodes))
    assert len(world.run().closest) == 7


def test_a_maze_of_ever_closer_nodes_has_an_end() -> None:
    choice = random.Random(3)

    def answer(address: Address) -> Response:
        made_up = [
            (f"{choice.randrange(11, 99)}.{choice.randrange(256)}.{choice.randrange(256)}.1", port)
            for port in range(1, 21)
        ]
        return Response(0, US, None, None, tuple(made_up))

    world = World(Query(PLAN, OWN_ID, NODES[-3:]), answer)
    world.run()
    assert len(world.visited) <= MAX_VISITS


def store_at(closest: Sequence[Reply], _: Sequence[Reply]) -> Sequence[Call]:
    return [Call(reply.source, Command.IMMUTABLE_PUT, target=TARGET) for reply in closest]


def test_a_commit_goes_to_the_closest_and_counts() -> None:
    phase: list[str] = []

    def answer(address: Address) -> Response | None:
        if not phase:
            return knows_all(address)
        if address in NODES[:3]:
            return None
        return Response(0, US, node_id(address), error=17 if address in NODES[3:7] else 0)

    def commit(closest: Sequence[Reply], everybody: Sequence[Reply]) -> Sequence[Call]:
        phase.append("committing")
        assert len(everybody) >= len(closest)
        return store_at(closest, everybody)

    plan = QueryPlan(TARGET, Command.IMMUTABLE_GET, commits=(commit,))
    world = World(Query(plan, OWN_ID, NODES[30:33]), answer)
    result = world.run()
    assert {call.to for call in world.commits} == set(NODES[:20])
    assert (result.stored, result.refusals, result.timeouts) == (13, (17,) * 4, 3)


def test_commits_follow_one_another_and_empty_ones_are_skipped() -> None:
    order: list[str] = []

    def first(closest: Sequence[Reply], everybody: Sequence[Reply]) -> Sequence[Call]:
        order.append("first")
        return store_at(closest[:2], everybody)

    def empty(_: Sequence[Reply], __: Sequence[Reply]) -> Sequence[Call]:
        order.append("empty")
        return ()

    def last(closest: Sequence[Reply], everybody: Sequence[Reply]) -> Sequence[Call]:
        order.append(f"last after {len(world.commits)}")
        return store_at(closest[:5], everybody)

    plan = QueryPlan(TARGET, Command.LOOKUP, commits=(first, empty, last))
    world = World(Query(plan, OWN_ID, NODES[30:33]), knows_all)
    assert world.run().stored == 5
    assert order == ["first", "empty", "last after 2"]


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_it_always_ends(seed: int, silence: float, lies: float) -> None:
    choice = random.Random(seed)

    def answer(address: Address) -> Response | None:
        if choice.random() < silence:
            return None
        closer = tuple(choice.sample(NODES, 20))
        if choice.random() < lies:
            return Response(0, US, choice.randbytes(32), None, closer, choice.randrange(3))
        return Response(0, US, node_id(address), b"t" * 32, closer)

    remembered = choice.sample(NODES, choice.choice((0, 5, 20)))
    plan = QueryPlan(TARGET, Command.LOOKUP, commits=(store_at,))
    world = World(Query(plan, OWN_ID, NODES[-10:], remembered), answer, choice)
    result = world.run()
    distances = [distance(node_id(source), TARGET) for source in sources(result)]
    assert distances == sorted(distances)
    assert result.stored + len(result.refusals) <= len(result.closest) <= ROW_SIZE


def test_while_it_is_held_nobody_else_is_visited_nor_does_it_end() -> None:
    query = Query(PLAN, OWN_ID, NODES[100:130])
    asked = [step.call.to for step in query.start() if isinstance(step, Ask)]
    assert len(asked) == CONCURRENCY
    query.hold()
    for address in asked:
        outputs = query.answered(address, knows_neighbors(address), 0.01)
        assert [type(output) for output in outputs] == [Replied]
    assert sum(isinstance(step, Ask) for step in query.go_on()) == CONCURRENCY
