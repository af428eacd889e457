"""A store of which whole files are gone or cut off: what is left is saved, what is not is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from hypercore import (
    Core,
    CoreRecovering,
    Corestore,
    CorruptStorage,
    Durability,
    StorageFailed,
    open_corestore,
)
from hypercore.storage import WriteBatch
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import DataKeys
from hypercore.storage.log_file import BLOCK_BYTES, encode_log, payloads_of, records
from hypercore.storage.rocks import RocksStorage
from hypercore.storage.salvage import Salvage
from hypercore.store_repair import CoreRepair, repair_cores, salvage_store
from tests.support.replicating_cores import replicating

OLD = [b"old %d" % number for number in range(200)] + [b"o" * 9000]
NEW = [b"new %d" % number for number in range(100)] + [b"n" * 9000]


@pytest.fixture
async def source() -> AsyncIterator[Core]:
    async with open_corestore(None) as store:
        core = await store.get(name="theirs")
        await core.append(OLD)
        yield core


async def fill(path: Path, source: Core, *, killed_path: Path | None = None) -> None:
    """One table of what is old, and one of what is new, or no table at all of a killed process."""
    async with open_corestore(path, durability=Durability.OS) as store:
        log, copy = await store.get(name="log"), await store.get(key=source.key)
        await log.append(OLD)
        async with replicating(source, copy):
            await copy.wait_length(len(OLD))
            await copy.download(0, len(OLD))
            if killed_path is None:
                await store.reclaim()
            await log.append(NEW)
            await source.append(NEW)
            await copy.wait_length(len(OLD + NEW))
            await copy.download(len(OLD), len(OLD + NEW))
        if killed_path is not None:
            shutil.copytree(path, killed_path)


async def repair(path: Path) -> tuple[Salvage, dict[str | None, CoreRepair]]:
    with pytest.raises(CorruptStorage):
        async with open_corestore(path) as store:
            await store.get(name="log")
    salvage = await salvage_store(path)
    repairs = {item.name: item async for item in repair_cores(path, is_strict=bool(salvage.gaps))}
    damaged = [] if salvage.damaged is None else ["db.damaged"]
    assert sorted(os.listdir(path)) == ["CORESTORE", "db", *damaged]
    return salvage, repairs


async def fetch_again(path: Path, source: Core) -> None:
    async with open_corestore(path) as store:
        copy = await store.get(key=source.key)
        with trio.fail_after(20):
            async with replicating(source, copy):
                await copy.wait_length(source.length)
                await copy.download(0, source.length)
        assert await copy.get_many(range(source.length), wait=False) == OLD + NEW


def tables(path: Path) -> list[Path]:
    return sorted((path / "db").glob("*.sst"))


@pytest.mark.parametrize("is_killed", [False, True])
async def test_the_list_of_the_files_is_lost(is_killed: bool, source: Core, tmp_path: Path) -> None:
    """All rows are saved, those in blob files and in the log, too; nothing says that it is all."""
    path = tmp_path / ("killed" if is_killed else "store")
    await fill(tmp_path / "store", source, killed_path=path if is_killed else None)
    if is_killed:
        (path / "CORESTORE").unlink()  # it was copied, and is the one now
        assert not tables(path)
    for manifest in (path / "db").glob("MANIFEST-*"):
        manifest.unlink()
    salvage, repairs = await repair(path)
    assert [gap.reason for gap in salvage.gaps] == ["the list of the tables is lost"]
    assert {str(loss).partition(":")[2] for loss in salvage.lost} == {
        " its newest head may be lost; these of its blocks are lost, as far as they were here: any"
    }
    assert all(item.is_sound and not item.forgotten for item in repairs.values())
    async with open_corestore(path) as store:
        log = await store.get(name="log")
        assert await log.get_many(range(log.length)) == OLD + NEW
        with pytest.raises(CoreRecovering):
            await log.append(b"another history, perhaps")
        copy = await store.get(key=source.key)
        assert await copy.get_many(range(copy.length), wait=False) == OLD + NEW
    await fetch_again(path, source)


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_table_is_lost(is_gone: bool, source: Core, tmp_path: Path) -> None:
    await fill(tmp_path, source)
    _, newest = tables(tmp_path)
    if is_gone:
        newest.unlink()
    else:
        os.truncate(newest, newest.stat().st_size // 2)
    salvage, repairs = await repair(tmp_path)
    assert [gap.reason for gap in salvage.gaps] == [f"{newest.name} is lost"]
    assert len(salvage.lost) == 2
    assert all(loss.has_head for loss in salvage.lost)
    async with open_corestore(tmp_path) as store:
        log = await store.get(name="log")
        assert await log.get_many(range(len(OLD))) == OLD
        assert repairs["log"].is_writable
        with pytest.raises(CoreRecovering):
            await log.append(b"another history")
    await fetch_again(tmp_path, source)


async def test_our_own_core_comes_back_from_who_has_it(tmp_path: Path) -> None:
    """It lost its newest table."""
    async with open_corestore(None) as far:
        async with open_corestore(tmp_path, durability=Durability.OS) as store:
            log = await store.get(name="log")
            await log.append(OLD)
            await store.reclaim()
            await log.append(NEW)
            copy = await copied(log, far)
        tables(tmp_path)[-1].unlink()
        _, repairs = await repair(tmp_path)
        assert (repairs["log"].is_sound, repairs["log"].is_recovering) == (True, True)
        assert repairs["log"].carried_on_at is None
        async with open_corestore(tmp_path) as store:
            log = await store.get(name="log")
            with pytest.raises(CoreRecovering):
                await log.append(b"another history")
            async with replicating(log, copy):
                await log.recover(settle_seconds=0.1)
                assert await log.append(b"more") == len(OLD + NEW)
                assert await log.get_many(range(log.length)) == [*OLD, *NEW, b"more"]
        assert not copy.is_frozen


async def copied(log: Core, store: Corestore) -> Core:
    copy = await store.get(key=log.key)
    async with replicating(log, copy):
        await copy.wait_length(log.length)
        await copy.download(0, log.length)
    return copy


@pytest.mark.parametrize("head", ["older", "missing", "unreadable"])
@pytest.mark.parametrize("is_cleared", [True, False])
async def test_our_own_core_goes_on_where_its_head_alone_was_lost(
    head: str, is_cleared: bool, tmp_path: Path
) -> None:
    """As a fork that contradicts nothing, with all blocks; another head is there, or none."""
    async with open_corestore(None) as far:
        async with open_corestore(tmp_path) as store:
            log = await store.get(name="log")
            await log.append(OLD)
            head_key = head_key_of(store, log)
            older = store.storage.get(head_key)
            await log.append(NEW)
            copy = await copied(log, far)
            if is_cleared:
                await log.clear(10, 60)
            batch = store.storage.batch()
            if head == "missing":
                batch.delete(head_key)
            else:
                assert older is not None
                batch.put(head_key, older if head == "older" else b"\xff\xff")
            store.storage.commit(batch)
        salvage, repairs = await repair(tmp_path)
        assert salvage.damaged is None
        assert repairs["log"].carried_on_at == len(OLD + NEW)
        assert (repairs["log"].is_sound, repairs["log"].is_recovering) == (True, False)
        async with open_corestore(tmp_path) as store:
            log = await store.get(name="log")
            assert log.fork == 1 if head == "older" else log.fork > 1_700_000_000
            assert await log.append(b"more") == len(OLD + NEW)
            async with replicating(log, copy):
                with trio.fail_after(20):
                    while copy.fork != log.fork or copy.length != log.length:
                        await copy.wait_change(copy.length, copy.fork)
                    assert await copy.get(copy.length - 1) == b"more"
                    assert await copy.get_many(range(len(OLD + NEW))) == OLD + NEW
            assert not copy.is_frozen


def head_key_of(store: Corestore, core: Core) -> bytes:
    record = Catalog(store.storage).find(core.discovery_key)
    assert record is not None
    return DataKeys(record.data_pointer).head


async def test_the_table_that_says_which_cores_there_are_is_lost(
    source: Core, tmp_path: Path
) -> None:
    """A core of ours that is not known any more would begin another history."""
    await fill(tmp_path, source)
    oldest, _ = tables(tmp_path)
    content = oldest.read_bytes()
    oldest.unlink()
    with pytest.raises(CorruptStorage, match="what cores it has"):
        await salvage_store(tmp_path)
    assert not (tmp_path / "db.damaged").exists()
    assert not (tmp_path / "rebuilt").exists()
    for manifest in (tmp_path / "db").glob("MANIFEST-*"):
        manifest.unlink()
    with pytest.raises(CorruptStorage, match="what cores it has"):
        await salvage_store(tmp_path)
    oldest.write_bytes(content)  # for somebody has a copy of it
    salvage, repairs = await repair(tmp_path)
    assert all(item.is_sound for item in repairs.values())
    assert salvage.damaged is not None


async def test_blocks_that_only_we_had_are_named(source: Core, tmp_path: Path) -> None:
    """Found in review: a mark went with each of them, so that they seemed to be cleared."""
    await fill(tmp_path, source)
    blob, *_ = sorted((tmp_path / "db").glob("*.blob"))
    blob.unlink()
    salvage = await salvage_store(tmp_path)
    by_name = {loss.name: loss for loss in salvage.lost}
    assert by_name["log"].is_ours
    assert by_name["log"].blocks == ((len(OLD) - 1, len(OLD)),)
    assert f" {len(OLD) - 1}" in str(by_name["log"])
    repairs = [item async for item in repair_cores(tmp_path, is_strict=True)]
    assert [item.is_sound for item in repairs if not item.is_writable] == [True]
    await fetch_again(tmp_path, source)


async def test_a_full_disk_is_not_taken_for_a_list_that_was_cut_off(
    source: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look at tables that a crash left behind takes some room, too."""

    class FullDisk:
        @staticmethod
        def repair(path: str, options: object) -> None:
            raise Exception(f"IO error: No space left on device: While open a file: {path}")

    await fill(tmp_path, source)
    left_behind = tmp_path / "db" / "009999.sst"
    shutil.copyfile(tables(tmp_path)[0], left_behind)
    with monkeypatch.context() as patch:
        patch.setattr("hypercore.storage.rocks_rebuilding.Rdict", FullDisk)
        async with open_corestore(tmp_path) as store:
            log = await store.get(name="log")
            assert await log.get(0) == OLD[0]
            with pytest.raises(StorageFailed):
                await log.append(b"no room")
    async with open_corestore(tmp_path) as store:
        log = await store.get(name="log")
        assert await log.append(b"room") == len(OLD + NEW)
    assert not left_behind.exists()


