"""Snapshots of a store that is suspended: its files are given back, and others may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore.corestore import open_corestore
from hypercore.errors import SnapshotNotAvailable
from hypercore.events import Appended, Truncated
from hypercore.storage import Durability
from hypercore.storage.layout import auth_key
from hypercore.storage.rocks import RocksStorage


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
            assert [snapshot.has(index) for index in range(3)] == [True, False, False]
            await core.truncate(0)
            assert await snapshot.get(0) == b"one"
        await core.append(b"and on")


async def test_what_another_process_cut_off_is_gone(tmp_path: Path) -> None:
    """And what it wrote in the place of that is no part of the snapshot."""
    async with open_corestore(tmp_path) as store, await store.get(name="log") as core:
        await core.append([b"one", b"two", b"three"])
        async with core.snapshot() as snapshot:
            events, reader = core.events(), core.follow()
            assert [await anext(reader) for _ in range(3)] == [b"one", b"two", b"three"]
            await store.suspend()
            async with open_corestore(tmp_path) as other, await other.get(name="log") as same:
                await same.truncate(2)
                await same.append([b"3", b"4"])
            await store.resume()
            assert await core.get_many(range(4)) == [b"one", b"two", b"3", b"4"]
            assert (snapshot.length, snapshot.intact_length) == (3, 2)
            assert await snapshot.get_many([0, 1]) == [b"one", b"two"]
            assert not snapshot.has(2)
            with pytest.raises(SnapshotNotAvailable):
                await snapshot.get(2)
            assert await anext(events) == Truncated(2, 1)
            assert await anext(events) == Appended(2, 4)
            with pytest.raises(SnapshotNotAvailable):
                await anext(reader)
            await core.truncate(1)
            assert await snapshot.get_many([0, 1]) == [b"one", b"two"]
            assert not snapshot.has(2)


async def test_what_another_process_appended_cuts_nothing_off(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store, await store.get(name="log") as core:
        await core.append([b"one", b"two", b"three"])
        async with core.snapshot() as snapshot:
            events = core.events()
            await store.suspend()
            async with open_corestore(tmp_path) as other, await other.get(name="log") as same:
                await same.append(b"four")
            await store.resume()
            assert await anext(events) == Appended(3, 4)
            assert await snapshot.get_many(range(3)) == [b"one", b"two", b"three"]
            await core.truncate(0)
            assert await snapshot.get_many(range(3)) == [b"one", b"two", b"three"]


async def test_of_a_log_that_cannot_be_checked_anew_nothing_is_shown(tmp_path: Path) -> None:
    """Its blocks may be of any history, also when it can be read again later."""
    async with open_corestore(tmp_path) as store, await store.get(name="log") as core:
        await core.append([b"one", b"two", b"three"])
        async with core.snapshot() as snapshot:
            await store.suspend()
            async with open_corestore(tmp_path) as other, await other.get(name="log") as same:
                await same.truncate(1)
                await same.append([b"2", b"3"])
            storage = RocksStorage(tmp_path, Durability.OS)
            batch, auth = storage.batch(), storage.get(auth_key(0))
            batch.delete(auth_key(0))
            storage.commit(batch)
            storage.close()
            await store.resume()
            assert list(store.statistics().failures) == [core.discovery_key]
            assert not any(map(snapshot.has, range(3)))
            with pytest.raises(SnapshotNotAvailable):
                await snapshot.get(1)
            await store.suspend()
            storage = RocksStorage(tmp_path, Durability.OS)
            batch = storage.batch()
            assert auth is not None
            batch.put(auth_key(0), auth)
            storage.commit(batch)
            storage.close()
            await store.resume()
            assert await core.get_many(range(3)) == [b"one", b"2", b"3"]
            assert not any(map(snapshot.has, range(3)))
