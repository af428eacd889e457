"""Who owns the values held here, for members that follow what somebody owns.

A header never changes, so what was looked up once is right for good. Only what somebody asks for
is looked up: a node whose members follow no owners reads nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from sys import intern
from typing import Protocol

import trio

from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId, is_co_id
from node.covalue.store import StoredValue
from node.errors import CorruptStore

MAX_OWNED = 131_072
"""Values whose owner is remembered (about 25 MB); of others it is read again."""

_PAUSE = 64  # values looked up before others have their turn


class ValueSource(Protocol):
    """What is needed of a store."""

    async def load_value(self, co_id: RawCoId, /) -> StoredValue | None: ...


def owner_in(header: CoValueHeader) -> str:
    """Whom a header names: the group that rules the value, or a group's founder; "" is nobody."""
    return header.owner_group or header.initial_admin or ""


class OwnerTable:
    """Owners by value, those looked up last."""

    def __init__(self, store: ValueSource, max_values: int = MAX_OWNED) -> None:
        self._store = store
        self._max_values = max_values
        self._owners: OrderedDict[str, str] = OrderedDict()

    def owner(self, co_id: str) -> str | None:
        """Who owns a value, "" when nobody does, None when that is not known."""
        return self._owners.get(co_id)

    def of(self, co_id: str) -> tuple[str, ...] | None:
        """A value's owner and the owner of that, as far as known; None when nothing is."""
        owner = self._owners.get(co_id)
        if not owner:
            return None if owner is None else ()
        above = self._owners.get(owner)
        return (owner, above) if above else (owner,)

    def learn(self, co_id: RawCoId, header: CoValueHeader) -> None:
        """Take the owner from the header with this id."""
        self._owners[co_id] = intern(owner_in(header))
        self._owners.move_to_end(co_id)
        if len(self._owners) > self._max_values:
            self._owners.popitem(last=False)

    async def resolve(self, ids: Iterable[RawCoId]) -> None:
        """Look up those that are held here, and their owners.

        Cancel: what was found is kept.
        """
        for number, co_id in enumerate(ids, 1):
            await self._look_up(co_id)
            owner = self._owners.get(co_id)
            if owner and is_co_id(owner):
                await self._look_up(RawCoId(owner))
            if number % _PAUSE == 0:
                await trio.lowlevel.checkpoint()

    async def _look_up(self, co_id: RawCoId) -> None:
        if co_id in self._owners:
            self._owners.move_to_end(co_id)
            return
        try:
            value = await self._store.load_value(co_id)
        except CorruptStore:
            return
        if value is not None:
            self.learn(co_id, value.header)
