"""A sorted key-value store on an append-only log: Hyperbee, byte for byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar, overload

from bee.batch import Batch, Entry, Writer, comparison, decode_entry
from bee.cache import DEFAULT_CACHE_BYTES, CacheStatistics
from bee.changes import TreeChanges
from bee.compaction import SAMPLES, Compaction, Compactor, dead_share
from bee.descent import (
    PAUSE_EFFORT,
    BlocksNeeded,
    Found,
    NodeReader,
    ReadCounter,
    ReadStatistics,
    Tree,
    find,
    root_ref,
)
from bee.diff import DiffCursor
from bee.erasure import Eraser, Erasure
from bee.errors import CorruptTree
from bee.extension import HyperbeeExtension
from bee.keyspace import BINARY, Codec, K, Keyspace, V
from bee.log import Log
from bee.messages import Header, Metadata, NodeRecord
from bee.ranges import HistoryCursor, RangeCursor, Results, history_seqs
from bee.rewriting import Mover
from hypercore.errors import OutOfRange

A = TypeVar("A")
B = TypeVar("B")


GET_EFFORT = 5
PUT_EFFORT = 8


class Change(NamedTuple, Generic[K, V]):
    """One block of the history: a put, or a deletion (then the value is None).

    The format cannot tell a deletion from a put of None that the same batch overwrote.
    """

    seq: int
    key: K
    value: V | None
    is_deletion: bool


class Difference(NamedTuple, Generic[K, V]):
    """A key whose entry differs: how it is in this version, and how in the other."""

    left: Entry[K, V] | None
    right: Entry[K, V] | None


class Snapshot(Generic[K, V]):
    """One version of a bee; it does not change while the bee does.

    Blocks that are not here are asked for and waited for, forever if nobody has them: put
    your own deadline around a read. Every read may raise CorruptTree (the writer's blocks are
    no tree) and HistoryReplaced (the log was truncated since). A log of our own has all blocks
    but those it gave up (`Bee.erase`): reading them raises BlockNotAvailable.
    """

    __slots__ = ("_counter", "_extension", "_keyspace", "_root", "_tree", "fork", "version")

    def __init__(
        self,
        tree: Tree,
        extension: HyperbeeExtension | None,
        keyspace: Keyspace[K, V],
        version: int,
        fork: int,
    ) -> None:
        self._tree = tree
        self._extension = extension
        self._keyspace = keyspace
        self.fork = fork
        self._root = root_ref(version)
        self._counter = ReadCounter()
        self.version = version

    @property
    def reads(self) -> ReadStatistics:
        """What all reads of this snapshot (not of its subs) had to wait for, so far."""
        return self._counter.statistics

    def sub(self, name: str | bytes, *, separator: bytes | None = None) -> Snapshot[K, V]:
        """The sub-database `name` in this version, with the same codecs."""
        keyspace = self._keyspace.sub(
            _name(name), separator, self._keyspace.keys, self._keyspace.values
        )
        return Snapshot(self._tree, self._extension, keyspace, self.version, self.fork)

    async def get(self, key: K) -> Entry[K, V] | None:
        """The entry of `key`, None if there is none."""
        keyspace = self._keyspace
        encoded = keyspace.encode_key(key)
        root = self._root
        if not root:
            return None
        tree = self._tree
        tree.check_fork(self.fork)

        tree.effort += GET_EFFORT
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()
        try:
            found = look_up(tree.reader, root, encoded)
        except BlocksNeeded:
            found = await self._look_up(encoded)
        return None if found is None else decode_entry(keyspace, *found)

    async def _look_up(self, key: bytes) -> tuple[int, NodeRecord] | None:
        def step(reader: NodeReader) -> tuple[int, NodeRecord] | None:
            return look_up(reader, self._root, key)

        def ask() -> None:
            if self._extension is not None:
                self._extension.ask_get(self.version, key)

        return await self._tree.read(step, self._counter, ask)

    def range(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        reverse: bool = False,
        limit: int | None = None,
        since: int = 0,
    ) -> Results[Entry[K, V]]:
        """The entries between the bounds, in the order of the keys' bytes.

        With `since` only those that were put after the bee had that version: what is older is
        passed over unread, and unlike `diff` that needs no block of the older version. Read-ahead
        is at most 128 entries; leaving early needs no clean-up.
        """
        bounds = self._keyspace.key_range(
            gt=gt, gte=gte, lt=lt, lte=lte, reverse=reverse, limit=limit
        )
        keyspace = self._keyspace

        def decode(seq: int, record: NodeRecord) -> Entry[K, V]:
            return decode_entry(keyspace, seq, record)

        cursor = RangeCursor(self._root, bounds, decode, since)

        def ask() -> None:
            # Peers would name all of the range.
            if self._extension is not None and not since:
                self._extension.ask_range(self.version, bounds, cursor.last_key)

        return Results(self._tree, self.fork, cursor, self._counter, ask)

    async def peek(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        reverse: bool = False,
    ) -> Entry[K, V] | None:
        """The first entry between the bounds."""
        entries = self.range(gt=gt, gte=gte, lt=lt, lte=lte, reverse=reverse, limit=1)
        async for entry in entries:
            return entry
        return None

    def history(
        self,
        *,
        gt: int | None = None,
        gte: int | None = None,
        lt: int | None = None,
        lte: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Results[Change[K, V]]:
        """What was put and deleted, in order of time; bounds are seqs.

        Negative bounds count back from `version`. Keys of other sub-databases are among it.
        """
        keyspace = Keyspace(self._keyspace.keys, self._keyspace.values)

        def decode(seq: int, record: NodeRecord, is_deletion: bool) -> Change[K, V]:
            entry = decode_entry(keyspace, seq, record)
            return Change(*entry, is_deletion)

        seqs = history_seqs(self.version, gt=gt, gte=gte, lt=lt, lte=lte, reverse=reverse)
        cursor = HistoryCursor(seqs, limit, decode)
        return Results(self._tree, self.fork, cursor, self._counter)

    def diff(
        self,
        other: int | Snapshot[K, V],
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        limit: int | None = None,
    ) -> Results[Difference[K, V]]:
        """Keys whose entries differ between this version (left) and the other (right).

        Entries are compared by the block that put them. Costs as many blocks as differ, and
        the way to them.
        """
        bounds = self._keyspace.key_range(gt=gt, gte=gte, lt=lt, lte=lte, limit=limit)
        version = other if isinstance(other, int) else other.version
        keyspace = self._keyspace

        def entry(side: tuple[int, NodeRecord] | None) -> Entry[K, V] | None:
            return None if side is None else decode_entry(keyspace, *side)

        def decode(
            left: tuple[int, NodeRecord] | None, right: tuple[int, NodeRecord] | None
        ) -> Difference[K, V]:
            return Difference(entry(left), entry(right))

        cursor = DiffCursor(self._root, root_ref(max(version, 1)), bounds, decode)
        return Results(self._tree, self.fork, cursor, self._counter)


class Bee(Generic[K, V]):
    """A bee as it is now, and the way to change it.

    Keys and values are bytes unless codecs say otherwise; a value may be None. Reads are
    those of a fresh `snapshot()`. One bee per log: its cache of `cache_bytes` is shared by
    its snapshots and sub-databases, and it answers the `hyperbee` extension for the log.
    """

    __slots__ = ("_always_duplicate", "_extension", "_header", "_keyspace", "_latest", "_tree")

    @overload
    def __init__(
        self: Bee[bytes, bytes],
        log: Log,
        *,
        metadata: Metadata | None = None,
        always_duplicate: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        extension: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: Bee[K, bytes],
        log: Log,
        *,
        key_encoding: Codec[K],
        metadata: Metadata | None = None,
        always_duplicate: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        extension: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: Bee[bytes, V],
        log: Log,
        *,
        value_encoding: Codec[V],
        metadata: Metadata | None = None,
        always_duplicate: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        extension: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self,
        log: Log,
        *,
        key_encoding: Codec[K],
        value_encoding: Codec[V],
        metadata: Metadata | None = None,
        always_duplicate: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        extension: bool = True,
    ) -> None: ...

    def __init__(
        self,
        log: Log,
        *,
        key_encoding: Codec[K] | Codec[bytes] = BINARY,
        value_encoding: Codec[V] | Codec[bytes] = BINARY,
        metadata: Metadata | None = None,
        always_duplicate: bool = True,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        extension: bool = True,
    ) -> None:
        """With `always_duplicate` false, putting the value that is there writes nothing.

        `metadata` goes into the header of a bee that has none yet.
        """
        self._tree = Tree(log, cache_bytes)
        # The overloads say which codec belongs to which K and V.
        self._keyspace: Keyspace[K, V] = Keyspace(key_encoding, value_encoding)  # type: ignore[arg-type]
        self._header = Header(metadata=metadata).encode()
        self._always_duplicate = always_duplicate
        self._extension = HyperbeeExtension(self._tree) if extension else None
        self._latest: Snapshot[K, V] | None = None

    @property
    def version(self) -> int:
        """Length of the log, at least 1. Every length a block was appended at can be read."""
        return max(self._tree.log.length, 1)

    @property
    def is_writable(self) -> bool:
        return self._tree.log.is_writable

    def cache_statistics(self) -> CacheStatistics:
        return self._tree.cache.statistics()

    async def header(self) -> Header:
        """What block 0 says. Raises: NotABee, UnknownFormat."""
        return await self._tree.header(ReadCounter())

    def sub(
        self,
        name: str | bytes,
        *,
        separator: bytes | None = None,
    ) -> Bee[K, V]:
        """The keys that start with `name` and a separator (a zero byte), shown without.

        `separator` is not passed on to deeper subs, as in the original.
        """
        keyspace = self._keyspace.sub(
            _name(name), separator, self._keyspace.keys, self._keyspace.values
        )
        return self._with_keyspace(keyspace)

    def _with_keyspace(self, keyspace: Keyspace[A, B]) -> Bee[A, B]:
        bee: Bee[A, B] = Bee.__new__(Bee)
        bee._tree = self._tree
        bee._keyspace = keyspace
        bee._header = self._header
        bee._always_duplicate = self._always_duplicate
        bee._extension = self._extension
        bee._latest = None
        return bee

    def snapshot(self) -> Snapshot[K, V]:
        """The version of now."""
        tree = self._tree
        return Snapshot(tree, self._extension, self._keyspace, self.version, tree.current_fork())

    def checkout(self, version: int) -> Snapshot[K, V]:
        """An older version: the bee when its log had that length.

        Raises: OutOfRange. Inside a batch there is no version to check out.
        """
        if not 0 <= version <= self.version:
            raise OutOfRange(version, self.version + 1)
        tree = self._tree
        fork = tree.current_fork()
        return Snapshot(tree, self._extension, self._keyspace, max(version, 1), fork)

    def get(self, key: K) -> Awaitable[Entry[K, V] | None]:
        """As `Snapshot.get`."""
        latest = self._latest
        if latest is None or latest.version != self.version or latest.fork != self._tree.log.fork:
            latest = self._latest = self.snapshot()
        return latest.get(key)

    async def peek(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        reverse: bool = False,
    ) -> Entry[K, V] | None:
        """As `Snapshot.peek`."""
        return await self.snapshot().peek(gt=gt, gte=gte, lt=lt, lte=lte, reverse=reverse)

    def range(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        reverse: bool = False,
        limit: int | None = None,
        since: int = 0,
    ) -> Results[Entry[K, V]]:
        """As `Snapshot.range`, of the version of now."""
        return self.snapshot().range(
            gt=gt, gte=gte, lt=lt, lte=lte, reverse=reverse, limit=limit, since=since
        )

    def history(
        self,
        *,
        gt: int | None = None,
        gte: int | None = None,
        lt: int | None = None,
        lte: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Results[Change[K, V]]:
        """As `Snapshot.history`, up to now."""
        return self.snapshot().history(gt=gt, gte=gte, lt=lt, lte=lte, reverse=reverse, limit=limit)

    def diff(
        self,
        other: int | Snapshot[K, V],
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        limit: int | None = None,
    ) -> Results[Difference[K, V]]:
        """As `Snapshot.diff`, of the version of now (left)."""
        return self.snapshot().diff(other, gt=gt, gte=gte, lt=lt, lte=lte, limit=limit)

    async def put(
        self,
        key: K,
        value: V | None,
        *,
        cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None = None,
    ) -> bool:
        """Put a value; returns, when it is durable, whether anything was written.

        If the key exists, `cas(previous, next)` may refuse.

        Raises: NotWritable, NotABee, CorruptTree, and what the log raises.
        Cancel: the value may have been put, unless that is raised.
        """
        keyspace = self._keyspace
        encoded_key = keyspace.encode_key(key)
        encoded_value = keyspace.encode_value(value)
        compare = None if cas is None else comparison(keyspace, key, value, cas)
        return await self._write(lambda changes: changes.put(encoded_key, encoded_value, compare))

    async def delete(
        self, key: K, *, cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None = None
    ) -> bool:
        """Delete a key; returns, when it is durable, whether it was there.

        `cas(previous, next)` may refuse; the value of `next` is None.

        Raises and Cancel: as `put`.
        """
        keyspace = self._keyspace
        encoded = keyspace.encode_key(key)
        compare = None if cas is None else comparison(keyspace, key, None, cas)
        return await self._write(lambda changes: changes.delete(encoded, compare))

    async def _write(self, step: Callable[[TreeChanges], bool]) -> bool:
        tree = self._tree
        tree.effort += PUT_EFFORT
        async with tree.log.exclusive():
            writer = Writer(tree, self._header, always_duplicate=self._always_duplicate)
            has_changed = await writer.change(step)
            has_appended = writer.append(None)
        if has_appended:
            await tree.log.wait_durable()
        return has_changed

    async def erase(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        keep: Iterable[K] = (),
        local: Mapping[bytes, bytes | None] | None = None,
    ) -> Erasure:
        """Delete all keys between the bounds and give up every block that was ever about them.

        Of the keys in `keep` the present values stay. The deletion is one atomic step with
        `local` rows (as in `Batch.flush`); the blocks follow, also when `finish_erasures` has
        to go on after a crash. Older versions may not be readable afterwards. The bytes are
        gone from the files of the store after `Corestore.reclaim`.

        The first erasure reads all blocks of the log, each later one those appended since
        (`block_index`). In the history it is the deletion of an empty key.

        Raises: NotWritable, CorruptTree, and what the log raises.
        Cancel: nothing was changed, or `finish_erasures` does the rest.
        """
        keyspace = self._keyspace
        bounds = keyspace.key_range(gt=gt, gte=gte, lt=lt, lte=lte)
        kept = frozenset(keyspace.encode_key(key) for key in keep)
        return await self._eraser().erase(bounds, kept, local or {})

    def _eraser(self) -> Eraser:
        return Eraser(self._tree, self._header, Mover(self._keyspace.keys))

    async def finish_erasures(self) -> int:
        """Go on with erasures that a crash or a cancellation stopped; returns the blocks given up.

        Raises: CorruptTree, and what the log raises. Cancel: as `erase`.
        """
        return await self._eraser().finish()

    async def compact(
        self,
        *,
        since: int | None = None,
        versions: Iterable[int] = (),
        prune: bool = True,
        lengths: Iterable[int] = (),
        dry_run: bool = False,
    ) -> Compaction:
        """Give up all blocks of the log that no kept version needs, also those of other subs.

        Kept is what is in the bee now, each of `versions`, and from the version `since` on all
        versions and the history. Without either, nodes may be moved to free more blocks: the
        present becomes a new version then, and those before it may not be readable.

        `prune` gives up the part of the Merkle tree that proves only blocks that are gone, most
        of it where most are gone. Peers that are connected or at one of `lengths` can go on
        following the log; others that were away may have to fetch it anew.

        `dry_run` changes nothing and tells about what would go, pruning left out. Others write
        meanwhile; the files shrink with `Corestore.reclaim`.

        Raises: NotWritable, OutOfRange, CorruptTree, and what the log raises.
        Cancel: blocks that nobody needs are gone in part; call again for the rest.
        """
        compactor = Compactor(self._tree, Mover(self._keyspace.keys))
        return await compactor.compact(since, versions, lengths if prune else None, dry_run=dry_run)

    async def dead_share(self, samples: int = SAMPLES) -> float:
        """About which part of the blocks held here is dead, of 1: what `compact` would free.

        Looks at `samples` blocks; with 256 it is within 0.06 of the truth 19 times of 20.
        Raises: CorruptTree. Cancel: as ever.
        """
        return await dead_share(self._tree, samples)

    def batch(self) -> Batch[K, V]:
        """Changes that are appended together: `async with bee.batch() as batch: ...`."""
        return Batch(
            self._tree, self._keyspace, self._header, always_duplicate=self._always_duplicate
        )


def look_up(reader: NodeReader, root: bytes, key: bytes) -> tuple[int, NodeRecord] | None:
    """Seq and record of `key` in the tree below `root`. Raises: BlocksNeeded, CorruptTree."""
    found: Found | None = find(reader, root, key)
    if found is None:
        return None
    seq, record = found
    if record is None:
        record = reader.record(seq)
        if record.key != key:
            raise CorruptTree(seq, "another key than its tree node says")
    return seq, record


def _name(name: str | bytes) -> bytes:
    return name.encode() if isinstance(name, str) else name
