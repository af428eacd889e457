"""Who knocks at a key that is served here; a machine.

A client says the same through several relays, and again when an answer gets lost: its first message
is recognized by its bytes, and answered as it was before. Each costs four multiplications on the
curve and a stream, so there are limits: of new ones a second, of those that are remembered, and of
those from one host.

Source: hyperdht 6.34.0 lib/server.js, which has no limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypercore.crypto import Entropy, KeyPair
from swarm.announcement import Address
from swarm.dht.expiring import ExpiringMap
from swarm.dht.peer_messages import PeerHandshake, PeerHolepunch, PeerOffer
from swarm.dht.peer_noise import PunchBox, ServerNoise
from swarm.dht.router import PeerAsked
from swarm.errors import HandshakeFailed
from swarm.noise.handshake import HandshakeResult

MEETING_SECONDS = 10.0
"""For a client to come through, after it was answered."""

REMEMBERED_SECONDS = 20.0
MAX_VISITORS = 1024
MAX_VISITORS_PER_HOST = 128
MAX_PER_SECOND = 64.0
"""New ones; a burst may be twice as many. As many again are for hosts that had none within this
second: one that sends thousands keeps nobody else out."""


@dataclass(slots=True, eq=False)
class Visitor:
    """A client on its way to us. Without an `answer` it was not let in, or not yet."""

    id: int
    noise: ServerNoise
    client: Address
    host: str
    """Whose share of our time this one takes."""
    seen_as: Address
    """Our address, as the node that passed the client's message on sees it."""
    is_direct: bool
    answer: bytes | None = None
    result: HandshakeResult | None = None
    box: PunchBox | None = None
    last_round: int = 0

    @property
    def offer(self) -> PeerOffer:
        return self.noise.offer

    @property
    def remote_public_key(self) -> bytes:
        return self.noise.remote_public_key

    def let_in(self, offer: PeerOffer, entropy: Entropy) -> HandshakeResult:
        """Answer, now and whenever its message comes again."""
        self.answer, self.result = self.noise.answer(offer)
        self.box = PunchBox(self.result, entropy)
        return self.result


@dataclass(frozen=True, slots=True)
class Arrived:
    """Somebody new; decide about it."""

    visitor: Visitor


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same as before: answer as before."""

    visitor: Visitor


@dataclass(slots=True)
class _Room:
    """Room for `size` at once; what is taken grows back by MAX_PER_SECOND."""

    size: float
    filled_at: float
    left: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.size

    def take(self, now: float) -> bool:
        """One of them comes; whether there is room."""
        self.left = min(self.size, self.left + (now - self.filled_at) * MAX_PER_SECOND)
        self.filled_at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def _everyone(_: Address) -> bool:
    return True


class Reception:
    """Reads the first messages of clients of one key.

    `trusts` says whether a relay is one that we chose.
    """

    def __init__(
        self,
        key_pair: KeyPair,
        entropy: Entropy,
        now: float,
        trusts: Callable[[Address], bool] = _everyone,
    ) -> None:
        self.refused = 0
        """Not read, since there were too many."""
        self.malformed = 0
        self._key_pair = key_pair
        self._entropy = entropy
        self._by_noise: ExpiringMap[bytes, Visitor] = ExpiringMap(
            seconds=REMEMBERED_SECONDS,
            max_items=MAX_VISITORS,
            max_per_host=MAX_VISITORS_PER_HOST,
            max_bytes=MAX_VISITORS,
            on_drop=self._dropped,
        )
        self._by_id: dict[int, Visitor] = {}
        self._ids: dict[bytes, int] = {}
        self._last_id = 0
        self._trusts = trusts
        self._room = _Room(2 * MAX_PER_SECOND, now)
        self._room_for_others = _Room(MAX_PER_SECOND, now)
        self._hosts: set[str] = set()  # that had some of either within this second
        self._second = now

    def __len__(self) -> int:
        return len(self._by_id)

    def receive(self, question: PeerAsked, now: float) -> Arrived | Repeated | None:
        """A handshake came; None for what is not to be answered."""
        message = question.message
        if not isinstance(message, PeerHandshake):
            return None
        known = self._by_noise.get(message.noise, now)
        if known is not None:
            return Repeated(known)
        came_from = question.came_from
        host = question.client[0] if self._trusts(came_from) else came_from[0]
        if not self._take_room(host, now):
            self.refused += 1
            return None
        try:
            noise = ServerNoise(self._key_pair, message.noise, self._entropy)
        except HandshakeFailed:
            self.malformed += 1
            return None
        self._last_id += 1
        visitor = Visitor(
            self._last_id, noise, question.client, host, question.seen_as, question.is_direct
        )
        if not self._by_noise.set(message.noise, visitor, host, 1, now):
            self.refused += 1
            return None
        self._by_id[visitor.id] = visitor
        self._ids[message.noise] = visitor.id
        return Arrived(visitor)

    def find(self, question: PeerAsked, now: float) -> Visitor | None:
        """Whose hole punch this is."""
        self._by_noise.expire(now)
        message = question.message
        return self._by_id.get(message.id) if isinstance(message, PeerHolepunch) else None

    def _take_room(self, host: str, now: float) -> bool:
        if now >= self._second + 1.0:
            self._second = now
            self._hosts.clear()
        has_room = self._room.take(now)
        if not has_room and host not in self._hosts:
            has_room = self._room_for_others.take(now)
        if has_room:
            self._hosts.add(host)
        return has_room

    def _dropped(self, noise: bytes) -> None:
        self._by_id.pop(self._ids.pop(noise), None)
