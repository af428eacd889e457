"""Erasing keys so that their bytes leave the disk, which a deletion does not do.

A log keeps what was appended. To give up a block (`Log.clear_many`), the tree must not need it: not
for a live key, and not for the tree nodes that it brought. So an erasure is:

1. Find every block about a key of the range, older values and deletions included (`BlockIndex`).
2. In one append: take the keys out of the tree, and have one new block bring all nodes that this
   changed, and all nodes that live in one of these blocks (`rewriting`). It repeats nothing of
   what is erased. A local row `bee/erasing/` with the range is in the same batch.
3. Give the blocks up, a few hundred at a time. No later tree can name them again, so nothing has
   to be looked at but the local rows. When all are done, the row of step 2 goes.

A crash leaves either the bee as it was before step 2, or that row, by which `finish` goes on. If
the log was cut before that, the tree may name some of the blocks again, or have others in their
place: those that it needs stay.

Nodes that live in such blocks are few: they are on the way to the range, or beside it. Each is
found by one descent to one of its keys.

Of 20,000 keys, 20 that sort together take one append of 400 bytes, 3 to 8 reads a key and 3 to 7
ms in all; 10,000 of them one append and 1 to 2 s.

What is lost: versions from before step 2 may no longer be readable (BlockNotAvailable; peers
are told that the blocks are gone). Copies that peers have are theirs. The files of the storage
let go of the bytes when it is told to (`Corestore.reclaim`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from bee.block_index import LOCAL_PREFIX, BlockIndex, IndexRow, row_of
from bee.changes import TreeChanges
from bee.errors import CorruptTree
from bee.keyspace import KeyRange
from bee.messages import NodeRecord
from bee.node_reader import BlocksNeeded, parse_record, root_ref
from bee.protobuf import (
    as_bytes,
    as_int,
    decode_fields,
    decode_packed,
    encode_bytes_field,
    encode_packed,
    encode_varint_field,
)
from bee.ranges import RangeCursor, Results
from bee.rewriting import REWRITTEN_AT_ONCE, Mover, brought_nodes, is_needed, may_bring
from bee.tree import ReadCounter, Tree
from bee.writer import Writer
from hypercore.crypto import blake2b
from hypercore.encoding import DecodeError
from hypercore.errors import NotWritable

_ERASING = LOCAL_PREFIX + b"erasing/"
_AFTER_ERASING = LOCAL_PREFIX + b"erasing0"

CLEARED_AT_ONCE = 256
"""Blocks; peers are told of each run of them."""

SPARED_AT_ONCE = 1_024
"""After this many keys that stay, a block brings what changed so far: the nodes that they are in.

Nobody reads a block with too many of them (`MAX_BROUGHT`).
"""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure came to."""

    keys: int = 0
    """Taken out of the tree."""
    blocks: int = 0
    """Given up."""
    rewritten: int = 0
    """Tree nodes brought along because they lived in one of these blocks."""
    appended: int = 0
    """Blocks appended."""
    indexed: int = 0
    """Blocks read because no erasure had seen them before."""


@dataclass(frozen=True, slots=True)
class Todo:
    """Blocks to give up: those about keys in `bounds` with seq < stop, but for the `spared`."""

    bounds: KeyRange
    stop: int
    spared: frozenset[int]
    fork: int | None = None
    """Of the log for which this is true; None in rows that older versions wrote."""

    @property
    def row(self) -> bytes:
        """Its local row; each erasure has its own, even at the same length of the log."""
        return _ERASING + self.stop.to_bytes(8, "big") + blake2b(self.encode(), size=16)

    def encode(self) -> bytes:
        bounds = self.bounds
        encoded = encode_varint_field(1, self.stop)
        if bounds.lower is not None:
            encoded += encode_bytes_field(2, bounds.lower)
        if bounds.upper is not None:
            encoded += encode_bytes_field(3, bounds.upper)
        encoded += encode_varint_field(4, int(bounds.includes_lower))
        encoded += encode_varint_field(5, int(bounds.includes_upper))
        encoded += encode_bytes_field(6, encode_packed(sorted(self.spared)))
        return encoded if self.fork is None else encoded + encode_varint_field(7, self.fork)

    @classmethod
    def decode(cls, record: bytes) -> Todo:
        """Raises: CorruptTree."""
        try:
            fields = dict(decode_fields(record))
            lower, upper = fields.get(2), fields.get(3)
            bounds = KeyRange(
                None if lower is None else as_bytes(lower),
                None if upper is None else as_bytes(upper),
                bool(as_int(fields.get(4, 0))),
                bool(as_int(fields.get(5, 0))),
            )
            spared = frozenset(decode_packed(as_bytes(fields.get(6, b""))))
            fork = fields.get(7)
            return cls(
                bounds, as_int(fields.get(1, 0)), spared, None if fork is None else as_int(fork)
            )
        except DecodeError as error:
            raise CorruptTree(0, f"local row of an erasure: {error}") from error


