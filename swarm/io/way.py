"""A way to a peer without a relay, and how a stream that is in use moves over to it.

Both ends begin at a blind relay as soon as it has paired them, and punch meanwhile. The client is
the first to see a hole: it sends along it from then on, and the server, whose stream gets packets
from there, follows. What either end had under way through the relay is still delivered through the
relay, so the connection with the relay stays until the remote was heard on the new way, and for a
moment longer.

Source: hyperdht 6.34.0 lib/relay-connection.js confirmDirectUpgrade.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import trio

from swarm.announcement import Address
from swarm.dht.hosts import is_private
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import format_address
from swarm.io.udp import UdxEndpoint
from swarm.io.udx_transport import UdxTransport
from swarm.reach import Reach, Route

KNOCK_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Pauses before each empty packet that shows the remote where we are now."""


@dataclass(frozen=True, slots=True)
class Way:
    """Through which socket of ours, to which address, and what kind of way that is."""

    endpoint: UdxEndpoint
    address: Address
    reach: Reach

    @property
    def route(self) -> Route:
        return Route(self.reach, format_address(self.address))


def reach_of(address: Address, *, is_punched: bool = False) -> Reach:
    """The kind of way that leads straight to an address."""
    if is_private(address):
        return Reach.LAN
    return Reach.PUNCHED if is_punched else Reach.DIRECT


async def leave_relay(
    stream: UdxTransport, remote_id: int, way: Way, relay: Address, route: Route
) -> None:
    """Take a better way; return when the one through the relay is not needed any more.

    Raises: trio.BrokenResourceError when the stream ends meanwhile, trio.ClosedResourceError.
    Cancel: the better way is taken, or will be by the end that made it known to us.
    """
    async with open_background_nursery() as nursery:
        heard = trio.Event()
        nursery.start_soon(_listen, stream, relay, heard)
        nursery.start_soon(_knock, stream, heard)
        await stream.change_remote(remote_id, way.address, through=way.endpoint)
        await heard.wait()
    _show(stream)  # to a remote that has followed us, and waits for a sign that this was seen
    route.reach, route.address = way.reach, format_address(way.address)


async def _listen(stream: UdxTransport, relay: Address, heard: trio.Event) -> None:
    await stream.wait_contact_beyond(relay)
    heard.set()


async def _knock(stream: UdxTransport, heard: trio.Event) -> None:
    """Show where we are, in case there is nothing else to send."""
    for seconds in KNOCK_SECONDS:
        await trio.sleep(seconds)
        if heard.is_set():
            return
        _show(stream)


def _show(stream: UdxTransport) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        stream.send_message(b"")  # when it is over, its reader learns it
