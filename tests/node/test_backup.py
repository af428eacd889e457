"""A copy of a node's directory, made while it serves, and a node that is started on it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from node.backup import back_up
from node.cojson.messages import encode_message
from node.covalue.content import Content
from node.daemon import open_node
from node.running import Node
from node.verbs import BackUp, ExitCode, Load, Result, Verb, VerbError
from tests.node.mesh.authors import Author, Value
from tests.node.test_daemon import config
from tests.node.test_sync import wait_acknowledged
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.websocket_client import open_websocket


async def put(node: Node, value: Value, content: Content) -> None:
    async with open_websocket(int(node.addresses.ws.rpartition(":")[2])) as client:
        await client.send(encode_message(content))
        await wait_acknowledged(client, value)


async def ask(node: Node, verb: Verb) -> Result:
    (result,) = [result async for result in node.perform(verb)]
    return result


@pytest.mark.parametrize("store", ["bee", "hybrid", "sqlite"])
async def test_a_node_starts_from_the_backup_of_a_running_one(tmp_path: Path, store: str) -> None:
    data, copy = tmp_path / "data", tmp_path / "backups" / "today"
    elsewhere = {} if store == "bee" else {"sqlite": tmp_path / "server.db"}
    before, after = (Author(1).value(name) for name in ("before", "after"))
    older, newer = (value.edit("[]", with_header=True) for value in (before, after))
    with trio.fail_after(60):
        async with open_node(config(data, store=store, name="hive", **elsewhere)) as node:
            identity = node.id, node.key
            await put(node, before, older)
            result = await ask(node, BackUp(str(copy)))
            assert result["directory"] == str(copy)
            assert int(str(result["bytes"])) > 1000
            assert copy.stat().st_mode & 0o077 == 0
            await put(node, after, newer)
            assert (await ask(node, Load(after.id)))["source"] == "store"
            with pytest.raises(VerbError, match="not empty") as refused:
                await ask(node, BackUp(str(copy)))
            assert refused.value.code is ExitCode.USAGE
        async with open_node(config(copy, store=store)) as restored:
            assert (restored.id, restored.key) == identity
            assert (await ask(restored, Load(before.id)))["source"] == "store"
            assert restored.status().covalues == 1
            await put(restored, after, newer)


async def test_no_backup_goes_into_the_data_itself(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    link.symlink_to(data)
    async with open_node(config(data)) as node:
        for inside in (data / "today", data / "corestore" / "today", link / "x" / "today"):
            with pytest.raises(VerbError, match="inside the data directory") as refused:
                await ask(node, BackUp(str(inside)))
            assert refused.value.code is ExitCode.USAGE
            assert not inside.parent.joinpath("today").exists()


async def test_a_file_is_no_place_for_a_backup(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    async with open_node(config(tmp_path / "data")) as node:
        with pytest.raises(VerbError, match="file cannot be used: it is no directory"):
            await ask(node, BackUp(str(tmp_path / "file")))
    assert (tmp_path / "file").read_bytes() == b"kept"


async def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with open_node(config(data, store="sqlite")) as node:
        broken = tmp_path / "broken.db"
        broken.write_bytes(
            b"no database, but as long as the header of one has to be to be read" * 9
        )
        wrong = config(data, store="sqlite", sqlite=broken)
        with pytest.raises(VerbError, match="no backup was made") as failed:
            await back_up(wrong, node.store, BackUp(str(copy)))
        assert failed.value.code is ExitCode.FAILED
        assert list(copy.iterdir()) == []
        await back_up(node.config, node.store, BackUp(str(copy)))
    with closing(sqlite3.connect(copy / "covalues.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_backup_that_nobody_wants_any_more_is_removed(tmp_path: Path) -> None:
    """Also when that is said in its last step, which cannot be broken off."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with open_node(config(data)) as node:

        async def call() -> None:
            assert not (copy.exists() and any(copy.iterdir()))
            await back_up(node.config, node.store, BackUp(str(copy)))
            await trio.lowlevel.checkpoint_if_cancelled()

        assert await cancel_everywhere(call) > 1
    assert any(copy.iterdir())
