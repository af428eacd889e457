"""Bits that change in one commit: what hypercore's test/bit-interlude.js asks.

There, changes gather in a list of ranges before they are applied; here they go into the bitfield
and its pages into the batch, so that the same orders of ranges are tested on `Bitfield`.
"contiguousLength" is counted from 0 here, whatever index it is asked for. The two tests of ranges
that bridge others look into that list; what can be seen of it is tested against a plain set.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.bitfield import Bitfield

Change = tuple[int, int, bool]


def apply(changes: Sequence[Change]) -> Bitfield:
    bitfield = Bitfield()
    for change in changes:
        bitfield.set_range(*change)
    return bitfield


@pytest.mark.parametrize(
    ("changes", "held", "missing", "contiguous"),
    [
        pytest.param(
            [(0, 5, True), (10, 15, True), (16, 20, True)], [3, 10, 18], [7, 15], 5, id="basic"
        ),
        pytest.param([(0, 20, True), (15, 20, False)], [7], [15, 18], 15, id="drop"),
        pytest.param(
            [(0, 20, True), (0, 10, False), (15, 20, False)],
            [12],
            [7, 15, 18],
            0,
            id="drop multiple",
        ),
        pytest.param(
            [(0, 10, True), (7, 12, False), (15, 20, True), (2, 3, False)],
            [0, 3, 15, 18],
            [2, 7, 12],
            2,
            id="set & drop",
        ),
        pytest.param(
            [(0, 5, True), (7, 10, True), (5, 8, False), (10, 11, False), (11, 12, True)],
            [4, 8, 9, 11],
            [5, 7, 10],
            5,
            id="setRange bridges undefine region updates higher range",
        ),
        pytest.param(
            [(0, 5, True), (7, 10, False), (5, 8, False)],
            [0, 4],
            [5, 7, 9],
            5,
            id="setRange overlap but next range is same",
        ),
    ],
)
def test_ranges(
    changes: list[Change], held: list[int], missing: list[int], contiguous: int
) -> None:
    bitfield = apply(changes)
    assert all(bitfield.get(index) for index in held)
    assert not any(bitfield.get(index) for index in missing)
    assert bitfield.first_unset(0) == contiguous


RANGES = st.tuples(st.integers(32_740, 32_800), st.integers(0, 40), st.booleans()).map(
    lambda drawn: (drawn[0], drawn[0] + drawn[1], drawn[2])
)


@given(st.lists(RANGES, max_size=12))
def test_any_ranges_in_any_order(changes: list[Change]) -> None:
    expected: set[int] = set()
    for start, stop, value in changes:
        indices = set(range(start, stop))
        expected = expected | indices if value else expected - indices
    bitfield = apply(changes)
    assert {index for index in range(32_700, 32_900) if bitfield.get(index)} == expected
