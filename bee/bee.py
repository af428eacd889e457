"""A sorted key-value store on an append-only log: Hyperbee, byte for byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack, overload

from bee.batch import Batch, Entry, Expected, delete_step, put_step
from bee.cache import DEFAULT_CACHE_BYTES, CacheStatistics
from bee.changes import TreeChanges
from bee.compaction import SAMPLES, Compaction, Compactor, DeadEstimate, estimate_dead
from bee.erasure import Eraser, Erasure
from bee.errors import CorruptTree
from bee.extension import HyperbeeExtension
from bee.keyspace import BINARY, Bounds, Codec, K, Keyspace, V, encode_name
from bee.log import Log, LogPeer
from bee.lone_put import plan_put
from bee.messages import Header, Metadata
from bee.node_reader import BlocksNeeded
from bee.readable_bee import Moment, ReadableBee
from bee.rewriting import Mover
from bee.snapshot import Snapshot as Snapshot
from bee.tree import PAUSE_EFFORT, ReadCounter, Tree
from bee.watching import KeyWatch, LiveHistory, Version, Watch, Watchers
from bee.writer import CHANGE_EFFORT, Writer
from hypercore.errors import OutOfRange, UsageError
from hypercore.given_blocks import check_numbers

A = TypeVar("A")
B = TypeVar("B")

PUT_EFFORT = 8


class Bee(ReadableBee[K, V]):
    """A bee as it is now, and the way to change it.

    Keys and values are bytes unless codecs say otherwise; a value may be None. Reads are
    those of a fresh `snapshot()`. One bee per log: its cache of `cache_bytes` is shared by
    its snapshots and sub-databases, and it answers the `hyperbee` extension for the log.
    """

    __slots__ = (
        "_always_duplicate",
        "_header",
        "_latest",
        "_watchers",
    )

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

        That holds in subs, too, where the original forgets it.

        `metadata` goes into the header of a bee that has none yet.
        """
        tree = Tree(log, cache_bytes)
        # The overloads say which codec belongs to which K and V.
        keyspace: Keyspace[K, V] = Keyspace(key_encoding, value_encoding)  # type: ignore[arg-type]
        super().__init__(tree, HyperbeeExtension(tree) if extension else None, keyspace)
        self._header = Header(metadata=metadata).encode()
        self._always_duplicate = always_duplicate
        self._latest: Snapshot[K, V] | None = None
        self._watchers = Watchers()

    @property
    def version(self) -> int:
        """Length of the log, at least 1. Every length that an append led to can be read."""
        return max(self._tree.log.length, 1)

    @property
    def is_writable(self) -> bool:
        return self._tree.log.is_writable

    @property
    def key_encoding(self) -> Codec[K]:
        return self._keyspace.keys

    @property
    def value_encoding(self) -> Codec[V]:
        return self._keyspace.values

    def cache_statistics(self) -> CacheStatistics:
        return self._tree.cache.statistics()

    async def header(self) -> Header:
        """What block 0 says. Raises: NotABee, UnknownFormat, BlockNotAvailable of our own log."""
        return await self._tree.header(ReadCounter())

    @overload
    def sub(self, name: str | bytes, *, separator: bytes | None = None) -> Bee[K, V]: ...
    @overload
    def sub(
        self, name: str | bytes, *, separator: bytes | None = None, key_encoding: Codec[A]
    ) -> Bee[A, V]: ...
    @overload
    def sub(
        self, name: str | bytes, *, separator: bytes | None = None, value_encoding: Codec[B]
    ) -> Bee[K, B]: ...
    @overload
    def sub(
        self,
        name: str | bytes,
        *,
        separator: bytes | None = None,
        key_encoding: Codec[A],
        value_encoding: Codec[B],
    ) -> Bee[A, B]: ...

    def sub(
        self,
        name: str | bytes,
        *,
        separator: bytes | None = None,
        key_encoding: Codec[Any] | None = None,
        value_encoding: Codec[Any] | None = None,
    ) -> Bee[Any, Any]:
        """The keys that start with `name` and a separator (a zero byte), shown without them.

        `separator` is not passed on to deeper subs, as in the original; codecs are.
        """
        keyspace = self._keyspace.sub(
            encode_name(name),
            separator,
            key_encoding or self._keyspace.keys,
            value_encoding or self._keyspace.values,
        )
        return self._with_keyspace(keyspace)

    def encoded(self, *, key_encoding: Codec[A], value_encoding: Codec[B]) -> Bee[A, B]:
        """The same keys and values, read and written by other codecs."""
        return self._with_keyspace(self._keyspace.encoded(key_encoding, value_encoding))

    def _with_keyspace(self, keyspace: Keyspace[A, B]) -> Bee[A, B]:
        bee: Bee[A, B] = Bee.__new__(Bee)
        ReadableBee.__init__(bee, self._tree, self._extension, keyspace)
        bee._header = self._header
        bee._always_duplicate = self._always_duplicate
        bee._latest = None
        bee._watchers = self._watchers
        return bee

    def snapshot(self, *, is_held: bool = True) -> Snapshot[K, V]:
        """The present version. A compaction may take away one that is not `is_held`.

        Raises: NotABee, UnknownFormat, if the first block is here.
        """
        version, fork, _ = self._moment()
        return Snapshot(self._tree, self._extension, self._keyspace, version, fork, is_held=is_held)

    def checkout(self, version: int) -> Snapshot[K, V]:
        """An older version: the bee when its log had that length.

        Raises: OutOfRange, and as `snapshot`. Inside a batch there is no version to check out.
        """
        check_numbers("a version", version)
        self._tree.check_header()
        if not 0 <= version <= self.version:
            raise OutOfRange(version, self.version + 1)
        tree = self._tree
        fork = tree.current_fork()
        return Snapshot(tree, self._extension, self._keyspace, max(version, 1), fork)

    def push(self, peer: LogPeer, ranges: Iterable[tuple[K, K]]) -> int:
        """Send a peer of the log the blocks that it needs to read [start, stop); returns how many.

        For protocols of your own: the peer must have called `expect_pushes`. Blocks that it has, or
        that were sent on its connection, are left out. Nothing is awaited; the blocks leave when
        the connection can carry them.
        """
        if self._extension is None:
            return 0
        encode = self._keyspace.encode_key
        encoded = [(encode(start), encode(stop)) for start, stop in ranges]
        return self._extension.push_ranges(peer, encoded)

    def expect_pushes(self, peer: LogPeer) -> bool:
        """Take blocks that this peer will `push`, for as many as one question may bring.

        False where they are not taken: from a peer that announced some and did not send them,
        or without the extension.
        """
        return self._extension is not None and self._extension.expect_pushes(peer)

    def _moment(self) -> Moment:
        tree = self._tree
        tree.check_header()
        return Moment(self.version, tree.current_fork(), ReadCounter())

    def get(self, key: K) -> Awaitable[Entry[K, V] | None]:
        """The entry of `key` in the version that is here, None if there is none.

        JavaScript asks peers for a newer version first: `get_newest`.
        """
        latest, log = self._latest, self._tree.log
        if latest is None or latest.version != log.length or latest.fork != log.fork:
            latest = self._latest = self.snapshot(is_held=False)
        return latest.get(key)

    async def get_newest(self, key: K) -> Entry[K, V] | None:
        """The entry in the newest version that a connected peer has, or in ours.

        Head and value are asked for together, also of peers that are connecting: for a bee of which
        nothing is here, that takes no longer than the head alone. Where nobody is yet, ours it is,
        at once, unless somebody is looked for: `Core.finding_peers`.

        Cancel: the newer version, or blocks of it, may have arrived.
        """
        if self._extension is None:
            await self._tree.log.update()
            return await self.get(key)
        question = await self._extension.update_for(self._keyspace.encode_key(key))
        return await self.snapshot().get_asked(key, question)

    def live_history(self, *, gte: int | None = None) -> LiveHistory[K, V]:
        """As `history`, but without end: what is appended follows.

        From the seq `gte` on, counted back from `version` if it is negative; None means from now
        on.
        """
        start = self.version if gte is None else gte + self.version * (gte < 0)
        return LiveHistory(self._tree, self, max(start, 1))

    async def put(
        self,
        key: K,
        value: V | None,
        *,
        cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None = None,
        expected: V | Expected | None = Expected.ANYTHING,
    ) -> bool:
        """Put a value; returns, when it is durable, whether anything was written.

        If the key exists, `cas(previous, next)` may refuse. `expected` is a
        value (None is one) or `Expected.ABSENT`: nothing is written unless the key has just that.

        Raises: NotWritable, NotABee, CorruptTree, and what the log raises.
        Cancel: the value may have been put.
        """
        if cas is None and expected is Expected.ANYTHING and self._always_duplicate:
            keyspace = self._keyspace
            encoded, encoded_value = keyspace.encode_key(key), keyspace.encode_value(value)
            if await self._put_alone(encoded, encoded_value):
                return True
        return await self._write(put_step(self._keyspace, key, value, cas, expected))

    async def _put_alone(self, key: bytes, value: bytes | None) -> bool:
        """Make the put if it is a simple one; whether it was."""
        tree = self._tree
        tree.effort += PUT_EFFORT + CHANGE_EFFORT
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()
        async with tree.log.exclusive():
            tree.current_fork()
            version = tree.log.length
            if version:
                tree.check_header()
            try:
                planned = plan_put(tree.reader, version, key, value)
            except BlocksNeeded:
                return False
            except CorruptTree as error:
                tree.refuse(error)
            if planned is None:
                return False
            tree.log.append_nowait((planned.block,))
            tree.cache.exchange(planned.replaced, planned.brought)
        await tree.log.wait_durable()
        return True

    async def delete(
        self,
        key: K,
        *,
        cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None = None,
        expected: V | Expected | None = Expected.ANYTHING,
    ) -> bool:
        """Delete a key; returns, when it is durable, whether it was there.

        `cas(previous, next)` may refuse; the value of `next` is None. `expected`: as `put`.

        Raises and Cancel: as `put`.
        """
        return await self._write(delete_step(self._keyspace, key, cas, expected))

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
        keep: Iterable[K] = (),
        local: Mapping[bytes, bytes | None] | None = None,
        **bounds: Unpack[Bounds[K]],
    ) -> Erasure:
        """Delete all keys between the bounds and give up every block that was ever about them.

        Keys in `keep` keep their present values. The deletion is one atomic step with `local` rows
        (as in `Batch.flush`); the blocks follow, by `finish_erasures` after a crash. Older versions
        may not be readable afterwards. The bytes are gone from the files of the store after
        `Corestore.reclaim`.

        The first erasure reads all blocks of the log, each later one those appended since
        (`block_index`). The history shows an erasure as the deletion of an empty key.

        Raises: NotWritable, CorruptTree, and what the log raises.
        Cancel: nothing was changed, or `finish_erasures` does the rest.
        """
        keyspace = self._keyspace
        kept = frozenset(keyspace.encode_key(key) for key in keep)
        return await self._eraser().erase(keyspace.between(**bounds), kept, local or {})

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
        """Give up all blocks of the log that no kept version needs, in all subs.

        Kept are the present, each of `versions`, and from the version `since` on all versions and
        the history. Without either argument, nodes may be moved to free more blocks: the present
        then becomes a new version, and those before it may not be readable.

        Kept as well is what snapshots in use show, what is watched, and what a live history has
        still to tell. Other reads of the bee itself may end with BlockNotAvailable, as may those
        that begin meanwhile with an old version.

        `prune` gives up the part of the Merkle tree that proves only blocks that are gone, most
        of it where most are gone. Peers that are connected or at one of `lengths` can go on
        following the log; others that were away may have to fetch it anew.

        `dry_run` changes nothing and tells about what would go, pruning left out. Others may write
        meanwhile; the files shrink with `Corestore.reclaim`.

        Raises: NotWritable, OutOfRange, CorruptTree, HistoryReplaced when the log is truncated
        meanwhile, and what the log raises.
        Cancel: blocks that nobody needs are gone in part; call again for the rest.
        """
        versions = tuple(versions)
        check_numbers("a version", since, *versions)
        tree = self._tree
        compactor = Compactor(tree, Mover(self._keyspace.keys), self._watchers.versions)
        return await compactor.compact(since, versions, lengths if prune else None, dry_run=dry_run)

    async def dead_share(self, samples: int = SAMPLES) -> float:
        """About what share (of 1) of the blocks held here is dead: what `compact` would free.

        Looks at `samples` blocks; with 256 it is within 0.06 of the truth 19 times out of 20.
        Raises: CorruptTree. Cancel: nothing changes.
        """
        return (await self.estimate_dead(samples)).block_share

    async def estimate_dead(self, samples: int = SAMPLES) -> DeadEstimate:
        """As `dead_share`, and in bytes, more exactly the more alike the blocks are in size.

        Raises and Cancel: as `dead_share`.
        """
        return await estimate_dead(self._tree, samples)

    def watch(
        self,
        *,
        prefix: K | None = None,
        since: Version | None = None,
        **bounds: Unpack[Bounds[K]],
    ) -> Watch[K, V]:
        """Be told what changes: `with bee.watch(...) as updates: async for update in updates`.

        Between the bounds, or below `prefix`, or anywhere; from now on, or from where another watch
        stopped (`Watch.version`). A slow reader gets fewer, larger updates.

        Raises: UsageError for bounds beside a prefix, HistoryReplaced for a `since` of
        another fork, OutOfRange for one that the log has not reached.
        """
        keyspace = self._keyspace
        key_range = keyspace.between(**bounds)
        if prefix is not None:
            if any(bound is not None for bound in bounds.values()):
                raise UsageError("a prefix and bounds exclude one another")
            key_range = keyspace.prefix_range(prefix)
        now = Version(self.version, self._tree.current_fork())
        start = now if since is None else since
        self._tree.check_fork(start.fork)
        if not 0 <= start.version <= now.version:
            raise OutOfRange(start.version, now.version + 1)
        return Watch(self._tree, self._watchers, keyspace, key_range, start)

    def watch_key(self, key: K) -> KeyWatch[K, V]:
        """The entry of `key` now and after each change: `with ... as entries: async for ...`."""
        return KeyWatch(self, key, self.watch(gte=key, lte=key))

    def batch(self) -> Batch[K, V]:
        """Changes that are appended together: `async with bee.batch() as batch: ...`."""
        return Batch(
            self._tree, self._keyspace, self._header, always_duplicate=self._always_duplicate
        )
