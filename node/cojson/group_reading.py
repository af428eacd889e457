"""What groups say of roles, read from the store: for rights, and before a value is erased."""

from __future__ import annotations

from node.cojson.deletion import NotDeletable, deletion_time
from node.covalue.group_view import GroupView
from node.covalue.ids import RawCoId, session_owner
from node.covalue.known_state import KnownState, merge_counts
from node.covalue.roles import RoleBook, ruling_group
from node.covalue.store import CoValueStore

_READ_BYTES = 1024 * 1024


async def read_group(store: CoValueStore, co_id: RawCoId) -> GroupView | None:
    """The stored transactions of a group or account; None when there is no such group.

    Raises: CorruptStore.
    Cancel: nothing is changed.
    """
    value = await store.load_value(co_id)
    if value is None or not value.header.is_group:
        return None
    group = GroupView(co_id, value.header)
    known = KnownState(True)
    while True:
        loaded = await store.load(co_id, known, _READ_BYTES)
        counts = dict(known.sessions)
        for piece in loaded.pieces:
            for session_id, part in piece.new.items():
                group.add(session_id, part.after, part.transactions)
            merge_counts(counts, piece.known_state.sessions)
        known = KnownState(True, counts)
        if loaded.is_complete or not loaded.pieces:
            return group


async def is_deletion_valid(store: CoValueStore, co_id: RawCoId) -> bool:
    """Whether the author of one of a tombstone's delete sessions had the right to delete.

    Raises, Cancel: as for `read_group`.
    """
    value = await store.load_value(co_id)
    if value is None or not value.is_deleted:
        return False
    group_id = ruling_group(value.header)
    if group_id is None:
        return False
    roles = await _read_roles(store, group_id)
    for piece in (await store.load(co_id, KnownState(True))).pieces:
        for session_id, part in piece.new.items():
            try:
                made_at = deletion_time(co_id, value.header, part.after, part.transactions)
            except NotDeletable:
                continue
            author = session_owner(session_id)
            if made_at is not None and roles.may_delete(value.header, author, made_at):
                return True
    return False


async def _read_roles(store: CoValueStore, group_id: RawCoId) -> RoleBook:
    """The roles of a group and of all groups it inherits from, as far as they are stored."""
    roles = RoleBook()
    while missing := roles.missing(group_id):
        for key in missing:
            group = await read_group(store, key)
            if group is None:
                roles.add_absent(key)
            else:
                roles.add_view(group)
    return roles
