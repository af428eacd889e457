from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.announcement import Address
from swarm.dht.messages import Internal, Request, Response, decode_datagram
from swarm.dht.pacing import INTERVAL_SECONDS, MAX_PER_INTERVAL
from swarm.dht.requests import (
    MAX_REQUESTS,
    RETRIES,
    Answered,
    Call,
    Delayed,
    RequestOutput,
    RequestTable,
    TimedOut,
    TooManyRequests,
    Transmit,
    Via,
)

NODE: Address = ("192.0.2.1", 4000)
ELSEWHERE: Address = ("192.0.2.1", 4001)
PING = Call(NODE, Internal.PING, True)
US: Address = ("198.51.100.1", 5)


def create_table(seed: int = 1) -> RequestTable:
    return RequestTable(random.Random(seed).randbytes, 0.0)


def sent(outputs: Sequence[RequestOutput]) -> list[Request]:
    messages = [decode_datagram(output.data) for output in outputs if isinstance(output, Transmit)]
    assert all(isinstance(message, Request) for message in messages)
    return [message for message in messages if isinstance(message, Request)]


def answer_to(request: Request) -> Response:
    return Response(request.transaction, US)


def test_an_answer_finds_its_request() -> None:
    table = create_table()
    handle, outputs = table.open(PING, Via.CLIENT, None, 0.0)
    (transmit,) = outputs
    assert isinstance(transmit, Transmit)
    assert (transmit.to, transmit.via) == (NODE, Via.CLIENT)
    (request,) = sent(outputs)
    response = answer_to(request)
    (answered,) = table.receive(response, NODE, Via.SERVER, 0.25)
    assert answered == Answered(handle, PING, response, 0.25, Via.SERVER)
    assert table.receive(response, NODE, Via.SERVER, 0.25) == [], "once"
    assert (len(table), table.deadline) == (0, None)
    assert table.round_trips.round_trip(NODE) == 0.25


def test_our_id_is_shown_only_when_given() -> None:
    table = create_table()
    _, hidden = table.open(PING, Via.CLIENT, None, 0.0)
    _, shown = table.open(PING, Via.SERVER, b"\x01" * 32, 0.0)
    assert [request.id for request in sent(hidden) + sent(shown)] == [None, b"\x01" * 32]


def test_an_answer_from_elsewhere_or_to_another_transaction_is_nobodys() -> None:
    table = create_table()
    _, outputs = table.open(PING, Via.CLIENT, None, 0.0)
    (request,) = sent(outputs)
    response = answer_to(request)
    wrong = replace(response, transaction=request.transaction ^ 1)
    assert table.receive(response, ELSEWHERE, Via.CLIENT, 0.1) == []
    assert table.receive(response, ("192.0.2.2", 4000), Via.CLIENT, 0.1) == []
    assert table.receive(wrong, NODE, Via.CLIENT, 0.1) == []
    assert len(table) == 1
    assert table.receive(response, NODE, Via.CLIENT, 0.1) != []


def test_transactions_cannot_be_foreseen() -> None:
    table = create_table()
    outputs = [table.open(PING, Via.CLIENT, None, 0.0)[1] for _ in range(50)]
    transactions = [request.transaction for each in outputs for request in sent(each)]
    steps = {(b - a) % 2**16 for a, b in pairwise(transactions)}
    assert len(set(transactions)) == 50
    assert len(steps) > 40


def test_silence_is_asked_again_and_then_given_up() -> None:
    table = create_table()
    handle, outputs = table.open(PING, Via.CLIENT, None, 0.0)
    (first,) = sent(outputs)
    for attempt in range(RETRIES):
        assert table.deadline == attempt + 1.0
        assert table.advance(attempt + 0.99) == []
        outputs = table.advance(attempt + 1.0)
        assert sent(outputs) == [first], "the very same question"
        assert (Delayed(handle, PING) in outputs) == (attempt == 0)
    assert table.advance(RETRIES + 1.0) == [TimedOut(handle, PING)]
    assert (len(table), table.deadline) == (0, None)
    statistics = table.statistics
    assert (statistics.sent, statistics.retries, statistics.timeouts) == (1, RETRIES, 1)


def test_a_repeated_question_tells_nothing_about_the_round_trip() -> None:
    table = create_table()
    _, outputs = table.open(PING, Via.CLIENT, None, 0.0)
    (request,) = sent(outputs)
    table.advance(1.0)
    (answered,) = table.receive(answer_to(request), NODE, Via.CLIENT, 1.1)
    assert isinstance(answered, Answered)
    assert answered.seconds == pytest.approx(1.1)
    assert table.round_trips.round_trip(NODE) is None


