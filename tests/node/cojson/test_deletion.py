"""Deletions in the engine: who may, what remains, what is said of it afterwards."""

from __future__ import annotations

import pytest

from node.cojson.messages import Known, Load, Reconcile, ReconcileAck
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.known_state import NOTHING, KnownState, sessions_hash
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import EngineShell

ANN, BOB, EVE = Author("ann"), Author("bob"), Author("eve")
GROUP = group_header(ANN.account_id)
PARENT = group_header(BOB.account_id, "parent")
MAP = map_header("m", GROUP.id)
FOUNDING = role(ANN.account_id, "admin")
GROUP_CONTENT = ANN.content(GROUP, [FOUNDING, role(BOB.account_id, "writer", made_at=1001)])
MAP_CONTENT = ANN.content(MAP, edits(3))
DELETION = ANN.deletion(MAP)
TOMBSTONE = KnownState(True, {ANN.delete_session_id(): 1})
QUENCHED = KnownState(True, {ANN.delete_session_id(): 1, ANN.session_id(): 3})


@pytest.fixture
def shell() -> EngineShell:
    """With accounts, group and map stored by a client `a`, and a client `b` that has the map."""
    shell = EngineShell()
    shell.client("a")
    shell.say("a", ANN.account(), BOB.account(), EVE.account(), GROUP_CONTENT, MAP_CONTENT)
    shell.commit()
    shell.take("a")
    shell.client("b")
    assert MAP_CONTENT in shell.load("b", MAP.id)
    shell.say("b", Known(MAP.id, MAP_CONTENT.known_state))
    return shell


def deleted(shell: EngineShell) -> EngineShell:
    shell.say("a", DELETION)
    shell.commit()
    shell.take("a")
    shell.take("b")
    return shell


def test_an_admin_deletes_and_everybody_hears_of_it_once_it_is_durable(shell: EngineShell) -> None:
    shell.say("a", DELETION)
    assert shell.take("a") == []
    assert shell.take("b") == []
    shell.commit()
    assert shell.disk.deleted == {MAP.id}
    assert shell.take("a") == [Known(MAP.id, QUENCHED)]
    assert shell.take("b") == [DELETION]
    shell.client("cold")
    assert shell.load("cold", MAP.id)[-1] == ANN.content(MAP, []).__class__(
        MAP.id, MAP, DELETION.new, DELETION.priority
    )


@pytest.mark.parametrize(
    ("deletion", "reason"),
    [
        (BOB.deletion(MAP), "was not an admin"),
        (EVE.deletion(MAP), "was not an admin"),
        (ANN.deletion(MAP, made_at=999), "was not an admin"),
        (ANN.deletion(MAP, marked=GROUP.id), "names another value"),
        (ANN.deletion(MAP, count=2), "2 transactions"),
        (ANN.deletion(GROUP), "cannot be deleted"),
    ],
)
def test_a_deletion_without_the_right_leaves_no_trace(
    shell: EngineShell, deletion: Content, reason: str
) -> None:
    shell.say("a", deletion)
    shell.commit()
    assert shell.disk.deleted == set()
    assert shell.take("a") == []
    assert shell.take("b") == []
    assert reason in shell.refusals["a"][0]
    shell.say("a", ANN.content(MAP, edits(4), after=3, with_header=False))
    shell.commit()
    assert shell.take("a") == [Known(MAP.id, KnownState(True, {ANN.session_id(): 4}))]
    shell.say("a", DELETION)
    shell.commit()
    assert shell.disk.deleted == {MAP.id}


def test_values_that_no_group_owns_cannot_be_deleted(shell: EngineShell) -> None:
    free = map_header("free")
    shell.say("a", ANN.content(free, edits(1), as_agent=True), ANN.deletion(free))
    shell.commit()
    assert "owned by a group" in shell.refusals["a"][0]


def test_a_delete_session_without_a_marker_is_a_session_like_any_other(shell: EngineShell) -> None:
    plain = [Transaction(5000, "[]")]
    part = SessionContent(0, plain, BOB.sign(plain))
    shell.say("a", Content(MAP.id, None, {BOB.delete_session_id(): part}))
    shell.commit()
    assert shell.disk.deleted == set()
    assert BOB.delete_session_id() in shell.disk.logs[MAP.id]


def test_a_deletion_may_come_with_the_value_and_with_its_group(shell: EngineShell) -> None:
    """The group is not durable yet when the right is judged."""
    group = group_header(ANN.account_id, "new")
    value = map_header("new", group.id)
    shell.say("a", ANN.content(group, [FOUNDING]))
    both = ANN.content(value, edits(2))
    shell.say("a", Content(value.id, value, {**both.new, **ANN.deletion(value).new}))
    assert len(shell.stores) == 1
    shell.commit()
    shell.commit()
    assert shell.disk.deleted == {value.id}
    assert list(shell.disk.logs[value.id]) == [ANN.delete_session_id()]
    known = KnownState(True, {ANN.session_id(): 2, ANN.delete_session_id(): 1})
    assert shell.take("a")[-1] == Known(value.id, known)


