"""Content at which cojson clients stop is refused, and costs no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cojson.messages import Known
from node.covalue.content import Transaction
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
