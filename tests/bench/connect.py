"""Time to look a key up and connect to it: `python -m tests.bench.connect --count 20`.

On an isolated network of 40 of the originals a server has many keys, all of which a client of
theirs and one of ours connect to for the first time, hear back from, and leave, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

import trio

from hypercore.crypto import KeyPair
from swarm.io.hyperdht import HyperDht
from tests.interop.dht_peer import (
    open_connectable_guest,
    open_javascript_guest,
    open_javascript_network,
)

SIZE = 40
WARM_UPS = 8  # connections after which the originals' code is compiled
CALLER = KeyPair.from_seed(b"\x77" * 32)


async def call_echo(hyperdht: HyperDht, key: bytes) -> float:
    """Milliseconds until the answer."""
    started = trio.current_time()
    async with hyperdht.connect(key, CALLER) as connection:
        await connection.send([b"hello"])
        await connection.receive()
        return (trio.current_time() - started) * 1000


async def measure(count: int) -> dict[str, float]:
    async with open_javascript_network(SIZE) as (network, _):
        port = (await network("bootstrap"))["port"]
        async with open_javascript_guest(port) as theirs, open_connectable_guest(port) as ours:
            times: dict[str, list[float]] = {"javascript": [], "python": []}
            for index in range(WARM_UPS + count):
                seed = (index + 1).to_bytes(32, "big").hex()
                key = (await network("serveEcho", seed=seed))["key"]
                answer = await theirs("callEcho", key=key, seed="66" * 32)
                milliseconds = await call_echo(ours, bytes.fromhex(key))
                if index >= WARM_UPS:
                    times["javascript"].append(answer["milliseconds"])
                    times["python"].append(milliseconds)
            return {name: round(statistics.median(each), 1) for name, each in times.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    sys.stdout.write(json.dumps(trio.run(measure, parser.parse_args().count)) + "\n")
