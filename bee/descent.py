"""Walking down the tree: plain functions over cached nodes, which say what they lack.

A read is a function of a `NodeReader`. It runs without waiting, and raises `BlocksNeeded`
when a block is not here; `Tree.read` fetches those and starts it again from the top, which
costs microseconds: what was passed is in the cache. So the hot path has no coroutines.

How many blocks a read of a remote log fetches, and in how many round trips: at each tree
node a binary search looks at three keys or fewer of up to eight. Where peers have hinted at
what the read will need, only the keys looked at are fetched, and they are on the way
already. Otherwise all keys of the node are asked for at once: more blocks, one round trip.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from bee.btree import MAX_DEPTH, MAX_KEYS, BTreeNode, ChildRef, OpenNode, fresh_node, new_node
from bee.cache import NodeCache
from bee.errors import CorruptTree, HistoryReplaced, NotABee, UnknownFormat
from bee.hints import PUSHED, Hints
from bee.log import Log
from bee.messages import (
    PROTOCOL,
    Header,
    NodeRecord,
    decode_brought,
    decode_key_value,
    decode_record,
)
from bee.protobuf import decode_varint, encode_varint
from hypercore.encoding import DecodeError

T = TypeVar("T")


PAUSE_EFFORT = 16
"""Effort, in units of about 4 us, after which the log is asked whether others should run.

