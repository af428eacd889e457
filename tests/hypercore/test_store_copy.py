"""A store that is copied while it is used."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from hypercore import StorageFailed, UsageError, copy_store, open_corestore


@pytest.fixture(params=["same disk", "other disk"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if request.param == "same disk" or not memory.is_dir():
        yield tmp_path / "copy"
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory) / "deep" / "copy"


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
