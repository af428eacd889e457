"""Tree nodes, and the keys in them, from blocks that are here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bee.btree import KEY_BYTES, MAX_DEPTH, MAX_KEYS, BTreeNode, fresh_node, with_keys
from bee.cache import NodeCache, Span
from bee.errors import CorruptTree
from bee.hints import Hints
from bee.messages import (
    MAX_BROUGHT,
    NodeRecord,
    decode_brought,
    decode_key_value,
    decode_record,
)
from bee.protobuf import decode_varint, encode_varint
from hypercore.encoding import DecodeError


class BlocksNeeded(Exception):
    """Not an error: the blocks without which a read cannot go on."""

    def __init__(self, seqs: Sequence[int]) -> None:
        super().__init__(seqs)
        self.seqs = seqs


KeyValue = tuple[bytes, bytes | None]
"""Of one entry, as they are stored."""

_COUNTER_BYTES = 8

_MAX_LOOKED_BELOW = 256
"""Nodes of one block that are looked below; a put brings some two for each level of the tree. To
get at one behind thousands takes a millisecond, and 32 of them at each of 32 levels took seconds.
"""

NOTHING_READ: Mapping[int, bytes | None] = {}

ReadBlocks = Callable[[Sequence[int]], Sequence[bytes | None]]


class NodeReader:
    """Tree nodes, keys and blocks, from the cache or from blocks that are here.

    Raises: BlocksNeeded, CorruptTree.
    """

    __slots__ = ("block", "blocks", "cache", "hints", "is_alone")

    def __init__(
        self,
        cache: NodeCache,
        block: Callable[[int], bytes | None],
        hints: Hints,
        blocks: ReadBlocks | None = None,
        *,
        is_alone: bool = False,
    ) -> None:
        """`blocks` reads several, cheaper than `block` one by one. `is_alone`: without peers."""
        self.cache = cache
        self.block = block
        self.blocks: ReadBlocks = blocks or (lambda seqs: list(map(block, seqs)))
        self.hints = hints
        self.is_alone = is_alone

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
        if offset >= MAX_BROUGHT:
            raise CorruptTree(seq, f"tree node {offset} of a block")
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

    def search_leaf(
        self,
        ref: bytes,
        leaf: BTreeNode,
        key: bytes,
        below: bytes | None,
        above: bytes | None,
        home: tuple[int, bytes],
    ) -> tuple[int, KeyValue | None] | None:
        """The seq of `key` in the leaf at `ref`; what its block holds if that was read.

        None if it is not there. `below` and `above` are keys on both sides of the leaf, as far as
        they are known; `home` are seq and block of the leaf itself if that was just read.

        Among counters it looks where the key should be. Usually it is there, and the block
        is needed for the value anyway: a binary search would read one more.
        """
        keys, key_refs, children, size = leaf
        low, high = 0, len(keys)
        for place, known in enumerate(keys):
            if known is None:
                continue
            if known < key:
                low, below = place + 1, known
            elif known == key:
                seq = decode_varint(key_refs[place], 0)[0]
                return seq, parse_entry(*home) if seq == home[0] else None
            else:
                high, above = place, known
                break
        if low == high:
            return None
        if below is not None and above is not None:
            guess = likely_place(key, below, above, high - low)
            place = low if guess is None else low + guess
            seq = decode_varint(key_refs[place], 0)[0]
            block = None if guess is None else self.block(seq)
            if block is not None:
                held = parse_entry(seq, block)
                found = held[0]
                keys = (*keys[:place], found, *keys[place + 1 :])
                leaf = keys, key_refs, children, size + KEY_BYTES + len(found)
                if found == key:
                    self.cache.replace(ref, leaf)
                    return seq, held
                _check_order(seq, found, keys[place - 1] if place else None, keys[place + 1 :])
        position, entry, _ = self.search_cached(ref, leaf, key)
        return None if entry is None else (decode_varint(key_refs[position], 0)[0], entry)

    def search(
        self,
        keys: list[bytes | None],
        key_refs: Sequence[bytes],
        key: bytes,
        children: Sequence[bytes] = (),
        ref: bytes = b"",
        *,
        will_ask: bool = True,
    ) -> tuple[int, KeyValue | None]:
        """Where `key` is or belongs among a node's keys; fills in those it looks at.

        Also what the block of `key` holds, if that was read to find it. `will_ask`: whether peers
        will be asked for what is lacking. Keys known below `children`, those of the node at `ref`,
        stand in for keys that are not here.
        """
        low, high = 0, len(keys)
        while low < high:
            middle = (low + high) >> 1
            found = keys[middle]
            held = None
            if found is None:
                seq = decode_varint(key_refs[middle], 0)[0]
                block = self.block(seq)
                if block is None and children and self._takes_held:
                    low, high = self._closer(children, ref, low, high, key)
                    children = ()
                    continue
                if block is None:
                    if not will_ask:
                        raise BlocksNeeded((seq,))
                    middle = self._other_key(keys, key_refs, low, high, seq)
                    found = keys[middle]
                    seq = decode_varint(key_refs[middle], 0)[0]
                    block = None if found is not None else self.block(seq)
                if block is not None:
                    held = parse_entry(seq, block)
                    found = held[0]
                    _check_order(seq, found, keys[low - 1] if low else None, keys[high:])
                    keys[middle] = found
            assert found is not None  # it is known, or its block is here
            if found == key:
                return middle, held
            if key < found:
                high = middle
            else:
                low = middle + 1
        return low, None

    @property
    def _takes_held(self) -> bool:
        """Whether to go by what is here, and not by the keys that the original would look at.

        Peers that push send the least that leads to a key. Others may find that a tree is out of
        order.
        """
        return self.is_alone or self.hints.are_pushed

    def _closer(
        self, children: Sequence[bytes], ref: bytes, low: int, high: int, key: bytes
    ) -> tuple[int, int]:
        """Closer bounds than [low, high] for the place of `key`, from keys below the children.

        Raises: BlocksNeeded for children that are on their way, if they may help.
        """
        spans = self.cache.spans
        known = [spans.get(child) for child in children[low : high + 1]]
        low, high = _between(known, low, high, key)
        if low < high:  # more may be known by now
            known = [self._span_below(child, ref) for child in children[low : high + 1]]
            low, high = _between(known, low, high, key)
        if low < high:
            seqs = [decode_ref(child)[0] for child in children[low : high + 1]]
            coming = [seq for seq in seqs if self.hints.is_pushed(seq) and self.block(seq) is None]
            if coming:
                raise BlocksNeeded(coming)
        return low, high

    def _span_below(self, ref: bytes, parent_ref: bytes) -> Span | None:
        """The first and the last of the keys that are known below."""
        keys = self.keys_below(ref, parent_ref)
        if not keys:
            return None
        span = min(keys), max(keys)
        self.cache.remember_span(ref, span)
        return span

    def keys_below(self, ref: bytes, parent_ref: bytes) -> list[bytes]:
        """Keys in the node at `ref` or below it, as far as what is here tells.

        Those of the node whose blocks are here, and `own_key`.
        """
        seq, offset = decode_ref(ref)
        if offset >= _MAX_LOOKED_BELOW or self.block(seq) is None:
            return []
        node = self.node(ref, parent_ref)
        keys = list(node[0])
        for place, key_ref in enumerate(node[1]):
            if keys[place] is None:
                seq = decode_varint(key_ref, 0)[0]
                block = self.block(seq)
                if block is not None:
                    keys[place] = found = parse_entry(seq, block)[0]
                    _check_order(seq, found, keys[place - 1] if place else None, keys[place + 1 :])
        if node[0] != tuple(keys):
            self.cache.replace(ref, with_keys(node, keys))
        known = [key for key in keys if key is not None]
        own = self.own_key(ref)
        return known if own is None else [*known, own]

    def own_key(self, ref: bytes) -> bytes | None:
        """The key of the block of the node at `ref`, if it is in that node or below it.

        Usually it is: a block brings a node because its key was put below. It is not if the node
        was split off, or the key deleted.
        """
        seq = decode_ref(ref)[0]
        own = encode_varint(seq)
        nodes = [(ref, b"")]
        for _ in range(MAX_DEPTH):
            if not nodes:
                break
            ref, parent_ref = nodes.pop()
            if decode_ref(ref)[1] >= _MAX_LOOKED_BELOW:
                continue
            keys, key_refs, children, _ = self.node(ref, parent_ref)
            if own in key_refs:
                return keys[key_refs.index(own)] or self.record(seq).key
            nodes += [(child, ref) for child in children if child.startswith(own)]
        return None

    def _other_key(
        self, keys: Sequence[bytes | None], key_refs: Sequence[bytes], low: int, high: int, seq: int
    ) -> int:
        """Place of a key in [low, high) that is known, or here, while that of block `seq` is not.

        Raises: BlocksNeeded, for one that is on its way if there is any.
        """
        coming = seq
        for place in range(low, high) if self._takes_held else ():
            if keys[place] is not None:
                return place
            other = decode_varint(key_refs[place], 0)[0]
            if self.block(other) is not None:
                return place
            if coming not in self.hints and other in self.hints:
                coming = other
        raise BlocksNeeded(self._worth_asking(keys, key_refs, coming))

    def search_cached(
        self, ref: bytes, node: BTreeNode, key: bytes, *, will_ask: bool = True
    ) -> tuple[int, KeyValue | None, BTreeNode]:
        """`search` in the node at `ref`; the keys it looked at stay in the cache."""
        keys = list(node[0])
        try:
            position, held = self.search(keys, node[1], key, node[2], ref, will_ask=will_ask)
        finally:
            node = with_keys(node, keys)
            self.cache.replace(ref, node)
        return position, held, node

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


def _between(spans: Sequence[Span | None], low: int, high: int, key: bytes) -> tuple[int, int]:
    """Closer bounds of the place of `key` than [low, high], whose children have these spans."""
    for place, span in enumerate(spans, low):
        if span is not None:
            if span[0] <= key:
                low = place
            if span[1] >= key:
                return low, place
    return low, high


def _check_order(seq: int, key: bytes, before: bytes | None, after: Sequence[bytes | None]) -> None:
    if (before is not None and key <= before) or (
        after and after[0] is not None and key >= after[0]
    ):
        raise CorruptTree(seq, "keys out of order")


def likely_place(key: bytes, below: bytes, above: bytes, count: int) -> int | None:
    """Where among `count` keys between two others a key is if they are evenly spread.

    Counters differ in their last bytes only, which are taken as a number: a decimal one if they are
    digits. None for any other keys, whose place is anybody's guess.
    """
    start = max(len(below) - _COUNTER_BYTES, 0)
    if below[:start] != above[:start]:
        return None
    stop = start + _COUNTER_BYTES
    first, last, wanted = below[start:], above[start:stop], key[start:stop]
    if first.isdigit() and last.isdigit() and wanted.isdigit():
        low, high, number = int(first), int(last), int(wanted)
    else:
        low, high, number = [
            int.from_bytes(end.ljust(_COUNTER_BYTES, b"\0"), "big") for end in (first, last, wanted)
        ]
    if not low < number < high:
        return None
    place = (2 * (number - low) * (count + 1) // (high - low) - 1) >> 1
    return min(max(place, 0), count - 1)


def parse_entry(seq: int, block: bytes) -> KeyValue:
    """Key and value of block `seq`. Raises: CorruptTree."""
    try:
        return decode_key_value(block)
    except DecodeError as error:
        raise CorruptTree(seq, str(error)) from error


def parse_record(seq: int, block: bytes) -> NodeRecord:
    """What block `seq` holds. Raises: CorruptTree."""
    try:
        return decode_record(block)
    except DecodeError as error:
        raise CorruptTree(seq, str(error)) from error


def parse_entries(seqs: Iterable[int], blocks: Iterable[bytes]) -> list[KeyValue]:
    """Keys and values of blocks. Raises: CorruptTree."""
    try:
        return list(map(decode_key_value, blocks))
    except DecodeError:
        for seq, block in zip(seqs, blocks, strict=True):
            parse_record(seq, block)  # raises for the one at fault
        raise


def decode_ref(ref: bytes) -> tuple[int, int]:
    """Seq and offset of a child ref."""
    seq, position = decode_varint(ref, 0)
    return seq, decode_varint(ref, position)[0]


def root_ref(version: int) -> bytes:
    """The root of that version: level 0 of its last block. Empty when nothing was put."""
    return encode_varint(version - 1) + b"\0" if version > 1 else b""
