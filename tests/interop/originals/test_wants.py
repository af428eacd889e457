"""Follows hypercore 11.37.1 test/wants.js on the wire: JavaScript on one side, us on the other.

The original's tests look at its notes on wants; these are in `tests/hypercore/originals/
test_wants.py`. Here both sizes of windows that JavaScript uses are asked for and answered, and
its wants for any block of a range.
"""

from __future__ import annotations

import pytest

from tests.interop.core_parties import DIRECTION_NAMES, DIRECTIONS, World

pytestmark = pytest.mark.interop

both_ways = pytest.mark.parametrize(("writes", "reads"), DIRECTIONS, ids=DIRECTION_NAMES)


@both_ways
@pytest.mark.parametrize("is_small", [False, True], ids=["large windows", "small windows"])
async def test_blocks_of_a_sparse_peer_are_found(
    world: World, writes: str, reads: str, is_small: bool
) -> None:
    await world.control("smallWants", enabled=is_small)
    try:
        a = await world.party(writes)
        await a.fill(9_000)
        await a.clear(0, 1)
        b = await world.party(reads, a)
        await world.join(a, b)
        for index in (1, 5_000, 8_999):
            assert await b.get(index) == b"#%d" % index
    finally:
        await world.control("smallWants", enabled=False)
    wants = (await b.figures())["wire_want_tx"]
    assert 1 <= wants <= 3
    assert (await a.figures())["wire_want_rx"] == wants


@both_ways
async def test_blocks_that_come_later_are_told_to_who_wants_them(
    world: World, writes: str, reads: str
) -> None:
    a = await world.party(writes)
    await a.fill(1_000)
    b, c = await world.party(reads, a), await world.party(writes, a)
    await world.join(a, b)
    await b.get(999)
    await world.join(b, c)
    await c.until("length", 1_000)
    cancel = await c.start_download(0, 300)
    await c.until("wire_want_tx", 1)
    await b.until("wire_want_rx", 1)
    await b.download(100, 200)
    await c.download(100, 200)
    await cancel()


async def test_javascripts_wants_for_any_block_are_answered(world: World) -> None:
    a = await world.ours()
    await a.fill(100)
    await a.clear(0, 40)
    b = await world.javascript(a)
    await world.join(a, b)
    await b.until("length", 100)
    await b("wantAny", start=10, length=50)
    await b.until("wire_range_rx", 1)
    assert (await b("remoteHas", start=30, stop=60))["has"] == [40]
