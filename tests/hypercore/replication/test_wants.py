from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypercore.replication.messages import MessageType, Want
from hypercore.replication.wants import MAX_WINDOWS, WINDOW_BLOCKS, ReceivedWants, SentWants


def test_a_window_is_wanted_once() -> None:
    wants = SentWants()
    assert wants.want(5) == [(MessageType.WANT, Want(0, WINDOW_BLOCKS).encode())]
    assert wants.want(WINDOW_BLOCKS - 1) == []
    assert wants.want(WINDOW_BLOCKS) == [
        (MessageType.WANT, Want(WINDOW_BLOCKS, WINDOW_BLOCKS).encode())
    ]


def test_a_forgotten_window_is_wanted_again() -> None:
    wants = SentWants()
    wants.want(5)
    wants.forget(9)
    assert wants.want(5) != []


def test_the_oldest_window_makes_room_for_a_new_one() -> None:
    wants = SentWants()
    for window in range(MAX_WINDOWS):
        assert len(wants.want(window * WINDOW_BLOCKS)) == 1
    assert wants.want(MAX_WINDOWS * WINDOW_BLOCKS) == [
        (MessageType.UNWANT, Want(0, WINDOW_BLOCKS).encode()),
        (MessageType.WANT, Want(MAX_WINDOWS * WINDOW_BLOCKS, WINDOW_BLOCKS).encode()),
    ]


def test_what_a_peer_tells_counts_as_long_as_it_tells_of_changes() -> None:
    wants = SentWants()
    wants.note_told(0, 100)
    assert not wants.is_told(5), "nobody asked: it will not say when that changes"
    wants.want(5)
    assert not wants.is_told(5)
    wants.note_told(0, WINDOW_BLOCKS + 100)
    assert wants.is_told(5)
    assert wants.is_told(WINDOW_BLOCKS - 1)
    assert not wants.is_told(WINDOW_BLOCKS)
    wants.forget(5)
    assert not wants.is_told(5)
    for window in range(MAX_WINDOWS + 1):
        wants.want(window * WINDOW_BLOCKS)
    assert not wants.is_told(5), "it was told that we do not care any more"
    wants.want(5)
    assert not wants.is_told(5)


def test_a_peer_hears_of_the_windows_it_wants() -> None:
    wants = ReceivedWants()
    assert not wants.covers(0, 1 << 30)
    assert wants.add(Want(64, 64))
    assert not wants.covers(0, 64)
    assert wants.covers(60, 65)
    assert wants.covers(127, 128)
    assert not wants.covers(128, 200)
    wants.remove(Want(64, 64))
    assert not wants.covers(64, 65)


def test_what_is_too_long_is_not_answered() -> None:
    wants = ReceivedWants()
    assert not wants.add(Want(0, WINDOW_BLOCKS * 2))
    assert not wants.covers(0, 1)


def test_odd_wants_are_wants_of_everything() -> None:
    for want in (Want(0, 100), Want(1, 64), Want(0, 16)):
        wants = ReceivedWants()
        assert wants.add(want)
        assert wants.covers(1 << 40, (1 << 40) + 1)


def test_too_many_windows_are_a_want_of_everything() -> None:
    wants = ReceivedWants()
    for start in range(MAX_WINDOWS):
        wants.add(Want(start * 64, 64))
    assert not wants.covers(1 << 40, (1 << 40) + 1)
    wants.add(Want(MAX_WINDOWS * 64, 64))
    assert wants.covers(1 << 40, (1 << 40) + 1)


def test_too_many_sizes_are_a_want_of_everything() -> None:
    wants = ReceivedWants()
    for size in (32, 64, 128, 256):
        wants.add(Want(0, size))
    assert not wants.covers(1 << 40, (1 << 40) + 1)
    wants.add(Want(0, 512))
    assert wants.covers(1 << 40, (1 << 40) + 1)


small_wants = st.builds(
    Want,
    st.integers(0, 8).map(lambda number: number * 32),
    st.sampled_from([32, 64, 100, 4194304]),
    st.booleans(),
)


@given(st.lists(st.tuples(st.booleans(), small_wants), max_size=30))
def test_removing_what_was_never_added_does_no_harm(steps: list[tuple[bool, Want]]) -> None:
    wants = ReceivedWants()
    for is_added, want in steps:
        if is_added:
            wants.add(want)
        else:
            wants.remove(want)
        wants.covers(want.start, want.start + want.length)
