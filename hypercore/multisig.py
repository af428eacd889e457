"""Collecting the signatures of several signers until they make a head valid.

Every signer signs alone, wherever its secret key is, and sends its part to whoever is about to
append. A part over a log that is longer than the one to be made (the signer was ahead) carries
a *patch*: the tree nodes that lead from the one to the other.

The parts of one signature share their nodes by index, as in JavaScript. Signers whose longer
logs differ in the same node therefore cannot stand in one signature, though each of their parts
is right; the collector leaves one of them out.

Source: hypercore 11.37.1 lib/multisig.js (partialSignature, signableLength, assemble).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypercore import crypto, flat_tree
from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError
from hypercore.errors import InvalidSignature, UsageError
from hypercore.log import Head, NodeReader
from hypercore.manifest import Signer
from hypercore.merkle import MerkleNode
from hypercore.verifier import PartialSignature, Verifier


def signable_length(lengths: Iterable[int], quorum: int) -> int:
    """The greatest length that `quorum` of the logs with these lengths have; 0 for too few logs.

    Source: hypercore 11.37.1 lib/multisig.js signableLength (a quorum below 1 counts as 1).
    """
    ordered = sorted(lengths, reverse=True)
    quorum = max(quorum, 1)
    return ordered[quorum - 1] if quorum <= len(ordered) else 0


def sign_part(
    verifier: Verifier,
    head: Head,
    read_node: NodeReader,
    key_pair: KeyPair,
    length: int | None = None,
) -> PartialSignature:
    """One signer's part for a log of `length` blocks (None: all of `head`), signing `head`.

    Where `head` is longer the part has the patch that leads there from `length`; whether the
    manifest allows patches is for the collector to say.

    Raises: NotWritable when the key pair is not a signer's, UsageError when `length` is longer
    than `head` or tree nodes of the patch are not here.
    """
    length = head.length if length is None else length
    if not 0 <= length <= head.length:
        raise UsageError(f"a part for {length} blocks from a log of {head.length}")
    index = verifier.signer_index(key_pair.public_key)
    signature = crypto.sign(verifier.signable(head, index), key_pair.secret_key)
    return PartialSignature(
        index, signature, head.length - length, patch_nodes(head, read_node, length)
    )


def patch_nodes(head: Head, read_node: NodeReader, length: int) -> list[MerkleNode]:
    """The tree nodes that lead from `length` blocks of this log to its head.

    Raises: UsageError when one of them is not here.
    """
    nodes = []
    roots = {root.index: root for root in head.roots}
    for index in flat_tree.growth(length, head.length):
        node = roots.get(index) or read_node(index)
        if node is None:
            raise UsageError(f"tree node {index} is not here, needed to get from {length} blocks")
        nodes.append(node)
    return nodes


class SignatureCollector:
    """Signatures of one head, checked one by one as they come in.

    collector = proposal.collector()
    for data in parts_from_signers:
        collector.add_encoded(data)
    await core.append(blocks, signature=collector.signature)
    """

    def __init__(self, verifier: Verifier, head: Head) -> None:
        self._verifier = verifier
        self._head = head
        self._parts: dict[int, PartialSignature] = {}

    def add(self, part: PartialSignature) -> None:
        """Take one signer's part; a second one of the same signer takes the first one's place.

        Raises: InvalidSignature for what that signer did not sign; then nothing changes.
        """
        signers = self._verifier.manifest.signers
        if not 0 <= part.signer < len(signers):
            raise InvalidSignature(f"no signer {part.signer}: the manifest names {len(signers)}")
        if part.patch_length and not self._verifier.manifest.allow_patch:
            raise InvalidSignature(
                f"signer {part.signer} signed {part.patch_length} blocks more than "
                f"{self._head.length}, and the manifest allows no patches"
            )
        if not self._verifier.verify_part(self._head, part):
            length = self._head.length + part.patch_length
            raise InvalidSignature(
                f"signer {part.signer} ({signers[part.signer].public_key.hex()[:16]}) did not "
                f"sign this log at {length} blocks, fork {self._head.fork}"
            )
        stop = self._head.length + part.patch_length
        nodes = {node.index: node for node in part.nodes}
        own = [nodes[index] for index in flat_tree.growth(self._head.length, stop)]
        # Without what came along from the parts of others.
        self._parts[part.signer] = replace(part, nodes=own)

    def add_signature(self, public_key: bytes, signature: bytes) -> None:
        """Take the 64 bytes that the owner of `public_key` made of the proposal's `signable`.

        Raises: InvalidSignature, NotWritable when that is no signer.
        """
        self.add(PartialSignature(self._verifier.signer_index(public_key), signature))

    def add_encoded(self, data: bytes) -> None:
        """Take what a signer sent: one part or several, as `Verifier.assemble` encodes them.

        Raises: InvalidSignature; the parts before the one that is wrong are kept.
        """
        try:
            parts = self._verifier.disassemble(data)
        except DecodeError as error:
            raise InvalidSignature(f"not a multisignature: {error}") from error
        for part in parts:
            self.add(part)

    @property
    def signed(self) -> tuple[Signer, ...]:
        """Signers whose parts are here, in the manifest's order."""
        signers = self._verifier.manifest.signers
        return tuple(signers[index] for index in sorted(self._parts))

    @property
    def outstanding(self) -> tuple[Signer, ...]:
        """Signers whose parts are not here."""
        signers = self._verifier.manifest.signers
        return tuple(one for index, one in enumerate(signers) if index not in self._parts)

    @property
    def missing(self) -> int:
        """How many parts more are needed; 0 when the signature is complete.

        Parts that cannot stand beside the others are not counted; see the module's docstring.
        """
        return self._verifier.quorum - len(self._chosen())

    @property
    def is_complete(self) -> bool:
        return self.missing == 0

    @property
    def signature(self) -> bytes:
        """The signature to append or truncate with. Raises: UsageError while parts are missing."""
        chosen = self._chosen()
        verifier = self._verifier
        if len(chosen) < verifier.quorum:
            names = ", ".join(signer.public_key.hex()[:16] for signer in self.outstanding)
            raise UsageError(
                f"{verifier.quorum - len(chosen)} of {verifier.quorum} signatures missing; "
                f"not signed by {names or 'nobody whose log agrees with the others'}"
            )
        signature = chosen[0].signature if verifier.is_bare else verifier.assemble(chosen)
        if not verifier.verify(self._head, signature):
            raise InvalidSignature(
                f"the log of {self._head.length} blocks is not the one its manifest begins with"
            )
        return signature

    def _chosen(self) -> list[PartialSignature]:
        """At most a quorum of parts that go together, those without patches first.

        The order of arrival does not matter: the same parts give the same bytes.
        """
        parts = sorted(self._parts.values(), key=lambda part: (part.patch_length, part.signer))
        best: list[PartialSignature] = []
        for start in range(len(parts)):
            chosen = _fitting(parts[start:] + parts[:start], self._verifier.quorum)
            if len(chosen) > len(best):
                best = chosen
        return sorted(best, key=lambda part: part.signer)


