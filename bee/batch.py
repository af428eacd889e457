"""Many changes, one append."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, Unpack

from bee.changes import Compare, TreeChanges
from bee.descent import Stored
from bee.errors import BatchEnded
from bee.keyspace import Bounds, Codec, K, KeyRange, Keyspace, V, encode_name
from bee.messages import NodeRecord
from bee.tree import Tree
from bee.writer import Writer

A = TypeVar("A")
B = TypeVar("B")


class Entry(NamedTuple, Generic[K, V]):
    """A key and its value; `seq` is the index of the block that put it."""

    seq: int
    key: K
    value: V | None


class Expected(Enum):
    """What a change may find before it, besides a certain value."""

    ANYTHING = "anything"
    ABSENT = "absent"
    """No entry; one that is there stays."""


class Edits(ABC, Generic[K, V]):
    """Reads and changes of a batch in one sub-database. Reads see the changes so far."""

    __slots__ = ("_keyspace",)

    def __init__(self, keyspace: Keyspace[K, V]) -> None:
        self._keyspace = keyspace

    @abstractmethod
    def _open_writer(self) -> Writer:
        """Raises: BatchEnded."""

    def sub(
        self,
        name: str | bytes,
        *,
        separator: bytes | None = None,
        key_encoding: Codec[A],
        value_encoding: Codec[B],
    ) -> Edits[A, B]:
        """The same batch in the sub-database `name`."""
        keyspace = self._keyspace.sub(encode_name(name), separator, key_encoding, value_encoding)
        return _SubEdits(self, keyspace)

    def encoded(self, *, key_encoding: Codec[A], value_encoding: Codec[B]) -> Edits[A, B]:
        """The same batch, read and written by other codecs."""
        return _SubEdits(self, self._keyspace.encoded(key_encoding, value_encoding))

    async def get(self, key: K) -> Entry[K, V] | None:
        """Raises: CorruptTree, BatchEnded."""
        encoded = self._keyspace.encode_key(key)
        found = await self._open_writer().read(lambda changes: changes.get(encoded))
        return None if found is None else decode_entry(self._keyspace, *found)

    def range(
        self,
        *,
        reverse: bool = False,
        limit: int | None = None,
        **bounds: Unpack[Bounds[K]],
    ) -> BatchRange[K, V]:
        """The entries between the bounds as they are when each is reached, changes included.

        Each costs a descent. Raises: CorruptTree, BatchEnded.
        """
        key_range = self._keyspace.key_range(reverse=reverse, limit=limit, **bounds)
        return BatchRange(self, self._keyspace, key_range)

    async def peek(
        self, *, reverse: bool = False, **bounds: Unpack[Bounds[K]]
    ) -> Entry[K, V] | None:
        """The first entry between the bounds. Raises: CorruptTree, BatchEnded."""
        async for entry in self.range(reverse=reverse, **bounds):
            return entry
        return None

    async def put(
        self,
        key: K,
        value: V | None,
        *,
        cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None = None,
        expected: V | Expected | None = Expected.ANYTHING,
    ) -> bool:
        """Put `key`; as `Bee.put`.

        Raises: CorruptTree, BatchEnded.
        """
        writer, keyspace = self._open_writer(), self._keyspace
        if cas is None and expected is Expected.ANYTHING:
            return await writer.put(keyspace.encode_key(key), keyspace.encode_value(value))
        return await writer.change(put_step(keyspace, key, value, cas, expected))

    async def put_many(self, entries: Iterable[tuple[K, V | None]]) -> None:
        """Put them in this order, as `put` would one by one, for less.

        Raises: CorruptTree, BatchEnded.
        Cancel: some of them were put.
        """
        writer = self._open_writer()
        encode_key, encode_value = self._keyspace.encode_key, self._keyspace.encode_value
        for key, value in entries:
            await writer.put(encode_key(key), encode_value(value))

    async def delete(
        self,
        key: K,
        *,
        cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None = None,
        expected: V | Expected | None = Expected.ANYTHING,
    ) -> bool:
        """Delete `key`; as `Bee.delete`.

        Raises: CorruptTree, BatchEnded.
        """
        step = delete_step(self._keyspace, key, cas, expected)
        return await self._open_writer().change(step)


class BatchRange(Generic[K, V]):
    """Asynchronous iterator over entries of a batch; the batch may be changed meanwhile.

    Cancel: the entry that was waited for is yielded by the next call.
    """

    __slots__ = ("_edits", "_keyspace", "_left", "_range")

    def __init__(self, edits: Edits[K, V], keyspace: Keyspace[K, V], key_range: KeyRange) -> None:
        self._edits = edits
        self._keyspace = keyspace
        self._range = key_range
        self._left = key_range.limit

    def __aiter__(self) -> BatchRange[K, V]:
        return self

    async def __anext__(self) -> Entry[K, V]:
        """Raises: CorruptTree, BatchEnded."""
        if self._left == 0:
            raise StopAsyncIteration
        bounds = self._range
        found = await self._edits._open_writer().read_next(lambda changes: changes.first(bounds))
        if found is None:
            self._left = 0
            raise StopAsyncIteration
        seq, record = found
        if self._left is not None:
            self._left -= 1
        if bounds.reverse:
            self._range = replace(bounds, upper=record.key, includes_upper=False)
        else:
            self._range = replace(bounds, lower=record.key, includes_lower=False)
        return decode_entry(self._keyspace, seq, record)


class _SubEdits(Edits[K, V]):
    __slots__ = ("_batch",)

    def __init__(self, batch: Edits[Any, Any], keyspace: Keyspace[K, V]) -> None:
        super().__init__(keyspace)
        self._batch = batch

    def _open_writer(self) -> Writer:
        return self._batch._open_writer()


class Batch(Edits[K, V]):
    """Changes that are appended together, or not at all.

    `async with bee.batch() as batch:` holds the log for one writer; leaving the block appends, an
    exception that leaves it discards. Reads see the batch's own changes. After `flush()` it takes
    nothing more. It belongs to one task: left by another, it is discarded.
    """

    __slots__ = (
        "_always_duplicate",
        "_encoded_header",
        "_held",
        "_tree",
        "_writer",
    )

    def __init__(
        self, tree: Tree, keyspace: Keyspace[K, V], header: bytes, *, always_duplicate: bool
    ) -> None:
        super().__init__(keyspace)
        self._tree = tree
        self._encoded_header = header
        self._always_duplicate = always_duplicate
        self._held = AsyncExitStack()
        self._writer: Writer | None = None

    async def __aenter__(self) -> Batch[K, V]:
        await self._held.enter_async_context(self._tree.log.exclusive())
        try:
            self._writer = Writer(
                self._tree, self._encoded_header, always_duplicate=self._always_duplicate
            )
        except BaseException:
            await self._held.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises: as `flush`."""
        try:
            if error is None and self._writer is not None:
                await self.flush()
        finally:
            self._writer = None
            await self._held.aclose()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise BatchEnded("this batch was flushed, or is not open")
        return self._writer

    async def flush(self, *, local: Mapping[bytes, bytes | None] | None = None) -> None:
        """Append what was changed and end the batch; returns when it is durable.

        `local` rows (None deletes) go into the log's private key-value space in the same
        atomic step, even when there are no changes. The next writer may go on while this one
        waits for the disk.

        Raises: BatchEnded, UsageError in a task other than the batch's, and what the log raises;
        nothing was appended then.
        Cancel: the changes were appended, unless the log says otherwise; of more than a thousand
        either all or none, as the log's length tells.
        """
        writer = self._open_writer()
        self._tree.log.exclusive().check_held()  # a long batch would wait for ever for it
        self._writer = None
        try:
            if writer.is_long:
                await writer.append_long(local)
                has_appended = True
            else:
                has_appended = writer.append(local)
        finally:
            await self._held.aclose()
        if has_appended:
            await self._tree.log.wait_durable()


