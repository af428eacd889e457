"""Whatever a peer sends: nothing unproven is kept, and only the documented outputs come out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.errors import InvalidProof, InvalidSignature, MalformedMessage
from hypercore.flat_tree import TreeIndex
from hypercore.merkle import MerkleNode, tree_hash
from hypercore.proof import BlockProof, HashProof, Proof, SeekProof, UpgradeProof
from hypercore.proof_request import (
    BlockRequest,
    HashRequest,
    ProofRequest,
    SeekRequest,
    UpgradeRequest,
)
from hypercore.replication.messages import (
    Cancel,
    Data,
    Extension,
    HaveBits,
    MessageType,
    NoData,
    Range,
    Request,
    Sync,
    Want,
)
from hypercore.replication.outputs import AbortConnection, EndChannel
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.replication.uploads import TooManyRequests
from tests.support.memory_log import MemoryLog
from tests.support.replicator_pair import Channel, Message, Node, settle

KEY_PAIR = KeyPair.from_seed(bytes(32))
LENGTH = 40
SOURCE = MemoryLog(KEY_PAIR)
SOURCE.append([b"block %d" % index for index in range(LENGTH)])

ERRORS = (InvalidProof, InvalidSignature, MalformedMessage, TooManyRequests)


def check(log: MemoryLog) -> None:
    """What is stored is what the writer wrote."""
    for index, block in log.blocks.items():
        assert SOURCE.blocks[index] == block
    for index, node in log.nodes.items():
        assert SOURCE.nodes[index] == node
    if log.head.length:
        assert log.head == SOURCE.head
    assert log.head.tree_hash == tree_hash(log.head.roots)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_answer_is_never_kept(draw: st.DataObject) -> None:
    seeder, leecher = Node(SOURCE), Node(MemoryLog(key=SOURCE.key))
    channel = Channel(seeder, leecher)
    target = draw.draw(st.integers(0, LENGTH - 1), label="which answer is changed")
    answers = 0

    def change(end: int, messages: list[Message]) -> list[Message]:
        nonlocal answers
        changed = []
        for kind, payload in messages:
            if end == 1 and kind == MessageType.DATA:
                if answers == target:
                    place = draw.draw(st.integers(0, len(payload) - 1), label="place")
                    flip = draw.draw(st.integers(1, 255), label="flip")
                    mutable = bytearray(payload)
                    mutable[place] ^= flip
                    payload = bytes(mutable)
                answers += 1
            changed.append((kind, payload))
        return changed

    channel.change = change
    leecher.want(range(LENGTH))
    settle(channel)
    check(leecher.log)
    assert all(isinstance(error, ERRORS) for error in leecher.errors)
    assert not seeder.errors
    # Whatever happened, an honest peer still serves everything, if only in time.
    honest = Channel(Node(SOURCE), leecher)
    channel.change = lambda _, messages: []
    for hour in range(1, 4):
        leecher.carry_out(leecher.replicator.advance(3600.0 * hour))
        settle(honest)
    assert leecher.log.contiguous_length == LENGTH


small = st.integers(0, 2 * LENGTH)
numbers = st.one_of(small, st.integers(0, 2**53 - 1))
stored = st.sampled_from(sorted(SOURCE.nodes.values()))
invented = st.builds(
    MerkleNode, numbers.map(TreeIndex), numbers, st.binary(min_size=32, max_size=32)
)
paths = st.lists(st.one_of(stored, invented), max_size=6)
proofs = st.builds(
    Proof,
    st.integers(0, 2),
    st.none() | st.builds(BlockProof, numbers, st.binary(max_size=10), paths),
    st.none() | st.builds(HashProof, numbers, paths),
    st.none() | st.builds(SeekProof, numbers, paths),
    st.none()
    | st.builds(
        UpgradeProof,
        numbers,
        numbers,
        paths,
        paths,
        st.sampled_from([SOURCE.head.signature, b"", bytes(68)]),
    ),
    st.none() | st.just(SOURCE.manifest),
)
wanted = st.builds(
    ProofRequest,
    st.integers(0, 2),
    st.none() | st.builds(BlockRequest, numbers, numbers),
    st.none() | st.builds(HashRequest, numbers.map(TreeIndex), numbers),
    st.none() | st.builds(SeekRequest, numbers, numbers),
    st.none() | st.builds(UpgradeRequest, numbers, numbers),
)
booleans = st.booleans()
messages = st.one_of(
    st.builds(
        lambda sync: (int(MessageType.SYNC), sync.encode()),
        st.builds(
            Sync,
            st.integers(0, 2),
            numbers,
            numbers,
            booleans,
            booleans,
            booleans,
            booleans,
            booleans,
        ),
    ),
    st.builds(
        lambda request: (int(MessageType.REQUEST), request.encode()),
        st.builds(Request, small, wanted, booleans, small),
    ),
    st.builds(lambda number: (int(MessageType.CANCEL), Cancel(number).encode()), small),
    st.builds(
        lambda number, proof: (int(MessageType.DATA), Data(number, proof).encode()),
        st.sampled_from([0, 0, 1, 2, 3, 4]),
        proofs,
    ),
    st.builds(
        lambda number, reason: (int(MessageType.NO_DATA), NoData(number, reason).encode()),
        small,
        st.integers(0, 3),
    ),
    st.builds(
        lambda kind, start, length, is_any: (int(kind), Want(start, length, is_any).encode()),
        st.sampled_from([MessageType.WANT, MessageType.UNWANT]),
        numbers,
        numbers,
        booleans,
    ),
    st.builds(
        lambda start, words: (int(MessageType.BITFIELD), HaveBits(start * 32, words * 4).encode()),
        small,
        st.binary(max_size=8),
    ),
    st.builds(
        lambda start, length, drop: (int(MessageType.RANGE), Range(start, length, drop).encode()),
        numbers,
        numbers,
        booleans,
    ),
    st.builds(
        lambda name, payload: (int(MessageType.EXTENSION), Extension(name, payload).encode()),
        st.text(max_size=3),
        st.binary(max_size=5),
    ),
    st.tuples(st.integers(0, 12), st.binary(max_size=20)),
)


@settings(max_examples=400)
@given(
    st.sampled_from(["empty", "partial", "full"]),
    st.lists(st.lists(messages, min_size=1, max_size=5), max_size=8),
    st.sampled_from([PushMode.OFF, PushMode.ALLOWED]),
)
def test_any_messages_in_any_state(
    state: str, batches: list[list[Message]], push: PushMode
) -> None:
    log = SOURCE if state == "full" else MemoryLog(key=SOURCE.key)
    node = Node(log)
    node.carry_out(node.replicator.configure(ReplicationSettings(push=push), 0.0))
    honest = Channel(Node(SOURCE), node)
    if state == "partial":
        node.want([3, 30])
        settle(honest)
    node.want(range(2 * LENGTH))
    peer, outputs = node.replicator.add_peer()
    for now, batch in enumerate(batches):
        outputs = node.replicator.receive(peer, batch, float(now))
        for output in outputs:
            if isinstance(output, AbortConnection | EndChannel) and output.error is not None:
                assert isinstance(output.error, ERRORS)
        node.carry_out(outputs)
        node.carry_out(node.replicator.push([0, LENGTH - 1, LENGTH]))
        node.replicator.take(peer, 10_000)
        assert node.replicator.deadline > 0
    node.carry_out(node.replicator.remove_peer(peer, 0.0))
    check(log)
    if state != "full":
        settle(honest)
        assert log.contiguous_length == LENGTH
