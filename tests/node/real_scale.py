"""A mesh of real nodes on one machine: `python -m tests.node.real_scale --nodes 20`.

Each is a `beemesh up` of its own that keeps everything; they are told one another's addresses. The
first is run with `--min-copies`, so its Jazz client has an edit confirmed when all nodes hold it
durably. A line: the time of an edit, and what a node spends on one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from node.client import AdminClient
from node.verbs import Result
from tests.bench import lib
from tests.support.running_node import JazzClient, RunningNode, open_jazz_client, open_running_node

SETTLE_SECONDS = 12.0
"""What is said later, in brief, counts, too."""


def processor_seconds(node: RunningNode) -> float:
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(node: RunningNode) -> float:
    status = Path(f"/proc/{node.process.pid}/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0]) / 1024


async def members(node: RunningNode) -> list[Result]:
    client = AdminClient.find(node.data)
    assert client is not None
    peers = await trio.to_thread.run_sync(client.peers)
    return [peer for peer in peers if peer["is_member"]]


async def sent_bytes(nodes: list[RunningNode]) -> int:
    sent = 0
    for node in nodes:
        for peer in await members(node):
            count = peer["bytes_sent"]
            assert isinstance(count, int)
            sent += count
    return sent


async def open_mesh(stack: AsyncExitStack, directory: Path, count: int) -> list[RunningNode]:
    """Each connected with each."""
    nodes: list[RunningNode] = []
    for number in range(count):
        join = [nodes[0].ready["ticket"]] if nodes else []
        join += [node.ready["mesh"] for node in nodes[1:]]
        options = ["--replicate", "all", "--min-copies", str(1 if nodes else count)]
        options += [text for place in join for text in ("--join", place)]
        opened = open_running_node(directory / str(number), *options)
        nodes.append(await stack.enter_async_context(opened))
    for node in nodes:
        while len(await members(node)) < count - 1:  # noqa: ASYNC110 - another process
            await trio.sleep(0.2)
    return nodes


async def measure(client: JazzClient, nodes: list[RunningNode], edits: int) -> dict[str, object]:
    co_id = (await client.do("create", values={"number": -1}))["id"]
    await trio.sleep(SETTLE_SECONDS)
    sent = await sent_bytes(nodes)
    spent = sum(map(processor_seconds, nodes))
    times = []
    for number in range(edits):
        started = lib.now()
        await client.do("set", id=co_id, key="number", value=number)
        times.append(lib.now() - started)
    await trio.sleep(SETTLE_SECONDS)
    spent = sum(map(processor_seconds, nodes)) - spent
    sent = await sent_bytes(nodes) - sent
    share = len(nodes) * edits
    return {
        "case": "real scale",
        "nodes": len(nodes),
        "edit_ms_median": round(statistics.median(times) * 1000, 1),
        "edit_ms_max": round(max(times) * 1000, 1),
        "cpu_ms_per_node_and_edit": round(spent * 1000 / share, 2),
        "bytes_per_node_and_edit": round(sent / share),
        "mb_per_node": round(statistics.mean(map(resident_mb, nodes)), 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.real_scale")
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--edits", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            nodes = await open_mesh(stack, Path(directory), options.nodes)
            client = await stack.enter_async_context(open_jazz_client(nodes[0].ws))
            lib.emit(await measure(client, nodes, options.edits))


if __name__ == "__main__":
    trio.run(main)
