"""Values of very many sessions in a bee."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from bee.bee import Bee
from node.covalue.bee_store import BeeStore
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.store import LoadedPieces, StoredText
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.stores import Appender
from tests.support.turns import counting_turns

ANN, HEADER = Author("ann"), map_header("m")


async def fill(store: BeeStore, sessions: int) -> None:
    appender = Appender()
    for number in range(sessions):
        is_first = number == 0
        content = ANN.content(
            HEADER, edits(2), session=f"{number}", as_agent=True, with_header=is_first
        )
        await appender.put(store, content)


@pytest.mark.parametrize(("sessions", "takes_turns"), [(3, False), (4, True)])
async def test_others_have_their_turn_while_a_value_of_many_sessions_is_put_together(
    monkeypatch: pytest.MonkeyPatch, sessions: int, takes_turns: bool
) -> None:
    """Found in review: of 20,000 that took 0.1 to 0.4 s in one step."""
    monkeypatch.setattr("node.covalue.many_sessions.MANY_SESSIONS", 4)
    log = DataLog()
    store = BeeStore(Bee(log), log, keeps_texts=False)
    await fill(store, sessions)
    known = KnownState(True, {ANN.session_id("0", as_agent=True): 2})
    found: list[object] = []
    async with counting_turns() as turns:
        for read in (
            partial(store.load, HEADER.id, NOTHING, 1000),
            partial(store.load_value, HEADER.id),
            partial(store.load_text, HEADER.id),
            partial(store.load, HEADER.id, known, 1000),
        ):
            await trio.lowlevel.checkpoint()
            before = turns.count
            found.append(await read())
            assert (turns.count > before) is takes_turns
    loaded, value, text, rest = found
    assert isinstance(loaded, LoadedPieces)
    assert isinstance(text, StoredText)
    assert isinstance(rest, LoadedPieces)
    assert loaded.value == value == text.value
    assert len(text.texts) == sessions
    assert [len(piece.new) for piece in rest.pieces] == [sessions - 1]
