from __future__ import annotations

import random
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.cojson.base58 import base58_encode
from node.cojson.messages import Known, Load, Message, encode_message
from node.cojson.outputs import Changed
from node.covalue.canonical import JsonValue
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.header import parse_header
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header, seed_of
from tests.support.engine_shell import Disk, EngineShell

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
FREE = map_header("free")
"""A map open to all, written by agents: it depends on nothing."""

ACCOUNT = ANN.account()
GROUP_CONTENT = ANN.content(GROUP, edits(2))
MAP_CONTENT = ANN.content(MAP, edits(3))
SESSION = ANN.session_id()
AGENT_SESSION = ANN.session_id(as_agent=True)


def free(count: int, after: int = 0, author: Author = ANN) -> Content:
    """The first `count` edits of the free map, from `after` on."""
    return author.content(FREE, edits(count), after=after, as_agent=True, with_header=after == 0)


def ids(messages: list[Message]) -> list[RawCoId]:
    return [message.co_id for message in messages if isinstance(message, Content)]


@pytest.fixture
def shell() -> EngineShell:
    return EngineShell()


@pytest.fixture
def full(shell: EngineShell) -> EngineShell:
    """With account, group and map stored."""
    shell.client("author")
    shell.say("author", ACCOUNT, GROUP_CONTENT, MAP_CONTENT)
    shell.commit()
    shell.take("author")
    return shell


# Acknowledgement.


def test_nothing_is_acknowledged_before_it_is_durable(shell: EngineShell) -> None:
    shell.client("a")
    shell.client("b")
    shell.say("b", Load(FREE.id, NOTHING))
    assert shell.take("b") == [Known(FREE.id, NOTHING)]
    shell.say("a", free(2))
    assert shell.take("a") == []
    assert shell.take("b") == []
    assert shell.changes == []
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}))]
    assert shell.take("b") == [free(2)]
    assert shell.changes == [Changed(FREE.id, {AGENT_SESSION: 2})]


def test_each_acknowledgement_names_what_is_durable_by_then(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(1), free(2, after=1), free(3, after=2))
    shell.commit(2)
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}))]
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 3}))]


def test_a_repetition_of_what_is_under_way_waits_for_it(shell: EngineShell) -> None:
    shell.client("a")
    shell.client("b")
    shell.say("a", free(2))
    shell.say("b", free(2))
    assert shell.take("b") == []
    shell.commit()
    assert shell.take("b") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}))]


def test_repetitions_and_overlaps_are_stored_once(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(2))
    shell.commit()
    shell.say("a", free(2), free(3), free(1))
    shell.commit()
    assert shell.disk.logs[FREE.id][AGENT_SESSION] == edits(3)
    assert shell.take("a")[-1] == Known(FREE.id, KnownState(True, {AGENT_SESSION: 3}))
    assert shell.disk.rows[FREE.id][AGENT_SESSION].signature == ANN.sign(edits(3))


def test_an_empty_value_is_stored_by_its_header(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", ANN.content(FREE, []))
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True))]


def test_a_client_is_not_sent_what_it_sent(full: EngineShell) -> None:
    assert full.take("author") == []


def test_content_that_waits_keeps_nobody_else_waiting(full: EngineShell) -> None:
    full.client("mallory")
    # Of an account that never comes; the same message by whoever has the account is taken.
    full.say("mallory", BOB.content(MAP, edits(2), with_header=False))
    assert full.take("mallory") == [Load(BOB.account_id, NOTHING)]
    full.say("author", ANN.content(MAP, edits(4), after=3, with_header=False))
    full.commit()
    assert full.take("author") == [Known(MAP.id, KnownState(True, {SESSION: 4}))]
    # Mallory's own further pieces keep their place behind the first.
    full.say("mallory", ANN.content(MAP, edits(5), after=4, with_header=False))
    assert full.stores == []
    full.say("author", BOB.account())
    full.commit()
    assert full.disk.rows[MAP.id].keys() == {SESSION, BOB.session_id()}
    assert full.disk.rows[MAP.id][SESSION].count == 5


def test_a_circle_of_one_sender_is_not_closed_by_another(shell: EngineShell) -> None:
    shell.client("mallory")
    shell.client("author")
    # As if the group waited for the map that it owns: no reason to take the map without it.
    forged = [Transaction(9, f'[{{"op":"set","key":"{MAP.id}","value":"reader"}}]')]
    shell.say("author", ACCOUNT)
    shell.commit()
    shell.say("mallory", BOB.content(GROUP, forged, as_agent=True))
    shell.say("author", MAP_CONTENT)
    assert shell.stores == []
    shell.say("author", GROUP_CONTENT)
    shell.commit()
    assert shell.disk.rows[MAP.id][SESSION].count == 3
    assert shell.disk.rows[GROUP.id].keys() == {SESSION, BOB.session_id(as_agent=True)}


