from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node.covalue.content import PIECE_BYTES, Content, SessionContent, Transaction
from node.covalue.ids import CoSessionId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.local.continuation import Continuation, continue_value
from node.covalue.store import StoredSession, StoredValue
from tests.support.authors import Author, edits, map_header

ANN = Author("ann")
HEADER = map_header("m")
SESSION = ANN.session_id("a", as_agent=True)
OTHER = ANN.session_id("b", as_agent=True)
DELETION = ANN.delete_session_id(as_agent=True)
ALL = edits(40)


def _signature(stop: int) -> bytes:
    """Stands for that over the first `stop` transactions."""
    return stop.to_bytes(64, "big")


def _content(
    after: int, stop: int, *, header: bool = False, session: CoSessionId = SESSION
) -> Content:
    part = SessionContent(after, ALL[after:stop], _signature(stop))
    return Content(HEADER.id, HEADER if header else None, {session: part})


def _stored(*counts: tuple[CoSessionId, int], is_deleted: bool = False) -> StoredValue:
    sessions = {key: StoredSession(count, _signature(count), 10) for key, count in counts}
    return StoredValue(HEADER, sessions, frozenset(), is_deleted)


def _counts(plan: Continuation) -> dict[CoSessionId, int]:
    return dict(plan.known.sessions)


def test_a_new_value_is_taken_whole() -> None:
    plan = continue_value(None, _content(0, 3, header=True))
    assert plan.append is not None
    assert plan.append.header == HEADER
    appended = plan.append.sessions[SESSION]
    assert (appended.after, list(appended.transactions)) == (0, ALL[:3])
    assert plan.known == KnownState(True, {SESSION: 3})
    assert not plan.has_gap


def test_a_header_alone_is_a_value() -> None:
    plan = continue_value(None, Content(HEADER.id, HEADER, {}))
    assert plan.append is not None
    assert plan.known == KnownState(True)


def test_without_a_header_an_unknown_value_lacks_everything() -> None:
    plan = continue_value(None, _content(0, 3))
    assert plan == Continuation(None, NOTHING, has_gap=True)


def test_a_stored_header_is_never_replaced() -> None:
    plan = continue_value(_stored((SESSION, 2)), _content(2, 3, header=True))
    assert plan.append is not None
    assert plan.append.header is None


def test_stale_content_leaves_the_signature_alone() -> None:
    plan = continue_value(_stored((SESSION, 5)), _content(0, 3, header=True))
    assert plan.append is None
    assert not plan.has_gap
    assert _counts(plan) == {SESSION: 5}


def test_the_unseen_tail_of_overlapping_content_is_taken() -> None:
    plan = continue_value(_stored((SESSION, 5)), _content(3, 7))
    assert plan.append is not None
    appended = plan.append.sessions[SESSION]
    assert (appended.after, list(appended.transactions)) == (5, ALL[5:7])
    assert appended.signature == _signature(7)
    assert appended.bytes_since_checkpoint == 10 + sum(len(t.changes) for t in ALL[5:7])


def test_a_gap_in_one_session_does_not_cost_the_others() -> None:
    content = _content(4, 6)
    content = replace(content, new={**content.new, **_content(0, 2, session=OTHER).new})
    plan = continue_value(_stored((SESSION, 3)), content)
    assert plan.has_gap
    assert plan.append is not None
    assert list(plan.append.sessions) == [OTHER]
    assert _counts(plan) == {SESSION: 3, OTHER: 2}


def test_other_stored_sessions_are_part_of_what_is_known() -> None:
    plan = continue_value(_stored((SESSION, 3), (OTHER, 9)), _content(3, 4))
    assert _counts(plan) == {SESSION: 4, OTHER: 9}


