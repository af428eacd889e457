"""Whom to dial and when: static peers, neighbors, those the table tells of; a machine.

Failures in a row cost 1, 5, then 15 seconds each, plus up to a quarter at random so that nodes do
not stay in step. A connection that lasted STABLE_SECONDS clears them; and a peer that was
connected, or whose address was named, is dialed every second for an hour. When nothing that is sent
on a connection arrives, its peer is dialed beside it: after a cut the old connection may take as
long again as the cut lasted to go on, a new one goes on at once.

Of the peers that are due, those that were named go first; then those whose connection has just
broken, before strangers, before those that never answered. Among equals the longest wait wins.

A neighbor's goodbye may be lost, and what it announced lives for over an hour in every cache. A
neighbor is forgotten when its machine has said MAX_REFUSALS times in a row that nobody listens; one
that does not answer at all may be asleep, and is still dialed.

Source: hyperswarm 4.17.2 lib/retry-timer.js for the values, lib/peer-info.js for priorities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypercore.crypto import Entropy, encode_id, system_entropy
from swarm.announcement import Address, Announcement
from swarm.known_peer import MAX_UNPROVEN_FAILURES, KnownPeer, PeerInfo, PeerState, Source

STABLE_SECONDS = 15.0
OURSELVES_SECONDS = 60.0
MISSED_SECONDS = 3600.0
"""How long a peer that was connected is missed, and dialed every `MISSED_BACK_OFF_SECONDS`: it
is back within seconds when its network is, even after many failures."""

MAX_CUTS = 1
"""Connections in a row that may end as soon as they are open, or before: one may be cut, and its
remote may have been started anew. After more, what answers is taken for something other than the
missed peer, or for a remote that does not want us. Connections whose end says nothing do not
count."""

_WELCOME_SECONDS = 1.0  # a remote that hangs up earlier does not want us
MAX_REFUSALS = 3
MAX_NEIGHBORS = 1024
"""Neighbors remembered; a network that announces more is playing games."""

MAX_FOUND_PEERS = 1024
"""Peers remembered that the table told of, whose nodes may invent any number."""

MAX_TOLD_PEERS = 1024
"""Places remembered that other peers told of; these may invent any number, too. When there are
more, a key keeps one of them, and none that keeps failing."""

_FALLBACK_SECONDS = 1.0  # what goes through a proxy lets a straight way go first
_YIELD_SECONDS = 1.0  # two neighbors who see each other at once should not both dial at once


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to one of these addresses, the first that answers, or over a WebSocket to `url`.

    From the table, connect to `expected_key`: the addresses are those of nodes that may know
    where it is.
    """

    name: str
    source: Source
    addresses: tuple[Address, ...]
    expected_key: bytes | None
    failures: int
    url: str | None = None


