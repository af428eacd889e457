"""Finding neighbors on the local network through multicast DNS.

zeroconf runs in a thread of its own. What it calls back there only posts a name to the trio
thread, which coalesces names, resolves them and hands over what it learned; nothing that could
fail or wait happens in zeroconf's thread.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import ifaddr
import trio
import zeroconf

from hypercore.crypto import Entropy, system_entropy
from swarm.announcement import SALT_BYTES, Announcement, Neighbor, NeighborLeft, NeighborSeen
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.peer_book import MAX_NEIGHBORS

SERVICE_TYPE = "_beemesh._tcp.local."
LOOPBACK = "127.0.0.1"

_SALT_SECONDS = 3600.0
_WATCH_SECONDS = 30.0  # zeroconf does not notice new interfaces: we look, and start it again
_RETRY_SECONDS = 1.0
_RESOLVE_MS = 2000
_RESOLVE_AGAIN_SECONDS = 5.0  # after a name did not answer: its owner announces it rarely
_CLOSE_SECONDS = 3.0
_MAX_ADDRESSES = 8  # of one neighbor
_THREADS = 4  # that ask for records
_OWN_THREADS = 2  # for what we have to say; who asks in vain keeps a thread for seconds

MAX_NAMES = 2**14
"""That one instance of zeroconf is told of: it keeps something of each, until the end that its
record claims. With more, all is forgotten, and we look again in half a minute."""

T = TypeVar("T")


class Mdns:
    """One node's announcement, and its view of the others; made by `open_mdns`."""

    def __init__(
        self, name: str, host: str, port: int, interfaces: Sequence[str] | None, entropy: Entropy
    ) -> None:
        self.name = name
        self.error = ""
        """Why it does not work at the moment, such as no network with multicast."""
        self._host = host
        self._port = port
        self._interfaces = interfaces
        self._entropy = entropy
        self._topics: tuple[bytes, ...] = ()
        self._turn = -1  # a new one for each record
        self._topics_changed = Wakeup()
        self._announced = trio.Event()
        self._names: dict[str, bool] = {}
        self._names_changed = Wakeup()
        self._resolving: dict[str, trio.CancelScope] = {}
        self._news: dict[str, Neighbor] = {}
        self._news_changed = Wakeup()
        self._told = 0
        self._flooded = trio.Event()
        self._limiter = trio.CapacityLimiter(_OWN_THREADS)
        self._asking = trio.CapacityLimiter(_THREADS)

    def announce(self, topics: Iterable[bytes]) -> None:
        """Announce exactly these topics from now on; none means not to be seen at all."""
        self._topics = tuple(topics)
        self._announced = trio.Event()
        self._topics_changed.set()

    async def wait_announced(self) -> None:
        """Return when what `announce` was told last is on the network. Cancel: nothing changes."""
        await self._announced.wait()

    async def receive(self) -> list[Neighbor]:
        """What changed since the last call, the last word about each neighbor.

        Empty when only `error` changed.
        Cancel: nothing is lost.
        """
        await self._news_changed.wait()
        news, self._news = self._news, {}
        return list(news.values())

    async def _run(self) -> None:
        """Keep an instance of zeroconf running for the interfaces that there are."""
        while True:
            try:
                addresses = await self._in_thread(_local_addresses)
                # zeroconf would find out as well, but leak a socket each time.
                missing = set(self._interfaces or ()).difference(addresses)
                if missing or not addresses:
                    raise OSError(f"no interface has the address {', '.join(sorted(missing))}")
                await self._run_instance(addresses)
            except (OSError, zeroconf.Error) as error:
                self._report(error)
                await trio.sleep(_WATCH_SECONDS)

    async def _run_instance(self, addresses: list[str]) -> None:
        """Browse and announce until the interfaces change.

        Raises: OSError when the network announces too many names.
        """
        self._told, self._flooded = 0, trio.Event()
        create = partial(
            zeroconf.Zeroconf,
            interfaces=list(self._interfaces or ()) or zeroconf.InterfaceChoice.All,
            ip_version=zeroconf.IPVersion.V4Only,
        )
        instance = await trio.to_thread.run_sync(create)
        try:
            listener = _Listener(trio.lowlevel.current_trio_token(), self._note)
            await self._in_thread(
                partial(zeroconf.ServiceBrowser, instance, SERVICE_TYPE, listener=listener)
            )
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._announce, instance, addresses)
                nursery.start_soon(self._resolve_names, instance)
                # There is no event that tells of a new interface.
                while await self._in_thread(_local_addresses) == addresses:
                    with trio.move_on_after(_WATCH_SECONDS):
                        await self._flooded.wait()
                        raise OSError(f"more than {MAX_NAMES} names were announced")
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_SECONDS):
                # Says goodbye. Not through the limiter: calls given up may still hold it.
                await trio.to_thread.run_sync(instance.close, abandon_on_cancel=True)

    async def _announce(self, instance: zeroconf.Zeroconf, addresses: list[str]) -> None:
        """Keep the record on the network in step with our topics, and its salt fresh."""
        registered: zeroconf.ServiceInfo | None = None
        self._topics_changed.set()
        while True:
            with trio.move_on_after(_SALT_SECONDS):
                await self._topics_changed.wait()
            announced = self._announced
            wanted = self._service_info(addresses) if self._topics else None
            try:
                if wanted is None:
                    if registered is not None:
                        await self._in_thread(partial(instance.unregister_service, registered))
                elif registered is None:
                    # The name is random: probing for others of that name would cost a second.
                    await self._in_thread(
                        partial(instance.register_service, wanted, cooperating_responders=True)
                    )
                else:
                    await self._in_thread(partial(instance.update_service, wanted))
            except (OSError, zeroconf.Error) as error:
                self._report(error)
                await trio.sleep(_RETRY_SECONDS)
                self._topics_changed.set()
                continue
            self._report(None)
            registered = wanted
            announced.set()

    def _service_info(self, addresses: list[str]) -> zeroconf.ServiceInfo:
        salt = self._entropy(SALT_BYTES)
        self._turn += 1
        return zeroconf.ServiceInfo(
            SERVICE_TYPE,
            f"{self.name}.{SERVICE_TYPE}",
            addresses=[socket.inet_aton(address) for address in self._reachable(addresses)],
            port=self._port,
            properties=Announcement.of(self._topics, salt, self._turn).encode(),
            server=f"{self.name}.local.",
        )

    def _reachable(self, addresses: list[str]) -> list[str]:
        """Where others can reach our listener: not through loopback, if there is another way."""
        if self._host not in ("", "0.0.0.0", "::"):
            return [self._host]
        chosen = [address for address in addresses if address in (self._interfaces or addresses)]
        return [address for address in chosen if not address.startswith("127.")] or [LOOPBACK]

    def _report(self, error: Exception | None) -> None:
        text = "" if error is None else str(error) or type(error).__name__
        if text != self.error:
            self.error = text
            self._news_changed.set()

    def _note(self, name: str, is_present: bool) -> None:
        """Remember a name to look at; called in the trio thread."""
        self._told += 1
        if self._told > MAX_NAMES:
            self._flooded.set()
        if name in self._names or len(self._names) < MAX_NEIGHBORS:
            self._names[name] = is_present
            self._names_changed.set()

    async def _resolve_names(self, instance: zeroconf.Zeroconf) -> None:
        self._resolving.clear()
        async with trio.open_nursery() as nursery:
            while True:
                await self._names_changed.wait()
                names, self._names = self._names, {}
                for name, is_present in names.items():
                    # What an earlier look brings would arrive after this news, and be older: it
                    # would undo the goodbye of a neighbor.
                    earlier = self._resolving.pop(name, None)
                    if earlier is not None:
                        earlier.cancel()
                    if not is_present:
                        self._tell(NeighborLeft(name.partition(".")[0]))
                    elif self._resolve_at_once(instance, name):
                        pass
                    elif len(self._resolving) < MAX_NEIGHBORS:
                        scope = self._resolving[name] = trio.CancelScope()
                        nursery.start_soon(self._resolve, instance, name, scope)

    def _resolve_at_once(self, instance: zeroconf.Zeroconf, name: str) -> bool:
        """Whether all that there is to know came with the name, as from a neighbor of ours.

        Then it does not wait behind names of which nobody knows anything.
        """
        with contextlib.suppress(zeroconf.Error):
            info = zeroconf.ServiceInfo(SERVICE_TYPE, name)
            if info.load_from_cache(instance):
                self._read(info)
                return True
        return False

    async def _resolve(
        self, instance: zeroconf.Zeroconf, name: str, scope: trio.CancelScope
    ) -> None:
        """Ask for address and record; a name that does not answer twice is left alone."""
        ask = partial(instance.get_service_info, SERVICE_TYPE, name, _RESOLVE_MS)
        info: zeroconf.ServiceInfo | None = None
        with scope, contextlib.suppress(OSError, zeroconf.Error):
            info = await self._in_thread(ask, self._asking)
            if info is None:
                await trio.sleep(_RESOLVE_AGAIN_SECONDS)
                info = await self._in_thread(ask, self._asking)
        if self._resolving.get(name) is not scope:
            return
        del self._resolving[name]
        if info is not None:
            self._read(info)

    def _read(self, info: zeroconf.ServiceInfo) -> None:
        """Tell of a neighbor, if it is one."""
        port, announcement = info.port, Announcement.decode(info.properties)
        if port and announcement is not None:
            hosts = info.parsed_addresses(zeroconf.IPVersion.V4Only)[:_MAX_ADDRESSES]
            addresses = tuple((host, port) for host in hosts)
            self._tell(NeighborSeen(info.name.partition(".")[0], addresses, announcement))

    def _tell(self, neighbor: Neighbor) -> None:
        if neighbor.name != self.name and len(self._news) < MAX_NEIGHBORS:
            self._news[neighbor.name] = neighbor
            self._news_changed.set()

    async def _in_thread(
        self, call: Callable[[], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        limiter = limiter or self._limiter
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)


class _Listener(zeroconf.ServiceListener):
    """Called in zeroconf's thread: passes names on, and touches nothing else."""

    def __init__(self, token: trio.lowlevel.TrioToken, note: Callable[[str, bool], None]) -> None:
        self._token = token
        self._note = note

    def add_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
        self._post(name, True)

    def update_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
        self._post(name, True)

    def remove_service(self, zc: zeroconf.Zeroconf, type_: str, name: str) -> None:
        self._post(name, False)

    def _post(self, name: str, is_present: bool) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._note, name, is_present)


def _local_addresses() -> list[str]:
    """The IPv4 addresses of all interfaces."""
    return sorted(
        address.ip
        for adapter in ifaddr.get_adapters()
        for address in adapter.ips
        if isinstance(address.ip, str) and address.is_IPv4
    )


@asynccontextmanager
async def open_mdns(
    name: str,
    host: str,
    port: int,
    *,
    interfaces: Sequence[str] | None = None,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Mdns]:
    """Announce a listener at host:port under `name`, and watch for others, until the body ends.

    `interfaces` are IPv4 addresses of this machine, None is all of them. Where multicast does
    not work it keeps trying, and `error` says why; nothing is raised.

    Cancel: says goodbye, at most 3 s long.
    """
    mdns = Mdns(name, host, port, interfaces, entropy)
    async with open_background_nursery() as nursery:
        nursery.start_soon(mdns._run)
        yield mdns
