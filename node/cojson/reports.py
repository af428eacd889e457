"""What the sync host asks of the mesh, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node.covalue.content import Content
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState


class MeshReader(Protocol):
    """What the other nodes hold."""

    async def find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> Mapping[RawCoId, Sequence[Content]]:
        """Content beyond `known` that members hold, unverified, dependencies included or not.

        `known[id]` is what this node has; an id that is not in it is not stored here. An id
        that is absent from the result is nowhere. Answers within a bound of its own.

        Cancel: the question is withdrawn.
        """
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of content that was handed in."""

    accepted: frozenset[RawCoId]
    """Stored durably, or stored already."""
    refused: Mapping[RawCoId, str]
    """Why; nothing of it was kept."""
    waiting: frozenset[RawCoId]
    """Kept aside until a group or account it depends on is here."""
    partly: Mapping[RawCoId, str] = field(default_factory=dict)
    """Of those accepted: why some of their sessions were refused."""
    doubtful: Mapping[RawCoId, frozenset[CoSessionId]] = field(default_factory=dict)
    """Of those refused, wholly or in part, for other reasons than rules of this node: the sessions
    that do not verify. They are forged, or their author continued them in another way, too;
    without any, the value itself is wrong."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one load found, for people."""

    co_id: RawCoId
    header: CoValueHeader
    sessions: Mapping[CoSessionId, int]
    source: str
    """`store`, or `mesh`."""


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """Counters since the host was opened, and what it holds now."""

    clients: int
    subscribed_ids: int
    values_stored: int
    values_in_memory: int
    state_bytes: int
    """Of verified state in memory; its budget is five eighths of `covalue_memory`."""
    content_bytes: int
    """Of content kept for those who want it next; it may have all that state leaves."""
    messages_received: int
    bad_lines: int
    refused: int
    refused_for_room: int
    """Content that clients sent while there was no room for anything new."""
    not_stored: int
    """Messages that damage on the disk kept from being stored."""
    forks_found: int
    """Sessions of which two continuations were seen, in earlier runs too; evidence is kept."""
    erased_values: int
    """Deleted values whose content was removed from the disk."""
    commits: int
    messages_stored: int
    transactions_stored: int
    withheld: Mapping[str, str]
    """Values, stored before such were refused, that clients cannot take as a whole, and why."""
