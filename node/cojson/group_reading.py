"""[trio] What groups say of roles, read from the store: for rights, and for erasing."""

from __future__ import annotations

import trio

from node.cojson.deletion import NotDeletable, deletion_time
from node.covalue.group_view import GroupView
from node.covalue.ids import RawCoId, session_owner
from node.covalue.known_state import NOTHING, KnownState, merge_counts
from node.covalue.roles import RoleBook, ruling_group
from node.covalue.store import CoValueStore

_READ_BYTES = 128 * 1024


async def read_group(
    store: CoValueStore, co_id: RawCoId, begun: GroupView | None = None
) -> GroupView | None:
    """The stored transactions of a group or account; None when there is no such group.

    Only what is missing is read if the view was `begun`.

    Raises: CorruptStore.
    Cancel: nothing is changed.
    """
    group, known = begun, NOTHING if begun is None else KnownState(True, begun.counts)
    while True:
        loaded = await store.load(co_id, known, _READ_BYTES)
        if group is None:
            header = loaded.pieces[0].header if loaded.pieces else None
            if header is None or not header.is_group:
                return None
            group = GroupView(co_id, header)
        counts = dict(known.sessions)
        for piece in loaded.pieces:
            for session_id, part in piece.new.items():
                group.add(session_id, part.after, part.transactions)
            merge_counts(counts, piece.known_state.sessions)
        known = KnownState(True, counts)
        if loaded.is_complete or not loaded.pieces:
            return group
        await trio.lowlevel.checkpoint()  # so much took some 10 ms


class DeletionJudge:
    """Judges deletions by what is stored; one group is read once for all of a row."""

    def __init__(self, store: CoValueStore) -> None:
        self._store = store
        self._group_id: RawCoId | None = None
        self._roles = RoleBook()
        self._read: dict[RawCoId, GroupView | None] = {}
        """Of that group and all that it inherits from."""

    async def is_valid(self, co_id: RawCoId) -> bool:
        """Whether the author of one of a tombstone's delete sessions had the right to delete.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        value = await self._store.load_value(co_id)
        if value is None or not value.is_deleted:
            return False
        group_id = ruling_group(value.header)
        if group_id is None:
            return False
        if group_id != self._group_id or not await self._is_up_to_date():
            await self._read_roles(group_id)
        for piece in (await self._store.load(co_id, KnownState(True))).pieces:
            for session_id, part in piece.new.items():
                try:
                    made_at = deletion_time(co_id, value.header, part.after, part.transactions)
                except NotDeletable:
                    continue
                author = session_owner(session_id)
                if made_at is not None and self._roles.may_delete(value.header, author, made_at):
                    return True
        return False

    async def _is_up_to_date(self) -> bool:
        for co_id, group in self._read.items():
            known = NOTHING if group is None else KnownState(True, group.counts)
            more = (await self._store.load(co_id, known, _READ_BYTES)).pieces
            if not more:
                continue
            header = more[0].header
            if group is not None or (header is not None and header.is_group):
                return False
        return True

    async def _read_roles(self, group_id: RawCoId) -> None:
        """The roles of a group and of all groups it inherits from, as far as they are stored."""
        self._group_id = None
        self._roles, self._read = RoleBook(), {}
        while True:
            for _ in self._roles.judge_aside(group_id):
                await trio.lowlevel.checkpoint()
            missing = self._roles.missing(group_id)
            if not missing:
                break
            for key in missing:
                group = self._read[key] = await read_group(self._store, key)
                if group is None:
                    self._roles.add_absent(key)
                else:
                    self._roles.add_view(group)
        self._group_id = group_id
