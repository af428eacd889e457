"""Follows hypercore 11.37.1 test/extension.js, with JavaScript on one side and us on the other.

All tests of the original have their counterpart here.
"""

from __future__ import annotations

import pytest

from tests.interop.core_parties import DIRECTION_NAMES, DIRECTIONS, World

pytestmark = pytest.mark.interop

both_ways = pytest.mark.parametrize(("writes", "reads"), DIRECTIONS, ids=DIRECTION_NAMES)


@both_ways
async def test_basic_extension(world: World, writes: str, reads: str) -> None:
    a = await world.party(writes)
    b = await world.party(reads, a)
    for party in (a, b):
        await party.extension("test-extension")
    await world.join(a, b)
    await b.send_extension("test-extension", "hello")
    await b.send_extension("test-extension", "world")
    assert await a.extension_texts(2) == ["hello", "world"]
    await a.send_extension("test-extension", "and back")
    assert await b.extension_texts(1) == ["and back"]


@both_ways
async def test_two_extensions(world: World, writes: str, reads: str) -> None:
    """What comes before it is handled is ignored, even as the name that the next one repeats."""
    a = await world.party(writes)
    b = await world.party(reads, a)
    await world.join(a, b)
    for name in ("test-extension-1", "test-extension-2"):
        await b.extension(name)
    await a.extension("test-extension-1")
    await b.send_extension("test-extension-2", "world")
    # Once this has come, that has, too.
    await b.send_extension("test-extension-1", "first")
    assert await a.extension_texts(1) == ["first"]
    await b.send_extension("test-extension-2", "again ignored")
    await b.send_extension("test-extension-1", "second")
    assert await a.extension_texts(2) == ["first", "second"]
    await a.extension("test-extension-2")
    await b.send_extension("test-extension-2", "hello")
    assert (await a.extension_texts(3))[2] == "hello"
