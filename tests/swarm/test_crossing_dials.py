"""Swarms that dial each other at once end with one connection for each pair, and stay so."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import combinations

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm import Connection, PeerState
from tests.support.swarm_party import LARGE, LOOPBACK, SMALL, Party, hold, open_party, until

SETTLE_SECONDS = 2.0

Serve = Callable[[Party, Connection], Awaitable[None]]


async def listen_only(_: Party, connection: Connection) -> None:
    """Say nothing, so that nobody learns from us that a connection has come about."""
    while True:
        await connection.receive()


def is_settled(parties: list[Party]) -> bool:
    """Whether all dials are over, and each pair holds the same single connection."""
    others = len(parties) - 1
    if any(
        len(party.open) != others
        or party.swarm.statistics().dials != others
        or any(peer.state is not PeerState.CONNECTED for peer in party.swarm.peers)
        for party in parties
    ):
        return False
    for left, right in combinations(parties, 2):
        ends = [
            {
                connection.link.handshake_hash
                for connection in party.open
                if connection.link.remote_public_key == other.swarm.public_key
            }
            for party, other in ((left, right), (right, left))
        ]
        if ends[0] != ends[1] or len(ends[0]) != 1:
            return False
    return True


async def settle(parties: list[Party]) -> None:
    """Return when they are settled, and nothing is on the way that could change it."""
    while True:
        await until(lambda: is_settled(parties), *parties)
        await trio.testing.wait_all_tasks_blocked(0.01)
        if is_settled(parties):
            return


async def dial_each_other(count: int, serve: Serve, rng: random.Random) -> None:
    async with AsyncExitStack() as stack:
        parties = [
            await stack.enter_async_context(open_party(KeyPair.from_seed(rng.randbytes(32)), serve))
            for _ in range(count)
        ]

        async def dial(party: Party, other: Party, delay: float) -> None:
            await trio.sleep(delay)
            party.swarm.add_peer(LOOPBACK, other.port)

        with trio.fail_after(SETTLE_SECONDS):
            async with trio.open_nursery() as nursery:
                for left, right in combinations(parties, 2):
                    nursery.start_soon(dial, left, right, rng.uniform(0, 0.005))
                    nursery.start_soon(dial, right, left, rng.uniform(0, 0.005))
            await settle(parties)
        for party in parties:
            assert all(peer.failures == 0 for peer in party.swarm.peers)
            for connection in party.open:
                await connection.send([b"works"])


@pytest.mark.parametrize("serve", [hold, listen_only])
async def test_two_end_with_one_connection(serve: Serve) -> None:
    rng = random.Random(2)
    for _ in range(25):
        await dial_each_other(2, serve, rng)


@pytest.mark.slow
@pytest.mark.parametrize("serve", [hold, listen_only])
@pytest.mark.parametrize(("count", "runs"), [(2, 200), (3, 100)])
async def test_however_many_times_they_try(count: int, runs: int, serve: Serve) -> None:
    rng = random.Random(count)
    for _ in range(runs):
        await dial_each_other(count, serve, rng)


@pytest.mark.parametrize("refuser", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("both_dial", [False, True])
async def test_who_is_refused_backs_off(
    refuser: KeyPair, both_dial: bool, autojump_clock: trio.testing.MockClock
) -> None:
    # An initiator has its connection, and runs its handler, before the other end refuses it.
    autojump_clock.autojump_threshold = 0.1  # of real time, since the sockets are real
    refused = LARGE if refuser is SMALL else SMALL
    async with (
        open_party(refuser, firewall=lambda _: False) as wall,
        open_party(refused) as party,
    ):
        party.swarm.add_peer(LOOPBACK, wall.port)
        if both_dial:
            wall.swarm.add_peer(LOOPBACK, party.port)
        with trio.move_on_after(60):
            await trio.sleep_forever()
        assert wall.opened == 0
        assert wall.swarm.connections == party.swarm.connections == ()
        # After 0, 1, 6, 21, 36, 51 seconds, or up to a quarter later; each connection that the
        # wall tries, and then does not want, puts the next one off as well.
        assert (2 if both_dial else 4) <= party.swarm.statistics().dials <= 6
        assert wall.swarm.statistics().dials <= 6 * both_dial
        (peer,) = party.swarm.peers
        assert peer.failures >= 4


async def test_being_replaced_is_no_failure_of_the_peer() -> None:
    rng = random.Random(9)
    replaced = 0
    with trio.fail_after(30):
        while not replaced:
            async with (
                open_party(KeyPair.from_seed(rng.randbytes(32)), listen_only) as left,
                open_party(KeyPair.from_seed(rng.randbytes(32)), listen_only) as right,
            ):
                left.swarm.add_peer(LOOPBACK, right.port)
                right.swarm.add_peer(LOOPBACK, left.port)
                await settle([left, right])
                replaced = left.opened + right.opened - 2
                assert left.swarm.peers[0].failures == right.swarm.peers[0].failures == 0
