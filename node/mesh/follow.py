"""Reading a member's data bee over the network, and catching up with all of it.

A full replica reads a member's log in the order in which it was written: everything in it is
wanted, dependencies come before what depends on them, and reading ahead is simple. (A diff of
two versions would read one block after another.) A member that erased or compacted has not all of
its log any more: as soon as it says so, or blocks do not come, the rest is read by its tree.

How far that got is in the row `merged:{data core key}` beside our own data core: [fork, blocks
merged, what was left out]. A crash or a lost connection costs the page it happens in, or all that
was read by tree; a policy that leaves out something else begins anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import trio

from bee.bee import Bee
from bee.errors import BeeError, CorruptTree, HistoryReplaced, NotABee
from bee.snapshot import Snapshot
from hypercore.core import Core
from hypercore.encoding import DecodeError
from hypercore.errors import BlockNotAvailable, HypercoreError, StorageError, StorageFailed
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.keys import RowKind, co_id_in, decode_key
from node.covalue.known_state import KnownState, merge_counts
from node.covalue.many_sessions import put_together
from node.covalue.reading import read_pieces
from node.covalue.records import decode_session
from node.mesh.announcements import Announcements, exceeds, held_sessions
from node.mesh.block_uses import BlockUses, UsedLog
from node.mesh.content_door import ContentDoor, stored_state
from node.mesh.fetch import Fetcher
from node.mesh.fields import FieldReader, pack_fields
from node.mesh.member_data import Cause, MemberData, MemberDataError, Reading, Source, Survey
from node.mesh.messages import Welcome
from node.mesh.outline import Outline, read_outline
from node.mesh.replicas import ReplicaPolicy
from node.mesh.stalls import unless_stalled

HEAD_SECONDS = 2.0
"""How long a member may take to show the length of its core that it announced."""

MAX_READING_BYTES = 1 << 20
"""Content read of one value at a time; larger values come over in several readings."""

PAGE_BLOCKS = 1024
"""Blocks after which progress is written down; fetched at once, a few hundred kilobytes."""

MAX_RESTARTS = 3
"""Reads of one value, or of one page, that begin anew because the member compacts meanwhile."""

_CACHE_BYTES = 8 << 20  # tree nodes of one member

T = TypeVar("T")
Tree = Snapshot[bytes, bytes]

_UNREADABLE = (BeeError, HypercoreError, DecodeError, trio.ClosedResourceError)
"""A read of a member's data core ends with these; it is closed if the member goes meanwhile."""


class LocalRows(Protocol):
    """The local key-value space of our data core."""

    def get_local_value(self, key: bytes, /) -> bytes | None: ...
    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None: ...


