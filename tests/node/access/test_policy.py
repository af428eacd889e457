"""The table in `node/access/policy.py`, through the sync engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.access.gate import Gate
from node.access.people import person_of
from node.access.policy import OPEN, AccessPolicy, parse_id_lines
from node.access.reasons import Reason
from node.cojson.gatekeeper import Origin
from node.cojson.messages import Known, Load, Reconcile, ReconcileAck
from node.covalue.content import Content, Transaction
from node.covalue.header import parse_header
from node.covalue.ids import CoSessionId
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.engine_shell import EngineShell

ANN, BOB = Author("ann"), Author("bob")
FREE = map_header("free")
OTHER_ACCOUNT = parse_header({**ANN.account_header.fields, "uniqueness": "another"})
"""An account of ann's agent that is not the one made of nothing but the agent."""

POLICIES = {
    "open": OPEN,
    "deny": AccessPolicy.of(deny=[BOB.account_id]),
    "allow": AccessPolicy.of([ANN.account_id]),
    "allow by agent": AccessPolicy.of([ANN.agent_id]),
    "deny by agent": AccessPolicy.of(deny=[BOB.agent_id]),
    "both lists": AccessPolicy.of([ANN.account_id, BOB.account_id], [BOB.account_id]),
}


def together(*contents: Content) -> Content:
    """One message of several authors' sessions."""
    new = {key: part for content in contents for key, part in content.new.items()}
    return Content(contents[0].co_id, contents[0].header, new)


ANN_FREE = ANN.content(FREE, edits(2), as_agent=True)
BOB_FREE = BOB.content(FREE, edits(3), as_agent=True)
BOTH_FREE = together(ANN_FREE, BOB_FREE)
CAROL = Author("carol")

# What is sent, and how many of its sessions are stored under each policy (None: no header, either).
TABLE: list[tuple[str, Content, dict[str, int | None]]] = [
    ("session of somebody welcome", ANN_FREE, dict.fromkeys(POLICIES, 1)),
    (
        "session of somebody listed or not",
        BOB_FREE,
        {"open": 1, **dict.fromkeys(list(POLICIES)[1:], None)},
    ),
    (
        "session of a stranger",
        CAROL.content(FREE, edits(1), as_agent=True),
        {"open": 1, "deny": 1, "deny by agent": 1}
        | dict.fromkeys(["allow", "allow by agent", "both lists"]),
    ),
    ("sessions of both", BOTH_FREE, {"open": 2, **dict.fromkeys(list(POLICIES)[1:], 1)}),
    ("account of the welcome one", ANN.account(), dict.fromkeys(POLICIES, 1)),
    (
        "account of the other",
        BOB.account(),
        {"open": 1, **dict.fromkeys(list(POLICIES)[1:], None)},
    ),
    (
        "account header alone, welcome",
        ANN.content(ANN.account_header, []),
        dict.fromkeys(POLICIES, 0),
    ),
    (
        "account header alone, the other's",
        BOB.content(BOB.account_header, []),
        {"open": 0, **dict.fromkeys(list(POLICIES)[1:], None)},
    ),
    (
        "group header alone of the other",
        BOB.content(group_header(BOB.agent_id), []),
        {"open": 0, **dict.fromkeys(list(POLICIES)[1:], None)},
    ),
    (
        "group header alone of the welcome one",
        ANN.content(group_header(ANN.agent_id), []),
        {"open": 0, "deny": 0, "deny by agent": 0}
        | dict.fromkeys(["allow", "allow by agent", "both lists"]),
    ),
    (
        "header of an unowned value alone",
        ANN.content(FREE, []),
        {"open": 0, "deny": 0, "deny by agent": 0}
        | dict.fromkeys(["allow", "allow by agent", "both lists"]),
    ),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("what", "content", "stored"), TABLE, ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("source", ["client", "mesh"])
def test_what_is_taken(
    what: str, content: Content, stored: dict[str, int | None], policy: str, source: str
) -> None:
    shell = EngineShell(access=Gate(POLICIES[policy]))
    shell.client("a")
    if source == "client":
        shell.say("a", content)
    else:
        shell.bring(content)
    shell.commit()
    expected = stored[policy]
    value = shell.disk.load_value(content.co_id)
    assert (None if value is None else len(value.sessions)) == expected
    answers = shell.take("a")
    if source == "client" and expected is not None:
        assert value is not None
        assert answers == [Known(content.co_id, value.known_state)]
    if source == "client" and expected is None:
        # No answer, no trace, a line for the log; and a load is answered as of any unknown id.
        assert answers == []
        assert len(shell.refusals["a"]) == 1
        assert shell.load("a", content.co_id) == [Known(content.co_id, NOTHING)]
    if source == "mesh":
        (settled,) = shell.settled
        assert (settled.refusal is None) == (expected is not None)


def test_an_account_of_another_form_is_written_by_its_agent() -> None:
    content = ANN.content(OTHER_ACCOUNT, edits(1), as_agent=True)
    assert person_of(ANN.agent_id) == ANN.account_id != content.co_id
    for policy, is_taken in (
        (AccessPolicy.of([OTHER_ACCOUNT.id]), True),
        (AccessPolicy.of([ANN.agent_id]), True),
        (AccessPolicy.of([BOB.account_id]), False),
        (AccessPolicy.of(deny=[OTHER_ACCOUNT.id]), False),
        (AccessPolicy.of(deny=[ANN.account_id]), False),
    ):
        shell = EngineShell(access=Gate(policy))
        shell.client("a")
        shell.say("a", content)
        shell.commit()
        assert (shell.disk.load_value(content.co_id) is not None) == is_taken


def test_edits_of_refused_values_are_no_reason_to_ask_for_everything_again() -> None:
    shell = EngineShell(access=Gate(POLICIES["allow"]))
    shell.client("a")
    shell.say("a", BOB_FREE)
    shell.say("a", BOB.content(FREE, edits(4), after=3, as_agent=True, with_header=False))
    assert shell.take("a") == []
    shell.say("a", ANN_FREE)
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, known(ANN_FREE)))]
    # And of a value that is here, its gap in a session that is not taken.
    shell.say("a", BOB.content(FREE, edits(4), after=3, as_agent=True, with_header=False))
    assert shell.take("a") == []


