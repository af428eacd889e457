"""One SQLite file, served by JavaScript and by us in turns, to real clients."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hypercore.storage import Durability
from node.cojson.messages import Load, decode_frame, encode_message
from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.sqlite_store import SqliteStore, open_sqlite_store
from tests.support.jazz_node import open_jazz_node
from tests.support.line_process import LineProcess, open_line_process
from tests.support.running_node import (
    JazzClient,
    open_jazz_client,
    open_running_node,
    run_beemesh,
)
from tests.support.stores import joined, load_all
from tests.support.websocket_client import open_websocket

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent

Answer = tuple[str, dict[CoSessionId, tuple[list[object], bytes]]]
"""Header, and of each session its transactions and last signature: all that is ever sent."""


@asynccontextmanager
async def open_js_server(path: Path) -> AsyncIterator[tuple[LineProcess, int]]:
    async with open_line_process(["node", "sqlite_server.mjs", str(path)], HERE) as server:
        yield server, (await server.read())["port"]


@asynccontextmanager
async def open_our_server(path: Path) -> AsyncIterator[tuple[SqliteStore, int]]:
    """Erases when it is told to only."""
    async with (
        open_sqlite_store(path, Durability.OS) as store,
        open_jazz_node(store, erases=False) as (_, port),
    ):
        yield store, port


def counts_in(path: Path) -> dict[RawCoId, dict[CoSessionId, int]]:
    """Every value, with the counts that a client must be served; read past all our code."""
    connection = sqlite3.connect(path)
    counts: dict[RawCoId, dict[CoSessionId, int]] = {}
    query = """SELECT v.id, s.sessionID, s.lastIdx, d.coValueID IS NOT NULL
        FROM coValues v LEFT JOIN sessions s ON s.coValue = v.rowID
        LEFT JOIN deletedCoValues d ON d.coValueID = v.id"""
    for co_id, session_id, count, is_deleted in connection.execute(query):
        value = counts.setdefault(co_id, {})
        if session_id is not None and (not is_deleted or is_delete_session(session_id)):
            value[session_id] = count
    connection.close()
    return counts


def answer(contents: list[Content]) -> Answer:
    """What these say, however it was cut into pieces."""
    headers = [content.header for content in contents if content.header is not None]
    signatures = {key: part.signature for content in contents for key, part in content.new.items()}
    return headers[0].canonical, {
        key: (list(transactions), signatures[key]) for key, transactions in joined(contents).items()
    }


async def ask_server(port: int, counts: dict[RawCoId, dict[CoSessionId, int]]) -> dict[str, Answer]:
    """What a server sends to a client that has nothing, for every value."""
    answers: dict[str, Answer] = {}
    for co_id, wanted in counts.items():
        contents: list[Content] = []
        reached = NOTHING
        async with open_websocket(port) as socket:
            await socket.send(encode_message(Load(co_id, NOTHING)))
            while not reached.covers(KnownState(True, wanted)):
                text = await socket.receive()
                assert text is not None
                for message in decode_frame(text).messages:
                    if isinstance(message, Content) and message.co_id == co_id:
                        contents.append(message)
                        reached = reached.merged(message.known_state)
        answers[co_id] = answer(contents)
    return answers


async def ask_store(store: SqliteStore, max_bytes: int | None) -> dict[str, Answer]:
    return {
        co_id: answer(await load_all(store, co_id, NOTHING, max_bytes))
        async for co_id in store.ids()
    }


async def create_some(client: JazzClient) -> dict[str, str]:
    """Small and large values, a file, and one that is deleted again if the server can."""
    await client.do("createMany", count=30)
    small = (await client.do("create", values={"text": 'é"\\\n\u2028 👋', "n": 1.5}))["id"]
    large = (await client.do("create", values={"kind": "large"}))["id"]
    await client.do("grow", id=large, count=8, size=40_000)
    file = await client.do("stream", size=400_000)
    return {"small": small, "large": large, "file": file["id"], "hash": file["hash"]}


async def check_all(client: JazzClient, made: dict[str, str]) -> None:
    await client.do("wait", id=made["large"], key="large", value="7" + "x" * 40_000)
    assert (await client.do("readStream", id=made["file"]))["hash"] == made["hash"]


async def test_javascript_and_we_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "storage.db"
    turns: list[dict[str, str]] = []
    with trio.fail_after(180):
        async with open_js_server(path) as (_, port), open_jazz_client(_url(port)) as alice:
            turns.append(await create_some(alice))
            erased = (await alice.do("create", values={"erased": True}))["id"]
            await alice.do("remove", id=erased)
        async with open_js_server(path) as (server, port), open_jazz_client(_url(port)) as bob:
            await server.write("erase")
            assert await server.read() == {"erased": True}
            await bob.do("set", id=turns[0]["small"], key="n", value=2)
        for turn in range(2):
            await _take_a_turn(path, turns, turn, erased)
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


async def _take_a_turn(path: Path, turns: list[dict[str, str]], turn: int, erased: str) -> None:
    # What JavaScript serves of its file, we load from it.
    counts = counts_in(path)
    assert len(counts) > 30
    async with open_js_server(path) as (_, port):
        theirs = await ask_server(port, counts)
    async with open_our_server(path) as (store, port):
        assert store.count() == len(counts)
        for max_bytes in (None, 1, 300_000):
            assert await ask_store(store, max_bytes) == theirs
        assert await ask_server(port, counts) == theirs
        async with open_jazz_client(_url(port)) as carol:
            for made in turns:
                await check_all(carol, made)
                await carol.do("set", id=made["small"], key="turn", value=turn)
                await carol.do("grow", id=made["large"], count=1, size=3)
                await carol.do("grow", id=made["large"], count=8, size=40_000)
            assert (await carol.do("isDeleted", id=erased))["isDeleted"]
            turns.append(await create_some(carol))
        ours = await ask_store(store, None)
    # And the other way round.
    counts = counts_in(path)
    async with open_js_server(path) as (_, port):
        assert await ask_server(port, counts) == ours
    async with open_js_server(path) as (_, port), open_jazz_client(_url(port)) as dave:
        for made in turns:
            await check_all(dave, made)
            if made is not turns[-1]:
                await dave.do("wait", id=made["small"], key="turn", value=turn)
            await dave.do("set", id=made["small"], key="dave", value=turn)
        assert (await dave.do("isDeleted", id=erased))["isDeleted"]


async def test_we_erase_what_was_deleted_in_javascript(tmp_path: Path) -> None:
    path = tmp_path / "storage.db"
    with trio.fail_after(180):
        async with open_js_server(path) as (_, port), open_jazz_client(_url(port)) as alice:
            await alice.do("createMany", count=50)
            dead = RawCoId((await alice.do("create", values={"dead": True}))["id"])
            await alice.do("grow", id=dead, count=10, size=40_000)
            await alice.do("remove", id=dead)
        size = path.stat().st_size
        async with open_our_server(path) as (store, port):
            assert await store.pending_erasures() == [dead]
            async with open_jazz_client(_url(port)) as bob:
                assert (await bob.do("isDeleted", id=dead))["isDeleted"]
                await bob.do("createMany", count=1)  # all that is bob's has come
            before = await ask_store(store, None)
            assert (await store.erase(dead)).transactions == 11
            assert await store.pending_erasures() == []
            assert await ask_store(store, None) == before
        assert path.stat().st_size < size - 300_000
        counts = counts_in(path)
        async with open_js_server(path) as (_, port), open_jazz_client(_url(port)) as carol:
            assert (await carol.do("isDeleted", id=dead))["isDeleted"]
            assert await ask_server(port, counts) == before


async def test_a_servers_file_goes_into_a_bee_and_out_again(tmp_path: Path) -> None:
    path, exported = tmp_path / "storage.db", tmp_path / "exported.db"
    with trio.fail_after(180):
        async with open_js_server(path) as (_, port), open_jazz_client(_url(port)) as alice:
            made = await create_some(alice)
            dead = RawCoId((await alice.do("create", values={"dead": True}))["id"])
            await alice.do("remove", id=dead)
        counts = counts_in(path)
        assert all(map(is_delete_session, counts[dead]))
        async with open_js_server(path) as (_, port):
            theirs = await ask_server(port, counts)
        # With a running node, and on its directory alone.
        data = tmp_path / "data"
        async with open_running_node(data, "--durability", "os") as node:
            imported = await node.beemesh("import", str(path), "--json")
            assert imported.code == 0, imported
            assert imported.lines[-1]["moved"] == len(counts)
            async with open_jazz_client(node.ws) as bob:
                await check_all(bob, made)
                assert (await bob.do("isDeleted", id=dead))["isDeleted"]
            repeated = await node.beemesh("import", str(path), "--json")
            assert repeated.lines[-1]["skipped"] == len(counts)
            first = await node.beemesh("export", str(exported), "--json")
            assert first.code == 0, first
            assert first.lines[-1]["moved"] >= len(counts)
        async with open_js_server(exported) as (_, port):
            assert await ask_server(port, counts) == theirs
        again = await run_beemesh("export", str(exported), "--json", "--data", str(data))
        assert (again.code, again.lines[-1]["moved"]) == (0, 0)
        other = tmp_path / "other"
        table = await run_beemesh("import", str(exported), "--data", str(other))
        assert table.code == 0, table
        assert table.out.splitlines()[0].split() == ["moved", str(first.lines[-1]["moved"])]
        async with (
            open_running_node(other, "--store", "hybrid") as node,
            open_jazz_client(node.ws) as carol,
        ):
            await check_all(carol, made)
        # Hybrid left a file behind that a server opens.
        async with open_js_server(other / "covalues.sqlite") as (_, port):
            assert await ask_server(port, counts) == theirs


async def test_what_a_server_wrote_meanwhile_reaches_the_bee(tmp_path: Path) -> None:
    file = tmp_path / "covalues.sqlite"
    with trio.fail_after(180):
        async with (
            open_running_node(tmp_path, "--store", "hybrid") as node,
            open_jazz_client(node.ws) as alice,
        ):
            co_id = (await alice.do("create", values={"by": "alice"}))["id"]
        async with open_js_server(file) as (_, port), open_jazz_client(_url(port)) as bob:
            await bob.do("set", id=co_id, key="by", value="bob")
            await bob.do("create", values={"more": True})
        # The bee alone would be a step back: that is said, with what to do about it.
        refused = await run_beemesh("up", "--data", str(tmp_path), "--store", "bee")
        assert (refused.code, "--store hybrid" in refused.error) == (2, True)
        for store in ("hybrid", "bee"):
            async with (
                open_running_node(tmp_path, "--store", store) as node,
                open_jazz_client(node.ws) as carol,
            ):
                assert (await carol.do("load", id=co_id))["values"] == {"by": "bob"}


def _url(port: int) -> str:
    return f"ws://127.0.0.1:{port}"
