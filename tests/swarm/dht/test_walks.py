from __future__ import annotations

from swarm.announcement import Address
from swarm.dht.interface import QueryFinished, QueryReplied
from swarm.dht.messages import Internal, Response, node_id
from swarm.dht.purposes import Errands, ForQuery, Hint
from swarm.dht.query import CONCURRENCY, Query, QueryPlan
from swarm.dht.requests import Answered, Via
from swarm.dht.walks import (
    BACKGROUND_CONCURRENCY,
    MAX_HINTS_PER_TICK,
    Errand,
    SearchFinished,
    SearchReplied,
    WalkOutput,
    Walks,
)

NODE: Address = ("192.0.2.7", 4000)
PLAN = QueryPlan(bytes(32), Internal.FIND_NODE, True)
SEARCH = QueryPlan(bytes(32), Internal.FIND_NODE, True, concurrency=BACKGROUND_CONCURRENCY)


def create_query(*nodes: Address, plan: QueryPlan = PLAN) -> Query:
    return Query(plan, b"\x01" * 32, nodes)


def answer(walks: Walks, errand: WalkOutput, *closer: Address) -> list[WalkOutput]:
    assert isinstance(errand, Errand)
    assert isinstance(errand.purpose, ForQuery)
    to = errand.call.to
    response = Response(1, to, id=node_id(to), closer_nodes=closer)
    return walks.answered(errand.purpose, Answered(1, errand.call, response, 0.1, Via.CLIENT))


def visits(outputs: list[WalkOutput]) -> list[Address]:
    return [step.call.to for step in outputs if isinstance(step, Errand)]


def test_a_user_hears_every_answer_and_of_a_search_of_ours_who_answered() -> None:
    walks = Walks(Errands())
    number, (errand,) = walks.start(create_query(NODE), is_background=False)
    replied, finished = answer(walks, errand)
    assert isinstance(replied, QueryReplied)
    assert isinstance(finished, QueryFinished)
    assert (replied.query, replied.reply.source, finished.query) == (number, NODE, number)
    number, (errand,) = walks.start(create_query(NODE), is_background=True)
    assert answer(walks, errand) == [SearchReplied(number, NODE), SearchFinished(number)]


def test_a_search_hurries_while_hardly_anything_else_is_asked() -> None:
    nodes = [(f"192.0.{index}.1", 1) for index in range(20)]
    walks = Walks(Errands())
    number, outputs = walks.start(create_query(*nodes, plan=SEARCH), is_background=True)
    assert len(visits(outputs)) == BACKGROUND_CONCURRENCY
    walks.pace(number, requests=2)
    first, *_ = outputs
    assert len(visits(answer(walks, first))) == CONCURRENCY - 1
    walks.pace(number + 1, requests=2)  # of none of ours: nothing happens


def test_a_query_that_is_held_goes_on_where_it_was_and_one_that_is_over_does_not() -> None:
    errands = Errands()
    walks = Walks(errands)
    number, (errand,) = walks.start(create_query(NODE), is_background=False)
    walks.hold(number)
    (replied,) = answer(walks, errand)
    assert isinstance(replied, QueryReplied)
    (finished,) = walks.resume(number)
    assert isinstance(finished, QueryFinished)
    errands.end_query(number)
    walks.hold(number)
    assert walks.resume(number) == []


def test_so_many_hints_are_given_and_no_more_until_the_next_tick() -> None:
    walks = Walks(Errands())
    referrers = [(f"192.0.{index}.1", 1) for index in range(MAX_HINTS_PER_TICK + 10)]
    given: list[int] = []
    for start in range(0, len(referrers), 3):
        _, outputs = walks.start(create_query(*referrers[start : start + 3]), is_background=True)
        (down,) = {
            step
            for errand in outputs
            for step in answer(walks, errand, NODE)
            if isinstance(step, Errand)
        }
        assert isinstance(down.purpose, ForQuery)
        steps = walks.timed_out(down.purpose, down.call)
        given.append(sum(isinstance(step, Errand) and step.purpose == Hint() for step in steps))
        if start == MAX_HINTS_PER_TICK + 1:
            walks.tick()
    assert sum(given[:18]) == MAX_HINTS_PER_TICK
    assert sum(given[18:]) == len(referrers) - 54
