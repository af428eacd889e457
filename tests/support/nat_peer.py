"""A node of ours driven by JSON lines, with the commands of tests/interop/dht_peer.cjs.

python -m tests.support.nat_peer HOST:PORT [OPEN_HOST]
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
from swarm.io.relay_server import BlindRelay
from swarm.reach import Reach


async def echo(connection: Connection) -> None:
    while True:
        await connection.send(await connection.receive())


async def call(
    hyperdht: HyperDht, key: bytes, seed: bytes, relay: bytes | None, settle_seconds: float
) -> dict[str, Any]:
    """Also how it is reached in the end, when a relay was only the beginning."""
    started = trio.current_time()
    key_pair = KeyPair.from_seed(seed)
    async with hyperdht.connect(key, key_pair, relay_through=relay) as connection:
        await connection.send([b"hello"])
        await connection.receive()
        milliseconds = (trio.current_time() - started) * 1000
        first = connection.reach.value
        with trio.move_on_after(settle_seconds):
            while connection.reach is Reach.RELAYED:
                await connection.send([b"still there?"])
                await connection.receive()
                await trio.sleep(0.05)
        return {
            "milliseconds": milliseconds,
            "address": connection.remote_address,
            "reach": first,
            "reach_later": connection.reach.value,
        }


async def carry_out(
    hyperdht: HyperDht, nursery: trio.Nursery, command: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    seed = bytes.fromhex(arguments.get("seed", ""))
    relay = bytes.fromhex(arguments.get("relay", "")) or None
    if command == "serveEcho":
        key_pair = KeyPair.from_seed(seed)
        serve = partial(hyperdht.serve, key_pair, echo, relay_through=relay)
        server = await nursery.start(serve)
        await server.wait_announced()
        return {"key": key_pair.public_key.hex(), "relays": server.statistics().relays}
    if command == "callEcho":
        settle_seconds = arguments.get("settle", 0.0)
        return await call(hyperdht, bytes.fromhex(arguments["key"]), seed, relay, settle_seconds)
    if command == "serveRelay":
        key_pair = KeyPair.from_seed(seed)
        server = await nursery.start(partial(hyperdht.serve, key_pair, BlindRelay(2**24).handle))
        await server.wait_announced()
        return {"key": key_pair.public_key.hex()}
    assert command == "state"
    statistics = hyperdht.dht.statistics()
    return {"firewalled": statistics.is_firewalled, "nodes": statistics.nodes}


async def main(bootstrap: str, open_host: str | None) -> None:
    async with (
        open_hyperdht(
            bootstrap=[bootstrap],
            host=open_host or "0.0.0.0",
            port=40_000,
            is_open=open_host is not None,
        ) as hyperdht,
        trio.open_nursery() as nursery,
    ):
        await hyperdht.dht.wait_bootstrapped()
        pending = b""
        async for chunk in trio.lowlevel.FdStream(os.dup(0)):
            *lines, pending = (pending + bytes(chunk)).split(b"\n")
            for line in lines:
                request = json.loads(line)
                number, command = request.pop("number"), request.pop("command")
                try:
                    result = await carry_out(hyperdht, nursery, command, request)
                except (SwarmError, trio.BrokenResourceError, trio.EndOfChannel) as error:
                    result = {"error": f"{type(error).__name__}: {error}"}
                sys.stdout.write(json.dumps({"number": number, **result}) + "\n")
                sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
