"""One end of a meeting at a blind relay.

Source: hyperdht 6.34.0 lib/connect.js relayConnection, lib/server.js _relayConnection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import trio

from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.blind_relay import PAIR, PROTOCOL, UNPAIR, Pair, Unpair
from swarm.dht.peer_messages import RelayThrough
from swarm.errors import SwarmError
from swarm.io.channel import Channel
from swarm.io.connection import Connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery
from swarm.io.udp import UdxEndpoint
from swarm.io.udx_transport import UdxTransport
from swarm.udx.packet import MESSAGE, encode_packet

PAIRING_SECONDS = 15.0

SHOW_UP_SECONDS = (0.0, 0.5, 1.0, 2.0)
"""Pauses before each empty packet by which an end that waits shows where it is."""

LINGER_SECONDS = 5.0
"""For what is under way through a relay that is not needed any more."""

FAREWELL_SECONDS = 2.0
"""For what a stream that was closed has under way through the relay."""

Connect = Callable[[bytes, KeyPair], AbstractAsyncContextManager[Connection]]
"""Connects to a key, as `HyperDht.connect` does."""


@dataclass(frozen=True, slots=True)
class RelayLeg:
    """The way to the relay: from which of our sockets, to which stream at which address."""

    endpoint: UdxEndpoint
    remote_id: int
    address: Address


class RelayMeeting:
    """Waits at a relay for the other end; made by `open_meeting`."""

    def __init__(
        self, through: RelayThrough, stream: UdxTransport, *, is_initiator: bool, is_caller: bool
    ) -> None:
        self._is_caller = is_caller
        self._through = through
        self._stream = stream
        self._is_initiator = is_initiator
        self._leg: RelayLeg | None = None
        self.address: Address | None = None
        """Where the relay is, as soon as we are connected to it."""
        self._settled = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def leg(self) -> RelayLeg | None:
        """The way, once both ends are there."""
        return self._leg

    @property
    def is_settled(self) -> bool:
        """Whether both ends are there, or will not be."""
        return self._settled.is_set()

    async def wait_leg(self) -> RelayLeg | None:
        """The way, once both ends are there; None when that is not to be.

        Cancel: nothing changes.
        """
        await self._settled.wait()
        return self._leg

    def leave(self) -> None:
        """There is a better way: hang up, after LINGER_SECONDS.

        What the remote has sent through the relay it repeats through the relay until it arrives.
        """
        self._scope.deadline = trio.current_time() + LINGER_SECONDS

    async def run(self, connect: Connect) -> None:
        """Meet, and stay until the relay hangs up; runs until cancelled."""
        try:
            with self._scope:
                await self._meet(connect)
        except (
            SwarmError, trio.TooSlowError, trio.EndOfChannel, trio.BrokenResourceError,
            trio.ClosedResourceError, OSError,
        ):  # fmt: skip
            pass  # no way; those that wait for it are told
        finally:
            self._settled.set()

    async def _meet(self, connect: Connect) -> None:
        """Meet under a key made for this: the relay need not know who we are."""
        own = KeyPair.generate()
        async with (
            connect(self._through.public_key, own) as connection,
            open_mux(connection) as mux,
        ):
            with trio.fail_after(PAIRING_SECONDS):
                channel = await mux.open_channel(PROTOCOL, own.public_key)
                self._leg = await self._pair(connection, channel)
            self._settled.set()
            if self._leg is None:
                return
            if not self._is_caller:
                await self._show_up(self._leg)
            await mux.wait_ended()

    async def _show_up(self, leg: RelayLeg) -> None:
        """Send something: until then the originals' relays do not know where an end is."""
        datagram = encode_packet(MESSAGE, leg.remote_id, 0, 0, 0)
        for seconds in SHOW_UP_SECONDS:
            await trio.sleep(seconds)
            if self._stream.statistics().packets_received:
                return
            leg.endpoint.send_datagram(datagram, leg.address)

    async def _pair(self, connection: Connection, channel: Channel) -> RelayLeg | None:
        ours = Pair(self._is_initiator, self._through.token, self._stream.local_id)
        transport = connection.stream
        assert isinstance(transport, UdxTransport)
        path = transport.machine.path
        assert path is not None
        self.address = path.address
        channel.send(PAIR, ours.encode())
        while True:
            for message_type, payload in await channel.receive():
                try:
                    if message_type == UNPAIR and Unpair.decode(payload).token == ours.token:
                        return None  # the relay is full
                    pair = Pair.decode(payload) if message_type == PAIR else None
                except DecodeError:
                    return None
                if pair is not None and pair.token == ours.token:
                    return RelayLeg(transport.endpoint, pair.stream_id, path.address)


@asynccontextmanager
async def open_meeting(
    through: RelayThrough,
    stream: UdxTransport,
    connect: Connect,
    *,
    is_initiator: bool,
    is_caller: bool,
) -> AsyncIterator[RelayMeeting]:
    """Go to a relay, and stay there until the body ends and the stream is delivered.

    `is_initiator` says whose relay it is, `is_caller` who speaks first on the stream.

    Cancel: leaves at once.
    """
    meeting = RelayMeeting(through, stream, is_initiator=is_initiator, is_caller=is_caller)
    async with open_background_nursery() as nursery:
        nursery.start_soon(meeting.run, connect)
        yield meeting
        if meeting.leg is not None:
            with trio.move_on_after(FAREWELL_SECONDS):
                await stream.wait_over()
