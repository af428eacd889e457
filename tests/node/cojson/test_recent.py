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


def test_a_value_of_many_edits_is_kept_whole() -> None:
    recent = RecentContent()
    for n in range(50):
        recent.add(append(n + 1, after=n), 3)
    piece = recent.piece(HEADER.id, NOTHING, state(50))
    assert piece is not None
    assert piece.content == ANN.content(HEADER, edits(50), as_agent=True)


def test_of_a_value_too_large_for_a_piece_the_last_edits_are_kept() -> None:
    recent = RecentContent()
    for n in range(3 * MAX_PIECES):
        recent.add(append(n + 1, after=n, size=PIECE_BYTES // 4), 3)
    last = 3 * MAX_PIECES
    assert recent.piece(HEADER.id, NOTHING, state(last)) is None
    assert recent.piece(HEADER.id, state(last - 2), state(last)) is not None


def test_what_does_not_follow_is_not_joined() -> None:
    recent = RecentContent()
    recent.add(append(1), 3)
    for n in range(2, 3 * MAX_PIECES):  # the second edit is left out
        recent.add(append(n + 1, after=n), 3)
    last = 3 * MAX_PIECES
    assert recent.piece(HEADER.id, NOTHING, state(last)) is None
    piece = recent.piece(HEADER.id, state(last - 2), state(last))
    assert piece is not None
    assert piece.content.new[SESSION].transactions == edits(last)[-2:]


def test_what_was_read_is_kept_until_it_is_no_longer_what_is_stored() -> None:
    recent = RecentContent()
    whole = ANN.content(HEADER, edits(3), as_agent=True)
    recent.keep([whole])
    piece = recent.piece(HEADER.id, NOTHING, state(3))
    assert piece is not None
    assert piece.content is whole
    recent.keep([ANN.content(HEADER, edits(2), as_agent=True)])
    assert recent.piece(HEADER.id, NOTHING, state(3)) is piece
    recent.add(append(4, after=3), 3)
    joined = recent.piece(HEADER.id, NOTHING, state(4))
    assert joined is not None
    assert joined.content == ANN.content(HEADER, edits(4), as_agent=True)
    recent.forget(HEADER.id)
    assert recent.piece(HEADER.id, NOTHING, state(4)) is None
    assert recent.used_bytes == 0


def test_content_is_forgotten_after_a_round_without_use() -> None:
    recent = RecentContent()
    recent.add(append(1), 3)
    recent.begin_round()
    assert not recent.forget_unused(10)
    assert recent.piece(HEADER.id, NOTHING, state(1)) is not None
    recent.begin_round()
    assert not recent.forget_unused(10)
    assert recent.used_bytes > 0
    recent.begin_round()
    assert recent.forget_unused(1)
    assert not recent.forget_unused(1)
    assert recent.used_bytes == 0


def test_only_so_much_is_kept_and_lines_count() -> None:
    recent = RecentContent(max_bytes=20_000)
    headers = [map_header(str(n)) for n in range(40)]
    for header in headers:
        recent.add(ValueAppend(header.id, header, append(1).sessions), 3)
        assert recent.used_bytes <= 20_000
    held = [header for header in headers if recent.piece(header.id, NOTHING, state(1))]
    assert held == headers[-len(held) :]
    assert 5 < len(held) < 20
    before = recent.used_bytes
    piece = recent.piece(held[0].id, NOTHING, state(1))
    assert piece is not None
    line = recent.line(piece)
    assert before < recent.used_bytes + 2000
    assert piece.size > len(line)
    for header in held:
        piece = recent.piece(header.id, NOTHING, state(1))
        if piece is not None:
            recent.line(piece)
        assert recent.used_bytes <= 20_000
