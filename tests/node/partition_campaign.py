"""Five nodes as processes in namespaces, cut apart and killed while real clients edit.

    python -m tests.node.partition_campaign --minutes 3

A Jazz client is attached to every node all the time, and edits a map of its own that all others
have loaded; a client that uploads, deletes and streams without a pause is attached to node 0. In
each round some links are cut, in one direction or both, come and go, or lose a fifth of all
packets, and nodes are killed with SIGKILL and started again. After each round all is put right;
then, within CONVERGENCE_SECONDS, every client must have of every map what was acknowledged last.
At the end node 0 must hold all that it acknowledged.

Needs root, /dev/net/tun and node.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import trio

from tests.node.crash_campaign import Acknowledged, Report, find_lost
from tests.support.running_node import INTEROP, environment
from tests.support.switch import Switch, address_of, in_namespace, open_switch

NODES = 5
CONVERGENCE_SECONDS = 5.0
START_SECONDS = 60.0
EDIT_SECONDS = 0.1
WS_PORT, MESH_PORT = 4200, 4000


class CampaignNode:
    """`beemesh up` in a namespace."""

    def __init__(self, switch: Switch, number: int, data: Path) -> None:
        self.number = number
        self.namespace = switch.namespace(number)
        others = [other for other in range(switch.count) if other != number]
        self._command = [
            *("ip", "netns", "exec", self.namespace, sys.executable, "-m", "node", "up", "--json"),
            *("--data", str(data), "--ws", f"127.0.0.1:{WS_PORT}", "--admin", "127.0.0.1:0"),
            *("--mesh", f"{address_of(number)}:{MESH_PORT}", "--mesh-name", "campaign"),
            *("--discovery", "off", "--log-level", "error"),
            *(text for other in others for text in ("--join", f"{address_of(other)}:{MESH_PORT}")),
        ]
        self._process: trio.Process | None = None

    async def start(self) -> None:
        self._process = await trio.lowlevel.open_process(
            self._command, stdout=subprocess.PIPE, env=environment()
        )
        assert self._process.stdout is not None
        with trio.fail_after(START_SECONDS):
            assert b"ready" in await self._process.stdout.receive_some(65536)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        with trio.fail_after(30):
            return await self._process.wait()

    def resident_kib(self) -> int:
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


class Client:
    """A Jazz client in a node's namespace."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._pending = b""
        self._turn = trio.Lock()
        self.map_id = ""
        self.acknowledged = 0
        """The last value of our map's counter that the node said to hold."""

    async def ask(self, do: str, **fields: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            await self._process.stdin.send_all(json.dumps({"do": do, **fields}).encode() + b"\n")
            while b"\n" not in self._pending:
                chunk = await self._process.stdout.receive_some(65536)
                assert chunk, "a client has ended"
                self._pending += bytes(chunk)
            line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def edit_forever(self) -> None:
        value = self.acknowledged
        while True:
            value += 1
            with trio.CancelScope(shield=True):  # else the answer would be taken for the next one's
                answer = await self.ask("set", id=self.map_id, key="n", value=value, timeout=2000)
            if answer.get("synced"):
                self.acknowledged = value
            await trio.sleep(EDIT_SECONDS)


@asynccontextmanager
async def open_client(namespace: str) -> AsyncIterator[Client]:
    process = await trio.lowlevel.open_process(
        [
            *("ip", "netns", "exec", namespace, "node", "jazz_client.mjs"),
            f"ws://127.0.0.1:{WS_PORT}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=INTEROP,
    )
    try:
        yield Client(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def open_load(namespace: str, acknowledged: Acknowledged) -> AsyncIterator[None]:
    """The client that uploads without a pause; what was acknowledged is noted."""
    process = await trio.lowlevel.open_process(
        [
            *("ip", "netns", "exec", namespace, "node", "mixed_load.mjs"),
            *(f"ws://127.0.0.1:{WS_PORT}", "1"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=INTEROP,
    )

    async def read() -> None:
        assert process.stdout is not None
        pending = b""
        async for chunk in process.stdout:
            *lines, pending = (pending + bytes(chunk)).split(b"\n")
            for line in lines:
                acknowledged.take(json.loads(line))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            yield
            process.kill()
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@dataclass
class Findings:
    rounds: int = 0
    kills: int = 0
    edits: int = 0
    checked: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """From when all was put right until all agreed, per round."""
    resident_kib: list[int] = field(default_factory=list)


class Campaign:
    def __init__(
        self, switch: Switch, nodes: list[CampaignNode], clients: list[Client], seed: int
    ) -> None:
        self._switch = switch
        self._nodes = nodes
        self._clients = clients
        self._chance = random.Random(seed)
        self.findings = Findings()
        self.patience_seconds = CONVERGENCE_SECONDS

    async def acquaint(self) -> None:
        """Every client makes a map and loads all the others'."""
        for client in self._clients:
            client.map_id = (await client.ask("create", values={"n": 0}))["id"]
        for client in self._clients:
            for other in self._clients:
                with trio.fail_after(START_SECONDS):
                    await _load(client, other.map_id)

    async def play_round(self, seconds: float) -> None:
        """Let things go wrong for so long, put them right, and see whether all agree in time."""
        findings = self.findings
        async with trio.open_nursery() as edits:
            for client in self._clients:
                edits.start_soon(client.edit_forever)
            end = trio.current_time() + seconds
            while trio.current_time() < end:
                await self._spoil()
                await trio.sleep_until(min(end, trio.current_time() + self._chance.uniform(0.2, 6)))
            edits.cancel_scope.cancel()
        await self._switch.set()
        started = trio.current_time()
        for client in self._clients:
            for other in self._clients:
                await self._wait_seen(client, other, started)
        findings.seconds.append(round(trio.current_time() - started, 2))
        findings.rounds += 1
        findings.edits = sum(client.acknowledged for client in self._clients)
        findings.resident_kib = [node.resident_kib() for node in self._nodes]

    async def _spoil(self) -> None:
        numbers = range(len(self._nodes))
        match self._chance.choice(("partition", "one way", "isolate", "flap", "loss", "kill")):
            case "partition":
                group = {number for number in numbers if self._chance.random() < 0.5}
                pairs = permutations(numbers, 2)
                await self._switch.set([pair for pair in pairs if len({*pair} & group) == 1])
            case "one way":
                pairs = permutations(numbers, 2)
                await self._switch.set([pair for pair in pairs if self._chance.random() < 0.3])
            case "isolate":
                alone = self._chance.choice(numbers)
                await self._switch.set([pair for pair in permutations(numbers, 2) if alone in pair])
            case "flap":
                alone = self._chance.choice(numbers)
                cut = [pair for pair in permutations(numbers, 2) if alone in pair]
                for _ in range(4):
                    await self._switch.set(cut)
                    await trio.sleep(self._chance.uniform(0.1, 0.6))
                    await self._switch.set()
                    await trio.sleep(self._chance.uniform(0.1, 0.6))
            case "loss":
                await self._switch.set(loss=0.2)
            case _:
                node = self._chance.choice(self._nodes)
                await node.stop(signal.SIGKILL)
                await node.start()
                self.findings.kills += 1

    async def _wait_seen(self, client: Client, other: Client, started: float) -> None:
        """Wait until a client has of another's map what was acknowledged last, or more."""
        while True:
            answer = await client.ask("load", id=other.map_id)
            seen = answer.get("values", {}).get("n", -1)
            self.findings.checked += 1
            if seen >= other.acknowledged:
                return
            if trio.current_time() > started + self.patience_seconds:
                self.findings.problems.append(
                    f"round {self.findings.rounds}: {seen} of {other.acknowledged} seen "
                    f"{trio.current_time() - started:.1f} s after all was put right"
                )
                return
            await trio.sleep(0.05)


async def _load(client: Client, map_id: str) -> None:
    """Load until it is there: nodes may not be connected yet."""
    while True:
        if "values" in await client.ask("load", id=map_id):
            return
        await trio.sleep(0.1)


async def run_campaign(
    seconds: float, seed: int, *, round_seconds: float = 20.0, patience: float = CONVERGENCE_SECONDS
) -> Findings:
    """Rounds for so long; the first begins when all nodes are up."""
    acknowledged = Acknowledged()
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beemesh-cut-")))
        switch = await stack.enter_async_context(open_switch(NODES))
        nodes = [CampaignNode(switch, number, data / str(number)) for number in range(NODES)]
        for node in nodes:
            await node.start()
            stack.push_async_callback(node.stop, signal.SIGKILL)
        clients = [await stack.enter_async_context(open_client(node.namespace)) for node in nodes]
        campaign = Campaign(switch, nodes, clients, seed)
        campaign.patience_seconds = patience
        await campaign.acquaint()
        async with open_load(nodes[0].namespace, acknowledged):
            end = trio.current_time() + seconds
            while trio.current_time() < end:
                await campaign.play_round(min(round_seconds, end - trio.current_time()))
        findings = campaign.findings
        report = Report()
        url = f"ws://127.0.0.1:{WS_PORT}"
        await trio.to_thread.run_sync(
            in_namespace, nodes[0].namespace, partial(find_lost, url, acknowledged, report)
        )
        findings.checked += report.checked
        findings.problems += [f"lost: {text}" for text in report.lost]
        return findings


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.partition_campaign")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    findings = await run_campaign(60 * options.minutes, options.seed)
    sys.stdout.write(
        f"seed {options.seed}: {findings.rounds} rounds, {findings.kills} kills, "
        f"{findings.edits} edits acknowledged, {findings.checked} checked, "
        f"agreed after {findings.seconds} s, resident KiB {findings.resident_kib}\n"
    )
    for problem in findings.problems[:20]:
        sys.stdout.write(f"{problem}\n")
    sys.exit(1 if findings.problems else 0)


if __name__ == "__main__":
    trio.run(main)
