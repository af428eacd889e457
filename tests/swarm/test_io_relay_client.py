"""One end of a meeting at a relay that is not to be reached."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import trio

from hypercore.crypto import KeyPair
from swarm.dht.peer_messages import RelayThrough
from swarm.io.connection import Connection
from swarm.io.relay_client import open_meeting
from swarm.io.udp import open_udx_endpoint


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
