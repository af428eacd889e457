"""Two ends of an encrypted connection in memory, for tests of what runs on top of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm.io.connection import Connection, open_connection
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.tasks import open_background_nursery

INITIATOR = KeyPair.from_seed(b"\x01" * 32)
RESPONDER = KeyPair.from_seed(b"\x02" * 32)


@asynccontextmanager
async def open_connection_pair(
    *, is_lockstep: bool = False
) -> AsyncIterator[tuple[Connection, Connection]]:
    """The initiator's and the responder's end of one connection.

    The stream between holds any number of bytes, or none when it `is_lockstep`: then writing
    waits until the other end reads.
    """
    left, right = (
        trio.testing.lockstep_stream_pair() if is_lockstep else trio.testing.memory_stream_pair()
    )
    responders: list[Connection] = []

    async def respond() -> None:
        async with open_connection(right, RESPONDER, is_initiator=False) as connection:
            responders.append(connection)
            await connection.send([b"open"])
            await trio.sleep_forever()

    async with open_background_nursery() as nursery:
        nursery.start_soon(respond)
        async with open_connection(left, INITIATOR, is_initiator=True) as connection:
            assert await connection.receive() == [b"open"]
            yield connection, responders[0]


@asynccontextmanager
async def open_mux_pair(
    *accept: str, is_lockstep: bool = False
) -> AsyncIterator[tuple[MuxHandle, MuxHandle]]:
    """Multiplexers at both ends of one connection, which accept these protocols."""
    async with (
        open_connection_pair(is_lockstep=is_lockstep) as (left, right),
        open_mux(left, accept=accept) as left_mux,
        open_mux(right, accept=accept) as right_mux,
    ):
        yield left_mux, right_mux
