"""Who may sign a log: the manifest, its hash (the core's key), and checking signatures.

| version | fields after `uint version`                                                        |
|---------|------------------------------------------------------------------------------------|
| 0       | uint hash 0, uint type: 0 prologue (32 bytes), 1 one signer, 2 (uint flags, uint    |
|         | quorum, array of signers)                                                          |
| 1 to 3  | uint flags, uint hash 0, uint quorum, array of signers, [prologue], [array of      |
|         | 32-byte linked keys], [buffer user data]                                           |

Flags: 1 allow patch, 2 prologue, 4 linked, 8 user data. Signer: uint 0, namespace, public
key (32 bytes each). Prologue: 32 bytes of tree hash, uint length.

Worked example: one signer, version 1, is `01 00 00 01 01 00` + namespace + public key.

Stored signature, version 1 and up: array of (uint signer, 64 bytes, uint patch length), then
array of tree nodes; for one signer `01 00` + 64 bytes + `00 00`. A *compat* core, whose key is
the signer's public key itself, and a version 0 core of one signer store the bare 64 bytes.

Source: hypercore 11.37.1 lib/messages.js, lib/verifier.js, lib/multisig.js, lib/caps.js.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hypercore import crypto, flat_tree
from hypercore.crypto import KeyPair
from hypercore.encoding import (
    DecodeError,
    Reader,
    encode_array,
    encode_buffer,
    encode_uint,
    encode_uint64,
)
from hypercore.errors import InvalidManifest, NotWritable
from hypercore.merkle import MerkleNode, append_root, decode_node, encode_node, tree_hash

_NAMESPACES = crypto.namespace("hypercore", 6)
TREE = _NAMESPACES[0]
MANIFEST = _NAMESPACES[3]
DEFAULT_NAMESPACE = _NAMESPACES[4]

MAX_VERSION = 3

_ALLOW_PATCH = 1
_PROLOGUE = 2
_LINKED = 4
_USER_DATA = 8


@dataclass(frozen=True, slots=True)
class Signer:
    """One who may sign. From version 1 on the namespace changes the core's key, nothing else."""

    namespace: bytes
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Prologue:
    """The first `length` blocks, fixed for good by their tree hash; nobody needs to sign them."""

    hash: bytes
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a core's key stands for: how many of which signers make a head valid.

    `linked` names other cores that readers should open too; nothing in this package acts on it.
    """

    version: int = 1
    allow_patch: bool = False
    quorum: int = 1
    signers: tuple[Signer, ...] = ()
    prologue: Prologue | None = None
    linked: tuple[bytes, ...] | None = None
    user_data: bytes | None = None

    @classmethod
    def single_signer(
        cls, public_key: bytes, version: int = 1, namespace: bytes = DEFAULT_NAMESPACE
    ) -> Manifest:
        return cls(version=version, signers=(Signer(namespace, public_key),))

    @classmethod
    def multi_signer(
        cls,
        signers: Iterable[Signer | bytes],
        *,
        quorum: int | None = None,
        version: int | None = None,
        allow_patch: bool = False,
        prologue: Prologue | None = None,
        linked: Iterable[bytes] = (),
        user_data: bytes | None = None,
    ) -> Manifest:
        """Signers of whom `quorum` must sign, by default more than half.

        A signer may be given by its public key alone. The version is 1, or 2 for what only
        that one can say.

        Raises: InvalidManifest for what is no manifest or has a quorum that cannot be reached.
        """
        everyone = tuple(
            signer if isinstance(signer, Signer) else Signer(DEFAULT_NAMESPACE, signer)
            for signer in signers
        )
        keys = tuple(linked) or None
        if quorum is None:
            quorum = len(everyone) // 2 + 1 if everyone else 0
        if version is None:
            version = 1 if keys is None and user_data is None else 2
        manifest = cls(
            version=version,
            allow_patch=allow_patch,
            quorum=quorum,
            signers=everyone,
            prologue=prologue,
            linked=keys,
            user_data=user_data,
        )
        manifest.check()
        return manifest

    @classmethod
    def static(cls, tree_hash: bytes, length: int) -> Manifest:
        """A core that is what it is: `length` blocks with this tree hash, signed by nobody.

        Raises: InvalidManifest.
        """
        return cls.multi_signer((), prologue=Prologue(tree_hash, length))

    @classmethod
    def parse(cls, data: bytes, key: bytes | None = None) -> Manifest:
        """Read one that somebody handed over, and check that `key` stands for it.

        Raises: InvalidManifest for bytes that are no manifest, or the one of another core.
        """
        reader = Reader(data)
        try:
            manifest = cls.decode(reader)
        except DecodeError as error:
            raise InvalidManifest(f"not a manifest: {error}") from error
        if reader.remaining:
            raise InvalidManifest(f"{reader.remaining} bytes too many after a manifest")
        manifest.check()
        if key is not None:
            Verifier(key, manifest)
        return manifest

    def check(self) -> None:
        """Raises: InvalidManifest for what JavaScript does not take for a manifest, either."""
        hashes = [field for one in self.signers for field in (one.namespace, one.public_key)]
        hashes += self.linked or ()
        if self.prologue is not None:
            hashes.append(self.prologue.hash)
        for value in hashes:
            if len(value) != crypto.KEY_BYTES:
                raise InvalidManifest(f"a manifest's key or hash of {len(value)} bytes, not 32")
        if not 0 <= self.version <= MAX_VERSION:
            raise InvalidManifest(f"manifest of version {self.version}, not 0 to {MAX_VERSION}")
        if not 0 <= self.quorum <= len(self.signers):
            raise InvalidManifest(f"a quorum of {self.quorum} among {len(self.signers)} signers")
        if self.prologue is not None and self.prologue.length < 0:
            raise InvalidManifest(f"a prologue of {self.prologue.length} blocks")
        if self.version == 0 and self.prologue is not None and self.signers:
            raise InvalidManifest("a manifest of version 0 has a prologue or signers, not both")
        if self.version < 2 and (self.linked is not None or self.user_data is not None):
            raise InvalidManifest(
                f"linked cores and user data need a manifest of version 2, not {self.version}"
            )

    @property
    def key(self) -> bytes:
        """The core's key: the hash of this manifest."""
        return crypto.blake2b(MANIFEST, self.encode())

    def encode(self) -> bytes:
        if self.version == 0:
            return b"\x00" + self._encode_version_0()
        flags = _ALLOW_PATCH if self.allow_patch else 0
        tail = b""
        if self.prologue is not None:
            flags |= _PROLOGUE
            tail += self.prologue.hash + encode_uint(self.prologue.length)
        if self.linked is not None:
            flags |= _LINKED
            tail += encode_array(self.linked)
        if self.user_data is not None:
            flags |= _USER_DATA
            tail += encode_buffer(self.user_data)
        head = encode_uint(self.version) + encode_uint(flags) + b"\x00" + encode_uint(self.quorum)
        return head + encode_array(map(_encode_signer, self.signers)) + tail

    def _encode_version_0(self) -> bytes:
        if self.prologue is not None and not self.signers:
            return b"\x00\x00" + self.prologue.hash
        if self.quorum == 1 and len(self.signers) == 1 and not self.allow_patch:
            return b"\x00\x01" + _encode_signer(self.signers[0])
        flags = b"\x01" if self.allow_patch else b"\x00"
        signers = encode_array(map(_encode_signer, self.signers))
        return b"\x00\x02" + flags + encode_uint(self.quorum) + signers

    @classmethod
    def decode(cls, reader: Reader) -> Manifest:
        """Consume one manifest; it has no length of its own around it.

        Raises: DecodeError.
        """
        version = reader.uint()
        if version > MAX_VERSION:
            raise DecodeError(f"manifest of version {version}", reader.offset)
        if version == 0:
            return cls._decode_version_0(reader)
        flags = reader.uint()
        _expect_zero(reader, "hash")
        quorum = reader.uint()
        signers = tuple(reader.array(_decode_signer))
        return cls(
            version=version,
            allow_patch=bool(flags & _ALLOW_PATCH),
            quorum=quorum,
            signers=signers,
            prologue=Prologue(reader.fixed32(), reader.uint()) if flags & _PROLOGUE else None,
            linked=tuple(reader.array(Reader.fixed32)) if flags & _LINKED else None,
            user_data=reader.buffer() if flags & _USER_DATA else None,
        )

    @classmethod
    def _decode_version_0(cls, reader: Reader) -> Manifest:
        _expect_zero(reader, "hash")
        match kind := reader.uint():
            case 0:
                return cls(version=0, quorum=0, prologue=Prologue(reader.fixed32(), 0))
            case 1:
                return cls(version=0, signers=(_decode_signer(reader),))
            case 2:
                return cls(
                    version=0,
                    allow_patch=bool(reader.uint() & 1),
                    quorum=reader.uint(),
                    signers=tuple(reader.array(_decode_signer)),
                )
            case _:
                raise DecodeError(f"manifest of type {kind}", reader.offset)


