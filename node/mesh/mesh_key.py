"""What is derived from a mesh's name and secret: its key, its topic, and proofs of knowing it.

key   = H("beemesh/1 mesh" || u64(length of the name) || name || secret)
proof = H(key; "hello" || role || handshake hash)       role: 0 initiator, 1 responder
topic = H(key; "topic")
"""

from __future__ import annotations

from hmac import compare_digest

from hypercore.crypto import blake2b
from hypercore.encoding import encode_uint64


def derive_mesh_key(mesh_name: str, secret: bytes) -> bytes:
    name = mesh_name.encode()
    return blake2b(b"beemesh/1 mesh", encode_uint64(len(name)), name, secret)


def derive_topic(mesh_key: bytes) -> bytes:
    """What members announce: a keyed hash, which tells nothing to those not in the mesh."""
    return blake2b(b"topic", key=mesh_key)


def hello_proof(mesh_key: bytes, is_initiator: bool, handshake_hash: bytes) -> bytes:
    """What the side that opened (or took) this very connection says to prove the secret."""
    role = b"\x00" if is_initiator else b"\x01"
    return blake2b(b"hello", role, handshake_hash, key=mesh_key)


def is_hello_proof(
    proof: bytes, mesh_key: bytes, is_initiator: bool, handshake_hash: bytes
) -> bool:
    return compare_digest(proof, hello_proof(mesh_key, is_initiator, handshake_hash))
