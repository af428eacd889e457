"""One version of a bee, for reading."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, overload

from bee.batch import Entry, decode_entries, decode_entry, entry_decoder
from bee.descent import Stored, look_up
from bee.diff import DiffCursor, gather
from bee.errors import CorruptTree
from bee.extension import HyperbeeExtension
from bee.keyspace import Codec, K, Keyspace, V, encode_name
from bee.messages import NodeRecord
from bee.node_reader import BlocksNeeded, NodeReader, root_ref
from bee.ranges import HistoryCursor, RangeCursor, Results, history_seqs
from bee.tree import PAUSE_EFFORT, ReadCounter, ReadStatistics, Tree
from hypercore.errors import OutOfRange

A = TypeVar("A")
B = TypeVar("B")

GET_EFFORT = 5


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

    __slots__ = (
        "_counter",
        "_extension",
        "_keyspace",
        "_root",
        "_show",
        "_tree",
        "fork",
        "version",
    )

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
        self._show = entry_decoder(keyspace)
        self.fork = fork
        self._root = root_ref(version)
        self._counter = ReadCounter()
        self.version = version

    @property
    def reads(self) -> ReadStatistics:
        """What all reads of this snapshot (not of its subs) had to wait for, so far."""
        return self._counter.statistics

    @overload
    def sub(self, name: str | bytes, *, separator: bytes | None = None) -> Snapshot[K, V]: ...
    @overload
    def sub(
        self, name: str | bytes, *, separator: bytes | None = None, key_encoding: Codec[A]
    ) -> Snapshot[A, V]: ...
    @overload
    def sub(
        self, name: str | bytes, *, separator: bytes | None = None, value_encoding: Codec[B]
    ) -> Snapshot[K, B]: ...
    @overload
    def sub(
        self,
        name: str | bytes,
        *,
        separator: bytes | None = None,
        key_encoding: Codec[A],
        value_encoding: Codec[B],
    ) -> Snapshot[A, B]: ...

    def sub(
        self,
        name: str | bytes,
        *,
        separator: bytes | None = None,
        key_encoding: Codec[Any] | None = None,
        value_encoding: Codec[Any] | None = None,
    ) -> Snapshot[Any, Any]:
        """The sub-database `name` in this version, with the same codecs unless others are given."""
        keyspace = self._keyspace.sub(
            encode_name(name),
            separator,
            key_encoding or self._keyspace.keys,
            value_encoding or self._keyspace.values,
        )
        return Snapshot(self._tree, self._extension, keyspace, self.version, self.fork)

    def encoded(self, *, key_encoding: Codec[A], value_encoding: Codec[B]) -> Snapshot[A, B]:
        """The same keys and values, read by other codecs."""
        keyspace = self._keyspace.encoded(key_encoding, value_encoding)
        return Snapshot(self._tree, self._extension, keyspace, self.version, self.fork)

    async def get(self, key: K) -> Entry[K, V] | None:
        """The entry of `key`, None if there is none."""
        encoded = self._keyspace.encode_key(key)
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
        except CorruptTree as error:
            tree.refuse(error)
        return None if found is None else self._show(found)

    async def _look_up(self, key: bytes) -> Stored | None:
        def step(reader: NodeReader) -> Stored | None:
            return look_up(reader, self._root, key)

        def ask(lacking: int) -> None:
            if self._extension is not None:
                self._extension.ask_keys(self.version, (key,), lacking)

        return await self._tree.read(step, self._counter, ask)

    async def get_many(self, keys: Iterable[K]) -> list[Entry[K, V] | None]:
        """The entries of several keys, in their order; what is missing is asked for at once.

        Of a remote bee it takes as many round trips as the slowest of them alone.
        """
        keyspace = self._keyspace
        encoded = [keyspace.encode_key(key) for key in keys]
        root = self._root
        if not root or not encoded:
            return [None] * len(encoded)
        self._tree.check_fork(self.fork)

        def step(reader: NodeReader) -> list[Stored | None]:
            return gather([partial(look_up, reader, root, key) for key in encoded])

        def ask(lacking: int) -> None:
            if self._extension is not None:
                self._extension.ask_keys(self.version, encoded, lacking)

        self._tree.effort += GET_EFFORT * len(encoded)
        if self._tree.effort >= PAUSE_EFFORT:
            await self._tree.pause()
        found = await self._tree.read(step, self._counter, ask)
        return [None if each is None else self._show(each) for each in found]

    async def get_by_seq(self, seq: int) -> Entry[K, V]:
        """What block `seq` put, in this sub-database or another; a deletion has the value None.

        Raises: OutOfRange unless 0 < seq < version.
        """
        if not 0 < seq < self.version:
            raise OutOfRange(seq, self.version)
        self._tree.check_fork(self.fork)
        record = await self._tree.read(lambda reader: reader.record(seq), self._counter)
        return decode_entry(Keyspace(self._keyspace.keys, self._keyspace.values), seq, record)

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
        decode = partial(decode_entries, self._keyspace)
        cursor = RangeCursor(self._root, bounds, decode, since)

        def ask(lacking: int) -> None:
            # Peers would name all of the range.
            if self._extension is not None and not since:
                self._extension.ask_range(self.version, bounds, cursor.last_key, lacking)

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

        def decode(
            seqs: Sequence[int],
            keys: Sequence[bytes],
            values: Sequence[bytes | None],
            deletions: Container[int],
        ) -> list[Change[K, V]]:
            entries = decode_entries(keyspace, seqs, keys, values)
            return [Change(*entry, entry[0] in deletions) for entry in entries]

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

        def ask(lacking: int) -> None:
            if self._extension is not None:
                self._extension.ask_diff(self.version, version, bounds, cursor.last_key, lacking)

        return Results(self._tree, self.fork, cursor, self._counter, ask)