What is here is read without waiting; a loop of such reads must not starve other tasks.
"""


class BlocksNeeded(Exception):
    """Not an error: the blocks without which a read cannot go on."""

    def __init__(self, seqs: Sequence[int]) -> None:
        super().__init__(seqs)
        self.seqs = seqs


class ReadStatistics(NamedTuple):
    """What the reads of a snapshot had to wait for.

    `blocks_waited` were not here; `round_trips` is how many times in a row a read had to ask
    and wait (blocks that were on the way already are part of the trip that asked for them).
    """

    blocks_waited: int = 0
    round_trips: int = 0


class ReadCounter:
    """Counts for `ReadStatistics`."""

    __slots__ = ("_last_hint", "blocks_waited", "round_trips")

    def __init__(self) -> None:
        self.blocks_waited = 0
        self.round_trips = 0
        self._last_hint = 0

    def count(self, blocks: int, hint: int) -> None:
        """`hint` numbers the hint that asked for all of the blocks, 0 if there was none.

        What is pushed comes in the trip that asked for it: the first wait of a read is one.
        """
        self.blocks_waited += blocks
        if hint == PUSHED and self.round_trips:
            return
        if hint == 0 or hint != self._last_hint:
            self.round_trips += 1
            self._last_hint = hint

    @property
    def statistics(self) -> ReadStatistics:
        return ReadStatistics(self.blocks_waited, self.round_trips)


NOTHING_READ: Mapping[int, bytes | None] = {}

ReadBlocks = Callable[[Sequence[int]], Sequence[bytes | None]]


class NodeReader:
    """Tree nodes, keys and blocks, from the cache or from blocks that are here.

    Raises: BlocksNeeded, CorruptTree.
    """

    __slots__ = ("block", "blocks", "cache", "hints")

    def __init__(
        self,
        cache: NodeCache,
        block: Callable[[int], bytes | None],
        hints: Hints,
        blocks: ReadBlocks | None = None,
    ) -> None:
        """`blocks` reads several, cheaper than `block` one by one."""
        self.cache = cache
        self.block = block
        self.blocks: ReadBlocks = blocks or (lambda seqs: list(map(block, seqs)))
        self.hints = hints

    def record(self, seq: int) -> NodeRecord:
        block = self.block(seq)
        if block is None:
            raise BlocksNeeded((seq,))
        return parse_record(seq, block)

    def node(self, ref: bytes, parent_ref: bytes) -> BTreeNode:
        """The tree node at `ref`, kept in the cache."""
        node = self.cache.get(ref)
        return self.load(ref, parent_ref)[0] if node is None else node

    def load(self, ref: bytes, parent_ref: bytes) -> tuple[BTreeNode, bytes, int]:
        """Decode the tree node at `ref` and cache it; also its block, and that block's seq.

        `parent_ref` is empty for a root.
        """
        node, block, seq = self.decode(ref, parent_ref)
        self.cache.add(ref, node)
        return node, block, seq

    def decode(
        self, ref: bytes, parent_ref: bytes, read: Mapping[int, bytes | None] = NOTHING_READ
    ) -> tuple[BTreeNode, bytes, int]:
        """Like `load`, for nodes not worth caching. `read` are blocks that need not be read."""
        seq, offset = decode_ref(ref)
        if parent_ref:
            parent_seq = decode_varint(parent_ref, 0)[0]
            # A block names only itself and older ones: whatever refers forward goes in circles.
            if not 0 < seq <= parent_seq:
                raise CorruptTree(parent_seq, f"child in block {seq}")
        block = read.get(seq) or self.block(seq)
        if block is None:
            raise BlocksNeeded((seq,))
        try:
            key, key_refs, children = decode_brought(block, offset)
        except DecodeError as error:
            raise CorruptTree(seq, str(error)) from error
        count = len(key_refs)
        if count > MAX_KEYS or (not count and (parent_ref or children)):
            raise CorruptTree(seq, f"tree node with {count} keys")
        if children and len(children) != count + 1:
            raise CorruptTree(seq, f"tree node with {len(children)} children, {count} keys")
        return fresh_node(encode_varint(seq), key, key_refs, children), block, seq

    def search(
        self, keys: list[bytes | None], key_refs: Sequence[bytes], key: bytes
    ) -> tuple[int, NodeRecord | None]:
        """Where `key` is or belongs among a node's keys; fills in those it looks at.

        Also the record of `key`, if that was read to find it.
        """
        low, high = 0, len(keys)
        while low < high:
            middle = (low + high) >> 1
            found = keys[middle]
            record = None
            if found is None:
                seq = decode_varint(key_refs[middle], 0)[0]
                block = self.block(seq)
                if block is None:
                    raise BlocksNeeded(self._worth_asking(keys, key_refs, seq))
                record = parse_record(seq, block)
                found = record.key
                _check_order(seq, found, keys[low - 1] if low else None, keys[high:])
                keys[middle] = found
            if found == key:
                return middle, record
            if key < found:
                high = middle
            else:
                low = middle + 1
        return low, None

    def search_cached(
        self, ref: bytes, node: BTreeNode, key: bytes
    ) -> tuple[int, NodeRecord | None, BTreeNode]:
        """`search` in the node at `ref`; the keys it looked at stay in the cache."""
        keys = list(node[0])
        try:
            position, record = self.search(keys, node[1], key)
        finally:
            node = new_node(keys, node[1], node[2])
            self.cache.replace(ref, node)
        return position, record, node

    def _worth_asking(
        self, keys: Sequence[bytes | None], key_refs: Sequence[bytes], wanted: int
    ) -> Sequence[int]:
        """`wanted` alone if hints name it or will, else all keys of its node that are not here."""
        if wanted in self.hints or self.hints.wait_for_more():
            return (wanted,)
        seqs = [wanted]
        for key, ref in zip(keys, key_refs, strict=True):
            seq = decode_varint(ref, 0)[0]
            if key is None and seq != wanted and self.block(seq) is None:
                seqs.append(seq)
        return seqs


def _check_order(seq: int, key: bytes, before: bytes | None, after: Sequence[bytes | None]) -> None:
    if (before is not None and key <= before) or (
        after and after[0] is not None and key >= after[0]
    ):
        raise CorruptTree(seq, "keys out of order")


def parse_record(seq: int, block: bytes) -> NodeRecord:
    """What block `seq` holds. Raises: CorruptTree."""
    try:
        return decode_record(block)
    except DecodeError as error:
        raise CorruptTree(seq, str(error)) from error


def parse_entries(seqs: Iterable[int], blocks: Iterable[bytes]) -> list[tuple[bytes, bytes | None]]:
    """Keys and values of blocks. Raises: CorruptTree."""
    try:
        return list(map(decode_key_value, blocks))
    except DecodeError:
        for seq, block in zip(seqs, blocks, strict=True):
            parse_record(seq, block)  # tells which it is
        raise


def decode_ref(ref: bytes) -> tuple[int, int]:
    """Seq and offset of a child ref."""
    seq, position = decode_varint(ref, 0)
    return seq, decode_varint(ref, position)[0]


def root_ref(version: int) -> bytes:
    """The root of that version: level 0 of its last block. Empty when nothing was put."""
    return encode_varint(version - 1) + b"\0" if version > 1 else b""


def locate(reader: NodeReader, ref: bytes, node: BTreeNode, key: bytes) -> tuple[int, bool]:
    """Index of the first key of a node that is not less than `key`; whether it is equal."""
    keys = node[0]
    try:
        # A key not loaded yet is None, and comparing with it raises TypeError.
        position = bisect_left(keys, key)  # type: ignore[type-var]
    except TypeError:
        position, _, node = reader.search_cached(ref, node, key)
        keys = node[0]
    return position, position < len(keys) and keys[position] == key


def locate_open(reader: NodeReader, node: OpenNode, key: bytes) -> tuple[int, bool]:
    """`locate` in a node that is being changed."""
    keys = node.keys
    try:
        position = bisect_left(keys, key)  # type: ignore[type-var]  # as in locate
    except TypeError:
        position = reader.search(keys, node.key_refs, key)[0]
    return position, position < len(keys) and keys[position] == key


Found = tuple[int, NodeRecord | None]
"""Seq of the block that a key is in, and its record if that was read on the way."""


def find(reader: NodeReader, root: ChildRef, key: bytes) -> Found | None:
    """Find the block that holds `key` below `root`. Raises: BlocksNeeded, CorruptTree."""
    child = root
    while not isinstance(child, bytes):  # nodes that are being changed are above all others
        position, is_there = locate_open(reader, child, key)
        if is_there:
            return decode_varint(child.key_refs[position], 0)[0], None
        if not child.children:
            return None
        child = child.children[position]
    return find_closed(reader, child, key)


def find_closed(reader: NodeReader, ref: bytes, key: bytes) -> Found | None:
    """`find` below a node that is not being changed."""
    parent_ref = b""
    match: NodeRecord | None = None
    cache = reader.cache
    young = cache.young
    for _ in range(MAX_DEPTH):
        node = young.get(ref)
        if node is None:
            # Where this block is about `key` itself, the original ends here: it is what the
            # block says. But the block of a key that was deleted later may have brought a
            # node that came into the way to the key's place only since then.
            node = cache.get(ref) or reader.load(ref, parent_ref)[0]
            young = cache.young
        keys, key_refs, children, _ = node
        try:
            position = bisect_left(keys, key)  # type: ignore[type-var]  # as in locate
        except TypeError:
            position, match, node = reader.search_cached(ref, node, key)
            young = cache.young
            keys = node[0]
        if position < len(keys) and keys[position] == key:
            return decode_varint(key_refs[position], 0)[0], match
        if not children:
            return None
        parent_ref, ref = ref, children[position]
    raise too_deep(parent_ref)


def too_deep(ref: bytes) -> CorruptTree:
    """The error of a descent that came as far as the node at `ref`."""
    return CorruptTree(decode_varint(ref, 0)[0], f"tree deeper than {MAX_DEPTH}")


def has_node(reader: NodeReader, root: bytes, ref: bytes, key: bytes) -> bool:
    """Whether the node at `ref`, of which `key` is one key, is `root` or below it.

    Raises: BlocksNeeded, CorruptTree.
    """
    child, parent_ref = root, b""
    for _ in range(MAX_DEPTH):
        if child == ref:
            return True
        node = reader.node(child, parent_ref)
        position, is_there = locate(reader, child, node, key)
        if is_there or not node[2]:
            return False
        child, parent_ref = node[2][position], child
    raise too_deep(child)


class Tree:
    """All of one bee that its snapshots share: the log, the cache, the hints of peers."""

    __slots__ = ("_fork", "_has_header", "_local", "cache", "effort", "hints", "log", "reader")

    def __init__(self, log: Log, cache_bytes: int) -> None:
        self.log = log
        self.cache = NodeCache(cache_bytes)
        self.hints = Hints()
        self._local = log.get_local
        self.reader = NodeReader(self.cache, self._local, self.hints, log.get_local_many)
        self._fork = log.fork
        self._has_header = False
        self.effort = 0
        """Spent since the last pause; callers of `pause` add to it."""

    async def pause(self) -> None:
        """Let other tasks run if it is time: the log counts what each of its writes costs."""
        while self.effort >= PAUSE_EFFORT:
            self.effort -= PAUSE_EFFORT
            await self.log.write_local({})

    def current_fork(self) -> int:
        """The log's fork; forgets what was cached of another one."""
        fork = self.log.fork
        if fork != self._fork:
            self._fork = fork
            self._has_header = False
            self.cache.clear()
            self.hints.clear()
        return fork

    def check_fork(self, fork: int) -> None:
        """Raises: HistoryReplaced."""
        if self.current_fork() != fork:
            raise HistoryReplaced(fork, self._fork)

    async def read(
        self,
        step: Callable[[NodeReader], T],
        counter: ReadCounter,
        ask: Callable[[int], object] | None = None,
    ) -> T:
        """Run `step` until nothing is missing; `ask` is told the first seq that is not here.

        Raises: CorruptTree, HistoryReplaced; BlockNotAvailable for what our own log gave up.
        Cancel: nothing has changed; blocks that were asked for may still come.
        """
        try:
            try:
                return step(self.reader)
            except BlocksNeeded as missing:
                needed = missing.seqs
            fork = self._fork
            held: dict[int, bytes] = {}
            reader = NodeReader(
                self.cache, lambda seq: held[seq] if seq in held else self._local(seq), self.hints
            )
            if ask is not None and self.hints.number_of(needed[:1]) != PUSHED:
                ask(needed[0])
                if self.hints.wait_for_more():
                    needed = needed[:1]  # the rest comes along, or is hinted at
            while True:
                if max(needed) >= self.log.length:
                    raise CorruptTree(max(needed), "named by the tree, and not in the log")
                counter.count(len(needed), self.hints.number_of(needed))
                # What our own log lacks was given up; a peer that has it may not restore it.
                wait = not self.log.is_writable
                blocks = await self.log.get_many(needed, wait=wait)
                held.update(zip(needed, blocks, strict=True))
                self.check_fork(fork)
                try:
                    return step(reader)
                except BlocksNeeded as missing:
                    needed = missing.seqs
        except CorruptTree as error:
            self.refuse(error)

    def refuse(self, error: CorruptTree) -> NoReturn:
        """Raise it, or what explains it better; nothing that was read on the way is kept.

        Raises: CorruptTree, NotABee, UnknownFormat.
        """
        self.cache.clear()
        self.check_header()
        raise error

    def check_header(self) -> None:
        """Make sure, once, that the log starts as a bee does, if its first block is here.

        Raises: NotABee, UnknownFormat.
        """
        if not self._has_header:
            block = self._local(0)
            if block is not None:
                decode_header(block)
                self._has_header = True

    async def header(self, counter: ReadCounter) -> Header:
        """Raises: NotABee, UnknownFormat."""
        block = self._local(0)
        if block is None:
            counter.count(1, 0)
            block = (await self.log.get_many((0,)))[0]
        return decode_header(block)


def decode_header(block: bytes) -> Header:
    """Raises: NotABee, UnknownFormat."""
    try:
        header = Header.decode(block)
    except DecodeError as error:
        raise NotABee(f"block 0 is no header: {error}") from error
    if header.protocol != PROTOCOL:
        if header.protocol.startswith(PROTOCOL):
            raise UnknownFormat(header.protocol)
        raise NotABee(f"block 0 names the protocol {header.protocol!r}, not {PROTOCOL!r}")
    return header
