"""What a node costs as its mesh grows: `python -m tests.node.scale`.

Meshes of some nodes in one process, each connected with each over memory streams (encrypted,
as over TCP) and all keeping one value. One node edits it; when an edit is everywhere comes the
next. A line a size: bytes that a node sends for an update, processor time, memory, and how long
until the last node has it stored. What is said later, in brief, and heads of logs that are looked
at later, count, too.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import trio
import trio.abc
import trio.testing

from node.covalue.content import Content
from node.mesh.hearsay import SECOND_SECONDS
from node.mesh.replicas import ReplicaPolicy
from node.mesh.serve import HEAD_DELAY_SECONDS
from swarm.io.tasks import open_background_nursery
from tests.bench import lib
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, open_mesh_node, serve_end


class Counting(trio.abc.Stream):
    """Counts what is sent on a stream."""

    total = 0

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        Counting.total += len(data)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


def rss_mb() -> float:
    gc.collect()
    status = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0]) / 1024


async def measure(size: int, updates: int) -> dict[str, float]:
    value = Author(1).value("shared")
    policy = ReplicaPolicy(pinned=frozenset((value.id,)))
    before = rss_mb()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(open_mesh_node(number + 1, policy=policy))
            for number in range(size)
        ]
        nursery = await stack.enter_async_context(open_background_nursery())
        for number, one in enumerate(nodes):
            for other in nodes[number + 1 :]:
                near, far = trio.testing.memory_stream_pair()
                nursery.start_soon(_serve, one, Counting(near), True)
                nursery.start_soon(_serve, other, Counting(far), False)
        for one in nodes:
            while len(one.mesh.members) < size - 1:
                await one.mesh.wait_members_changed()
        await _edit(nodes, value.edit("[]", with_header=True))
        memory = (rss_mb() - before) / size
        sent, cpu, started = Counting.total, time.process_time(), lib.now()
        for _ in range(updates):
            await _edit(nodes, value.edit("[]"))
        seconds = lib.now() - started
        await trio.sleep(HEAD_DELAY_SECONDS + SECOND_SECONDS)
        cpu = time.process_time() - cpu
        sent = Counting.total - sent
        nursery.cancel_scope.cancel()
    return {
        "nodes": size,
        "bytes_per_node_and_update": round(sent / size / updates),
        "cpu_ms_per_node_and_update": round(cpu * 1000 / size / updates, 2),
        "seconds_until_all_have_it": round(seconds / updates, 3),
        "mb_per_node": round(memory, 2),
    }


async def _serve(node: MeshNode, stream: trio.abc.Stream, is_initiator: bool) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the other end left first
        await serve_end(node, stream, is_initiator=is_initiator)


async def _edit(nodes: list[MeshNode], content: Content) -> None:
    receipt = await nodes[0].host.receive_content("client", [content])
    assert not receipt.refused
    [(session_id, part)] = content.new.items()
    wanted = {content.co_id: {session_id: part.after + len(part.transactions)}}
    for node in nodes:
        await node.wait_counts(wanted)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.scale")
    parser.add_argument("--sizes", default="2,5,10,20")
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args()
    rows = []
    for size in options.sizes.split(","):
        rows.append(await measure(int(size), options.updates))
        lib.emit({"case": "scale"} | rows[-1])
    most = max(row["bytes_per_node_and_update"] for row in rows)
    for row in rows:
        bar = "#" * round(50 * row["bytes_per_node_and_update"] / most)
        sys.stderr.write(f"{row['nodes']:>4} nodes {bar} {row['bytes_per_node_and_update']} B\n")


if __name__ == "__main__":
    trio.run(main)
