"""Making the changes of one append: what a lone change and a batch have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from bee.changes import TreeChanges
from bee.errors import CorruptTree, LogChanged
from bee.node_reader import BlocksNeeded, NodeReader
from bee.tree import PAUSE_EFFORT, ReadCounter, Tree

T = TypeVar("T")

CHANGE_EFFORT = 8
READ_EFFORT = 5

LONG_BATCH_BLOCKS = 1_000
PIECE_BLOCKS = 128
"""Take 3 ms to encode and hash."""


class Writer:
    """Makes changes of one append; its user holds the log's `exclusive()`.

    `header` is the block to put first when the log is empty: with the first change that is
    tried, even if nothing comes of it.
    """

    __slots__ = ("_changes", "_fork", "_has_tried", "_header", "_length", "_tree", "counter")

    def __init__(self, tree: Tree, header: bytes, *, always_duplicate: bool) -> None:
        tree.current_fork()
        log = tree.log
        length = log.length
        self._length = length
        self._fork = log.fork
        if length:
            tree.check_may_write()
        self._tree = tree
        self._header = b"" if length else header
        self._has_tried = False
        self._changes = TreeChanges(tree.reader, max(length, 1), always_duplicate=always_duplicate)
        self.counter = ReadCounter()

    async def change(self, step: Callable[[TreeChanges], T]) -> T:
        """Run a put or delete, fetching what it lacks. Cancel: nothing was changed."""
        self._has_tried = True
        tree = self._tree
        tree.effort += CHANGE_EFFORT
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()
        return await self.read(step)

    async def put(self, key: bytes, value: bytes | None) -> bool:
        """`change` with a put, at a lower cost. Cancel: nothing was changed."""
        self._has_tried = True
        tree = self._tree
        tree.effort += CHANGE_EFFORT
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()
        try:
            return self._changes.put(key, value)
        except BlocksNeeded:
            return await self._read_missing(lambda changes: changes.put(key, value))
        except CorruptTree as error:
            tree.refuse(error)

    async def read_next(self, step: Callable[[TreeChanges], T]) -> T:
        """`read`, one of many. Cancel: as `Tree.read`."""
        tree = self._tree
        tree.effort += READ_EFFORT
        if tree.effort >= PAUSE_EFFORT:
            await tree.pause()
        return await self.read(step)

    async def read(self, step: Callable[[TreeChanges], T]) -> T:
        """Run a get. Cancel: as `Tree.read`."""
        try:
            return step(self._changes)
        except BlocksNeeded:
            return await self._read_missing(step)
        except CorruptTree as error:
            self._tree.refuse(error)

    async def _read_missing(self, step: Callable[[TreeChanges], T]) -> T:
        changes = self._changes

        def run(reader: NodeReader) -> T:
            changes.reader = reader
            return step(changes)

        try:
            return await self._tree.read(run, self.counter)
        finally:
            changes.reader = self._tree.reader

    @property
    def is_long(self) -> bool:
        """Whether appending takes so long that others should run in between."""
        return self._changes.count > LONG_BATCH_BLOCKS

    def append(self, local: Mapping[bytes, bytes | None] | None) -> bool:
        """Append header and blocks, with `local` rows, in one step; whether there was anything.

        Raises: LogChanged. When it fails nothing has changed, here or in the log.
        """
        blocks = [*self._encode()]
        if not blocks and not local:
            return False
        self._tree.log.append_nowait(blocks, local=local)
        self._changes.commit()
        return True

    async def append_long(self, local: Mapping[bytes, bytes | None] | None) -> None:
        """As `append` of a batch that `is_long`. Cancel: nothing was appended."""
        await self._tree.log.append_pieces(
            self._pieces(), local=local, expected_bytes=self._changes.content_bytes()
        )
        self._changes.commit()

    def _encode(self) -> Iterator[bytes]:
        log = self._tree.log
        if (log.length, log.fork) != (self._length, self._fork):
            raise LogChanged(f"the log had {self._length} blocks, now {log.length}")
        if self._header and self._has_tried:
            yield self._header
        yield from self._changes.encode()

    def _pieces(self) -> Iterator[Sequence[bytes]]:
        blocks = self._encode()
        while piece := [*islice(blocks, PIECE_BLOCKS)]:
            yield piece
