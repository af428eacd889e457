"""Which tree nodes no proof needs any more, once blocks were cleared.

A proof of a block has the siblings on its way up. Of a subtree without a single block that is
held, only the top can be such a sibling: everything below may go, always both children of a
node together. Roots of the log stay, so appending goes on.

One other thing needs nodes from inside: a peer whose log ends there. The subtrees between
(`flat_tree.growth`) lead it from its own length to the present one, and it checks that we know its
roots. The caller names such lengths. A peer at any other length inside cannot follow any more and
has to begin anew, as with JavaScript, which prunes with every clear.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.errors import PrunedHistory
from hypercore.flat_tree import TreeIndex
from hypercore.log import NodeReader


def needed_nodes(lengths: Iterable[int], length: int) -> list[TreeIndex]:
    """Nodes by which peers with these `lengths` can follow to a log of `length`, ascending."""
    needed: set[TreeIndex] = set()
    for known in lengths:
        if 0 < known < length:
            needed.update(flat_tree.full_roots(known))
            needed.update(flat_tree.growth(known, length))
    return sorted(needed)


def prunable(held: Bitfield, length: int, needed: Sequence[TreeIndex]) -> Iterator[TreeIndex]:
    """Subtrees of a log of `length` of which all nodes but the top may go, left to right.

    The largest there are; none is part of another. `held` may change between two of them: each
    is right for `held` as it is then. `needed` is ascending.
    """
    start = held.first_unset(0)
    while start < length:
        stop = held.first_set(start, length)
        for top in _covering(start, length if stop is None else stop):
            yield from _without(top, needed)
        if stop is None:
            return
        start = held.first_unset(stop)


def check_roots(length: int, held: Bitfield, read_node: NodeReader) -> None:
    """Raises: PrunedHistory when a root that a log cut to `length` needs was pruned.

    A root that is missing over blocks that are held is damage, which is reported elsewhere.
    """
    for index in flat_tree.full_roots(length):
        start, stop = flat_tree.left_span(index) // 2, flat_tree.right_span(index) // 2 + 1
        if read_node(index) is None and held.first_set(start, stop) is None:
            raise PrunedHistory(length, index)


def _covering(start: int, stop: int) -> Iterator[TreeIndex]:
    """The largest subtrees that cover blocks [start, stop), left to right."""
    while start < stop:
        leaves = 1 << (stop - start).bit_length() - 1
        if start:
            leaves = min(leaves, start & -start)
        yield TreeIndex(2 * start + leaves - 1)
        start += leaves


def _without(top: TreeIndex, needed: Sequence[TreeIndex]) -> Iterator[TreeIndex]:
    """The largest subtrees of `top` with no node of `needed` below their own top."""
    stack = [top]
    while stack:
        index = stack.pop()
        if not index & 1:
            continue  # a leaf has nothing below
        first = bisect_left(needed, flat_tree.left_span(index))
        stop = bisect_right(needed, flat_tree.right_span(index))
        place = bisect_left(needed, index)
        is_needed = place < len(needed) and needed[place] == index
        if stop - first == int(is_needed):
            yield index
        else:
            left, right = flat_tree.children(index)
            stack += (right, left)