async def test_a_copy_for_which_there_is_no_room_is_not_left_there(
    source: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: it kept the room that it had taken, of a disk that is full."""

    class FullDisk(RocksStorage):
        def commit(self, batch: WriteBatch) -> int:
            super().commit(batch)
            raise StorageFailed("no space left on device")

    await fill(tmp_path, source)
    blob, *_ = sorted((tmp_path / "db").glob("*.blob"))
    blob.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("hypercore.storage.salvage.RocksStorage", FullDisk)
        with pytest.raises(StorageFailed):
            await salvage_store(tmp_path)
    assert not (tmp_path / "salvaged").exists()
    assert (await salvage_store(tmp_path)).damaged is not None


def test_records_of_any_size_are_read_as_they_were_written() -> None:
    sizes = (0, 1, BLOCK_BYTES - 14, 0, 3, BLOCK_BYTES - 7, 3 * BLOCK_BYTES, BLOCK_BYTES - 20, 5)
    payloads = [bytes([number]) * size for number, size in enumerate(sizes, 1)]
    assert payloads_of(encode_log(payloads)) == payloads


async def test_a_core_of_which_only_its_blocks_are_named_is_not_left_out(
    source: Core, tmp_path: Path
) -> None:
    """It could be told by its rows; else it would begin anew under its name."""
    await fill(tmp_path, source)
    async with open_corestore(tmp_path) as store:  # so that the number of cores is in a later table
        await store.get(name="another")
    oldest, *_ = tables(tmp_path)
    oldest.unlink()
    for manifest in (tmp_path / "db").glob("MANIFEST-*"):
        manifest.unlink()
    with pytest.raises(CorruptStorage, match="blocks of some that are not named"):
        await salvage_store(tmp_path)


async def test_a_list_that_was_cut_off_loses_nothing(source: Core, tmp_path: Path) -> None:
    """Found in review: the store opened as it had once been, or empty, and lost its tables."""
    path, copy = tmp_path / "store", tmp_path / "copy"
    await fill(path, source)
    manifest = next((path / "db").glob("MANIFEST-*"))
    stops = [record.stop for record in records(manifest.read_bytes())]
    outcomes = set()
    for cut in sorted({0, *stops, *(stop - 3 for stop in stops)}):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        (copy / "CORESTORE").unlink()
        os.truncate(copy / "db" / manifest.name, cut)
        try:
            async with open_corestore(copy) as store:
                outcomes.add((await store.get(name="log")).length)
        except CorruptStorage:
            outcomes.add(-1)
    assert outcomes == {-1, len(OLD + NEW)}
    os.truncate(manifest, stops[-4])
    salvage, repairs = await repair(path)
    assert [gap.reason for gap in salvage.gaps] == ["the list of the tables is lost"]
    assert all(item.is_sound for item in repairs.values())
    await fetch_again(path, source)
