"""The messages of the `hypercore/alpha` channel, both directions.

| # | message   | fields (uint unless said otherwise)                                             |
|---|-----------|---------------------------------------------------------------------------------|
|   | handshake | flags 1 seeks; capability, 32 bytes. Travels in the channel's open              |
| 0 | sync      | flags, fork, length, remote length; 1 can upgrade, 2 uploading, 4 downloading,  |
|   |           | 8 has manifest, 16 allows push                                                  |
| 1 | request   | flags, id, fork, [block: index, nodes], [hash: index, nodes],                   |
|   |           | [seek: bytes, padding], [upgrade: start, length], [priority];                   |
|   |           | 1 block, 2 hash, 4 seek, 8 upgrade, 16 manifest, 32 priority                    |
| 2 | cancel    | request id                                                                      |
| 3 | data      | flags (1 to 16 as above), request id, fork, [block: index, buffer value, nodes],|
|   |           | [hash: index, nodes], [seek: bytes, nodes], [upgrade: start, length, nodes,     |
|   |           | additional nodes, optional buffer signature], [manifest]                        |
| 4 | no data   | request id, [flags 1 reason], [reason]                                          |
| 5 | want      | start, length, [flags 1 any, only if set]                                       |
| 6 | unwant    | as want                                                                         |
| 7 | bitfield  | start (a multiple of 32), counted u32 words, bit i = block start + i            |
| 8 | range     | flags, start, [length]; 1 drop, 2 the length is 1 and left out                  |
| 9 | extension | string name, payload to the end; name "" = that of the extension before         |

A node is index, size, 32 bytes of hash; nodes are a counted array. Bytes after the last field
are ignored: that is how messages grow.

Worked example: the request with id 1 and fork 0 for an upgrade from 0 to 1000 blocks and for
the manifest is `18 01 00 00 fd e8 03`.

Source: hypercore 11.37.1 lib/messages.js `wire`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from hypercore.encoding import (
    DecodeError,
    Reader,
    encode_buffer,
    encode_optional_buffer,
    encode_string,
    encode_uint,
    encode_uint32_array,
    uint_at,
)
from hypercore.flat_tree import TreeIndex
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, decode_node
from hypercore.proof import BlockProof, HashProof, Proof, SeekProof, UpgradeProof
from hypercore.proof_request import (
    BlockRequest,
    HashRequest,
    ProofRequest,
    SeekRequest,
    UpgradeRequest,
)

PROTOCOL = "hypercore/alpha"
PROTOCOL_ALIASES = ("hypercore",)

CAPABILITY_BYTES = 32


class MessageType(IntEnum):
    """The number of a message within its channel."""

    SYNC = 0
    REQUEST = 1
    CANCEL = 2
    DATA = 3
    NO_DATA = 4
    WANT = 5
    UNWANT = 6
    BITFIELD = 7
    RANGE = 8
    EXTENSION = 9


class NoDataReason(IntEnum):
    """Why a request is not answered with data."""

    NONE = 0
    NOT_AVAILABLE = 1
    INVALID_REQUEST = 2


ONLY_A_BLOCK = 1
"""The flags of a `Data` with one block and nothing else."""

_BLOCK, _HASH, _SEEK, _UPGRADE, _MANIFEST, _PRIORITY = 1, 2, 4, 8, 16, 32


@dataclass(frozen=True, slots=True)
class Handshake:
    """Opens the channel: `capability` proves that the sender knows the core's key."""

    capability: bytes
    seeks: bool = True

    def encode(self) -> bytes:
        return encode_uint(int(self.seeks)) + self.capability

    @classmethod
    def decode(cls, data: bytes) -> Handshake:
        reader = Reader(data)
        flags = reader.uint()
        return cls(seeks=bool(flags & 1), capability=reader.fixed(CAPABILITY_BYTES))


