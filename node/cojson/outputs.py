"""What the sync engine wants done, in the order in which it must be done.

Those that every message brings are named tuples, which take half the time to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from node.cojson.gatekeeper import Origin
from node.cojson.messages import Message
from node.covalue.content import SessionContent
from node.covalue.group_view import GroupView
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.store import ValueAppend


class Send(NamedTuple):
    """Send a control message."""

    peer_id: str
    message: Message


class Serve(NamedTuple):
    """The peer lacks something of this value: pull it with `next_for` when the peer can take it."""

    peer_id: str
    co_id: RawCoId
    priority: int


class Store(NamedTuple):
    """Make this durable, after everything that was asked for before; then say `stored(ticket)`."""

    append: ValueAppend
    ticket: int
    origin: Origin | None = None
    """Of the client that sent it; None when it came from the mesh."""
    rests_on: frozenset[RawCoId] = frozenset()
    """Groups that gave it its right with what is not durable yet; if that is lost, so is this."""


class LoadValue(NamedTuple):
    """Read header and session rows; then say `loaded`."""

    co_id: RawCoId
    is_wanted: bool = False
    """Whether a client will want the content, too: it can be read in the same go."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """There is more to offer to clients: say `go_on` when others have had their turn."""


@dataclass(frozen=True, slots=True)
class Rehash:
    """Hash the stored transactions of a session; then say `rehashed`."""

    co_id: RawCoId
    session_id: CoSessionId
    count: int


@dataclass(frozen=True, slots=True)
class ReadGroup:
    """Read the transactions of a group for what they say of roles; then say `group_read`."""

    co_id: RawCoId
    begun: GroupView | None = field(default=None, compare=False)
    """What was read before, if it has grown meanwhile: the rest is added to it."""


@dataclass(frozen=True, slots=True)
class JudgeGroup:
    """Go through `judging` of a group that takes long to judge, in a part of the time.

    Then say `group_judged`.
    """

    co_id: RawCoId


@dataclass(frozen=True, slots=True)
class CheckFork:
    """A part of a session that does not fit what is stored, and may be signed all the same.

    If its author signed it too, keep the evidence; if that cannot be told because the two part
    before `part.after`, say `fork_unproven`.
    """

    co_id: RawCoId
    session_id: CoSessionId
    part: SessionContent
    public_key: bytes
    peer_id: str | None


@dataclass(frozen=True, slots=True)
class Find:
    """Ask the mesh; then hand in what it found and say `searched`."""

    co_id: RawCoId


class Changed(NamedTuple):
    """These sessions have these counts now, durably."""

    co_id: RawCoId
    sessions: SessionCounts


@dataclass(frozen=True, slots=True)
class Settled:
    """Content that came with a receipt number was stored, refused (with a reason) or set aside.

    What was set aside is stored or refused later; then `was_waiting`.
    """

    receipt: int
    co_id: RawCoId
    refusal: str | None = None
    is_waiting: bool = False
    was_waiting: bool = False
    partly: str | None = None
    """Why some of its sessions were refused, if others were stored."""
    doubtful: frozenset[CoSessionId] | None = None
    """As in `waiting_room.Delivery`; None where all that was refused is what this node refuses."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer sent content of which something was not kept: for the log, not for the peer."""

    peer_id: str
    co_id: RawCoId
    reason: str


@dataclass(frozen=True, slots=True)
class EndPeer:
    """The peer broke a limit: end its connection."""

    peer_id: str
    reason: str


Output = (
    Send
    | Serve
    | GoOn
    | Store
    | LoadValue
    | Rehash
    | ReadGroup
    | JudgeGroup
    | CheckFork
    | Find
    | Changed
    | Settled
    | Refused
    | EndPeer
)


class After(NamedTuple):
    """The answer to `next_for`: serve these first, in this order, and ask again then."""

    co_ids: list[RawCoId]


class Pull(NamedTuple):
    """The answer to `next_for`: read the pieces beyond `known`.

    `held` is what they lead to; None when that is not in memory.
    """

    known: KnownState
    held: KnownState | None
    is_screened: bool = False
    """Whether some of it may have to be withheld, so that it must be looked at."""
