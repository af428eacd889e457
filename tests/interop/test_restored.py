"""Real clients that stay connected while their node's store is replaced by an older copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from tests.support.running_node import JazzClient, open_jazz_client, open_running_node

pytestmark = pytest.mark.interop


async def loaded(client: JazzClient, co_id: str, **values: object) -> None:
    """Return when it is there like this; who asks is not told when it comes."""
    while (await client.do("load", id=co_id)).get("values") != values:  # noqa: ASYNC110 - another process
        await trio.sleep(0.2)


@pytest.mark.parametrize("store", ["bee", "sqlite", "hybrid"])
async def test_clients_bring_back_what_a_restored_node_lacks(tmp_path: Path, store: str) -> None:
    data, old = tmp_path / "node", tmp_path / "old"
    with trio.fail_after(180):
        async with open_running_node(data, "--store", store) as node:
            ws = node.ws
        options = ("--store", store, "--ws", ws.removeprefix("ws://"))
        async with open_jazz_client(ws) as alice, open_jazz_client(ws) as bob:
            async with open_running_node(data, *options):
                old_id = (await alice.do("create", values={"a": 1, "b": 1}))["id"]
                await bob.do("set", id=old_id, key="b", value=2)
            shutil.copytree(data, old)
            async with open_running_node(data, *options):
                await alice.do("set", id=old_id, key="a", value=3)
                await bob.do("set", id=old_id, key="b", value=3)
                new_id = (await alice.do("create", values={"a": 4}))["id"]
                stream = await alice.do("stream", size=300_000)
            shutil.rmtree(data)
            old.rename(data)
            (data / "corestore" / "CORESTORE").unlink(missing_ok=True)  # it is on another disk now
            async with open_running_node(data, *options), open_jazz_client(ws) as carol:
                await loaded(carol, old_id, a=3, b=3)
                await loaded(carol, new_id, a=4)
                assert (await carol.do("readStream", id=stream["id"]))["hash"] == stream["hash"]
