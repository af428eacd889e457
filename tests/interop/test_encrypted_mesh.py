"""An encrypted mesh of real nodes, with Jazz clients, and JavaScript that has the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from node.client import AdminClient
from tests.interop.bee_peer import open_bee_peer
from tests.support.running_node import (
    RunningNode,
    open_jazz_client,
    open_running_node,
    run_beemesh,
    wait_members,
)

pytestmark = pytest.mark.interop


async def invite(node: RunningNode, role: str) -> str:
    (invitation,) = (await node.beemesh("invite", "--role", role, "--json")).lines
    ticket: str = invitation["ticket"]
    return ticket


async def wait_kept(keeper: RunningNode, key: str) -> None:
    """Return when the keeper has all of that core; it can only be asked again and again."""
    client = AdminClient.find(keeper.data)
    assert client is not None
    while True:
        status = await trio.to_thread.run_sync(client.status)
        cores: Any = status["cores"]
        if any(core["key"] == key and core["held"] == core["length"] > 1 for core in cores):
            return
        await trio.sleep(0.05)


def holds(path: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in path.rglob("*") if file.is_file())


async def test_a_blind_node_serves_readers_and_javascript_while_the_owner_is_away(
    tmp_path: Path,
) -> None:
    with trio.fail_after(180):
        async with open_running_node(tmp_path / "a", "--mesh-encrypted") as a:
            tickets = {role: await invite(a, role) for role in ("blind", "reader")}
            async with open_running_node(tmp_path / "b", "--join", tickets["blind"]) as blind:
                async with open_jazz_client(a.ws) as alice:
                    co_id = (await alice.do("create", values={"title": "kept"}))["id"]
                await wait_members(a, blind)
                await wait_kept(blind, a.ready["key"])
                await a.stop()
                join = ("--join", tickets["reader"], "--join", blind.ready["mesh"])
                async with (
                    open_running_node(tmp_path / "r", *join) as reader,
                    open_jazz_client(reader.ws) as bob,
                ):
                    await wait_members(reader)
                    assert (await bob.do("load", id=co_id))["values"] == {"title": "kept"}
                    written = await bob.do("set", id=co_id, key="n", value=1, timeout=500)
                    assert written == {"synced": False}
                    (info,) = (await reader.beemesh("mesh", "--json")).lines
                    assert (info["role"], info["is_encrypted"], info["reads"]) == (
                        "reader",
                        True,
                        True,
                    )
                # The key shows what a JavaScript Hyperbee reads, from the node that cannot.
                done = await run_beemesh("mesh", "--secrets", "--json", "--data", str(a.data))
                key = json.loads(done.out)["data_key"]
                port = int(blind.ready["mesh"].rpartition(":")[2])
                async with open_bee_peer(tmp_path / "js") as peer:
                    await peer("open", id=1, key=a.ready["key"], encryptionKey=key)
                    await peer("connect", port=port)
                    await peer("waitLength", id=1, length=2)
                    bounds = {"gte": f"{co_id}:".encode().hex(), "lt": f"{co_id};".encode().hex()}
                    entries = (await peer("range", id=1, **bounds))["entries"]
                    keys = [bytes.fromhex(row[1]).decode() for row in entries]
                (info,) = (await blind.beemesh("mesh", "--json")).lines
                assert (info["role"], info["reads"]) == ("blind", False)
    listed = await run_beemesh(
        *("bee", "ls", "beemesh/data", "--prefix", f"{co_id}:", "--json"),
        *("--data", str(tmp_path / "a")),
    )
    assert keys == [row["key"] for row in listed.lines]
    assert f"{co_id}:header" in keys
    assert not holds(tmp_path / "b", co_id)
