"""The `hyperbee` extension: telling peers what one reads, and being told which blocks it takes.

A reader that has to wait sends what it looks for to all peers. Whoever has that version walks
the same way through blocks of its own (it never waits) and answers with their seqs, which the
reader then fetches all at once: a few round trips instead of one per level of the tree.

On the wire a payload has its length before it (the `buffer` of compact encoding).

**One round trip.** The best peer is asked to push the blocks themselves: its hint then says so,
and names what follows by itself. Until they are late nobody is asked for these. Of one that is
known to do so no more is asked for than tells the way (*narrow*). A peer that
knows nothing of that (JavaScript) answers with a hint as ever, and one that announced blocks
and did not send them is not asked for pushes again.

Answers are bounded, and hints are only believed as far as they were asked for (`Hints`).

Source: hyperbee 2.27.3 lib/extension.js.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from weakref import WeakSet

from bee.btree import MAX_DEPTH, BTreeNode, Refs
from bee.cache import NodeCache
from bee.descent import locate
from bee.diff import DiffCursor
from bee.errors import CorruptTree
from bee.extension_messages import (
    CacheHint,
    DiffRequest,
    ExtensionMessage,
    GetRequest,
    IteratorRequest,
    KeysRequest,
    Request,
    decode_extension,
    is_hint,
)
from bee.hints import MAX_HINTS_PER_REQUEST, Question
from bee.keyspace import KeyRange
from bee.log import LogPeer
from bee.node_reader import BlocksNeeded, NodeReader, decode_ref, root_ref
from bee.protobuf import decode_varint, decode_varints, encode_varint
from bee.ranges import Frame
from bee.tree import Tree
from hypercore.encoding import DecodeError, Reader, encode_buffer
from hypercore.errors import DamagedBlock

NAME = "hyperbee"

MAX_SEQS_PER_MESSAGE = 128

MAX_ASKED = 16
"""Keys of one question that are asked for by name where hints come back; more bring little."""

LATEST = 0
MAX_VERSION = 2**53

MAX_KEYS = 512
"""Keys of one question to a peer that pushes."""

_SCOUT_BYTES = 4 << 20  # tree nodes of the two versions that a peer compares

MAX_STEPS = 4 * MAX_HINTS_PER_REQUEST
"""Children and keys passed for one answer; a sound tree has named enough seqs by then."""


class HyperbeeExtension:
    """Asks and answers for one bee."""

    __slots__ = ("_pushers", "_tree")

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._pushers: WeakSet[LogPeer] = WeakSet()
        tree.log.set_extension(NAME, self.receive, self.note)

    def ask_keys(self, version: int, keys: Sequence[bytes], lacking: int) -> Question | None:
        """`lacking` is the first seq on the way to them that is not here.

        Returns the question, if one is asked that will be answered with what comes.
        """
        plain = [GetRequest(version, key) for key in keys[:MAX_ASKED]]
        if len(keys) == 1:
            return self._send(plain[0], plain, lacking)
        return self._send(KeysRequest(version, tuple(keys[:MAX_KEYS])), plain, lacking)

    def ask_range(
        self, version: int, key_range: KeyRange, last_key: bytes | None, lacking: int
    ) -> None:
        """`last_key` is the last that was read already, `lacking` the first seq not here."""
        request = _range_request(version, key_range, last_key)
        self._send(request, [request], lacking)

    def ask_diff(
        self, version: int, other: int, key_range: KeyRange, last_key: bytes | None, lacking: int
    ) -> None:
        """As `ask_range`, for what differs between two versions; peers that only hint do not."""
        bounds = _range_request(version, key_range, last_key)
        self._send(DiffRequest(other, bounds), [], lacking)

    async def update_for(self, key: bytes) -> Question:
        """Wait for the newest version that peers have, and have them send what `key` takes.

        Returns the question that asked for it. Cancel: blocks may still come.
        """
        question = self._tree.hints.question()
        request = GetRequest(LATEST, key, push_from=1, number=question.number)
        payload = encode_buffer(request.encode())
        self._tree.hints.expect()
        with self._tree.log.greeting(NAME, payload, MAX_HINTS_PER_REQUEST):
            await self._tree.log.update()
        return question

    def push_ranges(self, peer: LogPeer, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        """Send a peer the blocks that reading [start, stop) takes; returns how many.

        It must have been asked for by other means, so that the peer takes them.
        """
        tree = self._tree
        tree.current_fork()
        seqs: dict[int, None] = {}
        for start, stop in ranges:
            seqs.update(_visited(tree.reader, IteratorRequest(tree.log.length, gte=start, lt=stop)))
        pushed = peer.push_blocks(seqs)
        for payload in _hints(pushed, is_pushed=True):
            peer.send_extension(NAME, payload)
        return len(pushed)

    def expect_pushes(self, peer: LogPeer) -> bool:
        """The peer is asked by other means: take what it pushes, and its hints.

        False, and nothing is taken, when it did not keep its word before.
        """
        if not peer.keeps_word:
            return False
        peer.allow_pushes(MAX_HINTS_PER_REQUEST)
        self._tree.hints.expect()
        return True

    def _send(
        self, whole: Request, plain: Sequence[GetRequest | IteratorRequest], lacking: int
    ) -> Question | None:
        """Ask the best peer to push, and the others for hints unless it is known to push.

        `plain` is what says the same, or part of it, to peers that only hint.
        """
        peers = self._tree.log.peers
        question = None
        if not peers:
            return None
        best = min(peers, key=lambda peer: self._rank(peer, whole.version))
        is_known = best in self._pushers
        sent = 0
        for peer in (best,) if is_known else peers:
            requests: list[Request] = list(plain)
            if peer is best and peer.keeps_word:
                peer.allow_pushes(MAX_HINTS_PER_REQUEST)
                is_enough = is_known or whole in plain
                pushing = replace(whole, push_from=lacking + 1)
                has_all = peer.contiguous_length >= whole.version
                if has_all and isinstance(pushing, GetRequest | KeysRequest):
                    question = self._tree.hints.question()
                    pushing = replace(pushing, number=question.number)
                    if is_known:
                        question.expect(peer, lacking)
                requests = [pushing] if is_enough else [pushing, *plain]
            for request in requests:
                peer.send_extension(NAME, encode_buffer(request.encode()))
            sent += len(requests)
        if sent:
            self._tree.hints.expect(sent)
        return question

    def _rank(self, peer: LogPeer, version: int) -> tuple[int, bool, bool, float]:
        """The less the better: who surely has it all, keeps its word, can push, and is near."""
        lacks = (peer.contiguous_length < version) + (peer.length < version)
        return (
            lacks,
            not peer.keeps_word,
            peer not in self._pushers,
            peer.round_trip_seconds,
        )

    def note(self, payload: bytes, peer: LogPeer) -> bool:
        """Take a hint that says what is pushed, before a read finds that this came."""
        hint = _decode(payload) if is_hint(payload) else None
        if not isinstance(hint, CacheHint) or not hint.pushed or not peer.keeps_word:
            return False
        hints, length = self._tree.hints, self._tree.log.length
        fresh = hints.add(hint.seqs, MAX_VERSION, is_pushed=True)
        self._pushers.add(peer)
        peer.expect_blocks([seq for seq in fresh if seq < length])
        hints.answer(hint.answers, fresh, peer)
        return True

    async def receive(self, payload: bytes, peer: LogPeer) -> Sequence[bytes]:
        """A payload came from a peer; returns the payloads to answer with.

        What is no message, or cannot be answered, is ignored, as by the original.
        """
        tree = self._tree
        message = _decode(payload)
        if message is None:
            return ()
        if isinstance(message, CacheHint):
            fresh = tree.hints.add(message.seqs, tree.log.length)
            tree.log.prefetch([seq for seq in fresh if tree.log.get_local(seq) is None])
            return ()
        if isinstance(message, GetRequest) and message.version == LATEST and message.push_from:
            message = replace(message, version=tree.log.length)
        if not 1 < message.version <= tree.log.length:
            return ()
        tree.current_fork()
        seqs: Sequence[int] = list(_visited(tree.reader, message))
        is_pushed = message.push_from > 0
        if is_pushed:
            seqs = _push(peer, seqs, message)
        return _hints(seqs, is_pushed=is_pushed, number=_number(message))


def _decode(payload: bytes) -> ExtensionMessage | None:
    """The message in a payload, if it is one."""
    try:
        messages = decode_extension(Reader(payload).buffer())
    except DecodeError:
        return None
    return messages[0] if messages else None


def _hints(seqs: Sequence[int], *, is_pushed: bool, number: int = 0) -> list[bytes]:
    """Payloads that name these; one at least where blocks are pushed: it says that we do that."""
    starts = range(0, max(len(seqs), is_pushed), MAX_SEQS_PER_MESSAGE)
    parts = [tuple(seqs[start : start + MAX_SEQS_PER_MESSAGE]) for start in starts]
    hints = [CacheHint(part, is_pushed) for part in parts]
    if number:
        hints[-1] = replace(hints[-1], answers=number)
    return [encode_buffer(hint.encode()) for hint in hints]


def _range_request(version: int, key_range: KeyRange, last_key: bytes | None) -> IteratorRequest:
    """What is left of a range after `last_key`."""
    lower, lower_in = key_range.lower, key_range.includes_lower
    upper, upper_in = key_range.upper, key_range.includes_upper
    if last_key is not None:
        if key_range.reverse:
            upper, upper_in = last_key, False
        else:
            lower, lower_in = last_key, False
    return IteratorRequest(
        version,
        gte=lower if lower_in else None,
        gt=None if lower_in else lower,
        lte=upper if upper_in else None,
        lt=None if upper_in else upper,
        limit=key_range.limit or 0,
        reverse=key_range.reverse,
    )


def _push(peer: LogPeer, seqs: Sequence[int], request: Request) -> Sequence[int]:
    """Push what comes from the first that is lacking on, or all if that is not on the way."""
    first = request.push_from - 1
    if _number(request):
        return peer.push_blocks(seqs) or peer.push_blocks((first,))
    return peer.push_blocks(seqs[seqs.index(first) :] if first in seqs else seqs)


def _number(request: Request) -> int:
    """That of a narrow request, else 0."""
    if isinstance(request, IteratorRequest | DiffRequest) or not request.push_from:
        return 0
    return request.number


def _visited(reader: NodeReader, request: Request) -> dict[int, None]:
    """The seqs of all blocks that such a read looks at, as far as they are here."""
    seqs: dict[int, None] = {}
    try:
        if isinstance(request, IteratorRequest):
            _visit_range(reader, request, seqs)
            return seqs
        if isinstance(request, DiffRequest):
            _visit_diff(reader, request, seqs)
            return seqs
        keys = (request.key,) if isinstance(request, GetRequest) else request.keys[:MAX_KEYS]
        root, is_narrow = root_ref(request.version), _number(request) > 0
        for key in keys:
            if is_narrow:
                _visit_narrowly(reader, root, key, request.push_from - 1, seqs)
            else:
                for _ in _search(reader, root, key, seqs):
                    pass
            if len(seqs) >= MAX_HINTS_PER_REQUEST:
                break
    except (BlocksNeeded, CorruptTree, DamagedBlock):
        pass  # the seqs up to here are still worth having
    return seqs


Step = tuple[BTreeNode, bytes, int, bool]
"""A node on the way to a key, its ref, the place of the key, whether it is there."""


def _descend(reader: NodeReader, root: bytes, key: bytes, seqs: dict[int, None]) -> Iterator[Step]:
    """Search for `key`, and note the blocks of the nodes on the way."""
    ref, parent_ref = root, b""
    for _ in range(MAX_DEPTH):
        seqs[decode_ref(ref)[0]] = None
        node = reader.node(ref, parent_ref)
        place, is_there = locate(reader, ref, node, key)
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
) -> None:
    """Note the least that leads to `key`, of what is below block `first`.

    That is the first that the asker lacks: of the nodes above it has what it takes. At each node
    it has to know two keys between which `key` is. They are beside its place, or below the next
    node: what is known there (`NodeReader.keys_below`) makes them needless.
    """
    steps: list[Step] = []
    try:
        steps.extend(_descend(reader, root, key, {}))
    finally:
        below: list[bytes] = []
        for node, ref, place, is_there in reversed(steps[_index_of(first, steps) :]):
            key_refs = node[1]
            places = [place] if is_there else []
            if not is_there and place > 0 and not any(known <= key for known in below):
                places.append(place - 1)
            if not is_there and place < len(key_refs) and not any(known >= key for known in below):
                places.append(place)
            beside = decode_varints([key_refs[place] for place in places])
            seqs.update(dict.fromkeys((decode_ref(ref)[0], *beside)))
            below = [reader.record(seq).key for seq in beside]
            own = reader.own_key(ref)
            below += () if own is None else (own,)


def _index_of(seq: int, steps: Sequence[Step]) -> int:
    """Of the first step that block `seq` has to do with; 0 if there is none."""
    key_ref = encode_varint(seq)
    for index, (node, ref, _, _) in enumerate(steps):
        if key_ref in node[1] or decode_ref(ref)[0] == seq:
            return index
    return 0


def _visit_range(reader: NodeReader, request: IteratorRequest, seqs: dict[int, None]) -> None:
    key_range = _key_range(request)
    if request.checkpoint:
        frames = _restore(reader, request)
    else:
        frames = _open(reader, root_ref(request.version), key_range, seqs)
    step = -1 if request.reverse else 1
    is_past = key_range.is_past
    entries = 0
    for _ in range(MAX_STEPS):
        if not frames or len(seqs) >= MAX_HINTS_PER_REQUEST or entries == key_range.limit:
            return
        frame = frames[-1]
        place = frame.position >> 1
        if frame.is_done:
            frames.pop()
            continue
        is_key = frame.position & 1
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


def _visit_diff(reader: NodeReader, request: DiffRequest, seqs: dict[int, None]) -> None:
    """Walk as the asker will, whose cache is empty as far as we know, and note what it takes."""

    def noting(seq: int) -> bytes | None:
        if len(seqs) >= MAX_HINTS_PER_REQUEST:
            return None
        seqs[seq] = None
        return reader.block(seq)

    scout = NodeReader(NodeCache(_SCOUT_BYTES), noting, reader.hints)
    roots = root_ref(request.range.version), root_ref(request.other)
    cursor = DiffCursor(*roots, _key_range(request.range), lambda _left, _right: None)
    while cursor.advance(scout):
        pass


def _key_range(request: IteratorRequest) -> KeyRange:
    return KeyRange(
        request.gte if request.gt is None else request.gt,
        request.lte if request.lt is None else request.lt,
        request.gt is None,
        request.lt is None,
        request.reverse,
        request.limit or None,
    )


def _open(
    reader: NodeReader, root: bytes, key_range: KeyRange, seqs: dict[int, None]
) -> list[Frame]:
    """The way to where the range starts."""
    start, is_included = key_range.first
    if start is None:
        seqs[decode_ref(root)[0]] = None
        node = reader.node(root, b"")
        return [Frame(node, root, 2 * len(node[0]) if key_range.reverse else 0)]
    frames = []
    for node, ref, place, is_there in _search(reader, root, start, seqs):
        if not is_there:
            position = 2 * place + (-1 if key_range.reverse else 1)
        elif is_included:
            position = 2 * place + 1
        else:
            position = 2 * place + (0 if key_range.reverse else 2)
        frames.append(Frame(node, ref, position))
    return frames


def _restore(reader: NodeReader, request: IteratorRequest) -> list[Frame]:
    """The iteration that is under way at the peer; it has the blocks of these nodes."""
    frames = []
    flat = request.checkpoint[: 3 * MAX_DEPTH]
    for seq, offset, position in zip(flat[::3], flat[1::3], flat[2::3], strict=False):
        if not 0 < seq < request.version:
            break
        ref = encode_varint(seq) + encode_varint(offset)
        frames.append(Frame(reader.node(ref, b""), ref, position))
    return frames
