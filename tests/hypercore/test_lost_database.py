"""A database that cannot be opened, or is not there, when the store goes on with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore import Core, Corestore, CorruptStorage, StorageFailed, StoreSuspended, open_corestore
from tests.support.full_disk import full_disk


async def fill(store: Corestore) -> Core:
    core = await store.get(name="log")
    await core.append([b"one", b"two"])
    return core


@pytest.mark.parametrize("lost", ["db/CURRENT", "db"])
async def test_a_store_recovers_when_its_files_are_back(tmp_path: Path, lost: str) -> None:
    path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    async with open_corestore(path) as store:
        core = await fill(store)
        with full_disk(), pytest.raises(StorageFailed):
            await core.append(b"three")
        (path / lost).rename(elsewhere)
        for _ in range(2):
            with pytest.raises(StorageFailed, match="cannot be written yet"):
                await store.recover()
            with pytest.raises(StorageFailed, match="until it recovers"):
                await core.get(0)
            with pytest.raises(StorageFailed):
                await store.get(name="log of the same name elsewhere")
        assert store.has_failed
        assert not (path / lost).exists(), "no other one was made in its place"
        elsewhere.rename(path / lost)
        await store.recover()
        assert await core.get(1) == b"two"
        assert await core.append(b"three") == 2
    async with open_corestore(path) as store:
        assert (await store.get(name="log")).length == 3


async def test_a_store_whose_files_never_came_back_can_be_closed(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    async with open_corestore(path) as store:
        core = await fill(store)
        with full_disk(), pytest.raises(StorageFailed):
            await core.append(b"three")
        (path / "db").rename(elsewhere)
        with pytest.raises(StorageFailed):
            await store.recover()
    elsewhere.rename(path / "db")
    async with open_corestore(path) as store:
        assert (await store.get(name="log")).length == 2


async def test_no_store_is_made_in_place_of_one_that_is_gone(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    async with open_corestore(path) as store:
        core = await fill(store)
        await store.suspend()
        (path / "db").rename(elsewhere)
        with pytest.raises(CorruptStorage, match="is gone"):
            await store.resume()
        assert store.is_suspended
        (path / "db").rmdir()
        elsewhere.rename(path / "db")
        await store.resume()
        assert await core.append(b"three") == 2


async def test_a_store_that_was_put_in_place_of_another_is_left_alone(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    async with open_corestore(path) as store:
        core = await fill(store)
        await core.close()
        await store.suspend()
        path.rename(elsewhere)
        async with open_corestore(path):
            pass
        with pytest.raises(CorruptStorage, match="another store"):
            await store.resume()
        with pytest.raises(StoreSuspended):
            await store.get(name="log")  # of which the first block would be signed once more
        async with open_corestore(path) as other:
            assert other.names() == []
