"""The Merkle tree of a log, slow and obvious: every subtree is hashed again when asked for.

A subtree is named by its first block and its number of blocks, a power of two. Nothing here
comes from the package, so that both must be wrong in the same way to agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

Subtree = tuple[int, int]
Node = tuple[int, int, bytes]
"""(flat tree index, size in bytes, hash)."""


def digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def index_of(subtree: Subtree) -> int:
    """In-order number: what lies to the left of the subtree's root, counted."""
    first, count = subtree
    return 2 * first + count - 1


def node(blocks: Sequence[bytes], subtree: Subtree) -> Node:
    first, count = subtree
    if count == 1:
        block = blocks[first]
        return 2 * first, len(block), digest(b"\x00", number(len(block)), block)
    left, right = (node(blocks, half) for half in halves(subtree))
    size = left[1] + right[1]
    return index_of(subtree), size, digest(b"\x01", number(size), left[2], right[2])


def halves(subtree: Subtree) -> tuple[Subtree, Subtree]:
    first, count = subtree
    return (first, count // 2), (first + count // 2, count // 2)


def roots(length: int) -> list[Subtree]:
    """The fewest subtrees that cover a log, largest first."""
    found, first = [], 0
    while first < length:
        count = 1
        while first + 2 * count <= length:
            count *= 2
        found.append((first, count))
        first += count
    return found


def below(subtree: Subtree) -> Iterator[Subtree]:
    yield subtree
    if subtree[1] > 1:
        for half in halves(subtree):
            yield from below(half)


def subtrees(length: int) -> list[Subtree]:
    """Every complete subtree of a log."""
    return [subtree for root in roots(length) for subtree in below(root)]


def nodes(blocks: Sequence[bytes]) -> dict[int, Node]:
    """Every node that a log of these blocks has."""
    return {index_of(subtree): node(blocks, subtree) for subtree in subtrees(len(blocks))}


def tree_hash(blocks: Sequence[bytes]) -> bytes:
    tops = [node(blocks, root) for root in roots(len(blocks))]
    return digest(b"\x02", *(top[2] + number(top[0]) + number(top[1]) for top in tops))


def growth(start: int, stop: int) -> list[int]:
    """The largest subtrees of a log of `stop` blocks with no block below `start`."""

    def cover(subtree: Subtree) -> Iterator[int]:
        first, count = subtree
        if first >= start:
            yield index_of(subtree)
        elif first + count > start:
            for half in halves(subtree):
                yield from cover(half)

    return [index for root in roots(stop) for index in cover(root)]
