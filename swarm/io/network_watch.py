"""Noticing that this machine is on another network, or was asleep.

What counts is which addresses it has, and from which it would speak to the world. Linux says
through its routing socket when to look again; elsewhere we look every few seconds. Sleep shows in
two clocks: the monotonic one stands still meanwhile, the wall clock does not.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import ifaddr
import trio

from swarm.io.tasks import Wakeup, open_background_nursery

POLL_SECONDS = 5.0
SETTLE_SECONDS = 1.0
"""An interface that comes up changes several times."""

SLEEP_SECONDS = 15.0
"""How far the clocks may drift apart: stepping a clock is no sleep worth mentioning."""

_ADDRESS_AND_ROUTE_GROUPS = 0x10 | 0x40 | 0x100 | 0x400
_SOMEWHERE = ("192.0.2.1", 9)  # of a network for examples; nothing is sent there
_log = logging.getLogger("beemesh.swarm")

Fingerprint = tuple[tuple[str, ...], str]
"""Our addresses, and the one from which we would speak to the world."""


class NetworkChange(enum.Enum):
    """Why to find out anew what we are."""

    MOVED = "moved"
    WOKE_UP = "woke up"


class NetworkWatch:
    """Made by `open_network_watch`."""

    def __init__(self, read: Callable[[], Fingerprint]) -> None:
        self._read = read
        self._news: NetworkChange | None = None
        self._changed = Wakeup()

    async def wait_changed(self) -> NetworkChange:
        """The next change since the last call.

        Cancel: nothing is lost.
        """
        while self._news is None:
            await self._changed.wait()
        news, self._news = self._news, None
        return news

    async def run(self) -> None:
        """Look, when there may be something to see; runs until cancelled."""
        before = self._look()
        apart = time.time() - trio.current_time()
        with _open_routing_socket() as routing:
            while True:
                with trio.move_on_after(POLL_SECONDS):
                    await _wait_event(routing)
                    await trio.sleep(SETTLE_SECONDS)
                    _drain(routing)
                now_apart = time.time() - trio.current_time()
                if now_apart - apart > SLEEP_SECONDS:
                    self._note(NetworkChange.WOKE_UP)
                apart = now_apart
                now = self._look() or before
                if before is not None and now != before:
                    self._note(NetworkChange.MOVED)
                before = now

    def _look(self) -> Fingerprint | None:
        """None when it cannot be told just now: asking the system takes a file descriptor, too."""
        try:
            return self._read()
        except OSError:
            return None

    def _note(self, change: NetworkChange) -> None:
        _log.info("the network may be another one: this machine has %s", change.value)
        self._news = change
        self._changed.set()


def read_fingerprint() -> Fingerprint:
    """The fingerprint now. Addresses that only mean something on a link are left out."""
    addresses = {
        str(ip.ip if ip.is_IPv4 else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    }
    kept = sorted(address for address in addresses if not address.startswith(("fe80:", "169.254.")))
    return tuple(kept), _speaking_as()


def _speaking_as() -> str:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_SOMEWHERE)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


@contextlib.contextmanager
def _open_routing_socket() -> Iterator[socket.socket | None]:
    """Where Linux tells of changed addresses and routes; None elsewhere, or where we may not."""
    if sys.platform != "linux":
        yield None
        return
    try:
        routing = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError:
        yield None
        return
    with routing:
        routing.setblocking(False)
        with contextlib.suppress(OSError):  # then we only look every few seconds
            routing.bind((0, _ADDRESS_AND_ROUTE_GROUPS))
        yield routing


async def _wait_event(routing: socket.socket | None) -> None:
    if routing is None:
        await trio.sleep_forever()
    else:
        await trio.lowlevel.wait_readable(routing)


def _drain(routing: socket.socket | None) -> None:
    """What exactly has changed is not read: reports that come too fast may be incomplete."""
    if routing is None:
        return
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                routing.recv(2**16)
            except BlockingIOError:
                raise
            except OSError:
                continue  # there were more than the system could keep


@asynccontextmanager
async def open_network_watch(
    read: Callable[[], Fingerprint] = read_fingerprint,
) -> AsyncIterator[NetworkWatch]:
    """Watch until the body ends."""
    watch = NetworkWatch(read)
    async with open_background_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch
