"""The bitfield against a plain set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.bitfield import PAGE_BITS, PAGE_BYTES, Bitfield, pages_of

LIMIT = 3 * PAGE_BITS
EDGES = [0, 1, 31, 32, PAGE_BITS - 1, PAGE_BITS, PAGE_BITS + 1, 2 * PAGE_BITS, LIMIT]
positions = st.one_of(st.sampled_from(EDGES), st.integers(0, LIMIT))
ranges = st.tuples(positions, positions).map(lambda pair: (min(pair), max(pair)))
changes = st.lists(st.tuples(ranges, st.booleans()), max_size=8)


def build(steps: list[tuple[tuple[int, int], bool]]) -> tuple[Bitfield, set[int]]:
    bitfield, model = Bitfield(), set[int]()
    for (start, stop), value in steps:
        bitfield.set_range(start, stop, value)
        if value:
            model.update(range(start, stop))
        else:
            model.difference_update(range(start, stop))
    return bitfield, model


@given(changes, ranges)
def test_it_is_a_set_of_numbers(
    steps: list[tuple[tuple[int, int], bool]], window: tuple[int, int]
) -> None:
    bitfield, model = build(steps)
    start, stop = window
    inside = sorted(index for index in model if start <= index < stop)
    assert bitfield.count(start, stop) == len(inside)
    assert bitfield.first_set(start, stop) == (inside[0] if inside else None)
    assert bitfield.has_range(start, stop) == (len(inside) == stop - start)
    unset = start
    while unset in model:
        unset += 1
    assert bitfield.first_unset(start) == unset
    for index in (start, stop, *EDGES):
        assert bitfield.get(index) == (index in model)


@given(changes, changes, ranges, st.integers(0, 5))
def test_what_is_missing(
    ours: list[tuple[tuple[int, int], bool]],
    theirs: list[tuple[tuple[int, int], bool]],
    window: tuple[int, int],
    limit: int,
) -> None:
    bitfield, model = build(ours)
    other, other_model = build(theirs)
    start, stop = window
    missing = sorted(index for index in other_model - model if start <= index < stop)
    assert bitfield.first_missing(other, start, stop) == (missing[0] if missing else None)
    assert bitfield.missing(other, start, stop, limit) == missing[:limit]


@given(changes)
def test_pages_round_trip(steps: list[tuple[tuple[int, int], bool]]) -> None:
    bitfield, model = build(steps)
    copy = Bitfield()
    for number in bitfield.pages():
        data = bitfield.page_bytes(number)
        assert len(data) == PAGE_BYTES
        copy.load_page(number, data)
    assert copy.count(0, LIMIT) == len(model)
    assert bitfield.missing(copy, 0, LIMIT, LIMIT) == []
    assert copy.missing(bitfield, 0, LIMIT, LIMIT) == []


@given(changes, ranges)
def test_words_are_the_bits_of_whole_words(
    steps: list[tuple[tuple[int, int], bool]], window: tuple[int, int]
) -> None:
    bitfield, model = build(steps)
    start, stop = window[0] // 32 * 32, window[1]
    words = bitfield.to_words(start, stop)
    end = start + 8 * len(words)
    assert stop <= end < stop + 32
    bits = int.from_bytes(words, "little")
    assert bits.bit_count() == sum(start <= index < end for index in model)
    assert all(bits >> (index - start) & 1 for index in model if start <= index < end)


@given(changes, changes, ranges)
def test_a_range_of_another_one_is_copied(
    steps: list[tuple[tuple[int, int], bool]],
    other_steps: list[tuple[tuple[int, int], bool]],
    window: tuple[int, int],
) -> None:
    bitfield, model = build(steps)
    other, other_model = build(other_steps)
    copied = set(range(*window))
    bitfield.copy_range(other, *window)
    model = (model - copied) | (other_model & copied)
    assert set(bitfield.held(0, LIMIT)) == model
    assert set(other.held(0, LIMIT)) == other_model


def test_bits_are_least_significant_first() -> None:
    bitfield = Bitfield()
    for index in (0, 9, PAGE_BITS + 2):
        bitfield.set_range(index, index + 1)
    assert bitfield.page_bytes(0)[:2] == b"\x01\x02"
    assert bitfield.page_bytes(1)[0] == 4
    assert bitfield.to_words(0, 10) == b"\x01\x02\x00\x00"
    assert bitfield.pages() == [0, 1]


def test_pages_short_and_long() -> None:
    bitfield = Bitfield()
    bitfield.set_range(0, PAGE_BITS)
    bitfield.load_page(0, b"\xff")
    assert bitfield.first_unset() == 8
    assert bitfield.count(0, PAGE_BITS) == 8
    with pytest.raises(ValueError, match="4097"):
        bitfield.load_page(0, bytes(PAGE_BYTES + 1))
    assert bitfield.page_bytes(7) == bytes(PAGE_BYTES)


def test_clearing_and_reading_make_no_pages() -> None:
    bitfield = Bitfield()
    bitfield.set_range(0, 2**60, value=False)
    bitfield.copy_range(Bitfield(), 0, 512)
    assert not bitfield.get(2**52)
    assert bitfield.count(0, 2**60) == 0
    assert bitfield.first_set(0, 2**60) is None
    assert bitfield.first_unset(2**52) == 2**52
    assert bitfield.pages() == []


def test_pages_of_a_range() -> None:
    assert list(pages_of(5, 5)) == []
    assert list(pages_of(0, PAGE_BITS)) == [0]
    assert list(pages_of(PAGE_BITS - 1, PAGE_BITS + 1)) == [0, 1]