def test_a_call_may_bring_its_own_patience() -> None:
    table = create_table()
    call = replace(PING, timeout_seconds=7.0, retries=0)
    handle, outputs = table.open(call, Via.CLIENT, None, 0.0)
    assert table.advance(6.9) == []
    assert table.advance(7.0) == [TimedOut(handle, call)]
    _, outputs = table.open(call, Via.CLIENT, None, 10.0)
    table.receive(answer_to(sent(outputs)[0]), NODE, Via.CLIENT, 16.0)
    assert table.round_trips.round_trip(NODE) is None, "the delay was asked for"


def test_a_cancelled_request_is_forgotten() -> None:
    table = create_table()
    handle, outputs = table.open(PING, Via.CLIENT, None, 0.0)
    table.cancel(handle)
    table.cancel(handle)
    assert table.receive(answer_to(sent(outputs)[0]), NODE, Via.CLIENT, 0.1) == []
    assert table.advance(100.0) == []
    assert table.deadline is None


def test_what_the_window_does_not_hold_waits_in_line() -> None:
    table = create_table()
    patient = replace(PING, timeout_seconds=5.0)
    opened = [table.open(patient, Via.CLIENT, None, 0.0) for _ in range(MAX_PER_INTERVAL + 3)]
    assert [len(sent(outputs)) for _, outputs in opened] == [1] * MAX_PER_INTERVAL + [0] * 3
    _, urgent = table.open(replace(patient, is_urgent=True), Via.CLIENT, None, 0.0)
    assert len(sent(urgent)) == 1
    table.cancel(opened[MAX_PER_INTERVAL][0])  # first in line

    outputs = table.receive(answer_to(sent(opened[0][1])[0]), NODE, Via.CLIENT, 0.1)
    assert len(sent(outputs)) == 0, "the urgent one took its place"
    outputs = table.receive(answer_to(sent(opened[1][1])[0]), NODE, Via.CLIENT, 0.1)
    assert len(sent(outputs)) == 1
    assert table.deadline == INTERVAL_SECONDS
    assert len(sent(table.advance(INTERVAL_SECONDS))) == 1
    assert table.receive(answer_to(sent(outputs)[0]), NODE, Via.CLIENT, 0.2) != []


def test_nobody_answers_what_was_not_sent_yet() -> None:
    table = create_table()
    for _ in range(MAX_PER_INTERVAL + 1):
        table.open(PING, Via.CLIENT, None, 0.0)
    for transaction in range(2**16):
        table.receive(Response(transaction, US), NODE, Via.CLIENT, 0.1)
    assert len(table) <= 1, "the one in line was sent when others were answered"


def test_there_is_a_limit_to_all_of_it() -> None:
    table = create_table()
    for _ in range(MAX_REQUESTS):
        table.open(PING, Via.CLIENT, None, 0.0)
    with pytest.raises(TooManyRequests):
        table.open(PING, Via.CLIENT, None, 0.0)
    assert len(table) == MAX_REQUESTS


@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.sampled_from("oarc"), st.floats(0.01, 2.0)), max_size=60),
)
def test_every_request_ends_once(seed: int, steps: list[tuple[str, float]]) -> None:
    table = create_table(seed)
    choice = random.Random(seed)
    waiting: dict[int, Request | None] = {}
    requests: dict[int, Request] = {}
    ended: list[int] = []
    now = 0.0

    def take(outputs: Sequence[RequestOutput]) -> None:
        for request in sent(outputs):
            requests[request.transaction] = request
        ended.extend(output.handle for output in outputs if isinstance(output, Answered | TimedOut))

    for action, seconds in steps:
        now += seconds
        if action == "o":
            handle, outputs = table.open(PING, Via.CLIENT, None, now)
            waiting[handle] = None
            take(outputs)
        elif action == "a":
            take(table.advance(now))
        elif action == "r" and requests:
            request = requests.pop(choice.choice(list(requests)))
            take(table.receive(answer_to(request), NODE, Via.CLIENT, now))
        elif action == "c" and waiting:
            handle = choice.choice(list(waiting))
            if handle not in ended:
                ended.append(handle)
            table.cancel(handle)
    while (deadline := table.deadline) is not None:
        now = max(now, deadline)
        take(table.advance(now))
    assert sorted(ended) == sorted(waiting)
    assert len(table) == 0
