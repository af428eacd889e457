"""Content set aside until a value that it depends on is here.

Each message waits for one missing value at a time; further messages of the same coValue from the
same sender queue behind it, so that pieces stay in order. Other senders' do not wait: else one
session of an account that never comes would keep everybody's edits from being taken. What does
not fit is dropped and its sender asked to send again once the dependency is here.

*Headless* content waits for its own value: it continues one that this node does not hold, and the
mesh is asked whether another does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from node.cojson.peer_view import PeerView
from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.session_log import Extension

MAX_ASIDE_BYTES = 16 * 1024 * 1024
"""Content set aside per sender. Clients send dependencies first: honest ones need little."""

MAX_ASIDE_BYTES_OF_ALL = 256 * 1024 * 1024
"""Content set aside of all senders together; beyond it the next one has no room."""

MAX_OWED = 10_000
"""Dropped contents that are remembered per sender; for more it has to connect again."""

_MAX_CHAIN = 1000


@dataclass(slots=True, eq=False)
class Delivery:
    """Content and where it came from: a client, or the mesh with a receipt number."""

    content: Content
    sender: PeerView | None
    receipt: int | None
    size: int
    cleared: dict[RawCoId, bytes | None] = field(default_factory=dict)
    """Dependencies found to be here, with the signing key of those that are accounts.

    They may be forgotten from memory while others are read; they are not looked for again.
    """
    needed: deque[RawCoId] | None = None
    """The dependencies that were not found yet; None before they are looked up.

    A group of many members is judged again with each that arrives: it is not read again.
    """
    next_ahead: int = 1 << 30
    """When so many of these are left, or fewer, the first of them are asked for all at once."""
    foreseen: Mapping[CoSessionId, Extension] | None = None
    """What `foresight.py` made of it when it came; until it is judged, or set aside."""
    partly: str | None = None
    """Why some of its sessions were refused, if others were not."""
    doubtful: frozenset[CoSessionId] | None = None
    """Its sessions that verify for nobody; empty where the value itself is wrong, else None."""
    is_told_waiting: bool = False
    """Whether the holder of the receipt knows that it is set aside."""
    statements: int = 0
    """How often its sender had said what it holds of this value when the content came."""

    @property
    def stops(self) -> dict[CoSessionId, int]:
        """How far its sessions go."""
        return {key: part.stop for key, part in self.content.new.items()}

    def send_off(self) -> None:
        """It is on its way to the disk, perhaps after it was set aside."""
        if self.sender is not None:
            self.sender.unsettled_bytes += self.size
            self.sender.values[self.content.co_id].unsettled += 1

    def note_had(self, counts: SessionCounts | None = None) -> None:
        """Its sender has all of it, or so much: that is not to be sent back, stored or not yet.

        Does nothing if the sender has said since what it holds: it may have let go of the value.
        """
        peer = self.sender
        if peer is not None and not peer.is_gone:
            view = peer.values.get(self.content.co_id)
            if view is not None and view.statements == self.statements:
                peer.confirm(view, KnownState(True, self.stops if counts is None else counts))


@dataclass(slots=True)
class _Places:
    """Where a client has anything in the room, so that to forget it costs only what it left."""

    waiting: set[RawCoId] = field(default_factory=set)
    owed: set[RawCoId] = field(default_factory=set)
    headless: set[RawCoId] = field(default_factory=set)
    followers: set[RawCoId] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Owed:
    """Content of this value was dropped: ask its sender to send it again."""

    co_id: RawCoId
    sender: PeerView


class WaitingRoom:
    """Deliveries by the value they wait for."""

    def __init__(
        self, max_bytes: int = MAX_ASIDE_BYTES, max_bytes_of_all: int = MAX_ASIDE_BYTES_OF_ALL
    ) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_all = max_bytes_of_all
        self._used_bytes = 0
        self._waiting: dict[RawCoId, list[Delivery]] = {}
        self._owed: dict[RawCoId, dict[Owed, None]] = {}
        self._awaited: dict[RawCoId, dict[PeerView | None, RawCoId]] = {}
        """What the content of each value, from each sender, waits for."""
        self._headless: dict[RawCoId, list[Delivery]] = {}
        self._followers: dict[RawCoId, dict[PeerView | None, deque[Delivery]]] = {}
        """Further content of such a value and sender, in order; judged after what came before."""
        self._mesh_bytes = 0
        self._places: dict[PeerView, _Places] = {}

    def add_headless(self, delivery: Delivery, sender: PeerView) -> bool:
        """Set content aside until its own value was looked for; False when there is no room."""
        if (
            sender.aside_bytes + delivery.size > self._max_bytes
            or self._used_bytes + delivery.size > self._max_bytes_of_all
        ):
            return False
        sender.aside_bytes += delivery.size
        self._used_bytes += delivery.size
        self._headless.setdefault(delivery.content.co_id, []).append(delivery)
        self._places_of(sender).headless.add(delivery.content.co_id)
        return True

    def take_headless(self, co_id: RawCoId) -> list[Delivery]:
        """Take out what waited for this value itself, in order."""
        deliveries = self._headless.pop(co_id, [])
        for delivery in deliveries:
            self._count_out(delivery)
            if delivery.sender is not None:
                self._places_of(delivery.sender).headless.discard(co_id)
        return deliveries

    def awaited_by(self, co_id: RawCoId, sender: PeerView | None) -> RawCoId | None:
        """What this sender's content of this value is waiting for."""
        return self._awaited.get(co_id, {}).get(sender)

    def all_awaited_by(self, co_id: RawCoId) -> set[RawCoId]:
        """What anybody's content of this value is waiting for."""
        return set(self._awaited.get(co_id, {}).values())

    def is_awaited(self, co_id: RawCoId) -> bool:
        """Whether content set aside waits for this value."""
        return co_id in self._waiting or co_id in self._owed

    def keeps_waiting(self, sender: PeerView, co_id: RawCoId) -> bool:
        """Whether content of this sender waits for this value."""
        places = self._places.get(sender)
        return places is not None and (co_id in places.waiting or co_id in places.owed)

    def would_circle(self, co_id: RawCoId, dependency: RawCoId, sender: PeerView | None) -> bool:
        """Whether the sender's `dependency` waits, perhaps through others, for `co_id` itself."""
        step: RawCoId | None = dependency
        for _ in range(_MAX_CHAIN):
            step = self.awaited_by(step, sender) if step is not None else None
            if step is None or step == co_id:
                break
        return step == co_id

    def add(self, delivery: Delivery, dependency: RawCoId) -> bool:
        """Set it aside; False when it did not fit and was dropped."""
        sender = delivery.sender
        co_id = delivery.content.co_id
        held = self._mesh_bytes if sender is None else sender.aside_bytes
        is_too_much = (
            held + delivery.size > self._max_bytes
            or self._used_bytes + delivery.size > self._max_bytes_of_all
        )
        if is_too_much:
            if sender is not None and sender.owed < MAX_OWED:
                owed = self._owed.setdefault(dependency, {})
                sender.owed += Owed(co_id, sender) not in owed
                owed[Owed(co_id, sender)] = None
                self._places_of(sender).owed.add(dependency)
            return False
        self._used_bytes += delivery.size
        if sender is None:
            self._mesh_bytes += delivery.size
        else:
            sender.aside_bytes += delivery.size
        is_first = self.awaited_by(co_id, sender) is None
        if is_first:
            self._waiting.setdefault(dependency, []).append(delivery)
            self._awaited.setdefault(co_id, {})[sender] = dependency
        else:
            self._followers.setdefault(co_id, {}).setdefault(sender, deque()).append(delivery)
        if sender is not None:
            places = self._places_of(sender)
            (places.waiting if is_first else places.followers).add(
                dependency if is_first else co_id
            )
        return True

    def senders(self, dependency: RawCoId) -> list[PeerView | None]:
        """Who sent what waits for `dependency` or was dropped, each once; None is the mesh."""
        found = dict.fromkeys(item.sender for item in self._waiting.get(dependency, ()))
        found.update(dict.fromkeys(item.sender for item in self._owed.get(dependency, ())))
        return list(found)

    def dependants(self, dependency: RawCoId) -> list[RawCoId]:
        """The values of which content waits for `dependency`, each once."""
        return list(dict.fromkeys(item.content.co_id for item in self._waiting.get(dependency, ())))

    def waiting_for(self, dependency: RawCoId) -> Iterator[Delivery]:
        """What waits for `dependency`, and what is queued behind that."""
        for delivery in self._waiting.get(dependency, ()):
            yield delivery
            yield from self._followers.get(delivery.content.co_id, {}).get(delivery.sender, ())

    def release(self, dependency: RawCoId) -> tuple[list[Delivery], list[Owed]]:
        """Take out what waited for `dependency` itself, in order, and what is owed.

        When each of these was judged, ask for its followers.
        """
        deliveries = self._waiting.pop(dependency, [])
        for delivery in deliveries:
            self._take_out(delivery)
            if delivery.sender is not None:
                self._places_of(delivery.sender).waiting.discard(dependency)
        owed = list(self._owed.pop(dependency, ()))
        for item in owed:
            item.sender.owed -= 1
            self._places_of(item.sender).owed.discard(dependency)
        return deliveries, owed

    def follower(self, delivery: Delivery) -> Delivery | None:
        """Take out what came behind a delivery that was released, if that does not wait again."""
        co_id, sender = delivery.content.co_id, delivery.sender
        if self.awaited_by(co_id, sender) is not None:
            return None
        by_sender = self._followers.get(co_id, {})
        followers = by_sender.get(sender)
        if not followers:
            return None
        follower = followers.popleft()
        if not followers:
            self._drop_followers(co_id, sender)
        self._count_out(follower)
        return follower

    def forget(self, sender: PeerView) -> set[RawCoId]:
        """Drop what a client that has gone had sent; returns what that waited for."""
        places = self._places.pop(sender, _Places())
        for co_id in places.headless:
            _drop_from(self._headless, co_id, sender, self._count_out)
        for dependency in places.waiting:
            _drop_from(self._waiting, dependency, sender, self._take_out)
        for co_id in places.followers:
            for follower in self._followers[co_id][sender]:
                self._count_out(follower)
            self._drop_followers(co_id, sender)
        for dependency in places.owed:
            owed = self._owed.pop(dependency)
            others = {item: None for item in owed if item.sender is not sender}
            if others:
                self._owed[dependency] = others
        return places.waiting | places.owed

    def _places_of(self, sender: PeerView) -> _Places:
        places = self._places.get(sender)
        if places is None:
            places = self._places[sender] = _Places()
        return places

    def _drop_followers(self, co_id: RawCoId, sender: PeerView | None) -> None:
        by_sender = self._followers.get(co_id, {})
        by_sender.pop(sender, None)
        if sender in self._places:
            self._places[sender].followers.discard(co_id)
        if not by_sender:
            self._followers.pop(co_id, None)

    def _count_out(self, delivery: Delivery) -> None:
        self._used_bytes -= delivery.size
        if delivery.sender is None:
            self._mesh_bytes -= delivery.size
        else:
            delivery.sender.aside_bytes -= delivery.size

    def _take_out(self, delivery: Delivery) -> None:
        self._count_out(delivery)
        waiting = self._awaited.get(delivery.content.co_id)
        if waiting is not None:
            waiting.pop(delivery.sender, None)
            if not waiting:
                del self._awaited[delivery.content.co_id]


def _drop_from(
    place: dict[RawCoId, list[Delivery]],
    key: RawCoId,
    sender: PeerView,
    drop: Callable[[Delivery], None],
) -> None:
    """Drop this sender's deliveries there."""
    kept: list[Delivery] = []
    for delivery in place.pop(key):
        if delivery.sender is sender:
            drop(delivery)
        else:
            kept.append(delivery)
    if kept:
        place[key] = kept
