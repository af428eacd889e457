"""Content at which cojson clients stop is refused, and costs no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cojson.messages import Known
from node.covalue.canonical import JsonValue
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId
from node.covalue.known_state import KnownState
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import EngineShell

ANN, EVE = Author("ann"), Author("eve")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
FOUNDING = [role(ANN.account_id, "admin", made_at=900)]


@pytest.fixture
def shell() -> EngineShell:
    """With a group and a map in it, and accounts."""
    shell = EngineShell()
    shell.client("a")
    shell.client("eve")
    shell.say("a", ANN.account(), EVE.account(), ANN.content(GROUP, FOUNDING))
    shell.say("a", ANN.content(MAP, edits(1)))
    shell.commit()
    return shell


@pytest.mark.parametrize("changes", ["{}", "[null]", '[{"op":"set","key":"co_zx","value":"x"}]'])
def test_a_stranger_keeps_nobody_from_a_group(shell: EngineShell, changes: str) -> None:
    evil = EVE.content(GROUP, [Transaction(2000, changes)], with_header=False)
    more = ANN.content(GROUP, [*FOUNDING, *edits(1)], after=1, with_header=False)
    shell.say("eve", replace(evil, new={**evil.new, **more.new}))
    assert shell.refusals["eve"]
    shell.commit()
    held = KnownState(True, {ANN.session_id(): 2})
    assert shell.take("eve") == [Known(GROUP.id, held)]
    assert shell.disk.rows[GROUP.id].keys() == {ANN.session_id()}


def test_no_time_is_taken_that_clients_read_as_another(shell: EngineShell) -> None:
    shell.say("eve", EVE.content(MAP, [Transaction(2**53 + 1, "[]")], with_header=False))
    assert "JavaScript" in shell.refusals["eve"][0]
    assert shell.stores == []
    # The session may still go on as it should.
    shell.say("eve", EVE.content(MAP, edits(1), with_header=False))
    shell.commit()
    assert EVE.session_id() in shell.disk.rows[MAP.id]


@pytest.mark.parametrize("filling", ['"' + "x" * 5000 + '"', "[" * 1500 + "]" * 1500])
@pytest.mark.parametrize("marked", [MAP.id, GROUP.id])
def test_no_marker_is_hidden_from_the_judge(shell: EngineShell, filling: str, marked: str) -> None:
    """Found beside real clients: it was stored as no marker, and read as one without a right."""
    honest = EVE.deletion(MAP)
    ((session_id, part),) = honest.new.items()
    meta = f'{{"deleted":"{marked}","x":{filling}}}'
    transactions = [Transaction(5000, "[]", None, meta)]
    hidden = part._replace(transactions=transactions, signature=EVE.sign(transactions))
    shell.say("eve", replace(honest, new={session_id: hidden}))
    assert "too long, or nests too much" in shell.refusals["eve"][0]
    assert shell.stores == []


def odd_header() -> CoValueHeader:
    """Clients of today cannot read it; those of before their native core could."""
    ruleset: JsonValue = {"type": "ownedByGroup", "group": GROUP.id, "restrictDeletion": 1}
    return parse_header({**map_header("odd").fields, "ruleset": ruleset})


def test_a_header_that_clients_cannot_take_is_refused(shell: EngineShell) -> None:
    odd = odd_header()
    shell.say("eve", Content(odd.id, odd, {}))
    assert "restrictDeletion is neither true nor false" in shell.refusals["eve"][0]
    shell.bring(Content(odd.id, odd, {}))
    assert shell.stores == []
    settled = shell.settled[-1]
    assert settled.refusal is not None
    assert settled.doubtful is None, "the member that holds it may be older than this rule"
    other = map_header("other")
    shell.bring(Content(odd.id, other, {}))
    assert shell.settled[-1].doubtful == frozenset()


def test_such_a_value_that_is_stored_is_served_and_goes_on(shell: EngineShell) -> None:
    """It was read as damaged, and cost its owner whatever he added."""
    odd = odd_header()
    content = ANN.content(odd, edits(1))
    shell.disk.headers[odd.id] = odd
    shell.client("b")
    assert shell.load("b", odd.id)[-1] == Content(odd.id, odd, {}, odd.priority)
    shell.say("a", replace(content, header=None))
    shell.commit()
    assert shell.refusals == {}
    assert odd.id in shell.disk.rows


def naming(odd: CoValueHeader) -> Content:
    """All of the group, with what Eve has added to it."""
    theirs = ANN.content(GROUP, FOUNDING)
    hers = EVE.content(GROUP, [role(odd.id, "reader")])
    return replace(theirs, new={**theirs.new, **hers.new})


def test_a_group_that_names_such_a_value_comes_without_that() -> None:
    """Held by a member that is older than the rule, it kept the group from all others."""
    odd = odd_header()
    for is_named_first in (False, True):
        shell = EngineShell()
        came = [naming(odd), Content(odd.id, odd, {})]
        for content in [ANN.account(), EVE.account(), *(came if is_named_first else came[::-1])]:
            shell.bring(content)
        shell.commit()
        assert shell.disk.rows[GROUP.id].keys() == {ANN.session_id()}
        assert odd.id not in shell.disk.headers
        assert [item.doubtful for item in shell.settled if item.doubtful] == []


@pytest.mark.parametrize("is_signed_so", [False, True])
def test_a_value_begins_though_the_first_that_comes_of_it_is_all_refused(
    shell: EngineShell, *, is_signed_so: bool
) -> None:
    """A large part comes with the header alone: what follows had no value to belong to."""
    meta: JsonValue = {"type": "account", "a": 0.000001}
    odd = parse_header({**EVE.account_header.fields, "meta": meta})
    group = group_header(ANN.account_id, "second")
    hers = EVE.content(group, edits(1) if is_signed_so else [role(odd.id, "reader")])
    if is_signed_so:
        ((session_id, part),) = hers.new.items()
        signed = CoSessionId(session_id.replace(EVE.account_id, odd.id))
        hers = replace(hers, new={signed: part})
    until = {ANN.session_id(): 1, **{key: part.stop for key, part in hers.new.items()}}
    hers = replace(hers, expect_until=until)
    ours = ANN.content(group, FOUNDING, with_header=False)
    for content in (Content(odd.id, odd, {}), hers, ours):
        shell.bring(content)
    shell.commit()
    assert shell.disk.rows[group.id].keys() == {ANN.session_id()}
    assert [item.refusal for item in shell.settled if item.co_id == group.id] == [None, None]


def test_no_value_begins_with_a_part_that_is_forged(shell: EngineShell) -> None:
    group = group_header(ANN.account_id, "second")
    hers, other = (EVE.content(group, edits(count)) for count in (1, 2))
    ((session_id, part),) = hers.new.items()
    forged = replace(
        hers, new={session_id: part._replace(signature=other.new[session_id].signature)}
    )
    shell.say("eve", forged)
    assert shell.refusals["eve"]
    assert shell.stores == []


def test_nothing_waits_for_an_account_that_clients_do_not_take() -> None:
    meta: JsonValue = {"type": "account", "a": 0.000001}
    odd = parse_header({**EVE.account_header.fields, "meta": meta})
    ours, hers = ANN.content(MAP, edits(1)), EVE.content(MAP, edits(1))
    ((session_id, part),) = hers.new.items()
    signed = CoSessionId(session_id.replace(EVE.account_id, odd.id))
    shell = EngineShell()
    came = [ANN.account(), ANN.content(GROUP, FOUNDING), Content(odd.id, odd, {})]
    for content in [*came, replace(ours, new={**ours.new, signed: part})]:
        shell.bring(content)
    shell.commit()
    assert shell.disk.rows[MAP.id].keys() == {ANN.session_id()}
    assert [item.doubtful for item in shell.settled if item.doubtful] == []


def test_what_belongs_to_such_a_value_is_refused_with_it(shell: EngineShell) -> None:
    meta: JsonValue = {"a": 0.000001}
    odd = parse_header({**group_header(EVE.account_id, "odd").fields, "meta": meta})
    inside = map_header("inside", odd.id)
    shell.say("eve", EVE.content(inside, edits(1)), EVE.content(odd, edits(1)))
    assert len(shell.refusals["eve"]) == 2
    assert shell.stores == []
