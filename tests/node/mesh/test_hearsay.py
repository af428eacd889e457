"""Who hears of an edit without us, and what is said to it."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.hearsay import (
    MAX_ORIGINS,
    MAX_SHORT_NAMES,
    MAX_WAITING,
    Hearsay,
    Origins,
    ShortNames,
)
from node.mesh.hearsay_messages import MAX_NAMES, Brief, Neighbors, briefs, difference, short_name
from node.mesh.messages import Sessions
from tests.node.mesh import samples
from tests.node.mesh.authors import Author

ONE, OTHER = samples.co_id(1), samples.co_id(2)
SESSION, LATER = samples.session_id(1), samples.session_id(2)
A, B = b"a" * 32, b"b" * 32


def lacks_everything(_: RawCoId, __: Sessions) -> bool:
    return True


def test_what_became_durable_is_split_by_where_it_came_from() -> None:
    value, own = Author(1).value("brought"), Author(2).value("own")
    origins = Origins()
    origins.note(A, [value.edit("[]", "[]", with_header=True)])
    moved = {value.id: {value.session_id: 2}, own.id: {own.session_id: 1}}
    assert origins.split(moved) == {
        A: {value.id: {value.session_id: 2}},
        None: {own.id: {own.session_id: 1}},
    }


def test_what_goes_beyond_what_was_brought_is_our_own() -> None:
    value = Author(1).value("both")
    origins = Origins()
    origins.note(A, [value.edit("[]", with_header=True)])
    assert origins.split({value.id: {value.session_id: 2}}) == {
        None: {value.id: {value.session_id: 2}}
    }
    origins.note(B, [value.edit("[]")])
    assert list(origins.split({value.id: {value.session_id: 2}})) == [B], "the last who did"


def test_a_header_alone_is_told_in_full() -> None:
    assert Origins().split({ONE: {}}) == {None: {ONE: {}}}


def test_who_brought_what_is_forgotten_in_time() -> None:
    value = Author(1).value("first")
    content = value.edit("[]")
    origins = Origins()
    origins.note(A, [content])
    [part] = content.new.values()
    many = {CoSessionId(f"session {number}"): part for number in range(MAX_ORIGINS)}
    origins.note(A, [Content(value.id, None, many)])
    assert list(origins.split({value.id: {value.session_id: 1}})) == [None]


def test_names_stand_for_the_most_that_is_held() -> None:
    names = ShortNames()
    names.note({ONE: {SESSION: 2}})
    names.note({ONE: {SESSION: 1, LATER: 7}, OTHER: {SESSION: 3}})
    assert names.find(short_name(ONE, SESSION)) == (ONE, SESSION, 2)
    assert names.find(short_name(OTHER, SESSION)) == (OTHER, SESSION, 3)
    assert names.find(bytes(16)) is None
    names.note({OTHER: {CoSessionId(f"session {n}"): 1 for n in range(MAX_SHORT_NAMES - 1)}})
    assert names.find(short_name(ONE, SESSION)) is None
    assert names.find(short_name(OTHER, SESSION)) == (OTHER, SESSION, 3)


def test_who_says_nothing_of_neighbors_is_told_in_full() -> None:
    hearsay = Hearsay()
    assert not hearsay.is_spoken
    assert not hearsay.hears(A)


def test_from_whom_a_member_hears_is_what_it_said_last() -> None:
    hearsay = Hearsay()
    hearsay.receive(Neighbors((A,)))
    assert hearsay.is_spoken
    assert (hearsay.hears(A), hearsay.hears(B)) == (True, False)
    assert not hearsay.hears(None), "our own edits it hears from us"
    hearsay.receive(Neighbors((B,), (A,)))
    assert (hearsay.hears(A), hearsay.hears(B)) == (False, True)


def test_what_waits_is_said_once_when_the_first_of_it_is_due() -> None:
    hearsay = Hearsay()
    assert hearsay.add(ONE, {SESSION: 1}, 5.0)
    assert hearsay.add(ONE, {SESSION: 3, LATER: 1}, 7.0)
    assert hearsay.due_at == 5.0
    assert not hearsay.take()
    assert hearsay.release(lacks_everything)
    assert hearsay.due_at == inf
    assert hearsay.take() == [(short_name(ONE, SESSION), 3), (short_name(ONE, LATER), 1)]
    assert not hearsay.take()
    assert not hearsay.release(lacks_everything)


def test_what_it_has_said_itself_is_not_said() -> None:
    hearsay = Hearsay()
    hearsay.add(ONE, {SESSION: 1}, 5.0)
    hearsay.add(OTHER, {SESSION: 1}, 5.0)
    assert hearsay.release(lambda co_id, sessions: co_id == OTHER)
    assert hearsay.take() == [(short_name(OTHER, SESSION), 1)]


def test_what_does_not_fit_is_not_taken() -> None:
    hearsay = Hearsay()
    for number in range(MAX_WAITING):
        assert hearsay.add(ONE, {CoSessionId(f"session {number}"): 1}, 5.0)
    assert not hearsay.add(ONE, {SESSION: 1}, 5.0)
    hearsay.release(lacks_everything)
    assert not hearsay.add(ONE, {SESSION: 1}, 5.0), "it has not been said yet"
    assert len(hearsay.take()) == MAX_WAITING
    assert hearsay.add(ONE, {SESSION: 1}, 5.0)


member_ids = st.integers(0, 30).map(lambda number: bytes((number,)) * 32)


@given(st.frozensets(member_ids), st.frozensets(member_ids))
def test_a_difference_brings_up_to_date(before: frozenset[bytes], after: frozenset[bytes]) -> None:
    hearsay = Hearsay()
    for message in [*difference(frozenset(), before), *difference(before, after)]:
        hearsay.receive(message)
    assert {id for id in before | after if hearsay.hears(id)} == after
    assert not list(difference(after, after))


def test_what_is_long_comes_in_several_messages() -> None:
    ids = frozenset(number.to_bytes(32, "big") for number in range(MAX_NAMES + 1))
    sizes = [len(message.added) for message in difference(frozenset(), ids)]
    assert sizes == [MAX_NAMES, 1]
    counts = [(bytes(16), number) for number in range(MAX_NAMES + 1)]
    assert list(briefs(7, counts)) == [
        Brief(7, tuple(counts[:MAX_NAMES])),
        Brief(7, tuple(counts[MAX_NAMES:])),
    ]
