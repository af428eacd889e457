"""The sockets of a hole punch, and their clock.

Each attempt has a socket of its own; a few nodes of the table say how they see it. It lives as long
as the connection that comes of it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import assert_never

import trio

from swarm.announcement import Address
from swarm.dht.holepunch import (
    LOW_TTL,
    GaveUp,
    OpenSockets,
    Punched,
    Puncher,
    PunchOutput,
    SendProbe,
)
from swarm.dht.messages import Internal
from swarm.dht.nat import MIN_SOCKET_SAMPLES, SocketNat
from swarm.dht.peer_messages import NatKind, PunchRound
from swarm.dht.requests import Call, TooManyRequests, Via
from swarm.errors import PeerUnreachable
from swarm.io.carrier import UdxCarrier
from swarm.io.datagrams import DatagramSocket
from swarm.io.peer_sockets import PeerSockets
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.io.udp import UdxEndpoint, open_udx_endpoint

MAX_REOPENS = 3
"""New sockets that are tried while the NAT cannot be understood, as on a phone."""

_PROBE = b"\0"
_SKIPPED_NODES = 5
_MANY_NODES = 8


class HolePunch:
    """One attempt; made by `open_hole_punch`."""

    def __init__(self, sockets: PeerSockets, puncher: Puncher, nursery: trio.Nursery) -> None:
        self.machine = puncher
        self._sockets = sockets
        self._nursery = nursery
        self._endpoints: dict[int, UdxEndpoint] = {}
        self._extra: dict[int, DatagramSocket] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._via: Via | None = None
        self._sampled = trio.Event()
        self._moved = Wakeup()
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._begun = trio.Event()
        self._ended = trio.Event()
        self._found: tuple[UdxEndpoint, Address] | None = None
        self._is_counted = False

    @property
    def via(self) -> Via:
        """The socket to talk to relays through, so that they see where it is."""
        assert self._via is not None
        return self._via

    def open_session(self, address: Address) -> None:
        """Open our NAT towards an address, without a probe arriving there."""
        self._carry_out(self.machine.open_session(address))

    def probe(self, address: Address) -> None:
        self._send(SendProbe(0, address))

    def hear(self, message: PunchRound, proven_host: str | None) -> None:
        """The remote said something."""
        self.machine.hear(message, proven_host)

    def add_sample(self, seen_as: Address, witness: Address) -> None:
        self.machine.nat.add(seen_as, witness)

    async def analyze(self, *, may_reopen: bool) -> bool:
        """Whether our NAT is understood and something can be done; with new sockets if need be.

        When there is no socket to be had nothing will come of the attempt.
        Cancel: there may be no socket left, so that nothing will come of it.
        """
        await self._sampled.wait()
        for _ in range(MAX_REOPENS if may_reopen else 0):
            if not self.machine.is_unstable or self.machine.is_punching or self.machine.is_done:
                break
            try:
                await self._reopen()
            except OSError:
                self.stop()
                break
            await self._sampled.wait()
        return not self.machine.is_unstable

    def start(self) -> bool:
        """Begin to punch; False when it is hopeless, or another punch is at it."""
        if self.machine.is_punching:
            return True
        strategy = self.machine.strategy
        if strategy is None or self.machine.is_done:
            return False
        if strategy.is_random and not self._is_counted:
            if not self._sockets.random_punches.begin():
                return False
            self._is_counted = True
        self._carry_out(self.machine.start(trio.current_time()))
        self._moved.set()
        self._begun.set()
        return True

    async def wait_begun(self) -> None:
        """Return when the probing has begun. Cancel: nothing changes."""
        await self._begun.wait()

    async def wait_ended(self) -> None:
        """Return when something came through, or nothing will. Cancel: nothing changes."""
        await self._ended.wait()

    async def wait_punched(self) -> tuple[UdxEndpoint, Address]:
        """The socket that the remote came through to, and where it is.

        Raises: PeerUnreachable when nothing comes through.
        Cancel: nothing changes.
        """
        await self._ended.wait()
        if self._found is None:
            raise PeerUnreachable("the remote's NAT", 1)
        return self._found

    def stop(self) -> None:
        """Another way was found, or nobody wants this one; waiters for its end are told."""
        self.machine.stop()
        self._end_random()
        self._ended.set()

    def release(self) -> None:
        """Nothing came of it: close all sockets."""
        self.stop()
        for scope in list(self._scopes.values()):
            scope.cancel()

    async def close(self) -> None:
        """Let the stream that runs here deliver what it has, and close the socket.

        Cancel: closes it at once.
        """
        self.stop()
        self._closing.set()
        if self._scopes:
            await self._closed.wait()

    async def run(self) -> None:
        """Keep time; runs until cancelled."""
        while True:
            deadline = self.machine.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await self._moved.wait()
            self._carry_out(self.machine.advance(trio.current_time()))

    async def open_first(self) -> None:
        """Open socket 0, and find out how the world sees it."""
        await self._nursery.start(self._run_first)

    async def _serve(self, index: int, endpoint: UdxEndpoint, via: Via) -> None:
        """Take what arrives at a socket until it is to be closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, index, endpoint, via)
            await self._closing.wait()
            nursery.cancel_scope.cancel()

    async def _reopen(self) -> None:
        former = self._scopes.pop(0, None)
        if former is None:
            return  # another round of the talk is at it
        former.cancel()
        self._sampled = trio.Event()
        is_open = self._sockets.public_address is not None
        self.machine.nat = SocketNat(is_open=is_open)
        await self.open_first()

    async def _run_first(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            try:
                await self._run_socket(scope, task_status)
            finally:
                self._forget(0, scope)

    async def _run_socket(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None]
    ) -> None:
        async with open_udx_endpoint(
            self._host, 0, sharing=self._sockets.server, entropy=self._sockets.entropy
        ) as endpoint:
            with self._sockets.dht.driver.attached(UdxCarrier(endpoint)) as via:
                self._scopes[0], self._endpoints[0], self._via = scope, endpoint, via
                task_status.started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._sample, via, self._sampled)
                    await self._serve(0, endpoint, via)
                    nursery.cancel_scope.cancel()

    async def _sample(self, via: Via, sampled: trio.Event) -> None:
        """Ask nodes of the table how our socket appears to them; twice if need be."""
        nat = self.machine.nat
        nodes = list(self._sockets.dht.driver.engine.table.most_recent(4 * _MANY_NODES))
        if len(nodes) >= _MANY_NODES:
            nodes = nodes[_SKIPPED_NODES:]  # those that others ask right now, too
        addresses = [node.address for node in nodes]
        for _ in range(2):
            chosen, addresses = addresses[:MIN_SOCKET_SAMPLES], addresses[MIN_SOCKET_SAMPLES:]
            async with trio.open_nursery() as nursery:
                for address in chosen:
                    nursery.start_soon(self._ask_how_seen, address, via, nat, nursery.cancel_scope)
            if nat.is_settled:
                break
        sampled.set()

    async def _ask_how_seen(
        self, node: Address, via: Via, nat: SocketNat, others: trio.CancelScope
    ) -> None:
        try:
            call = Call(node, Internal.PING, True, retries=0, via=via)
            answered = await self._sockets.dht.driver.call(call)
        except (PeerUnreachable, TooManyRequests, trio.ClosedResourceError):
            return
        nat.add(answered.response.to, node)
        if nat.is_settled:
            others.cancel()

    async def _pump(self, index: int, endpoint: UdxEndpoint, via: Via) -> None:
        driver = self._sockets.dht.driver
        while True:
            for data, source in await endpoint.receive_datagrams():
                if len(data) <= 1:
                    self._carry_out(self.machine.probed(index, source))
                else:
                    driver.take(data, source, via)

    @property
    def _host(self) -> str:
        return self._sockets.server.address[0]

    def _carry_out(self, outputs: Sequence[PunchOutput]) -> None:
        for output in outputs:
            match output:
                case SendProbe():
                    self._send(output)
                case OpenSockets(count):
                    self._open_extra(count)
                case Punched(index, remote):
                    self._finish(index, remote)
                case GaveUp():
                    self._end_random()
                    self._ended.set()
                case _:
                    assert_never(output)

    def _send(self, probe: SendProbe) -> None:
        ttl = LOW_TTL if probe.is_low_ttl else None
        endpoint = self._endpoints.get(probe.socket)
        extra = self._extra.get(probe.socket)
        try:
            if endpoint is not None:
                endpoint.send_datagram(_PROBE, probe.to, ttl=ttl)
            elif extra is not None and ttl is not None:
                extra.send_with_ttl(probe.to, _PROBE, ttl)
            elif extra is not None:
                extra.send(probe.to, [_PROBE])
        except (ValueError, trio.ClosedResourceError):
            pass  # lost, like any other

    def _open_extra(self, count: int) -> None:
        """Open as many as the system lets us have."""
        for index in range(1, count + 1):
            try:
                self._extra[index] = DatagramSocket(self._host, 0, uses_trains=False)
            except OSError:
                return
            self._nursery.start_soon(self._run_extra, index)

    async def _run_extra(self, index: int) -> None:
        """Wait for the first sign of life; from then on the socket carries streams, too."""
        with trio.CancelScope() as scope:
            self._scopes[index] = scope
            extra = self._extra[index]
            try:
                await self._wait_sign(extra)
                received = extra.receive()
            except BaseException:
                extra.close()
                raise
            finally:
                del self._extra[index]
            async with open_udx_endpoint(
                socket=extra, sharing=self._sockets.server, entropy=self._sockets.entropy
            ) as endpoint:
                self._endpoints[index] = endpoint
                for data, source in received:
                    if len(data) <= 1:
                        self._carry_out(self.machine.probed(index, source))
                await self._serve(index, endpoint, self.via)
        self._forget(index, scope)

    async def _wait_sign(self, extra: DatagramSocket) -> None:
        """Return when something arrives, or the attempt is closing."""
        async with trio.open_nursery() as nursery:

            async def wait_closing() -> None:
                await self._closing.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_closing)
            await trio.lowlevel.wait_readable(extra.socket)
            nursery.cancel_scope.cancel()

    def _forget(self, index: int, scope: trio.CancelScope) -> None:
        """A socket is closed."""
        if self._scopes.get(index) is scope:
            del self._scopes[index]
            self._endpoints.pop(index, None)
        if not self._scopes and self._closing.is_set():
            self._closed.set()

    def _finish(self, index: int, remote: Address) -> None:
        """Keep the socket that was reached, and no other."""
        self._end_random()
        self._found = (self._endpoints[index], remote)
        for number, scope in list(self._scopes.items()):
            if number != index:
                scope.cancel()
        self._ended.set()

    def _end_random(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._sockets.random_punches.end()


@asynccontextmanager
async def open_hole_punch(
    sockets: PeerSockets, *, is_initiator: bool, remote_nat: NatKind
) -> AsyncIterator[HolePunch]:
    """Open a socket to punch with, until the body ends.

    Raises: OSError when there is none to be had.
    Cancel: closes all sockets of the attempt.
    """
    nat = SocketNat(is_open=sockets.public_address is not None)
    puncher = Puncher(nat, sockets.entropy, is_initiator=is_initiator)
    puncher.remote_nat = remote_nat
    async with open_background_nursery() as nursery:
        punch = HolePunch(sockets, puncher, nursery)
        await punch.open_first()
        nursery.start_soon(punch.run)
        try:
            yield punch
        finally:
            punch.stop()
        await punch.close()
