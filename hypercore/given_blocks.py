"""Blocks that callers give to be appended, or ask for, checked before anything is done."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from hypercore.errors import BlockTooLarge, OutOfRange

MAX_BLOCK_BYTES = 15 << 20
"""The most that JavaScript takes; a secret stream's message has room for 16 MiB."""


INDEX_ERRORS = (AttributeError, TypeError, struct.error)
"""What reading raises for an index that no block can have; only then is the index checked."""


def given_blocks(blocks: bytes | Sequence[bytes]) -> Sequence[bytes]:
    """One block, or a sequence of them, as a sequence.

    Raises: TypeError for anything else, BlockTooLarge.
    """
    given: Sequence[bytes] = (blocks,) if isinstance(blocks, bytes) else blocks
    if not isinstance(given, tuple | list) and not _is_sequence(given):
        raise TypeError(
            f"blocks are bytes, or a list or tuple of bytes, not {type(given).__name__}"
        )
    for kind in set(map(type, given)):
        if not issubclass(kind, bytes):
            raise TypeError(f"a block is bytes, not {kind.__name__}")
    if (largest := max(map(len, given), default=0)) > MAX_BLOCK_BYTES:
        raise BlockTooLarge(largest, MAX_BLOCK_BYTES)
    return given


def given_indices(indices: Iterable[int]) -> Sequence[int]:
    """The indices as a sequence, which can be gone through more than once."""
    return indices if isinstance(indices, range | list | tuple) else list(indices)


def check_index(index: int, length: int) -> None:
    """Raises: TypeError for what is not an int, OutOfRange for one that no block can have."""
    if not isinstance(index, int):
        raise TypeError(f"the index of a block is int, not {type(index).__name__}")
    if not 0 <= index < 1 << 64:
        raise OutOfRange(index, length)


def check_numbers(what: str, *numbers: int | None) -> None:
    """Raises: TypeError for a number that is not an int; None is one that was left out."""
    for number in numbers:
        if number is not None and type(number) is not int:
            raise TypeError(f"{what} is int, not {type(number).__name__}")


def check_cut(length: int, fork: int | None) -> None:
    """Raises: TypeError for where a log is cut, or for a fork, that is not an int."""
    check_numbers("the length of a log", length)
    check_numbers("the fork of a log", fork)


def _is_sequence(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str | bytearray | memoryview)
