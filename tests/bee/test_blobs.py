"""Blobs in a log, and a bee whose large values are blobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from hypothesis import given
from hypothesis import strategies as st

from bee import BlobId, Blobs
from hypercore import Core, open_corestore

LIMIT_SECONDS = 20


@asynccontextmanager
async def remote_of(core: Core) -> AsyncIterator[Core]:
    """An empty replica of it, connected."""
    raise NotImplementedError
    yield core


@given(st.data())
def test_any_part_of_any_blob(data: st.DataObject) -> None:
    block_bytes = data.draw(st.integers(1, 9))
    contents = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))

    async def run() -> None:
        async with open_corestore(None) as store:
            core = await store.get(name="blobs")
            blobs = Blobs(core, block_bytes=block_bytes)
            ids = [await blobs.put(content) for content in contents]
            # Somebody who cuts otherwise, or believes that others do.
            reader = Blobs(core, block_bytes=data.draw(st.integers(1, 9)))
            for blob, content in zip(ids, contents, strict=True):
                assert BlobId.decode(blob.encode()) == blob == BlobId.from_json(blob.to_json())
                assert await reader.get(blob) == content
                start = data.draw(st.integers(0, len(content)))
                stop = data.draw(st.integers(start, len(content)))
                assert await reader.get(blob, start, stop) == content[start:stop]

    trio.run(run)
