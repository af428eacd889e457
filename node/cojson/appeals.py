"""Content that was refused because its author lacked a right, to be judged again.

Roles are a function of all transactions of a group, and those may come late: from another node,
or from a device that was offline. When a group that was consulted grows, what was refused
because of it is judged again; nobody has to send it twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from node.cojson.peer_view import PeerView
from node.cojson.waiting_room import Delivery
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.session_log import Extension

MAX_BYTES = 4 * 1024 * 1024
"""Refused content kept; beyond it the oldest is forgotten, and has to be sent again."""

MAX_PER_GROUP = 64
"""Kept because of one group: each is judged again when that group changes a role."""

_HASH_BYTES = 2048
"""A running hash."""

_Key = tuple[RawCoId, frozenset[CoSessionId]]


class Appeals:
    """Deliveries by the groups that might speak for them."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._deliveries: OrderedDict[_Key, tuple[Delivery, frozenset[RawCoId]]] = OrderedDict()
        self._by_group: dict[RawCoId, dict[_Key, None]] = {}

    def __len__(self) -> int:
        return len(self._deliveries)

    def add(
        self,
        delivery: Delivery,
        groups: Iterable[RawCoId],
        checked: Mapping[CoSessionId, Extension] | None = None,
    ) -> bool:
        """Keep it until one of these groups grows; of the same sessions only the latest.

        Its receipt does not wait for that. The signatures of what is `checked` are not checked
        again. False when it is too large to be kept.
        """
        key = (delivery.content.co_id, frozenset(delivery.content.new))
        self._drop(key)
        appeal = replace(delivery, receipt=None, foreseen=checked)
        if _size(appeal) > self._max_bytes:
            return False
        consulted = frozenset(groups)
        self._deliveries[key] = appeal, consulted
        self._used_bytes += _size(appeal)
        for group_id in consulted:
            keys = self._by_group.setdefault(group_id, {})
            keys[key] = None
            if len(keys) > MAX_PER_GROUP:
                self._drop(next(iter(keys)))
        while self._used_bytes > self._max_bytes:
            self._drop(next(iter(self._deliveries)))
        return True

    def release(self, group_id: RawCoId) -> list[Delivery]:
        """Take out what this group may speak for now, oldest first."""
        released: list[Delivery] = []
        for key in list(self._by_group.get(group_id, ())):
            released.append(self._deliveries[key][0])
            self._drop(key)
        return released

    def forget(self, sender: PeerView) -> None:
        """A client has gone; what it sent is judged all the same when its time comes."""
        for key, (delivery, groups) in self._deliveries.items():
            if delivery.sender is sender:
                self._deliveries[key] = (replace(delivery, sender=None), groups)

    def _drop(self, key: _Key) -> None:
        delivery, groups = self._deliveries.pop(key, (None, frozenset[RawCoId]()))
        if delivery is None:
            return
        self._used_bytes -= _size(delivery)
        for group_id in groups:
            keys = self._by_group[group_id]
            del keys[key]
            if not keys:
                del self._by_group[group_id]


def _size(appeal: Delivery) -> int:
    """What it holds in memory, the hashes and lines of what was checked included."""
    checked = () if appeal.foreseen is None else appeal.foreseen.values()
    return appeal.size + sum(_HASH_BYTES + len(extension.lines) for extension in checked)
