"""Blocks that are marked, however many they are said to be."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hypercore import open_corestore
from hypercore.bitfield import PAGE_BITS, PAGE_BYTES, Bitfield
from hypercore.crypto import KeyPair
from hypercore.marked_blocks import MarkedBlocks
from tests.support.hostile_writers import HostileWriter
from tests.support.replicating_cores import replicating

LENGTH = 100 * PAGE_BITS
EDGES = st.integers(0, 100).map(lambda page: page * PAGE_BITS)
PLACES = st.builds(lambda edge, off: min(max(edge + off, 0), LENGTH), EDGES, st.integers(-2, 2))
RANGES = st.lists(st.tuples(PLACES, PLACES).map(sorted), max_size=6)


@given(RANGES, st.lists(PLACES, max_size=20))
def test_they_are_what_was_marked(ranges: list[list[int]], places: list[int]) -> None:
    marked, model, held = MarkedBlocks(), Bitfield(), Bitfield()
    for start, stop in ranges:
        marked.add_range(start, stop)
        model.set_range(start, stop)
    for place in places:
        held.set_range(place, place + 1)
        assert marked.get(place) == model.get(place)
    for start in (0, *places):
        assert marked.missing(held, start, LENGTH, 5) == model.missing(held, start, LENGTH, 5)
    assert marked.runs == sorted(marked.runs)
    assert all(one[1] < two[0] for one, two in zip(marked.runs, marked.runs[1:], strict=False))
    pages = dict(marked.pages(held))
    for page in {*held.pages(), *marked.bits.pages()}:
        assert pages.get(page, bytes(PAGE_BYTES)) == model.page_bytes(page)
    assert list(marked.up_to(PAGE_BITS + 3)) == list(model.held(0, PAGE_BITS + 3))


class CountedBits(Bitfield):
    looks = 0

    def missing(self, other: Bitfield, start: int, stop: int, limit: int) -> list[int]:
        self.looks += 1
        return super().missing(other, start, stop, limit)


def test_each_page_is_looked_at_once() -> None:
    """Not anew for each of the pieces in which a sweep gives up the rest."""
    marked, held = MarkedBlocks(), Bitfield()
    bits = marked.bits = CountedBits()
    held.set_range(0, LENGTH)
    for page in range(0, 90, 10):
        marked.add_range(page * PAGE_BITS, (page + 10) * PAGE_BITS)
    start = pieces = 0
    while blocks := marked.missing(held, start, LENGTH, PAGE_BITS // 4):
        held.set_range(blocks[0], blocks[-1] + 1, False)
        start = blocks[-1] + 1
        pieces += 1
    assert pieces == 40
    assert bits.looks <= 100 + pieces


async def test_what_comes_after_it_was_marked_stays(tmp_path: Path) -> None:
    """Also of a log that is said to be so long, and after the store was opened again."""
    writer = HostileWriter(KeyPair.from_seed(b"h" * 32))
    async with open_corestore(None) as far:
        theirs = await far.get(key=writer.key)
        await theirs.commit_pieces([writer.claim(2**45)])
        async with open_corestore(tmp_path) as store:
            copy = await store.get(key=writer.key)
            async with replicating(theirs, copy):
                await copy.wait_length(1)
                async with copy.marking() as marks:
                    marks.add_range(0, copy.length)
                    assert list(islice(marks, 3)) == [0, 1, 2]
                    assert copy.length - 1 in marks
                assert not copy.has(0)
                await copy.get(0)
        async with open_corestore(tmp_path) as store:
            copy = await store.get(key=writer.key)
            assert await copy.sweep() == 0
            assert copy.has(0)
