"""Secondary indexes: rows that are also found by something in their value.

An indexed bee keeps its rows in the sub-database `rows` and, for each index, keys in a sub-database
of `index`: what the index says of a row, and after it the row's key. Both are written in one batch,
so a reader never sees one without the other. All of it is an ordinary bee: any reader, even a
JavaScript one, can read it, and a remote one fetches and proves just the part of an index that it
asks for.

| key                                     | value                                           |
|-----------------------------------------|-------------------------------------------------|
| `rows`, 00, key                         | the row                                         |
| `index`, 00, name, 00, term, 00 01, key | empty; in the term 00 is written 00 ff          |
| `built`, 00, name                       | revision, stage, and how far the stage has come |

An index that is new, or whose revision has changed, has to be built before it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from bee.batch import Edits, Entry
from bee.bee import Bee
from bee.errors import CorruptTree, IndexNotBuilt
from bee.keyspace import BINARY, UTF8, Bounds, K, V
from bee.ranges import Results
from bee.snapshot import Snapshot
from hypercore.encoding import Reader, encode_buffer, encode_uint
from hypercore.errors import UsageError

BUILT_AT_ONCE = 256
"""Rows in one batch while an index is built."""

READ_AT_ONCE = 64
"""Rows fetched together while an index is read."""

# An index of more than a bee holds suits it, too.
K_contra = TypeVar("K_contra", contravariant=True)
V_contra = TypeVar("V_contra", contravariant=True)

_END = b"\0\1"
_PAST_END = b"\0\2"


@dataclass(frozen=True)
class Index(Generic[K_contra, V_contra]):
    """What rows can be found by: `terms(key, value)` is pure and gives any number of them.

    Change `revision` whenever `terms` changes what it gives. Raises: UsageError for a name
    that is empty or holds a zero byte.
    """

    name: str
    terms: Callable[[K_contra, V_contra | None], Iterable[bytes]]
    revision: int = 1

    def __post_init__(self) -> None:
        if not self.name or "\0" in self.name:
            raise UsageError(f"{self.name!r} cannot be the name of an index")

    def terms_of(self, key: K_contra, value: V_contra | None) -> set[bytes]:
        """Raises: TypeError when `terms` gives something else, and what it raises."""
        given: Iterable[object] = self.terms(key, value)
        found = set(given)
        terms = {term for term in found if isinstance(term, bytes)}
        if isinstance(given, bytes) or len(terms) < len(found):
            raise TypeError(f"the terms of index {self.name!r} must be a list of bytes")
        return terms


class BuildProgress(NamedTuple):
    """How far the building of an index has come: `rows` are in it."""

    name: str
    rows: int


class Found(NamedTuple, Generic[K, V]):
    """A row, and the term by which it was found."""

    term: bytes
    entry: Entry[K, V]


class _Stage(IntEnum):
    CLEARING = 0
    """Entries of an earlier revision are removed."""

    FILLING = 1
    COMPLETE = 2


class _Built(NamedTuple):
    revision: int
    stage: _Stage
    rows: int = 0
    last_key: bytes = b""
    """The last of the rows that are in the index, while it is filled."""

    def encode(self) -> bytes:
        numbers = self.revision, self.stage, self.rows
        return b"".join(map(encode_uint, numbers)) + encode_buffer(self.last_key)

    @classmethod
    def decode(cls, entry: Entry[str, bytes]) -> _Built:
        """Raises: CorruptTree."""
        reader = Reader(entry.value or b"")
        try:
            return cls(reader.uint(), _Stage(reader.uint()), reader.uint(), reader.buffer())
        except ValueError as error:
            raise CorruptTree(entry.seq, f"state of an index: {error}") from error


class IndexedBee(Generic[K, V]):
    """A bee with indexes. Change its rows only through this: other writers leave indexes behind."""

    def __init__(self, bee: Bee[K, V], indexes: Sequence[Index[K, V]]) -> None:
        """Raises: UsageError for two indexes of one name."""
        self.bee = bee
        self.indexes = {index.name: index for index in indexes}
        if len(self.indexes) != len(indexes):
            raise UsageError("two indexes have the same name")
        self.rows: Bee[K, V] = bee.sub("rows")
        """For reading: get, ranges, watches."""

        self._stored_rows = self.rows.encoded(
            key_encoding=BINARY, value_encoding=bee.value_encoding
        )
        self._entries = bee.sub("index", key_encoding=BINARY, value_encoding=BINARY)
        self._checked: dict[str, tuple[int, int]] = {}
        self._dropped_in: int | None = None
        """The fork of the log in which undeclared indexes count as not built."""

    async def put(self, key: K, value: V | None) -> None:
        """Put a row and what the indexes say of it. Raises and Cancel: as `Bee.put`."""
        async with self.batch() as batch:
            await batch.put(key, value)

    async def delete(self, key: K) -> bool:
        """Delete a row; whether it was there. Raises and Cancel: as `Bee.delete`."""
        async with self.batch() as batch:
            return await batch.delete(key)

    def batch(self) -> IndexedBatch[K, V]:
        """Rows that are changed together: `async with indexed.batch() as batch: ...`."""
        return IndexedBatch(self)

    def by(self, name: str) -> IndexReader[K, V]:
        """Read rows by what an index says of them. Raises: UsageError for an unknown index."""
        index = self.indexes.get(name)
        if index is None:
            raise UsageError(f"there is no index {name!r}")
        return IndexReader(self, index)

    def build(self) -> Build[K, V]:
        """Bring all indexes up to date: `async for progress in indexed.build(): ...`.

        One step for each batch of `BUILT_AT_ONCE` rows. Others read and write meanwhile. What was
        done stays done: where one build is stopped, the next goes on.

        Raises: as `Batch.flush`, and what `terms` raises.
        """
        return Build(self)

    async def drop_others(self, built: Edits[str, bytes]) -> int:
        """Called by batches: indexes that are not declared any more count as not built.

        From now on rows change without them. Returns the fork for which this holds: after a
        truncation of the log they may be back.
        """
        fork = self.bee.snapshot(is_held=False).fork
        if fork != self._dropped_in:
            states = self.bee.sub("built", key_encoding=UTF8, value_encoding=BINARY)
            async for entry in states.range():
                if entry.key not in self.indexes:
                    await built.delete(entry.key)
        return fork

    def dropped_others(self, fork: int) -> None:
        """Called by batches once that is written."""
        self._dropped_in = fork

    async def build_some(self, index: Index[K, V]) -> BuildProgress | None:
        """The next batch of rows for an index; None when it is complete. Raises: as `build`."""
        async with self.batch() as batch:
            entry = await batch.built.get(index.name)
            state = None if entry is None else _Built.decode(entry)
            if state is None or state.revision != index.revision:
                state = _Built(index.revision, _Stage.CLEARING)
            if state.stage is _Stage.COMPLETE:
                return None
            if state.stage is _Stage.CLEARING:
                state = await self._clear_some(batch, index, state)
            else:
                state = await self._fill_some(batch, index, state)
            await batch.built.put(index.name, state.encode())
        return BuildProgress(index.name, state.rows)

    async def _clear_some(
        self, batch: IndexedBatch[K, V], index: Index[K, V], state: _Built
    ) -> _Built:
        entries = self._entries.sub(index.name)
        stale = [entry.key async for entry in entries.range(limit=BUILT_AT_ONCE)]
        for key in stale:
            await batch.entries(index).delete(key)
        is_more = len(stale) == BUILT_AT_ONCE
        return state if is_more else _Built(state.revision, _Stage.FILLING)

    async def _fill_some(
        self, batch: IndexedBatch[K, V], index: Index[K, V], state: _Built
    ) -> _Built:
        # A range of a sub that is open below leaves out its first two keys: "" and "\0".
        start: Bounds[bytes] = {"gt": state.last_key} if state.rows else {"gte": b""}
        stored = self._stored_rows.range(limit=BUILT_AT_ONCE, **start)
        rows = [entry async for entry in stored]
        entries = batch.entries(index)
        for seq, key, value in rows:
            for term in index.terms_of(self.decode_key(key, seq), value):
                await entries.put(_entry_key(term, key), b"")
        if len(rows) < BUILT_AT_ONCE:
            return _Built(state.revision, _Stage.COMPLETE, state.rows + len(rows))
        return _Built(state.revision, _Stage.FILLING, state.rows + len(rows), rows[-1].key)

    def decode_key(self, key: bytes, seq: int) -> K:
        """The key of a row; `seq` is the block that names it. Raises: CorruptTree."""
        try:
            return self.bee.key_encoding.decode(key)
        except ValueError as error:
            raise CorruptTree(seq, f"undecodable key: {error}") from error

    async def check_built(self, snapshot: Snapshot[K, V], index: Index[K, V]) -> None:
        """Raises: IndexNotBuilt, CorruptTree."""
        version = snapshot.version, snapshot.fork
        if self._checked.get(index.name) == version:
            return
        states = snapshot.sub("built", key_encoding=UTF8, value_encoding=BINARY)
        entry = await states.get(index.name)
        state = None if entry is None else _Built.decode(entry)
        if state is None or (state.revision, state.stage) != (index.revision, _Stage.COMPLETE):
            raise IndexNotBuilt(index.name, index.revision, state and state.revision)
        self._checked[index.name] = version


class Build(Generic[K, V]):
    """The building of indexes, step by step."""

    __slots__ = ("_indexed", "_left")

    def __init__(self, indexed: IndexedBee[K, V]) -> None:
        self._indexed = indexed
        self._left = list(indexed.indexes.values())

    def __aiter__(self) -> Build[K, V]:
        return self

    async def __anext__(self) -> BuildProgress:
        """Raises: as `IndexedBee.build`. Cancel: the step may have been made."""
        while self._left:
            index = self._left[0]
            progress = await self._indexed.build_some(index)
            if progress is not None:
                return progress
            if self._left[:1] == [index]:  # else another task that shares this has removed it
                del self._left[0]
        raise StopAsyncIteration


class IndexedBatch(Generic[K, V]):
    """Rows that are changed together with all indexes, or not at all. As `Batch`."""

    def __init__(self, indexed: IndexedBee[K, V]) -> None:
        bee = indexed.bee
        self._indexed = indexed
        self._batch = bee.batch()
        self._rows = self._batch.sub(
            "rows", key_encoding=bee.key_encoding, value_encoding=bee.value_encoding
        )
        self._index = self._batch.sub("index", key_encoding=BINARY, value_encoding=BINARY)
        self._dropped_in: int | None = None
        self._pending: deque[tuple[Edits[bytes, bytes], bytes, bool]] = deque()
        """Entries of rows that were changed: where, which, and whether it comes or goes."""
        self.built = self._batch.sub("built", key_encoding=UTF8, value_encoding=BINARY)

    async def __aenter__(self) -> IndexedBatch[K, V]:
        await self._batch.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                await self._finish()
            except BaseException as failure:
                await self._batch.__aexit__(type(failure), failure, failure.__traceback__)
                raise
        await self._batch.__aexit__(kind, error, trace)
        if error is None and self._dropped_in is not None:
            self._indexed.dropped_others(self._dropped_in)

    def entries(self, index: Index[K, V]) -> Edits[bytes, bytes]:
        """The entries of one index, in this batch."""
        return self._index.sub(index.name, key_encoding=BINARY, value_encoding=BINARY)

    async def get(self, key: K) -> Entry[K, V] | None:
        """Raises: CorruptTree, BatchEnded."""
        return await self._rows.get(key)

    async def put(self, key: K, value: V | None) -> None:
        """Raises: CorruptTree, BatchEnded, and what `terms` raises: the row stays as it was.

        Cancel: it may have been changed; what the indexes then lack, they get before anything else.
        """
        await self._prepare()
        old = await self._rows.get(key)
        pending = self._changes(key, old, Entry(0, key, value))
        await self._rows.put(key, value)
        self._pending += pending
        await self._finish()

    async def delete(self, key: K) -> bool:
        """Whether it was there. Raises and Cancel: as `put`."""
        await self._prepare()
        old = await self._rows.get(key)
        if old is None:
            return False
        pending = self._changes(key, old, None)
        await self._rows.delete(key)
        self._pending += pending
        await self._finish()
        return True

    def _changes(
        self, key: K, old: Entry[K, V] | None, new: Entry[K, V] | None
    ) -> list[tuple[Edits[bytes, bytes], bytes, bool]]:
        """The entries that go and those that come, as in `_pending`."""
        encoded = self._indexed.bee.key_encoding.encode(key)
        changes = []
        for index in self._indexed.indexes.values():
            before = set() if old is None else index.terms_of(key, old.value)
            after = set() if new is None else index.terms_of(key, new.value)
            entries = self.entries(index)
            for terms, comes in ((before - after, False), (after - before, True)):
                changes += [(entries, _entry_key(term, encoded), comes) for term in sorted(terms)]
        return changes

    async def _prepare(self) -> None:
        await self._finish()
        if self._dropped_in is None:
            self._dropped_in = await self._indexed.drop_others(self.built)

    async def _finish(self) -> None:
        """Make the entries fit the rows; if interrupted, the next call does the rest."""
        pending = self._pending
        while pending:
            entries, entry_key, comes = pending[0]
            if comes:
                await entries.put(entry_key, b"")
            else:
                await entries.delete(entry_key)
            pending.popleft()


class IndexReader(Generic[K, V]):
    """Rows by one index. Each read sees one version of the index and of the rows."""

    __slots__ = ("_index", "_indexed")

    def __init__(self, indexed: IndexedBee[K, V], index: Index[K, V]) -> None:
        self._indexed = indexed
        self._index = index

    async def get(self, term: bytes) -> list[Entry[K, V]]:
        """All rows with this term, in the order of their keys. Raises: as `range`."""
        return [found.entry async for found in self.range(gte=term, lte=term)]

    def range(
        self,
        *,
        gt: bytes | None = None,
        gte: bytes | None = None,
        lt: bytes | None = None,
        lte: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> IndexResults[K, V]:
        """Rows in the order of their terms, and of their keys; bounds are terms.

        A row comes once for each of its terms. Reading raises IndexNotBuilt, CorruptTree and
        what the log raises. Cancel: as `Results`.
        """
        lower = gte if gt is None else gt
        upper = lte if lt is None else lt
        snapshot = self._indexed.bee.snapshot()
        entries = snapshot.sub("index", key_encoding=BINARY, value_encoding=BINARY)
        keys = entries.sub(self._index.name).range(
            gte=None if lower is None else _escape(lower) + (_END if gt is None else _PAST_END),
            lt=None if upper is None else _escape(upper) + (_PAST_END if lt is None else _END),
            reverse=reverse,
            limit=limit,
        )
        return IndexResults(self._indexed, self._index, snapshot, keys)


class IndexResults(Generic[K, V]):
    """An asynchronous iterator of `Found`; rows are fetched in groups that grow.

    Several tasks may share one.
    """

    __slots__ = ("_group", "_index", "_indexed", "_keys", "_ready", "_snapshot", "_taken")

    def __init__(
        self,
        indexed: IndexedBee[K, V],
        index: Index[K, V],
        snapshot: Snapshot[K, V],
        keys: Results[Entry[bytes, bytes]],
    ) -> None:
        self._indexed = indexed
        self._index = index
        self._snapshot = snapshot
        self._keys = keys
        self._group = 4
        self._taken: list[tuple[bytes, bytes, int]] = []
        """Their rows are read next, by each task that waits, since any may be cancelled."""

        self._ready: list[Found[K, V]] = []

    def __aiter__(self) -> IndexResults[K, V]:
        return self

    async def __anext__(self) -> Found[K, V]:
        """Raises: IndexNotBuilt, CorruptTree, HistoryReplaced."""
        while not self._ready:
            await self._indexed.check_built(self._snapshot, self._index)
            await self._take_keys()
            taken = list(self._taken)
            if not taken and not self._ready:
                raise StopAsyncIteration
            found = await self._rows(taken)
            if taken[:1] == self._taken[:1]:  # else another task has read these rows meanwhile
                del self._taken[: len(taken)]
                self._ready[:0] = reversed(found)
                self._group = min(2 * self._group, READ_AT_ONCE)
        return self._ready.pop()

    async def _take_keys(self) -> None:
        """Go on to the keys that come next, up to a group. Cancel: some were added."""
        while len(self._taken) < self._group:
            try:
                entry = await self._keys.__anext__()
            except StopAsyncIteration:
                return
            self._taken.append((*_parse_entry_key(entry), entry.seq))

    async def _rows(self, taken: list[tuple[bytes, bytes, int]]) -> list[Found[K, V]]:
        keys = [self._indexed.decode_key(key, seq) for _, key, seq in taken]
        found = []
        for row, (term, key, seq) in zip(
            await self._snapshot.sub("rows").get_many(keys), taken, strict=True
        ):
            if row is None:
                raise CorruptTree(seq, f"an index names the row {key!r}, which is not there")
            found.append(Found(term, row))
        return found


def _escape(term: bytes) -> bytes:
    return term.replace(b"\0", b"\0\xff")


def _entry_key(term: bytes, key: bytes) -> bytes:
    return _escape(term) + _END + key


def _parse_entry_key(entry: Entry[bytes, bytes]) -> tuple[bytes, bytes]:
    """Term and key. Raises: CorruptTree."""
    term, end, key = entry.key.partition(_END)
    if not end:
        raise CorruptTree(entry.seq, "an entry of an index without a key")
    return term.replace(b"\0\xff", b"\0"), key
