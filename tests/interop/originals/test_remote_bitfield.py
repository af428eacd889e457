"""Follows hypercore 11.37.1 test/remote-bitfield.js, JavaScript on one side and us on the other.

The tests of its data structure are in `tests/hypercore/originals/test_remote_bitfield.py`: those
of one side alone.
"""

from __future__ import annotations

import pytest
import trio

from tests.interop.core_parties import DIRECTION_NAMES, DIRECTIONS, World, numbered

pytestmark = pytest.mark.interop

both_ways = pytest.mark.parametrize(("writes", "reads"), DIRECTIONS, ids=DIRECTION_NAMES)


@both_ways
async def test_remote_contiguous_length_consistency(world: World, writes: str, reads: str) -> None:
    a = await world.party(writes)
    b, c = await world.party(reads, a), await world.party(writes, a)
    await world.join(a, b)
    await world.join(b, c)
    await a.append(b"block0")
    await a.append(b"block1")
    assert await b.get(0) == b"block0"
    await c.until("contiguous", exactly=1, peer=0)


@both_ways
async def test_bitfields_are_sent_on_a_miss(world: World, writes: str, reads: str) -> None:
    a = await world.party(writes)
    sparse, empty = await world.party(writes, a), await world.party(reads, a)
    await a.append(*numbered(0, 5))
    await world.join(a, sparse)
    await sparse.get(2)
    await sparse.get(3)
    await world.join(sparse, empty)
    await empty.until("length", 5)
    assert (await empty.figures())["wire_bitfield_rx"] == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(empty.get, 1)  # nobody has it
        await empty.until("wire_bitfield_rx", 1)
        nursery.cancel_scope.cancel()
    assert (await empty.figures())["wire_want_tx"] == 1
