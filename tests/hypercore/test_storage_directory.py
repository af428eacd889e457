"""Whether a directory is the original, and who has it open."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from hypercore import copy_store, open_corestore
from hypercore.errors import CorruptStorage, StoreLocked
from hypercore.storage.directory import StoreDirectory
from hypercore.storage.salvage import salvage


def lines_of(path: Path) -> dict[str, str]:
    text = (path / "CORESTORE").read_text()
    assert text.endswith("\n")
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_record_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store"
    StoreDirectory(path).close()
    before = (path / "CORESTORE").stat()
    lines = lines_of(path)
    assert lines["device/platform"] == "linux"
    assert int(lines["device/inode"]) == before.st_ino
    assert abs(int(lines["device/created"]) - before.st_mtime * 1000) < 5000
    StoreDirectory(path).close()
    assert (path / "CORESTORE").stat().st_mtime_ns == before.st_mtime_ns


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_database_is_for_its_owner_alone_and_so_are_its_copies(tmp_path: Path) -> None:
    """It has the seed of all keys, and a store may be made where everybody reads."""
    ours, copy = tmp_path / "ours", tmp_path / "copy"
    async with open_corestore(ours) as store:
        await (await store.get(name="log")).append([b"block"])
        await copy_store(store, copy)
    assert (mode_of(ours / "db"), mode_of(copy / "db")) == (0o700, 0o700)
    (ours / "db").chmod(0o750)  # as somebody wants it, who makes backups perhaps
    for manifest in (ours / "db").glob("MANIFEST-*"):
        manifest.unlink()
    salvage(ours)
    async with open_corestore(ours) as store:
        assert await (await store.get(name="log")).get(0) == b"block"
    assert mode_of(ours / "db") == 0o750


def test_one_opener_at_a_time(tmp_path: Path) -> None:
    directory = StoreDirectory(tmp_path)
    with pytest.raises(StoreLocked) as caught:
        StoreDirectory(tmp_path)
    assert str(tmp_path) in str(caught.value)
    directory.close()
    directory.close()
    StoreDirectory(tmp_path).close()


def test_a_moved_directory_is_still_the_original(tmp_path: Path) -> None:
    StoreDirectory(tmp_path / "old").close()
    (tmp_path / "old").rename(tmp_path / "new")
    StoreDirectory(tmp_path / "new").close()


def test_a_copy_is_refused_until_it_is_adopted(tmp_path: Path) -> None:
    StoreDirectory(tmp_path / "original").close()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "original", copy)
    with pytest.raises(CorruptStorage, match="delete this file to adopt") as caught:
        StoreDirectory(copy)
    assert caught.value.where == str(copy / "CORESTORE")
    (copy / "CORESTORE").unlink()
    StoreDirectory(copy).close()
    StoreDirectory(copy).close()
    assert int(lines_of(copy)["device/inode"]) == (copy / "CORESTORE").stat().st_ino


def test_a_touched_file_is_refused(tmp_path: Path) -> None:
    StoreDirectory(tmp_path).close()
    os.utime(tmp_path / "CORESTORE", (1_000_000_000, 1_000_000_000))
    with pytest.raises(CorruptStorage, match="changed after"):
        StoreDirectory(tmp_path)


def test_a_lost_attribute_is_refused(tmp_path: Path) -> None:
    StoreDirectory(tmp_path).close()
    try:
        os.removexattr(tmp_path / "CORESTORE", "user.device-file")
    except OSError:
        assert "device/attribute" not in lines_of(tmp_path)
        return
    with pytest.raises(CorruptStorage, match="copied or moved"):
        StoreDirectory(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("device/platform=darwin\n", "another platform"),
        ("device/platform=linux\ndevice/inode=x\n", "copied"),
        ("\xff\xfe no record at all", "copied"),
    ],
)
def test_other_records_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "CORESTORE").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptStorage, match=reason):
        StoreDirectory(tmp_path)
    with pytest.raises(CorruptStorage):
        StoreDirectory(tmp_path)  # not "locked"


def test_a_torn_record_of_an_empty_directory_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "CORESTORE").write_text("device/platform=linux\ndevice/ino" + "x" * 200)
    StoreDirectory(tmp_path).close()
    assert "x" not in (tmp_path / "CORESTORE").read_text().replace("linux", "")
    StoreDirectory(tmp_path).close()
