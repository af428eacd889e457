"""Who follows a log, and at which lengths those may be who are away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.followers import MAX_AWAY_SECONDS, MAX_FOLLOWERS, MAX_LENGTHS, Followers

ANN, BOB, EVE = (bytes([number]) * 32 for number in range(3))


def test_who_left_between_two_looks_may_have_any_length_of_that_time() -> None:
    followers = Followers()
    assert followers.look([(ANN, 3), (BOB, 5)], 10, 1000)
    assert not followers.look([(ANN, 3), (BOB, 5)], 12, 1005)
    assert followers.lengths() == set(), "who is connected is known without us"
    assert followers.look([(BOB, 12)], 14, 1010)
    assert followers.lengths() == set(range(3, 15))
    assert not followers.look([(BOB, 12)], 99, 1020), "ann left at 14 at the latest"
    assert followers.lengths() == set(range(3, 15))
    assert followers.look([(ANN, 20), (BOB, 12)], 99, 1030)
    assert followers.lengths() == set()


def test_who_is_away_for_long_is_forgotten() -> None:
    followers = Followers()
    followers.look([(ANN, 3), (BOB, 4)], 4, 0)
    followers.look([(BOB, 4)], 5, 10)
    followers.look([(BOB, 4)], 6, MAX_AWAY_SECONDS)
    assert followers.lengths() == {3, 4, 5}
    assert followers.look([(BOB, 4)], 6, MAX_AWAY_SECONDS + 1)
    assert followers.lengths() == set()
    assert len(followers) == 1


def test_of_too_many_those_go_that_were_seen_longest_ago() -> None:
    followers = Followers()
    keys = [number.to_bytes(32, "big") for number in range(MAX_FOLLOWERS + 5)]
    for number, key in enumerate(keys):
        followers.look([(key, number)], number, number)
    assert len(followers) == MAX_FOLLOWERS
    followers.look([], len(keys), len(keys))
    lengths = followers.lengths()
    assert lengths is not None
    assert min(lengths) == 5


def test_too_many_lengths_are_said_to_be_too_many() -> None:
    followers = Followers()
    followers.look([(ANN, 1)], MAX_LENGTHS, 0)
    followers.look([], MAX_LENGTHS, 1)
    assert followers.lengths() == set(range(1, MAX_LENGTHS + 1))
    followers.look([(BOB, 1)], 1, 2)
    followers.look([], 1, 3)
    assert followers.lengths() is None


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from([ANN, BOB, EVE]), st.integers(0, 50)),
            st.integers(0, 10),
        ),
        max_size=8,
    )
)
def test_what_is_stored_says_the_same_to_the_next_run(
    looks: list[tuple[dict[bytes, int], int]],
) -> None:
    followers, length, now = Followers(), 50, 0
    for peers, growth in looks:
        length += growth
        now += 5
        followers.look(peers.items(), length, now)
    again = Followers.decode(followers.encode(), length, now)
    # A restart is a look that finds nobody.
    followers.look([], length, now)
    assert again.lengths() == followers.lengths()
    assert again.encode() == followers.encode()


def test_what_is_no_record_is_refused() -> None:
    followers = Followers()
    followers.look([(ANN, 1)], 1, 1)
    with pytest.raises(DecodeError):
        Followers.decode(followers.encode()[:-1], 1, 1)
