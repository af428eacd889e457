"""Topics joined as a server, as a client, or as both, on a table that is one node of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm import Connection, Source, Swarm, open_hyperdht, open_swarm
from swarm.announcement import Address
from swarm.dht.reachability import Role
from swarm.io.dht import open_bootstrap, open_dht
from swarm.io.topics import JITTER, LOOK_AGAIN_SECONDS

LOOPBACK = "127.0.0.1"
TOPIC = b"\x61" * 32


@pytest.fixture
def quick_clock() -> trio.testing.MockClock:
    """Jumps over timeouts, but leaves real sockets the time they need."""
    return trio.testing.MockClock(autojump_threshold=0.1)


async def hold(connection: Connection) -> None:
    while True:
        await connection.receive()


@asynccontextmanager
async def open_swarms(count: int) -> AsyncIterator[list[Swarm]]:
    """Swarms that use the table and nothing else."""
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            boot = await enter(open_bootstrap(LOOPBACK, 0))
            swarms: list[Swarm] = []
            for index in range(count):
                hyperdht = await enter(
                    open_hyperdht(bootstrap=[boot.address], host=LOOPBACK, port=0, is_open=True)
                )
                await hyperdht.dht.wait_bootstrapped()
                key_pair = KeyPair.from_seed(bytes((index + 1,)) * 32)
                swarms.append(
                    await enter(
                        open_swarm(key_pair, hold, listen=None, lan=False, hyperdht=hyperdht)
                    )
                )
            yield swarms


def keys(swarm: Swarm) -> set[bytes]:
    return {connection.remote_public_key for connection in swarm.connections}


async def wait_connected(swarm: Swarm, *others: Swarm) -> None:
    while keys(swarm) != {other.public_key for other in others}:
        await swarm.wait_changed()


async def test_a_client_finds_servers_and_nobody_finds_it() -> None:
    async with open_swarms(3) as (server, client, other):
        await server.join(TOPIC, is_client=False)
        await server.wait_announced()
        await client.join(TOPIC, is_server=False)
        await client.wait_tried()
        assert keys(client) == {server.public_key}
        (connection,) = client.connections
        assert (connection.source, connection.is_initiator) == (Source.DHT, True)
        await wait_connected(server, client)
        assert server.statistics().found == 0

        await other.join(TOPIC, is_client=False)
        await other.wait_tried()
        server.refresh(TOPIC)
        await server.wait_tried()
        assert other.statistics().found == server.statistics().found == 0
        client.refresh(TOPIC)
        await wait_connected(client, server, other)


async def test_who_turns_into_a_client_is_found_no_more() -> None:
    async with open_swarms(2) as (changing, client):
        await changing.join(TOPIC)
        await changing.wait_announced()
        await changing.join(TOPIC, is_server=False)
        await changing.wait_announced()
        await changing.leave(TOPIC)
        assert changing.topics == frozenset()
        await changing.join(TOPIC, is_server=False)
        await changing.wait_announced()
        await client.join(TOPIC, is_server=False)
        await client.wait_tried()
        assert client.statistics().found == 0
        with pytest.raises(ValueError, match="as a server, as a client"):
            await client.join(TOPIC, is_server=False, is_client=False)


async def test_a_topic_joined_anew_is_not_taken_back_any_more() -> None:
    """Where walks take several steps, taking it back was slower than announcing it."""

    async def count_holders() -> int:
        return len([found.source async for found in network[1].lookup(TOPIC)])

    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            network = [await enter(open_bootstrap(LOOPBACK, 0))]
            boot = [network[0].address]
            for _ in range(30):
                opened = open_dht(
                    bootstrap=boot, host=LOOPBACK, port=0, role=Role.PERSISTENT, is_open=True
                )
                network.append(await enter(opened))
                await network[-1].wait_bootstrapped()
            hyperdht = await enter(
                open_hyperdht(bootstrap=boot, host=LOOPBACK, port=0, is_open=True)
            )
            await hyperdht.dht.wait_bootstrapped()
            swarm = await enter(
                open_swarm(
                    KeyPair.from_seed(bytes(32)), hold, listen=None, lan=False, hyperdht=hyperdht
                )
            )
            await swarm.join(TOPIC)
            await swarm.wait_announced()
            holders = await count_holders()
            assert holders > 10
            for limit in range(3):
                await swarm.join(TOPIC, limit=limit)
                await swarm.wait_announced()
                assert await count_holders() == holders
                await swarm.leave(TOPIC)
                await swarm.join(TOPIC)
                await swarm.wait_announced()
                assert await count_holders() == holders
            await swarm.join(TOPIC, limit=9)
            await trio.testing.wait_all_tasks_blocked()
            await swarm.leave(TOPIC)
            await swarm.join(TOPIC, is_server=False)
            await swarm.wait_announced()
            assert await count_holders() == 0


@pytest.mark.parametrize("is_server", [True, False])
async def test_who_join_at_the_same_moment_find_each_other(
    quick_clock: trio.testing.MockClock, is_server: bool
) -> None:
    """Both had looked before either was announced, and looked again ten minutes later."""
    async with open_swarms(2) as (first, second):
        await first.join(TOPIC, is_server=is_server)
        await second.join(TOPIC)
        with trio.fail_after(LOOK_AGAIN_SECONDS * (1 + JITTER) + 5):
            await wait_connected(first, second)


async def test_one_look_up_brings_no_more_than_the_limit() -> None:
    async with open_swarms(4) as (*servers, client):
        for server in servers:
            await server.join(TOPIC, is_client=False)
            await server.wait_announced()
        await client.join(TOPIC, is_server=False, limit=1)
        await client.wait_tried()
        assert client.statistics().found == 1
        await client.join(TOPIC, is_server=False)
        await wait_connected(client, *servers)


async def test_a_refused_key_is_let_in_again_when_it_is_allowed() -> None:
    async with open_swarms(2) as (server, client):
        server.refuse(client.public_key)
        await server.join(TOPIC)
        await server.wait_announced()
        await client.join(TOPIC, is_server=False)
        await client.wait_tried()
        assert keys(client) == set()
        server.allow(client.public_key)
        client.network_changed()
        await wait_connected(client, server)


@pytest.mark.parametrize("is_announced", [False, True])
async def test_what_is_cancelled_with_its_table_does_not_wait_for_it(is_announced: bool) -> None:
    """The farewells of swarm and topic, each shielded for a second, had nobody to answer them."""
    async with open_bootstrap(LOOPBACK, 0) as boot:
        with trio.CancelScope() as scope:
            async with (
                open_hyperdht(bootstrap=[boot.address], host=LOOPBACK, port=0) as hyperdht,
                open_swarm(
                    KeyPair.from_seed(bytes(32)), hold, listen=None, lan=False, hyperdht=hyperdht
                ) as swarm,
            ):
                await swarm.join(TOPIC)
                if is_announced:
                    await swarm.wait_announced()
                cancelled_at = trio.current_time()
                scope.cancel()
                await trio.sleep_forever()
        assert trio.current_time() - cancelled_at < 0.8


async def test_what_is_joined_while_the_table_is_left_is_announced_on_resuming(
    quick_clock: trio.testing.MockClock,
) -> None:
    """The farewells take a second each when nobody answers; a topic joined then was a crash."""
    async with trio.open_nursery() as nursery:
        address, scope = await nursery.start(_run_bootstrap)
        async with (
            open_hyperdht(bootstrap=[address], host=LOOPBACK, port=0, is_open=True) as hyperdht,
            open_swarm(
                KeyPair.from_seed(bytes(32)), hold, listen=None, lan=False, hyperdht=hyperdht
            ) as swarm,
        ):
            await swarm.join(TOPIC)
            await swarm.wait_announced()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.1)
            swarm.suspend()
            for number in range(30):
                await trio.sleep(0.1)
                await swarm.join(bytes((number,)) * 32)
            async with open_bootstrap(*address):
                swarm.resume()
                await swarm.wait_announced()


async def _run_bootstrap(
    task_status: trio.TaskStatus[tuple[Address, trio.CancelScope]],
) -> None:
    with trio.CancelScope() as scope:
        async with open_bootstrap(LOOPBACK, 0) as boot:
            task_status.started((boot.address, scope))
            await trio.sleep_forever()
