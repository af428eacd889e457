"""A SQLite file that cannot be used is not left open, whoever keeps the error."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hypercore.errors import StorageFailed
from node.covalue.sqlite_reader import open_foreign
from node.covalue.sqlite_store import open_sqlite_store
from node.errors import ConfigError
from tests.support.authors import Author
from tests.support.full_disk import full_disk
from tests.support.stores import Appender

PAGE_BYTES = 4096


def is_open_here(path: Path) -> bool:
    opened = (descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir())
    return path.resolve() in opened


def spoil_table(path: Path, name: str) -> None:
    """Overwrite the first page of the table and of each of its indexes."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE tbl_name = ?"
        pages = [page for (page,) in connection.execute(query, (name,))]
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE_BYTES)
            file.write(bytes(PAGE_BYTES))


def test_a_file_of_something_else(tmp_path: Path) -> None:
    text, other, empty = tmp_path / "text", tmp_path / "other", tmp_path / "empty"
    text.write_bytes(b"no database" * 100)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    empty.touch()
    for path in (text, other, empty):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            open_foreign(path)
        assert not is_open_here(path), f"still open: {caught.value}"


async def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with open_sqlite_store(path) as store:
        await Appender().put(store, Author("ann").account())
        assert is_open_here(path)
    spoil_table(path, "coValues")
    with pytest.raises(StorageFailed, match="malformed") as caught:
        async with open_sqlite_store(path):
            pass
    assert not is_open_here(path), f"still open: {caught.value}"


async def test_no_file_is_left_of_one_that_could_not_be_made(tmp_path: Path) -> None:
    """Found in use: an export onto a full disk left an empty file."""
    with full_disk(), pytest.raises(StorageFailed):
        async with open_sqlite_store(tmp_path / "new"):
            pass
    assert os.listdir(tmp_path) == []


async def test_an_empty_file_of_somebody_is_left(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with full_disk(), pytest.raises(StorageFailed):
        async with open_sqlite_store(path):
            pass
    assert os.listdir(tmp_path) == ["empty"]
