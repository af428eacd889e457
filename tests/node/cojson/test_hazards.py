"""Content at which cojson clients stop is refused, and costs no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cojson.messages import Known
from node.covalue.canonical import JsonValue
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader, parse_header
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
    assert "restricted" in shell.refusals["eve"][0]
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
