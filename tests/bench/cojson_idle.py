"""What a client that only listens costs: memory, and the work of keeping its connection alive.

`python -m tests.bench.cojson_idle [--clients 1000] [--loads 10] [--servers js,python]`: so many
WebSocket connections, each subscribed to some values (`--loads`), then silent. Memory is the
server's RSS with them less that before, CPU is what ten silent seconds cost.
"""

from __future__ import annotations

import argparse
import resource
import shlex

import trio

from node.cojson.base58 import base58_encode
from tests.bench import lib
from tests.bench.__main__ import link_originals
from tests.bench.cojson_replay import SERVERS, RawClient, frame
from tests.bench.processes import spawn

IDLE_SECONDS = 10.0
_WARM_UP = 50
"""Connections made and ended beforehand, so that what the first ones cost once is not counted."""


def connect(port: int, clients: int, loads: int) -> list[RawClient]:
    """Each is told of the values it asks for, which are not there, before the next one comes."""
    made: list[RawClient] = []
    for number in range(clients):
        client = RawClient(port)
        lines = "\n".join(load_line(number * loads + item) for item in range(loads))
        unsent = memoryview(frame(lines) if loads else b"")
        answers = 0
        while unsent or answers < loads:
            unsent, said = client.exchange(unsent)
            answers += sum(line.action == "known" for line in said)
        made.append(client)
    return made


def load_line(number: int) -> str:
    co_id = "co_z" + base58_encode(b"\x01" + number.to_bytes(18, "big"))
    return f'{{"action":"load","id":"{co_id}","header":false,"sessions":{{}}}}'


async def measure(server: str, clients: int, loads: int) -> None:
    directory = lib.temporary("idle")
    async with spawn([*shlex.split(SERVERS[server]), "--db", str(directory / "db")]) as child:
        port = child.info["port"]
        for client in await trio.to_thread.run_sync(connect, port, _WARM_UP, loads):
            client.close()
        await trio.sleep(1)
        before = await child.stats()
        connected = await trio.to_thread.run_sync(connect, port, clients, loads)
        await trio.sleep(1)
        after = await child.stats()
        await trio.sleep(IDLE_SECONDS)
        idle = await child.stats()
        kib = (after["rss_mb"] - before["rss_mb"]) * 1024 / clients
        lib.emit(
            {
                "server": server,
                "case": "idle_clients",
                "clients": clients,
                "loads": loads,
                "kib_per_client": round(kib, 1),
                "connect_cpu_ms_per_client": round(after["cpu_s"] / clients * 1e3, 2),
                "idle_cpu_percent": round(idle["cpu_s"] / IDLE_SECONDS * 100, 1),
                "server_rss_mb": after["rss_mb"],
            }
        )
        for client in connected:
            client.close()
    lib.remove(directory)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cojson_idle")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--loads", type=int, default=10)
    parser.add_argument("--servers", default="js,python")
    options = parser.parse_args()
    link_originals()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for server in options.servers.split(","):
        await measure(server, options.clients, options.loads)


if __name__ == "__main__":
    trio.run(main)
