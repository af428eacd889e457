"""Follows hypercore 11.37.1 test/push.js, with JavaScript on one side and us on the other.

All tests of the original have their counterpart here; "push mode" and "non active disables push
mode" of replicate.js are in `test_replicate.py`.
"""

from __future__ import annotations

import pytest
import trio

from hypercore.replication.settings import PushMode
from tests.interop.core_parties import (
    DIRECTION_NAMES,
    DIRECTIONS,
    JS,
    JavaScriptParty,
    Party,
    World,
    numbered,
)

pytestmark = pytest.mark.interop

both_ways = pytest.mark.parametrize(("writes", "reads"), DIRECTIONS, ids=DIRECTION_NAMES)


async def pushed_to(world: World, writes: str, reads: str) -> tuple[Party, Party]:
    """A writer, and a reader that takes pushes and asks for nothing."""
    a = await world.party(writes)
    b = await world.party(reads, a)
    await b.set_push(PushMode.ONLY)
    await world.join(a, b)
    await a.until("allows_push", exactly=True, peer=0)
    return a, b


@both_ways
async def test_no_requests_in_push_only_mode(world: World, writes: str, reads: str) -> None:
    a, b = await pushed_to(world, writes, reads)
    await a.append(b"1", b"2", b"3")
    found: dict[int, bytes] = {}

    async def get(index: int) -> None:
        found[index] = await b.get(index)

    async with trio.open_nursery() as nursery:
        for index in range(3):
            nursery.start_soon(get, index)
        await b.until("wire_range_rx", 1)
        assert not found
        for index in range(3):
            await a.push(index)
    assert found == {0: b"1", 1: b"2", 2: b"3"}
    # JavaScript asks for the manifest all the same.
    assert (await b.figures())["wire_request_tx"] <= (1 if reads == JS else 0)
    assert (await b.figures())["length"] == 3


@both_ways
async def test_push_and_pull_concurrently(world: World, writes: str, reads: str) -> None:
    a, b = await pushed_to(world, writes, reads)
    for index in range(20):
        await a.append(b"%d" % index)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.get_forced, 10)
        for index in range(20, 30):
            await a.append(b"%d" % index)
            await a.push(index)
    await b.until("length", 30)
    assert await b.get(29) == b"29"
    assert await b.has(10, 11)
    assert not await b.has(0, 10)


@both_ways
async def test_push_before_append(world: World, writes: str, reads: str) -> None:
    """A push before the appended length is told: nothing breaks, and the length comes."""
    a = await world.party(writes)
    b = await world.party(reads, a)
    await b.set_push(PushMode.ALLOWED)
    await world.join(a, b)
    await a.until("allows_push", exactly=True, peer=0)
    if isinstance(a, JavaScriptParty):
        await a("pushWhileAppending", blocks=[b"hello world".hex()])
    else:
        await a.push(0)
        await a.append(b"hello world")
    await b.until("length", 1)
    assert await b.get(0) == b"hello world"


@both_ways
async def test_pushes_go_on_after_a_reconnect(world: World, writes: str, reads: str) -> None:
    """What the receiver has by then is the base of the next proofs."""
    a = await world.party(writes)
    await a.append(*numbered(0, 5))
    b = await world.party(reads, a)
    part = await world.join(a, b)
    await b.get(0)
    await part()
    await b.set_push(PushMode.ONLY)
    await world.join(b, a)
    await a.until("allows_push", exactly=True, peer=0)
    await a.append(b"#5")
    await a.push(5)
    assert await b.get(5) == b"#5"
    await a.push(2)
    assert await b.get(2) == b"#2"


@both_ways
async def test_reads_work_where_pushes_are_allowed(world: World, writes: str, reads: str) -> None:
    """An answer that builds on pushes still finds its place; so does what is asked for."""
    a = await world.party(writes)
    await a.append(*numbered(0, 5))
    b = await world.party(reads, a)
    part = await world.join(a, b)
    await b.until("length", 5)
    await part()
    await b.set_push(PushMode.ALLOWED)
    await world.join(a, b)
    for index in range(5, 25):
        await a.append(b"#%d" % index)
        await a.push(index)
        assert await b.get(index) == b"#%d" % index
    await b.download(0, 25)
    assert (await b.figures())["contiguous"] == 25
