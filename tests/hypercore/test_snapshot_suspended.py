"""A snapshot of what was cut off does not keep the files of a suspended store."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore.corestore import open_corestore
from hypercore.errors import SnapshotNotAvailable


async def test_what_was_cut_off_is_gone_when_another_had_the_files(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store, await store.get(name="log") as core:
        await core.append([b"one", b"two", b"three"])
        async with core.snapshot() as snapshot:
            await core.truncate(1)
            assert await snapshot.get(2) == b"three"
            await store.suspend()
            async with open_corestore(tmp_path) as other, await other.get(name="log") as same:
                await same.append(b"of another process")
            await store.resume()
            assert await core.get(1) == b"of another process"
            assert await snapshot.get(0) == b"one"
            with pytest.raises(SnapshotNotAvailable):
                await snapshot.get(2)
        await core.append(b"and on")
