"""One end of a meeting at a relay that is not to be reached."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import cycle

import trio

from hypercore.crypto import KeyPair
from swarm.dht.peer_messages import RelayThrough
from swarm.io.connection import Connection
from swarm.io.peer_server import PeerServer
from swarm.io.relay_client import open_meeting
from swarm.io.tasks import open_background_nursery
from swarm.io.udp import open_udx_endpoint
from tests.swarm.test_hostile_hyperdht import SERVER, echo, knock, open_network


def find_no_socket(_: bytes, __: KeyPair) -> AbstractAsyncContextManager[Connection]:
    raise OSError("too many open files")


async def test_no_socket_to_go_there_with_is_no_way() -> None:
    """Found in review: it ended the node, in a group that nobody expects."""
    through = RelayThrough(KeyPair.generate().public_key, bytes(32))
    with trio.fail_after(20):
        async with (
            open_udx_endpoint("127.0.0.1") as endpoint,
            open_meeting(
                through, endpoint.open_stream(), find_no_socket, is_initiator=True, is_caller=True
            ) as meeting,
        ):
            assert await meeting.wait_leg() is None


async def test_a_server_meets_each_client_at_another_relay() -> None:
    """Found in review: it named the same one all the time, be that there or not."""
    relays = [KeyPair.generate().public_key for _ in range(2)]
    choose = cycle(relays).__next__
    async with open_network(is_open=False) as network, open_background_nursery() as nursery:
        serve = partial(network.host.serve, SERVER, echo, relay_through=choose)
        server: PeerServer = await nursery.start(serve)
        await server.wait_announced()
        named = [(await knock(network)).offer.relay_through for _ in relays]
    assert [through and through.public_key for through in named] == relays
