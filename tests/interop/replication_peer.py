"""Driving `replication_peer.cjs`, and the TCP ends of our own store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from hypercore.corestore import Corestore
from hypercore.crypto import KeyPair
from swarm.io.connection import open_connection
from swarm.io.mux import MuxHandle, open_mux
from tests.support.peer_process import PeerProcess, open_peer_process

HERE = Path(__file__).parent


@asynccontextmanager
async def open_javascript_peer(
    script: str = "replication_peer.cjs", *arguments: str
) -> AsyncIterator[PeerProcess]:
    async with open_peer_process(PeerProcess, ["node", script, *arguments], HERE) as peer:
        yield peer


def open_hypercore10_peer() -> AbstractAsyncContextManager[PeerProcess]:
    """A peer as they were before Hypercore 11: without manifests, on other files."""
    return open_javascript_peer("replication_peer.cjs", "corestore-6")


Handler = Callable[[MuxHandle], Awaitable[None]]


async def run_connection(stream: trio.abc.Stream, handler: Handler, *, is_initiator: bool) -> None:
    async with (
        open_connection(stream, KeyPair.generate(), is_initiator=is_initiator) as connection,
        open_mux(connection, accept=["hypercore/alpha"]) as mux,
    ):
        await handler(mux)


async def dial(port: int, handler: Handler) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await run_connection(stream, handler, is_initiator=True)


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Serve whoever dials; the port."""

    async def serve(stream: trio.SocketStream) -> None:
        await run_connection(stream, handler, is_initiator=False)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(
    store: Corestore, peer: PeerProcess, *, is_initiator: bool
) -> AsyncIterator[None]:
    """Our store and JavaScript's on one connection; `is_initiator`: we dial."""
    async with trio.open_nursery() as nursery:
        if is_initiator:
            nursery.start_soon(dial, (await peer("listen"))["port"], store.replicate)
            yield
        else:
            async with listening(store.replicate) as port:
                await peer("connect", port=port)
                yield
        nursery.cancel_scope.cancel()


def block(index: int, size: int) -> bytes:
    """What `fill` appends."""
    label = f"block {index} ".encode()
    return (label + bytes([index & 255]) * size)[: max(size, len(label))][:size]