class Eraser:
    """Erases ranges of one bee."""

    def __init__(self, tree: Tree, header: bytes, mover: Mover) -> None:
        self._tree = tree
        self._log = tree.log
        self._header = header
        self._mover = mover
        self._index = BlockIndex(tree)

    async def erase(
        self,
        bounds: KeyRange,
        keep: Collection[bytes],
        local: Mapping[bytes, bytes | None],
    ) -> Erasure:
        """Erase what is in `bounds`; of the keys in `keep` only what is no longer their value."""
        if not self._log.is_writable:
            raise NotWritable("keys are erased where the log is written")
        indexed = await self._index.catch_up()
        async with self._log.exclusive():
            indexed += await self._index.catch_up()  # what was appended meanwhile
            writer = Writer(self._tree, self._header, always_duplicate=True)
            stop = self._log.length
            keys, spared = await self._take_out(writer, bounds, keep)
            found, rewritten, has_head = await self._rewrite(writer, bounds, spared)
            if keys or rewritten or has_head:
                await self._mover.close(writer)
            rows = dict(local)
            if keys or found:
                todo = Todo(bounds, stop, spared, self._log.fork)
                rows[todo.row] = todo.encode()
            writer.append(rows)
            appended = self._log.length - stop
        await self._log.wait_durable()
        blocks = await self.finish()
        return Erasure(keys, blocks, rewritten, appended, indexed)

    async def finish(self) -> int:
        """Give up the blocks of all erasures that were begun; returns how many blocks."""
        blocks = 0
        for row, record in list(self._log.local_items(_ERASING, _AFTER_ERASING)):
            blocks += await self._finish(Todo.decode(record))
            await self._log.write_local({row: None})
        return blocks

    async def _finish(self, todo: Todo) -> int:
        blocks = 0
        last = b""
        while rows := list(islice(self._due(todo, last), CLEARED_AT_ONCE)):
            # From here to the commit nobody else runs.
            was_cut = self._tree.current_fork() != todo.fork
            seqs = []
            done: dict[bytes, bytes | None] = {}
            for row, seq in rows:
                record = self._record(seq)
                if record is None or row != row_of(record.key, seq):
                    done[row] = None  # not about this key any more
                elif _is_erased(record, todo.bounds) and not (was_cut and self._is_needed(seq)):
                    seqs.append(seq)
                    done[row] = None
            await self._log.clear_many(seqs, local=done)
            blocks += len(seqs)
            last = rows[-1].row
        return blocks

    def _due(self, todo: Todo, last: bytes) -> Iterator[IndexRow]:
        for row in self._index.rows(todo.bounds, after=last):
            if row.seq < todo.stop and row.seq not in todo.spared:
                yield row

    def _is_needed(self, seq: int) -> bool:
        """Whether the present tree names the block."""
        try:
            return is_needed(self._tree.reader, self._log, root_ref(self._log.length), seq)
        except BlocksNeeded:
            return True  # the way to it is lost, too: nobody can tell

    def _record(self, seq: int) -> NodeRecord | None:
        block = self._log.get_local(seq)
        return None if block is None else parse_record(seq, block)

    async def _take_out(
        self, writer: Writer, bounds: KeyRange, keep: Collection[bytes]
    ) -> tuple[int, frozenset[int]]:
        """Take the keys out of the tree; returns how many, and the blocks of those kept."""
        keys = 0
        spared = []
        version = self._log.length
        cursor = RangeCursor(root_ref(version), bounds, _seqs_and_keys)
        async for seq, key in Results(self._tree, self._log.fork, cursor, ReadCounter()):
            if key in keep:
                spared.append(seq)
                if len(spared) % SPARED_AT_ONCE == 0:
                    await self._mover.close(writer)
            else:
                keys += await writer.change(partial(TreeChanges.remove, key=key))
        return keys, frozenset(spared)

    async def _rewrite(
        self, writer: Writer, bounds: KeyRange, spared: frozenset[int]
    ) -> tuple[int, int, bool]:
        """Have all nodes that live in blocks about these keys brought again.

        Returns how many blocks there are, how many nodes, and whether the root is one of them.
        """
        blocks = rewritten = 0
        has_head = False
        for row in self._index.rows(bounds):
            record = None if row.seq in spared else self._record(row.seq)
            if record is None or not _is_erased(record, bounds):
                continue
            blocks += 1
            has_head = has_head or row.seq == self._log.length - 1
            for ref, key, _ in brought_nodes(self._log, row.seq, record):
                if await writer.change(partial(TreeChanges.rewrite, ref=ref, key=key)):
                    rewritten += 1
                    if rewritten % REWRITTEN_AT_ONCE == 0:
                        await self._mover.close(writer)
        return blocks, rewritten, has_head


def _is_erased(record: NodeRecord, bounds: KeyRange) -> bool:
    """Whether to give up a block: not if nodes were moved there."""
    return bounds.contains(record.key) and not may_bring(record)


def _seqs_and_keys(
    seqs: Sequence[int], keys: Sequence[bytes], _values: object
) -> list[tuple[int, bytes]]:
    return list(zip(seqs, keys, strict=True))
