"""Follows hypercore 11.37.1 test/remote-length.js, with JavaScript on one side and us on the other.

All tests of the original have their counterpart here. Where it looks at its own notes on a remote
block, we look at what can be read.
"""

from __future__ import annotations

import pytest
import trio

from tests.interop.core_parties import DIRECTION_NAMES, DIRECTIONS, World

pytestmark = pytest.mark.interop

both_ways = pytest.mark.parametrize(("writes", "reads"), DIRECTIONS, ids=DIRECTION_NAMES)

BITS_PER_PAGE = 32_768


@both_ways
async def test_the_writer_announces_the_new_contiguous_length(
    world: World, writes: str, reads: str
) -> None:
    a = await world.party(writes)
    b = await world.party(reads, a)
    await world.join(a, b)
    assert (await b.peers())[0]["contiguous"] == 0
    for length in (1, 2):
        await a.append(b"%d" % length)
        await b.until("contiguous", exactly=length, peer=0)


@both_ways
async def test_contiguous_length_is_announced_on_update(
    world: World, writes: str, reads: str
) -> None:
    a = await world.party(writes)
    b, c = await world.party(reads, a), await world.party(writes, a)
    await world.join(a, b)
    await world.join(b, c)
    await a.append(b"a", b"b")
    await b.until("contiguous", exactly=2, peer="any")
    assert (await c.peers())[0]["contiguous"] == 0
    ranges = (await a.peers())[0]["wire_range_rx"]
    await b.get(0)
    assert await c.get(0) == b"a"
    # Who has the block already is not told.
    assert (await a.peers())[0]["contiguous"] == 0
    assert (await a.peers())[0]["wire_range_rx"] == ranges


@both_ways
async def test_ranges_are_announced_of_a_big_core(world: World, writes: str, reads: str) -> None:
    length = BITS_PER_PAGE + 10
    a = await world.party(writes)
    b, c = await world.party(reads, a), await world.party(writes, a)
    await world.join(a, b)
    await world.join(b, c)
    await a.fill(length)
    await c.until("length", length)
    last = length - 1
    assert await b.get(last) == b"#%d" % last
    assert await c.get(last) == b"#%d" % last
    ranges = (await a.peers())[0]["wire_range_rx"]
    with trio.move_on_after(0.1) as scope:
        await c.get(last - 1)
    assert scope.cancelled_caught, "b does not have it"
    assert (await a.peers())[0]["wire_range_rx"] == ranges == 0


@both_ways
async def test_truncation_is_announced(world: World, writes: str, reads: str) -> None:
    a = await world.party(writes)
    b = await world.party(reads, a)
    await world.join(b, a)
    await a.append(b"a", b"b")
    await b.until("contiguous", exactly=2, peer=0)
    await a.truncate(1)
    await b.until("contiguous", exactly=1, peer=0)
