"""One version of a bee, for reading."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from bee.batch import Entry, entry_decoder
from bee.descent import Stored, look_up
from bee.errors import CorruptTree
from bee.extension import HyperbeeExtension
from bee.keyspace import Codec, K, Keyspace, V, encode_name
from bee.node_reader import BlocksNeeded, NodeReader, root_ref
from bee.question import Question
from bee.readable_bee import GET_EFFORT, Moment, ReadableBee
from bee.tree import PAUSE_EFFORT, ReadCounter, ReadStatistics, Tree

A = TypeVar("A")
B = TypeVar("B")


class Snapshot(ReadableBee[K, V]):
    """One version of a bee; it does not change while the bee does.

    `Bee.compact` keeps what it needs, for as long as somebody has it or reads from it.
    """

    __slots__ = ("__weakref__", "_counter", "_decode", "_root", "fork", "version")

    version: int

    def __init__(
        self,
        tree: Tree,
        extension: HyperbeeExtension | None,
        keyspace: Keyspace[K, V],
        version: int,
        fork: int,
        *,
        is_held: bool = True,
    ) -> None:
        """A compaction does not keep one that is not `is_held`."""
        super().__init__(tree, extension, keyspace)
        self.version = version
        self.fork = fork
        self._root = root_ref(version)
        self._counter = ReadCounter()
        self._decode = entry_decoder(keyspace)
        if is_held:
            tree.held.snapshots.add(self)

    def _moment(self) -> Moment:
        return Moment(self.version, self.fork, self._counter)

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
        try:
            found = look_up(tree.reader, root, encoded)
        except BlocksNeeded:
            found = await self._look_up(encoded)
        except CorruptTree as error:
            tree.refuse(error)
        tree.effort += GET_EFFORT
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()  # not before: others may give up blocks of this version
        return None if found is None else self._decode(found)

    async def get_asked(self, key: K, question: Question) -> Entry[K, V] | None:
        """As `get`, for a key that peers were asked for by that question."""
        self._tree.check_fork(self.fork)
        encoded = self._keyspace.encode_key(key)
        found = await self._look_up(encoded, question) if self._root else None
        return None if found is None else self._decode(found)

    async def _look_up(self, key: bytes, question: Question | None = None) -> Stored | None:
        def step(reader: NodeReader) -> Stored | None:
            return look_up(reader, self._root, key)

        def ask(lacking: int) -> Question | None:
            if question is not None and question.seqs:
                return question
            if self._extension is None:
                return None
            again = self._extension.ask_keys(self.version, (key,), lacking)
            return again if question is None or question.is_answered else question

        return await self._tree.read(step, self._counter, ask)
