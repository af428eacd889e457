"""A store that is copied while it is used."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from rocksdict import Checkpoint, Rdict

from hypercore import StorageFailed, UsageError, copy_store, open_corestore


@pytest.fixture(params=["same disk", "other disk"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    # The tests themselves may run in memory.
    others = [path for path in map(Path, ("/dev/shm", "/var/tmp")) if not is_near(path, tmp_path)]
    if request.param == "same disk" or not others:
        yield tmp_path / "copy"
        return
    with tempfile.TemporaryDirectory(dir=others[0]) as directory:
        yield Path(directory) / "deep" / "copy"


def is_near(path: Path, other: Path) -> bool:
    return not path.is_dir() or path.stat().st_dev == other.stat().st_dev


async def test_a_copy_holds_what_was_committed_and_goes_its_own_way(
    tmp_path: Path, target: Path
) -> None:
    async with open_corestore(tmp_path / "store") as store:
        core = await store.get(name="log")
        await core.append([b"%d" % index for index in range(500)])
        await core.clear(100, 200)
        during: list[int] = []

        async def write() -> None:
            while len(during) < 50:
                during.append(await core.append(b"meanwhile"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await copy_store(store, target)
        await core.append(b"later")
        length = core.length
        assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["CORESTORE", "db"]
    async with open_corestore(target) as copied:
        assert not copied.is_read_only
        assert copied.names() == ["log"]
        other = await copied.get(name="log")
        assert 500 <= other.length < length
        assert other.key == core.key
        assert [await other.get(index) for index in (0, 99, 200, 499)] == [
            b"0",
            b"99",
            b"200",
            b"499",
        ]
        assert not other.has(150)
        async for progress in other.audit():
            assert not progress.damage
        await other.append(b"of the copy")
    async with open_corestore(tmp_path / "store") as store:
        core = await store.get(name="log")
        assert (core.length, await core.get(length - 1)) == (length, b"later")


async def test_a_copy_to_another_disk_that_is_given_up_leaves_nothing(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same disk it is made at once, and the files that it shares are not copied."""
    wanted, given_up = trio.Event(), threading.Event()

    class Interrupted:
        def __init__(self, database: Rdict) -> None:
            self._checkpoint = Checkpoint(database)

        def create_checkpoint(self, path: str) -> None:
            self._checkpoint.create_checkpoint(path)
            trio.from_thread.run_sync(wanted.set)
            given_up.wait()

    async with open_corestore(tmp_path / "store") as store:
        core = await store.get(name="log")
        await core.append(b"one")
        with monkeypatch.context() as patches:
            patches.setattr("hypercore.storage.rocks_upkeep.Checkpoint", Interrupted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy_store, store, target)
                await wanted.wait()
                nursery.cancel_scope.cancel()
                given_up.set()
        assert ("copy" in os.listdir(target.parent)) is is_near(target.parent, tmp_path)
        assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["CORESTORE", "db"]
        assert await core.append(b"goes on") == 1


async def test_a_store_in_memory_can_be_kept(tmp_path: Path) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        await copy_store(store, tmp_path / "kept")
    async with open_corestore(tmp_path / "kept") as kept:
        assert await (await kept.get(name="log")).get(1) == b"two"


async def test_a_place_that_is_taken_or_impossible_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with open_corestore(tmp_path / "store") as store:
        core = await store.get(name="log")
        with pytest.raises(UsageError, match="is there already"):
            await copy_store(store, tmp_path)
        with pytest.raises((OSError, StorageFailed)):
            await copy_store(store, tmp_path / "file" / "copy")
        assert await core.append(b"goes on") == 0
    async with open_corestore(tmp_path / "store", read_only=True) as store:
        with pytest.raises(UsageError, match="copy its files"):
            await copy_store(store, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