# Loads.


def test_an_unknown_id_is_answered_at_once(shell: EngineShell) -> None:
    shell.client("a")
    assert shell.load("a", FREE.id) == [Known(FREE.id, NOTHING)]


def test_a_value_comes_after_all_it_depends_on(full: EngineShell) -> None:
    full.client("b")
    assert ids(full.load("b", MAP.id)) == [ANN.account_id, GROUP.id, MAP.id]


def test_it_does_so_after_a_restart(full: EngineShell) -> None:
    again = EngineShell(full.disk)
    again.client("b")
    assert ids(again.load("b", MAP.id)) == [ANN.account_id, GROUP.id, MAP.id]
    assert again.rehashes == 0


def test_dependencies_are_sent_once(full: EngineShell) -> None:
    other = map_header("other", GROUP.id)
    full.say("author", ANN.content(other, edits(1)))
    full.commit()
    full.client("b")
    full.load("b", MAP.id)
    assert ids(full.load("b", other.id)) == [other.id]


def test_members_of_a_group_are_sent_before_it(full: EngineShell) -> None:
    grown = [
        *edits(2),
        Transaction(9, f'[{{"op":"set","key":"{BOB.account_id}","value":"reader"}}]'),
    ]
    full.say("author", ANN.content(GROUP, grown, after=2, with_header=False), BOB.account())
    full.commit()
    full.client("b")
    messages = ids(full.load("b", MAP.id))
    assert set(messages[:2]) == {ANN.account_id, BOB.account_id}
    assert messages[2:] == [GROUP.id, MAP.id]


def test_who_has_everything_is_told_so(full: EngineShell) -> None:
    full.client("b")
    known = KnownState(True, {SESSION: 3})
    assert full.load("b", MAP.id, known) == [Known(MAP.id, known)]


def test_who_has_more_is_told_what_is_here(full: EngineShell) -> None:
    full.client("b")
    messages = full.load("b", MAP.id, KnownState(True, {SESSION: 9}))
    assert messages == [Known(MAP.id, KnownState(True, {SESSION: 3}))]


def test_only_what_is_lacking_is_sent(full: EngineShell) -> None:
    full.client("b")
    messages = full.load("b", MAP.id, KnownState(True, {SESSION: 1}))
    (content,) = [item for item in messages if isinstance(item, Content) and item.co_id == MAP.id]
    assert content.header is None
    assert content.new[SESSION].after == 1
    assert content.new[SESSION].transactions == edits(3)[1:]


def test_a_load_that_meets_a_commit_is_answered_after_it(shell: EngineShell) -> None:
    shell.client("a")
    shell.client("b")
    shell.say("a", free(2))
    assert shell.load("b", FREE.id) == []
    shell.commit()
    assert shell.take("b") == [free(2)]


def test_loads_wait_for_the_store(full: EngineShell) -> None:
    again = EngineShell(full.disk)
    again.holds_reads = True
    again.client("b")
    again.client("c")
    assert again.load("b", MAP.id) == []
    assert again.load("c", MAP.id) == []
    again.answer_reads()
    assert ids(again.take("b")) == ids(again.take("c")) == [ANN.account_id, GROUP.id, MAP.id]


def test_who_takes_a_value_while_it_is_read_for_another_gets_it(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(2))
    shell.commit()
    again = EngineShell(shell.disk)
    again.client("b")
    again.say("b", Load(FREE.id, NOTHING))
    for _ in range(3):
        again.engine.begin_round()
    again.engine.forget_unused(1)
    again.holds_reads = True
    again.client("c")
    again.say("c", Load(FREE.id, NOTHING))
    assert again.take("b") == [free(2)]
    again.answer_reads()
    assert again.take("c") == [free(2)]


@pytest.mark.parametrize(
    "content", [free(4), ANN.content(MAP, edits(4))], ids=["hashed anew", "with dependencies"]
)
def test_what_a_client_sends_while_its_load_waits_is_not_sent_back(
    full: EngineShell, content: Content
) -> None:
    """Its content may have to wait longer than the answer to its load."""
    full.say("author", free(3))
    full.commit()
    again = EngineShell(full.disk)
    again.client("a")
    again.holds_reads = True
    again.say("a", Load(content.co_id, NOTHING), content)
    told: list[Message] = []
    while again.reads:
        again.answer_read()
        told += again.take("a")
    again.commit()
    told += again.take("a")
    assert ids(told) == []
    assert told[-1] == Known(content.co_id, content.known_state)


