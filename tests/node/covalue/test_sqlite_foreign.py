"""A SQLite file that is read where nothing may be written, while others write it elsewhere."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.covalue.sqlite_reader import open_foreign
from tests.node.test_transfer import contents, fill


def mount_read_only(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system tells it; a superuser may write everywhere."""
    access = os.access

    def is_accessible(path: Path, mode: int) -> bool:
        return access(path, mode) and not (path == directory and mode & os.W_OK)

    monkeypatch.setattr(os, "access", is_accessible)


async def test_a_link_shows_what_the_log_beside_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "file.db", tmp_path / "links" / "link.db"
    await fill(file, *contents(0, 1))
    link.parent.mkdir()
    link.symlink_to(file)
    mount_read_only(link.parent, monkeypatch)
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        writer.execute("DELETE FROM coValues")
        with closing(open_foreign(link)) as reader:
            assert reader.ids("", "", 10) == []


async def test_a_file_without_a_log_is_read_as_it_is_at_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself needs to write nothing there, and its locks hold."""
    file = tmp_path / "mounted" / "file.db"
    file.parent.mkdir()
    await fill(file, *contents(0, 1))
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=DELETE")
        mount_read_only(file.parent, monkeypatch)
        with closing(open_foreign(file)) as reader:
            assert len(reader.ids("", "", 10)) == 4
            writer.execute("DELETE FROM coValues")
            assert reader.ids("", "", 10) == []
