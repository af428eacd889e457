"""What others hold, as it is read over the network: the data core of a member, and whose it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.errors import NodeError
from node.mesh.messages import Sessions
from node.mesh.outline import Outline


class Cause(Enum):
    """Why a read of a member's data core failed."""

    MISSING = auto()
    """What it claimed to have did not come; a line that carries nothing looks like that, too."""
    CONTENT = auto()
    """What it signed is not what a node writes."""
    VALUE = auto()
    """The same, but for rows of one value, which a later version may have written."""
    OUR_DISK = auto()
    """What came could not be kept here."""


class MemberDataError(NodeError):
    """A member's data core cannot be read: it is away, damaged, or not what it should be."""

    def __init__(self, text: str, cause: Cause = Cause.MISSING) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Reading:
    """What a member's bee holds of one value beyond what was known, unverified."""

    contents: Sequence[Content]
    is_complete: bool = True
    """False when a bound cut it short: read again with what this brings."""
    blocks: int = 0
    bytes: int = 0
    round_trips: int = 0

    def reached(self, known: KnownState) -> KnownState:
        """What is known once all of it has been taken in."""
        for content in self.contents:
            known = known.merged(content.known_state)
        return known


@dataclass(frozen=True, slots=True)
class Survey:
    """Some of the values that changed, and how far they got."""

    changed: Mapping[RawCoId, Sessions]
    last_key: bytes | None
    """Where to go on; None at the end."""
    unread: Collection[RawCoId] = ()
    """Values of which some row cannot be read: they may have got further."""


class MemberData(Protocol):
    """The data core of a member, read over the network."""

    @property
    def length(self) -> int: ...
    @property
    def fork(self) -> int: ...
    @property
    def blocks_fetched(self) -> int: ...

    def expect_pushes(self, member_id: bytes) -> bool:
        """Let the member with this id send blocks along with an answer; returns whether it may."""
        ...

    async def read(self, co_id: RawCoId, known: KnownState, version: int) -> Reading:
        """What is there beyond `known`, at that version of the core or a later one.

        Raises: MemberDataError.
        Cancel: nothing is kept but the blocks that came.
        """
        ...

    async def scan(self, start: int, stop: int) -> Survey:
        """Values of which blocks [start, stop) of the core tell, and how far they got there.

        Needs all of these blocks. Raises: MemberDataError.
        Cancel: nothing is kept but the blocks that came.
        """
        ...

    async def outline(self, co_id: RawCoId, version: int, *, is_dated: bool) -> Outline | None:
        """What its rows say of one value, content left out. Raises and Cancel: as `read`."""
        ...

    async def survey(self, start: int, stop: int, after: bytes) -> Survey:
        """Values that changed since `start`, as of `stop` or later, the next ones after a key.

        Needs only blocks that are not out of date. Raises and Cancel: as `scan`.
        """
        ...


class Source(Protocol):
    """Whose data is read: a member, or one that is away and whose core others keep."""

    id: bytes
    refused: int
    failures: int

    @property
    def data(self) -> MemberData | None: ...
    @property
    def may_write(self) -> bool: ...

    def note_holdings(self, holdings: Sequence[tuple[RawCoId, Sessions | None]], /) -> None:
        """So much is durable there."""
        ...

    def owe_merged(self, length: int, /) -> None:
        """Blocks [0, length) of its data core are merged here."""
        ...
