from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.announcements import LOOKS, MAX_FETCH_VALUES, Announcements, Fetch, exceeds
from tests.node.mesh.samples import co_id, session_id

A, B, C = co_id(1), co_id(2), co_id(3)
S, T = session_id(1), session_id(2)
ALICE, BOB = b"alice", b"bob"


def test_exceeds() -> None:
    assert exceeds({}, None)
    assert not exceeds({}, {})
    assert exceeds({S: 2}, {S: 1})
    assert not exceeds({S: 1}, {S: 1, T: 4})
    assert exceeds({S: 1, T: 5}, {S: 1, T: 4})


def test_what_two_announce_is_fetched_once() -> None:
    waiting = Announcements()
    assert waiting.announce(ALICE, 10, [(A, {S: 3})])
    assert waiting.announce(BOB, 20, [(A, {S: 3})])
    fetch = waiting.take()
    assert fetch == Fetch(ALICE, 10, (A,))
    assert waiting.take() is None
    waiting.settle(fetch, {A: {S: 3}})
    assert waiting.take() is None
    assert len(waiting) == 0


def test_who_has_most_is_asked_first_and_the_other_for_the_rest() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 3, T: 1})])
    waiting.announce(BOB, 20, [(A, {S: 9})])
    fetch = waiting.take()
    assert fetch == Fetch(BOB, 20, (A,))
    waiting.settle(fetch, {A: {S: 9}})
    fetch = waiting.take()
    assert fetch == Fetch(ALICE, 10, (A,))
    waiting.settle(fetch, {A: {S: 9, T: 1}})
    assert len(waiting) == 0


def test_a_failed_fetch_goes_to_the_next_and_then_ends() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 3})])
    waiting.announce(BOB, 20, [(A, {S: 3})])
    for member in (ALICE, BOB):
        fetch = waiting.take()
        assert fetch is not None
        assert fetch.member_id == member
        waiting.settle(fetch, {A: None})
    assert waiting.take() is None
    assert len(waiting) == 0


def test_members_that_are_slow_with_a_value_take_turns() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 3}), (B, {S: 1})])
    waiting.announce(BOB, 20, [(A, {S: 2})])
    asked = []
    for _ in range(4):
        fetch = waiting.take()
        assert fetch is not None
        asked.append((fetch.member_id, fetch.ids, waiting.times_slow(fetch.member_id, A)))
        waiting.postpone(fetch, [A])
        waiting.settle(Fetch(ALICE, 10, (B,)), {B: {S: 1}})
    assert asked == [(ALICE, (A, B), 0), (BOB, (A,), 0), (ALICE, (A,), 1), (BOB, (A,), 1)]
    waiting.forget_member(BOB)
    assert waiting.times_slow(ALICE, A) is None
    assert waiting.take() == Fetch(ALICE, 10, (A,))
    waiting.forget_member(ALICE)
    assert len(waiting) == 0


def test_what_waits_for_a_member_that_got_slow_is_had_from_others() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 3}), (B, {S: 1})])
    waiting.announce(BOB, 20, [(A, {S: 2})])
    slow = frozenset([ALICE])
    fetches = [Fetch(ALICE, 10, (B,)), Fetch(BOB, 20, (A,))]
    assert [waiting.take(slow=slow) for _ in fetches] == fetches
    waiting.announce(ALICE, 10, [(C, {S: 3})])
    waiting.announce(BOB, 20, [(C, {S: 2})])
    assert waiting.take(slow=slow) == Fetch(BOB, 20, (C,))
    waiting.settle(fetches[1], {A: {S: 2}})
    assert waiting.take(slow=slow) == Fetch(ALICE, 10, (A,))  # what is left nobody else has
    waiting.settle(Fetch(BOB, 20, (C,)), {C: {S: 2}})
    assert waiting.take() == Fetch(ALICE, 10, (C,))


def test_much_that_waits_for_a_member_that_got_slow_is_had_from_others_bit_by_bit() -> None:
    """All of 100,000 values at once kept a node from everything else for 0.3 s."""
    waiting = Announcements()
    ids = [co_id(number) for number in range(3 * LOOKS)]
    waiting.announce(ALICE, 10, [(key, {S: 3}) for key in ids])
    waiting.announce(BOB, 20, [(key, {S: 2}) for key in ids[1:]])
    slow = frozenset([ALICE])
    fetches = [waiting.take(slow=slow)]
    while waiting.is_giving_way:
        fetches.append(waiting.take(slow=slow))
    assert len(fetches) == 3
    while (fetch := waiting.take(slow=slow)) is not None:
        fetches.append(fetch)
    taken = [(fetch.member_id, key) for fetch in fetches if fetch is not None for key in fetch.ids]
    assert (ALICE, ids[0]) in taken
    assert {member_id for member_id, key in taken if key != ids[0]} == {BOB}


