"""What differs between two versions, without reading what they share.

Both trees are walked in order. A child or a key that is the same block in both is passed
without looking into it. All leaves are equally deep, so children of equal height are entered
together, and of two of unequal height the higher.

Two versions that hold an equal value from different puts differ there: blocks are compared,
not values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from bee.btree import MAX_DEPTH
from bee.descent import shared_nodes, too_deep
from bee.errors import CorruptTree
from bee.keyspace import KeyRange
from bee.messages import NodeRecord
from bee.node_reader import BlocksNeeded, NodeReader, parse_record
from bee.protobuf import decode_varint
from bee.ranges import MAX_GROUP, MAX_PASSED, Frame, seek

T = TypeVar("T")
Side = tuple[int, NodeRecord]

_MAX_HOMES = 32


class _Walk:
    """One of the two trees, and how far the walk has come."""

    __slots__ = ("_entered", "_homes", "frames", "height", "last_key")

    def __init__(self, reader: NodeReader, root: bytes, key_range: KeyRange) -> None:
        self.frames = seek(reader, root, key_range)
        self.height = _height(reader, root)
        self.last_key: bytes | None = None
        # Blocks of leaves that were entered: what was put last in a leaf lives beside it.
        self._homes: dict[int, bytes] = {}
        # Inner nodes, each once. Keys that are in both trees are passed without a look at their
        # order: nothing else ends a walk through children that are shared.
        self._entered: set[bytes] = set()

    def settle(self) -> Frame | None:
        """The frame in which the walk stands, at a key or a child; None at the end."""
        while self.frames:
            frame = self.frames[-1]
            if not frame.children and not frame.position & 1:
                frame.position += 1
            if not frame.is_done:
                return frame
            self.frames.pop()
        return None

    @property
    def child_height(self) -> int:
        """Height of the child at which the walk stands; leaves have 0."""
        return self.height - len(self.frames)

    def take(self, reader: NodeReader, frame: Frame) -> Side:
        """The entry at which the walk stands."""
        seq = decode_varint(frame.key_refs[frame.position >> 1], 0)[0]
        home = self._homes.get(seq)
        return seq, reader.record(seq) if home is None else parse_record(seq, home)

    def move_past(self, frame: Frame, side: Side) -> None:
        seq, record = side
        if self.last_key is not None and record.key <= self.last_key:
            raise CorruptTree(seq, "keys out of order")
        self.last_key = record.key
        frame.position += 1

    def child(self, reader: NodeReader, frame: Frame) -> Frame:
        if len(self.frames) == MAX_DEPTH:
            raise CorruptTree(decode_varint(frame.ref, 0)[0], f"tree deeper than {MAX_DEPTH}")
        ref = frame.children[frame.position >> 1]
        node = reader.cache.get(ref)
        if node is None:
            node, block, home = reader.load(ref, frame.ref)
            if not node[2]:
                if len(self._homes) == _MAX_HOMES:
                    self._homes.clear()
                self._homes[home] = block
        return Frame(node, ref, 0)

    def enter(self, frame: Frame, child: Frame) -> None:
        if child.children:
            if child.ref in self._entered:
                raise shared_nodes(frame.ref)
            self._entered.add(child.ref)
        frame.position += 1
        self.frames.append(child)


def _height(reader: NodeReader, root: bytes) -> int:
    """Levels below the root, along its first children."""
    ref, parent_ref = root, b""
    for height in range(MAX_DEPTH):
        if not ref:
            return 0
        children = reader.node(ref, parent_ref)[2]
        if not children:
            return height
        ref, parent_ref = children[0], ref
    raise too_deep(parent_ref)


def _stands_at(frame: Frame) -> object:
    """What the walk stands at: the ref of a key or of a child."""
    place = frame.position >> 1
    return frame.key_refs[place] if frame.position & 1 else frame.children[place]


def _pass_shared(one: Frame, other: Frame) -> None:
    """Pass what the two nodes have in common from here on; both stand at the same thing."""
    position, offset = one.position, other.position - one.position
    key_refs, children = one.key_refs, one.children
    their_key_refs, their_children = other.key_refs, other.children
    if not children and not their_children:
        place, shift = position >> 1, offset >> 1
        stop = min(len(key_refs), len(their_key_refs) - shift)
        while place < stop and key_refs[place] == their_key_refs[place + shift]:
            place += 1
        position = 2 * place + 1
    elif children and their_children:
        stop = min(2 * len(key_refs), 2 * len(their_key_refs) - offset) + 1
        while position < stop:
            place, theirs = position >> 1, position + offset >> 1
            if position & 1:
                if key_refs[place] != their_key_refs[theirs]:
                    break
            elif children[place] != their_children[theirs]:
                break
            position += 1
    else:
        position += 1
    one.position, other.position = position, position + offset


class DiffCursor(Generic[T]):
    """Keys in the range whose entry is not the same in both; `decode` gets both entries."""

    def __init__(
        self,
        left_root: bytes,
        right_root: bytes,
        key_range: KeyRange,
        decode: Callable[[Side | None, Side | None], T],
    ) -> None:
        self._roots = (left_root, right_root)
        self._range = key_range
        self._is_past = key_range.is_past
        self._decode = decode
        self._walks: tuple[_Walk, _Walk] | None = None
        self._group = 1
        self._left = key_range.limit
        self.last_key: bytes | None = None

    def advance(self, reader: NodeReader) -> Sequence[T] | None:
        if self._left == 0 or self._roots[0] == self._roots[1]:
            return ()
        if self._walks is None:
            left_root, right_root = self._roots
            self._walks = (
                _Walk(reader, left_root, self._range),
                _Walk(reader, right_root, self._range),
            )
        results: list[T] = []
        is_past, decode = self._is_past, self._decode
        passed = 0
        while len(results) < self._group and self._left != 0:
            try:
                pair = self._step(reader, *self._walks)
            except BlocksNeeded:
                if results:
                    break
                raise
            if pair is None:
                passed += 1
                if passed >= MAX_PASSED and not results:
                    return None
                continue
            left, right = pair
            either = left or right
            if either is None or (is_past is not None and is_past(either[1].key)):
                self._left = 0
                break
            if self._left is not None:
                self._left -= 1
            self.last_key = either[1].key
            results.append(decode(left, right))
        self._group = min(2 * self._group, MAX_GROUP)
        return results

    @property
    def rest(self) -> KeyRange:
        """What is left to be compared."""
        return self._range.rest(self.last_key, self._left)

    def _step(
        self, reader: NodeReader, left: _Walk, right: _Walk
    ) -> tuple[Side | None, Side | None] | None:
        """One step of the walk: a difference, None and None at the end, or None."""
        one, other = left.settle(), right.settle()
        if one is None and other is None:
            return None, None
        if one is None or other is None:
            side = self._step_alone(reader, left if one is not None else right)
            if side is None:
                return None
            return (side, None) if one is not None else (None, side)
        one_is_key, other_is_key = one.position & 1, other.position & 1
        if one_is_key == other_is_key and _stands_at(one) == _stands_at(other):
            _pass_shared(one, other)
            return None
        if one_is_key and other_is_key:
            return self._compare(reader, (left, one), (right, other))
        walks = []
        if not one_is_key and (other_is_key or left.child_height >= right.child_height):
            walks.append((left, one))
        if not other_is_key and (one_is_key or right.child_height >= left.child_height):
            walks.append((right, other))
        _enter(reader, walks)
        return None

    def _step_alone(self, reader: NodeReader, walk: _Walk) -> Side | None:
        frame = walk.settle()
        assert frame is not None
        if frame.position & 1:
            side = walk.take(reader, frame)
            walk.move_past(frame, side)
            return side
        _enter(reader, [(walk, frame)])
        return None

    def _compare(
        self, reader: NodeReader, left: tuple[_Walk, Frame], right: tuple[_Walk, Frame]
    ) -> tuple[Side | None, Side | None]:
        """Both stand at keys that live in different blocks."""
        sides_of = [partial(walk.take, reader, frame) for walk, frame in (left, right)]
        one, other = gather(sides_of)
        if one[1].key <= other[1].key:
            left[0].move_past(left[1], one)
        if other[1].key <= one[1].key:
            right[0].move_past(right[1], other)
        if one[1].key == other[1].key:
            return one, other
        return (one, None) if one[1].key < other[1].key else (None, other)


def _enter(reader: NodeReader, walks: Sequence[tuple[_Walk, Frame]]) -> None:
    """Enter the children at which these walks stand; what is missing is asked for together."""
    children = gather([partial(walk.child, reader, frame) for walk, frame in walks])
    for (walk, frame), child in zip(walks, children, strict=True):
        walk.enter(frame, child)


def gather(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all; what any of them lacks is asked for together. Raises: BlocksNeeded."""
    results = []
    needed: list[int] = []
    for call in calls:
        try:
            results.append(call())
        except BlocksNeeded as missing:
            needed += missing.seqs
    if needed:
        raise BlocksNeeded(list(dict.fromkeys(needed)))
    return results