def _encode_signer(signer: Signer) -> bytes:
    return b"\x00" + signer.namespace + signer.public_key


def _decode_signer(reader: Reader) -> Signer:
    _expect_zero(reader, "signature")
    return Signer(reader.fixed32(), reader.fixed32())


def _expect_zero(reader: Reader, kind: str) -> None:
    number = reader.uint()
    if number != 0:
        raise DecodeError(f"unknown kind of {kind}: {number}", reader.offset)


class UnsignedHead(Protocol):
    """What a signature covers; `hypercore.log.Head` is one."""

    @property
    def fork(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def roots(self) -> Sequence[MerkleNode]: ...
    @property
    def tree_hash(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PartialSignature:
    """One signer's part of a multisignature.

    With a patch the signer signed a log that is `patch_length` blocks longer, and `nodes` are
    the subtrees (`flat_tree.growth`) that lead there.
    """

    signer: int
    signature: bytes
    patch_length: int = 0
    nodes: Sequence[MerkleNode] = ()


class Verifier:
    """Checks and makes the signatures of one core.

    Raises: InvalidManifest when `manifest` is not the one that `key` stands for.
    """

    __slots__ = ("is_compat", "key", "manifest")

    def __init__(self, key: bytes, manifest: Manifest) -> None:
        signers = manifest.signers
        self.key = key
        self.manifest = manifest
        self.is_compat = len(signers) == 1 and signers[0].public_key == key
        if not self.is_compat and manifest.key != key:
            raise InvalidManifest(
                f"the manifest hashes to {manifest.key.hex()}, not to {key.hex()}"
            )

    @property
    def prologue(self) -> Prologue | None:
        return None if self.is_compat else self.manifest.prologue

    @property
    def quorum(self) -> int:
        """How many signers must sign."""
        return 1 if self.is_compat else self.manifest.quorum

    @property
    def is_bare(self) -> bool:
        """Whether signatures are stored as their bare 64 bytes."""
        manifest = self.manifest
        return self.is_compat or (
            manifest.version == 0 and len(manifest.signers) == 1 and not manifest.allow_patch
        )

    def verify(self, head: UnsignedHead, signature: bytes) -> bool:
        """Whether `signature`, as stored or sent, makes `head` valid."""
        if self.is_bare:
            signer = self.manifest.signers[0]
            return crypto.verify(self._signable(head, signer), signature, signer.public_key)
        prologue = self.manifest.prologue
        if self.manifest.version > 0 and prologue is not None and head.length <= prologue.length:
            return head.length == prologue.length and head.tree_hash == prologue.hash
        try:
            parts = self.disassemble(signature)
        except DecodeError:
            return False
        return self._is_quorum(head, parts)

    def _is_quorum(self, head: UnsignedHead, parts: Sequence[PartialSignature]) -> bool:
        manifest = self.manifest
        if manifest.quorum == 0 or len(parts) < manifest.quorum:
            return False
        signed: set[int] = set()
        # Only the first `quorum` parts count, as in JS: the verdict must not depend on the peer.
        for part in parts[: manifest.quorum]:
            if part.signer in signed or not self.verify_part(head, part):
                return False
            signed.add(part.signer)
        return True

    def verify_part(self, head: UnsignedHead, part: PartialSignature) -> bool:
        """Whether this is what one signer contributes to a signature of `head`."""
        manifest = self.manifest
        if not 0 <= part.signer < len(manifest.signers):
            return False
        signer = manifest.signers[part.signer]
        grown: UnsignedHead | None = head
        if part.patch_length and manifest.allow_patch:
            grown = _patched(head, part)
        return grown is not None and crypto.verify(
            self._signable(grown, signer), part.signature, signer.public_key
        )

    def trimmed(self, head: UnsignedHead, signature: bytes) -> bytes:
        """A valid signature without what no signer makes, which may be of any length.

        That is more parts than there are signers, nodes of no patch, and bytes at the end.
        """
        if self.is_bare:
            return signature
        parts = []
        for part in self.disassemble(signature)[: len(self.manifest.signers)]:
            used = set(flat_tree.growth(head.length, head.length + part.patch_length))
            # Of two nodes with one index the later counts, as in `verify`.
            by_index = {node.index: node for node in part.nodes}
            nodes = [node for node in by_index.values() if node.index in used]
            patch_length = part.patch_length if nodes else 0
            parts.append(PartialSignature(part.signer, part.signature, patch_length, nodes))
        return self.assemble(parts)

    def sign(self, head: UnsignedHead, key_pair: KeyPair) -> bytes:
        """The signature as it is stored and sent; where others must sign too, a bare part of it.

        Raises: NotWritable when the key pair is not a signer's.
        """
        for index, signer in enumerate(self.manifest.signers):
            if signer.public_key == key_pair.public_key:
                signature = crypto.sign(self._signable(head, signer), key_pair.secret_key)
                if self.is_bare or self.manifest.quorum != 1:
                    return signature
                return self.assemble([PartialSignature(index, signature)])
        raise NotWritable(f"public key {key_pair.public_key.hex()} is not a signer of this core")

    def signer_index(self, public_key: bytes) -> int:
        """Which signer that is. Raises: NotWritable when it is none."""
        for index, signer in enumerate(self.manifest.signers):
            if signer.public_key == public_key:
                return index
        raise NotWritable(f"public key {public_key.hex()} is not a signer of this core")

    def signable(self, head: UnsignedHead, signer: int = 0) -> bytes:
        """What a signer signs. From version 1 on the same for all signers."""
        return self._signable(head, self.manifest.signers[signer])

    def _signable(self, head: UnsignedHead, signer: Signer) -> bytes:
        numbers = encode_uint64(head.length) + encode_uint64(head.fork)
        if self.is_compat:
            return TREE + head.tree_hash + numbers
        context = signer.namespace if self.manifest.version == 0 else self.key
        return TREE + context + head.tree_hash + numbers

    def assemble(self, parts: Sequence[PartialSignature]) -> bytes:
        """The multisignature of all these parts, in their order.

        Of one part it is the form in which signers send theirs to who collects them.
        """
        nodes: dict[int, MerkleNode] = {}
        for part in parts:
            for node in part.nodes:
                nodes.setdefault(node.index, node)
        if self.manifest.version == 0:
            places = {index: place for place, index in enumerate(nodes)}
            encoded = [_encode_part_version_0(part, places) for part in parts]
        else:
            encoded = [
                encode_uint(part.signer) + part.signature + encode_uint(part.patch_length)
                for part in parts
            ]
        return encode_array(encoded) + encode_array(map(encode_node, nodes.values()))

    def disassemble(self, signature: bytes) -> list[PartialSignature]:
        """The parts of a multisignature; each has all the nodes, its own and the others'.

        Raises: DecodeError.
        """
        reader = Reader(signature)
        decode = _decode_part_version_0 if self.manifest.version == 0 else _decode_part
        parts = reader.array(decode)
        nodes = reader.array(decode_node)
        return [
            PartialSignature(part.signer, part.signature, part.patch_length, nodes)
            for part in parts
        ]


def _encode_part_version_0(part: PartialSignature, places: dict[int, int]) -> bytes:
    flags = b"\x01" if part.patch_length else b"\x00"
    encoded = flags + encode_uint(part.signer) + part.signature
    if not part.patch_length:
        return encoded
    start = flat_tree.right_span(part.nodes[-1].index) // 2 + 1
    used = encode_array(encode_uint(places[node.index]) for node in part.nodes)
    return encoded + encode_uint(start) + encode_uint(part.patch_length) + used


def _decode_part_version_0(reader: Reader) -> PartialSignature:
    flags = reader.uint()
    signer = reader.uint()
    signature = reader.fixed64()
    patch_length = 0
    if flags & 1:
        reader.uint()  # where the patch ends: nobody looks at it
        patch_length = reader.uint()
        reader.array(Reader.uint)  # which nodes: found by their index instead
    return PartialSignature(signer, signature, patch_length)


def _decode_part(reader: Reader) -> PartialSignature:
    return PartialSignature(reader.uint(), reader.fixed64(), reader.uint())


@dataclass(frozen=True, slots=True)
class _PatchedHead:
    fork: int
    length: int
    roots: Sequence[MerkleNode]
    tree_hash: bytes


def _patched(head: UnsignedHead, part: PartialSignature) -> UnsignedHead | None:
    """The longer head that this signer signed; None when a node for it is missing."""
    nodes = {node.index: node for node in part.nodes}
    roots = list(head.roots)
    length = head.length + part.patch_length
    for index in flat_tree.growth(head.length, length):
        node = nodes.get(index)
        if node is None:
            return None
        append_root(roots, node, [])
    return _PatchedHead(head.fork, length, roots, tree_hash(roots))
