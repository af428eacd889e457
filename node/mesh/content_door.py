"""The door by which all content comes in, as the mesh sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.errors import CorruptStore


class Receipt(Protocol):
    """What became of content that was handed in."""

    @property
    def refused(self) -> Mapping[RawCoId, str]:
        """Values of which nothing was kept, and why."""
        ...

    @property
    def waiting(self) -> Collection[RawCoId]:
        """Values of which a dependency is not here."""
        ...

    @property
    def doubtful(self) -> Mapping[RawCoId, Collection[CoSessionId]]:
        """Sessions that verify for nobody; none of a value that is wrong itself."""
        ...


class Forks(Protocol):
    """What fetching needs from `ForkWatch`."""

    async def are_forked(self, co_id: RawCoId, sessions: Collection[CoSessionId], /) -> bool: ...


class ContentDoor(Protocol):
    """What fetching needs from `SyncHost`: all content comes in by the same door."""

    async def receive_content(self, source: str, contents: Sequence[Content], /) -> Receipt: ...
    async def known_state(self, co_id: RawCoId, /) -> KnownState: ...
    @property
    def forks(self) -> Forks: ...
    @property
    def takes_content(self) -> bool:
        """Whether there is room for anything new."""
        ...


async def stored_state(host: ContentDoor, co_id: RawCoId) -> KnownState:
    """What we hold durably; nothing where what we stored is damaged: others may have it whole.

    Cancel: nothing is changed.
    """
    try:
        return await host.known_state(co_id)
    except CorruptStore:
        return NOTHING