def _fitting(parts: Sequence[PartialSignature], quorum: int) -> list[PartialSignature]:
    """The first parts of which no two disagree about a tree node."""
    chosen: list[PartialSignature] = []
    nodes: dict[int, MerkleNode] = {}
    for part in parts:
        if len(chosen) == quorum:
            break
        if all(nodes.get(node.index, node) == node for node in part.nodes):
            nodes.update((node.index, node) for node in part.nodes)
            chosen.append(part)
    return chosen


def explain_refusal(verifier: Verifier, head: Head, signature: bytes) -> str:
    """Why `signature` does not make `head` valid, in words for whoever made it."""
    log = f"a log of {head.length} blocks, fork {head.fork}"
    prologue = verifier.prologue
    if prologue is not None and head.length <= prologue.length:
        return f"{log} is not the prologue of {prologue.length} blocks that the manifest fixes"
    if verifier.is_bare:
        return f"the signature is not of {log}"
    if verifier.quorum == 0:
        return f"nobody may sign {log}: the manifest names a quorum of 0"
    try:
        parts = verifier.disassemble(signature)
    except DecodeError as error:
        return f"{len(signature)} bytes that are no multisignature: {error}"
    if len(parts) < verifier.quorum:
        return f"{len(parts)} of the {verifier.quorum} signatures that {log} needs"
    seen: set[int] = set()
    for part in parts[: verifier.quorum]:
        if part.signer in seen:
            return f"signer {part.signer} signed twice and counts once"
        seen.add(part.signer)
        if not verifier.verify_part(head, part):
            patch = f" with a patch of {part.patch_length}" if part.patch_length else ""
            return f"the part of signer {part.signer}{patch} is not of {log}"
    return f"the signature is not of {log}"