@pytest.mark.parametrize("content", [BOB_FREE, BOTH_FREE], ids=["all of it", "a part"])
def test_a_client_that_reconciles_gets_past_what_is_refused(content: Content) -> None:
    shell = EngineShell(access=Gate(POLICIES["deny"]))
    shell.client("a")
    shell.say("a", Reconcile("b1", ((FREE.id, "shortHash_z1"),)))
    assert shell.take("a") == [Load(FREE.id, NOTHING)]
    until = {key: part.stop for key, part in content.new.items()}
    shell.say("a", Content(FREE.id, FREE, content.new, expect_until=until))
    shell.commit()
    assert ReconcileAck("b1") in shell.take("a")


def known(content: Content) -> dict[CoSessionId, int]:
    return {key: part.stop for key, part in content.new.items()}


@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_a_group_with_an_unwelcome_member_is_readable(policy: str) -> None:
    gate = Gate(POLICIES[policy])
    shell = EngineShell(access=gate)
    shell.client("a")
    shell.client("b")
    group = group_header(ANN.account_id)
    member = Transaction(9, f'[{{"op":"set","key":"{BOB.account_id}","value":"reader"}}]')
    shell.say("a", ANN.account(), BOB.account())
    shell.commit()
    assert shell.disk.load_value(BOB.account_id) is None
    shell.take("a")
    shell.say("a", ANN.content(group, [*edits(1), member]))
    assert Load(BOB.account_id, NOTHING) in shell.take("a")
    shell.say("a", BOB.account())
    shell.commit()
    account = shell.disk.load_value(BOB.account_id)
    assert account is not None
    assert account.known_state == KnownState(True)
    assert [item.co_id for item in shell.load("b", group.id) if isinstance(item, Content)] == [
        *sorted([ANN.account_id, BOB.account_id], key=[ANN.account_id, BOB.account_id].index),
        group.id,
    ]
    # The header came; the sessions still do not.
    shell.say("a", BOB.account())
    shell.commit()
    account = shell.disk.load_value(BOB.account_id)
    assert account is not None
    assert account.known_state == KnownState(True)


