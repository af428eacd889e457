"""Two peers on this machine: one holds a log, the other fetches a single block of it, verified.

Run it with `python examples/two_peers.py`.
"""

from __future__ import annotations

import trio

from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair
from swarm.io.connection import Connection
from swarm.io.mux import open_mux
from swarm.io.swarm import Handler, open_swarm


def replicate(store: Corestore) -> Handler:
    """Give every connection the cores of this store; who knows a core's key can read it."""

    async def handler(connection: Connection) -> None:
        async with open_mux(connection, accept=("hypercore/alpha",)) as mux:
            await store.replicate(mux)

    return handler


async def main() -> None:
    async with open_corestore(None) as alice_store, open_corestore(None) as bob_store:
        theirs = await alice_store.get(name="numbers")
        await theirs.append([str(number).encode() for number in range(10_000)])
        async with (
            open_swarm(
                KeyPair.generate(), replicate(alice_store), listen=("127.0.0.1", 0), lan=False
            ) as alice,
            open_swarm(KeyPair.generate(), replicate(bob_store), listen=None, lan=False) as bob,
        ):
            bob.add_peer(*alice.addresses[0])
            copy = await bob_store.get(key=theirs.key)
            with trio.fail_after(10):
                await copy.wait_length(1)
                block = await copy.get(7_777)
            print(f"block 7777 is {block.decode()}")
            print(f"fetched {copy.info().blocks_held} of {copy.length} blocks")


if __name__ == "__main__":
    trio.run(main)
