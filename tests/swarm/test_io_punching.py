"""The sockets of a hole punch: what cancelling leaves, and having none to open."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import pytest
import trio

from hypercore.crypto import system_entropy
from swarm.dht.peer_messages import NatKind
from swarm.io.carrier import UdxCarrier
from swarm.io.dht import open_dht
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punching import HolePunch, open_hole_punch
from swarm.io.udp import open_udx_endpoint

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


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("checkpoints", range(16))
async def test_a_socket_that_is_replaced_as_all_is_over_is_not_waited_for(
    checkpoints: int,
) -> None:
    """Found by two random NATs: the connection through the relay could not be closed."""
    with trio.fail_after(5):
        async with open_lonely_punch() as punch, trio.open_nursery() as nursery:
            nursery.start_soon(partial(punch.analyze, may_reopen=True))
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("checkpoints", range(12))
async def test_rounds_that_overlap_share_the_sockets_that_are_tried(checkpoints: int) -> None:
    with trio.fail_after(5):
        async with open_lonely_punch() as punch, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(partial(punch.analyze, may_reopen=True))
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()


async def test_nothing_is_tried_any_more_when_there_is_no_other_socket() -> None:
    with trio.fail_after(5):
        async with open_lonely_punch() as punch:
            with no_more_files():
                assert not await punch.analyze(may_reopen=True)
            assert not punch.start()