def test_content_of_a_deleted_value_is_acknowledged_and_dropped(shell: EngineShell) -> None:
    shell = deleted(shell)
    for author in (ANN, BOB):
        shell.say("b", author.content(MAP, edits(5)))
        shell.commit()
        answer = shell.take("b")[-1]
        assert isinstance(answer, Known)
        assert answer.known.sessions[author.session_id()] == 5
        assert answer.known.covers(TOMBSTONE)
        assert author is ANN or BOB.session_id() not in shell.disk.logs[MAP.id]
    assert shell.refusals["b"] == []


def test_what_is_on_its_way_when_the_deletion_comes_is_not_served(shell: EngineShell) -> None:
    shell.say("b", ANN.content(MAP, edits(4), after=3, with_header=False))
    shell.say("a", DELETION)
    shell.commit()
    assert shell.take("b")[0] == Known(
        MAP.id, KnownState(True, {ANN.session_id(): 4, ANN.delete_session_id(): 1})
    )
    shell.client("cold")
    assert {
        key
        for message in shell.load("cold", MAP.id)
        if isinstance(message, Content) and message.co_id == MAP.id
        for key in message.new
    } == {ANN.delete_session_id()}


def test_whoever_mentions_a_deleted_value_hears_that_we_have_all_of_it(shell: EngineShell) -> None:
    shell = deleted(shell)
    shell.client("old")
    claim = KnownState(True, {ANN.session_id(): 7})
    messages = shell.load("old", MAP.id, claim)
    assert Content(MAP.id, None, DELETION.new, DELETION.priority) in messages
    with_deletion = claim.merged(TOMBSTONE)
    assert shell.load("old", MAP.id, with_deletion) == [Known(MAP.id, with_deletion)]


def test_a_tombstone_is_read_back_as_one(shell: EngineShell) -> None:
    again = EngineShell(deleted(shell).disk)
    again.client("c")
    messages = again.load("c", MAP.id)
    assert messages[-1] == Content(MAP.id, MAP, DELETION.new, DELETION.priority)
    again.say("c", ANN.content(MAP, edits(5)))
    assert again.take("c") == [
        Known(MAP.id, KnownState(True, {ANN.session_id(): 5, ANN.delete_session_id(): 1}))
    ]


def test_a_second_admin_may_delete_as_well(shell: EngineShell) -> None:
    shell.say(
        "a",
        ANN.content(
            GROUP,
            [
                FOUNDING,
                role(BOB.account_id, "writer", made_at=1001),
                role(BOB.account_id, "admin", made_at=1002),
            ],
            after=2,
        ),
        DELETION,
        BOB.deletion(MAP),
    )
    shell.commit()
    shell.commit()
    assert set(shell.disk.logs[MAP.id]) > {ANN.delete_session_id(), BOB.delete_session_id()}
    shell.client("cold")
    assert set(shell.load("cold", MAP.id)[-1].new) == {  # type: ignore[union-attr]  # the content
        ANN.delete_session_id(),
        BOB.delete_session_id(),
    }


def test_a_role_that_comes_to_light_late_decides_an_appeal(shell: EngineShell) -> None:
    """Nobody sends the deletion a second time."""
    promotion = role(BOB.account_id, "admin", made_at=1002)
    late = ANN.content(
        GROUP,
        [FOUNDING, role(BOB.account_id, "writer", made_at=1001), promotion],
        after=2,
        with_header=False,
    )
    shell.bring(BOB.deletion(MAP, made_at=1003), receipt=7)
    assert shell.settled[-1].refusal is not None
    shell.say("a", late)
    shell.commit()
    assert shell.disk.deleted == {MAP.id}


def test_a_right_may_be_inherited(shell: EngineShell) -> None:
    parent = BOB.content(PARENT, [role(BOB.account_id, "admin")])
    child = ANN.content(
        GROUP,
        [
            FOUNDING,
            role(BOB.account_id, "writer", made_at=1001),
            role(f"parent_{PARENT.id}", "extend", made_at=1002),
        ],
        after=2,
    )
    shell.say("a", parent, child, BOB.deletion(MAP))
    shell.commit()
    shell.commit()
    assert shell.disk.deleted == {MAP.id}


def test_a_deleted_value_reconciles(shell: EngineShell) -> None:
    shell = deleted(shell)
    same = sessions_hash(TOMBSTONE.sessions)
    shell.say("b", Reconcile("r", ((MAP.id, same),)))
    assert shell.take("b") == [ReconcileAck("r")]
    shell.say("b", Reconcile("r2", ((MAP.id, sessions_hash(QUENCHED.sessions)),)))
    assert shell.take("b") == [Load(MAP.id, TOMBSTONE)]
    shell.say("b", Known(MAP.id, QUENCHED))
    assert shell.take("b") == [ReconcileAck("r2")]


def test_a_tombstone_is_found_by_its_id_alone(shell: EngineShell) -> None:
    shell = deleted(shell)
    shell.client("c")
    shell.say("c", Load(MAP.id, NOTHING))
    assert shell.wanted["c"][3] == {MAP.id: None}
