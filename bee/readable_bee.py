"""Reading a bee: its present version (`Bee`), or one that stays (`Snapshot`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Container, Iterable, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, Unpack

from bee.batch import Entry, decode_entries, decode_entry, entry_decoder
from bee.descent import Stored, look_up
from bee.diff import DiffCursor, gather
from bee.extension import HyperbeeExtension
from bee.history import HistoryCursor, history_seqs
from bee.keyspace import Bounds, K, Keyspace, V, check_limit
from bee.messages import NodeRecord
from bee.node_reader import NodeReader, root_ref
from bee.question import Question
from bee.ranges import RangeCursor, Results
from bee.tree import PAUSE_EFFORT, ReadCounter, Tree
from hypercore.errors import OutOfRange
from hypercore.given_blocks import check_numbers

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
    """A key whose entry differs: the entry in this version, and in the other."""

    left: Entry[K, V] | None
    right: Entry[K, V] | None


class Moment(NamedTuple):
    """The version that a read is of, and where it counts what it waits for."""

    version: int
    fork: int
    counter: ReadCounter


class ReadableBee(ABC, Generic[K, V]):
    """The reading half of `Bee` and all of `Snapshot`. Each read is of one version.

    Blocks that are not here are asked for and waited for, forever if nobody has them: put
    your own deadline around a read. Every read may raise CorruptTree (the writer's blocks are
    no tree) and HistoryReplaced (the log was truncated since). A log of our own has all blocks
    but those it gave up (`Bee.erase`): reading them raises BlockNotAvailable.
    """

    __slots__ = ("_extension", "_keyspace", "_tree")

    def __init__(
        self, tree: Tree, extension: HyperbeeExtension | None, keyspace: Keyspace[K, V]
    ) -> None:
        self._tree = tree
        self._extension = extension
        self._keyspace = keyspace

    @property
    @abstractmethod
    def version(self) -> int:
        """Length of the log that is read, at least 1: every such length is a version."""

    @abstractmethod
    def _moment(self) -> Moment:
        """The version to read now. Raises: NotABee, UnknownFormat."""

    @abstractmethod
    def get(self, key: K) -> Awaitable[Entry[K, V] | None]:
        """The entry of `key`, None if there is none."""

    async def get_many(self, keys: Iterable[K]) -> list[Entry[K, V] | None]:
        """The entries of several keys, in their order; what is missing is asked for at once.

        Of a remote bee it takes as many round trips as the slowest key alone.
        """
        tree, keyspace, extension = self._tree, self._keyspace, self._extension
        version, fork, counter = self._moment()
        root = root_ref(version)
        encoded = [keyspace.encode_key(key) for key in keys]
        if not root or not encoded:
            return [None] * len(encoded)
        tree.check_fork(fork)

        def step(reader: NodeReader) -> list[Stored | None]:
            return gather([partial(look_up, reader, root, key) for key in encoded])

        def ask(lacking: int) -> Question | None:
            return None if extension is None else extension.ask_keys(version, encoded, lacking)

        found = await tree.read(step, counter, ask)
        tree.effort += GET_EFFORT * len(encoded)
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()  # as in `Snapshot.get`
        decode = entry_decoder(keyspace)
        return [None if each is None else decode(each) for each in found]

    async def get_by_seq(self, seq: int) -> Entry[K, V]:
        """What block `seq` put, in this sub-database or another; a deletion has the value None.

        Raises: OutOfRange unless 0 < seq < version.
        """
        version, fork, counter = self._moment()
        if not 0 < seq < version:
            raise OutOfRange(seq, version)
        self._tree.check_fork(fork)
        record = await self._tree.read(lambda reader: reader.record(seq), counter)
        return decode_entry(Keyspace(self._keyspace.keys, self._keyspace.values), seq, record)

    def range(
        self,
        *,
        reverse: bool = False,
        limit: int | None = None,
        since: int = 0,
        **bounds: Unpack[Bounds[K]],
    ) -> Results[Entry[K, V]]:
        """The entries between the bounds, in the order of the keys' bytes.

        With `since`, only those that were put after the bee had that version: what is older is
        passed over unread, and unlike `diff` that needs no block of the older version. Read-ahead
        is at most 128 entries; leaving early needs no clean-up.
        """
        check_numbers("a version", since)
        version, fork, counter = self._moment()
        key_range = self._keyspace.key_range(reverse=reverse, limit=limit, **bounds)
        decode = partial(decode_entries, self._keyspace)
        cursor = RangeCursor(root_ref(version), key_range, decode, since)

        def ask(lacking: int) -> Question | None:
            extension = self._extension  # a snapshot is held for as long as it is read
            if extension is None or since:  # peers would name all of the range
                return None
            return extension.ask_range(version, cursor.rest, lacking)

        return Results(self._tree, fork, cursor, counter, ask)

    async def peek(
        self, *, reverse: bool = False, **bounds: Unpack[Bounds[K]]
    ) -> Entry[K, V] | None:
        """The first entry between the bounds."""
        async for entry in self.range(reverse=reverse, limit=1, **bounds):
            return entry
        return None

    def history(
        self,
        *,
        reverse: bool = False,
        limit: int | None = None,
        **bounds: Unpack[Bounds[int]],
    ) -> Results[Change[K, V]]:
        """What was put and deleted, in order of time; bounds are seqs.

        Negative bounds count back from `version`. Keys of other sub-databases are included.
        """
        check_limit(limit)
        version, fork, counter = self._moment()
        keyspace = Keyspace(self._keyspace.keys, self._keyspace.values)

        def decode(
            seqs: Sequence[int],
            keys: Sequence[bytes],
            values: Sequence[bytes | None],
            deletions: Container[int],
        ) -> list[Change[K, V]]:
            entries = decode_entries(keyspace, seqs, keys, values)
            return [Change(*entry, entry[0] in deletions) for entry in entries]

        cursor = HistoryCursor(history_seqs(version, reverse=reverse, **bounds), limit, decode)
        return Results(self._tree, fork, cursor, counter)

    def diff(
        self,
        other: int | ReadableBee[Any, Any],
        *,
        limit: int | None = None,
        **bounds: Unpack[Bounds[K]],
    ) -> Results[Difference[K, V]]:
        """Keys whose entries differ between this version (left) and the other (right).

        Entries are compared by the block that put them. Costs as many blocks as differ, and
        the way to them.

        Raises: OutOfRange for a version that the log has not reached, HistoryReplaced for a
        snapshot from before a truncation, TypeError.
        """
        keyspace, tree = self._keyspace, self._tree
        version, fork, counter = self._moment()
        check_limit(limit)
        key_range = keyspace.between(**bounds).rest(None, limit)
        if isinstance(other, int):
            before = other
        elif isinstance(other, ReadableBee):
            before, other_fork, _ = other._moment()
            tree.check_fork(other_fork)
        else:
            raise TypeError(f"a version is int, or a bee, not {type(other).__name__}")
        longest = max(tree.log.length, 1)
        if before > longest:
            raise OutOfRange(before, longest + 1)

        def entry(side: tuple[int, NodeRecord] | None) -> Entry[K, V] | None:
            return None if side is None else decode_entry(keyspace, *side)

        def decode(
            left: tuple[int, NodeRecord] | None, right: tuple[int, NodeRecord] | None
        ) -> Difference[K, V]:
            return Difference(entry(left), entry(right))

        held = self, other  # for as long as they are compared
        cursor = DiffCursor(root_ref(version), root_ref(max(before, 1)), key_range, decode)

        def ask(lacking: int) -> None:
            extension = held[0]._extension
            if extension is not None:
                extension.ask_diff(version, before, cursor.rest, lacking)

        return Results(self._tree, fork, cursor, counter, ask)
