"""Real clients of a node whose disk is full, in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.node.test_disk_guard import BALLAST, fill_disk, small_disk
from tests.support.running_node import RunningNode, open_jazz_client, open_running_node

pytestmark = pytest.mark.interop

__all__ = ["small_disk"]


async def is_ready(node: RunningNode) -> bool:
    """Ask its probe."""
    host, _, port = str(node.ready["admin"]).removeprefix("http://").rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        request = f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        await stream.send_all(request.encode())
        answer = b"".join([bytes(chunk) async for chunk in stream])
    return answer.startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
async def test_clients_of_a_full_disk_lose_nothing(small_disk: Path) -> None:
    """What was on its way, and what was refused, is there once there is room, without a restart."""
    async with (
        open_running_node(small_disk / "node", "--min-free-bytes", "1") as node,
        open_jazz_client(node.ws) as writer,
        open_jazz_client(node.ws) as reader,
    ):
        made = (await writer.do("create", values={"k": "v"}))["id"]
        assert await is_ready(node)
        fill_disk(small_disk / BALLAST)
        on_its_way = {"id": made, "key": "a", "value": "w" * 5000}
        assert (await writer.do("set", **on_its_way, timeout=500)) == {"synced": False}
        with trio.fail_after(20):
            while await is_ready(node):
                pass
        refused = {"id": made, "key": "b", "value": "x"}
        assert (await writer.do("set", **refused, timeout=500)) == {"synced": False}
        assert (await reader.do("load", id=made))["values"]["k"] == "v", "reading goes on"
        (small_disk / BALLAST).unlink()
        assert (await reader.do("wait", **on_its_way))["seen"]
        assert (await reader.do("wait", **refused))["seen"]
        assert await is_ready(node)
        last = await writer.do("set", id=made, key="c", value="y", timeout=20_000)
        assert last == {"synced": True}
