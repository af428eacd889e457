"""What is no number of a version, of a block or of entries is refused as what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from bee import Bee, BlobId, Blobs
from hypercore import open_corestore


async def no_blobs() -> AsyncIterator[BlobId]:
    return
    yield


async def range_of_batch(bee: Bee[bytes, bytes], limit: Any) -> None:
    async with bee.batch() as batch:
        batch.range(limit=limit)


CALLS: list[Callable[[Bee[bytes, bytes], Blobs, Any], Any]] = [
    lambda bee, _, number: bee.range(limit=number),
    lambda bee, _, number: bee.range(since=number),
    lambda bee, _, number: bee.history(limit=number),
    lambda bee, _, number: bee.diff(1, limit=number),
    lambda bee, _, number: bee.checkout(number),
    lambda bee, _, number: bee.checkout(2).range(since=number),
    lambda bee, _, number: bee.compact(since=number, dry_run=True),
    lambda bee, _, number: bee.compact(versions=[1, number], dry_run=True),
    lambda bee, _, number: bee.compact(lengths=[number]),
    lambda bee, _, number: range_of_batch(bee, number),
    lambda _, blobs, number: blobs.keep_only(no_blobs(), since=number),
]


async def attempt(call: Callable[[], Any]) -> None:
    result = call()
    if isinstance(result, Awaitable):
        await result


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [1.0, 1.5, True])
async def test_a_number_is_a_whole_one(
    call: Callable[[Bee[bytes, bytes], Blobs, Any], Any], number: Any
) -> None:
    """Some read something else than was asked for, or said that a block was out of range."""
    async with open_corestore(None) as store:
        bee = Bee(await store.get(name="bee"))
        await bee.put(b"key", b"value")
        blobs = Blobs(await store.get(name="blobs"))
        with pytest.raises(TypeError, match=r"is int, not (float|bool)"):
            await attempt(lambda: call(bee, blobs, number))


@pytest.mark.parametrize("number", [1.5, True])
async def test_a_blob_has_blocks_of_whole_bytes(number: Any) -> None:
    async with open_corestore(None) as store:
        with pytest.raises(TypeError, match="block_bytes is int, not"):
            Blobs(await store.get(name="blobs"), block_bytes=number)
