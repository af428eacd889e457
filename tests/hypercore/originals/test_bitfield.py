"""Which blocks are here: what hypercore's test/bitfield.js asks, of `hypercore.bitfield`.

Without a counterpart: searching for the last bit (findLast, lastUnset), which nothing here needs.
The original also searches for zeros and ones by one call; here these are `first_unset` and
`first_set`, and the latter has an end.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hypercore.bitfield import PAGE_BITS, Bitfield, pages_of
from hypercore.storage import Durability
from hypercore.storage.layout import DataKeys
from hypercore.storage.rocks import RocksStorage

LARGEST = 2**53
BORDERS = [
    border + step
    for border in (2**15, 2**16, 2**21, 2**22)  # pages; what the original calls segments
    for step in (-1, 0, 1)
]


def bits(*ranges: tuple[int, int]) -> Bitfield:
    bitfield = Bitfield()
    for start, stop in ranges:
        bitfield.set_range(start, stop)
    return bitfield


def test_set_and_get() -> None:
    """bitfield - set and get."""
    bitfield = Bitfield()
    for index in (42, 42_000_000):
        assert not bitfield.get(index)
        bitfield.set_range(index, index + 1)
        assert bitfield.get(index)
    bitfield.set_range(42_000_000, 42_000_001, False)
    assert not bitfield.get(42_000_000)


def test_random_set_and_gets() -> None:
    """bitfield - random set and gets."""
    chance = random.Random(5)
    expected = {chance.randrange(LARGEST) for _ in range(200)}
    bitfield = bits(*((index, index + 1) for index in expected))
    for index in (chance.randrange(LARGEST) for _ in range(500)):
        assert bitfield.get(index) == (index in expected)
    assert all(bitfield.get(index) for index in expected)


def test_reload(tmp_path: Path) -> None:
    """bitfield - reload. There, only pages below a length are loaded; a log clears the rest."""
    keys = DataKeys(0)
    indices = (142, 40_000, 1_424_242_424)
    saved = bits(*((index, index + 1) for index in indices))
    storage = RocksStorage(tmp_path, Durability.OS)
    batch = storage.batch()
    for page in saved.pages():
        batch.put(keys.page(page), saved.page_bytes(page))
    storage.commit(batch)
    storage.close()
    storage = RocksStorage(tmp_path, Durability.OS)
    loaded = Bitfield()
    for key, page_bytes in storage.items(*keys.pages()):
        loaded.load_page(keys.page_number(key), page_bytes)
    storage.close()
    assert loaded.pages() == [index // PAGE_BITS for index in indices]
    assert all(loaded.get(index) for index in indices)
    assert loaded.count(0, 2**31) == 3


@pytest.mark.parametrize("kib", [0, 4, 13, 260])
def test_what_is_sent_of_an_empty_one(kib: int) -> None:
    """bitfield - want. There in pieces of 256 KiB; ours are what the writer can send."""
    stop = kib * 1024 * 8
    assert Bitfield().to_words(0, stop) == bytes(kib * 1024)
    assert Bitfield().to_words(0, stop + 1) == bytes(kib * 1024 + 4)


def test_an_index_as_large_as_any() -> None:
    """bitfield - sparse array overflow."""
    bitfield = bits((7_995_511_118_690_925, 7_995_511_118_690_926))
    assert bitfield.count(0, LARGEST) == 1


def test_count() -> None:
    """bitfield - count."""
    bitfield = bits((0, 2), (5, 6), (7, 9), (13, 14), (16, 19), (20, 25))
    assert bitfield.count(3, 18 + 3) == 8
    assert (18 + 3) - 3 - bitfield.count(3, 18 + 3) == 10


@pytest.mark.parametrize("index", [0, *BORDERS])
def test_the_first_in_an_empty_one(index: int) -> None:
    """bitfield - find first, all zeroes."""
    assert Bitfield().first_unset(index) == index
    assert Bitfield().first_set(index, LARGEST) is None


def test_the_first_in_a_full_one() -> None:
    """bitfield - find first, all ones."""
    bitfield = bits((0, 2**24))
    for index in (0, *BORDERS):
        assert bitfield.first_set(index, LARGEST) == index
        assert bitfield.first_unset(index) == 2**24
    assert bitfield.first_set(2**24, LARGEST) is None
    assert bitfield.first_unset(2**24) == 2**24


def test_around_the_border_of_a_page() -> None:
    """bitfield - find last, ones around page boundary; set range on page boundary."""
    bitfield = bits((32_767, 32_769))
    assert bitfield.first_set(0, LARGEST) == 32_767
    assert bitfield.first_unset(32_767) == 32_769
    assert not bitfield.get(32_766)
    assert bits((2032, 2058)).first_set(2048, LARGEST) == 2048


def test_clearing_a_page_that_is_not_there() -> None:
    """bitfield - set false range on page that does not yet exist."""
    bitfield = Bitfield()
    bitfield.set_range(32_769, 32_780, False)
    assert bitfield.pages() == []


def test_the_last_bits_before_a_border() -> None:
    """set last bits in segment and findFirst."""
    bitfield = bits((2_097_150, 2_097_151))
    assert bitfield.first_unset(2_097_150) == 2_097_151
    bitfield.set_range(2_097_151, 2_097_152)
    assert bitfield.first_unset(2_097_150) == 2_097_152
    assert bitfield.first_unset(2_097_151) == 2_097_152


def test_ranges_over_several_pages() -> None:
    """bitfield - setRange over multiple pages."""
    bitfield = bits((32_768, 32_769))
    assert [bitfield.get(index) for index in (0, 32_768, 32_769)] == [False, True, False]
    bitfield.set_range(0, 2 * PAGE_BITS, False)
    bitfield.set_range(PAGE_BITS, 2 * PAGE_BITS + 1)
    seen = [bitfield.get(index) for index in (0, PAGE_BITS, 2 * PAGE_BITS, 2 * PAGE_BITS + 1)]
    assert seen == [False, True, True, False]
    assert list(pages_of(PAGE_BITS, 2 * PAGE_BITS + 1)) == [1, 2]
