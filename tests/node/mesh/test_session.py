from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.mesh.hearsay_messages import Brief, Neighbors, Unclear
from node.mesh.mesh_key import hello_proof
from node.mesh.messages import (
    Answer,
    Evidence,
    EvidenceKind,
    Hello,
    Interest,
    Listed,
    Message,
    MessageType,
    Query,
    Stored,
    Update,
    Welcome,
    message_type,
)
from node.mesh.outputs import (
    Admitted,
    AnsweredLate,
    AnswerReceived,
    Asked,
    Closed,
    Idle,
    Output,
    QueryEnded,
    QuerySent,
    Transmit,
    Turned,
    WelcomeDue,
)
from node.mesh.replicas import ReplicaPolicy
from node.mesh.session import (
    ADMISSION_SECONDS,
    ANSWER_SECONDS,
    MAX_ANSWER_SECONDS,
    MAX_ANSWER_SESSIONS,
    MAX_OPEN_QUERIES,
    MAX_UNREAD_BYTES,
    MeshSession,
    State,
)
from node.mesh.ticket import Grant, Role
from node.mesh.trust_messages import Farewell, Kept
from tests.node.mesh import samples
from tests.node.mesh.samples import MESH_KEY, co_id, session_id

A, B = co_id(1), co_id(2)
S = session_id(1)
WELCOME = Welcome(b"k" * 32, 5, "name", "writer", None, ("lazy",))


def writer(_grant: Grant | None) -> Role | None:
    return Role.WRITER


def session(
    *, is_initiator: bool, key: bytes = MESH_KEY, handshake_hash: bytes = b"hash"
) -> MeshSession:
    return MeshSession(
        key, is_initiator=is_initiator, handshake_hash=handshake_hash, judge=writer, now=0
    )


class Pair:
    """Two machines joined in memory; what their shells would see is kept in `seen`."""

    def __init__(self, left: MeshSession, right: MeshSession) -> None:
        self.machines = (left, right)
        self.seen: tuple[list[Output], list[Output]] = ([], [])
        self.now = 0.0
        self._wire: deque[tuple[int, Transmit]] = deque()

    def carry_out(self, side: int, outputs: list[Output]) -> None:
        self._handle(side, outputs)
        self.deliver()

    def open(self) -> None:
        for side, machine in enumerate(self.machines):
            self._handle(side, machine.open())
        self.deliver()

    def deliver(self) -> None:
        while self._wire:
            side, sent = self._wire.popleft()
            self._handle(side, self.machines[side].receive(sent.type, sent.payload, self.now))

    def _handle(self, side: int, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Transmit):
                self._wire.append((1 - side, output))
                continue
            if isinstance(output, Asked):
                self._handle(side, self.machines[side].next_query())
                continue
            self.seen[side].append(output)
            if isinstance(output, WelcomeDue):
                self._handle(side, self.machines[side].welcome(WELCOME))

    def clear(self) -> None:
        for seen in self.seen:
            seen.clear()


def members() -> Pair:
    pair = Pair(session(is_initiator=True), session(is_initiator=False))
    pair.open()
    pair.clear()
    return pair


def test_two_who_know_the_secret_admit_each_other() -> None:
    pair = Pair(session(is_initiator=True), session(is_initiator=False))
    pair.open()
    for side in (0, 1):
        assert pair.seen[side] == [WelcomeDue(), Admitted(WELCOME, Role.WRITER)]
        assert pair.machines[side].state is State.MEMBER


def test_a_stranger_learns_nothing() -> None:
    for stranger in (
        session(is_initiator=True, key=bytes(32)),
        session(is_initiator=False),
        session(is_initiator=True, handshake_hash=b"other"),
    ):
        ours = session(is_initiator=False)
        hello = stranger.open()[0]
        assert isinstance(hello, Transmit)
        outputs = ours.receive(hello.type, hello.payload, 0)
        assert [type(output) for output in outputs] == [Closed]
        assert ours.state is State.CLOSED
        assert ours.welcome(WELCOME) == []
        assert ours.receive(hello.type, hello.payload, 0) == []


