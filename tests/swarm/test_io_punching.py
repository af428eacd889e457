"""The sockets of a hole punch: what cancelling leaves, and having none to open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from hypercore.crypto import system_entropy
from swarm.dht.peer_messages import NatKind
from swarm.errors import PeerUnreachable
from swarm.io.carrier import UdxCarrier
from swarm.io.dht import open_dht
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punching import HolePunch, open_hole_punch
from swarm.io.udp import open_udx_endpoint
from tests.support.no_more_files import no_more_files

HOST = "127.0.0.1"


@asynccontextmanager
async def open_lonely_punch() -> AsyncIterator[HolePunch]:
    """Of a node that nobody tells how it is seen, so that other sockets are tried."""
    async with (
        open_udx_endpoint(HOST) as server,
        open_udx_endpoint(HOST, sharing=server) as client,
        open_dht(bootstrap=[], carriers=(UdxCarrier(server), UdxCarrier(client))) as dht,
        open_hole_punch(
            PeerSockets(dht, server, client, system_entropy),
            is_initiator=True,
            remote_nat=NatKind.UNKNOWN,
        ) as punch,
    ):
        yield punch


@pytest.mark.parametrize("checkpoints", range(16))
async def test_a_socket_that_is_replaced_as_all_is_over_is_not_waited_for(
    checkpoints: int,
) -> None:
    """Found by two random NATs: the connection through the relay could not be closed."""
    with trio.fail_after(20):
        async with open_lonely_punch() as punch, trio.open_nursery() as nursery:
            nursery.start_soon(partial(punch.analyze, may_reopen=True))
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("checkpoints", range(12))
async def test_rounds_that_overlap_share_the_sockets_that_are_tried(checkpoints: int) -> None:
    with trio.fail_after(20):
        async with open_lonely_punch() as punch, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(partial(punch.analyze, may_reopen=True))
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()


async def test_nothing_is_tried_any_more_when_there_is_no_other_socket() -> None:
    with trio.fail_after(20):
        async with open_lonely_punch() as punch:
            with no_more_files():
                assert not await punch.analyze(may_reopen=True)
            assert not punch.start()


async def test_who_waits_for_the_end_of_a_punch_that_is_stopped_is_told() -> None:
    """Found in review: a client that gave up while both punched was waited for until the end."""
    with trio.fail_after(20):
        async with open_lonely_punch() as punch, trio.open_nursery() as nursery:
            nursery.start_soon(punch.wait_ended)
            await trio.testing.wait_all_tasks_blocked()
            punch.stop()
            with pytest.raises(PeerUnreachable):
                await punch.wait_punched()