def test_a_member_that_goes_while_it_gives_way_is_forgotten() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(co_id(number), {S: 3}) for number in range(3 * LOOKS)])
    slow = frozenset([ALICE])
    assert waiting.take(slow=slow) is None
    assert waiting.is_giving_way
    waiting.forget_member(ALICE)
    assert waiting.take(slow=slow) is None
    assert not waiting.is_giving_way


def test_a_member_that_is_slow_no_more_has_its_turn_at_once() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(co_id(number), {S: 3}) for number in range(3 * LOOKS)])
    assert waiting.take(slow=frozenset([ALICE])) is None
    assert waiting.take() is not None
    assert not waiting.is_giving_way


def test_what_is_announced_during_a_fetch_is_fetched_after_it() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 3})])
    fetch = waiting.take()
    assert fetch is not None
    waiting.announce(ALICE, 11, [(A, {S: 4})])
    assert waiting.take() is None
    waiting.settle(fetch, {A: {S: 3}})
    assert waiting.take() == Fetch(ALICE, 11, (A,))


def test_values_of_one_member_share_a_fetch() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 1}), (B, {S: 1})])
    waiting.announce(BOB, 20, [(C, {S: 1})])
    assert waiting.take() == Fetch(ALICE, 10, (A, B))
    assert waiting.take() == Fetch(BOB, 20, (C,))


def test_a_fetch_is_bounded() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(co_id(number), {S: 1}) for number in range(200)])
    fetch = waiting.take()
    assert fetch is not None
    assert len(fetch.ids) == MAX_FETCH_VALUES


def test_a_member_that_went_is_forgotten_even_during_a_fetch() -> None:
    waiting = Announcements()
    waiting.announce(ALICE, 10, [(A, {S: 3}), (B, {S: 1})])
    waiting.announce(BOB, 10, [(A, {S: 2})])
    fetch = waiting.take()
    assert fetch is not None
    waiting.forget_member(ALICE)
    waiting.settle(fetch, {})
    assert waiting.take() == Fetch(BOB, 10, (A,))
    assert waiting.take() is None
    waiting.forget_member(BOB)
    assert len(waiting) == 0


def test_room_is_bounded_and_comes_back() -> None:
    waiting = Announcements(max_sessions=6)
    assert waiting.announce(ALICE, 1, [(A, {S: 1, T: 1})])
    assert waiting.announce(ALICE, 2, [(A, {S: 2, T: 2})])
    assert not waiting.announce(BOB, 1, [(B, {S: 1}), (C, {S: 1})])
    fetch = waiting.take()
    assert fetch is not None
    waiting.settle(fetch, {A: {S: 2, T: 2}})
    assert waiting.announce(BOB, 1, [(C, {S: 1})])


class Members:
    """Three members that grow and are never wrong, and what was fetched from them."""

    def __init__(self) -> None:
        self.values: dict[bytes, dict[RawCoId, dict[CoSessionId, int]]] = {
            b"a": {},
            b"b": {},
            b"c": {},
        }
        self.held: dict[RawCoId, dict[CoSessionId, int] | None] = {}

    def grow(self, member: bytes, value: RawCoId, session: CoSessionId) -> dict[CoSessionId, int]:
        counts = self.values[member].setdefault(value, {})
        counts[session] = counts.get(session, 0) + 1
        return dict(counts)

    def fetch(self, fetch: Fetch) -> None:
        for value in fetch.ids:
            ours = self.held.get(value) or {}
            for session, count in self.values[fetch.member_id][value].items():
                ours[session] = max(count, ours.get(session, 0))
            self.held[value] = ours


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_in_the_end_everything_claimed_by_the_honest_is_held(seed: int) -> None:
    chance = random.Random(seed)
    waiting, members = Announcements(), Members()
    open_fetches: list[Fetch] = []
    step = 0
    while step < 100 or open_fetches or len(waiting):
        step += 1
        roll = chance.random()
        if step < 100 and roll < 0.4:
            member, value = chance.choice([b"a", b"b", b"c"]), co_id(chance.randrange(5))
            counts = members.grow(member, value, session_id(chance.randrange(2)))
            waiting.announce(member, step, [(value, counts)])
        elif roll < 0.7:
            slow = frozenset(chance.sample([b"a", b"b", b"c"], chance.randrange(3)))
            fetch = waiting.take(slow=slow)
            if fetch is not None:
                assert not {i for f in open_fetches for i in f.ids} & set(fetch.ids)
                open_fetches.append(fetch)
        elif open_fetches:
            fetch = open_fetches.pop(chance.randrange(len(open_fetches)))
            members.fetch(fetch)
            waiting.settle(fetch, members.held)
    for values in members.values.values():
        for value, counts in values.items():
            assert not exceeds(counts, members.held[value])
