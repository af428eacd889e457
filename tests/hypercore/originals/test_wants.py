"""Follows hypercore 11.37.1 test/wants.js.

Its local wants count the requests ("handles") that use a window, and give one back when none does;
ours are given up, the oldest first, when there are too many. So "calls handles addWant when new",
"remove()" and "destroy()" of local wants have no counterpart: there is nobody to call, nothing to
remove, and what belongs to a peer goes with the peer.
"""

from __future__ import annotations

from hypercore.replication.messages import MessageType, Want
from hypercore.replication.wants import (
    MAX_ANY,
    MAX_WINDOWS,
    WINDOW_BLOCKS,
    ReceivedWants,
    SentWants,
)


def test_local_want_add() -> None:
    wants = SentWants()
    index = WINDOW_BLOCKS * 2 - 10
    ((kind, payload),) = wants.want(index)
    assert kind == MessageType.WANT
    assert Want.decode(payload) == Want(WINDOW_BLOCKS, WINDOW_BLOCKS)
    assert not wants.want(index), "asked already"
    assert not wants.want(WINDOW_BLOCKS), "the same window"


def test_local_wants_have_a_limit() -> None:
    """ "remove() signals MAX & next add clear free"."""
    wants = SentWants()
    for number in range(MAX_WINDOWS):
        assert len(wants.want(number * WINDOW_BLOCKS)) == 1
    unwant, want = wants.want(MAX_WINDOWS * WINDOW_BLOCKS)
    assert unwant[0] == MessageType.UNWANT
    assert Want.decode(unwant[1]) == Want(0, WINDOW_BLOCKS)
    assert Want.decode(want[1]).start == MAX_WINDOWS * WINDOW_BLOCKS


def wants_all(wants: ReceivedWants) -> bool:
    return wants.covers(1 << 50, (1 << 50) + 1)


def test_remote_want_add() -> None:
    for odd in (Want(0, 1), Want(0, 33), Want(70, 64)):
        wants = ReceivedWants()
        assert wants.add(odd)
        assert wants_all(wants), "is no window: all is told"
    wants = ReceivedWants()
    assert wants.add(Want(0, 64))
    assert wants.add(Want(128, 64))
    assert [wants.covers(start, start + 64) for start in (0, 64, 128, 192)] == [
        True,
        False,
        True,
        False,
    ]
    assert not wants.add(Want(0, WINDOW_BLOCKS + 1)), "too long"
    assert not wants_all(wants)


def test_remote_want_remove() -> None:
    wants = ReceivedWants()
    wants.remove(Want(0, 1))
    wants.add(Want(0, 64))
    wants.add(Want(64, 64))
    for other in (Want(0, 1), Want(0, 33), Want(5, 33), Want(0, 128)):
        wants.remove(other)
        assert wants.covers(0, 64)
        assert wants.covers(64, 128)
    wants.remove(Want(0, 64))
    assert not wants.covers(0, 64)
    assert wants.covers(64, 128)
    wants.remove(Want(64, 64))
    assert not wants.covers(0, 128)


def test_remote_want_has_range() -> None:
    wants = ReceivedWants()
    assert not wants.covers(0, 1_000)
    for start, length in ((0, 32), (64, 64), (128, 128), (256, 256)):
        wants.add(Want(start, length))
    assert not wants_all(wants)
    assert wants.covers(64, 65)
    assert not wants.covers(1_024, 1_025)
    # JavaScript takes a range of more than three windows for wanted, to save work.
    assert not wants.covers(1_024, 1_536)


def test_wants_for_any_block() -> None:
    """Of any length; told of what comes within it, until that is taken back."""
    wants = ReceivedWants()
    assert wants.add(Want(100, 50, any=True))
    assert wants.covers(149, 150)
    assert wants.covers(90, 101)
    assert not wants.covers(150, 151)
    assert not wants.covers(99, 100)
    wants.remove(Want(100, 50, any=True))
    assert not wants.covers(100, 150)
    wants.remove(Want(100, 50, any=True))
    for number in range(MAX_ANY):
        wants.add(Want(1_000 * number, 10, any=True))
    assert not wants_all(wants)
    wants.add(Want(0, 1 << 40, any=True))
    assert wants_all(wants)
