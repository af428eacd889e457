"""TCP sockets of simulated hosts, as trio's streams and listeners want them."""

from __future__ import annotations

import errno
import random
import socket as stdlib_socket
from collections import deque

import trio

from tests.simulation.network import (
    CONNECT_REPETITIONS,
    WINDOW_BYTES,
    Direction,
    Host,
    Network,
)

_LARGEST_SEND = 1 << 16


class SimulatedSocket(trio.socket.SocketType):
    """One socket; connected, listening or neither."""

    type = stdlib_socket.SOCK_STREAM
    family = stdlib_socket.AF_INET
    proto = 0

    def __init__(self, network: Network, host: Host) -> None:
        super().__init__()
        self.host = host
        self.is_gone = False
        """Closed here, broken, or lost with its machine."""
        self.is_silenced = False
        """The same without the first: nothing more is sent, not even what waits."""
        self._network = network
        self._port = 0
        self._remote = ("", 0)
        self._out: Direction | None = None
        self._incoming: Direction | None = None
        self._error: OSError | None = None
        self._is_closed = False
        self._has_ended = False
        self._inbox: deque[bytes] = deque()
        self._backlog: deque[SimulatedSocket] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # What trio asks.

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802  # trio's name
        return False

    def setsockopt(self, *_: object) -> None:
        """Nothing depends on options here."""

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> int | bytes:  # type: ignore[override]
        """Whether it listens is all that trio wants to know; as TCP_INFO, what Linux says first."""
        if buflen:
            repetitions = 0 if self._out is None else self._out.repetitions
            return bytes((1, 0, min(repetitions, 255)))[:buflen]
        return int(self.host.listener is self)

    def fileno(self) -> int:
        return -1 if self._is_closed else 1000

    def getsockname(self) -> tuple[str, int]:
        return self.host.address, self._port

    def getpeername(self) -> tuple[str, int]:
        return self._remote

    async def bind(self, address: object) -> None:
        assert isinstance(address, tuple)
        await trio.lowlevel.checkpoint()
        self._port = address[1]

    def listen(self, backlog: int = 0) -> None:
        self.host.listener = self

    async def accept(self) -> tuple[SimulatedSocket, object]:
        while not self._backlog:
            if self._is_closed:
                raise trio.ClosedResourceError
            await self._readers.park()
        await trio.lowlevel.checkpoint()
        accepted = self._backlog.popleft()
        return accepted, accepted.getpeername()

    async def connect(self, address: object) -> None:
        """Knock a few times; refused when the machine is on and nobody listens there."""
        assert isinstance(address, tuple)
        remote = self._network.find(address[0])
        if remote is None:
            raise OSError(errno.EHOSTUNREACH, "no such host")
        there = self._network.link(self.host.number, remote.number)
        back = self._network.link(remote.number, self.host.number)
        started = trio.current_time()
        chance: random.Random = self._network.chance
        for knock in CONNECT_REPETITIONS:
            await trio.sleep_until(started + knock)
            if there.is_cut or chance.random() < there.loss:
                continue
            await trio.sleep(there.latency)
            if not remote.is_on:
                continue
            if back.is_cut or chance.random() < back.loss:
                continue
            await trio.sleep(back.latency)
            listener = remote.listener
            if listener is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
            self._join(listener, remote, address)
            return
        raise TimeoutError(errno.ETIMEDOUT, "no answer")

    async def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            assert self._out is not None
            room = WINDOW_BYTES - self._out.open_bytes
            if room > 0:
                taken = bytes(data[: min(room, _LARGEST_SEND)])
                self._out.send(taken)
                return len(taken)
            await self._writers.park()

    async def recv(self, size: int, flags: int = 0) -> bytes:
        if self._inbox or self._has_ended or self.is_gone:
            await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self._has_ended and not self._is_closed and self._error is None:
                return b""
            self._check_open()
            await self._readers.park()
        self._check_open()
        if flags & stdlib_socket.MSG_PEEK:
            return self._inbox[0][:size]
        parts: list[bytes] = []
        while self._inbox and size > 0:
            part = self._inbox.popleft()
            if len(part) > size:
                self._inbox.appendleft(part[size:])
                part = part[:size]
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        assert self._incoming is not None
        self._incoming.was_read(len(data))
        return data

    def close(self) -> None:
        """Say goodbye after what was sent; what is unread is lost."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.host.listener is self:
            self.host.listener = None
            for waiting in self._backlog:
                waiting.close()
        if self._out is not None and not self.is_gone:
            self._out.send(None)
        self._leave()

    # What the network does.

    def arrive(self, data: bytes | None) -> None:
        if data is None:
            self._has_ended = True
        else:
            self._inbox.append(data)
        self._readers.unpark_all()

    def window_opened(self) -> None:
        self._writers.unpark_all()

    def be_reset(self) -> None:
        self.break_off("reset by peer")

    def break_off(self, reason: str) -> None:
        """The connection is over for this end, without a goodbye."""
        if not self.is_gone:
            self._error = ConnectionResetError(errno.ECONNRESET, reason)
            self._inbox.clear()
            self.is_silenced = True
            self._leave()

    def vanish(self) -> None:
        """Its machine lost power: nobody is told."""
        if self.host.listener is self:
            self.host.listener = None
        self._error = ConnectionResetError(errno.ECONNRESET, "no power")
        self.is_silenced = True
        self._leave()

    def _join(self, listener: SimulatedSocket, remote: Host, address: tuple[str, int]) -> None:
        accepted = SimulatedSocket(self._network, remote)
        self._remote = address
        accepted._remote = (self.host.address, 50_000)
        self._out = accepted._incoming = Direction(self._network, self, accepted)
        accepted._out = self._incoming = Direction(self._network, accepted, self)
        self.host.sockets[self] = None
        remote.sockets[accepted] = None
        listener._backlog.append(accepted)
        listener._readers.unpark_all()

    def _leave(self) -> None:
        self.is_gone = True
        self.host.sockets.pop(self, None)
        self._readers.unpark_all()
        self._writers.unpark_all()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._error is not None:
            raise OSError(self._error.errno, str(self._error))
