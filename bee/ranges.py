"""Reading in order: ranges, and what the history and the difference of versions have in common.

Each reader is a cursor with one plain method, `advance(reader)`: the next group of results, empty
at the end, None where much was passed and nothing found so far. After BlocksNeeded the next call
goes on where it was. `Results` is the asynchronous iterator around it.

Groups start small and grow fast, up to `MAX_GROUP`: a short range reads little more than it needs,
a long one asks a remote log for many blocks at once.

A *position* counts through a node in order: 2i is the child before key i, 2i + 1 is key i.

Source: hyperbee 2.27.3 iterators/range.js, for what it yields.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import ge, le
from typing import Generic, Protocol, TypeVar

from bee.btree import MAX_DEPTH, MAX_KEYS, BTreeNode, Keys, Refs
from bee.descent import locate, shared_nodes, too_deep
from bee.errors import CorruptTree
from bee.keyspace import KeyRange
from bee.node_reader import BlocksNeeded, NodeReader, parse_entries
from bee.protobuf import decode_varint, decode_varints
from bee.question import Question
from bee.tree import PAUSE_EFFORT, ReadCounter, Tree

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_GROUP = 128
"""Entries read at once."""

MAX_AHEAD = 64
"""Blocks of tree nodes asked for at once, ahead of need."""

ASK_EVERY = 1024
"""Entries after which peers are asked again what comes next; they name up to 2,176 blocks."""

ENTRY_EFFORT = 2

MAX_PASSED = 32
"""Tree nodes entered at once without a result, after which others run."""

_PASSED_EFFORT = 160


class Cursor(Protocol[T_co]):
    def advance(self, reader: NodeReader) -> Sequence[T_co] | None: ...


class Results(Generic[T]):
    """Asynchronous iterator over what a cursor yields; several tasks may share one.

    Cancel: the result that was waited for is yielded by the next call.
    """

    __slots__ = ("_ask", "_counter", "_cursor", "_fork", "_ready", "_since_asked", "_tree")

    def __init__(
        self,
        tree: Tree,
        fork: int,
        cursor: Cursor[T],
        counter: ReadCounter,
        ask: Callable[[int], Question | None] | None = None,
    ) -> None:
        self._tree = tree
        self._fork = fork
        self._cursor = cursor
        self._counter = counter
        self._ask = ask
        self._since_asked = ASK_EVERY
        self._ready: list[T] = []

    def __aiter__(self) -> Results[T]:
        return self

    async def __anext__(self) -> T:
        """Raises: CorruptTree, HistoryReplaced."""
        while not self._ready:
            self._tree.check_fork(self._fork)
            may_ask = self._ask is not None and self._since_asked >= ASK_EVERY
            group = await self._tree.read(
                self._cursor.advance, self._counter, self._ask_peers if may_ask else None
            )
            if group is None:
                self._tree.effort += _PASSED_EFFORT
                await self._tree.pause()
                continue
            if not group and not self._ready:  # else another task has read the rest, and pauses
                raise StopAsyncIteration
            self._since_asked += len(group)
            self._ready[:0] = reversed(group)  # behind what another task has read meanwhile
            self._tree.effort += ENTRY_EFFORT * len(group)
            if self._tree.effort >= PAUSE_EFFORT:
                await self._tree.pause()
        return self._ready.pop()

    def _ask_peers(self, lacking: int) -> Question | None:
        assert self._ask is not None
        self._since_asked = 0
        return self._ask(lacking)


class Frame:
    """A node on the way down, and the position in it that comes next."""

    __slots__ = ("children", "first", "holds_end", "key_refs", "keys", "last", "position", "ref")

    def __init__(self, node: BTreeNode, ref: bytes, position: int) -> None:
        self.keys, self.key_refs, self.children, _ = node
        self.ref = ref
        self.position = position
        self.first = 0
        self.last = 2 * len(self.keys)
        """Positions outside of `first` to `last` are not visited."""
        self.holds_end = False
        """Whether what is read ends here, or below the child at `last` (in reverse at `first`)."""

    @property
    def is_done(self) -> bool:
        return not self.first <= self.position <= self.last


def seek(reader: NodeReader, root: bytes, key_range: KeyRange) -> list[Frame]:
    """The way from the root to where the range starts, root first."""
    frames: list[Frame] = []
    start, is_included = key_range.first
    ref, parent_ref = root, b""
    while ref:
        if len(frames) == MAX_DEPTH:
            raise too_deep(parent_ref)
        node = reader.node(ref, parent_ref)
        if start is None:
            frames.append(Frame(node, ref, 2 * len(node[0]) if key_range.reverse else 0))
            break
        position, is_there = locate(reader, ref, node, start)
        if is_there:
            at_key = 2 * position + 1
            past_key = 2 * position if key_range.reverse else 2 * position + 2
            frames.append(Frame(node, ref, at_key if is_included else past_key))
            break
        frames.append(Frame(node, ref, 2 * position + (-1 if key_range.reverse else 1)))
        ref, parent_ref = node[2][position] if node[2] else b"", ref
    return frames


def _seq(ref: bytes) -> int:
    """Seq of a key ref or child ref."""
    return decode_varint(ref, 0)[0]


Decode = Callable[[Sequence[int], Sequence[bytes], Sequence[bytes | None]], list[T]]
"""Makes results of seqs, keys and values, one of each to a result."""


class RangeCursor(Generic[T]):
    """The entries of a range in order.

    Only those with seq >= `since`. Nothing below an older node is looked at: each later put rewrote
    the whole way to its key.
    """

    def __init__(self, root: bytes, key_range: KeyRange, decode: Decode[T], since: int = 0) -> None:
        self._root = root
        self._range = key_range
        self._is_past = key_range.is_past
        self._decode = decode
        self._step = -1 if key_range.reverse else 1
        self._frames: list[Frame] | None = None
        self._planned: list[int] = []
        # Blocks read for this group, those of leaves among them. Usually the block of a leaf is
        # that of one of its keys: one read for both takes a fifth off a scan.
        self._read: dict[int, bytes | None] = {}
        self._since = since
        self._left = key_range.limit
        self._group = 1
        # Inner nodes, each once, some two bytes an entry. Most keys are not looked at when only
        # newer ones are wanted: then nothing else ends a walk through shared children, to which
        # there may be 2**32 ways.
        self._entered: set[bytes] = set()
        self._leaf_depth = 0  # all leaves have the same; 0 until one was met
        self.last_key: bytes | None = None

    def advance(self, reader: NodeReader) -> Sequence[T] | None:
        if self._left == 0:
            return ()
        if self._frames is None:
            self._frames = self._seek(reader)
        if not self._planned:
            self._read.clear()
            self._planned = self._plan(reader, self._frames)
            if not self._planned:
                return None if self._frames else ()
            self._group = min(4 * self._group, MAX_GROUP)
        planned, read = self._planned, self._read
        missing = [seq for seq in planned if read.get(seq) is None]
        read.update(zip(missing, reader.blocks(missing), strict=True))
        blocks = [block for block in map(read.get, planned) if block is not None]
        if len(blocks) < len(planned):
            missing = [seq for seq in missing if read[seq] is None]
            if planned[0] == missing[0]:
                # What was hinted at, up to the first that was not, else all that is missing.
                raise BlocksNeeded(list(takewhile(reader.hints.__contains__, missing)) or missing)
            count = planned.index(missing[0])
            planned, blocks = planned[:count], blocks[:count]
        keys, values = zip(*parse_entries(planned, blocks), strict=True)
        count = self._count_in_range(planned, keys)
        if count < len(keys):
            self._left = 0
            return self._decode(planned[:count], keys[:count], values[:count])
        self.last_key = keys[-1]
        self._planned = self._planned[count:]
        if self._left is not None:
            self._left -= count
        return self._decode(planned, keys, values)

    @property
    def rest(self) -> KeyRange:
        """What is left to be read."""
        return self._range.rest(self.last_key, self._left)

    def _count_in_range(self, seqs: Sequence[int], keys: Sequence[bytes]) -> int:
        """How many of these keys, which come next, are in the range. Raises: CorruptTree."""
        is_past, last_key = self._is_past, self.last_key
        is_wrong = le if self._range.reverse else ge
        before = keys[:-1] if last_key is None else (last_key, *keys[:-1])
        after = keys[1:] if last_key is None else keys
        if not any(map(is_wrong, before, after)) and (is_past is None or not is_past(keys[-1])):
            return len(keys)
        for count, (seq, key) in enumerate(zip(seqs, keys, strict=True)):
            if is_past is not None and is_past(key):
                return count
            if last_key is not None and is_wrong(last_key, key):
                raise CorruptTree(seq, "keys out of order")
            last_key = key
        return len(keys)

    def _seek(self, reader: NodeReader) -> list[Frame]:
        frames = seek(reader, self._root, self._range)
        holds_end = True
        for frame in frames:
            if holds_end:
                self._set_end(reader, frame)
            frame.position -= self._step
            holds_end = self._is_at_end(frame)
            frame.position += self._step
        return frames

    def _set_end(self, reader: NodeReader, frame: Frame) -> None:
        """Find out where in the node the range ends, as far as blocks that are here tell.

        To read up to there and no further takes a quarter off a scan of 100 entries.
        """
        bound, is_included = self._range.last
        if bound is None or not frame.children:
            return
        try:
            # The way to the start has left more keys in the cache than the frame has.
            node = reader.node(frame.ref, b"")
            place, _, node = reader.search_cached(frame.ref, node, bound, will_ask=False)
        except BlocksNeeded:
            return
        keys = node[0]
        is_there = place < len(keys) and keys[place] == bound
        frame.holds_end = True
        if self._range.reverse:
            frame.first = 2 * place + is_there * (1 if is_included else 2)
        else:
            frame.last = 2 * place + (is_there and is_included)

    def _is_at_end(self, frame: Frame) -> bool:
        """Whether the range ends below the child that comes next."""
        end = frame.first if self._range.reverse else frame.last
        return frame.holds_end and frame.position == end

    def _plan(self, reader: NodeReader, frames: list[Frame]) -> list[int]:
        """Seqs of the next entries, about a group of them; empty at the end of the range."""
        planned: list[int] = []
        wanted = self._group if self._left is None else min(self._group, self._left)
        entered = 0
        while frames and len(planned) < wanted and (planned or entered < MAX_PASSED):
            frame = frames[-1]
            position = frame.position
            place = position >> 1
            if not frame.first <= position <= frame.last:
                frames.pop()
            elif not frame.children:
                frames.pop()
                planned += self._leaf_seqs(frame.keys, frame.key_refs, frames, position)
            elif position & 1:
                key = frame.keys[place]
                if key is not None and self._is_past is not None and self._is_past(key):
                    frames.clear()
                else:
                    seq = _seq(frame.key_refs[place])
                    if seq >= self._since:
                        planned.append(seq)
                    frame.position += self._step
            elif self._since and _seq(frame.children[place]) < self._since:
                frame.position += self._step
            else:
                entered += 1
                try:
                    planned += self._enter(reader, frames, wanted - len(planned))
                except BlocksNeeded:
                    if planned:
                        break
                    raise
        return planned if self._left is None else planned[: self._left]

    def _leaf_seqs(
        self, keys: Keys, key_refs: Refs, frames: list[Frame], position: int
    ) -> list[int]:
        """The rest of a leaf, as far as it is known to be in the range."""
        bound, is_included = self._range.last
        start, stop = 0, len(keys)
        if self._range.reverse:
            stop = (position + 1) >> 1
        else:
            start = position >> 1
        if bound is not None and None not in keys:  # else the records will tell
            bisect = bisect_left if is_included == self._range.reverse else bisect_right
            end = bisect(keys, bound)  # type: ignore[type-var]  # none is None
            if self._range.reverse:
                start = end
            else:
                stop = min(stop, end)
            if start > 0 if self._range.reverse else stop < len(keys):
                frames.clear()
        seqs = decode_varints(key_refs[start:stop])
        if self._since:
            seqs = [seq for seq in seqs if seq >= self._since]
        if self._range.reverse:
            seqs.reverse()
        return seqs

    def _enter(self, reader: NodeReader, frames: list[Frame], wanted: int) -> list[int]:
        """Enter the child that comes next; returns what is to be read of it if it is a leaf."""
        frame = frames[-1]
        node = self._child(reader, frame, len(frames), wanted)
        ref = frame.children[frame.position >> 1]
        holds_end = self._is_at_end(frame)
        frame.position += self._step
        keys, key_refs, children, _ = node
        position = 2 * len(keys) if self._range.reverse else 0
        if children:
            if ref in self._entered:
                raise shared_nodes(frame.ref)
            self._entered.add(ref)
            inner = Frame(node, ref, position)
            if holds_end:
                self._set_end(reader, inner)
            frames.append(inner)
            return []
        self._leaf_depth = len(frames)
        return self._leaf_seqs(keys, key_refs, frames, position)

    def _child(self, reader: NodeReader, frame: Frame, depth: int, wanted: int) -> BTreeNode:
        """The child that comes next; `wanted` entries will be read of it and those after it.

        Inner nodes are cached; the leaves of a scan would only drive out what is hot.
        """
        if depth == MAX_DEPTH:
            raise CorruptTree(_seq(frame.ref), f"tree deeper than {MAX_DEPTH}")
        ref = frame.children[frame.position >> 1]
        node = reader.cache.get(ref)
        if node is None:
            if depth == self._leaf_depth and wanted > MAX_KEYS and _seq(ref) not in self._read:
                self._read_leaves(reader, frame, wanted // MAX_KEYS + 1)
            try:
                node, block, home = reader.decode(ref, frame.ref, self._read)
            except BlocksNeeded as needed:
                raise BlocksNeeded(self._ahead(reader, frame, needed.seqs[0])) from None
            if node[2]:
                reader.cache.add(ref, node)
            else:
                self._read[home] = block
        return node

    def _read_leaves(self, reader: NodeReader, frame: Frame, count: int) -> None:
        """Read the blocks of the next leaves together: that takes less than one by one."""
        place, cache = frame.position >> 1, reader.cache
        if self._range.reverse:
            refs = frame.children[max(place - count + 1, frame.first >> 1) : place + 1]
        else:
            refs = frame.children[place : min(place + count, (frame.last >> 1) + 1)]
        seqs = [_seq(ref) for ref in refs if cache.get(ref) is None]
        unread = [seq for seq in seqs if seq not in self._read]
        self._read.update(zip(unread, reader.blocks(unread), strict=True))

    def _ahead(self, reader: NodeReader, frame: Frame, wanted: int) -> list[int]:
        """`wanted`, and what else of this node the range will surely or probably need."""
        if wanted in reader.hints or (self._left is not None and self._left <= MAX_GROUP // 16):
            return [wanted]
        seqs = {wanted: None}
        is_open = self._is_past is None
        stop = frame.first - 1 if self._range.reverse else frame.last + 1
        may_enter = True
        for position in range(frame.position + self._step, stop, self._step):
            if position & 1:
                key = frame.keys[position >> 1]
                if key is None:
                    seqs[_seq(frame.key_refs[position >> 1])] = None
                    may_enter = may_enter and is_open
                elif self._is_past is not None and self._is_past(key):
                    break
            elif may_enter:
                seqs[_seq(frame.children[position >> 1])] = None
        missing = [
            seq
            for seq in seqs
            if seq == wanted or (seq >= self._since and reader.block(seq) is None)
        ]
        return missing[:MAX_AHEAD]
