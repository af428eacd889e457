"""Nodes over each kind of store, and what may follow what in one directory."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from hypercore.corestore import open_corestore
from hypercore.errors import StoreLocked
from hypercore.storage import Durability
from node.cojson import messages
from node.config import Config, load_config
from node.covalue.content import Content, Transaction
from node.covalue.header import parse_header
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING
from node.covalue.sqlite_store import open_sqlite_store
from node.daemon import open_node
from node.errors import ConfigError
from node.running import Node
from node.storing import open_data_core
from node.verbs import (
    BeeGet,
    BeePut,
    ChangePolicy,
    CoreList,
    ExitCode,
    ListMirrors,
    ListValues,
    Load,
    MeshInvite,
    MeshMembers,
    ShowSync,
    Verb,
    VerbError,
)
from node.web.metrics import build_registry, render_metrics
from node.web.page import render_status
from node.web.status import NodeStatus
from node.web.summary import status_rows
from tests.support.authors import Author, edits, map_header
from tests.support.stores import Appender

ANN = Author("ann")
HEADERS = [map_header(f"value {n}") for n in range(5)]
STORES = ("bee", "sqlite", "hybrid")


def config(data: Path, store: str, **flags: object) -> Config:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    return load_config({"data": data, "discovery": "off", "store": store, **quiet, **flags}, {})


async def put(node: Node, *numbers: int) -> None:
    contents = [ANN.content(HEADERS[number], edits(2), as_agent=True) for number in numbers]
    receipt = await node.host.receive_content("test", contents)
    assert receipt.accepted == {HEADERS[number].id for number in numbers}


async def ids(node: Node) -> set[RawCoId]:
    return {RawCoId(str(result["id"])) async for result in node.perform(ListValues())}


def ids_of(*numbers: int) -> set[RawCoId]:
    return {HEADERS[number].id for number in numbers}


@pytest.mark.parametrize("store", STORES)
async def test_what_was_stored_is_there_again(tmp_path: Path, store: str) -> None:
    async with open_node(config(tmp_path, store)) as node:
        await put(node, 0, 1)
        (report,) = [result async for result in node.perform(Load(HEADERS[1].id))]
        assert (report["transactions"], report["source"]) == (2, "store")
    async with open_node(config(tmp_path, store)) as node:
        assert await ids(node) == ids_of(0, 1)
        assert node.status().store == store
        assert node.status().covalues == 2


async def test_a_node_over_sqlite_alone_has_no_mesh_and_says_so(tmp_path: Path) -> None:
    async with open_node(config(tmp_path, "sqlite")) as node:
        assert (node.key, node.mesh, node.ticket(), node.addresses.mesh) == (None,) * 4
        assert node.missing_for_ready() == []
        status = node.status()
        assert (status.key, status.mesh, status.peers, status.cores) == (None, None, 0, ())
        assert node.peers() == []
        rows = dict(status_rows(status))
        assert rows["mesh"] == "none: --store sqlite"
        assert "data core" not in rows
        assert "none: --store sqlite" in render_status(status, node.peers())
        assert b"beemesh_covalues 0.0" in render_metrics(build_registry(node.status))
        assert msgspec.convert(msgspec.to_builtins(status), NodeStatus) == status
        with pytest.raises(VerbError, match="no other nodes to ask") as caught:
            async for _ in node.perform(Load(HEADERS[0].id)):
                pass
        assert caught.value.code is ExitCode.NOT_FOUND
        # Named cores and bees are there all the same.
        async for _ in node.perform(BeePut("notes", b"k", b"v")):
            pass
        (entry,) = [result async for result in node.perform(BeeGet("notes", b"k"))]
        assert entry["value"] == "v"
        (core,) = [result async for result in node.perform(CoreList())]
        assert core["name"] == "notes"
    assert sorted(os.listdir(tmp_path)) == ["corestore", "covalues.sqlite", "node.key"]


@pytest.mark.parametrize(
    "verb", [MeshMembers(), MeshInvite(), ChangePolicy(), ListMirrors(), ShowSync()]
)
async def test_whatever_needs_a_mesh_is_refused_alike_without_one(
    tmp_path: Path, verb: Verb
) -> None:
    async with open_node(config(tmp_path, "sqlite")) as node:
        with pytest.raises(VerbError, match="--store sqlite") as caught:
            async for _ in node.perform(verb):
                pass
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("store", ["bee", "hybrid"])
async def test_what_damage_keeps_from_the_disk_or_from_others_is_told(
    tmp_path: Path, store: str
) -> None:
    def contents(name: str, size: int) -> list[Content]:
        headers = [map_header(f"{name} {n}") for n in range(30)]
        return [ANN.content(header, edits(1, size=size), as_agent=True) for header in headers]

    async with open_node(config(tmp_path, store)) as node:
        for content in contents("old", 5000):
            await node.host.receive_content("test", [content])
        assert (node.status().sync.not_stored, node.status().sync.not_shared) == (0, 0)
    async with open_corestore(tmp_path / "corestore") as cores, open_data_core(cores) as data:
        await data.clear(data.length // 2, data.length // 2 + 3)
    async with open_node(config(tmp_path, store)) as node:
        receipt = await node.host.receive_content("test", contents("new", 10))
        status = node.status()
        rows, metrics = dict(status_rows(status)), render_metrics(build_registry(node.status))
        lost, apart = status.sync.not_stored, status.sync.not_shared
        if store == "bee":
            assert (lost, apart) == (len(receipt.refused), 0)
            assert rows["NOT STORED"].startswith(f"{lost} (messages")
            assert f"beemesh_messages_not_stored_total {lost}.0" in metrics.decode()
        else:
            assert (len(receipt.refused), lost) == (0, 0)
            assert rows["NOT SHARED"].startswith(f"{apart} (edits")
            assert f"beemesh_edits_not_shared_total {apart}.0" in metrics.decode()
        assert 0 < lost + apart < 30


@pytest.mark.parametrize("store", ["sqlite", "hybrid"])
async def test_what_clients_cannot_take_is_told(tmp_path: Path, store: str) -> None:
    late = ANN.content(HEADERS[0], [Transaction(2**53 + 1, "[]")], as_agent=True)
    odd = parse_header({**HEADERS[1].fields, "meta": {"a": 0.000001}})
    async with open_sqlite_store(tmp_path / "covalues.sqlite", Durability.OS) as file:
        fine = ANN.content(HEADERS[2], edits(1), as_agent=True)
        await Appender().put(file, late, Content(odd.id, odd, {}), fine)
    async with open_node(config(tmp_path, store)) as node:
        assert node.status().sync.withheld == {}
        with node.host.client("ann") as ann:
            for co_id in (late.co_id, odd.id, HEADERS[2].id):
                await ann.receive([messages.Load(co_id, NOTHING)])
                while not await ann.next_lines(25_000):
                    await ann.outbox.wake.wait()
        status = node.status()
        assert status.sync.withheld == {
            late.co_id: "made at a time that JavaScript does not have",
            odd.id: "a number that the native core writes in another way",
        }
        assert msgspec.convert(msgspec.to_builtins(status), NodeStatus) == status
        assert dict(status_rows(status))["WITHHELD"].startswith("2 (coValues")
        assert b"beemesh_covalues_withheld 2.0" in render_metrics(build_registry(node.status))


async def test_a_file_elsewhere_is_used_in_place(tmp_path: Path) -> None:
    file = tmp_path / "server.db"
    async with open_node(config(tmp_path / "a", "sqlite", sqlite=str(file))) as node:
        await put(node, 0)
        with pytest.raises(StoreLocked, match="in use"):
            async with open_node(config(tmp_path / "b", "sqlite", sqlite=str(file))):
                pass
    assert not (tmp_path / "a" / "covalues.sqlite").exists()
    async with open_node(config(tmp_path / "b", "hybrid", sqlite=str(file))) as node:
        assert await ids(node) == ids_of(0)
    async with open_node(config(tmp_path / "b", "bee")) as node:
        assert await ids(node) == ids_of(0)


@pytest.mark.parametrize("first", ["bee", "sqlite"])
async def test_hybrid_takes_over_and_may_be_left(tmp_path: Path, first: str) -> None:
    async with open_node(config(tmp_path, first)) as node:
        await put(node, 0, 1)
    async with open_node(config(tmp_path, "hybrid")) as node:
        assert await ids(node) == ids_of(0, 1)
        await put(node, 2)
    for store in ("bee", "sqlite", "hybrid"):
        async with open_node(config(tmp_path, store)) as node:
            assert await ids(node) == ids_of(0, 1, 2)


@pytest.mark.parametrize(
    ("first", "second", "command"),
    [("bee", "sqlite", "beemesh export"), ("sqlite", "bee", "beemesh import")],
)
async def test_nothing_is_left_behind_silently(
    tmp_path: Path, first: str, second: str, command: str
) -> None:
    async with open_node(config(tmp_path, first)) as node:
        await put(node, 0, 1, 2)
    with pytest.raises(ConfigError, match="holds 3 coValues") as caught:
        async with open_node(config(tmp_path, second)):
            pass
    assert "--store hybrid" in str(caught.value)
    assert command in str(caught.value)
    assert f"--data {tmp_path}`" in str(caught.value), "it must not end in the default directory"
    # What was left is no reason to refuse once the other one has it all and more.
    async with open_node(config(tmp_path, "hybrid")) as node:
        pass
    async with open_node(config(tmp_path, second)) as node:
        await put(node, 3)
    async with open_node(config(tmp_path, second)) as node:
        assert await ids(node) == ids_of(0, 1, 2, 3)
    with pytest.raises(ConfigError, match="holds 4 coValues"):
        async with open_node(config(tmp_path, first)):
            pass


async def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "covalues.sqlite").write_text("no database" * 100)
    with pytest.raises(ConfigError, match="cannot be read"):
        async with open_node(config(tmp_path, "bee")):
            pass


@pytest.mark.parametrize("store", ["bee", "hybrid"])
async def test_data_of_an_encrypted_mesh(tmp_path: Path, store: str) -> None:
    """Nothing in the core can be read without the key, and a plain core does not become one."""
    marker = HEADERS[0].id.encode()
    for data, is_encrypted in (("plain", False), ("encrypted", True)):
        encrypted = config(tmp_path / data, store, mesh_encrypted=is_encrypted)
        async with open_node(encrypted) as node:
            await put(node, 0)
        async with open_node(config(tmp_path / data, store)) as node:
            assert await ids(node) == ids_of(0)
            assert node.key is not None
            key = node.key
        async with open_corestore(tmp_path / data / "corestore") as cores:
            core = await cores.get(key=key)
            blocks = [await core.get(index) for index in range(core.length)]
            assert any(marker in block for block in blocks) is not is_encrypted
    os.replace(tmp_path / "encrypted" / "mesh.toml", tmp_path / "plain" / "mesh.toml")
    with pytest.raises(ConfigError, match="not written under the key"):
        async with open_node(config(tmp_path / "plain", store)):
            pass
