"""UDX over a link that delays and loses, as `js/udx.js`: `python -m tests.bench.udx`.

`--case loss1_rtt20 --n 64` sends 64 MiB over a round trip of 20 ms of which 1 % is lost each way.
`--server "node udx.js"` has JavaScript receive; `node udx.js --server "python -m tests.bench.udx"`
has it send.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from swarm.io.udp import open_udx_endpoint
from tests.bench import lib
from tests.bench.processes import spawn

HOST = "127.0.0.1"
CHUNK_BYTES = 65536
PYTHON_SERVER = f"{sys.executable} -m tests.bench.udx"
CASES = {
    f"loss{loss}_rtt{round_trip}": (loss, round_trip)
    for round_trip in (0, 20, 100)
    for loss in (0, 1, 2)
}


@contextmanager
def build_link() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="udp-link-") as folder:
        executable = f"{folder}/udp_link"
        source = Path(__file__).parent / "udp_link.c"
        subprocess.run(["gcc", "-O2", "-o", executable, source], check=True)
        yield executable


@asynccontextmanager
async def open_link(loss: float, round_trip_ms: int, seed: int) -> AsyncIterator[tuple[int, int]]:
    """The ports of the sender's and the receiver's side."""
    with build_link() as executable:
        arguments = [round_trip_ms * 500, round(loss * 10_000), seed]
        async with spawn([executable, *map(str, arguments)]) as link:
            yield link.info["left"], link.info["right"]


async def serve(link_port: int) -> None:
    """Receive, until stdin ends."""
    received = 0

    async def read() -> None:
        nonlocal received
        while data := await stream.receive_some(2**18):
            received += len(data)
        await stream.send_eof()

    async with open_udx_endpoint(HOST) as endpoint, trio.open_nursery() as nursery:
        stream = endpoint.open_stream(2)
        stream.connect(1, (HOST, link_port))
        endpoint.send_datagram(b"here", (HOST, link_port))  # so the link knows where we are
        nursery.start_soon(read)
        started = lib.cpu_seconds()
        print('{"ready":true}', flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            lib.emit(
                {
                    "stats": True,
                    "received": received,
                    "cpu_s": lib.cpu_seconds() - started,
                    "rss_mb": lib.rss_mb(),
                }
            )
        nursery.cancel_scope.cancel()


async def run(name: str, n: int, server: str, seed: int) -> None:
    loss, round_trip_ms = CASES[name]
    size = n * 2**20
    chunk = bytes(lib.block(1, CHUNK_BYTES))
    async with (
        open_link(loss, round_trip_ms, seed) as (left, right),
        spawn([*server.split(), "--serve", "--link", str(right)]) as child,
        open_udx_endpoint(HOST) as endpoint,
    ):
        stream = endpoint.open_stream(1)
        stream.connect(2, (HOST, left))
        cpu, started = lib.cpu_seconds(), lib.now()
        for _ in range(size // CHUNK_BYTES):
            await stream.send_all(chunk)
        await stream.send_eof()
        assert await stream.receive_some() == b""
        seconds, used = lib.now() - started, lib.cpu_seconds() - cpu
        remote = await child.stats()
        assert remote["received"] == size
        statistics = stream.statistics()
        lib.line(
            name,
            n,
            seconds,
            size,
            sender_cpu_per_100mib=round(used * 100 / n, 2),
            receiver_cpu_per_100mib=round(remote["cpu_s"] * 100 / n, 2),
            retransmissions=statistics.retransmissions,
            mtu=statistics.mtu,
        )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.udx", description=__doc__)
    parser.add_argument("--case", default="all")
    parser.add_argument("--n", type=int, default=64, help="MiB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", default=PYTHON_SERVER, help='or "node udx.js"')
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--link", type=int, default=0)
    options = parser.parse_args()
    if options.serve:
        await serve(options.link)
        return
    for case in CASES if options.case == "all" else options.case.split(","):
        await run(case, options.n, options.server, options.seed)


if __name__ == "__main__":
    trio.run(main)
