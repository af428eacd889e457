"""What a `MeshSession` wants done, in order, by the shell that has its channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from node.covalue.ids import RawCoId
from node.mesh.hearsay_messages import HearsayMessage
from node.mesh.messages import (
    Evidence,
    Interest,
    Listed,
    Query,
    Sessions,
    Stored,
    Update,
    Welcome,
)
from node.mesh.run_messages import RunMessage
from node.mesh.ticket import Role
from node.mesh.trust_messages import TrustMessage


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send this on the channel."""

    type: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class WelcomeDue:
    """The other knows the secret: call `welcome` with what it may know of us."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Both have proved the secret and the other's role was judged: it is a member."""

    welcome: Welcome
    role: Role


@dataclass(frozen=True, slots=True)
class QuerySent:
    """A query left under this number; exactly one `QueryEnded` follows."""

    request_id: int
    ids: tuple[RawCoId, ...]


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """What the member holds of the ids asked for, or a part of it, at that version of its core."""

    request_id: int
    version: int
    values: tuple[tuple[RawCoId, Sessions | None], ...]


@dataclass(frozen=True, slots=True)
class QueryEnded:
    """Everything there is to know came (`is_answered`), or the time was up."""

    request_id: int
    is_answered: bool


@dataclass(frozen=True, slots=True)
class AnsweredLate:
    """What came to a query that was given up: the line was cut, or the member busy."""

    version: int
    values: tuple[tuple[RawCoId, Sessions | None], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a later version came, of so many bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question came: `next_query` reads it when it is its turn to be answered."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A message came that says nothing, or what it had said before."""


@dataclass(frozen=True, slots=True)
class Turned:
    """The member follows something else from now on; the `Interest` that comes next says what."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Close the channel; `reason` is for our log, the other side is told nothing."""

    reason: str
    is_fault: bool = False
    """Whether a member broke a rule: it does not come back at once."""


Output: TypeAlias = (
    Transmit
    | WelcomeDue
    | Admitted
    | QuerySent
    | AnswerReceived
    | QueryEnded
    | AnsweredLate
    | Query
    | Update
    | Interest
    | Evidence
    | Stored
    | Listed
    | RunMessage
    | TrustMessage
    | HearsayMessage
    | Unknown
    | Asked
    | Idle
    | Turned
    | Closed
)
"""What the shell must do, in order. A bare message is one that was received and is in order."""
