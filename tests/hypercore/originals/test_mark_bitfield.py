"""Marks on the disk: what hypercore's test/mark-bitfield.js asks, of `hypercore.marking`."""

from __future__ import annotations

import pytest

from hypercore.errors import CorruptStorage, UsageError
from hypercore.marking import MARKED_ROW, Marks, drop_marks, load_sweep
from hypercore.storage.layout import DataKeys
from hypercore.storage.memory import MemoryStorage
from hypercore.stored_log import StoredLog
from tests.support.stored_logs import open_log

PAGE_BITS = 32_768
KEYS = DataKeys(0)


class Unread:
    """A core of which nothing is read."""

    async def get_many(self, indices: object, /, *, wait: bool = True) -> list[bytes]:
        raise AssertionError(f"read {indices!r}, wait {wait}")


@pytest.fixture(scope="module")
def log() -> StoredLog:
    log = open_log(MemoryStorage())
    log.append([b""] * (2 * PAGE_BITS + 5000))
    return log


def mark(log: StoredLog, *indices: int) -> Marks:
    marks = Marks(Unread(), log)
    for index in indices:
        marks.add(index)
    return marks


def test_set_and_get(log: StoredLog) -> None:
    """MarkBitfield - basic."""
    marks = mark(log, 10)
    assert 10 in marks
    assert 11 not in marks
    assert "10" not in marks
    assert -1 not in marks


def test_marks_come_in_order(log: StoredLog) -> None:
    """MarkBitfield - createMarkStream(). Nothing needs them in reverse."""
    expected = [0, PAGE_BITS - 1, PAGE_BITS, 50_000, 70_000]
    assert list(mark(log, *reversed(expected))) == expected


def test_loading_from_the_storage(log: StoredLog) -> None:
    """MarkBitfield - load from storage."""
    kept = [0, PAGE_BITS - 1, PAGE_BITS, 2 * PAGE_BITS]
    mark(log, *kept).save(log.head.length, 0)
    storage = log.rows.storage
    pages = dict(storage.items(*KEYS.marks()))
    assert pages == {
        KEYS.mark(0): b"\x01" + bytes(4094) + b"\x80",
        KEYS.mark(1): b"\x01" + bytes(4095),
        KEYS.mark(2): b"\x01" + bytes(4095),
    }
    sweep = load_sweep(open_log(storage))
    assert [index for index in range(log.head.length) if sweep.marked.get(index)] == kept
    assert (sweep.length, sweep.fork) == (log.head.length, 0)
    drop_marks(log)
    assert list(storage.items(*KEYS.marks())) == []
    assert log.user_data(MARKED_ROW) is None
    with pytest.raises(UsageError, match="nothing was marked"):
        load_sweep(log)


def test_marks_made_by_javascript_come_without_a_length(log: StoredLog) -> None:
    drop_marks(log)
    batch = log.rows.storage.batch()
    batch.put(KEYS.mark(0), b"\x03" + bytes(4095))
    log.rows.storage.commit(batch)
    sweep = load_sweep(log)
    assert (sweep.length, sweep.fork) == (log.head.length, 0)
    assert sweep.next_blocks(log)[:2] == [2, 3]


def test_a_damaged_length_is_not_guessed(log: StoredLog) -> None:
    mark(log, 1).save(5, 0)
    log.set_user_data(MARKED_ROW, b"five 0")
    with pytest.raises(CorruptStorage, match="not two numbers"):
        load_sweep(log)
