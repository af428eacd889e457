from __future__ import annotations

import tracemalloc

from node.cojson.messages import decode_line
from node.cojson.recent import KEPT_BYTES, MAX_CHUNKS, RecentContent
from node.covalue.content import PIECE_BYTES, Content
from node.covalue.ids import CoSessionId
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


def served(recent: RecentContent, known: KnownState, count: int) -> Content | None:
    """What a client is sent that has `known`, when `count` edits are held."""
    line = recent.line(HEADER.id, known, state(count))
    if line is None:
        return None
    content = decode_line(line.text)
    assert isinstance(content, Content)
    assert known.merged(line.reached) == known.merged(content.known_state)
    return content


def test_a_value_is_served_as_the_store_would_serve_it() -> None:
    recent = RecentContent()
    recent.add(append(2), 3)
    assert served(recent, NOTHING, 2) == ANN.content(HEADER, edits(2), as_agent=True)


def test_what_is_new_is_encoded_once_for_all_who_have_the_rest() -> None:
    recent = RecentContent()
    recent.add(append(2), 3)
    recent.add(append(3, after=2), 3)
    first = recent.line(HEADER.id, state(2), state(3))
    assert first is not None
    assert recent.line(HEADER.id, state(2), state(3)) is first
    recent.add(append(4, after=3), 3)
    assert served(recent, state(2), 4) == ANN.content(
        HEADER, edits(4), after=2, as_agent=True, with_header=False
    )


def test_several_edits_are_joined_and_cut_to_what_is_lacking() -> None:
    recent = RecentContent()
    for n in range(5):
        recent.add(append(n + 1, after=n), 3)
    for have in range(1, 5):
        assert served(recent, state(have), 5) == Content(
            HEADER.id, None, ANN.content(HEADER, edits(5), after=have, as_agent=True).new
        )


def test_a_second_session_is_served_beside_the_first() -> None:
    recent = RecentContent()
    recent.add(append(2), 3)
    theirs = edits(1)
    session = BOB.session_id(as_agent=True)
    part = SessionAppend(0, theirs, BOB.sign(theirs), 0, False)
    recent.add(ValueAppend(HEADER.id, None, {session: part}), 3)
    held = KnownState(True, {SESSION: 2, session: 1})
    line = recent.line(HEADER.id, state(2), held)
    assert line is not None
    content = decode_line(line.text)
    assert isinstance(content, Content)
    assert set(content.new) == {session}
    assert line.reached == KnownState(True, {session: 1})
    whole = recent.line(HEADER.id, NOTHING, held)
    assert whole is not None
    assert whole.reached == held


def test_what_is_not_all_here_is_left_to_the_store() -> None:
    recent = RecentContent()
    assert recent.line(HEADER.id, NOTHING, state(1)) is None
    recent.add(append(5, after=3), 3)
    assert recent.line(HEADER.id, NOTHING, state(5)) is None  # the header is not here
    assert recent.line(HEADER.id, state(2), state(5)) is None
    assert recent.line(HEADER.id, state(3), state(6)) is None
    assert recent.line(HEADER.id, state(5), state(5)) is None
    assert recent.line(HEADER.id, state(4), state(5)) is None  # no signature was made there
    assert recent.line(HEADER.id, state(3), state(5)) is not None
    assert recent.line(HEADER.id, state(3), state(6)) is None  # nor when the line is there already


