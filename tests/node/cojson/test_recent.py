from __future__ import annotations

from node.cojson.recent import MAX_PIECES, RecentContent
from node.covalue.content import PIECE_BYTES, Content
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.store import SessionAppend, ValueAppend
from tests.support.authors import Author, edits, map_header

ANN, BOB = Author("ann"), Author("bob")
HEADER = map_header("m")
SESSION = ANN.session_id(as_agent=True)


def append(count: int, after: int = 0, size: int = 10) -> ValueAppend:
    transactions = edits(count, size=size)
    part = SessionAppend(after, transactions[after:], ANN.sign(transactions), 0, False)
    return ValueAppend(HEADER.id, HEADER if after == 0 else None, {SESSION: part})


def state(count: int) -> KnownState:
    return KnownState(True, {SESSION: count})


def test_an_edit_is_served_and_encoded_once() -> None:
    recent = RecentContent()
    recent.add(append(2), 3)
    first = recent.piece(HEADER.id, NOTHING, state(2))
    assert first is not None
    assert first.content == ANN.content(HEADER, edits(2), as_agent=True)
    assert recent.piece(HEADER.id, NOTHING, state(2)) is first
    assert recent.line(first) is recent.line(first)


def test_several_edits_are_joined_and_cut_to_what_is_lacking() -> None:
    recent = RecentContent()
    for n in range(5):
        recent.add(append(n + 1, after=n), 3)
    for have in range(1, 5):
        piece = recent.piece(HEADER.id, state(have), state(5))
        assert piece is not None
        assert piece.content == Content(
            HEADER.id, None, ANN.content(HEADER, edits(5), after=have, as_agent=True).new
        )


def test_what_is_not_all_here_is_left_to_the_store() -> None:
    recent = RecentContent()
    assert recent.piece(HEADER.id, NOTHING, state(1)) is None
    recent.add(append(5, after=3), 3)
    assert recent.piece(HEADER.id, state(2), state(5)) is None
    assert recent.piece(HEADER.id, state(3), state(6)) is None
    assert recent.piece(HEADER.id, state(5), state(5)) is None
    assert recent.piece(HEADER.id, state(4), state(5)) is not None


def test_what_is_too_large_for_a_piece_is_left_to_the_store() -> None:
    recent = RecentContent()
    recent.add(append(1, size=PIECE_BYTES // 2 + 1), 3)
    recent.add(append(2, after=1, size=PIECE_BYTES // 2 + 1), 3)
    assert recent.piece(HEADER.id, NOTHING, state(2)) is None


def test_only_so_much_is_kept() -> None:
    recent = RecentContent(max_bytes=2000)
    recent.add(append(1), 3)
    for n in range(MAX_PIECES):
        recent.add(append(n + 2, after=n + 1), 3)
    assert recent.piece(HEADER.id, NOTHING, state(MAX_PIECES + 1)) is None
    recent = RecentContent(max_bytes=2000)
    recent.add(append(1), 3)
    other = map_header("other")
    recent.add(ValueAppend(other.id, other, append(1, size=1500).sessions), 3)
    assert recent.piece(HEADER.id, NOTHING, state(1)) is None