@dataclass(slots=True)
class PeerBook:
    """The peers that this node may dial, by name: `host:port`, a URL, a neighbor's name, a key.

    What happens to a dial is told back with `dial_failed`, `dial_given_up` or `dial_succeeded`, and
    the end of any connection with `connection_closed`.
    """

    own_name: str
    entropy: Entropy = system_entropy
    _peers: dict[str, KnownPeer] = field(default_factory=dict)
    _topics: set[bytes] = field(default_factory=set)
    _connected: dict[bytes | None, float] = field(default_factory=dict)  # since when
    _doubted: set[bytes | None] = field(default_factory=set)
    _refused: set[bytes | None] = field(default_factory=set)
    _may_spare_told: bool = True  # else there are too many, and each is to be dialed first

    @property
    def peers(self) -> list[PeerInfo]:
        return [
            peer.info(is_connected=peer.key in self._connected) for peer in self._peers.values()
        ]

    @property
    def topics(self) -> frozenset[bytes]:
        return frozenset(self._topics)

    @property
    def has_untried(self) -> bool:
        """Whether a peer that is wanted was not dialed yet, or is being dialed."""
        return any(
            peer.state is PeerState.DIALING
            or (peer.state is PeerState.WAITING and self._may_dial(peer) and not peer.failures)
            for peer in self._peers.values()
        )

    @property
    def deadline(self) -> float | None:
        """When `plan_dials` has something to do; None for not before something else happens."""
        return min(
            (peer.next_attempt for peer in self._peers.values() if self._may_dial(peer)),
            default=None,
        )

    def join(self, topic: bytes, now: float) -> None:
        """Take an interest in neighbors who announce a topic, known ones included."""
        self._topics.add(topic)
        self._match_all(now)

    def leave(self, topic: bytes, now: float) -> None:
        """Lose that interest; connections stay."""
        self._topics.discard(topic)
        self._match_all(now)

    def add_static(self, host: str, port: int, public_key: bytes | None, now: float) -> None:
        """Keep a connection with whoever listens there, if it has this key (when one is given)."""
        name = f"{host}:{port}"
        peer = self._named(name, now)
        if peer is None:
            peer = self._peers[name] = KnownPeer(name, Source.STATIC, ((host, port),))
            peer.next_attempt = now
            peer.missed_until = now + MISSED_SECONDS
        peer.expected_key = public_key or peer.expected_key

    def add_websocket(self, url: str, public_key: bytes | None, now: float) -> None:
        """Keep a connection with whoever is reached there, if nothing better leads to it."""
        peer = self._named(url, now)
        if peer is None:
            peer = self._peers[url] = KnownPeer(url, Source.STATIC, (), url)
            peer.next_attempt = now + _FALLBACK_SECONDS
            peer.missed_until = now + MISSED_SECONDS
        peer.expected_key = public_key or peer.expected_key

    def remove_websocket(self, url: str) -> None:
        self._peers.pop(url, None)

    def remove_static(self, host: str, port: int) -> None:
        self._peers.pop(f"{host}:{port}", None)

    def peer_told(self, where: Address | str, public_key: bytes, now: float) -> None:
        """Another peer says that this key is reached there, an address or a WebSocket's URL.

        That is worth a few dials, after those that anything better speaks for; a connection is kept
        only if the key is proven. What is known of a place counts for more; but news that its peer
        is there now ends a long wait.
        """
        name = where if isinstance(where, str) else f"{where[0]}:{where[1]}"
        peer = self._peers.get(name)
        if peer is not None:
            if peer.source is Source.TOLD and peer.public_key is None:
                peer.expected_key = public_key
            elif peer.public_key == public_key and public_key not in self._connected:
                peer.dial_by(max(now, peer.soonest))
            return
        if public_key in self._refused or not self._has_room_for_told():
            return
        addresses, url = ((), where) if isinstance(where, str) else ((where,), None)
        peer = KnownPeer(name, Source.TOLD, addresses, url, public_key)
        peer.next_attempt = now if url is None else now + _FALLBACK_SECONDS
        self._peers[name] = peer

    def neighbor_seen(
        self, name: str, addresses: Sequence[Address], announcement: Announcement, now: float
    ) -> None:
        """A neighbor announced itself, or something new about itself."""
        if name == self.own_name or not addresses:
            return
        peer = self._peers.get(name)
        if peer is None:
            if not self._has_room_for_neighbor(announcement):
                return
            peer = self._peers[name] = KnownPeer(name, Source.LAN, tuple(addresses))
            peer.next_attempt = now + (0.0 if self.own_name > name else _YIELD_SECONDS)
        elif peer.source is not Source.LAN:
            return  # one that calls itself by another peer's address or key is not that peer
        elif peer.addresses != tuple(addresses):
            peer.addresses = tuple(addresses)
            peer.failures = 0
            peer.dial_by(now)
        peer.announcement = announcement
        peer.match(self._topics, now)

    def add_key(self, public_key: bytes, relay_addresses: Sequence[Address], now: float) -> None:
        """Keep a connection with a key, wherever the table finds it."""
        peer = self._upsert_found(public_key, relay_addresses, now, is_named=True)
        if peer is not None:
            peer.is_explicit = True

    def remove_key(self, public_key: bytes) -> None:
        """Do not dial it again, unless it is found by a topic."""
        peer = self._peers.get(_name_of(public_key))
        if peer is not None:
            peer.is_explicit = False

    def peer_found(
        self,
        public_key: bytes,
        relay_addresses: Sequence[Address],
        topics: frozenset[bytes],
        now: float,
    ) -> None:
        """Nodes of the table say that a key announces these topics."""
        peer = self._upsert_found(public_key, relay_addresses, now)
        if peer is not None:
            peer.found_topics |= topics & self._topics
            peer.match(self._topics, now)

    def neighbor_left(self, name: str) -> None:
        """A neighbor said goodbye, or was not heard of for too long. Its connection stays."""
        peer = self._peers.get(name)
        if peer is not None and peer.source is Source.LAN:
            del self._peers[name]

    def refuse(self, public_key: bytes) -> None:
        """Never dial a key (again)."""
        self._refused.add(public_key)

    def allow(self, public_key: bytes, now: float) -> None:
        """Refuse a key no longer."""
        self._refused.discard(public_key)
        for peer in self._peers.values():
            if peer.key == public_key:
                peer.dial_by(now)

    def is_refused(self, public_key: bytes) -> bool:
        return public_key in self._refused

    def plan_dials(self, now: float, limit: int) -> list[Dial]:
        """At most `limit` peers to dial now, the most important first."""
        due = [
            peer
            for peer in self._peers.values()
            if peer.next_attempt <= now and self._may_dial(peer)
        ]
        due.sort(key=lambda peer: (-peer.priority, peer.next_attempt))
        dials: list[Dial] = []
        for peer in due[:limit]:
            peer.state = PeerState.DIALING
            addresses, key = peer.addresses, peer.expected_key
            dials.append(Dial(peer.name, peer.source, addresses, key, peer.failures, peer.url))
        return dials

    def dial_failed(
        self,
        name: str,
        error: str,
        now: float,
        *,
        is_refused: bool = False,
        is_answered: bool = False,
    ) -> None:
        """Nothing came of a dial; `is_refused` says that nobody listens there.

        `is_answered`: somebody does, but no handshake came of it.
        """
        peer = self._peers.get(name)
        if peer is None:
            return
        peer.last_error = error
        peer.refusals = peer.refusals + 1 if is_refused else 0
        if is_answered and peer.public_key is None:
            peer.cuts += 1
            if peer.cuts > MAX_CUTS:
                peer.missed_until = -math.inf
        self._postpone(peer, now)
        is_gone = peer.source is Source.LAN and peer.refusals >= MAX_REFUSALS
        if is_gone or peer.is_forgettable:
            del self._peers[name]

    def dial_given_up(self, name: str, now: float) -> None:
        """The dial was ended here, which says nothing of the peer."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.state = PeerState.WAITING
            peer.next_attempt = now

    def dial_succeeded(self, name: str, public_key: bytes) -> None:
        """Somebody answered and proved this key; connected from now on, by this dial or not."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.public_key = public_key
            peer.state = PeerState.CONNECTED
            peer.refusals = 0
            peer.last_error = ""

    def found_ourselves(self, name: str, now: float) -> None:
        """What answered there was this node: dial it again much later.

        Many nodes may share a name, and an address may be another node's once we have left it.
        """
        peer = self._peers.get(name)
        if peer is not None:
            peer.state = PeerState.OURSELVES
            peer.next_attempt = now + OURSELVES_SECONDS

    def connection_opened(self, public_key: bytes, now: float) -> None:
        """There is a connection with this key: peers known to have it need no dial."""
        self._connected.setdefault(public_key, now)
        self._doubted.discard(public_key)

    def connection_doubted(self, public_key: bytes, now: float) -> None:
        """What is sent to this key does not arrive: try another connection beside it."""
        if public_key not in self._connected or public_key in self._doubted:
            return
        self._doubted.add(public_key)
        for peer in self._peers.values():
            if peer.key == public_key and peer.state in (PeerState.CONNECTED, PeerState.WAITING):
                peer.state = PeerState.WAITING
                peer.next_attempt = now

    def connection_trusted(self, public_key: bytes) -> None:
        """What is sent to this key arrives again."""
        self._doubted.discard(public_key)

    def connection_closed(
        self, public_key: bytes, now: float, *, says_nothing: bool = False
    ) -> None:
        """The last connection with this key is gone, or was not let in: dial again, later.

        `says_nothing`: the remote had let us in, or the connection was ended here. That it did not
        last is no reason not to miss the remote, nor to miss it for longer: else one that lets us
        in and goes at once could be dialed every second for good.
        """
        lasted = now - self._connected.pop(public_key, now)
        self._doubted.discard(public_key)
        for peer in self._peers.values():
            if peer.key == public_key and peer.state in (PeerState.CONNECTED, PeerState.WAITING):
                if lasted >= STABLE_SECONDS:
                    peer.failures = 0
                if lasted >= _WELCOME_SECONDS:
                    peer.cuts, peer.missed_until = 0, now + MISSED_SECONDS
                elif not says_nothing:
                    peer.cuts += 1
                    if peer.cuts > MAX_CUTS:
                        peer.missed_until = -math.inf
                else:
                    peer.cuts = 0
                    if peer.missed_until == -math.inf:
                        peer.missed_until = now + MISSED_SECONDS
                self._postpone(peer, now)

    def forget_failures(self, now: float) -> None:
        """The network is another one: what failed may work now."""
        for peer in self._peers.values():
            peer.failures = peer.refusals = 0
            peer.dial_by(now)

    def _named(self, name: str, now: float) -> KnownPeer | None:
        """A peer that is about to be named by people, who count for more than what others told."""
        peer = self._peers.get(name)
        if peer is not None and peer.source is Source.TOLD:
            peer.source, self._may_spare_told = Source.STATIC, True
            peer.missed_until = now + MISSED_SECONDS
            peer.dial_by(now)
        return peer

    def _count(self, source: Source) -> int:
        return sum(peer.source is source for peer in self._peers.values())

    def _upsert_found(
        self,
        public_key: bytes,
        relay_addresses: Sequence[Address],
        now: float,
        *,
        is_named: bool = False,
    ) -> KnownPeer | None:
        """Remember a key; None when it is refused, or was only found and there are too many."""
        name = _name_of(public_key)
        peer = self._peers.get(name)
        if peer is None:
            if public_key in self._refused or not (is_named or self._has_room_for_found()):
                return None
            peer = self._peers[name] = KnownPeer(name, Source.DHT, ())
            peer.expected_key, peer.next_attempt = public_key, now
        if relay_addresses:
            peer.addresses = tuple(relay_addresses)
        return peer

    def _may_dial(self, peer: KnownPeer) -> bool:
        return (
            peer.state in (PeerState.WAITING, PeerState.OURSELVES)
            and peer.is_wanted
            and (peer.key not in self._connected or peer.key in self._doubted)
            and peer.key not in self._refused
        )

    def _postpone(self, peer: KnownPeer, now: float) -> None:
        self._may_spare_told = True
        peer.postpone(now, jitter=int.from_bytes(self.entropy(2), "little") / 2**18)

    def _match_all(self, now: float) -> None:
        for peer in self._peers.values():
            peer.match(self._topics, now)

    def _has_room_for_neighbor(self, announcement: Announcement) -> bool:
        """Whether one more neighbor is remembered, if need be instead of one with other topics.

        Those are remembered for when we join theirs, and anybody may make up any number of them.
        """
        if self._count(Source.LAN) < MAX_NEIGHBORS:
            return True
        if not announcement.common_topics(self._topics):
            return False
        for peer in self._peers.values():
            if peer.source is Source.LAN and not peer.is_wanted:
                del self._peers[peer.name]
                return True
        return False

    def _has_room_for_found(self) -> bool:
        """Whether one more that the table tells of is remembered, if need be instead of others.

        Peers to which no topic leads any more go only then, since one may be joined again.
        """
        if self._count(Source.DHT) >= MAX_FOUND_PEERS:
            self._peers = {name: peer for name, peer in self._peers.items() if not peer.is_left}
        return self._count(Source.DHT) < MAX_FOUND_PEERS

    def _has_room_for_told(self) -> bool:
        """Whether one more place that peers tell of is remembered, if need be instead of others."""
        if not self._may_spare_told:
            return False
        if self._count(Source.TOLD) < MAX_TOLD_PEERS:
            return True
        spare = self._spare_told()
        self._peers = {name: peer for name, peer in self._peers.items() if name not in spare}
        self._may_spare_told = bool(spare)
        return self._may_spare_told

    def _spare_told(self) -> set[str]:
        """Places that peers told of and that fail, or whose key has a better one.

        Best is one where the key was proven: the others may be inventions.
        """
        told = [peer for peer in self._peers.values() if peer.source is Source.TOLD]
        told.sort(key=lambda peer: (peer.public_key is not None, -peer.failures))
        best = {peer.key: peer for peer in told}
        return {
            peer.name
            for peer in told
            if peer.state not in (PeerState.DIALING, PeerState.CONNECTED)
            and (peer.failures > MAX_UNPROVEN_FAILURES or best[peer.key] is not peer)
        }


def _name_of(public_key: bytes) -> str:
    """What a peer is called whose key is all that is known."""
    return encode_id(public_key)
