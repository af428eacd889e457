"""A node of ours driven by JSON lines, with the commands of tests/interop/dht_peer.cjs.

python -m tests.support.nat_peer HOST:PORT
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import Any

import trio

from hypercore.crypto import KeyPair
from swarm.errors import SwarmError
from swarm.io.connection import Connection
from swarm.io.hyperdht import HyperDht, open_hyperdht


async def echo(connection: Connection) -> None:
    while True:
        await connection.send(await connection.receive())


async def call(hyperdht: HyperDht, key: bytes, seed: bytes) -> dict[str, Any]:
    started = trio.current_time()
    async with hyperdht.connect(key, KeyPair.from_seed(seed)) as connection:
        await connection.send([b"hello"])
        await connection.receive()
        milliseconds = (trio.current_time() - started) * 1000
        return {
            "milliseconds": milliseconds,
            "address": connection.remote_address,
            "reach": connection.reach.value,
        }


async def carry_out(
    hyperdht: HyperDht, nursery: trio.Nursery, command: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    seed = bytes.fromhex(arguments.get("seed", ""))
    if command == "serveEcho":
        key_pair = KeyPair.from_seed(seed)
        server = await nursery.start(partial(hyperdht.serve, key_pair, echo))
        await server.wait_announced()
        return {"key": key_pair.public_key.hex(), "relays": server.statistics().relays}
    if command == "callEcho":
        return await call(hyperdht, bytes.fromhex(arguments["key"]), seed)
    assert command == "state"
    statistics = hyperdht.dht.statistics()
    return {"firewalled": statistics.is_firewalled, "nodes": statistics.nodes}


async def main(bootstrap: str) -> None:
    async with open_hyperdht(bootstrap=[bootstrap]) as hyperdht, trio.open_nursery() as nursery:
        await hyperdht.dht.wait_bootstrapped()
        pending = b""
        async for chunk in trio.lowlevel.FdStream(os.dup(0)):
            *lines, pending = (pending + bytes(chunk)).split(b"\n")
            for line in lines:
                request = json.loads(line)
                number, command = request.pop("number"), request.pop("command")
                try:
                    result = await carry_out(hyperdht, nursery, command, request)
                except SwarmError as error:
                    result = {"error": str(error)}
                sys.stdout.write(json.dumps({"number": number, **result}) + "\n")
                sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