@dataclass(frozen=True, slots=True)
class Sync:
    """Where the sender stands.

    `remote_length` is the last length that the receiver told the sender (0 while their forks
    differ): an acknowledgement. `can_upgrade`: the sender can prove the way from there to
    `length`.
    """

    fork: int
    length: int
    remote_length: int
    can_upgrade: bool
    uploading: bool
    downloading: bool
    has_manifest: bool
    allow_push: bool

    def encode(self) -> bytes:
        flags = (
            self.can_upgrade
            | self.uploading << 1
            | self.downloading << 2
            | self.has_manifest << 3
            | self.allow_push << 4
        )
        return b"".join(map(encode_uint, (flags, self.fork, self.length, self.remote_length)))

    @classmethod
    def decode(cls, data: bytes) -> Sync:
        reader = Reader(data)
        flags = reader.uint()
        return cls(
            fork=reader.uint(),
            length=reader.uint(),
            remote_length=reader.uint(),
            can_upgrade=bool(flags & 1),
            uploading=bool(flags & 2),
            downloading=bool(flags & 4),
            has_manifest=bool(flags & 8),
            allow_push=bool(flags & 16),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """Asks for a proof, and for the manifest with it."""

    id: int
    proof: ProofRequest
    manifest: bool = False
    priority: int = 0

    def encode(self) -> bytes:
        proof = self.proof
        flags = 0
        fields = [self.id, proof.fork]
        if proof.block is not None:
            flags |= _BLOCK
            fields += (proof.block.index, proof.block.nodes)
        if proof.hash is not None:
            flags |= _HASH
            fields += (proof.hash.index, proof.hash.nodes)
        if proof.seek is not None:
            flags |= _SEEK
            fields += (proof.seek.bytes, proof.seek.padding)
        if proof.upgrade is not None:
            flags |= _UPGRADE
            fields += (proof.upgrade.start, proof.upgrade.length)
        if self.manifest:
            flags |= _MANIFEST
        if self.priority:
            flags |= _PRIORITY
            fields.append(self.priority)
        return encode_uint(flags) + b"".join(map(encode_uint, fields))

    @classmethod
    def decode(cls, data: bytes) -> Request:
        reader = Reader(data)
        flags = reader.uint()
        request_id = reader.uint()
        proof = ProofRequest(
            fork=reader.uint(),
            block=BlockRequest(reader.uint(), reader.uint()) if flags & _BLOCK else None,
            hash=HashRequest(TreeIndex(reader.uint()), reader.uint()) if flags & _HASH else None,
            seek=SeekRequest(reader.uint(), reader.uint()) if flags & _SEEK else None,
            upgrade=UpgradeRequest(reader.uint(), reader.uint()) if flags & _UPGRADE else None,
        )
        return cls(
            id=request_id,
            proof=proof,
            manifest=bool(flags & _MANIFEST),
            priority=reader.uint() if flags & _PRIORITY else 0,
        )


def encode_block_request(request_id: int, fork: int, index: int, nodes: int) -> bytes:
    """A `Request` for one block and nothing else, in a third of the time."""
    if request_id <= 0xFC and fork <= 0xFC and index <= 0xFC and nodes <= 0xFC:
        return bytes((_BLOCK, request_id, fork, index, nodes))
    return (
        b"\x01"
        + encode_uint(request_id)
        + encode_uint(fork)
        + encode_uint(index)
        + encode_uint(nodes)
    )


@dataclass(frozen=True, slots=True)
class Cancel:
    """Withdraws a request; there is no answer to it."""

    request: int

    def encode(self) -> bytes:
        return encode_uint(self.request)

    @classmethod
    def decode(cls, data: bytes) -> Cancel:
        return cls(Reader(data).uint())


@dataclass(frozen=True, slots=True)
class Data:
    """The proof that was asked for; request 0 is one that nobody asked for."""

    request: int
    proof: Proof

    def encode(self) -> bytes:
        proof = self.proof
        flags = 0
        parts = [encode_uint(self.request), encode_uint(proof.fork)]
        if proof.block is not None:
            flags |= _BLOCK
            value = b"" if proof.block.value is None else proof.block.value
            parts += (encode_uint(proof.block.index), encode_buffer(value))
            parts.append(encode_nodes(proof.block.nodes))
        if proof.hash is not None:
            flags |= _HASH
            parts += (encode_uint(proof.hash.index), encode_nodes(proof.hash.nodes))
        if proof.seek is not None:
            flags |= _SEEK
            parts += (encode_uint(proof.seek.bytes), encode_nodes(proof.seek.nodes))
        if proof.upgrade is not None:
            flags |= _UPGRADE
            upgrade = proof.upgrade
            parts += (encode_uint(upgrade.start), encode_uint(upgrade.length))
            parts += (encode_nodes(upgrade.nodes), encode_nodes(upgrade.additional_nodes))
            parts.append(encode_optional_buffer(upgrade.signature or None))
        if proof.manifest is not None:
            flags |= _MANIFEST
            parts.append(proof.manifest.encode())
        return encode_uint(flags) + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Data:
        reader = Reader(data)
        flags = reader.uint()
        request = reader.uint()
        proof = Proof(
            fork=reader.uint(),
            block=_decode_block(reader) if flags & _BLOCK else None,
            hash=_decode_hash(reader) if flags & _HASH else None,
            seek=_decode_seek(reader) if flags & _SEEK else None,
            upgrade=_decode_upgrade(reader) if flags & _UPGRADE else None,
            manifest=Manifest.decode(reader) if flags & _MANIFEST else None,
        )
        return cls(request, proof)


def encode_nodes(nodes: Sequence[MerkleNode]) -> bytes:
    parts = [encode_uint(len(nodes))]
    for index, size, node_hash in nodes:
        parts += (encode_uint(index), encode_uint(size), node_hash)
    return b"".join(parts)


def first_part_offset(payload: bytes) -> int:
    """Where the first part of a `Data` begins, its block if it has one. Raises: DecodeError."""
    offset = 0
    for _ in range(3):
        _, offset = uint_at(payload, offset)
    return offset


def encode_block_data(
    request_id: int, fork: int, index: int, value: bytes, nodes: Sequence[bytes]
) -> bytes:
    """A `Data` with one block and nothing else, of nodes that are encoded already."""
    parts = [
        b"\x01",
        encode_uint(request_id),
        encode_uint(fork),
        encode_uint(index),
        encode_uint(len(value)),
        value,
        encode_uint(len(nodes)),
        *nodes,
    ]
    return b"".join(parts)


def _decode_block(reader: Reader) -> BlockProof:
    return BlockProof(reader.uint(), reader.buffer(), reader.array(decode_node))


def _decode_hash(reader: Reader) -> HashProof:
    return HashProof(TreeIndex(reader.uint()), reader.array(decode_node))


def _decode_seek(reader: Reader) -> SeekProof:
    return SeekProof(reader.uint(), reader.array(decode_node))


def _decode_upgrade(reader: Reader) -> UpgradeProof:
    return UpgradeProof(
        reader.uint(),
        reader.uint(),
        reader.array(decode_node),
        reader.array(decode_node),
        reader.optional_buffer() or b"",
    )


@dataclass(frozen=True, slots=True)
class NoData:
    """A request that will not be answered with data."""

    request: int
    reason: int = NoDataReason.NONE

    def encode(self) -> bytes:
        if not self.reason:
            return encode_uint(self.request) + b"\x00"
        return encode_uint(self.request) + b"\x01" + encode_uint(self.reason)

    @classmethod
    def decode(cls, data: bytes) -> NoData:
        reader = Reader(data)
        request = reader.uint()
        flags = reader.uint() if reader.remaining else 0
        return cls(request, reader.uint() if flags & 1 else NoDataReason.NONE)


@dataclass(frozen=True, slots=True)
class Want:
    """Tell me which of the blocks [start, start + length) you have; `any`: one will do.

    Sent as an `unwant`, it takes that back.
    """

    start: int
    length: int
    any: bool = False

    def encode(self) -> bytes:
        return encode_uint(self.start) + encode_uint(self.length) + (b"\x01" if self.any else b"")

    @classmethod
    def decode(cls, data: bytes) -> Want:
        reader = Reader(data)
        start, length = reader.uint(), reader.uint()
        return cls(start, length, bool(reader.uint() & 1) if reader.remaining else False)


@dataclass(frozen=True, slots=True)
class HaveBits:
    """The wire's `bitfield`: which blocks from `start` on the sender has, the whole truth.

    `words` are little-endian u32; bit i stands for block start + i.
    """

    start: int
    words: bytes

    def encode(self) -> bytes:
        return encode_uint(self.start) + encode_uint32_array(self.words)

    @classmethod
    def decode(cls, data: bytes) -> HaveBits:
        reader = Reader(data)
        start = reader.uint()
        if start % 32:
            raise DecodeError(f"bitfield starts at {start}, not at a multiple of 32", 0)
        return cls(start, reader.uint32_array())


@dataclass(frozen=True, slots=True)
class Range:
    """The sender now has (or, with `drop`, no longer has) the blocks [start, start + length)."""

    start: int
    length: int
    drop: bool = False

    def encode(self) -> bytes:
        if self.length == 1:
            return encode_uint(2 | self.drop) + encode_uint(self.start)
        return encode_uint(self.drop) + encode_uint(self.start) + encode_uint(self.length)

    @classmethod
    def decode(cls, data: bytes) -> Range:
        reader = Reader(data)
        flags = reader.uint()
        start = reader.uint()
        return cls(start, 1 if flags & 2 else reader.uint(), drop=bool(flags & 1))


@dataclass(frozen=True, slots=True)
class Extension:
    """A message of a protocol on top; an empty name repeats the one before."""

    name: str
    payload: bytes

    def encode(self) -> bytes:
        return encode_string(self.name) + self.payload

    @classmethod
    def decode(cls, data: bytes) -> Extension:
        reader = Reader(data)
        return cls(reader.string(), reader.rest())
