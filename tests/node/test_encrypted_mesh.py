"""An encrypted mesh of whole nodes in this process: what is kept comes back after a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog
import trio

from node.cli.app import main
from node.config import Config, load_config
from node.covalue.ids import RawCoId
from node.daemon import open_node
from node.errors import ConfigError
from node.running import Node
from node.verbs import ExitCode, Explain, ImportValues, Load, MeshInvite, VerbError
from tests.support.authors import Author, edits, map_header
from tests.support.running_node import run_beemesh

ANN, HEADER = Author("ann"), map_header("m")


def config(data: Path, **flags: object) -> Config:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    return load_config({"data": data, "discovery": "off", **quiet, **flags}, {})


async def invite(node: Node, role: str) -> str:
    (invitation,) = [result async for result in node.perform(MeshInvite(role))]
    return str(invitation["ticket"])


async def load(node: Node, co_id: RawCoId) -> bool:
    try:
        return [result async for result in node.perform(Load(co_id))] != []
    except VerbError:
        return False


async def wait_kept(keeper: Node, owner: Node) -> None:
    assert owner.key is not None
    with trio.fail_after(20):
        while not any(
            core.key == owner.key.hex() and core.held == core.length > 1
            for core in keeper.status().cores
        ):
            await trio.lowlevel.checkpoint()


async def test_a_keeper_does_not_say_that_a_value_is_nowhere(tmp_path: Path) -> None:
    """It cannot read what it keeps, nor ask: somebody connected may well have it."""
    co_id = ANN.content(HEADER, edits(1), as_agent=True).co_id
    with trio.fail_after(60):
        async with open_node(config(tmp_path / "a", mesh_encrypted=True)) as owner:
            blind = await invite(owner, "blind")
        async with open_node(config(tmp_path / "b", join=[blind])) as keeper:
            for verb in (Load(co_id), Explain(co_id)):
                with pytest.raises(VerbError, match=r"this node is blind.*ask another") as refused:
                    _ = [result async for result in keeper.perform(verb)]
                assert refused.value.code is ExitCode.NOT_FOUND


async def test_a_keeper_serves_what_it_kept_before_it_was_restarted(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with open_node(config(tmp_path / "a", mesh_encrypted=True)) as owner:
            content = ANN.content(HEADER, edits(2), as_agent=True)
            await owner.host.receive_content("test", [content])
            blind, reading = await invite(owner, "blind"), await invite(owner, "reader")
            async with open_node(config(tmp_path / "b", join=[blind])) as keeper:
                assert keeper.access.gate.is_read_only
                await wait_kept(keeper, owner)
                assert owner.status().mesh_is_encrypted
                shown = await run_beemesh("sync", "status", "--data", str(keeper.config.data))
                assert (shown.code, "keeps the logs of 1 writer" in shown.out) == (0, True)
                assert "coValues wanted" not in shown.out
        async with open_node(config(tmp_path / "b")) as keeper:
            assert not await load(keeper, HEADER.id)
            join = [reading, str(keeper.addresses.mesh)]
            async with open_node(config(tmp_path / "r", join=join)) as reader:
                assert reader.mesh is not None
                while not reader.mesh.members:
                    await reader.mesh.wait_members_changed()
                assert await load(reader, HEADER.id)
                assert reader.access.gate.is_read_only
                with pytest.raises(VerbError, match=r"nothing imported.*only read in its mesh"):
                    await anext(reader.perform(ImportValues(str(tmp_path / "values.db"))))


def test_verbs_on_the_directory_have_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill() -> None:
        async with open_node(config(tmp_path / "a", mesh_encrypted=True)) as node:
            content = ANN.content(HEADER, edits(2), as_agent=True)
            await node.host.receive_content("test", [content])

    def beemesh(*arguments: str) -> list[dict[str, object]]:
        assert main([*arguments, "--data", str(tmp_path / "a"), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    trio.run(fill)
    try:
        rows = beemesh("bee", "ls", "beemesh/data", "--prefix", f"{HEADER.id}:")
        assert f"{HEADER.id}:header" in {row["key"] for row in rows}
        assert beemesh("export", str(tmp_path / "file.db"))[-1]["moved"] == 1
        assert beemesh("compact")[-1]["blocks_kept"] != 0
        assert beemesh("mesh", "--secrets")[0]["data_key"]
        assert beemesh("core", "verify")
    finally:
        structlog.reset_defaults()  # `export` has pointed it at the stderr of this test


def test_an_encrypted_mesh_needs_a_store_that_others_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mesh-encrypted needs a store"):
        config(tmp_path, store="sqlite", mesh_encrypted=True)