def test_our_own_proof_does_not_serve_as_theirs() -> None:
    ours = session(is_initiator=True)
    hello = ours.open()[0]
    assert isinstance(hello, Transmit)
    assert isinstance(ours.receive(hello.type, hello.payload, 0)[-1], Closed)


def test_who_is_judged_unfit_is_shut_out() -> None:
    ours = MeshSession(
        MESH_KEY, is_initiator=True, handshake_hash=b"hash", judge=lambda _grant: None, now=0
    )
    pair = Pair(ours, session(is_initiator=False))
    pair.open()
    assert ours.state is State.CLOSED
    assert isinstance(pair.seen[0][-1], Closed)


@pytest.mark.parametrize(
    "message",
    [
        WELCOME,
        Query(1, (A,), (None,)),
        Answer(1, 1, ()),
        Interest(),
        Update(1, ()),
        Evidence(EvidenceKind.SESSION, "", b"", b""),
    ],
)
@pytest.mark.parametrize("is_proved", [False, True])
def test_nothing_is_taken_before_the_welcome(message: Message, is_proved: bool) -> None:
    ours = session(is_initiator=True)
    if is_proved:
        proof = hello_proof(MESH_KEY, False, b"hash")
        assert ours.receive(0, Hello(1, proof).encode(), 0) == [WelcomeDue()]
        if isinstance(message, Welcome):
            return
    outputs = ours.receive(message_type(message), message.encode(), 0)
    assert [type(output) for output in outputs] == [Closed]


def test_a_second_hello_or_welcome_closes() -> None:
    for message in (Hello(1, hello_proof(MESH_KEY, False, b"hash")), WELCOME):
        machine = members().machines[0]
        assert isinstance(machine.receive(message_type(message), message.encode(), 0)[-1], Closed)


def test_a_hello_of_no_version_closes() -> None:
    hello = Hello(0, hello_proof(MESH_KEY, False, b"hash"))
    assert isinstance(session(is_initiator=True).receive(0, hello.encode(), 0)[0], Closed)


def test_admission_has_a_deadline() -> None:
    machine = session(is_initiator=True)
    assert machine.deadline == ADMISSION_SECONDS
    assert machine.advance(ADMISSION_SECONDS - 1) == []
    assert isinstance(machine.advance(ADMISSION_SECONDS)[0], Closed)
    assert machine.deadline is None


def test_query_and_answer() -> None:
    pair = members()
    left, right = pair.machines
    pair.carry_out(0, left.ask([(A, {S: 1}), (B, None)], now=0))
    sent = pair.seen[0].pop()
    assert isinstance(sent, QuerySent)
    assert sent.ids == (A, B)
    query = pair.seen[1].pop()
    assert query == Query(sent.request_id, (A, B), ({S: 1}, None))
    assert left.deadline == ANSWER_SECONDS
    pair.now = 0.25
    pair.carry_out(1, right.answer(sent.request_id, 9, [(A, {S: 2}), (B, None), (co_id(9), {})]))
    assert pair.seen[0] == [
        AnswerReceived(sent.request_id, 9, ((A, {S: 2}), (B, None))),
        QueryEnded(sent.request_id, is_answered=True),
    ]
    assert left.last_round_trip_seconds == 0.25
    assert left.advance(100) == []
    assert right.answer(sent.request_id, 9, []) == []


def test_long_answers_come_in_parts() -> None:
    pair = members()
    left, right = pair.machines
    pair.carry_out(0, left.ask([(A, None)], now=0))
    many = {session_id(number): 1 for number in range(6000)}
    pair.carry_out(1, right.answer(1, 9, [(A, many)]))
    parts = [output for output in pair.seen[0] if isinstance(output, AnswerReceived)]
    assert len(parts) > 1
    merged = {
        key: count
        for part in parts
        for _, some in part.values
        for key, count in (some or {}).items()
    }
    assert merged == many
    assert pair.seen[0][-1] == QueryEnded(1, is_answered=True)