def test_a_client_that_left_while_the_store_was_read_is_forgotten(full: EngineShell) -> None:
    again = EngineShell(full.disk)
    again.holds_reads = True
    again.client("b")
    again.say("b", Load(MAP.id, NOTHING), MAP_CONTENT, Known(MAP.id, NOTHING))
    again.leave("b")
    again.answer_reads()
    assert again.sent["b"] == []
    assert again.engine.subscribed_ids == frozenset()


# Subscriptions.


def test_edits_go_to_every_subscriber(full: EngineShell) -> None:
    for name in ("b", "c"):
        full.client(name)
        full.load(name, MAP.id)
    full.say("author", ANN.content(MAP, edits(4), after=3, with_header=False))
    full.commit()
    for name in ("b", "c"):
        (content,) = full.take(name)
        assert isinstance(content, Content)
        assert content.new[SESSION].after == 3
    assert full.take("author") == [Known(MAP.id, KnownState(True, {SESSION: 4}))]


def test_a_new_author_comes_with_an_account(full: EngineShell) -> None:
    full.client("b")
    full.load("b", MAP.id)
    full.say("author", BOB.account(), BOB.content(MAP, edits(1), with_header=False))
    full.commit()
    assert ids(full.take("b")) == [BOB.account_id, MAP.id]


def test_a_client_that_left_is_sent_nothing(full: EngineShell) -> None:
    full.client("b")
    full.load("b", MAP.id)
    full.leave("b")
    assert MAP.id in full.engine.subscribed_ids
    full.leave("author")
    assert full.engine.subscribed_ids == frozenset()


def test_what_was_sent_counts_until_the_client_says_otherwise(full: EngineShell) -> None:
    full.client("b")
    full.load("b", MAP.id)
    full.say("b", Known(MAP.id, NOTHING))
    assert full.take("b") == []
    full.say("b", Known(MAP.id, KnownState(True, {SESSION: 1}), is_correction=True))
    (content,) = [item for item in full.take("b") if isinstance(item, Content)]
    assert content.new[SESSION].after == 1


def test_a_new_connection_starts_from_nothing(full: EngineShell) -> None:
    full.client("b")
    full.load("b", MAP.id)
    full.leave("b")
    full.client("b")
    assert ids(full.load("b", MAP.id)) == [ANN.account_id, GROUP.id, MAP.id]


def test_interest_is_counted(shell: EngineShell) -> None:
    shell.client("a")
    before = shell.engine.interest_version
    shell.load("a", FREE.id)
    assert shell.engine.interest_version > before
    assert shell.engine.subscribed_ids == {FREE.id}


# Corrections.


def test_a_gap_is_answered_with_what_is_durable(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(2))
    shell.commit()
    shell.take("a")
    shell.say("a", free(9, after=5))
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}), True)]
    shell.say("a", free(3, after=2), free(9, after=5))
    assert shell.take("a") == []
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 3}), True)]


def test_the_parts_beside_a_gap_are_stored(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(1))
    shell.commit()
    shell.take("a")
    good = BOB.content(FREE, edits(2), as_agent=True, with_header=False)
    gap = free(9, after=5)
    shell.say("a", Content(FREE.id, None, {**gap.new, **good.new}))
    shell.commit()
    (answer,) = shell.take("a")
    assert isinstance(answer, Known)
    assert answer.is_correction
    assert answer.known.sessions == {AGENT_SESSION: 1, BOB.session_id(as_agent=True): 2}


def test_an_unknown_value_without_its_header_is_asked_for_again(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(3, after=1))
    assert shell.take("a") == [Known(FREE.id, NOTHING, is_correction=True)]


# Refusals.


def tampered(content: Content) -> Content:
    new = {}
    for session_id, part in content.new.items():
        first = part.transactions[0]._replace(changes="EVIL")
        new[session_id] = part._replace(transactions=[first, *part.transactions[1:]])
    return Content(content.co_id, content.header, new, content.priority)


