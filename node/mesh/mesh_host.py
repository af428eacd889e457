"""What the mesh needs from the rest of the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hypercore.crypto import KeyPair
from node.cojson.copies import CopyGate
from node.cojson.fork_watch import ForkWatch
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.store import CoValueStore
from node.mesh.content_door import ContentDoor
from node.mesh.follow import LocalRows
from node.mesh.messages import Sessions
from node.mesh.own_log import OwnLog
from node.mesh.provenance import TimedLog
from node.mesh.witness import WitnessRows


class ChangeSource(Protocol):
    """What became durable, merged per value."""

    async def receive_many(self) -> Sequence[tuple[RawCoId, Mapping[CoSessionId, int]]]: ...


class MeshHost(ContentDoor, Protocol):
    """What the mesh needs from `SyncHost`."""

    @property
    def store(self) -> CoValueStore: ...
    @property
    def forks(self) -> ForkWatch: ...
    @property
    def copies(self) -> CopyGate: ...
    def changes(self) -> ChangeSource: ...
    def announce(self, moved: Mapping[RawCoId, Sessions], /) -> None: ...
    def is_wanted(self, co_id: RawCoId, /) -> bool: ...
    def wanted_ids(self) -> frozenset[RawCoId]: ...
    async def wait_interest_changed(self) -> None: ...
    def note_copies(
        self, member_id: bytes, holdings: Sequence[tuple[RawCoId, Sessions | None]], /
    ) -> None: ...
    async def wait_copies_wanted(self) -> Sequence[RawCoId]: ...


class OwnData(LocalRows, TimedLog, WitnessRows, OwnLog, Protocol):
    """What the mesh needs from our own data core."""

    @property
    def key(self) -> bytes: ...
    @property
    def key_pair(self) -> KeyPair | None: ...
    @property
    def durable_length(self) -> int: ...
