from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bee.btree import BTreeNode, new_node
from bee.cache import NodeCache


def node_of(size: int) -> BTreeNode:
    return new_node([b"k" * size], [b"\x01"], ())


def test_what_is_used_stays() -> None:
    cache = NodeCache(20 * node_of(100)[3])
    cache.add(b"hot", node_of(100))
    for number in range(1_000):
        cache.add(b"%d" % number, node_of(100))
        assert cache.get(b"hot") is not None
    assert cache.get(b"0") is None
    assert cache.get(b"999") is not None


@given(
    st.lists(st.tuples(st.sampled_from("adrg"), st.integers(0, 30), st.integers(0, 2_000))),
    st.integers(0, 30_000),
)
def test_its_size_is_the_sum_of_what_it_holds(
    steps: list[tuple[str, int, int]], limit: int
) -> None:
    cache = NodeCache(limit)
    for step, number, size in steps:
        ref = b"%d" % number
        match step:
            case "a":
                if cache.get(ref) is None:
                    cache.add(ref, node_of(size))
            case "d":
                cache.discard(ref)
            case "r":
                if cache.get(ref) is not None:
                    cache.replace(ref, node_of(size))
            case _:
                cache.get(ref)
        held = [node for n in range(31) if (node := cache.get(b"%d" % n)) is not None]
        statistics = cache.statistics()
        assert statistics.nodes == len(held)
        assert statistics.size_bytes == sum(node[3] for node in held)
        # Each of the two generations may be over its half by the node added last.
        assert statistics.size_bytes <= limit + 2 * node_of(2_000)[3]
    cache.clear()
    assert cache.statistics().size_bytes == cache.statistics().nodes == 0