def test_forged_content_leaves_nothing_behind(shell: EngineShell) -> None:
    shell.client("evil")
    shell.client("a")
    shell.say("evil", tampered(free(2)))
    assert shell.take("evil") == []
    assert shell.stores == []
    assert shell.engine.refused == 1
    assert "bad signature" in shell.refusals["evil"][0]
    shell.say("evil", free(1))
    shell.say("a", free(2))
    shell.commit()
    assert shell.disk.logs[FREE.id][AGENT_SESSION] == edits(2)


def test_a_forged_append_leaves_the_log_writable(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(2), tampered(free(3, after=2)), free(3, after=2))
    shell.commit()
    assert shell.disk.logs[FREE.id][AGENT_SESSION] == edits(3)


def test_a_good_session_beside_a_forged_one_is_stored(shell: EngineShell) -> None:
    shell.client("a")
    bad = tampered(BOB.content(FREE, edits(1), as_agent=True))
    shell.say("a", Content(FREE.id, FREE, {**free(2).new, **bad.new}))
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}))]


def test_a_header_of_another_id_is_refused(shell: EngineShell) -> None:
    shell.client("a")
    content = free(2)
    shell.say("a", Content(content.co_id, map_header("other"), content.new))
    assert shell.take("a") == []
    assert shell.engine.refused == 1


def test_another_account_cannot_sign(full: EngineShell) -> None:
    forged = BOB.content(MAP, edits(1), with_header=False).new[BOB.session_id()]
    other = ANN.session_id("other")
    full.say("author", Content(MAP.id, None, {other: forged}))
    assert full.stores == []
    assert full.engine.refused == 1


def test_a_value_that_is_no_account_cannot_sign(full: EngineShell) -> None:
    session_id = CoSessionId(SESSION.replace(ANN.account_id, GROUP.id))
    part = MAP_CONTENT.new[SESSION]
    full.say("author", Content(MAP.id, None, {session_id: part}))
    assert full.stores == []
    assert full.engine.refused == 1


def test_an_account_signs_itself_by_its_own_id_too(shell: EngineShell) -> None:
    """Found in review: cojson writes accounts as their agents, and takes both."""
    shell.client("a")
    own = ANN.content(ANN.account_header, edits(1))
    shell.say("a", own)
    shell.commit()
    assert shell.take("a") == [Known(ANN.account_id, own.known_state)]
    forged = BOB.content(ANN.account_header, edits(1), session="b", with_header=False)
    (part,) = forged.new.values()
    shell.say("a", replace(forged, new={ANN.session_id("b"): part}))
    assert shell.take("a") == []
    assert "bad signature" in shell.refusals["a"][0]


def test_half_a_surrogate_pair_is_refused(shell: EngineShell) -> None:
    shell.client("a")
    part = free(1).new[AGENT_SESSION]._replace(transactions=[Transaction(1, "\ud800")])
    shell.say("a", Content(FREE.id, FREE, {AGENT_SESSION: part}))
    assert shell.engine.refused == 1


def test_a_group_that_is_no_id_is_refused(shell: EngineShell) -> None:
    shell.client("a")
    header = map_header("x", "co_zGroup")
    shell.say("a", ANN.content(header, edits(1), as_agent=True))
    assert shell.engine.refused == 1


# Dependencies.


