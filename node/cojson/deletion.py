"""What a delete session says, and what is said of a value that was deleted.

A deletion is the one transaction of a delete session: trusting, changes `[]`, and meta
`{"deleted": "<id of the value>"}`. Only values owned by a group can be deleted, by whoever was
admin of that group when the transaction was made. What remains is a *tombstone*: the header and
the delete sessions.

To a peer that mentions a deleted value we claim, beside the delete sessions, whatever it claims
itself: clients that know nothing of deletions would offer their content for ever (*quenching*).

Source: cojson 0.20.19 coValueCore.ts #isDeleteTransaction, stopSyncingKnownStateMessage.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.covalue.content import Transaction
from node.covalue.group_changes import has_many_brackets, parse_json
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import KnownState, SessionCounts, merge_counts

_MAX_META_CHARACTERS = 4096


class NotDeletable(Exception):
    """A delete session that must not be taken; the text says why."""


def deletion_time(
    co_id: RawCoId, header: CoValueHeader, count: int, transactions: Sequence[Transaction]
) -> int | None:
    """When this delete session claims to have deleted the value, in unix ms.

    `count` transactions of the session are here already. None when it holds no marker: then it
    is kept like any other session.

    Raises: NotDeletable, also where it cannot be told.
    """
    if count or len(transactions) != 1:
        raise NotDeletable(f"a delete session of {count + len(transactions)} transactions, not 1")
    if header.is_group:
        raise NotDeletable("groups and accounts cannot be deleted")
    marked = _marked_id(transactions[0])
    if marked is None:
        return None
    if marked != co_id:
        raise NotDeletable("the deletion names another value")
    if header.owner_group is None:
        raise NotDeletable("only values owned by a group can be deleted")
    return transactions[0].made_at


def _marked_id(transaction: Transaction) -> str | None:
    meta = transaction.meta
    if meta is None or transaction.is_private:
        return None
    # A client may find a marker in there that was not judged, and take no more of the value.
    if len(meta) > _MAX_META_CHARACTERS or has_many_brackets(meta):
        raise NotDeletable("a delete session whose meta is too long, or nests too much")
    parsed = parse_json(meta)
    marked = parsed.get("deleted") if isinstance(parsed, dict) else None
    return marked if isinstance(marked, str) else None


def only_deletions(counts: SessionCounts) -> dict[CoSessionId, int]:
    """Those of these sessions that a tombstone keeps."""
    return {key: count for key, count in counts.items() if is_delete_session(key)}


def quenching(tombstone: KnownState, claimed: KnownState) -> KnownState:
    """What to claim of a deleted value to a peer that claims `claimed`."""
    return KnownState(True, merge_counts(dict(tombstone.sessions), claimed.sessions))
