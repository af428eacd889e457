"""Proof that a member writes the data core that it calls its own.

| record     | MessagePack array                                       |
|------------|---------------------------------------------------------|
| authorship | public key that signs the core, signature (64 bytes)    |

The signature is of H(key = mesh key; "author" || handshake hash): it counts on one connection, and
only who has the core's secret key can make it. Older nodes send none.
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
    def prove(cls, mesh_key: bytes, handshake_hash: bytes, key_pair: KeyPair) -> Authorship:
        signed = _signable(mesh_key, handshake_hash)
        return cls(key_pair.public_key, sign(signed, key_pair.secret_key))

    def is_of(self, data_key: bytes, mesh_key: bytes, handshake_hash: bytes) -> bool:
        """Whether the other end of this connection writes that core."""
        if Manifest.single_signer(self.public_key).key != data_key:
            return False
        return verify(_signable(mesh_key, handshake_hash), self.signature, self.public_key)

    @property
    def fields(self) -> list[Field]:
        return [self.public_key, self.signature]

    @classmethod
    def decode(cls, reader: FieldReader) -> Authorship:
        """Raises: DecodeError."""
        return cls(reader.fixed(KEY_BYTES), reader.fixed(SIGNATURE_BYTES))


def _signable(mesh_key: bytes, handshake_hash: bytes) -> bytes:
    return blake2b(b"author", handshake_hash, key=mesh_key)
