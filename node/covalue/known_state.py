"""Which part of a coValue somebody has: its header, and how many transactions of each session.

Known states are compared, never assumed: a session is an append-only log, so its count says it
all, and the union of two known states is the larger count of each session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from node.cojson.crypto import short_hash
from node.covalue.canonical import javascript_number, quote
from node.covalue.ids import CoSessionId

SessionCounts = Mapping[CoSessionId, int]

_NO_SESSIONS: SessionCounts = {}


class KnownState(NamedTuple):
    """`sessions[s]` transactions of session `s`: those with index in [0, sessions[s])."""

    header: bool
    sessions: SessionCounts = _NO_SESSIONS

    def merged(self, other: KnownState) -> KnownState:
        """What the two have together; costs no copy when that is this one."""
        if self.covers(other):
            return self
        return KnownState(
            self.header or other.header, merge_counts(dict(self.sessions), other.sessions)
        )

    def covers(self, other: KnownState) -> bool:
        """Whether nothing of `other` is missing here."""
        return (self.header or not other.header) and has_counts(self.sessions, other.sessions)


NOTHING = KnownState(False)


def merge_counts(counts: dict[CoSessionId, int], others: SessionCounts) -> dict[CoSessionId, int]:
    """Raise each count to the other one; changes and returns `counts`."""
    for session_id, count in others.items():
        if count > counts.get(session_id, 0):
            counts[session_id] = count
    return counts


def has_counts(counts: SessionCounts, wanted: SessionCounts) -> bool:
    """Whether every session wanted is there as far as wanted."""
    # Written out: a generator would take twice as long, for every message.
    for session_id, count in wanted.items():  # noqa: SIM110
        if counts.get(session_id, 0) < count:
            return False
    return True


def sessions_hash(counts: SessionCounts) -> str:
    """`shortHash_z...` of the counts' canonical JSON: what reconciliation compares."""
    return short_hash(
        "{"
        + ",".join(f"{quote(key)}:{javascript_number(counts[key])}" for key in sorted(counts))
        + "}"
    )
