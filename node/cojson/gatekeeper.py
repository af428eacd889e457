"""The seam between the sync engine and `node/access/`, which decides what is taken.

The engine knows who may *sign* what; a gatekeeper says what this node is *willing to hold*, and
from whom. It is asked twice on a message's way, and told twice:

    screen   before anything is waited for or verified: the lists' turn, by claimed owners
    judge    after the signatures were verified, before the commit: the quotas' turn
    stored   when it is durable, or `not_stored` when damage on the disk keeps it from that
    erased   when it is gone from the disk

and `received` sets the pace of a connection. All are plain calls without I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.store import SessionAppend, SessionSize, ValueAppend


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a client's messages come from: its network address and the name of its token.

    Empty where it is not known: a client in this process has no address, and most have no token.
    """

    address: str = ""
    token: str = ""


UNKNOWN_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is refused of one message, and why. `value` refuses all of it."""

    value: str | None = None
    sessions: Mapping[CoSessionId, str] = field(default_factory=dict)


ACCEPTED = Ruling()


class Pace(NamedTuple):
    """How a connection goes on: so many seconds without being read from, or not at all."""

    wait_seconds: float = 0.0
    end_reason: str | None = None


class Gatekeeper(Protocol):
    """Decides what a node takes. `origin` is None for what other nodes of the mesh send."""

    def screen(
        self,
        origin: Origin | None,
        co_id: RawCoId,
        header: CoValueHeader | None,
        sessions: Collection[CoSessionId],
        *,
        is_new: bool,
        is_awaited: bool,
    ) -> Ruling:
        """Judge by what the message claims. What is refused here is not verified or waited for.

        `header` is the stored one or the message's own; None when nobody has shown it. `is_new`
        says that the value is not here, `is_awaited` that content set aside depends on it.
        """
        ...

    def is_unwelcome(
        self,
        origin: Origin | None,
        co_id: RawCoId,
        header: CoValueHeader | None,
        session_id: CoSessionId,
        *,
        is_new: bool,
    ) -> bool:
        """Whether `screen` would refuse this session, as far as can be told without counting it."""
        ...

    def judge(
        self,
        origin: Origin | None,
        header: CoValueHeader,
        appends: Mapping[CoSessionId, SessionAppend],
        *,
        is_new: bool,
    ) -> Ruling:
        """Judge what verified. `stored` or `not_stored` follows for what is not refused."""
        ...

    def stored(self, origin: Origin | None, append: ValueAppend, now: float) -> None:
        """What was let in is durable; `now` is monotonic seconds."""
        ...

    def not_stored(self, append: ValueAppend) -> None:
        """What was let in cannot be stored."""
        ...

    def erased(self, sessions: Mapping[CoSessionId, SessionSize]) -> None:
        """So much of these sessions is no longer on the disk: its value was deleted."""
        ...

    def received(self, origin: Origin, size: int, messages: int, now: float) -> Pace:
        """A client sent so much; how long to leave it unread."""
        ...