def test_an_unwelcome_header_is_not_taken_for_unwelcome_content() -> None:
    shell = EngineShell(access=Gate(POLICIES["allow"]))
    shell.client("a")
    group = group_header(BOB.account_id)
    shell.say("a", BOB.content(group, edits(2)), BOB.account())
    shell.commit()
    assert shell.disk.headers == {}
    assert not [item for item in shell.take("a") if isinstance(item, Load)]


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("policy", ["deny", "allow"])
def test_unwelcome_members_come_in_any_order_if_they_were_asked_for(
    policy: str, is_reversed: bool
) -> None:
    """Content waits for one at a time, and its sender is asked for all."""
    members = [CAROL, BOB, ANN]
    named = [
        Transaction(n, f'[{{"op":"set","key":"{member.account_id}","value":"reader"}}]')
        for n, member in enumerate(members)
    ]
    group = group_header(ANN.agent_id)
    shell = EngineShell(access=Gate(POLICIES[policy]))
    shell.client("a")
    shell.say("a", ANN.content(group, named, as_agent=True))
    assert shell.take("a") == [Load(member.account_id, NOTHING) for member in members]
    shell.say("a", *(member.account() for member in (members[::-1] if is_reversed else members)))
    shell.commit()
    assert shell.disk.headers.keys() == {group.id, *(member.account_id for member in members)}
    assert shell.disk.logs[BOB.account_id] == {}


def test_a_large_header_is_not_taken_for_being_awaited() -> None:
    fields = {**BOB.account_header.fields, "uniqueness": "x" * 2000}
    header = parse_header(fields)
    shell = EngineShell(access=Gate(POLICIES["allow"]))
    shell.client("a")
    member = Transaction(9, f'[{{"op":"set","key":"{header.id}","value":"reader"}}]')
    shell.say("a", ANN.content(group_header(ANN.agent_id), [member], as_agent=True))
    shell.say("a", BOB.content(header, []))
    shell.commit()
    assert shell.disk.headers == {}


def test_refusals_are_counted_by_reason_and_lists_may_change() -> None:
    gate = Gate(POLICIES["deny"])
    shell = EngineShell(access=gate)
    shell.client("a", Origin("192.0.2.1", "phone"))
    shell.say("a", BOTH_FREE)
    shell.commit()
    assert gate.statistics().refused == {Reason.DENIED: 1}
    assert gate.statistics().tokens["phone"].refused == 1
    (reason,) = shell.refusals["a"]
    assert reason == f"{BOB.agent_id} is on the deny list"
    gate.policy = OPEN
    shell.say("a", BOTH_FREE)
    shell.commit()
    assert shell.disk.load_value(FREE.id).known_state.sessions == known(BOTH_FREE)  # type: ignore[union-attr]  # stored above


def test_list_files() -> None:
    text = f"# friends\n\n  {ANN.account_id}  # ann\n{BOB.agent_id}\n#{CAROL.account_id}\n"
    assert parse_id_lines(text) == [ANN.account_id, BOB.agent_id]
    policy = AccessPolicy.of(parse_id_lines(text))
    assert policy.allow == frozenset([ANN.account_id, BOB.account_id])
    assert AccessPolicy.of([]).allow == frozenset()
    assert not AccessPolicy.of([]).is_open
    for text in ("co_z1", "ann", "sealer_z1/signer_z1", ANN.session_id()):
        with pytest.raises(ValueError, match="neither an account id"):
            AccessPolicy.of([text])


@given(st.text(max_size=200))
def test_any_text_is_a_person_or_nobody(text: str) -> None:
    assert person_of(text) is None or text.startswith(("co_z", "sealer_z"))