class CoreData:
    """A member's data bee on a hypercore that is replicated sparsely.

    `hints` name the keys that are read to all who have the core; without them nobody is told.
    `uses` is told what is read, for a cache that gives up the rest. `keeper` is the member's id
    while it is connected itself: what it and all others have given up is not waited for.
    """

    def __init__(
        self,
        core: Core,
        uses: BlockUses | None = None,
        *,
        hints: bool = True,
        keeper: bytes | None = None,
    ) -> None:
        self._core = core
        self._keeper = keeper
        log = UsedLog(core, BlockUses() if uses is None else uses, keeper)
        self._bee = Bee(log, cache_bytes=_CACHE_BYTES, extension=hints)
        self._reading = 0
        self._claimed_blocks = self.blocks_fetched
        self._claimed_bytes = self.bytes_fetched

    @property
    def length(self) -> int:
        return self._core.length

    def expect_pushes(self, member_id: bytes) -> bool:
        """As `MemberData.expect_pushes`."""
        return any(
            peer.remote_public_key == member_id and self._bee.expect_pushes(peer)
            for peer in self._core.peers
        )

    @property
    def fork(self) -> int:
        return self._core.fork

    @property
    def blocks_fetched(self) -> int:
        return self._core.replication.totals().blocks_received

    @property
    def bytes_fetched(self) -> int:
        return self._core.replication.totals().bytes_received

    async def read(self, co_id: RawCoId, known: KnownState, version: int) -> Reading:
        """As `MemberData.read`.

        Blocks that came are counted once: to the read that waited for them, and what nobody
        waited for (hints are generous) to the last of the reads that go on at the same time.
        """
        self._reading += 1
        try:
            await self._wait_length(version)
            tree, pieces = await self._read_newest(
                lambda tree: read_pieces(
                    tree, co_id, known, MAX_READING_BYTES, put_together=put_together
                )
            )
        except _UNREADABLE as error:
            raise MemberDataError(f"{co_id}: {error}", _cause_of_value(error)) from error
        finally:
            self._reading -= 1
        waited, round_trips = tree.reads
        blocks, size = self._claim(waited)
        if blocks:
            round_trips = max(round_trips, 1)  # pushed, and here before it was waited for
        return Reading(pieces.pieces, pieces.is_complete, blocks, size, round_trips)

    def _claim(self, waited: int) -> tuple[int, int]:
        """How many of the (blocks, bytes) fetched and not yet counted are this read's."""
        total = self._core.replication.totals()
        blocks = total.blocks_received - self._claimed_blocks
        size = total.bytes_received - self._claimed_bytes
        if self._reading:
            mine = min(blocks, waited)
            size = size * mine // max(blocks, 1)
            blocks = mine
        self._claimed_blocks += blocks
        self._claimed_bytes += size
        return blocks, size

    async def outline(self, co_id: RawCoId, version: int, *, is_dated: bool) -> Outline | None:
        """As `MemberData.outline`."""
        try:
            await self._wait_length(version)
            _, outline = await self._read_newest(
                lambda tree: read_outline(tree, co_id, is_dated=is_dated)
            )
            return outline
        except _UNREADABLE as error:
            raise MemberDataError(f"{co_id}: {error}", _cause_of_value(error)) from error

    async def scan(self, start: int, stop: int) -> Survey:
        """As `MemberData.scan`."""
        rows = _Rows()
        try:
            await self._wait_length(stop)
            await self._core.download(start, stop, keeper=self._keeper)
            async for change in self._bee.history(gte=start, lt=stop):
                if change.is_deletion:
                    continue
                rows.note(change.key, change.value)
        except _UNREADABLE as error:
            raise MemberDataError(str(error), _cause(error)) from error
        return rows.survey(None)

    async def survey(self, start: int, stop: int, after: bytes) -> Survey:
        """As `MemberData.survey`."""

        async def read_page(tree: Tree) -> Survey:
            rows = _Rows()
            key: bytes | None = None
            count = 0
            async for entry in tree.range(gt=after, since=start, limit=PAGE_BLOCKS):
                key = entry.key
                count += 1
                rows.note(key, entry.value)
            return rows.survey(key if count == PAGE_BLOCKS else None)

        try:
            await self._wait_length(stop)
            _, page = await self._read_newest(read_page)
        except _UNREADABLE as error:
            raise MemberDataError(str(error), _cause(error)) from error
        return page

    async def _read_newest(self, call: Callable[[Tree], Awaitable[T]]) -> tuple[Tree, T]:
        """The present tree, and what `call` reads in it.

        A node that erases or compacts first writes what is to stay, and then gives up the rest: a
        read that meets a gap begins again with the newer head. So does a read during which the log
        is cut back.

        Raises: `_UNREADABLE`. Cancel: as `call`.
        """
        for _ in range(MAX_RESTARTS):
            tree = self._bee.snapshot()
            length = self._core.length
            try:
                return tree, await call(tree)
            except HistoryReplaced:
                continue
            except BlockNotAvailable:
                if self._core.length == length and not await self._core.update():
                    raise
        tree = self._bee.snapshot()
        return tree, await call(tree)

    async def _wait_length(self, version: int) -> None:
        """Wait for the head of that length; the last block, the root of its tree, comes along.

        Also wait for the fork that the member has gone on to: the one here may be as long.

        Raises: MemberDataError.
        """
        core = self._core
        if core.length >= version and not self._is_cut_back:
            return
        with trio.move_on_after(HEAD_SECONDS):
            while core.length < version or self._is_cut_back:
                if self._is_cut_back:
                    with core.replication.expecting_head():
                        await core.wait_change(core.length, core.fork)
                else:
                    async with core.downloading(blocks=[version - 1]):
                        await core.wait_length(version)
        if core.length < version:
            raise MemberDataError(f"announces length {version}, shows {core.length}")

    @property
    def _is_cut_back(self) -> bool:
        """Whether the member itself says that it has cut off some of what is here."""
        fork = self._core.fork
        return any(
            peer.fork > fork and peer.remote_public_key == self._keeper for peer in self._core.peers
        )


def _cause(error: Exception) -> Cause:
    match error:
        case CorruptTree() | NotABee() | DecodeError():
            return Cause.CONTENT
        case StorageError():
            return Cause.OUR_DISK
        case _:
            return Cause.MISSING


def _cause_of_value(error: Exception) -> Cause:
    """As `_cause`, for rows of one value: that it is a bee of values is known by then."""
    return Cause.VALUE if isinstance(error, DecodeError) else _cause(error)


class _Rows:
    """What rows of a member's bee say of values: that they changed, and how far sessions go."""

    def __init__(self) -> None:
        self._changed: dict[RawCoId, dict[CoSessionId, int]] = {}
        self._unread: set[RawCoId] = set()

    def note(self, key: bytes, value: bytes | None) -> None:
        """Of a row that cannot be read only the value is noted: whoever reads the value finds out.

        Raises: DecodeError for a row that belongs to no value.
        """
        try:
            row = decode_key(key)
            sessions = self._changed.setdefault(row.co_id, {})
            if row.kind is RowKind.SESSION:
                merge_counts(sessions, {row.session_id: decode_session(value or b"")[0].count})
        except DecodeError:
            co_id = co_id_in(key)
            self._changed.setdefault(co_id, {})
            self._unread.add(co_id)

    def survey(self, last_key: bytes | None) -> Survey:
        return Survey(self._changed, last_key, self._unread)