def test_a_checkpoint_is_due_when_a_piece_is_full() -> None:
    def append(size: int, since: int) -> tuple[bool, int]:
        stored = StoredValue(HEADER, {SESSION: StoredSession(1, _signature(1), since)}, frozenset())
        part = SessionContent(1, [Transaction(1, "x" * size)], _signature(2))
        plan = continue_value(stored, Content(HEADER.id, None, {SESSION: part}))
        assert plan.append is not None
        appended = plan.append.sessions[SESSION]
        return appended.is_checkpoint, appended.bytes_since_checkpoint

    assert append(400, PIECE_BYTES - 400) == (False, PIECE_BYTES)
    assert append(401, PIECE_BYTES - 400) == (True, 0)


def test_how_much_makes_a_piece_may_be_said() -> None:
    plan = continue_value(None, _content(0, 3, header=True), piece_bytes=20)
    assert plan.append is not None
    assert plan.append.sessions[SESSION].is_checkpoint


def test_a_valid_deletion_makes_a_tombstone() -> None:
    deletion = _content(0, 1, session=DELETION)
    plan = continue_value(_stored((SESSION, 5)), deletion, is_deletion_valid=True)
    assert plan.append is not None
    assert plan.append.is_deletion
    assert plan.is_tombstone
    assert _counts(plan) == {DELETION: 1}


def test_a_deletion_that_was_not_judged_is_a_session_like_any_other() -> None:
    plan = continue_value(_stored((SESSION, 5)), _content(0, 1, session=DELETION))
    assert plan.append is not None
    assert not plan.append.is_deletion
    assert _counts(plan) == {SESSION: 5, DELETION: 1}


def test_a_judgment_that_comes_late_counts_although_nothing_is_new() -> None:
    stored = _stored((SESSION, 5), (DELETION, 1))
    deletion = _content(0, 1, session=DELETION)
    plan = continue_value(stored, deletion, is_deletion_valid=True)
    assert plan.append is not None
    assert plan.append.is_deletion
    assert not plan.append.sessions


def test_a_tombstone_takes_nothing_but_deletions() -> None:
    stored = _stored((DELETION, 1), is_deleted=True)
    for content in (_content(0, 3, header=True), _content(5, 6)):
        plan = continue_value(stored, content)
        assert plan == Continuation(None, KnownState(True, {DELETION: 1}), is_tombstone=True)
    other = Author("bob").delete_session_id(as_agent=True)
    plan = continue_value(stored, _content(0, 1, session=other), is_deletion_valid=True)
    assert plan.append is not None
    assert not plan.append.is_deletion  # it is one already
    assert _counts(plan) == {DELETION: 1, other: 1}


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(1, 40)), max_size=30))
def test_whatever_comes_what_is_stored_is_a_signed_prefix(parts: list[tuple[int, int]]) -> None:
    stored = continue_and_apply(None, Content(HEADER.id, HEADER, {}))
    for after, length in parts:
        stop = min(40, after + length)
        before = stored.sessions.get(SESSION, StoredSession(0, b"", 0))
        plan = continue_value(stored, _content(after, stop))
        stored = continue_and_apply(stored, _content(after, stop))
        row = stored.sessions.get(SESSION, StoredSession(0, b"", 0))
        assert plan.has_gap == (after > before.count)
        assert row.count == (before.count if plan.has_gap else max(before.count, stop))
        assert row.signature == (_signature(row.count) if row.count else b"")
        assert plan.known == stored.known_state


def continue_and_apply(stored: StoredValue | None, content: Content) -> StoredValue:
    """What a store makes of it."""
    plan = continue_value(stored, content)
    sessions = {} if stored is None else dict(stored.sessions)
    if plan.append is not None:
        for session_id, part in plan.append.sessions.items():
            row = sessions.get(session_id)
            assert part.after == (0 if row is None else row.count)
            assert list(part.transactions) == ALL[part.after : part.after + len(part.transactions)]
            count = part.after + len(part.transactions)
            sessions[session_id] = StoredSession(count, part.signature, part.bytes_since_checkpoint)
    return StoredValue(HEADER, sessions, frozenset())
