"""Content set aside until a value that it depends on is here.

Each message waits for one missing value at a time; further messages of the same coValue queue
behind it, so that pieces stay in order. What does not fit is dropped and its sender asked to
send again once the dependency is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from node.cojson.peer_view import PeerView
from node.covalue.content import Content
from node.covalue.ids import RawCoId

MAX_ASIDE_BYTES = 16 * 1024 * 1024
"""Content set aside per sender. Clients send dependencies first: honest ones need little."""

MAX_ASIDE_BYTES_OF_ALL = 256 * 1024 * 1024
"""Content set aside of all senders together; beyond it the next one has no room."""

MAX_OWED = 10_000
"""Dropped contents that are remembered per sender; for more it has to connect again."""

_MAX_CHAIN = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """Content and where it came from: a client, or the mesh with a receipt number."""

    content: Content
    sender: PeerView | None
    receipt: int | None
    size: int
    cleared: dict[RawCoId, bytes | None] = field(default_factory=dict, compare=False)
    """Dependencies found to be here, with the signing key of those that are accounts.

    They may be forgotten from memory while others are read; they are not looked for again.
    """


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
        self._awaited: dict[RawCoId, RawCoId] = {}
        """Of each value with content set aside: what it waits for."""
        self._mesh_bytes = 0

    def awaited_by(self, co_id: RawCoId) -> RawCoId | None:
        """What content of this value is waiting for."""
        return self._awaited.get(co_id)

    def would_circle(self, co_id: RawCoId, dependency: RawCoId) -> bool:
        """Whether `dependency` waits, perhaps through others, for `co_id` itself."""
        step: RawCoId | None = dependency
        for _ in range(_MAX_CHAIN):
            step = self._awaited.get(step) if step is not None else None
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
            return False
        self._used_bytes += delivery.size
        if sender is None:
            self._mesh_bytes += delivery.size
        else:
            sender.aside_bytes += delivery.size
        self._waiting.setdefault(dependency, []).append(delivery)
        self._awaited[co_id] = dependency
        return True

    def senders(self, dependency: RawCoId) -> list[PeerView | None]:
        """Who sent what waits for `dependency`, each once; None is the mesh."""
        return list(dict.fromkeys(item.sender for item in self._waiting.get(dependency, ())))

    def dependants(self, dependency: RawCoId) -> list[RawCoId]:
        """The values of which content waits for `dependency`, each once."""
        return list(dict.fromkeys(item.content.co_id for item in self._waiting.get(dependency, ())))

    def release(self, dependency: RawCoId) -> tuple[list[Delivery], list[Owed]]:
        """Take out everything that waited for `dependency`, in order, and what is owed."""
        deliveries = self._waiting.pop(dependency, [])
        for delivery in deliveries:
            self._take_out(delivery)
        owed = list(self._owed.pop(dependency, ()))
        for item in owed:
            item.sender.owed -= 1
        return deliveries, owed

    def forget(self, sender: PeerView) -> None:
        """Drop what a client sent that has gone. Costs a look at everything set aside."""
        for dependency in list(self._waiting):
            kept: list[Delivery] = []
            for delivery in self._waiting[dependency]:
                if delivery.sender is sender:
                    self._take_out(delivery)
                else:
                    kept.append(delivery)
            if kept:
                self._waiting[dependency] = kept
                self._awaited.update({item.content.co_id: dependency for item in kept})
            else:
                del self._waiting[dependency]
        for dependency, owed in list(self._owed.items()):
            left = {item: None for item in owed if item.sender is not sender}
            if left:
                self._owed[dependency] = left
            else:
                del self._owed[dependency]

    def _take_out(self, delivery: Delivery) -> None:
        self._used_bytes -= delivery.size
        if delivery.sender is None:
            self._mesh_bytes -= delivery.size
        else:
            delivery.sender.aside_bytes -= delivery.size
        self._awaited.pop(delivery.content.co_id, None)
