"""Two peers on this machine: one holds a log, the other fetches a single block of it, verified.

Run it with `python examples/two_peers.py`.
"""

from __future__ import annotations

from functools import partial

import trio

from hypercore import Corestore, KeyPair, open_corestore
from swarm import Connection, open_mux, open_swarm


async def replicate(store: Corestore, connection: Connection) -> None:
    """Offer a connection the cores of this store; whoever knows a core's key can read it."""
    async with open_mux(connection) as mux:
        await store.replicate(mux)


async def main() -> None:
    async with open_corestore(None) as alice_store, open_corestore(None) as bob_store:
        theirs = await alice_store.get(name="numbers")
        await theirs.append([str(number).encode() for number in range(10_000)])
        async with (
            open_swarm(
                KeyPair.generate(),
                partial(replicate, alice_store),
                listen=("127.0.0.1", 0),
                lan=False,
            ) as alice,
            open_swarm(
                KeyPair.generate(), partial(replicate, bob_store), listen=None, lan=False
            ) as bob,
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