def test_dependencies_are_asked_of_the_sender(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", MAP_CONTENT)
    assert shell.take("a") == [Load(GROUP.id, NOTHING), Load(ANN.account_id, NOTHING)]
    shell.say("a", Known(MAP.id, NOTHING), GROUP_CONTENT)
    assert not any(isinstance(message, Load) for message in shell.take("a"))
    assert shell.stores == []
    shell.say("a", ACCOUNT)
    assert [store.append.co_id for store in shell.stores] == [ANN.account_id, GROUP.id, MAP.id]
    shell.commit()
    acknowledged = [item.co_id for item in shell.take("a") if isinstance(item, Known)]
    assert acknowledged == [ANN.account_id, GROUP.id, MAP.id]


def test_further_pieces_queue_behind_the_first(shell: EngineShell) -> None:
    shell.client("a")
    pieces = [ANN.content(MAP, edits(n + 1), after=n, with_header=n == 0) for n in range(5)]
    shell.say("a", *pieces)
    assert shell.take("a") == [Load(GROUP.id, NOTHING), Load(ANN.account_id, NOTHING)]
    shell.say("a", ACCOUNT, GROUP_CONTENT)
    shell.commit()
    assert shell.disk.logs[MAP.id][SESSION] == edits(5)


def test_what_does_not_fit_aside_is_asked_for_again(shell: EngineShell) -> None:
    shell.client("a")
    large = ANN.content(MAP, edits(20, size=2**20))
    shell.say("a", large)
    assert shell.take("a") == [Load(GROUP.id, NOTHING)]
    shell.say("a", GROUP_CONTENT)
    assert shell.stores == []
    shell.say("a", ACCOUNT)
    shell.commit()
    assert Known(MAP.id, NOTHING, is_correction=True) in shell.take("a")
    shell.say("a", large)
    shell.commit()
    assert len(shell.disk.logs[MAP.id][SESSION]) == 20


def test_values_that_depend_on_each_other_are_stored(shell: EngineShell) -> None:
    shell.client("a")
    one, two = group_header(ANN.agent_id, "1"), group_header(ANN.agent_id, "2")
    first = [Transaction(1, f'[{{"op":"set","key":"parent_{two.id}","value":"extend"}}]')]
    second = [Transaction(1, f'[{{"op":"set","key":"parent_{one.id}","value":"extend"}}]')]
    shell.say("a", ANN.content(one, first, as_agent=True), ANN.content(two, second, as_agent=True))
    shell.commit()
    assert {one.id, two.id} <= shell.disk.headers.keys()
    shell.client("b")
    assert set(ids(shell.load("b", one.id))) == {one.id, two.id}


def test_a_long_chain_of_dependants_is_released_at_once(shell: EngineShell) -> None:
    shell.client("a")
    groups = [group_header(ANN.agent_id, str(n)) for n in range(3000)]
    for child, parent in pairwise(groups):
        link = [Transaction(1, f'[{{"op":"set","key":"parent_{parent.id}","value":"extend"}}]')]
        shell.say("a", ANN.content(child, link, as_agent=True))
    assert shell.stores == []
    shell.say("a", ANN.content(groups[-1], edits(1), as_agent=True))
    shell.commit()
    assert len(shell.disk.headers) == len(groups)
    shell.client("b")
    assert len(ids(shell.load("b", groups[0].id))) == len(groups)


def test_what_a_client_left_aside_goes_with_it(shell: EngineShell) -> None:
    shell.client("a")
    shell.client("b")
    shell.say("a", MAP_CONTENT)
    shell.leave("a")
    shell.say("b", ACCOUNT, GROUP_CONTENT)
    shell.commit()
    assert MAP.id not in shell.disk.headers
    shell.say("b", MAP_CONTENT)
    shell.commit()
    assert MAP.id in shell.disk.headers


# The mesh.


def test_the_mesh_is_asked_for_an_unknown_id() -> None:
    shell = EngineShell(has_mesh=True)
    shell.client("a")
    shell.client("b")
    assert shell.load("a", FREE.id) == []
    assert shell.load("b", FREE.id) == []
    assert shell.finds == [FREE.id]
    shell.carry_out(shell.engine.searched([FREE.id]))
    assert shell.take("a") == shell.take("b") == [Known(FREE.id, NOTHING)]


def test_who_uploads_does_not_wait_for_the_mesh() -> None:
    shell = EngineShell(has_mesh=True)
    shell.client("a")
    assert shell.load("a", FREE.id, KnownState(True)) == [Known(FREE.id, NOTHING)]
    assert shell.finds == [FREE.id]


def test_what_the_mesh_has_comes_with_what_it_depends_on() -> None:
    shell = EngineShell(has_mesh=True)
    shell.client("a")
    shell.load("a", MAP.id)
    shell.bring(MAP_CONTENT)
    shell.carry_out(shell.engine.searched([MAP.id]))
    assert shell.finds == [MAP.id, GROUP.id, ANN.account_id]
    assert shell.take("a") == []
    shell.bring(GROUP_CONTENT, 2)
    shell.carry_out(shell.engine.searched([GROUP.id]))
    assert shell.finds[3:] == []
    shell.bring(ACCOUNT, 3)
    shell.carry_out(shell.engine.searched([ANN.account_id]))
    shell.commit()
    assert ids(shell.take("a")) == [ANN.account_id, GROUP.id, MAP.id]
    final = {item.co_id: (item.refusal, item.is_waiting) for item in shell.settled}
    assert set(final.values()) == {(None, False)}


def test_a_dependency_that_is_nowhere_makes_the_value_unavailable() -> None:
    shell = EngineShell(has_mesh=True)
    shell.client("a")
    shell.load("a", MAP.id)
    shell.bring(MAP_CONTENT)
    shell.carry_out(shell.engine.searched([MAP.id]))
    shell.carry_out(shell.engine.searched([GROUP.id]))
    assert shell.take("a") == [Known(MAP.id, NOTHING)]


def test_the_mesh_is_asked_for_newer_content_when_interest_begins(full: EngineShell) -> None:
    again = EngineShell(full.disk, has_mesh=True)
    again.client("a")
    assert ids(again.load("a", MAP.id))
    assert again.finds == [MAP.id]
    again.bring(ANN.content(MAP, edits(5), after=3, with_header=False))
    again.carry_out(again.engine.searched([MAP.id]))
    again.commit()
    (content,) = again.take("a")
    assert isinstance(content, Content)
    assert content.new[SESSION].after == 3


def test_content_that_continues_what_another_node_holds_is_taken() -> None:
    shell = EngineShell(has_mesh=True)
    shell.client("a")
    shell.say("a", free(3, after=2), free(4, after=3))
    assert shell.take("a") == []
    assert shell.finds == [FREE.id]
    shell.bring(free(2))
    shell.carry_out(shell.engine.searched([FREE.id]))
    shell.commit()
    assert shell.disk.logs[FREE.id][AGENT_SESSION] == edits(4)
    assert shell.take("a")[-1] == Known(FREE.id, KnownState(True, {AGENT_SESSION: 4}))
    assert shell.engine.unsettled_bytes("a") == 0


def test_content_that_continues_what_nobody_holds_is_asked_for_from_the_start() -> None:
    shell = EngineShell(has_mesh=True)
    shell.client("a")
    shell.client("gone")
    shell.say("a", free(3, after=2), free(4, after=3))
    shell.say("gone", free(3, after=2))
    shell.leave("gone")
    shell.carry_out(shell.engine.searched([FREE.id]))
    assert shell.take("a") == [Known(FREE.id, NOTHING, is_correction=True)]
    assert shell.engine.unsettled_bytes("a") == 0
    shell.say("a", free(4))
    shell.commit()
    assert shell.disk.logs[FREE.id][AGENT_SESSION] == edits(4)


def test_forged_content_of_a_member_is_refused() -> None:
    shell = EngineShell(has_mesh=True)
    shell.bring(tampered(free(1)))
    shell.bring(free(1), 2)
    shell.commit()
    assert [item.refusal is None for item in shell.settled] == [False, True]


# Memory.


def test_idle_values_are_forgotten_and_read_again() -> None:
    shell = EngineShell(memory_bytes=40_000)
    shell.client("a")
    headers = [map_header(f"m{n}") for n in range(100)]
    for header in headers:
        shell.say("a", ANN.content(header, edits(1), as_agent=True))
        shell.commit()
    assert shell.engine.values_in_memory < 20
    for header in headers:
        content = ANN.content(header, edits(2), after=1, as_agent=True, with_header=False)
        shell.say("a", content)
        shell.commit()
    assert all(len(shell.disk.logs[header.id][AGENT_SESSION]) == 2 for header in headers)
    assert shell.rehashes >= 80


def test_a_budget_below_what_one_value_needs_is_enough(full: EngineShell) -> None:
    again = EngineShell(full.disk, memory_bytes=1)
    again.client("b")
    again.client("author")
    assert ids(again.load("b", MAP.id)) == [ANN.account_id, GROUP.id, MAP.id]
    again.say("author", BOB.account(), BOB.content(MAP, edits(1), with_header=False))
    again.commit()
    assert ids(again.take("b")) == [BOB.account_id, MAP.id]


def test_order_is_kept_while_a_hash_is_made_again(full: EngineShell) -> None:
    again = EngineShell(full.disk)
    again.client("a")
    again.holds_reads = True
    for n in range(3, 8):
        again.say("a", ANN.content(MAP, edits(n + 1), after=n, with_header=False))
    again.answer_reads()
    again.commit()
    assert again.disk.logs[MAP.id][SESSION] == edits(8)
    assert again.rehashes == 1
    assert not [item for item in again.take("a") if isinstance(item, Known) and item.is_correction]


def test_content_on_its_way_is_counted(shell: EngineShell) -> None:
    shell.client("a")
    shell.say("a", free(5), tampered(free(6, after=5)))
    assert shell.engine.unsettled_bytes("a") == free(5).size
    shell.commit()
    assert shell.engine.unsettled_bytes("a") == 0
    shell.say("a", MAP_CONTENT)
    assert shell.engine.unsettled_bytes("a") == 0


@pytest.mark.parametrize("is_damaged", [False, True])
def test_loads_that_wait_for_the_store_are_counted(full: EngineShell, is_damaged: bool) -> None:
    """Their answers are as large as what they claim: they come all at once."""
    again = EngineShell(full.disk)
    again.client("a")
    again.holds_reads = True
    claimed = KnownState(True, {ANN.session_id(str(number)): 1 for number in range(100)})
    again.say("a", Load(MAP.id, claimed), Load(FREE.id, NOTHING))
    line = encode_message(Known(MAP.id, claimed))
    assert 0.7 < again.engine.unsettled_bytes("a") / len(line) < 1.3
    if is_damaged:
        again.carry_out(again.engine.load_failed(MAP.id))
    again.answer_reads()
    assert again.engine.unsettled_bytes("a") == 0


def test_a_damaged_value_is_refused_and_read_again_later(full: EngineShell) -> None:
    again = EngineShell(full.disk)
    again.client("a")
    again.holds_reads = True
    again.say("a", MAP_CONTENT, Load(MAP.id, NOTHING))
    again.carry_out(again.engine.load_failed(MAP.id))
    assert again.engine.unsettled_bytes("a") == 0
    assert again.take("a") == [Known(MAP.id, NOTHING)]
    again.reads.clear()
    again.holds_reads = False
    assert ids(again.load("a", MAP.id))


# Any order.


@given(seed=st.integers(0, 2**32), memory_bytes=st.sampled_from([8_000, 2**26]))
@settings(max_examples=30)
def test_whatever_comes_in_whatever_order_the_valid_prefix_is_kept(
    seed: int, memory_bytes: int
) -> None:
    chance = random.Random(seed)  # a test's order, not a key
    shell = EngineShell(Disk(), memory_bytes=memory_bytes)
    for name in ("a", "b", "watcher"):
        shell.client(name)
    shell.load("watcher", MAP.id)
    pool = [ACCOUNT, BOB.account(), GROUP_CONTENT]
    for author in (ANN, BOB):
        pool += [author.content(MAP, edits(n + 1), after=n) for n in range(6)]
        pool += [tampered(author.content(MAP, edits(n + 2), after=n)) for n in range(3)]
    seen: dict[CoSessionId, int] = {}
    for _ in range(60):
        shell.say(chance.choice("ab"), chance.choice(pool))
        if chance.random() < 0.3:
            shell.commit(chance.choice([1, None]))
        for name in ("a", "b"):
            check_acknowledgements(shell, name)
        follow(shell, seen)
    for content in [*pool[:3], *pool]:
        shell.say("a", content)
    shell.commit()
    follow(shell, seen)
    assert all(log == edits(6) for log in shell.disk.logs[MAP.id].values())
    assert seen == {SESSION: 6, BOB.session_id(): 6}


def check_acknowledgements(shell: EngineShell, name: str) -> None:
    for item in shell.take(name):
        if isinstance(item, Known) and item.co_id == MAP.id:
            for session_id, count in item.known.sessions.items():
                assert count <= len(shell.disk.logs[MAP.id][session_id])


def follow(shell: EngineShell, seen: dict[CoSessionId, int]) -> None:
    """The watcher gets every session in order, nothing twice and nothing left out."""
    for item in shell.take("watcher"):
        if isinstance(item, Content) and item.co_id == MAP.id:
            for session_id, part in item.new.items():
                assert part.after == seen.get(session_id, 0)
                seen[session_id] = part.stop


# What waiting may cost.


def _accounts(count: int) -> list[Content]:
    """Accounts of agents whose keys nobody has."""
    sealer = ANN.agent_id.partition("/")[0]
    agents = [f"{sealer}/signer_z{base58_encode(seed_of(str(n)))}" for n in range(count)]
    headers = [parse_header({**ANN.account_header.fields, **_admin(agent)}) for agent in agents]
    return [Content(header.id, header, {}) for header in headers]


def _admin(agent: str) -> dict[str, JsonValue]:
    return {"ruleset": {"type": "group", "initialAdmin": agent}}


def test_a_group_of_many_members_is_read_once_however_they_arrive(shell: EngineShell) -> None:
    accounts = _accounts(2000)
    members = [
        Transaction(n, f'[{{"op":"set","key":"{content.co_id}","value":"reader"}}]')
        for n, content in enumerate(accounts)
    ]
    shell.client("mallory")
    group = group_header(ANN.agent_id)
    # Not signed rightly, which is found out in the end only.
    part = SessionContent(0, members, bytes(64))
    start = time.process_time()
    shell.say("mallory", Content(group.id, group, {AGENT_SESSION: part}))
    for content in accounts:
        shell.say("mallory", content)
    # 0.2 s when measured; reading the group again for each member takes 13 s.
    assert time.process_time() - start < 5
    assert len(shell.refusals["mallory"]) == 1


def test_many_messages_that_wait_for_many_values_are_not_turned_over_and_over(
    shell: EngineShell,
) -> None:
    accounts = _accounts(1000)
    shell.client("mallory")
    group = group_header(ANN.agent_id)
    members = [
        Transaction(n, f'[{{"op":"set","key":"{content.co_id}","value":"reader"}}]')
        for n, content in enumerate(accounts)
    ]
    piece = ANN.content(group, members, as_agent=True)
    start = time.process_time()
    shell.say("mallory", piece)
    later = [*members, *edits(1)]
    follower = ANN.content(group, later, after=len(members), as_agent=True, with_header=False)
    for _ in range(3000):
        shell.say("mallory", follower)
    assert shell.stores == []
    for content in accounts:
        shell.say("mallory", content)
    shell.commit()
    # 0.3 s when measured; judging all that waits for each member takes 16 s.
    assert time.process_time() - start < 5
    assert shell.disk.rows[group.id][AGENT_SESSION].count == len(later)
    known = KnownState(True, {AGENT_SESSION: len(later)})
    assert shell.take("mallory")[-1] == Known(group.id, known)


# What an edit needs.


def test_an_edit_of_a_session_that_was_verified_needs_nothing_else(full: EngineShell) -> None:
    for count in range(4, 8):
        full.engine.begin_round()
        full.engine.forget_unused(1000)
        full.say("author", ANN.content(MAP, edits(count), after=count - 1, with_header=False))
        full.commit()
    assert full.engine.values_in_memory == 1
    assert full.loads == 3  # of what was new at first: account, group and map
    known = KnownState(True, {SESSION: 7})
    assert full.take("author")[-1] == Known(MAP.id, known)


def test_a_forged_or_forked_edit_is_found_without_its_account(full: EngineShell) -> None:
    for count in range(4, 8):
        full.engine.begin_round()
        full.engine.forget_unused(1000)
        full.say("author", ANN.content(MAP, edits(count), after=count - 1, with_header=False))
        full.commit()
    forged = ANN.content(MAP, edits(9), after=7, with_header=False).new[SESSION]
    part = SessionContent(7, edits(9, start=50)[7:], forged.signature)
    full.say("author", Content(MAP.id, None, {SESSION: part}))
    full.commit()
    assert full.disk.logs[MAP.id][SESSION] == edits(7)
    (suspicion,) = full.suspicions
    assert suspicion.public_key == ANN.account_header.account_public_key


# What content waits for.


def test_what_content_waits_for_is_wanted_until_it_is_here(shell: EngineShell) -> None:
    shell.client("author")
    shell.say("author", GROUP_CONTENT)
    assert ANN.account_id in shell.engine.wanted_ids
    assert ANN.account_id not in shell.engine.subscribed_ids
    before = shell.engine.interest_version
    shell.say("author", ACCOUNT)
    shell.commit()
    assert shell.engine.interest_version > before
    assert shell.engine.wanted_ids == shell.engine.subscribed_ids


def test_what_content_waits_for_is_not_wanted_once_its_client_has_gone(shell: EngineShell) -> None:
    for name in ("author", "b"):
        shell.client(name)
        shell.say(name, GROUP_CONTENT)
    shell.leave("author")
    assert shell.engine.is_wanted(ANN.account_id)
    shell.leave("b")
    assert shell.engine.wanted_ids == frozenset()


@pytest.mark.parametrize("message", [GROUP_CONTENT, free(3, after=2)])
def test_nothing_is_set_aside_for_a_client_that_went_while_the_store_was_asked(
    message: Content,
) -> None:
    """Found in review: it stayed for good, and took the room that others have for theirs."""
    shell = EngineShell(has_mesh=True)
    shell.client("author")
    shell.holds_reads = True
    shell.say("author", message)
    shell.leave("author")
    shell.holds_reads = False
    shell.answer_reads()
    assert shell.engine.wanted_ids == frozenset()
    assert shell.finds == []


def test_what_a_client_sent_that_went_is_stored_as_far_as_it_is_complete(
    shell: EngineShell,
) -> None:
    shell.client("author")
    shell.holds_reads = True
    shell.say("author", free(3))
    shell.leave("author")
    shell.holds_reads = False
    shell.answer_reads()
    shell.commit()
    assert shell.disk.logs[FREE.id][AGENT_SESSION] == edits(3)
