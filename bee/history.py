"""Reading all changes of a bee in the order in which they were made: every block of its log is one.

Source: hyperbee 2.27.3 iterators/history.js, for what it yields.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Generic, TypeVar

from bee.errors import CorruptTree
from bee.messages import is_deletion
from bee.node_reader import BlocksNeeded, NodeReader, parse_entries, parse_record
from bee.ranges import MAX_GROUP
from hypercore.encoding import DecodeError

T = TypeVar("T")


class HistoryCursor(Generic[T]):
    """All blocks in [start, stop), oldest first, or newest first if `reverse`.

    `decode` is also told which of the seqs are deletions.
    """

    def __init__(
        self,
        seqs: range,
        limit: int | None,
        decode: Callable[
            [Sequence[int], Sequence[bytes], Sequence[bytes | None], Container[int]], list[T]
        ],
    ) -> None:
        self._seqs = seqs if limit is None else seqs[:limit]
        self._decode = decode
        self._group = 1

    def advance(self, reader: NodeReader) -> Sequence[T]:
        group = self._seqs[: self._group]
        if not group:
            return ()
        read = reader.blocks(group)
        blocks = [block for block in read if block is not None]
        if len(blocks) < len(read):
            missing = [seq for seq, block in zip(group, read, strict=True) if block is None]
            raise BlocksNeeded(missing)
        keys, values = zip(*parse_entries(group, blocks), strict=True)
        deletions: Container[int] = ()
        if None in values:
            deletions = {
                seq
                for seq, block, value in zip(group, blocks, values, strict=True)
                if value is None and _is_deletion(seq, block)
            }
        self._seqs = self._seqs[self._group :]
        self._group = min(2 * self._group, MAX_GROUP)
        return self._decode(group, keys, values, deletions)


def _is_deletion(seq: int, block: bytes) -> bool:
    try:
        return is_deletion(parse_record(seq, block), seq)
    except DecodeError as error:
        raise CorruptTree(seq, str(error)) from error


def history_seqs(
    version: int,
    *,
    gt: int | None = None,
    gte: int | None = None,
    lt: int | None = None,
    lte: int | None = None,
    reverse: bool,
) -> range:
    """The seqs between these bounds; negative bounds count back from `version`."""

    def absolute(bound: int) -> int:
        return bound + version if bound < 0 else bound

    start = 1
    if gt is not None:
        start = absolute(gt) + 1
    elif gte is not None:
        start = absolute(gte)
    stop = version
    if lte is not None:
        stop = absolute(lte) + 1
    elif lt is not None:
        stop = absolute(lt)
    seqs = range(max(start, 1), max(min(stop, version), 1))
    return seqs[::-1] if reverse else seqs
