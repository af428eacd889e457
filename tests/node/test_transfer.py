"""Import and export: what is moved, passed over, refused and found damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore.storage import Durability
from node.cojson.host import SyncHost, open_sync_host
from node.covalue.content import Content, Transaction
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.sqlite_reader import open_foreign
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import CoValueStore
from node.transfer import perform_transfer
from node.verbs import ExitCode, ExportValues, ImportValues, Result, VerbError
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.stores import Appender, BeeHome, joined, load_all

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)
MAPS = [map_header(f"map {n}", GROUP.id) for n in range(20)]


def contents(*numbers: int) -> list[Content]:
    """An account, its group, and maps of the group."""
    member = f'[{{"op":"set","key":"{ANN.account_id}","value":"admin"}}]'
    return [
        ANN.account(),
        ANN.content(GROUP, [Transaction(1, member)]),
        *(ANN.content(MAPS[number], edits(3)) for number in numbers),
    ]


async def fill(path: Path, *given: Content) -> None:
    keys: dict[str, bytes] = {author.account_id: _key(author) for author in (ANN, BOB)}
    async with open_sqlite_store(path, Durability.OS) as store:
        await Appender(keys).put(store, *given)


def _key(author: Author) -> bytes:
    key = author.account_header.account_public_key
    assert key is not None
    return key


def change(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(script)
    connection.close()


@asynccontextmanager
async def open_host(directory: Path) -> AsyncIterator[tuple[SyncHost, CoValueStore]]:
    async with BeeHome(directory).open() as store, open_sync_host(store) as host:
        yield host, store


async def transfer(host: SyncHost, verb: ImportValues | ExportValues) -> list[Result]:
    return [result async for result in perform_transfer(host, verb)]


def summary(results: list[Result]) -> dict[str, object]:
    return {name: count for name, count in results[-1].items() if count and name != "seconds"}


async def held(store: CoValueStore) -> dict[RawCoId, object]:
    return {
        co_id: joined(await load_all(store, co_id, NOTHING, None)) async for co_id in store.ids()
    }


async def test_everything_comes_dependencies_first_and_goes_out_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    await fill(source, *contents(*range(20)))
    before = source.read_bytes()
    async with open_host(tmp_path) as (host, store):
        assert summary(await transfer(host, ImportValues(str(source)))) == {"moved": 22}
        assert source.read_bytes() == before
        for path in (target, target):
            results = await transfer(host, ExportValues(str(path)))
            expected = "moved" if results[-1]["moved"] else "skipped"
            assert summary(results) == {expected: 22}
        everything = await held(store)
    assert len(everything) == 22
    async with open_sqlite_store(target) as exported, open_sqlite_store(source) as imported:
        assert await held(exported) == everything
        assert await held(imported) == everything


async def test_a_second_import_brings_what_came_since(tmp_path: Path) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(0, 1))
    async with open_host(tmp_path) as (host, store):
        await transfer(host, ImportValues(str(source)))
        more = Appender({ANN.account_id: _key(ANN)})
        more.append(ANN.content(MAPS[1], edits(3)))
        async with open_sqlite_store(source) as file:
            grown = ANN.content(MAPS[1], edits(5), after=3, with_header=False)
            await more.put(file, grown, ANN.content(MAPS[2], edits(1)))
        results = await transfer(host, ImportValues(str(source)))
        assert summary(results) == {"moved": 2, "skipped": 3}
        value = await store.load_value(MAPS[1].id)
        assert value is not None
        assert [session.count for session in value.sessions.values()] == [5]


async def test_an_import_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    large = ANN.content(MAPS[0], edits(40, size=100_000))
    await fill(source, *contents(*range(1, 20)), large)
    async with open_host(tmp_path) as (host, store):
        results = perform_transfer(host, ImportValues(str(source)))
        with trio.CancelScope() as scope:
            try:
                async for result in results:
                    if "done" in result:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            finally:
                await results.aclose()
        await transfer(host, ImportValues(str(source)))
        assert summary(await transfer(host, ImportValues(str(source)))) == {"skipped": 22}
        assert len(await held(store)) == 22


async def test_a_second_export_into_one_file_is_told_of_the_first(tmp_path: Path) -> None:
    target = tmp_path / "target"
    async with open_host(tmp_path) as (host, _), open_sqlite_store(target, Durability.OS):
        with pytest.raises(VerbError, match="this node: another export is writing it") as refused:
            await transfer(host, ExportValues(str(target)))
    assert refused.value.code is ExitCode.FAILED


async def test_what_does_not_verify_is_refused_and_the_rest_comes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(0, 1, 2))
    forged = """UPDATE transactions SET tx = replace(tx, 'xxx', 'yyy') WHERE idx = 1 AND ses =
        (SELECT s.rowID FROM sessions s JOIN coValues v ON v.rowID = s.coValue WHERE v.id = '{}')"""
    change(source, forged.format(MAPS[1].id))
    async with open_host(tmp_path) as (host, store):
        results = await transfer(host, ImportValues(str(source)))
        assert summary(results) == {"moved": 4, "refused": 1}
        (named,) = [result for result in results if "id" in result]
        assert named["id"] == MAPS[1].id
        assert "signature" in str(named["refused"])
        assert set(await held(store)) == {content.co_id for content in contents(0, 2)}


async def test_damage_is_named_and_passed_over(tmp_path: Path) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(0, 1, 2))
    change(source, f"UPDATE coValues SET header = '{{' WHERE id = '{MAPS[0].id}'")
    change(source, "DELETE FROM transactions WHERE ses = (SELECT max(rowID) FROM sessions)")
    async with open_host(tmp_path) as (host, _):
        results = await transfer(host, ImportValues(str(source)))
        assert summary(results) == {"moved": 3, "damaged": 2}
        assert {result["id"] for result in results if "id" in result} == {MAPS[0].id, MAPS[2].id}


async def test_a_dependency_that_is_nowhere_is_said(tmp_path: Path) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(0), BOB.content(map_header("of bob"), edits(1)))
    async with open_host(tmp_path) as (host, _):
        results = await transfer(host, ImportValues(str(source)))
        assert summary(results) == {"moved": 3, "waiting": 1}
        assert results[-2]["id"] == map_header("of bob").id


async def test_files_of_any_version_are_read_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(0, 1))
    change(
        source,
        "DROP TABLE signatureAfter; DROP TABLE unsynced_covalues; DROP TABLE deletedCoValues;"
        "DROP TABLE storageReconciliationLocks;"
        "ALTER TABLE sessions DROP COLUMN bytesSinceLastSignature; PRAGMA user_version=1",
    )
    before = source.read_bytes()
    async with open_host(tmp_path) as (host, _):
        assert summary(await transfer(host, ImportValues(str(source)))) == {"moved": 4}
    assert source.read_bytes() == before


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(0))
    change(source, "PRAGMA user_version=99")
    async with open_host(tmp_path) as (host, _):
        with pytest.raises(VerbError, match="version 99, written by a newer cojson") as caught:
            await transfer(host, ImportValues(str(source)))
    assert caught.value.code is ExitCode.USAGE


async def test_an_import_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    source = tmp_path / "server" / "file.db"
    source.parent.mkdir()
    await fill(source, *contents(0, 1))
    before, changed = source.read_bytes(), source.stat().st_mtime_ns
    async with open_host(tmp_path) as (host, _):
        assert summary(await transfer(host, ImportValues(str(source)))) == {"moved": 4}
    assert list(source.parent.iterdir()) == [source]
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (before, changed)


async def test_an_import_leaves_a_server_that_came_meanwhile_its_log(tmp_path: Path) -> None:
    source = tmp_path / "server" / "file.db"
    source.parent.mkdir()
    await fill(source, *contents(0, 1))
    reader = open_foreign(source)
    with closing(sqlite3.connect(source, isolation_level=None)) as server:
        server.execute("INSERT INTO coValues (id, header) VALUES ('co_zNew', 'text')")
        reader.close()
        assert Path(f"{source}-wal") in list(source.parent.iterdir())
        server.execute("INSERT INTO coValues (id, header) VALUES ('co_zNext', 'other')")
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.parametrize(
    ("content", "code"), [(None, ExitCode.NOT_FOUND), (b"no database", ExitCode.USAGE)]
)
async def test_what_is_no_file_of_cojson(
    tmp_path: Path, content: bytes | None, code: ExitCode
) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content * 100)
    async with open_host(tmp_path) as (host, _):
        with pytest.raises(VerbError) as caught:
            await transfer(host, ImportValues(str(source)))
        assert caught.value.code is code
        if content is not None:
            with pytest.raises(VerbError) as caught:
                await transfer(host, ExportValues(str(source)))
            assert caught.value.code is code
            assert source.read_bytes() == content * 100


class SlowDoor:
    """Takes 0.3 s to say what it has."""

    def __init__(self, host: SyncHost) -> None:
        self.store = host.store
        self.receive_content = host.receive_content
        self._host = host

    async def known_state(self, co_id: RawCoId) -> KnownState:
        await trio.sleep(0.3)
        return await self._host.known_state(co_id)


async def test_progress_is_told_now_and_then(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    source = tmp_path / "source"
    await fill(source, *contents(*range(10)))
    async with open_host(tmp_path) as (host, _):
        verb = ImportValues(str(source))
        told = [result async for result in perform_transfer(SlowDoor(host), verb)]
    lines = told[:-1]
    # What waits to become durable is not counted as done, so the first lines say 0.
    assert 4 <= len(lines) <= 7
    assert all(line.keys() == {"done", "total"} and line["total"] == 12 for line in lines)
    assert summary(told) == {"moved": 12}


async def test_a_file_is_imported_from_where_nothing_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in use: from a read-only mount SQLite attempted to write a readonly database."""
    source = tmp_path / "mounted" / "file.db"
    source.parent.mkdir()
    await fill(source, *contents(0, 1))
    access = os.access

    def is_mounted_read_only(path: Path, mode: int) -> bool:
        return access(path, mode) and not (path == source.parent and mode & os.W_OK)

    monkeypatch.setattr(os, "access", is_mounted_read_only)  # a superuser may write everywhere
    async with open_host(tmp_path / "node") as (host, store):
        results = await transfer(host, ImportValues(str(source)))
        assert summary(results) == {"moved": 4}
        assert len(await held(store)) == 4
    assert list(source.parent.iterdir()) == [source]
