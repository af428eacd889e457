"""Which blocks are here: what is staged agrees with what is read back."""

from __future__ import annotations

import random

import pytest

from hypercore.held_blocks import HeldBlocks
from hypercore.log import Changeset, Head
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import CoreRecord, Hints
from hypercore.storage.memory import MemoryStorage


@pytest.fixture
def rows() -> CoreStorage:
    return CoreStorage(MemoryStorage(), bytes(32), CoreRecord(1, 1))


def changed(length: int | None = None, *blocks: int, truncated_to: int | None = None) -> Changeset:
    head = None if length is None else Head(0, length, 0, ())
    return Changeset(head, blocks=[(index, b"") for index in blocks], truncated_to=truncated_to)


def commit(rows: CoreStorage, held: HeldBlocks, length: int, *changes: Changeset) -> None:
    batch = rows.storage.batch()
    held.stage(batch, changes, length)
    rows.storage.commit(batch)


def stored_hints(rows: CoreStorage) -> Hints:
    return Hints.decode(rows.storage.get(rows.keys.hints) or b"\x00")


def test_bits_and_contiguous_length_follow_a_model(rows: CoreStorage) -> None:
    held, model, length = HeldBlocks(rows), set[int](), 0
    rng = random.Random(5)
    for _ in range(300):
        match rng.randrange(4):
            case 0:
                count = rng.randrange(1, 5)
                added = range(length, length + count)
                commit(rows, held, length, changed(length + count, *added))
                model.update(added)
                length += count
            case 1 if length:
                some = [rng.randrange(length) for _ in range(3)]
                commit(rows, held, length, changed(None, *some))
                model.update(some)
            case 2 if length:
                start = rng.randrange(length)
                stop = rng.randrange(start, length) + 1
                batch = rows.storage.batch()
                held.stage_clearing(batch, [(start, stop)])
                rows.storage.commit(batch)
                model.difference_update(range(start, stop))
            case 3 if length > 20:
                cut = rng.randrange(length - 10, length)
                # Cut and gone on with in one batch, as a changeset of a peer's fork is.
                commit(rows, held, length, changed(cut + 2, cut, truncated_to=cut))
                model = {index for index in model if index < cut} | {cut}
                length = cut + 2
        contiguous = next(index for index in range(length + 1) if index not in model)
        assert {index for index in range(length + 10) if held.bitfield.get(index)} == model
        assert held.hints.contiguous_length == contiguous
        assert stored_hints(rows) == held.hints
        assert [*rows.load_bitfield().to_words(0, length)] == [*held.bitfield.to_words(0, length)]


def test_what_was_staged_and_not_committed_is_taken_back(rows: CoreStorage) -> None:
    held = HeldBlocks(rows)
    commit(rows, held, 0, changed(3, 0, 1, 2))
    held.stage(rows.storage.batch(), [changed(9, *range(3, 9))], 3)
    held.stage_clearing(rows.storage.batch(), [(0, 1)])
    bitfield = held.bitfield
    held.reread(3)
    assert held.bitfield is bitfield
    assert [bitfield.get(index) for index in range(4)] == [True, True, True, False]
    assert held.hints.contiguous_length == 3


def test_restored_marks_close_the_gap(rows: CoreStorage) -> None:
    held = HeldBlocks(rows)
    commit(rows, held, 0, changed(4, 0, 3))
    batch = rows.storage.batch()
    held.stage_restored(batch, [1, 2], 4)
    rows.storage.commit(batch)
    assert stored_hints(rows) == held.hints == Hints(4)


def test_a_cut_costs_what_is_here_however_long_the_log_is_said_to_be(rows: CoreStorage) -> None:
    """Who writes a log may claim any length for it, and cut it the next moment."""
    held, length = HeldBlocks(rows), 2**50
    commit(rows, held, 0, changed(length, 3, 70_000, 2**49))
    batch = rows.storage.batch()
    held.stage_clearing(batch, [(70_000, length)])
    rows.storage.commit(batch)
    commit(rows, held, length, changed(2, truncated_to=2))
    assert rows.load_bitfield().first_set(0, length) is None
    assert held.bitfield.first_set(0, length) is None
