"""The blocks that a peer's read takes: the same walk through blocks of our own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

from bee.btree import MAX_DEPTH, BTreeNode, Refs
from bee.cache import NodeCache
from bee.descent import locate
from bee.diff import DiffCursor
from bee.errors import CorruptTree
from bee.extension_messages import (
    DiffRequest,
    GetRequest,
    IteratorRequest,
    KeysRequest,
    Request,
    narrow_number,
)
from bee.hints import MAX_HINTS_PER_REQUEST
from bee.keyspace import KeyRange
from bee.node_reader import BlocksNeeded, NodeReader, decode_ref, parse_entry, root_ref
from bee.protobuf import decode_varint, decode_varints, encode_varint
from bee.ranges import Frame
from hypercore.errors import DamagedBlock

_SCOUT_BYTES = 4 << 20  # tree nodes of the two versions that a peer compares

MAX_KEYS = 512
"""Keys of one question to a peer that pushes."""

MAX_STEPS = 4 * MAX_HINTS_PER_REQUEST
"""Children and keys passed for one answer; a sound tree has named enough seqs by then."""

TURN_EFFORT = 640
"""In the unit of `tree.PAUSE_EFFORT`: others have to wait for 3 ms."""

MAX_TURNS = 1024
"""A sound tree takes some 40. One whose nodes are too large for the scout would take for ever."""

_KEY_EFFORT = 10
_READ_EFFORT = 3
_BYTES_AN_EFFORT = 256
"""Of a block that is read: to get at its last tree node all others are passed."""


class Visit:
    """The blocks that a peer's read looks at, as far as they are here, found a turn at a time."""

    __slots__ = ("_effort", "_reader", "_source", "_steps", "_turns", "_way", "seqs")

    def __init__(self, reader: NodeReader, request: Request) -> None:
        self.seqs: dict[int, None] = {}
        """In the order in which the read looks at them."""
        self._way = 0
        self._effort = self._turns = 0
        self._source = reader
        self._reader = NodeReader(reader.cache, self._block, reader.hints)
        if isinstance(request, IteratorRequest):
            self._steps = self._visit_range(request)
        elif isinstance(request, DiffRequest):
            self._steps = self._visit_diff(request)
        else:
            self._steps = self._visit_keys(request)

    @property
    def way(self) -> int:
        """How many of `seqs`, from the first, lead to what is read: all, except for ranges."""
        return self._way or len(self.seqs)

    def advance(self) -> bool:
        """Go on for a turn; whether there is more to come."""
        self._effort = 0
        self._turns += 1
        with suppress(BlocksNeeded, CorruptTree, DamagedBlock):  # what was noted is worth having
            for _ in self._steps:
                if self._effort >= TURN_EFFORT:
                    return self._turns < MAX_TURNS
        return False

    def _block(self, seq: int) -> bytes | None:
        block = self._source.block(seq)
        self._effort += _READ_EFFORT + (0 if block is None else len(block) // _BYTES_AN_EFFORT)
        return block

    def _visit_keys(self, request: GetRequest | KeysRequest) -> Iterator[None]:
        reader, seqs = self._reader, self.seqs
        root, is_narrow = root_ref(request.version), narrow_number(request) > 0
        keys = (request.key,) if isinstance(request, GetRequest) else request.keys[:MAX_KEYS]
        for key in keys:
            with suppress(BlocksNeeded, CorruptTree, DamagedBlock):
                if is_narrow:
                    yield from _visit_narrowly(reader, root, key, request.push_from - 1, seqs)
                else:
                    for _ in _search(reader, root, key, seqs):
                        yield
            if len(seqs) >= MAX_HINTS_PER_REQUEST:
                break
            self._effort += _KEY_EFFORT
            yield

    def _visit_range(self, request: IteratorRequest) -> Iterator[None]:
        reader, seqs = self._reader, self.seqs
        frames = yield from _open(reader, request, seqs)
        self._way = len(seqs)
        key_range = _key_range(request)
        step = -1 if request.reverse else 1
        is_past, limit = key_range.is_past, key_range.limit or MAX_STEPS
        entries = 0
        looked_at: Frame | None = None
        for _ in range(MAX_STEPS):
            if not frames or len(seqs) >= MAX_HINTS_PER_REQUEST or entries == limit:
                return
            frame = frames[-1]
            place = frame.position >> 1
            if frame.is_done:
                frames.pop()
                continue
            is_key = frame.position & 1
            if is_key and not frame.children and frame is not looked_at:
                looked_at = frame  # if that does not tell, the next key would not either
                most = min(limit - entries, MAX_HINTS_PER_REQUEST - len(seqs))
                rest = self._rest_of_leaf(frame, request.reverse, is_past, most)
                if rest:
                    seqs.update(dict.fromkeys(rest))
                    entries += len(rest)
                    frame.position += 2 * step * len(rest)
                    self._effort += len(rest)
                    yield
                    continue
            frame.position += step
            if is_key:
                seq = decode_varint(frame.key_refs[place], 0)[0]
                seqs[seq] = None
                if is_past is not None and is_past(frame.keys[place] or reader.record(seq).key):
                    return
                entries += 1
            elif frame.children:
                ref = frame.children[place]
                seqs[decode_ref(ref)[0]] = None
                if len(frames) == MAX_DEPTH:
                    return
                node = reader.node(ref, frame.ref)
                frames.append(Frame(node, ref, 2 * len(node[0]) if request.reverse else 0))
            self._effort += 1
            yield

    def _rest_of_leaf(
        self, frame: Frame, reverse: bool, is_past: Callable[[bytes], bool] | None, most: int
    ) -> list[int]:
        """Seqs of the `most` keys that come next, if the last one tells that all are in the range.

        In most leaves they are: one block is looked at instead of six. Empty where the keys have
        to be looked at one by one.
        """
        place = frame.position >> 1
        start, stop = (max(0, place + 1 - most), place + 1) if reverse else (place, place + most)
        seqs = decode_varints(frame.key_refs[start:stop])
        last = frame.keys[start if reverse else place + len(seqs) - 1]
        if reverse:
            seqs.reverse()
        if is_past is None:
            return seqs
        if last is None:
            try:
                block = self._block(seqs[-1])
                last = None if block is None else parse_entry(seqs[-1], block)[0]
            except (CorruptTree, DamagedBlock):
                return []  # those before it are worth having
        return [] if last is None or is_past(last) else seqs

    def _visit_diff(self, request: DiffRequest) -> Iterator[None]:
        """Walk as the asker will, whose cache is empty as far as we know, and note what it takes.

        Much may be alike in both versions, so a turn ends as if a block were missing.
        """

        def noting(seq: int) -> bytes | None:
            if len(self.seqs) >= MAX_HINTS_PER_REQUEST or self._effort >= TURN_EFFORT:
                return None
            self.seqs[seq] = None
            return self._block(seq)

        scout = NodeReader(NodeCache(_SCOUT_BYTES), noting, self._source.hints)
        roots = root_ref(request.range.version), root_ref(request.other)
        cursor = DiffCursor(*roots, _key_range(request.range), lambda _left, _right: None)
        while True:
            try:
                found = cursor.advance(scout)
                if found is not None and not found:
                    return
            except BlocksNeeded:
                if self._effort < TURN_EFFORT:
                    raise
            yield


Opening = Generator[None, None, list[Frame]]
"""Frames that are found step by step."""

Step = tuple[BTreeNode, bytes, int, bool]
"""A node on the way to a key, its ref, the place of the key, whether it is there."""


def _descend(reader: NodeReader, root: bytes, key: bytes, seqs: dict[int, None]) -> Iterator[Step]:
    """Search for `key`, and note the blocks of the nodes on the way."""
    ref, parent_ref = root, b""
    for _ in range(MAX_DEPTH):
        seqs[decode_ref(ref)[0]] = None
        node = reader.node(ref, parent_ref)
        place, is_there = locate(reader, ref, node, key)
        node = reader.node(ref, parent_ref)  # with the keys that were looked at
        yield node, ref, place, is_there
        if is_there or not node[2]:
            return
        ref, parent_ref = node[2][place], ref


def _search(reader: NodeReader, root: bytes, key: bytes, seqs: dict[int, None]) -> Iterator[Step]:
    """As `_descend`, with the keys that a binary search looks at."""
    for step in _descend(reader, root, key, seqs):
        node, _, place, is_there = step
        seqs.update(dict.fromkeys(_probed(node[1], place, is_there)))
        yield step


def _probed(key_refs: Refs, place: int, is_there: bool) -> Iterator[int]:
    """Seqs of the keys at which a binary search looks that ends at `place`."""
    low, high = 0, len(key_refs)
    while low < high:
        middle = (low + high) >> 1
        yield decode_varint(key_refs[middle], 0)[0]
        if middle == place and is_there:
            return
        if middle >= place:
            high = middle
        else:
            low = middle + 1


def _visit_narrowly(
    reader: NodeReader, root: bytes, key: bytes, first: int, seqs: dict[int, None]
) -> Iterator[None]:
    """Note the least that leads to `key`, of what is below block `first`: as far as it is here.

    That is the first that the asker lacks: of the nodes above, it has what it needs. At each node
    it has to know two keys between which `key` is. They are beside the place of `key`, but not
    needed where keys below the next node are known (`NodeReader.keys_below`).
    """
    steps: list[Step] = []
    with suppress(BlocksNeeded, CorruptTree, DamagedBlock):
        for step in _descend(reader, root, key, {}):
            steps.append(step)
            yield
    below: list[bytes] = []
    for node, ref, place, is_there in reversed(steps[_index_of(first, steps) :]):
        keys, key_refs, _, _ = node
        places = [place] if is_there else []
        if not is_there and place > 0 and not any(one <= key for one in below):
            places.append(place - 1)
        if not is_there and place < len(key_refs) and not any(one >= key for one in below):
            places.append(place)
        beside = decode_varints([key_refs[place] for place in places])
        seqs.update(dict.fromkeys((decode_ref(ref)[0], *beside)))
        known = (*(keys[place] for place in places), reader.own_key(ref))
        below = [one for one in known if one is not None]
        yield


def _index_of(seq: int, steps: Sequence[Step]) -> int:
    """Index of the first step that block `seq` has to do with; 0 if there is none."""
    key_ref = encode_varint(seq)
    for index, (node, ref, _, _) in enumerate(steps):
        if key_ref in node[1] or decode_ref(ref)[0] == seq:
            return index
    return 0


def _key_range(request: IteratorRequest) -> KeyRange:
    return KeyRange(
        request.gte if request.gt is None else request.gt,
        request.lte if request.lt is None else request.lt,
        request.gt is None,
        request.lt is None,
        request.reverse,
        request.limit or None,
    )


def _open(reader: NodeReader, request: IteratorRequest, seqs: dict[int, None]) -> Opening:
    """The way to where the range starts, or goes on."""
    if request.checkpoint:
        return (yield from _restore(reader, request))
    key_range, root = _key_range(request), root_ref(request.version)
    start, is_included = key_range.first
    if start is None:
        seqs[decode_ref(root)[0]] = None
        node = reader.node(root, b"")
        return [Frame(node, root, 2 * len(node[0]) if key_range.reverse else 0)]
    if narrow_number(request):
        yield from _visit_narrowly(reader, root, start, request.push_from - 1, seqs)
        steps = _descend(reader, root, start, {})
    else:
        steps = _search(reader, root, start, seqs)
    frames = []
    for node, ref, place, is_there in steps:
        if not is_there:
            position = 2 * place + (-1 if key_range.reverse else 1)
        elif is_included:
            position = 2 * place + 1
        else:
            position = 2 * place + (0 if key_range.reverse else 2)
        frames.append(Frame(node, ref, position))
        yield
    return frames


def _restore(reader: NodeReader, request: IteratorRequest) -> Opening:
    """The iteration that is under way at the peer, which has the blocks of these nodes."""
    frames = []
    flat = request.checkpoint[: 3 * MAX_DEPTH]
    for seq, offset, position in zip(flat[::3], flat[1::3], flat[2::3], strict=False):
        if not 0 < seq < request.version:
            break
        ref = encode_varint(seq) + encode_varint(offset)
        frames.append(Frame(reader.node(ref, b""), ref, position))
        yield
    return frames
