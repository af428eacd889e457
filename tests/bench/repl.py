"""Replication over TCP, as `js/repl.js`: `python -m tests.bench.repl --case full_100b`."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from hypercore import Core, Durability, open_corestore
from hypercore.crypto import KeyPair
from swarm import Connection, open_connection, open_mux
from tests.bench import lib
from tests.bench.processes import PYTHON_SERVER, delayed, spawn


class Client:
    """An empty store connected to a server."""

    def __init__(self, core: Core, connection: Connection, path: Path, started: float) -> None:
        self.core = core
        self.connection = connection
        self.path = path
        self.started = started

    @property
    def bytes_in(self) -> int:
        return self.connection.statistics().bytes_received

    @property
    def bytes_out(self) -> int:
        return self.connection.statistics().bytes_sent


@asynccontextmanager
async def open_client(key: str, port: int) -> AsyncIterator[Client]:
    path = lib.temporary("client")
    async with open_corestore(path, durability=Durability.parse("os")) as store:
        core = await store.get(key=bytes.fromhex(key))
        started = lib.now()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with (
            open_connection(stream, KeyPair.generate(), is_initiator=True) as connection,
            open_mux(connection) as mux,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(store.replicate, mux)
            yield Client(core, connection, path, started)
            nursery.cancel_scope.cancel()
    lib.remove(path)


async def full(server: str, name: str, n: int, size: int, one_way_ms: float = 0) -> None:
    command = [*server.split(), "--kind", "core", "--n", str(n), "--size", str(size)]
    async with spawn(command) as child:
        await child.stats()
        async with (
            delayed(child.info["port"], one_way_ms) as port,
            open_client(child.info["key"], port) as client,
        ):
            cpu = lib.cpu_seconds()
            await client.core.wait_length(n)
            updated = lib.now() - client.started
            await client.core.download(0, n)
            seconds = lib.now() - client.started
            assert client.core.contiguous_length == n
            used = round(lib.cpu_seconds() - cpu, 2)
            remote = await child.stats()
            after = n / (seconds - updated)
            extra = {"blocks_per_rtt": round(after * 2 * one_way_ms / 1000, 1)}
            lib.line(
                name,
                n,
                seconds,
                n * size,
                update_ms=round(updated * 1e3, 2),
                after_update_blocks_per_s=round(after, 1),
                **(extra if one_way_ms else {}),
                wire_in=client.bytes_in,
                wire_out=client.bytes_out,
                wire_in_per_block=round(client.bytes_in / n, 1),
                wire_out_per_block=round(client.bytes_out / n, 1),
                client_cpu_s=used,
                server_cpu_s=remote["cpu_s"],
                server_rss_mb=remote["rss_mb"],
            )


async def sparse(server: str, n: int = 100000, size: int = 100) -> None:
    command = [*server.split(), "--kind", "core", "--n", str(n), "--size", str(size)]
    async with (
        spawn(command) as child,
        open_client(child.info["key"], child.info["port"]) as client,
    ):
        core = client.core
        await core.wait_length(n)
        lib.line("connect_update", 1, lib.now() - client.started, 0)
        rng = lib.Rng(11)
        seen: set[int] = set()

        def pick() -> int:
            while (index := rng.below(n)) in seen:
                pass
            seen.add(index)
            return index

        async def measure(name: str, count: int, workers: int) -> None:
            latencies: list[float] = []
            left = count
            wire_in, wire_out, started = client.bytes_in, client.bytes_out, lib.now()

            async def work() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    before = lib.now()
                    await core.get(pick())
                    latencies.append(lib.now() - before)

            async with trio.open_nursery() as nursery:
                for _ in range(workers):
                    nursery.start_soon(work)
            lib.line(
                name,
                count,
                lib.now() - started,
                count * size,
                **lib.latency(latencies),
                wire_in_per_block=round((client.bytes_in - wire_in) / count, 1),
                wire_out_per_block=round((client.bytes_out - wire_out) / count, 1),
            )

        await core.get(pick())
        await measure("sparse_get_1", 1000, 1)
        await measure("sparse_get_128", 10000, 128)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.repl")
    parser.add_argument("--case", default="all")
    parser.add_argument("--n", type=int, default=0)
    parser.add_argument("--server", default=PYTHON_SERVER, help='or "node serve.js"')
    options = parser.parse_args()
    n, server = options.n, options.server
    cases: dict[str, Callable[[], Awaitable[None]]] = {
        "full_100b_rtt100": lambda: full(server, "full_100b_rtt100", n or 5000, 100, 50),
        "full_64k_rtt100": lambda: full(server, "full_64k_rtt100", n or 500, 65536, 50),
        "full_100b": lambda: full(server, "full_100b", n or 100000, 100),
        "full_64k": lambda: full(server, "full_64k", n or 2000, 65536),
        "sparse": lambda: sparse(server),
    }
    for case in cases if options.case == "all" else options.case.split(","):
        await cases[case]()


if __name__ == "__main__":
    trio.run(main)
