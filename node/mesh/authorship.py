"""Proof that a member writes the data core that it calls its own.

| record     | MessagePack array                                       |
|------------|---------------------------------------------------------|
| authorship | public key that signs the core, signature (64 bytes)    |

The signature is of H(key = mesh key; "author" || id of the node || handshake hash): it counts for
one end of one connection, and only who has the core's secret key can make it. Older nodes send
none.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.crypto import KEY_BYTES, SIGNATURE_BYTES, KeyPair, blake2b, sign, verify
from hypercore.manifest import Manifest
from node.mesh.fields import Field, FieldReader


@dataclass(frozen=True, slots=True)
class Authorship:
    """Of the core whose only signer has this public key."""

    public_key: bytes
    signature: bytes

    @classmethod
    def prove(
        cls, key_pair: KeyPair, mesh_key: bytes, node_id: bytes, handshake_hash: bytes
    ) -> Authorship:
        signed = _signable(mesh_key, node_id, handshake_hash)
        return cls(key_pair.public_key, sign(signed, key_pair.secret_key))

    def is_of(
        self, data_key: bytes, mesh_key: bytes, node_id: bytes, handshake_hash: bytes
    ) -> bool:
        """Whether that node, at the other end of this connection, writes that core."""
        if Manifest.single_signer(self.public_key).key != data_key:
            return False
        signed = _signable(mesh_key, node_id, handshake_hash)
        return verify(signed, self.signature, self.public_key)

    @property
    def fields(self) -> list[Field]:
        return [self.public_key, self.signature]

    @classmethod
    def decode(cls, reader: FieldReader) -> Authorship:
        """Raises: DecodeError."""
        return cls(reader.fixed(KEY_BYTES), reader.fixed(SIGNATURE_BYTES))


def _signable(mesh_key: bytes, node_id: bytes, handshake_hash: bytes) -> bytes:
    return blake2b(b"author", node_id, handshake_hash, key=mesh_key)