_new_entry: Callable[[Stored], Entry[Any, Any]]
_new_entry = partial(tuple.__new__, Entry)
"""Calling `Entry` runs a Python function, which takes twice as long."""


def decode_entry(keyspace: Keyspace[K, V], seq: int, record: NodeRecord) -> Entry[K, V]:
    """Raises: CorruptTree."""
    if keyspace.is_plain:  # then K and V are bytes
        return _new_entry((seq, record[1], record[2]))
    return Entry(
        seq, keyspace.decode_key(record.key, seq), keyspace.decode_value(record.value, seq)
    )


def entry_decoder(keyspace: Keyspace[K, V]) -> Callable[[Stored], Entry[K, V]]:
    """`decode_entry` for many of one keyspace."""
    if keyspace.is_plain:
        return _new_entry

    def decode(stored: Stored) -> Entry[K, V]:
        seq, key, value = stored
        return Entry(seq, keyspace.decode_key(key, seq), keyspace.decode_value(value, seq))

    return decode


def decode_entries(
    keyspace: Keyspace[K, V],
    seqs: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes | None],
) -> list[Entry[K, V]]:
    """`decode_entry` for many."""
    if keyspace.is_plain:
        return list(map(_new_entry, zip(seqs, keys, values, strict=True)))
    return [
        Entry(seq, keyspace.decode_key(key, seq), keyspace.decode_value(value, seq))
        for seq, key, value in zip(seqs, keys, values, strict=True)
    ]


