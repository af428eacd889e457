"""How much of a log a power cut leaves, while commits wait for the disk."""

from __future__ import annotations

from hypercore.durable_length import DurableLength
from hypercore.storage.memory import MemoryStorage


class SlowStorage(MemoryStorage):
    """Its disk is as far as the test says."""

    synced = 0

    @property
    def durable_sequence(self) -> int:
        return self.synced


def test_everything_counts_while_nothing_waits_for_the_disk() -> None:
    storage = SlowStorage()
    durable = DurableLength(storage)
    assert durable.of(7) == 7
    storage.synced = 3
    durable.note(8, 3, 7)  # told of before it was noted
    assert durable.of(8) == 8
    assert durable.sequence_of(8) is None


def test_the_length_follows_the_disk_commit_by_commit() -> None:
    storage = SlowStorage()
    durable = DurableLength(storage)
    for sequence, length in ((4, 10), (6, 25), (9, 30)):
        durable.note(length, sequence, 8)
    seen = []
    for storage.synced in range(3, 11):
        seen.append(durable.of(30))
    assert seen == [8, 10, 10, 25, 25, 25, 30, 30]


def test_the_commit_to_wait_for_is_the_first_that_is_long_enough() -> None:
    durable = DurableLength(SlowStorage())
    for sequence, length in ((4, 10), (6, 25)):
        durable.note(length, sequence, 0)
    assert [durable.sequence_of(length) for length in (1, 10, 11, 25, 26)] == [4, 4, 6, 6, None]


def test_nothing_of_a_log_that_was_cut_is_durable_before_the_cut_is() -> None:
    storage = SlowStorage()
    durable = DurableLength(storage)
    durable.note(10, 1, 6)
    durable.note_cut(4, 2)
    durable.note(7, 3, 4)
    storage.synced = 1
    assert durable.of(7) == -1
    assert [durable.sequence_of(length) for length in (4, 5)] == [2, 3]
    storage.synced = 2
    assert durable.of(7) == 4
    storage.synced = 3
    assert durable.of(7) == 7


def test_a_cut_to_nothing_has_to_be_durable_too() -> None:
    storage = SlowStorage()
    durable = DurableLength(storage)
    durable.note_cut(0, 2)
    assert durable.of(0) == -1
    durable.note(3, 3, 0)
    storage.synced = 1
    assert durable.of(3) == -1
    storage.synced = 2
    assert durable.of(3) == 0


def test_a_cut_counts_at_once_while_nothing_waits_for_the_disk() -> None:
    storage = SlowStorage()
    storage.synced = 2
    durable = DurableLength(storage)
    durable.note_cut(4, 2)
    assert durable.of(4) == 4


def test_what_waits_is_bounded_and_the_last_commits_count_as_one() -> None:
    storage = SlowStorage()
    durable = DurableLength(storage)
    for number in range(1, 5001):
        durable.note(number, number, number - 1)
    storage.synced = 1023
    assert durable.of(5000) == 1023
    storage.synced = 4999
    assert durable.of(5000) == 1023  # never more than the disk has
    assert durable.sequence_of(1024) == 5000
    storage.synced = 5000
    assert durable.of(5000) == 5000
