"""A bee read over the wire by an empty store, as `js/sparse_bee.js`.

`python -m tests.bench.sparse_bee --case first,get,scan [--delay ONE_WAY_MS]`
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import trio

from bee import Bee
from tests.bench import lib
from tests.bench.processes import PYTHON_SERVER, delayed, line_seconds, spawn
from tests.bench.repl import Client, open_client


class Counters(NamedTuple):
    blocks: int
    bytes_in: int
    bytes_out: int
    at: float

    @classmethod
    def of(cls, client: Client) -> Counters:
        blocks = client.core.statistics().blocks_verified
        return cls(blocks, client.bytes_in, client.bytes_out, lib.now())

    def since(self, before: Counters, per: int = 1) -> dict[str, float]:
        return {
            "wire_in": round((self.bytes_in - before.bytes_in) / per),
            "wire_out": round((self.bytes_out - before.bytes_out) / per),
            "blocks": round((self.blocks - before.blocks) / per, 1),
        }


async def settle(client: Client, round_trip: float) -> Counters:
    """Wait until nothing more arrives."""
    before = Counters.of(client)
    while True:
        await trio.sleep(max(0.15, round_trip * 2))
        after = Counters.of(client)
        if (after.blocks, after.bytes_in) == (before.blocks, before.bytes_in):
            return after
        before = after


class Run:
    def __init__(
        self, options: argparse.Namespace, key: str, port: int, line_seconds: float
    ) -> None:
        self.options = options
        self.line_seconds = line_seconds
        self.key = key
        self.port = port
        self.round_trip = 2 * options.delay / 1000
        self.suffix = "" if options.order == "interleaved" else "_" + options.order
        self.suffix += f"_rtt{2 * options.delay}" if options.delay else ""
        self.keys = [text.encode() for text in lib.key_order(options.n, options.order)]
        self.rng = lib.Rng(21 + options.seed)

    def _beside_line(self, seconds: float) -> dict[str, float]:
        """What the line itself takes of a round trip, and the whole as a multiple of that."""
        line = self.line_seconds
        return {
            "line_ms": round(line * 1e3, 1),
            "scan_of_line": round(seconds / line, 3),
        }

    def _round_trips(self, seconds: float) -> float | None:
        return round(seconds / self.round_trip, 2) if self.round_trip else None

    async def first(self) -> None:
        """One get on a brand new store, from connect to value; head and value come together."""
        for _ in range(self.options.scans):
            async with open_client(self.key, self.port) as client:
                opened = lib.now() - client.started
                before = Counters.of(client)
                bee = Bee(client.core)
                with client.core.finding_peers():
                    assert await bee.get_newest(self.keys[self.rng.below(self.options.n)])
                got = lib.now() - client.started
                at_get = Counters.of(client)
                settled = await settle(client, self.round_trip)
                lib.line(
                    "sbee_first" + self.suffix,
                    1,
                    got,
                    0,
                    noise_open_ms=round(opened * 1e3, 2),
                    get_ms=round(got * 1e3, 2),
                    open_rt=self._round_trips(opened),
                    total_rt=self._round_trips(got),
                    blocks_at_get=at_get.blocks - before.blocks,
                    wire_in_at_get=at_get.bytes_in - before.bytes_in,
                    blocks_settled=settled.blocks - before.blocks,
                    wire_in_settled=settled.bytes_in - before.bytes_in,
                )

    async def get(self) -> None:
        gets = self.options.gets
        async with open_client(self.key, self.port) as client:
            await client.core.wait_length(1)
            bee = Bee(client.core)
            latencies = []
            before = Counters.of(client)
            for _ in range(gets):
                started = lib.now()
                assert await bee.get(self.keys[self.rng.below(self.options.n)])
                latencies.append(lib.now() - started)
            after = Counters.of(client)
            seconds = after.at - before.at
            settled = await settle(client, self.round_trip)
            lib.line(
                "sbee_get" + self.suffix,
                gets,
                seconds,
                0,
                **lib.latency(latencies),
                first_ms=round(latencies[0] * 1e3, 2),
                median_rt=self._round_trips(lib.percentile(latencies, 0.5)),
                mean_rt=self._round_trips(seconds / gets),
                p99_rt=self._round_trips(lib.percentile(latencies, 0.99)),
                **after.since(before, gets),
                blocks_settled_per_get=round((settled.blocks - before.blocks) / gets, 1),
                wire_in_settled_per_get=round((settled.bytes_in - before.bytes_in) / gets),
            )

    async def scan(self) -> None:
        for _ in range(self.options.scans):
            async with open_client(self.key, self.port) as client:
                await client.core.wait_length(1)
                prefix = lib.co_id(self.rng.below(-(-self.options.n // 100))).encode()
                before = Counters.of(client)
                count = 0
                async for _ in Bee(client.core).range(gte=prefix + b":tx:", lt=prefix + b":tx;"):
                    count += 1
                after = Counters.of(client)
                seconds = after.at - before.at
                settled = await settle(client, self.round_trip)
                lib.line(
                    "sbee_scan" + self.suffix,
                    count,
                    seconds,
                    0,
                    scan_rt=self._round_trips(seconds),
                    **(self._beside_line(seconds) if self.round_trip else {}),
                    **after.since(before),
                    blocks_settled=settled.blocks - before.blocks,
                    wire_in_settled=settled.bytes_in - before.bytes_in,
                )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sparse_bee")
    parser.add_argument("--case", default="all", help="first, get, scan")
    parser.add_argument("--server", default=PYTHON_SERVER, help='or "node serve.js"')
    parser.add_argument("--delay", type=float, default=0, help="one way, milliseconds")
    parser.add_argument("--order", default="interleaved")
    parser.add_argument("--n", type=int, default=100000)
    parser.add_argument("--gets", type=int, default=200)
    parser.add_argument("--scans", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    line = await line_seconds(options.delay) if options.delay else 0.0
    command = [*options.server.split(), "--kind", "bee", "--n", str(options.n)]
    async with (
        spawn([*command, "--order", options.order]) as child,
        delayed(child.info["port"], options.delay) as port,
    ):
        run = Run(options, child.info["key"], port, line)
        cases = {"first": run.first, "get": run.get, "scan": run.scan}
        for case in cases if options.case == "all" else options.case.split(","):
            await cases[case]()


if __name__ == "__main__":
    trio.run(main)
