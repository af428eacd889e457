from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bee import Bee
from bee.node_reader import likely_place
from tests.support.bee_log import BeeLog

COUNTS = st.integers(1, 8)
STARTS = st.integers(0, 60_000)
STEPS = st.integers(1, 100)


def places_of(keys: list[bytes]) -> list[int | None]:
    """Where each of a node's keys is likely to be; the first and the last are around the node."""
    return [likely_place(key, keys[0], keys[-1], len(keys) - 2) for key in keys[1:-1]]


@given(COUNTS, STARTS, STEPS, st.binary(max_size=20))
def test_decimal_numbers_in_a_row_are_where_they_should_be(
    count: int, start: int, step: int, name: bytes
) -> None:
    keys = [name + b"%08d" % (start + step * number) for number in range(count + 2)]
    assert places_of(keys) == list(range(count))


@given(COUNTS, STARTS, STEPS, st.binary(max_size=4))
def test_binary_numbers_in_a_row_are_where_they_should_be(
    count: int, start: int, step: int, end: bytes
) -> None:
    numbers = [(1 << 24) + start + step * number for number in range(count + 2)]
    keys = [b"name/" + number.to_bytes(4, "big") + end for number in numbers]
    assert places_of(keys) == list(range(count))


@given(st.lists(st.binary(max_size=20), min_size=3, max_size=10, unique=True).map(sorted))
def test_a_likely_place_is_one_of_the_node(keys: list[bytes]) -> None:
    assert all(place is None or 0 <= place < len(keys) - 2 for place in places_of(keys))


async def test_of_numbered_keys_a_leaf_reads_the_block_of_the_wanted_one_alone() -> None:
    log = BeeLog()
    keys = [b"%05d" % number for number in range(1_000)]
    async with Bee(log).batch() as batch:
        for key in keys:
            await batch.put(key, b"value of " + key)
    reads: list[int] = []

    class CountingLog(BeeLog):
        def get_local(self, index: int) -> bytes | None:
            reads.append(index)
            return super().get_local(index)

    bee = Bee(CountingLog(log.blocks))
    random.Random(1).shuffle(keys)
    for key in keys:
        entry = await bee.get(key)
        assert entry is not None
        assert entry.value == b"value of " + key
    # A block for each value, one for each of some 250 nodes, and the keys of the inner ones.
    assert len(reads) < 1.5 * len(keys)