Step = Callable[[TreeChanges], bool]
"""One change; may be called again when blocks were missing."""


def put_step(
    keyspace: Keyspace[K, V],
    key: K,
    value: V | None,
    cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None,
    expected: V | Expected | None,
) -> Step:
    """A put, for `Writer.change`."""
    encoded_key = keyspace.encode_key(key)
    encoded_value = keyspace.encode_value(value)
    compare = None if cas is None else _comparison(keyspace, key, value, cas)

    def step(changes: TreeChanges) -> bool:
        return changes.put(encoded_key, encoded_value, compare)

    if expected is Expected.ANYTHING:
        return step
    return _expecting(keyspace, encoded_key, expected, step)


def delete_step(
    keyspace: Keyspace[K, V],
    key: K,
    cas: Callable[[Entry[K, V], Entry[K, V]], bool] | None,
    expected: V | Expected | None,
) -> Step:
    """A deletion, for `Writer.change`."""
    encoded = keyspace.encode_key(key)
    compare = None if cas is None else _comparison(keyspace, key, None, cas)

    def step(changes: TreeChanges) -> bool:
        return changes.delete(encoded, compare)

    if expected is Expected.ANYTHING:
        return step
    return _expecting(keyspace, encoded, expected, step)


def _expecting(
    keyspace: Keyspace[K, V], key: bytes, expected: V | Expected | None, step: Step
) -> Step:
    """`step`, if the entry of `key` is as expected; otherwise nothing is touched.

    Values are compared decoded: another writer may lay out the same JSON differently.
    """

    def careful_step(changes: TreeChanges) -> bool:
        found = changes.get(key)
        if found is None:
            return expected is Expected.ABSENT and step(changes)
        if expected is Expected.ABSENT:
            return False
        seq, record = found
        return keyspace.decode_value(record.value, seq) == expected and step(changes)

    return careful_step


def _comparison(
    keyspace: Keyspace[K, V],
    key: K,
    value: V | None,
    cas: Callable[[Entry[K, V], Entry[K, V]], bool],
) -> Compare:
    """`cas` as the tree calls it: with entries that are still encoded."""

    def compare(seq: int, record: NodeRecord, next_seq: int) -> bool:
        return cas(decode_entry(keyspace, seq, record), Entry(next_seq, key, value))

    return compare
