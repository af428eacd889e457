"""Following another fork: however two histories differ, only the common part is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.errors import InvalidProof
from hypercore.fork_search import ForkSearch
from hypercore.log import EMPTY_HEAD, Changeset
from hypercore.merkle import MerkleNode
from hypercore.proof import BlockRequest, HashProof, UpgradeRequest, verify_proof
from tests.reference import merkle as slow
from tests.support.trees import VERIFIER, Tree, reader_of, writer_of

BLOCKS = [b"block %d" % index for index in range(70)]
OTHERS = [b"other %d" % index for index in range(70)]
NOTHING: dict[int, MerkleNode] = {}


def forked(length: int, common: int, more: int) -> tuple[Tree, list[bytes]]:
    """A writer that cut a log of `length` back to `common` and appended `more`; its blocks."""
    writer = writer_of(BLOCKS[:length])
    writer.truncate(common)
    if more:
        writer.append(OTHERS[:more])
    return writer, BLOCKS[:common] + OTHERS[:more]


def proven(writer: Tree) -> Changeset:
    proof = writer.answer(upgrade=UpgradeRequest(0, writer.head.length))
    return verify_proof(proof, EMPTY_HEAD, NOTHING.get, VERIFIER)


def finish(search: ForkSearch, writer: Tree) -> int:
    """Answer all requests; how many there were."""
    requests = 0
    while not search.is_finished:
        block_index = search.wanted[requests % len(search.wanted)]
        answer = writer.answer(hash=search.request(block_index)).hash
        assert answer is not None
        search.receive(answer)
        requests += 1
        assert requests < 70
    return requests


@given(st.integers(1, 70), st.integers(0, 69), st.integers(0, 70))
def test_a_full_reader_keeps_all_that_is_common(length: int, common: int, more: int) -> None:
    common = min(common, length)
    writer, blocks = forked(length, common, more)
    if writer.head.length == 0:
        return
    reader = writer_of(BLOCKS[:length])
    search = ForkSearch(proven(writer), reader.head, reader.nodes.get)
    assert finish(search, writer) <= 7
    assert search.common_length == common
    assert list(search.wanted) == []
    reader.commit(search.changeset())
    assert reader.head == writer.head
    assert reader.blocks == dict(enumerate(BLOCKS[:common]))
    true_nodes = slow.nodes(blocks)
    assert all(true_nodes[index] == tuple(node) for index, node in reader.nodes.items())
    for index in range(common, writer.head.length):
        nodes = reader.missing(2 * index)
        reader.receive(writer.answer(block=BlockRequest(index, nodes)))
    assert reader.blocks == dict(enumerate(blocks))


@given(st.integers(1, 70), st.integers(0, 69), st.integers(1, 70), st.sets(st.integers(0, 69)))
def test_a_sparse_reader_never_keeps_too_much(
    length: int, common: int, more: int, held: set[int]
) -> None:
    common = min(common, length)
    writer, blocks = forked(length, common, more)
    reader = reader_of(writer_of(BLOCKS[:length]), length)
    earlier = writer_of(BLOCKS[:length])
    for index in held & set(range(length)):
        nodes = reader.missing(2 * index)
        reader.receive(earlier.answer(block=BlockRequest(index, nodes)))
    search = ForkSearch(proven(writer), reader.head, reader.nodes.get)
    finish(search, writer)
    assert search.common_length <= common
    reader.commit(search.changeset())
    assert reader.head == writer.head
    true_nodes = slow.nodes(blocks)
    assert all(true_nodes[index] == tuple(node) for index, node in reader.nodes.items())
    assert all(blocks[index] == block for index, block in reader.blocks.items())


def test_a_longer_log_of_the_same_blocks_is_all_common() -> None:
    writer = writer_of(BLOCKS[:12])
    reader = writer_of(BLOCKS[:8])
    search = ForkSearch(proven(writer), reader.head, reader.nodes.get)
    assert search.is_finished
    assert search.common_length == 8


def test_a_shorter_log_of_the_same_blocks_is_all_common() -> None:
    writer, _ = forked(40, 10, 0)
    reader = writer_of(BLOCKS[:40])
    search = ForkSearch(proven(writer), reader.head, reader.nodes.get)
    assert search.is_finished
    changes = search.changeset()
    assert changes.truncated_to == 10
    assert changes.head == writer.head


def test_wrong_answers_are_refused_and_change_nothing() -> None:
    writer, _ = forked(64, 37, 27)
    reader = writer_of(BLOCKS[:64])
    search = ForkSearch(proven(writer), reader.head, reader.nodes.get)
    assert not search.is_finished
    assert search.wanted == range(64)
    request = search.request(40)
    assert (request.index, request.nodes) == (80, 6)
    ours = reader.answer(hash=request).hash
    assert ours is not None
    top = writer.nodes[63]
    for wrong in (ours, HashProof(80, []), HashProof(63, [top]), HashProof(80, [top])):
        with pytest.raises(InvalidProof):
            search.receive(wrong)
    with pytest.raises(ValueError, match="not in"):
        search.request(64)
    with pytest.raises(ValueError, match="not ended"):
        search.changeset()
    finish(search, writer)
    assert search.common_length == 37
    with pytest.raises(InvalidProof, match="nobody asked"):
        search.receive(ours)
    with pytest.raises(ValueError, match="not in"):
        search.request(0)


def test_a_search_needs_a_head() -> None:
    with pytest.raises(ValueError, match="no head"):
        ForkSearch(Changeset(), EMPTY_HEAD, NOTHING.get)
