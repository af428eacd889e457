"""A change of a log before it is signed: what signers elsewhere need to see, and to sign.

    proposal = core.propose([b"one", b"two"])  # nothing is written
    collector = proposal.collector()  # several signers, or one whose key is elsewhere
    collector.add_signature(public_key, sign_elsewhere(proposal.signable()))
    await core.append([b"one", b"two"], signature=collector.signature)

A proposal knows the log as it was. Once the log has changed, the signature is for another head,
and appending with it is refused.

A prologue (the first blocks of a log whose manifest fixes them) needs no signature, and comes
as a whole or not at all.

Source: hypercore 11.37.1 lib/session-state.js (append, truncate: `signature`), lib/core.js
(_verifyBatchUpgrade). There an append beyond the prologue may begin with other blocks than the
prologue's; peers then refuse the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypercore import flat_tree, log
from hypercore.crypto import KeyPair
from hypercore.errors import InvalidSignature, NotWritable, UsageError
from hypercore.log import Changeset, Head, NodeReader
from hypercore.manifest import Prologue
from hypercore.merkle import MerkleNode, tree_hash
from hypercore.multisig import SignatureCollector, explain_refusal, sign_part
from hypercore.verifier import PartialSignature, Verifier


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a log would be, with the head not signed yet."""

    verifier: Verifier
    changes: Changeset

    @property
    def head(self) -> Head:
        assert self.changes.head is not None
        return self.changes.head

    def signable(self, signer: int = 0) -> bytes:
        """The bytes that a signer signs, 112 of them (80 in a compat core).

        From version 1 of the manifest on they are the same for all signers.
        """
        return self.verifier.signable(self.head, signer)

    def part(self, key_pair: KeyPair) -> PartialSignature:
        """Sign, as one of several signers. Raises: NotWritable when that is no signer's key."""
        return sign_part(self.verifier, self.head, _no_node, key_pair)

    def collector(self) -> SignatureCollector:
        return SignatureCollector(self.verifier, self.head)

    def signed(self, signature: bytes) -> Changeset:
        """The change, ready to be committed. Raises: InvalidSignature, saying what is wrong."""
        if not self.verifier.verify(self.head, signature):
            raise InvalidSignature(explain_refusal(self.verifier, self.head, signature))
        return replace(self.changes, head=replace(self.head, signature=signature))

    def signed_by(self, key_pair: KeyPair | None) -> Changeset:
        """The change as this key pair, or the manifest's prologue alone, makes it valid.

        Raises: NotWritable when it needs more than that.
        """
        prologue = self.verifier.prologue
        if prologue is not None and self.head.length <= prologue.length:
            return self.signed(b"")
        if key_pair is None:
            raise NotWritable("no secret key of this core is here; append with a signature")
        quorum = self.verifier.quorum
        self.verifier.signer_index(key_pair.public_key)
        if quorum != 1:
            raise NotWritable(
                f"{quorum} signatures are needed, one key pair makes one; collect them"
            )
        return self.signed(self.verifier.sign(self.head, key_pair))


def propose_append(head: Head, blocks: Sequence[bytes], verifier: Verifier | None) -> Proposal:
    """Put `blocks`, as they are stored, at the end. Without blocks, the log as it is now.

    Raises: UsageError while the manifest is unknown, or when the blocks are not the prologue's.
    """
    verifier = _known(verifier)
    changes = log.append(head, blocks, _no_signature) if blocks else Changeset(head)
    prologue = verifier.prologue
    if prologue is not None and blocks and head.length < prologue.length:
        _check_prologue(prologue, head, changes)
    return Proposal(verifier, changes)


def propose_truncation(
    head: Head, length: int, fork: int, read_node: NodeReader, verifier: Verifier | None
) -> Proposal:
    """Cut the log back to `length` blocks, as fork `fork`.

    Raises: UsageError for a cut into the prologue too, and as `log.truncate`.
    """
    verifier = _known(verifier)
    check_truncation(length, verifier)
    return Proposal(verifier, log.truncate(head, length, fork, read_node, _no_signature))


def check_truncation(length: int, verifier: Verifier) -> None:
    """Raises: UsageError for a length that cuts the prologue."""
    prologue = verifier.prologue
    if prologue is not None and length < prologue.length:
        raise UsageError(f"{length} blocks would cut the prologue of {prologue.length} blocks")


def _check_prologue(prologue: Prologue, head: Head, changes: Changeset) -> None:
    assert changes.head is not None
    length = changes.head.length
    if length < prologue.length:
        raise UsageError(
            f"an append up to {length} blocks; the prologue of {prologue.length} blocks comes whole"
        )
    nodes: dict[int, MerkleNode] = {node.index: node for node in (*head.roots, *changes.nodes)}
    roots = [nodes[index] for index in flat_tree.full_roots(prologue.length)]
    if tree_hash(roots) != prologue.hash:
        raise UsageError(f"the first {prologue.length} blocks are not those of the prologue")


def _known(verifier: Verifier | None) -> Verifier:
    if verifier is None:
        raise NotWritable("who may sign this core is not known yet: its manifest is not here")
    return verifier


def _no_signature(head: Head) -> bytes:
    return b""


def _no_node(index: int) -> MerkleNode | None:
    return None
