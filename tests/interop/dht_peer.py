"""Driving `dht_peer.cjs`, and networks of our own for it to be a guest of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from swarm.dht.reachability import Role
from swarm.io.dht import Dht, open_bootstrap, open_dht
from swarm.io.hyperdht import HyperDht, open_hyperdht
from tests.support.peer_process import PeerProcess, open_peer_process

HERE = Path(__file__).parent
LOOPBACK = "127.0.0.1"


def _open_peer(mode: str, number: int) -> AbstractAsyncContextManager[PeerProcess]:
    return open_peer_process(PeerProcess, ["node", "dht_peer.cjs", mode, str(number)], HERE)


@asynccontextmanager
async def open_javascript_network(size: int) -> AsyncIterator[tuple[PeerProcess, Dht]]:
    """A network of the originals, and a guest of each kind in it."""
    async with _open_peer("testnet", size) as guest:
        port = (await guest("bootstrap"))["port"]
        async with open_guest(port) as dht:
            yield guest, dht


@asynccontextmanager
async def open_network(size: int) -> AsyncIterator[list[Dht]]:
    """A network of our own; the first is the bootstrap node."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_bootstrap(LOOPBACK, 0))]
        while len(nodes) < size:
            node = await stack.enter_async_context(
                open_dht(
                    bootstrap=[nodes[0].address],
                    host=LOOPBACK,
                    port=0,
                    role=Role.PERSISTENT,
                    is_open=True,
                )
            )
            await node.wait_bootstrapped()
            nodes.append(node)
        yield nodes


@asynccontextmanager
async def open_javascript_guest(port: int) -> AsyncIterator[PeerProcess]:
    """A guest of the network whose bootstrap node is at `port`."""
    async with _open_peer("guest", port) as guest:
        yield guest


@asynccontextmanager
async def open_guest(port: int) -> AsyncIterator[Dht]:
    async with open_dht(bootstrap=[(LOOPBACK, port)], host=LOOPBACK, port=0) as dht:
        await dht.wait_bootstrapped()
        yield dht


@asynccontextmanager
async def open_connectable_guest(port: int) -> AsyncIterator[HyperDht]:
    """A guest of ours that connects, and is connected to."""
    async with open_hyperdht(bootstrap=[(LOOPBACK, port)], host=LOOPBACK, port=0) as hyperdht:
        await hyperdht.dht.wait_bootstrapped()
        yield hyperdht
