"""Comparing what a client has stored with what is stored here."""

from __future__ import annotations

import pytest

from node.cojson.messages import Known, Load, Reconcile, ReconcileAck
from node.covalue.content import Content
from node.covalue.known_state import NOTHING, KnownState, sessions_hash
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.engine_shell import EngineShell

ANN = Author("ann")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
FREE = map_header("free")
"""A map open to all, written by agents: it depends on nothing."""

SESSION = ANN.session_id()


def free(count: int) -> Content:
    """The first `count` edits of the free map."""
    return ANN.content(FREE, edits(count), as_agent=True)


@pytest.fixture
def shell() -> EngineShell:
    return EngineShell()


@pytest.fixture
def full(shell: EngineShell) -> EngineShell:
    """With account, group and map stored."""
    shell.client("author")
    shell.say("author", ANN.account(), ANN.content(GROUP, edits(2)), ANN.content(MAP, edits(3)))
    shell.commit()
    shell.take("author")
    return shell


def test_equal_values_are_acknowledged_at_once(full: EngineShell) -> None:
    full.client("b")
    digest = sessions_hash({SESSION: 3})
    full.say("b", Reconcile("1", ()), Reconcile("2", ((MAP.id, digest),)))
    assert full.take("b") == [ReconcileAck("1"), ReconcileAck("2")]
    assert full.engine.subscribed_ids >= {MAP.id}


def test_missing_values_are_loaded_and_then_acknowledged(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", Reconcile("1", ((FREE.id, "other"),)))
    assert shell.take("a") == [Load(FREE.id, NOTHING)]
    assert shell.engine.subscribed_ids == frozenset()
    shell.say("a", free(2))
    assert shell.take("a") == []
    shell.commit()
    assert shell.take("a")[-1] == ReconcileAck("1")


def test_different_values_are_settled_by_a_known(full: EngineShell) -> None:
    full.client("b")
    full.say("b", Reconcile("1", ((MAP.id, "other"), (GROUP.id, "other"))))
    loads = full.take("b")
    assert loads[0] == Load(MAP.id, KnownState(True, {SESSION: 3}))
    full.say("b", Known(MAP.id, KnownState(True, {SESSION: 3})))
    assert full.take("b") == []
    full.say("b", Known(GROUP.id, KnownState(True, {SESSION: 1})))
    assert ReconcileAck("1") in full.take("b")


def test_of_a_batch_so_much_is_asked_at_a_time(shell: EngineShell) -> None:
    """Found in review: who had to read all of it at once was sent away, each time anew."""
    shell.client("a")
    part = next(iter(free(1).new.values()))  # of each session, since no name is signed
    sessions = [ANN.session_id(str(number), as_agent=True) for number in range(1500)]
    headers = [map_header(f"large {number}") for number in range(5)]
    for header in headers:
        shell.say("a", Content(header.id, header, dict.fromkeys(sessions, part)))
    shell.commit()
    shell.client("b")
    shell.say("b", Reconcile("1", tuple((header.id, "other") for header in headers)))
    asked, answered = shell.take("b"), []
    while isinstance(load := asked.pop(0), Load):
        assert len(asked) <= 1
        shell.say("b", Known(load.co_id, load.known))
        answered.append(load.co_id)
        asked += shell.take("b")
    assert answered == [header.id for header in headers]
    assert load == ReconcileAck("1")


def test_a_batch_waits_for_the_store(full: EngineShell) -> None:
    again = EngineShell(full.disk)
    again.client("b")
    again.holds_reads = True
    again.say("b", Reconcile("1", ((MAP.id, sessions_hash({SESSION: 3})),)))
    assert again.take("b") == []
    again.answer_reads()
    assert again.take("b") == [ReconcileAck("1")]


def test_open_batches_are_bounded(shell: EngineShell) -> None:
    shell.client("a")
    for n in range(17):
        shell.say("a", Reconcile(str(n), ((FREE.id, "x"),)))
    assert "a" in shell.ended


def test_a_value_in_two_open_batches_is_asked_for_once(shell: EngineShell) -> None:
    shell.client("a")
    values = ((FREE.id, "other"),)
    shell.say("a", Reconcile("1", values), Reconcile("2", values))
    assert shell.take("a") == [Load(FREE.id, NOTHING)]
    shell.say("a", free(2))
    shell.commit()
    assert shell.take("a")[-2:] == [ReconcileAck("1"), ReconcileAck("2")]
    shell.say("a", Reconcile("3", values))
    assert [type(message) for message in shell.take("a")] == [Load]
