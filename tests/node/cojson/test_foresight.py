"""What is foreseen changes when signatures are checked, and never what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node.cojson.crypto import verify_session
from node.cojson.foresight import Foresight
from node.cojson.messages import Known, Message
from node.cojson.outputs import LoadValue, Output, Refused, Send, Store
from node.cojson.sync import SyncEngine
from node.covalue.content import Content, SessionContent
from node.covalue.ids import agent_public_key
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
KEY = agent_public_key(ANN.agent_id)
SESSION = ANN.session_id()
BEGIN = [ANN.account(), ANN.content(GROUP, edits(2))]


def map_edits(count: int, after: int = 0, author: Author = ANN) -> Content:
    return author.content(MAP, edits(count), after=after, with_header=after == 0)


class Party:
    """An engine, its only client, and a disk on which there is nothing at first."""

    def __init__(self, *, looks_ahead: bool) -> None:
        self.engine = SyncEngine()
        self.engine.add_peer("a")
        self._looks_ahead = looks_ahead
        self.outputs: list[Output] = []

    def foresee(self, *messages: Message) -> Foresight | None:
        foresight = self.engine.foresight("a")
        if foresight is None:
            return None
        for message in messages:
            foresight.look_at(message)
        for extension, key in foresight.checks:
            right = verify_session(extension.running, extension.signature, key)
            extension.verdict = key, right
        return foresight

    def foreseen(self, *messages: Message) -> Foresight:
        foresight = self.foresee(*messages)
        assert foresight is not None
        return foresight

    def say(self, *messages: Message, foresight: Foresight | None = None) -> None:
        if foresight is None and self._looks_ahead:
            foresight = self.foresee(*messages)
        foreseen = () if foresight is None else foresight.extensions
        self._note(self.engine.receive_many("a", messages, foreseen))

    def _note(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self.outputs.append(output)
            if isinstance(output, LoadValue):
                self._note(self.engine.loaded(output.co_id, None))
            elif isinstance(output, Store):
                self._note(self.engine.stored([output.ticket]))

    def told(self) -> Message:
        """What the client was told last."""
        return [output for output in self.outputs if isinstance(output, Send)][-1].message

    def refusals(self) -> list[str]:
        return [output.reason for output in self.outputs if isinstance(output, Refused)]


def test_each_message_continues_those_before_it() -> None:
    party = Party(looks_ahead=False)
    messages = [*BEGIN, map_edits(1), map_edits(3, after=1)]
    foresight = party.foreseen(*messages)
    assert [len(found) for found in foresight.extensions] == [1, 1, 1, 1]
    assert foresight.checks_within == [0, 1, 2, 3, 4]
    assert [key for _, key in foresight.checks] == [KEY] * 4
    assert all(extension.verdict == (KEY, True) for extension, _ in foresight.checks)
    party.say(*messages, foresight=foresight)
    assert party.told() == Known(MAP.id, KnownState(True, {SESSION: 3}))


def test_what_is_in_memory_is_continued() -> None:
    party = Party(looks_ahead=False)
    party.say(*BEGIN, map_edits(2))
    foresight = party.foreseen(map_edits(5, after=2))
    ((extension, key),) = foresight.checks
    assert (key, extension.verdict) == (KEY, (KEY, True))


def test_what_cannot_be_known_is_not_foreseen() -> None:
    party = Party(looks_ahead=False)
    party.say(*BEGIN, map_edits(2))
    unlikely = [
        map_edits(2),  # is here already
        map_edits(4, after=3),  # begins beyond what is here
        BOB.content(MAP, edits(1), with_header=False),  # whoever that is
        Content(MAP.id, None, {}),
    ]
    for content in unlikely:
        foresight = party.foreseen(content)
        assert (foresight.checks, foresight.extensions) == ([], [{}])
    assert party.foreseen(Known(MAP.id, NOTHING)).extensions == [{}]


def test_a_verdict_against_another_key_counts_for_nothing() -> None:
    """A header says whose key it is, and need not be that of the account that it is sent as."""
    party = Party(looks_ahead=False)
    party.say(*BEGIN)
    account = ANN.account()
    false = replace(account, header=BOB.account_header)
    part = map_edits(1).new[SESSION]
    forged = SessionContent(0, part.transactions, BOB.sign(part.transactions))
    theft = Content(MAP.id, MAP, {SESSION: forged})
    foresight = party.foreseen(false, theft)
    assert foresight.checks[-1][0].verdict == (agent_public_key(BOB.agent_id), True)
    party.say(false, theft, foresight=foresight)
    assert party.refusals()[-1].startswith("bad signature")
    party.say(map_edits(1))
    assert party.told() == Known(MAP.id, KnownState(True, {SESSION: 1}))


def test_foresight_that_came_too_late_is_not_used() -> None:
    party = Party(looks_ahead=False)
    party.say(*BEGIN, map_edits(1))
    fork = ANN.content(MAP, [*edits(1), *edits(3, size=50)[1:]], after=1, with_header=False)
    foresight = party.foreseen(fork)
    party.say(map_edits(2, after=1))
    party.say(fork, foresight=foresight)
    refusal = f"bad signature on {SESSION} after 2"
    assert party.refusals() == [refusal]


def test_a_client_that_was_refused_is_not_worked_for_ahead() -> None:
    party = Party(looks_ahead=True)
    party.say(*BEGIN)
    wrong = SessionContent(0, edits(1), bytes(64))
    party.say(Content(MAP.id, MAP, {SESSION: wrong}))
    assert party.refusals() == [f"bad signature on {SESSION} after 0"]
    assert party.engine.foresight("a") is None
    party.say(map_edits(1))
    assert party.engine.foresight("a") is not None


STEPS = [
    *BEGIN,
    map_edits(1),
    map_edits(3, after=1),
    map_edits(4, after=2),
    map_edits(6, after=5),
    map_edits(2),
    BOB.account(),
    BOB.content(MAP, edits(2), with_header=False),
    Content(MAP.id, None, {SESSION: SessionContent(1, edits(2)[1:], bytes(64))}),
    Content(MAP.id, MAP, {SESSION: SessionContent(0, edits(3), BOB.sign(edits(3)))}),
    ANN.content(MAP, [*edits(1), *edits(3, size=50)[1:]], after=1, with_header=False),
    ANN.deletion(MAP),
    Known(MAP.id, KnownState(True, {SESSION: 1})),
]


@given(st.lists(st.lists(st.sampled_from(STEPS), max_size=8), max_size=6))
def test_it_changes_nothing_that_is_said_or_stored(frames: list[list[Message]]) -> None:
    plain, ahead = Party(looks_ahead=False), Party(looks_ahead=True)
    for frame in frames:
        plain.say(*frame)
        ahead.say(*frame)
    assert ahead.outputs == plain.outputs
