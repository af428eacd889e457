"""A key-value tree read over the network: only the blocks on the way to a key are fetched.

Run it with `python examples/bee_over_the_wire.py`.
"""

from __future__ import annotations

from functools import partial

import trio

from bee import Bee
from hypercore import Corestore, KeyPair, open_corestore
from swarm import Connection, open_mux, open_swarm


async def replicate(store: Corestore, connection: Connection) -> None:
    """Offer a connection the cores of this store; whoever knows a core's key can read it."""
    async with open_mux(connection) as mux:
        await store.replicate(mux)


async def main() -> None:
    async with open_corestore(None) as alice_store, open_corestore(None) as bob_store:
        core = await alice_store.get(name="towns")
        towns = Bee(core)
        async with towns.batch() as batch:
            for number in range(5_000):
                await batch.put(f"town/{number:04}".encode(), f"{number} people".encode())

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
            copy = await bob_store.get(key=core.key)
            with trio.fail_after(10):
                await copy.wait_length(1)
                snapshot = Bee(copy).snapshot()
                async for entry in snapshot.range(gte=b"town/1234", limit=3):
                    print(entry.key.decode(), "has", (entry.value or b"").decode())
            print(f"fetched {copy.info().blocks_held} of {copy.length} blocks")
            print(f"round trips: {snapshot.reads.round_trips}")


if __name__ == "__main__":
    trio.run(main)
