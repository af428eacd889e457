"""[trio] Making members known to one another, so that each can dial another, also a lost one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog
import trio

from hypercore.encoding import DecodeError
from hypercore.replication.channel import MessageChannel, Multiplexer
from node.mesh.effort import Quota
from node.mesh.hearsay import Hearsay
from node.mesh.member_book import MemberBook
from node.mesh.whereabouts import PROTOCOL, as_seen, decode, encode, split
from node.notation import parse_address

OPEN_SECONDS = 10.0
NEIGHBORS_SECONDS = 1.0
"""How long to wait: members connected with each other say so meanwhile, and are told nothing."""

MAX_WORDS = 4096
"""What one connection may say at once: about itself, and 4,000 others."""

WORDS_PER_SECOND = 5
"""What it may say from then on: connections live for months, and others come and go."""

_TURN_WORDS = 32  # after which others have their turn, the dialer among them: it looks at all

_log = structlog.get_logger(__name__)


class Dialer(Protocol):
    """A swarm, as far as introductions are concerned."""

    def suggest_peer(self, where: tuple[str, int] | str, public_key: bytes) -> None:
        """Raises: ValueError for no address or URL."""
        ...


class Acquaintance(Protocol):
    """A connected member, as far as introductions are concerned."""

    id: bytes
    hearsay: Hearsay

    @property
    def is_expelled(self) -> bool: ...
    def expel(self, fault: str) -> None: ...


class Introducer:
    """Tells members of one another, and dials those that it is told of.

    `is_here` tells of members that are connected, `is_barred` of those that are shut out.
    """

    def __init__(
        self,
        own_id: bytes,
        own_addresses: Callable[[], Sequence[str]],
        book: MemberBook,
        is_here: Callable[[bytes], bool],
        is_barred: Callable[[bytes], bool],
    ) -> None:
        self._own_id = own_id
        self._own_addresses = own_addresses
        self._book = book
        self._is_here = is_here
        self._is_barred = is_barred
        self._dialer: Dialer | None = None
        self._present: dict[Acquaintance, tuple[str, ...]] = {}
        """Where connected members said that they listen."""
        self._came = trio.lowlevel.ParkingLot()

    def use(self, dialer: Dialer) -> None:
        """Dial with this from now on."""
        self._dialer = dialer

    async def serve(self, host: str | None, member: Acquaintance, mux: Multiplexer) -> None:
        """Exchange addresses with a member, whose packets come from `host`, while it is connected.

        Cancel: what it said of itself is forgotten; the members that it named are still dialed.
        """
        channel: MessageChannel | None = None
        with trio.move_on_after(OPEN_SECONDS):
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                channel = await mux.open_channel(PROTOCOL, None)
        if channel is None:
            return  # an older node
        try:
            channel.send(0, encode({self._own_id: tuple(self._own_addresses())}))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, member, channel)
                await self._hear(host, member, channel)
                nursery.cancel_scope.cancel()
        finally:
            addresses = self._present.pop(member, ())
            channel.close()
            if not member.is_expelled:  # it may not know that we are cut off from it
                self._dial(member.id, addresses, is_lost=True)

    async def _tell(self, member: Acquaintance, channel: MessageChannel) -> None:
        told: dict[bytes, tuple[str, ...]] = {}
        while True:
            await trio.sleep(NEIGHBORS_SECONDS)
            present = {other.id: addresses for other, addresses in self._present.items()}
            news = {
                id: addresses
                for id, addresses in present.items()
                if id != member.id and told.get(id) != addresses and not member.hearsay.hears(id)
            }
            told = {id: told[id] for id in told if id in present} | news
            for part in split(news):
                channel.send(0, encode(part))
            await self._came.park()

    async def _hear(self, host: str | None, member: Acquaintance, channel: MessageChannel) -> None:
        """Take what the member says, until the channel ends or the member breaks a rule."""
        quota = Quota(MAX_WORDS, WORDS_PER_SECOND, trio.current_time())
        has_room, heard = True, 0
        try:
            while has_room:
                for _, payload in await channel.receive():
                    whereabouts = decode(payload)
                    words = 1 + len(whereabouts)
                    has_room &= quota.take(words, trio.current_time()) == words
                    for id, addresses in whereabouts.items():
                        if id == member.id:
                            self._note_present(member, as_seen(addresses, host))
                        else:
                            self._dial(id, addresses)
                        heard += 1
                        if not heard % _TURN_WORDS:
                            await trio.lowlevel.checkpoint()
        except trio.EndOfChannel:
            return
        except DecodeError as error:
            member.expel(f"malformed addresses: {error}")
        else:
            member.expel(f"addresses of more than {MAX_WORDS} members at once")

    def _note_present(self, member: Acquaintance, addresses: tuple[str, ...]) -> None:
        self._present[member] = addresses
        self._came.unpark_all()
        hosts = (address for address in addresses if "://" not in address)
        self._book.note_said(member.id.hex(), next(hosts, ""))

    def _dial(self, id: bytes, addresses: Sequence[str], *, is_lost: bool = False) -> None:
        dialer = self._dialer
        is_here = any(other.id == id for other in self._present) if is_lost else self._is_here(id)
        if dialer is None or id == self._own_id or is_here or self._is_barred(id):
            return
        for address in addresses:
            with suppress(ValueError):  # of a later version
                where = address if "://" in address else parse_address(address)
                dialer.suggest_peer(where, id)
        event = "lost" if is_lost else "introduced"
        _log.debug(event, id=id.hex()[:12], addresses=list(addresses))