@dataclass(frozen=True, slots=True)
class Merged:
    """Blocks [0, length) of a member's data core are merged, as of that fork of it.

    `scope` tells what the policy of that time left out (`ReplicaPolicy.scope`). `unread_by` is the
    version of this node that could not read some value in there; empty when there was none.
    """

    fork: int = 0
    length: int = 0
    scope: bytes = b""
    unread_by: str = ""

    def encode(self) -> bytes:
        return pack_fields(self.fork, self.length, self.scope, self.unread_by)

    @classmethod
    def decode(cls, data: bytes | None) -> Merged:
        """What the row says; nothing merged where it is missing or cannot be read."""
        if data is None:
            return cls()
        try:
            reader = FieldReader.unpack(data, 1024)
            fork, length = reader.uint(), reader.uint()
            scope = reader.data(32) if reader.remaining else b""
            unread_by = reader.text() if reader.remaining else ""
            return cls(fork, length, scope, unread_by)
        except DecodeError:
            return cls()


def merged_key(data_key: bytes) -> bytes:
    return b"merged:" + data_key.hex().encode()


class CatchUp:
    """Brings over everything of a member that the policy keeps, page by page."""

    def __init__(
        self,
        host: ContentDoor,
        fetcher: Fetcher,
        rows: LocalRows,
        policy: ReplicaPolicy,
        version: str = "",
    ) -> None:
        """`version` is that of this node: another one reads again where values were left unread."""
        self._version = version
        self._host = host
        self._fetcher = fetcher
        self._rows = rows
        self.policy = policy
        """May be replaced at any time."""

    def merged(self, data_key: bytes) -> Merged:
        return Merged.decode(self._rows.get_local_value(merged_key(data_key)))

    async def run(self, member: Source, welcome: Welcome) -> bool:
        """Merge up to the member's present length; False when that failed on the way.

        Cancel: what was merged stays, and the next run goes on from the last page.
        """
        try:
            return await self._run(member, welcome)
        except StorageFailed:
            return False  # our own disk

    async def _run(self, member: Source, welcome: Welcome) -> bool:
        data = member.data
        if data is None or self._fetcher.is_paused():
            return False
        key = merged_key(welcome.data_key)
        merged = self.merged(welcome.data_key)
        scope = self.policy.scope
        is_same = (merged.fork, merged.scope) == (data.fork, scope)
        is_same = is_same and merged.unread_by in ("", self._version)
        start, unread_by = (merged.length, merged.unread_by) if is_same else (0, "")
        target = max(data.length, welcome.length)
        while start < target:
            stop = min(start + PAGE_BLOCKS, target)
            try:
                page = await unless_stalled(data, lambda: data.scan(start, stop))  # noqa: B023
            except MemberDataError:
                if not await self._bring_survey(member, data, start, target):
                    return False
                stop = target
            else:
                if not await self._bring(member, stop, page):
                    return False
            if self.policy.scope != scope or not self.policy.everything:
                return False  # what was brought was judged by another policy
            if self._fetcher.is_paused():
                return False
            start = stop
            if self._fetcher.unreadable.has_any(member.id):
                unread_by = self._version
            await self._rows.write_local({key: Merged(data.fork, start, scope, unread_by).encode()})
            self._tell_merged(member, start)
        self._tell_merged(member, start)
        return True

    def _tell_merged(self, member: Source, length: int) -> None:
        if self.policy.everything:
            member.owe_merged(length)

    async def _bring_survey(self, member: Source, data: MemberData, start: int, stop: int) -> bool:
        """Fetch what we lack by the tree, not by the log: the member gave up blocks in there.

        Returns whether the member could be read all the time.
        """
        after: bytes | None = b""
        while after is not None:
            try:
                found = await unless_stalled(
                    data,
                    lambda: data.survey(start, stop, after or b""),  # noqa: B023
                )
            except MemberDataError:
                return False
            if not await self._bring(member, stop, found):
                return False
            after = found.last_key
        return True

    async def _bring(self, member: Source, version: int, page: Survey) -> bool:
        """Fetch what we lack of a page; returns whether the member could be read all the time."""
        failures = member.failures
        member.note_holdings(list(page.changed.items()))
        found = Announcements()
        for co_id, sessions in page.changed.items():
            if not self.policy.allows(co_id):
                continue
            held = await stored_state(self._host, co_id)
            if exceeds(sessions, held_sessions(held)):
                found.announce(member.id, version, [(co_id, sessions)])
        await self._fetcher.fetch_all(found)
        await self._fetcher.bring(member, list(page.unread), {})
        return member.failures == failures
