"""Of a store with a turned bit nothing wrong is served, and nothing goes without a word.

Longer: `python -m tests.hypercore.bit_flip_campaign --flips 10000`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hypercore import CorruptStorage, Durability, StorageError, open_corestore
from hypercore.storage.log_file import records
from hypercore.store_repair import audit_core, repair_cores, salvage_store
from tests.hypercore.bit_flip_campaign import Campaign, flip


def test_every_flip_is_told_of_or_does_no_harm(tmp_path: Path) -> None:
    report = Campaign(tmp_path, seed=5).run(50, healed_every=10)
    assert report.wrong == []
    assert report.flips == 50
    assert report.by_outcome["detected"] > 15
    assert report.by_outcome["refused"] > 5
    assert report.damaged_blocks > 100
    assert report.healed > 1
    assert report.repaired > 1


def table_of(path: Path) -> Path:
    return max((path / "db").glob("*.sst"), key=lambda file: file.stat().st_size)


async def test_a_compaction_that_fails_is_not_taken_for_one_that_succeeded(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append([b"%d" % index * 20 for index in range(500)])
        await store.reclaim()
    flip(table_of(tmp_path), 9000, 3)
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        with pytest.raises(StorageError, match="checksum"):
            await store.reclaim()  # it promises that no file has the bytes any more


async def test_an_unreadable_row_does_not_end_an_iteration(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append([b"%d" % index * 20 for index in range(500)])
        await store.reclaim()
    flip(table_of(tmp_path), 9000, 3)
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        with pytest.raises(CorruptStorage):
            list(store.storage.items(b"\x00", b"\xff"))


@pytest.mark.parametrize("bit", range(8))
async def test_a_turned_bit_does_not_make_opening_endless(tmp_path: Path, bit: int) -> None:
    """RocksDB waits for ever for the rest of a record that has the type of a reused file's."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.append(b"one")
    (manifest,) = (tmp_path / "db").glob("MANIFEST-*")
    second = next(record for record in records(manifest.read_bytes()) if record.start)
    flip(manifest, second.start + 6, bit)
    for read_only in (True, False):
        with pytest.raises(CorruptStorage, match=f"bit {bit} of byte {second.start + 6}"):
            async with open_corestore(tmp_path, read_only=read_only):
                pass
    salvage = await salvage_store(tmp_path)
    assert len(salvage.mended) == 1
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        assert await core.get(0) == b"one"


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_no_new_database_is_made_over_one_that_lost_its_first_file(
    tmp_path: Path, is_flushed: bool
) -> None:
    """RocksDB would, and delete the tables of the old one."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.append(b"one")
        if is_flushed:
            await store.reclaim()
        else:
            shutil.copytree(tmp_path / "db", tmp_path / "crashed")
        key = core.key
    if not is_flushed:  # as `kill -9` leaves it: all is in the log
        shutil.rmtree(tmp_path / "db")
        (tmp_path / "crashed").rename(tmp_path / "db")
    (tmp_path / "db" / "CURRENT").unlink()
    for read_only in (True, False, False):
        with pytest.raises(CorruptStorage, match="its file CURRENT"):
            async with open_corestore(tmp_path, read_only=read_only):
                pass
    salvage = await salvage_store(tmp_path)
    assert [text.endswith("the only manifest there is") for text in salvage.mended] == [True]
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        assert (core.key, await core.get(0)) == (key, b"one")


async def test_a_store_without_damage_is_left_alone(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.append(b"one")
    before = sorted(file.name for file in (tmp_path / "db").glob("*.sst"))
    salvage = await salvage_store(tmp_path)
    assert (salvage.gaps, salvage.mended, salvage.damaged) == ((), (), None)
    assert sorted(file.name for file in (tmp_path / "db").glob("*.sst")) == before
    async for repair in repair_cores(tmp_path, is_strict=False):
        assert repair.is_sound
        assert repair.name == "log"
        assert repair.forgotten == ()


@pytest.mark.parametrize("is_copied", [False, True])
async def test_a_replacement_that_was_cut_off_is_finished_or_forgotten(
    tmp_path: Path, is_copied: bool
) -> None:
    path = tmp_path / "store"
    async with open_corestore(path) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
    (path / "salvaged").mkdir()
    if is_copied:  # the database is out of the way, and the new one not in its place
        shutil.copytree(path / "db", path / "salvaged" / "db")
        (path / "db").rename(path / "db.damaged")
    async with open_corestore(path) as store:
        core = await store.get(name="log")
        assert await core.get(1) == b"two"
        assert (await audit_core(core)).is_sound
    assert (path / "salvaged").exists() is not is_copied


async def test_our_own_core_does_not_begin_another_history(tmp_path: Path) -> None:
    """Its head is lost, and with it the length that was acknowledged."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
    flip(table_of(tmp_path), 100, 0)  # its only data block
    with pytest.raises(CorruptStorage):
        async with open_corestore(tmp_path) as store:
            await store.get(name="log")
    with pytest.raises(CorruptStorage, match="what cores it has"):
        await salvage_store(tmp_path)
    assert not (tmp_path / "db.damaged").exists()
