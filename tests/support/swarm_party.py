"""Swarms on the loopback interface that remember their connections, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from hypercore.crypto import KeyPair
from swarm import Connection, Swarm, open_swarm

LOOPBACK = "127.0.0.1"
SMALL, LARGE = sorted(
    (KeyPair.from_seed(bytes((i,)) * 32) for i in (1, 2)), key=lambda k: k.public_key
)
THIRD = KeyPair.from_seed(b"\x03" * 32)


@dataclass
class Party:
    """A swarm whose handler keeps connections until they end, and remembers them."""

    swarm: Swarm
    port: int
    open: list[Connection] = field(default_factory=list)
    opened: int = 0
    changed: trio.Condition = field(default_factory=trio.Condition)

    async def wait(self, until: Callable[[], object]) -> None:
        async with self.changed:
            while not until():
                await self.changed.wait()

    async def notify(self) -> None:
        with trio.CancelScope(shield=True):
            async with self.changed:
                self.changed.notify_all()


async def hold(party: Party, connection: Connection) -> None:
    """Say hello, then read until the end."""
    await connection.send([b"hello"])
    while True:
        await connection.receive()


@asynccontextmanager
async def open_party(
    key_pair: KeyPair,
    serve: Callable[[Party, Connection], Awaitable[None]] = hold,
    *,
    port: int = 0,
    firewall: Callable[[bytes], bool] = lambda _: True,
    max_connections: int = 10,
) -> AsyncIterator[Party]:
    async def handler(connection: Connection) -> None:
        party.open.append(connection)
        party.opened += 1
        await party.notify()
        try:
            await serve(party, connection)
        finally:
            party.open.remove(connection)
            await party.notify()

    async with open_swarm(
        key_pair,
        handler,
        listen=(LOOPBACK, port),
        lan=False,
        firewall=firewall,
        max_connections=max_connections,
    ) as swarm:
        party = Party(swarm, swarm.addresses[0][1])
        yield party


async def until(is_true: Callable[[], object], *parties: Party) -> None:
    """Return when it is true, which a change of one of these parties makes it."""
    while not is_true():
        async with trio.open_nursery() as nursery:

            async def watch(party: Party) -> None:
                await party.swarm.wait_changed()
                nursery.cancel_scope.cancel()

            for party in parties:
                nursery.start_soon(watch, party)


async def connect(left: Party, right: Party) -> None:
    left.swarm.add_peer(LOOPBACK, right.port)
    await left.wait(lambda: len(left.open) == 1)
    await right.wait(lambda: len(right.open) == 1)
