"""Being told what changes: in the whole bee, in a range, below a prefix, at one key.

Nothing is queued. A watch remembers the version it has told about, and when the log has moved
on it reads what differs between that version and the present one: a slow consumer gets
fewer, larger updates, and costs nothing meanwhile. Its version is the token to go on from
later, even after a restart.

Watches of one bee share this reading. The first one that wakes up walks the two trees once for
all ranges that anybody watches; the others take what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from bee.batch import Entry, decode_entry
from bee.diff import DiffCursor, Side
from bee.errors import HistoryReplaced
from bee.keyspace import K, KeyRange, Keyspace, V
from bee.node_reader import BlocksNeeded, NodeReader, root_ref
from bee.ranges import MAX_GROUP, Results
from bee.readable_bee import Change, Difference
from bee.tree import ReadCounter, Tree
from hypercore.errors import BlockNotAvailable, UsageError
from hypercore.sole_waiter import SoleWaiter

if TYPE_CHECKING:
    from bee.bee import Bee

T = TypeVar("T")

MAX_SHARED = 4096
"""Differences kept for the other watches, some 150 bytes each; beyond, each reads alone."""


class Version(NamedTuple):
    """Where a watch stands: the length of the log and its fork. Put it away to go on later."""

    version: int
    fork: int


class _Found(NamedTuple):
    """A key that differs, and the blocks that put it in the two versions, 0 for none."""

    key: bytes
    left: int
    right: int


def _found(left: Side | None, right: Side | None) -> _Found:
    either = left or right
    assert either is not None
    return _Found(either[1].key, left[0] if left else 0, right[0] if right else 0)


class _SharedRange:
    """What differs within one range, read once for all watches of a part of it."""

    __slots__ = ("_cursor", "found", "is_done", "range")

    def __init__(self, left_root: bytes, right_root: bytes, key_range: KeyRange) -> None:
        self.range = key_range
        self._cursor = DiffCursor(left_root, right_root, key_range, _found)
        self.found: list[_Found] = []
        self.is_done = False

    def extend(self, reader: NodeReader) -> None:
        """Find more, perhaps, if it is not done. Raises: BlocksNeeded, CorruptTree."""
        more = self._cursor.advance(reader)
        if more is not None:
            self.is_done = not more
            self.found += more


class _WatchCursor(Generic[T]):
    """The part of a shared reading that one watch is interested in.

    Several may advance one reading: each step looks first at what others found meanwhile.
    """

    def __init__(
        self,
        shared: _SharedRange,
        roots: tuple[bytes, bytes],
        key_range: KeyRange,
        decode: Callable[[Side | None, Side | None], T],
    ) -> None:
        self._shared = shared
        self._roots = roots
        self._range = key_range
        self._decode = decode
        self._position = 0
        self._alone: DiffCursor[T] | None = None

    def advance(self, reader: NodeReader) -> Sequence[T] | None:
        if self._alone is not None:
            return self._alone.advance(reader)
        shared, is_past = self._shared, self._range.is_past
        results: list[T] = []
        while not results:
            if self._position == len(shared.found):
                if shared.is_done:
                    return ()
                if self._position >= MAX_SHARED:
                    self._alone = self._rest()
                    return self._alone.advance(reader)
                shared.extend(reader)
                if self._position == len(shared.found) and not shared.is_done:
                    return None
            try:
                for found in shared.found[self._position : self._position + MAX_GROUP]:
                    if is_past is not None and is_past(found.key):
                        return results
                    if self._range.contains(found.key):
                        sides = _side(reader, found.left), _side(reader, found.right)
                        results.append(self._decode(*sides))
                    self._position += 1
            except BlocksNeeded:
                if not results:
                    raise
        return results

    def _rest(self) -> DiffCursor[T]:
        last_key = self._shared.found[-1].key
        lower = self._range.lower
        if lower is None or lower <= last_key:
            rest = KeyRange(last_key, self._range.upper, False, self._range.includes_upper)
        else:
            rest = self._range
        return DiffCursor(*self._roots, rest, self._decode)


def _side(reader: NodeReader, seq: int) -> Side | None:
    return (seq, reader.record(seq)) if seq else None


class Watcher(Protocol):
    """What `Watchers` must know of a watch."""

    range: KeyRange
    needs: tuple[Version, ...]
    """The versions it reads, or will have to."""


class Watchers:
    """All that is watched in one bee, and the last reading for it."""

    def __init__(self) -> None:
        self._watches: list[Watcher] = []
        self._versions: tuple[Version, Version] | None = None
        self._shared: list[_SharedRange] = []

    def __contains__(self, watch: object) -> bool:
        return watch in self._watches

    def add(self, watch: Watcher) -> None:
        self._watches.append(watch)

    def remove(self, watch: Watcher) -> None:
        self._watches.remove(watch)
        if not self._watches:
            self._versions, self._shared = None, []

    def versions(self, fork: int) -> set[int]:
        """The versions that the watches stand at and will have to read, or are reading."""
        needed = {version for watch in self._watches for version in watch.needs}
        return {version.version for version in needed if version.fork == fork}

    def cursor(
        self,
        before: Version,
        after: Version,
        key_range: KeyRange,
        decode: Callable[[Side | None, Side | None], T],
    ) -> _WatchCursor[T]:
        """What differs between the two versions in a range that was added."""
        roots = root_ref(after.version), root_ref(before.version)
        if self._versions != (before, after):
            self._versions = (before, after)
            self._shared = [
                _SharedRange(*roots, merged)
                for merged in merge_ranges(watch.range for watch in self._watches)
            ]
        for shared in self._shared:
            if _covers(shared.range, key_range):
                return _WatchCursor(shared, roots, key_range, decode)
        # This watch was added after the others began to read this change.
        return _WatchCursor(_SharedRange(*roots, key_range), roots, key_range, decode)


def merge_ranges(ranges: Iterable[KeyRange]) -> list[KeyRange]:
    """The same keys as ranges that do not overlap, in order."""
    merged: list[KeyRange] = []
    for key_range in sorted(ranges, key=_start):
        last = merged[-1] if merged else None
        if last is None or _starts_after(key_range, last):
            merged.append(key_range)
        elif _end(last) < _end(key_range):
            upper, is_included = key_range.upper, key_range.includes_upper
            merged[-1] = KeyRange(last.lower, upper, last.includes_lower, is_included)
    return merged


def _start(key_range: KeyRange) -> tuple[bytes, bool]:
    """Sorts ranges by where they begin: an open one begins with the empty key."""
    if key_range.lower is None:
        return b"", False
    return key_range.lower, not key_range.includes_lower


def _end(key_range: KeyRange) -> tuple[bool, bytes, bool]:
    """Sorts ranges by where they end."""
    if key_range.upper is None:
        return True, b"", True
    return False, key_range.upper, key_range.includes_upper


def _starts_after(later: KeyRange, earlier: KeyRange) -> bool:
    return earlier.upper is not None and _start(later)[0] > earlier.upper


def _covers(outer: KeyRange, inner: KeyRange) -> bool:
    return _start(outer) <= _start(inner) and _end(inner) <= _end(outer)


class Update(Generic[K, V]):
    """What changed between two versions: an asynchronous iterator of `Difference`.

    `left` of each is the entry as it is now, `right` as it was. Read it before the next
    update, or not at all.
    """

    __slots__ = ("_first", "_rest", "after", "before")

    def __init__(
        self,
        before: Version,
        after: Version,
        first: Difference[K, V],
        rest: Results[Difference[K, V]],
    ) -> None:
        self.before = before
        self.after = after
        self._first: Difference[K, V] | None = first
        self._rest = rest

    def __aiter__(self) -> Update[K, V]:
        return self

    async def __anext__(self) -> Difference[K, V]:
        """Raises: CorruptTree, HistoryReplaced."""
        first, self._first = self._first, None
        return await self._rest.__anext__() if first is None else first


class Watch(Generic[K, V]):
    """Updates of a range, for as long as the `with` block runs: `async for update in watch`.

    An update has at least one difference; changes elsewhere wake nobody's loop. The updates follow
    one another without a gap. Raises HistoryReplaced when the log was truncated: what was told may
    no longer be true; read the range again and watch anew. Do the same after BlockNotAvailable:
    `erase` gave up what the watch stood at (`compact` does not).
    """

    __slots__ = ("_decode", "_sole_waiter", "_tree", "_watchers", "needs", "range", "version")

    def __init__(
        self,
        tree: Tree,
        watchers: Watchers,
        keyspace: Keyspace[K, V],
        key_range: KeyRange,
        since: Version,
    ) -> None:
        self._tree = tree
        self._sole_waiter = SoleWaiter("waiting for the next update of this watch")
        self._watchers = watchers
        self.range = key_range
        self.version = since
        """All changes up to there were told, or are outside the range."""
        self.needs: tuple[Version, ...] = (since,)

        def entry(side: Side | None) -> Entry[K, V] | None:
            return None if side is None else decode_entry(keyspace, *side)

        def decode(left: Side | None, right: Side | None) -> Difference[K, V]:
            return Difference(entry(left), entry(right))

        self._decode = decode

    def __enter__(self) -> Watch[K, V]:
        self._watchers.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchers.remove(self)

    def check_open(self) -> None:
        """Raises: UsageError."""
        if self not in self._watchers:
            raise UsageError("a watch is read within its `with` block")

    def __aiter__(self) -> Watch[K, V]:
        return self

    async def __anext__(self) -> Update[K, V]:
        """The next update. Cancel: nothing was told; call again.

        Raises: CorruptTree, HistoryReplaced; UsageError outside of the `with` block, where a
        compaction would take away what it stands at, and while another task waits for it.
        """
        self.check_open()
        with self._sole_waiter:
            return await self._next_update()

    async def _next_update(self) -> Update[K, V]:
        tree = self._tree
        log = tree.log
        while True:
            before = self.version
            self.needs = (before,)
            tree.check_fork(before.fork)
            after = Version(max(log.length, 1), before.fork)
            if after.version <= before.version:
                await log.wait_change(log.length, before.fork)
                continue
            self.needs = (before, after)  # also once it is told, until the next one is asked for
            cursor = self._watchers.cursor(before, after, self.range, self._decode)
            differences = Results(tree, before.fork, cursor, ReadCounter())
            async for first in differences:
                self.version = after
                return Update(before, after, first, differences)
            self.version = after


class KeyWatch(Generic[K, V]):
    """The entry of one key, now and after each change: `async for entry in watch`.

    None while there is none. Values that came and went between two looks are not seen. After a
    truncation of the log, or the erasure of what the watch stood at, it goes on with what is there
    then.
    """

    __slots__ = ("_bee", "_has_begun", "_has_told", "_key", "_told", "_watch")

    def __init__(self, bee: Bee[K, V], key: K, watch: Watch[K, V]) -> None:
        self._bee = bee
        self._key = key
        self._watch = watch
        self._has_begun = False
        self._has_told = False
        self._told: Entry[K, V] | None = None

    def __enter__(self) -> KeyWatch[K, V]:
        self._watch.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.__exit__(kind, error, trace)

    def __aiter__(self) -> KeyWatch[K, V]:
        return self

    async def __anext__(self) -> Entry[K, V] | None:
        """The next entry. Cancel: nothing was told; call again.

        Raises: CorruptTree, BlockNotAvailable for what is lost of the present version; UsageError
        outside of the `with` block.
        """
        while True:
            try:
                entry = await self._next()
            except HistoryReplaced:
                self._begin_anew()
                continue
            except BlockNotAvailable:
                if self._watch.version.version == self._bee.version:
                    raise
                self._begin_anew()
                continue
            if not self._has_told or entry != self._told:
                self._has_told, self._told = True, entry
                return entry

    def _begin_anew(self) -> None:
        self.__exit__(None, None, None)
        self._watch = self._bee.watch(gte=self._key, lte=self._key)
        self._has_begun = False
        self.__enter__()

    async def _next(self) -> Entry[K, V] | None:
        if not self._has_begun:
            self._watch.check_open()
            version, fork = self._watch.version
            current_fork = self._bee.snapshot().fork
            if current_fork != fork:
                raise HistoryReplaced(fork, current_fork)
            entry = await self._bee.checkout(version).get(self._key)
            self._has_begun = True
            return entry
        update = await self._watch.__anext__()
        async for difference in update:
            return difference.left
        raise AssertionError("an update has a difference")


class LiveHistory(Generic[K, V]):
    """The history from some block on, and then whatever is appended, for ever.

    Several tasks may share one.

    `Bee.compact` keeps what it has still to tell.
    """

    __slots__ = ("__weakref__", "_bee", "_results", "_tree", "fork", "seq")

    def __init__(self, tree: Tree, bee: Bee[K, V], seq: int) -> None:
        self._tree = tree
        self._bee = bee
        self.fork = tree.current_fork()
        self._results: Results[Change[K, V]] | None = None
        self.seq = seq
        """The block that comes next: where to go on later."""
        tree.held.histories.add(self)

    def __aiter__(self) -> LiveHistory[K, V]:
        return self

    async def __anext__(self) -> Change[K, V]:
        """Raises: CorruptTree, HistoryReplaced. Cancel: nothing was told; call again."""
        while True:
            if self._results is None:
                log = self._tree.log
                self._tree.check_fork(self.fork)
                if self.seq >= log.length:
                    await log.wait_change(log.length, self.fork)
                    continue
                self._results = self._bee.history(gte=self.seq)
            results = self._results
            try:
                change = await results.__anext__()
            except StopAsyncIteration:
                if self._results is results:  # else another task goes on already
                    self._results = None
            else:
                self.seq = max(self.seq, change.seq + 1)
                return change