def test_what_is_too_large_for_a_piece_is_left_to_the_store() -> None:
    recent = RecentContent()
    recent.add(append(1, size=PIECE_BYTES // 2 + 1), 3)
    recent.add(append(2, after=1, size=PIECE_BYTES // 2 + 1), 3)
    assert recent.line(HEADER.id, NOTHING, state(2)) is None
    assert recent.line(HEADER.id, state(1), state(2)) is not None


def test_one_large_edit_is_served_all_the_same() -> None:
    recent = RecentContent()
    recent.add(append(1, size=3 * KEPT_BYTES), 3)
    assert served(recent, NOTHING, 1) == ANN.content(
        HEADER, edits(1, size=3 * KEPT_BYTES), as_agent=True
    )
    recent.add(append(2, after=1, size=3 * KEPT_BYTES), 3)
    assert recent.line(HEADER.id, NOTHING, state(2)) is None
    assert recent.line(HEADER.id, state(1), state(2)) is not None


def test_a_value_of_many_edits_is_kept_whole() -> None:
    recent = RecentContent()
    count = 3 * MAX_CHUNKS
    for n in range(count):
        recent.add(append(n + 1, after=n), 3)
    assert served(recent, NOTHING, count) == ANN.content(HEADER, edits(count), as_agent=True)
    for have in range(count - 8, count):
        assert served(recent, state(have), count) == ANN.content(
            HEADER, edits(count), after=have, as_agent=True, with_header=False
        )


def test_who_loads_small_edits_joins_them_for_the_next() -> None:
    recent = RecentContent()
    count = MAX_CHUNKS // 2
    for n in range(count):
        recent.add(append(n + 1, after=n), 3)
    apart = recent.used_bytes
    line = recent.line(HEADER.id, NOTHING, state(count))
    assert line is not None
    assert recent.used_bytes < apart + len(line.text)
    for have in range(count - 8, count):
        assert recent.line(HEADER.id, state(have), state(count)) is not None
    assert served(recent, NOTHING, count) == ANN.content(HEADER, edits(count), as_agent=True)
    recent.add(append(count + 1, after=count), 3)
    assert served(recent, NOTHING, count + 1) == ANN.content(
        HEADER, edits(count + 1), as_agent=True
    )


def test_what_was_allowed_can_be_taken_back() -> None:
    recent = RecentContent(max_bytes=60_000)
    headers = [map_header(str(n)) for n in range(20)]
    for header in headers:
        recent.add(ValueAppend(header.id, header, append(1, size=1000).sessions), 3)
        recent.line(header.id, NOTHING, state(1))
    assert recent.used_bytes > 30_000
    recent.allow(20_000)
    assert recent.used_bytes <= 20_000
    assert recent.line(headers[-1].id, NOTHING, state(1)) is not None
    assert recent.line(headers[0].id, NOTHING, state(1)) is None


def test_of_a_value_too_large_for_a_piece_the_last_edits_are_kept() -> None:
    recent = RecentContent()
    for n in range(24):
        recent.add(append(n + 1, after=n, size=PIECE_BYTES // 4), 3)
    assert recent.used_bytes < KEPT_BYTES + 4096
    assert recent.line(HEADER.id, NOTHING, state(24)) is None
    assert recent.line(HEADER.id, state(22), state(24)) is not None


def test_what_does_not_follow_is_not_joined() -> None:
    recent = RecentContent()
    recent.add(append(1), 3)
    for n in range(2, 24):  # the second edit is left out
        recent.add(append(n + 1, after=n), 3)
    assert recent.line(HEADER.id, NOTHING, state(24)) is None
    content = served(recent, state(22), 24)
    assert content is not None
    assert content.new[SESSION].transactions == edits(24)[-2:]


def test_what_was_read_is_kept_until_it_is_no_longer_what_is_stored() -> None:
    recent = RecentContent()
    whole = ANN.content(HEADER, edits(3), as_agent=True)
    recent.keep([whole])
    assert served(recent, NOTHING, 3) == whole
    recent.keep([ANN.content(HEADER, edits(2), as_agent=True)])
    assert served(recent, NOTHING, 3) == whole
    recent.add(append(4, after=3), 3)
    assert served(recent, NOTHING, 4) == ANN.content(HEADER, edits(4), as_agent=True)
    recent.forget(HEADER.id)
    assert recent.line(HEADER.id, NOTHING, state(4)) is None
    assert recent.used_bytes == 0


def test_content_is_forgotten_after_a_round_without_use() -> None:
    recent = RecentContent()
    recent.add(append(1), 3)
    recent.begin_round()
    assert not recent.forget_unused(10)
    assert recent.line(HEADER.id, NOTHING, state(1)) is not None
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
    held = [header for header in headers if recent.line(header.id, NOTHING, state(1))]
    assert held == headers[-len(held) :]
    assert 5 < len(held) < 20
    for header in held:
        recent.line(header.id, NOTHING, state(1))
        assert recent.used_bytes <= 20_000


def test_lines_count() -> None:
    recent = RecentContent()
    recent.add(append(1, size=5000), 3)
    before = recent.used_bytes
    line = recent.line(HEADER.id, NOTHING, state(1))
    assert line is not None
    assert before + 5000 < before + len(line.text) < recent.used_bytes


def test_what_is_kept_is_not_underestimated() -> None:
    headers = [map_header(str(n)) for n in range(300)]
    appends = [append(n + 1, after=n, size=60) for n in range(MAX_CHUNKS + 20)]
    tracemalloc.start()
    try:
        recent = RecentContent()
        for header in headers:
            for appended in appends[:5]:
                recent.add(ValueAppend(header.id, None, appended.sessions), 3)
        for header in headers[:20]:
            for appended in appends[5:]:
                recent.add(ValueAppend(header.id, None, appended.sessions), 3)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= recent.used_bytes <= 2 * taken


def test_of_a_large_value_of_many_sessions_the_last_ones_are_kept() -> None:
    """All of 5000 were looked at with every edit, and the node did nothing else."""
    recent = RecentContent()
    header, part = map_header("of many sessions"), append(1, size=100).sessions[SESSION]
    held: dict[CoSessionId, int] = {}
    most = 0
    for number in range(6000):
        session_id = ANN.session_id(f"{number}")
        recent.add(ValueAppend(header.id, None if number else header, {session_id: part}), 3)
        most = max(most, recent.used_bytes)
        if number % 1000 == 999:
            before = KnownState(True, dict(held))
            line = recent.line(header.id, before, KnownState(True, {**held, session_id: 1}))
            assert line is not None
            assert line.reached.sessions == {session_id: 1}
        held[session_id] = 1
    assert most < 3 * 1024 * 1024
    assert recent.line(header.id, NOTHING, KnownState(True, held)) is None
