"""A block that came without a request: what of it can be verified by what is here."""

from __future__ import annotations

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.encoding import uint_at
from hypercore.proof import MAX_PATH_NODES, BlockProof, Proof
from hypercore.replication.intake import Intake
from hypercore.replication.messages import ONLY_A_BLOCK, Data


class ReceivedPush:
    """A data message with a block, of which no more than needed was decoded."""

    __slots__ = ("_fork", "_offset", "_payload", "_proof", "index")

    def __init__(
        self, index: int, fork: int, payload: bytes, offset: int, proof: Proof | None = None
    ) -> None:
        self.index = index
        self._fork = fork
        self._payload = payload
        self._offset = offset
        """Where the message's first part begins."""
        self._proof = proof
        """Decoded, unless the message holds the block and nothing else."""

    @classmethod
    def decode(cls, payload: bytes) -> ReceivedPush | None:
        """None for a message without a block. Raises: DecodeError."""
        flags, offset = uint_at(payload, 0)
        _, offset = uint_at(payload, offset)
        fork, offset = uint_at(payload, offset)
        if flags == ONLY_A_BLOCK:
            return cls(uint_at(payload, offset)[0], fork, payload, offset)
        proof = Data.decode(payload).proof
        return None if proof.block is None else cls(proof.block.index, fork, payload, offset, proof)

    @property
    def has_upgrade(self) -> bool:
        return self._proof is not None and self._proof.upgrade is not None

    def accept(self, intake: Intake, bitfield: Bitfield) -> tuple[int, bool] | None:
        """Verify the block; returns its size, and whether the head has grown.

        None when it fits nothing that is here.
        Raises: InvalidProof, InvalidSignature, DecodeError.
        """
        if self._proof is None:
            return self._accept_block(intake, bitfield)
        wanted = _acceptable(self._proof, intake, bitfield)
        if wanted is None or wanted.block is None or wanted.block.value is None:
            return None
        changes = intake.accept_proof(wanted)
        return len(wanted.block.value), changes.head is not None

    def _accept_block(self, intake: Intake, bitfield: Bitfield) -> tuple[int, bool] | None:
        index, head = self.index, intake.head
        if self._fork != head.fork or index >= head.length or bitfield.get(index):
            return None
        size = intake.accept_block(index, self._payload, self._offset)
        return None if size is None else (size, False)


def _acceptable(proof: Proof, intake: Intake, bitfield: Bitfield) -> Proof | None:
    """The part of a push that can be verified against what is here; None when there is none.

    The peer may have taken our log to be shorter when it sent this: then its upgrade is useless.
    """
    block = proof.block
    head = intake.head
    if block is None or proof.hash is not None or proof.seek is not None:
        return None
    if proof.fork != head.fork and not (head.length == 0 and proof.fork > head.fork):
        return None
    upgrade = proof.upgrade
    if upgrade is not None and upgrade.start == head.length:
        return proof
    if block.index >= head.length or bitfield.get(block.index):
        return None
    return Proof(proof.fork, block) if leads_to_known(block, intake) else None


def leads_to_known(block: BlockProof, intake: Intake) -> bool:
    """Whether the node that a block's path ends in is here, so that the path can be verified."""
    node = flat_tree.TreeIndex(2 * block.index)
    for _ in block.nodes[:MAX_PATH_NODES]:
        node = flat_tree.parent(node)
    return intake.read_node(node) is not None
