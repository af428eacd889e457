"""A log or a bee served over TCP, as `js/serve.js`: either client can be pointed at it."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

import trio

from bee import Bee
from hypercore import Core, Corestore, Durability, open_corestore
from hypercore.crypto import KeyPair
from swarm import open_connection, open_mux
from tests.bench import lib


async def build(core: Core, options: argparse.Namespace) -> None:
    n = options.n
    if options.kind == "core":
        batch_size = 100 if options.size > 10000 else 1000
        for i in range(0, n, batch_size):
            stop = min(n, i + batch_size)
            await core.append([lib.block(j, options.size) for j in range(i, stop)])
        return
    bee = Bee(core)
    keys = lib.key_order(n, options.order)
    for i in range(0, n, 1000):
        async with bee.batch() as batch:
            for j in range(i, min(n, i + 1000)):
                await batch.put(keys[j].encode(), lib.block(j, options.dsize))


class Server:
    def __init__(self, store: Corestore) -> None:
        self._store = store
        self._key_pair = KeyPair.generate()
        self._cpu = lib.cpu_seconds()
        self._counted = [0, 0]

    async def serve(self, stream: trio.SocketStream) -> None:
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        try:
            async with (
                open_connection(stream, self._key_pair, is_initiator=False) as connection,
                open_mux(connection) as mux,
            ):
                try:
                    await self._store.replicate(mux)
                finally:
                    statistics = connection.statistics()
                    self._counted[0] += statistics.bytes_received
                    self._counted[1] += statistics.bytes_sent
        except (trio.BrokenResourceError, trio.EndOfChannel):
            pass

    def print_stats(self) -> None:
        cpu = lib.cpu_seconds()
        fields = {
            "stats": True,
            "rss_mb": lib.rss_mb(),
            "cpu_s": round(cpu - self._cpu, 2),
            "bytes_read": self._counted[0],
            "bytes_written": self._counted[1],
        }
        print(json.dumps(fields), flush=True)
        self._cpu = cpu


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serve")
    parser.add_argument("--kind", default="core")
    parser.add_argument("--n", type=int, default=100000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--order", default="interleaved")
    parser.add_argument("--dsize", type=int, default=300)
    options = parser.parse_args()
    path = lib.temporary("serve")
    async with (
        open_corestore(path, durability=Durability.parse("os")) as store,
        trio.open_nursery() as nursery,
    ):
        core = await store.get(name="bench")
        await build(core, options)
        server = Server(store)
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        ready = {
            "ready": True,
            "port": listeners[0].socket.getsockname()[1],
            "key": core.key.hex(),
            "length": core.length,
            "byteLength": core.byte_length,
        }
        print(json.dumps(ready), flush=True)
        stdin = trio.lowlevel.FdStream(sys.stdin.fileno())
        async for chunk in stdin:
            if b"stats" in chunk:
                server.print_stats()
        nursery.cancel_scope.cancel()
    lib.remove(path)


if __name__ == "__main__":
    trio.run(main)