def test_a_value_that_very_many_wrote_to_is_asked_for_once() -> None:
    """Each question about a part of it would be answered with the whole."""
    pair = members()
    left = pair.machines[0]
    many = {session_id(number): 1 for number in range(6000)}
    pair.carry_out(0, left.ask([(B, None), (A, many), (co_id(9), {S: 1})], now=0))
    asked = [output for output in pair.seen[1] if isinstance(output, Query)]
    assert sorted(co_id for query in asked for co_id in query.ids) == sorted([A, B, co_id(9)])
    known = {key: held for query in asked for key, held in zip(query.ids, query.known, strict=True)}
    assert known[co_id(9)] == {S: 1}
    assert 0 < len(known[A] or ()) < len(many)


def test_who_holds_values_that_very_many_wrote_to_stays() -> None:
    """Found in review: some clients had two nodes send each other away, by what they wrote."""
    pair = members()
    left, right = pair.machines
    many = {session_id(number): 1 for number in range(30_000)}
    values = [(co_id(number), many) for number in range(MAX_ANSWER_SESSIONS // len(many) + 2)]
    pair.carry_out(0, left.ask([(co_id, None) for co_id, _ in values], now=0))
    pair.carry_out(1, right.answer(1, 9, values))
    assert left.state is State.MEMBER
    assert pair.seen[0].count(QueryEnded(1, is_answered=False)) == 1
    parts = [part for part in pair.seen[0] if isinstance(part, AnswerReceived | AnsweredLate)]
    heard = {co_id: 0 for co_id, _ in values}
    for part in parts:
        for key, some in part.values:
            heard[key] += len(some or ())
    assert set(heard.values()) == {len(many)}
    in_time = [part for part in parts if isinstance(part, AnswerReceived)]
    sessions = sum(len(some or ()) for part in in_time for _, some in part.values)
    assert sessions <= MAX_ANSWER_SESSIONS
    pair.carry_out(0, left.ask([(A, None)], now=0))
    pair.carry_out(1, right.answer(2, 9, [(A, None)]))
    assert pair.seen[0][-1] == QueryEnded(2, is_answered=True)


def test_what_is_not_answered_in_time_is_given_up() -> None:
    pair = members()
    left, right = pair.machines
    pair.carry_out(0, left.ask([(A, None)], now=0))
    pair.carry_out(0, left.ask([(B, None)], now=0.5, patience_seconds=30))
    pair.clear()
    assert left.advance(0.9) == []
    assert left.advance(1.0) == [QueryEnded(1, is_answered=False)]
    assert left.deadline == 30.5
    pair.carry_out(1, right.answer(1, 9, [(A, {S: 1})]))
    assert pair.seen[0] == [AnsweredLate(9, ((A, {S: 1}),))]


def test_an_answer_behind_others_is_waited_for_though_not_for_ever() -> None:
    pair = members()
    left = pair.machines[0]
    pair.carry_out(0, left.ask([(A, None)], now=0))
    for second in range(1, int(MAX_ANSWER_SECONDS)):
        assert left.advance(second, is_sending=True) == []
        assert left.deadline == second + ANSWER_SECONDS
    ended = left.advance(MAX_ANSWER_SECONDS, is_sending=True)
    assert ended == [QueryEnded(1, is_answered=False)]


def test_closing_ends_what_was_asked() -> None:
    left = members().machines[0]
    left.ask([(A, None)], now=0)
    assert left.close() == [QueryEnded(1, is_answered=False), Closed("channel closed")]
    assert left.close() == []
    assert left.ask([(A, None)], now=0) == []


def test_open_queries_are_bounded_on_both_sides() -> None:
    pair = members()
    left, right = pair.machines
    for number in range(MAX_OPEN_QUERIES):
        pair.carry_out(0, left.ask([(co_id(number), None)], now=0))
    assert not left.can_ask
    assert left.ask([(A, None)], now=0) == []
    extra = Query(10_000, (A,), (None,))
    assert isinstance(right.receive(2, extra.encode(), 0)[-1], Closed)


def test_who_gives_up_and_asks_on_does_not_exceed_what_the_other_has_to_answer() -> None:
    """Found in review: each second a node asked a slow one as much again, and was sent away."""
    pair = members()
    left, right = pair.machines
    for second in range(5):
        for number in range(MAX_OPEN_QUERIES // 2):
            pair.carry_out(0, left.ask([(co_id(number), None)], now=second))
        left.advance(second + ANSWER_SECONDS)
    asked = [output for output in pair.seen[1] if isinstance(output, Query)]
    assert len(asked) == MAX_OPEN_QUERIES
    assert left.ask([(A, None)], now=8) == []
    pair.clear()
    for query in asked:
        pair.carry_out(1, right.answer(query.request_id, 9, [(query.ids[0], None)]))
    assert pair.seen[0] == [AnsweredLate(9, ((query.ids[0], None),)) for query in asked]
    pair.carry_out(0, left.ask([(A, None)], now=9))
    assert isinstance(pair.seen[1][-1], Query)


def test_an_answer_to_nothing_that_was_asked_says_nothing() -> None:
    left = members().machines[0]
    assert left.receive(3, Answer(5, 1, ((A, {S: 1}),)).encode(), 0) == [Idle()]
    left.ask([(A, None)], now=0)
    left.advance(ANSWER_SECONDS)
    late = Answer(1, 1, ((A, {S: 1}),)).encode()
    others = Answer(1, 1, ((B, {S: 1}),), more=True).encode()
    assert left.receive(3, others, 2) == [Idle()]
    assert left.receive(3, late, 2) == [AnsweredLate(1, ((A, {S: 1}),))]
    assert left.receive(3, late, 2) == [Idle()]


@pytest.mark.parametrize(
    "message",
    [Update(1, ()), Stored(1), Neighbors(), Brief(1, ()), Unclear(()), Kept(())],
)
def test_a_message_with_nothing_in_it_is_told_from_others(message: Message) -> None:
    left = members().machines[0]
    outputs = left.receive(message_type(message), message.encode(), 0)
    assert outputs == [Idle(), message]


def test_interest_that_is_the_same_is_told_from_what_changes() -> None:
    left = members().machines[0]

    def hear(interest: Interest) -> list[Output]:
        return left.receive(MessageType.INTEREST, interest.encode(), 0)

    one, prefix, everything = Interest(added=(A,)), Interest(prefixes=("co_z",)), Interest(True)
    for number, (interest, change) in enumerate(
        [
            *((Interest(), [Idle()]), (one, [one]), (one, [Idle()])),
            (Interest(removed=(B,)), [Idle()]),
            (Interest(removed=(A,)), [Interest(removed=(A,))]),
            *((prefix, [Turned(), prefix]), (prefix, [Idle()])),
            *((everything, [Turned(), everything]), (everything, [Idle()])),
            (Interest(), [Turned(), Interest()]),
        ]
    ):
        assert hear(interest) == change, number


def test_all_is_listed_once_the_newest_of_what_is_followed_is() -> None:
    pair = members()
    left, right = pair.machines

    def follow(*prefixes: str, everything: bool = False) -> None:
        policy = ReplicaPolicy(everything=everything, prefixes=prefixes)
        pair.carry_out(1, right.tell_interest(policy, set()))

    def is_listed() -> bool:
        return right.is_listed

    def listed(interests: int, version: int = 0) -> list[Output]:
        message = Listed(version, interests)
        return right.receive(MessageType.LISTED, message.encode(), 0)

    follow()
    assert is_listed()
    follow("co_z1")
    assert not is_listed()
    assert left.interests_heard == 2
    follow("co_z1", "co_z2")
    assert listed(2) == [Listed(0, 2)]
    assert not is_listed()
    assert listed(3) == [Listed(0, 3)]
    assert is_listed()
    follow("co_z2")
    assert is_listed()
    assert listed(3) == listed(5) == [Idle()]
    follow(everything=True)
    assert not is_listed()
    assert listed(5, version=7) == [Listed(7, 5)]
    assert is_listed()
    assert right.announced_length == 7
    follow("co_z2")
    assert not is_listed()
    follow()
    assert is_listed()


def test_who_speaks_version_1_neither_says_nor_hears_that_all_is_listed() -> None:
    old = MeshSession(
        MESH_KEY, is_initiator=True, handshake_hash=b"hash", judge=lambda _: Role.WRITER, now=0
    )
    old.receive(0, Hello(1, hello_proof(MESH_KEY, False, b"hash")).encode(), 0)
    old.receive(1, WELCOME.encode(), 0)
    assert old.tell_interest(ReplicaPolicy(prefixes=("co_z",)), set())
    assert old.is_listed
    old.receive(MessageType.INTEREST, Interest(prefixes=("co_z",)).encode(), 0)
    assert old.tell_listed(Listed(1, 1)) == []


def test_questions_are_read_when_their_turn_comes() -> None:
    right = members().machines[1]
    one, two = Query(1, (A,), (None,)), Query(2, (), ())
    assert right.receive(2, one.encode(), 0) == [Asked()]
    assert right.receive(2, two.encode(), 0) == [Asked()]
    assert right.receive(2, b"no question", 0) == [Asked()]
    assert right.next_query() == [one]
    assert right.next_query() == [Idle(), two]
    assert isinstance(right.next_query()[-1], Closed)
    assert right.next_query() == []


def test_unread_questions_are_bounded_in_bytes() -> None:
    right = members().machines[1]
    payload = bytes(MAX_UNREAD_BYTES // 4)
    for _ in range(4):
        assert right.receive(2, payload, 0) == [Asked()]
    [closed] = right.receive(2, b"x", 0)
    assert isinstance(closed, Closed)
    assert closed.is_fault


def test_many_ids_make_several_queries() -> None:
    left = members().machines[0]
    outputs = left.ask([(co_id(number), None) for number in range(2500)], now=0)
    sizes = [len(output.ids) for output in outputs if isinstance(output, QuerySent)]
    assert sizes == [1000, 1000, 500]


def test_updates_reach_who_is_interested() -> None:
    pair = members()
    left, right = pair.machines
    pair.carry_out(0, left.announce(3, {A: {S: 1}}))
    assert pair.seen[1] == []
    pair.carry_out(1, right.tell_interest(ReplicaPolicy(), {A}))
    pair.carry_out(1, right.tell_interest(ReplicaPolicy(), {A}))
    pair.carry_out(0, left.announce(3, {A: {S: 1}, B: {S: 2}}))
    assert pair.seen[1] == [Update(3, ((A, {S: 1}),))]


def test_evidence_is_handed_over() -> None:
    pair = members()
    evidence = Evidence(EvidenceKind.CORE, "ab", b"1", b"2")
    assert pair.machines[0].receive(6, evidence.encode(), 0) == [evidence]


@pytest.mark.parametrize("is_member", [False, True])
def test_a_farewell_is_the_last_word(is_member: bool) -> None:
    """Found in review: who was let in no more could have each of thousands logged and noted."""
    ours = members().machines[0] if is_member else session(is_initiator=True)
    if not is_member:
        ours.receive(0, Hello(1, hello_proof(MESH_KEY, False, b"hash")).encode(), 0)
    farewell = Farewell("shut out")
    number, payload = message_type(farewell), farewell.encode()
    outputs = ours.receive(number, payload, 0)
    assert outputs[0] == farewell
    assert isinstance(outputs[1], Closed)
    assert not outputs[1].is_fault
    assert ours.receive(number, payload, 0) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.binary(max_size=40))
        | samples.messages.map(lambda message: (int(message_type(message)), message.encode())),
        max_size=8,
    ),
    st.sampled_from([0, 1, 2]),
)
def test_any_messages_in_any_state_give_outputs(
    inputs: list[tuple[int, bytes]], progress: int
) -> None:
    machine = session(is_initiator=True)
    if progress >= 1:
        machine.receive(0, Hello(1, hello_proof(MESH_KEY, False, b"hash")).encode(), 0)
    if progress >= 2:
        machine.receive(1, WELCOME.encode(), 0)
        machine.ask([(A, None)], now=0)
    for number, payload in inputs:
        before = machine.state
        outputs = machine.receive(number, payload, 1)
        if any(isinstance(output, Closed) for output in outputs):
            assert machine.state is State.CLOSED
        assert before is not State.CLOSED or outputs == []
        assert not any(isinstance(output, Transmit) for output in outputs)
