"""Who follows a log, and at which lengths those may be who are away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from hypercore.replication.departures import Departure
from node.followers import MAX_AWAY_SECONDS, MAX_FOLLOWERS, MAX_LENGTHS, MAX_STRANGERS, Followers


def everybody(_key: bytes) -> bool:
    return True


def nobody(_key: bytes) -> bool:
    return False


ANN, BOB, EVE = (bytes([number]) * 32 for number in range(3))


def test_who_left_between_two_looks_may_have_any_length_of_that_time() -> None:
    followers = Followers()
    assert followers.look([(ANN, 3), (BOB, 5)], 10, 1000, everybody)
    assert not followers.look([(ANN, 3), (BOB, 5)], 12, 1005, everybody)
    assert followers.lengths() == set(), "who is connected is known without us"
    assert followers.look([(BOB, 12)], 14, 1010, everybody)
    assert followers.lengths() == set(range(3, 15))
    assert not followers.look([(BOB, 12)], 99, 1020, everybody), "ann left at 14 at the latest"
    assert followers.lengths() == set(range(3, 15))
    assert followers.look([(ANN, 20), (BOB, 12)], 99, 1030, everybody)
    assert followers.lengths() == set()


def test_who_came_and_left_between_two_looks_is_thought_of() -> None:
    followers = Followers()
    gone = [Departure(ANN, 3, 5), Departure(BOB, 0, 7), Departure(EVE, 4, 4)]
    assert followers.look([], 9, 1000, ANN.__eq__, gone)
    assert followers.lengths() == {3, 4, 5, 7}
    assert not followers.look([], 10, 1001, nobody)
    assert followers.look([(BOB, 7)], 10, 1002, nobody, [Departure(BOB, 7, 9)])
    assert followers.lengths() == {3, 4, 5}, "bob is back already"
    assert followers.look([], 12, 1003, nobody, [Departure(BOB, 0, 11), Departure(ANN, 8, 11)])
    assert followers.lengths() == {4, *range(7, 12)}


def test_who_is_away_for_long_is_forgotten() -> None:
    followers = Followers()
    followers.look([(ANN, 3), (BOB, 4)], 4, 0, everybody)
    followers.look([(BOB, 4)], 5, 10, everybody)
    followers.look([(BOB, 4)], 6, MAX_AWAY_SECONDS, everybody)
    assert followers.lengths() == {3, 4, 5}
    assert followers.look([(BOB, 4)], 6, MAX_AWAY_SECONDS + 1, everybody)
    assert followers.lengths() == set()
    assert len(followers) == 1


def test_of_too_many_those_go_that_were_seen_longest_ago() -> None:
    followers = Followers()
    keys = [number.to_bytes(32, "big") for number in range(MAX_FOLLOWERS + 5)]
    for number, key in enumerate(keys):
        followers.look([(key, number)], number, number, everybody)
    assert len(followers) == MAX_FOLLOWERS
    followers.look([], len(keys), len(keys), everybody)
    lengths = followers.lengths()
    assert lengths is not None
    assert min(lengths) == 5


def test_strangers_take_no_member_s_place() -> None:
    """Found in review: who knew the key could push out all members, name by name."""
    followers = Followers()
    followers.look([(ANN, 3)], 3, 0, everybody)
    for number in range(MAX_STRANGERS + 5):
        name = (number + 100).to_bytes(32, "big")
        followers.look([(ANN, 3), (name, 10 + number)], 10 + number, number, ANN.__eq__)
    assert len(followers) == MAX_STRANGERS + 1
    followers.look([], MAX_STRANGERS + 15, 2000, nobody)
    lengths = followers.lengths()
    assert lengths is not None
    assert min(lengths) == 3, "ann was a member when she was here"
    assert max(lengths) == MAX_STRANGERS + 15


def test_lengths_of_strangers_count_as_far_as_there_is_room() -> None:
    followers = Followers()
    followers.look([(ANN, 10), (EVE, 1)], 10, 0, ANN.__eq__)
    followers.look([], MAX_LENGTHS, 1, nobody)
    assert followers.lengths() == set(range(10, MAX_LENGTHS + 1))


def test_whoever_becomes_a_member_is_one() -> None:
    followers = Followers()
    assert followers.look([(ANN, 1)], 1, 0, nobody)
    assert followers.look([(ANN, 1)], 1, 1, everybody)
    assert not followers.look([(ANN, 1)], 1, 2, nobody)
    again = Followers.decode(followers.encode(), 1, 3)
    for number in range(MAX_STRANGERS + 1):
        again.look([((number + 100).to_bytes(32, "big"), 5)], 5, 4, nobody)
    assert 1 in (again.lengths() or ())


def test_too_many_lengths_are_said_to_be_too_many() -> None:
    followers = Followers()
    followers.look([(ANN, 1)], MAX_LENGTHS, 0, everybody)
    followers.look([], MAX_LENGTHS, 1, everybody)
    assert followers.lengths() == set(range(1, MAX_LENGTHS + 1))
    followers.look([(BOB, 1)], 1, 2, everybody)
    followers.look([], 1, 3, everybody)
    assert followers.lengths() is None


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from([ANN, BOB, EVE]), st.integers(0, 50)),
            st.integers(0, 10),
        ),
        max_size=8,
    ),
    st.sampled_from([everybody, nobody, ANN.__eq__]),
)
def test_what_is_stored_says_the_same_to_the_next_run(
    looks: list[tuple[dict[bytes, int], int]], is_member: Callable[[bytes], bool]
) -> None:
    followers, length, now = Followers(), 50, 0
    for peers, growth in looks:
        length += growth
        now += 5
        followers.look(peers.items(), length, now, is_member)
    again = Followers.decode(followers.encode(), length, now)
    # A restart is a look that finds nobody.
    followers.look([], length, now, everybody)
    assert again.lengths() == followers.lengths()
    assert again.encode() == followers.encode()


def test_what_is_no_record_is_refused() -> None:
    followers = Followers()
    followers.look([(ANN, 1)], 1, 1, everybody)
    with pytest.raises(DecodeError):
        Followers.decode(followers.encode()[:-1], 1, 1)
