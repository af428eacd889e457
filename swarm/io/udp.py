"""UDP: one socket with many UDX streams, and whatever else arrives there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from hypercore.crypto import Entropy, system_entropy
from hypercore.encoding import DecodeError
from swarm.io.alarms import Alarms
from swarm.io.datagrams import Datagram, DatagramOutbox, DatagramSocket, verify_address
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.io.udx_relay import RelayEnd, UdxRelayHandle
from swarm.io.udx_transport import UdxTransport
from swarm.udx.mtu import MAX_MTU
from swarm.udx.packet import Packet, decode_packet, is_packet
from swarm.udx.path import Address, Path
from swarm.udx.receiver import WINDOW_BYTES
from swarm.udx.relay import Budget
from swarm.udx.stream import State, UdxStream

MAX_WAITING_DATAGRAMS = 1024
"""Datagrams that are not UDX and that nobody has taken; more are dropped."""

MAX_LINGERING = 1024
"""Closed streams that still tell their remotes so; the oldest are forgotten."""

CLOSE_SECONDS = 1.0
"""How long closing an endpoint waits for what its closed streams have under way."""


@dataclass(frozen=True, slots=True)
class UdxEndpointStatistics:
    """Counts of one socket; bytes are those of datagrams."""

    streams: int
    datagrams_received: int
    datagrams_sent: int
    datagrams_dropped: int
    """Not sent, because the system had no room or no route."""
    packets_malformed: int
    packets_unknown: int
    """For no stream of ours, or for one that does not know its remote yet."""
    others_dropped: int
    """Datagrams that were not UDX, and that nobody took in time."""
    outbox_bytes: int
    buffered_bytes: int
    """What its streams have received and nobody has read."""


@dataclass(slots=True)
class _Table:
    """What endpoints that share their streams have in common."""

    streams: dict[int, UdxTransport] = field(default_factory=dict)
    endpoints: dict[int, UdxEndpoint] = field(default_factory=dict)
    relays: dict[int, tuple[UdxRelayHandle, int]] = field(default_factory=dict)  # and which end
    lingering: deque[UdxTransport] = field(default_factory=deque)
    opened: int = 0  # endpoints so far


class UdxEndpoint:
    """One UDP socket; made by `open_udx_endpoint`."""

    def __init__(self, socket: DatagramSocket, table: _Table, entropy: Entropy) -> None:
        self._socket = socket
        self._table = table
        self._entropy = entropy
        self._number = table.opened
        table.opened += 1
        table.endpoints[self._number] = self
        self._is_closed = False
        self._alarms = Alarms()  # of streams, by their ids
        self._outbox = DatagramOutbox(socket)
        self._others: deque[Datagram] = deque()
        self._other_arrived = Wakeup()
        self._none_left = trio.Event()
        self._received = self._sent_with_ttl = self._malformed = self._unknown = (
            self._others_dropped
        ) = 0

    @property
    def address(self) -> Address:
        """Where this endpoint can be reached."""
        return self._socket.address

    def statistics(self) -> UdxEndpointStatistics:
        streams = [each for each in self._table.streams.values() if each.endpoint is self]
        return UdxEndpointStatistics(
            streams=len(streams),
            datagrams_received=self._received,
            datagrams_sent=self._outbox.sent + self._sent_with_ttl,
            datagrams_dropped=self._outbox.dropped + self._socket.dropped_datagrams,
            packets_malformed=self._malformed,
            packets_unknown=self._unknown,
            others_dropped=self._others_dropped,
            outbox_bytes=self._outbox.waiting_bytes,
            buffered_bytes=sum(stream.buffered_bytes for stream in streams),
        )

    def open_stream(
        self,
        local_id: int | None = None,
        *,
        first_seq: int = 0,
        window_bytes: int = WINDOW_BYTES,
        is_contactable: bool = False,
    ) -> UdxTransport:
        """A stream that is not connected yet; a random id if none is given.

        It takes no packets before `UdxTransport.connect`, unless it `is_contactable`: then
        `UdxTransport.wait_contact` tells where the first one came from.

        Raises: ValueError when the id is taken, trio.ClosedResourceError.
        """
        if self._is_closed:
            raise trio.ClosedResourceError("this endpoint was closed")
        streams = self._table.streams
        if local_id is None:
            local_id = self.choose_id()
        elif not self._is_free(local_id):
            raise ValueError(f"stream id {local_id} is taken")
        machine = UdxStream(
            local_id,
            now=trio.current_time(),
            first_seq=first_seq,
            window_bytes=window_bytes,
            entropy=self._entropy,
        )
        stream = UdxTransport(self, machine, is_contactable=is_contactable)
        streams[local_id] = stream
        return stream

    def open_relay(
        self, left: RelayEnd, right: RelayEnd, *, budget: Budget | None = None
    ) -> UdxRelayHandle:
        """Pass packets on between two ends, until one of them destroys the stream.

        With a `budget`, also no longer than that lasts.

        Raises: ValueError when an id is taken, trio.ClosedResourceError.
        """
        ids = []
        for end in (left, right):
            if end.local_id in ids or not self._is_free(end.local_id):
                raise ValueError(f"stream id {end.local_id} is taken")
            ids.append(end.local_id)
        relay = UdxRelayHandle(self, left, right, budget)
        for origin, local_id in enumerate(ids):
            self._table.relays[local_id] = (relay, origin)
        return relay

    def send_datagram(self, data: bytes, address: Address, *, ttl: int | None = None) -> None:
        """Send what is not UDX; with a `ttl`, no further than that many routers.

        Raises: ValueError for an address that is not numeric, trio.ClosedResourceError.
        """
        if self._is_closed:
            raise trio.ClosedResourceError("this endpoint was closed")
        verify_address(address)
        if ttl is None:
            self._outbox.add(address, [data])
        else:
            self._sent_with_ttl += 1
            self._socket.send_with_ttl(address, data, ttl)

    async def receive_datagram(self) -> Datagram:
        """The next datagram that is not UDX, and where it came from.

        Raises: trio.BusyResourceError, trio.ClosedResourceError.
        Cancel: nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        while not self._others:
            if self._is_closed:
                raise trio.ClosedResourceError("this endpoint was closed")
            await self._other_arrived.wait()
        return self._others.popleft()

    async def receive_datagrams(self) -> list[Datagram]:
        """All datagrams that are not UDX and have arrived, at least one.

        Raises: trio.BusyResourceError, trio.ClosedResourceError.
        Cancel: nothing is lost.
        """
        received = [await self.receive_datagram(), *self._others]
        self._others.clear()
        return received

    # For its streams.

    def create_path(self, remote_id: int, address: Address) -> Path:
        """The way to a stream at an address, through this socket.

        Raises: ValueError for an address that is not numeric, trio.ClosedResourceError.
        """
        verify_address(address)
        if self._is_closed:
            raise trio.ClosedResourceError("this endpoint was closed")
        return Path(
            remote_id,
            address,
            endpoint=self._number,
            is_ipv6=self._socket.is_ipv6,
            max_mtu=self._socket.link_mtu(address, MAX_MTU),
        )

    def shares_with(self, other: UdxEndpoint) -> bool:
        """Whether streams may move between the two."""
        return self._table is other._table

    def transmit(self, path: Path, datagrams: list[bytes]) -> None:
        """Send packets of a stream; lost when the socket of the path is closed."""
        endpoint = self._table.endpoints.get(path.endpoint)
        if endpoint is not None:
            endpoint._outbox.add(path.address, datagrams)

    def schedule(self, stream: UdxTransport) -> None:
        """See to it that a stream is looked at when it is due."""
        deadline = stream.machine.deadline
        at = stream.give_up_at if deadline is None else min(deadline, stream.give_up_at)
        self._alarms.set(stream.local_id, at)

    def bury(self, stream: UdxTransport, give_up_at: float) -> None:
        """A stream was closed by its user: let it deliver what it has."""
        stream.give_up_at = give_up_at
        self.schedule(stream)

    def note_closed(self, stream: UdxTransport) -> None:
        """A stream is over."""
        stream.give_up_at = math.inf
        if stream.machine.state is State.LINGERING:
            lingering = self._table.lingering
            lingering.append(stream)
            if len(lingering) > MAX_LINGERING:
                self.forget(lingering.popleft())
        if not self._has_left:
            self._none_left.set()

    def forget_relay(self, relay: UdxRelayHandle) -> None:
        """A relay is over: its ids are free."""
        relays = self._table.relays
        for local_id in [id for id, (other, _) in relays.items() if other is relay]:
            del relays[local_id]

    def forget(self, stream: UdxTransport) -> None:
        """A stream is gone: its id is free."""
        if self._table.streams.get(stream.local_id) is stream:
            del self._table.streams[stream.local_id]
            self._alarms.remove(stream.local_id)

    def choose_id(self) -> int:
        """A random id that is free, for a stream or one end of a relay."""
        while True:
            local_id = int.from_bytes(self._entropy(4), "little")
            if local_id and local_id not in self._table.streams and self._is_free(local_id):
                return local_id

    def _is_free(self, local_id: int) -> bool:
        stream = self._table.streams.get(local_id)
        is_lingering = stream is not None and stream.machine.state is State.LINGERING
        return (stream is None or is_lingering) and local_id not in self._table.relays

    async def _receive(self) -> None:
        """Empty the socket, a batch at a time."""
        while True:
            await trio.lowlevel.wait_readable(self._socket.socket)
            received = self._socket.receive()
            self._received += len(received)
            self._dispatch(received, trio.current_time())

    def _dispatch(self, received: Sequence[Datagram], now: float) -> None:
        batches: dict[UdxTransport, list[Packet]] = {}
        streams = self._table.streams
        for datagram, source in received:
            if not is_packet(datagram):
                self._take_other((datagram, source))
                continue
            try:
                packet = decode_packet(datagram)
            except DecodeError:
                self._malformed += 1
                continue
            stream = streams.get(packet.stream_id)
            if stream is None or not stream.admit(self, source):
                if not self._relay(packet, datagram):
                    self._unknown += 1
                continue
            batch = batches.get(stream)
            if batch is None:
                batches[stream] = [packet]
            else:
                batch.append(packet)
        for stream, packets in batches.items():
            stream.carry_out(stream.machine.receive(packets, now))

    def _relay(self, packet: Packet, datagram: bytes) -> bool:
        """Whether a packet was for a relay; if so it is passed on."""
        relay, origin = self._table.relays.get(packet.stream_id, (None, 0))
        if relay is None:
            return False
        relay.receive(origin, packet, datagram)
        return True

    def _take_other(self, datagram: Datagram) -> None:
        if len(self._others) == MAX_WAITING_DATAGRAMS:
            self._others_dropped += 1
            return
        self._others.append(datagram)
        self._other_arrived.set()

    async def _run_timers(self) -> None:
        """Look at every stream that is due."""
        while True:
            due = await self._alarms.wait_due()
            now = trio.current_time()
            for local_id in due:
                stream = self._table.streams.get(local_id)
                if stream is not None and stream.endpoint is self:
                    self._advance(stream, now)

    def _advance(self, stream: UdxTransport, now: float) -> None:
        """A stream is due, or is to be given up."""
        if now >= stream.give_up_at:
            stream.give_up_at = math.inf
            stream.destroy()
        else:
            stream.carry_out(stream.machine.advance(now))

    @property
    def _has_left(self) -> bool:
        """Whether streams that were closed here have something under way."""
        streams = self._table.streams.values()
        return any(stream.is_left and stream.endpoint is self for stream in streams)

    async def _wait_delivered(self) -> None:
        """Wait until no stream that was closed here has anything under way."""
        if self._has_left:
            self._none_left = trio.Event()
            await self._none_left.wait()

    def _close(self) -> None:
        """Destroy what is left, and free the port."""
        for stream in list(self._table.streams.values()):
            if stream.endpoint is self:
                stream.destroy()
                self.forget(stream)
        for relay in {relay for relay, _ in self._table.relays.values()}:
            if relay.endpoint is self:
                relay.close()
        self._is_closed = True
        self._other_arrived.set()
        del self._table.endpoints[self._number]
        self._socket.close()


@asynccontextmanager
async def open_udx_endpoint(
    host: str = "0.0.0.0",
    port: int = 0,
    *,
    socket: DatagramSocket | None = None,
    sharing: UdxEndpoint | None = None,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[UdxEndpoint]:
    """Bind a UDP socket, and run its streams until the body ends; then they are destroyed.

    Port 0 picks a free one; a `socket` that is bound already is taken over. Endpoints that are
    `sharing` streams with another one take packets for all of them, and streams can be moved
    between them.

    Raises: OSError when the port is taken.
    Cancel: destroys the streams at once.
    """
    table = _Table() if sharing is None else sharing._table
    endpoint = UdxEndpoint(socket or DatagramSocket(host, port), table, entropy)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(endpoint._receive)
            nursery.start_soon(endpoint._outbox.run)
            nursery.start_soon(endpoint._run_timers)
            yield endpoint
            with trio.move_on_after(CLOSE_SECONDS):
                await endpoint._wait_delivered()
    finally:
        endpoint._close()
