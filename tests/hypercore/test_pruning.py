"""Which tree nodes may go: none that a proof needs, and all others below cleared blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.flat_tree import TreeIndex
from hypercore.pruning import needed_nodes, prunable

lengths = st.integers(1, 150)


def all_nodes(length: int) -> set[int]:
    """The nodes of a log of that length, by a walk down from its roots."""
    found: set[int] = set()
    stack: list[int] = list(flat_tree.full_roots(length))
    while stack:
        index = stack.pop()
        found.add(index)
        if index & 1:
            stack += flat_tree.children(index)
    return found


def below(top: int) -> set[int]:
    span = range(flat_tree.left_span(top), flat_tree.right_span(top) + 1)
    return {index for index in span if index != top}


def proof_nodes(block: int, length: int) -> set[int]:
    """The block's own leaf and all siblings on its way up."""
    roots = flat_tree.full_roots(length)
    index = TreeIndex(2 * block)
    needed: set[int] = {index}
    while index not in roots:
        needed.add(flat_tree.sibling(index))
        index = flat_tree.parent(index)
    return needed


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, set[int]]:
    """A length, and which blocks are held: in runs, as clearing leaves them."""
    length = draw(lengths)
    held: set[int] = set()
    for start, count in draw(st.lists(st.tuples(st.integers(0, 149), st.integers(1, 20)))):
        held.update(range(start, min(start + count, length)))
    return length, held


def bitfield_of(held: set[int]) -> Bitfield:
    bitfield = Bitfield()
    for block in held:
        bitfield.set_range(block, block + 1)
    return bitfield


@given(logs(), st.lists(lengths, max_size=4))
def test_what_is_needed_stays_and_all_else_goes(
    log: tuple[int, set[int]], known: list[int]
) -> None:
    length, held = log
    needed = needed_nodes(known, length)
    assert needed == sorted(set(needed))
    tops = list(prunable(bitfield_of(held), length, needed))
    gone = [index for top in tops for index in below(top)]
    assert len(gone) == len(set(gone)), "no two of them overlap"
    left = all_nodes(length) - set(gone)
    assert set(gone) <= all_nodes(length)

    required: set[int] = set(flat_tree.full_roots(length))
    for block in held:
        required |= proof_nodes(block, length)
    for older in known:
        if older < length:
            required |= {*flat_tree.full_roots(older), *flat_tree.growth(older, length)}
    assert required <= left
    for index in left - required:
        # Kept only as the other child of a node of which one child is required, or below.
        family = {index, flat_tree.sibling(index)}
        assert any(below(member) & required or member in required for member in family)


def test_examples() -> None:
    held = bitfield_of({0, 1, 2, 3, 12})
    assert list(prunable(held, 16, [])) == [11, 19, 29]
    assert list(prunable(held, 11, [])) == [11, 17]
    assert list(prunable(bitfield_of(set()), 16, [])) == [15]
    # A peer of 6 blocks follows by nodes 13 and 23; it knows 3 and 9.
    assert needed_nodes([6, 0, 16, 17], 16) == [3, 9, 13, 23]
    assert list(prunable(held, 16, needed_nodes([6], 16))) == [9, 13, 19, 29]


def test_a_long_log_takes_no_longer_than_its_gaps() -> None:
    held = bitfield_of({0, 2**40})
    tops = list(prunable(held, 2**40 + 1, []))
    assert len(tops) == 39
