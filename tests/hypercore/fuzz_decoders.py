"""Every decoder of what peers, disks and files give us, with valid inputs to begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

from bee.messages import Header, decode_extension, decode_levels, decode_record, encode_record
from bee.protobuf import encode_bytes_field
from hypercore.bitfield import PAGE_BYTES, Bitfield
from hypercore.block_cipher import BlockCipher
from hypercore.crypto import KeyPair, discovery_key
from hypercore.encoding import (
    DecodeError,
    Reader,
    encode_array,
    encode_buffer,
    encode_optional_buffer,
    encode_signed,
    encode_string,
    encode_uint,
    encode_uint32_array,
)
from hypercore.errors import InvalidProof, InvalidSignature
from hypercore.fork_proof import ForkProof, verify_fork_proof
from hypercore.inclusion_proof import (
    InclusionProof,
    build_inclusion_proof,
    verify_inclusion_proof,
)
from hypercore.log import Head
from hypercore.manifest import Manifest, PartialSignature, Prologue, Signer, Verifier
from hypercore.merkle import MerkleNode, decode_node, encode_node
from hypercore.proof import BlockRequest, Proof, SeekRequest, UpgradeRequest
from hypercore.proof_request import HashRequest, ProofRequest
from hypercore.replication.intake import Intake
from hypercore.replication.messages import (
    Cancel,
    Data,
    Extension,
    Handshake,
    HaveBits,
    NoData,
    Range,
    Request,
    Sync,
    Want,
    encode_block_data,
    uint_at,
)
from hypercore.replication.statistics import Counters
from hypercore.replication.uploads import TooManyRequests, Uploads
from hypercore.storage.layout import (
    Alias,
    AuthRecord,
    CoreRecord,
    HeadRecord,
    Hints,
    StoreHead,
    alias_key,
    decode_alias_key,
    decode_number,
    decode_text,
    encode_number,
    encode_text,
)
from swarm.errors import MalformedPacket
from swarm.frames import FrameDecoder, encode_frame
from tests.support.forked_logs import fork_proof
from tests.support.fuzzing import Decode, Decoder
from tests.support.trees import MANIFEST, VERIFIER, reader_of
from tests.support.vector_log import BLOCKS, WRITER

_VECTORS = Path(__file__).parents[1] / "vectors" / "hypercore"
_WIRE = "hypercore/replication/messages.py"
_GROUND = ("hypercore/encoding.py", "hypercore/merkle.py")


class Encodable(Protocol):
    """What most decoders make."""

    def encode(self) -> bytes: ...


def _of(decode: Callable[[bytes], Encodable]) -> Decode:
    def both(data: bytes) -> tuple[object, bytes]:
        value = decode(data)
        return value, value.encode()

    return both


def _decoder(
    name: str,
    decode: Decode,
    examples: Sequence[bytes],
    *modules: str,
    errors: tuple[type[Exception], ...] = (DecodeError,),
) -> Decoder:
    return Decoder(name, decode, examples, (*modules, *_GROUND), errors)


def _wire_examples(kind: str) -> list[bytes]:
    vectors = json.loads((_VECTORS / "wire-messages.json").read_text())
    return [bytes.fromhex(each["hex"]) for each in vectors if each["name"] == kind]


def _manifests() -> list[Manifest]:
    signers = [Signer(bytes([n]) * 32, bytes([n + 1]) * 32) for n in range(3)]
    prologue = Prologue(bytes(32), 7)
    return [
        *(Manifest.single_signer(bytes(32), version) for version in range(4)),
        *(Manifest.multi_signer(signers, version=version, allow_patch=True) for version in (0, 2)),
        Manifest(version=0, quorum=0, prologue=Prologue(bytes(32), 0)),
        Manifest(version=1, quorum=0, prologue=prologue),
        Manifest(version=2, signers=tuple(signers), prologue=prologue, linked=(bytes(32),) * 2),
        Manifest(version=3, signers=tuple(signers[:1]), linked=(), user_data=b"mine"),
    ]


def _proofs() -> list[Proof]:
    """Answers of every shape."""
    upgrade = UpgradeRequest(5, 20)
    answers = [
        WRITER.answer(block=BlockRequest(3, 6)),
        WRITER.answer(hash=HashRequest(9, 3)),
        WRITER.answer(block=BlockRequest(0, 6), seek=SeekRequest(123, 0)),
        WRITER.answer(block=BlockRequest(7, 0), upgrade=upgrade),
        WRITER.answer(seek=SeekRequest(60, 0), upgrade=upgrade),
        WRITER.answer(upgrade=UpgradeRequest(0, 64)),
    ]
    return [*answers, *(replace(answers[3], manifest=manifest) for manifest in _manifests())]


# --- compact encoding -------------------------------------------------------------------------

_PRIMITIVES: list[tuple[Callable[[Reader], object], Callable[..., bytes]]] = [
    (Reader.uint, encode_uint),
    (Reader.signed, encode_signed),
    (Reader.buffer, encode_buffer),
    (Reader.optional_buffer, encode_optional_buffer),
    (Reader.string, encode_string),
    (Reader.flag, lambda flag: b"\x01" if flag else b"\x00"),
    (lambda reader: reader.array(Reader.uint), lambda items: encode_array(map(encode_uint, items))),
    (Reader.uint32_array, encode_uint32_array),
    (Reader.fixed32, bytes),
    (Reader.fixed64, bytes),
    (Reader.uint8, lambda value: value.to_bytes(1, "little")),
    (Reader.uint16, lambda value: value.to_bytes(2, "little")),
    (Reader.uint24, lambda value: value.to_bytes(3, "little")),
    (Reader.uint32, lambda value: value.to_bytes(4, "little")),
    (Reader.uint64, lambda value: value.to_bytes(8, "little")),
    (decode_node, encode_node),
]


def decode_primitives(data: bytes) -> tuple[object, bytes]:
    """A byte says which primitive follows, until the end."""
    reader = Reader(data)
    values: list[object] = []
    encoded = b""
    while reader.remaining and len(values) < 64:
        number = reader.uint8() % len(_PRIMITIVES)
        decode, encode = _PRIMITIVES[number]
        value = decode(reader)
        values.append(value)
        encoded += bytes((number,)) + encode(value)
    return values, encoded


def _primitive_examples() -> list[bytes]:
    values: list[object] = [
        *(300, -5, b"abc", None, "ä", True, [1, 70000], bytes(8), bytes(32), bytes(64)),
        *(7, 8, 9, 10, 11, WRITER.nodes[3]),
    ]
    parts = [
        bytes((number,)) + encode(value)
        for number, (value, (_, encode)) in enumerate(zip(values, _PRIMITIVES, strict=True))
    ]
    return [*parts, b"".join(parts)]


# --- signatures and proofs --------------------------------------------------------------------

_SIGNERS = [KeyPair.from_seed(bytes([n]) * 32) for n in range(3)]


@cache
def _multi(version: int) -> Verifier:
    signers = [Signer(bytes(32), pair.public_key) for pair in _SIGNERS]
    manifest = Manifest.multi_signer(signers, version=version, quorum=2, allow_patch=True)
    return Verifier(manifest.key, manifest)


def _signature(version: int) -> bytes:
    verifier = _multi(version)
    head = reader_of(WRITER, 16).head
    signature = verifier.sign(WRITER.head, _SIGNERS[2])
    patch = [WRITER.nodes[index] for index in (23, 47, 95) if index in WRITER.nodes]
    parts = [
        PartialSignature(0, verifier.sign(head, _SIGNERS[0])),
        PartialSignature(2, signature, 48, patch),
    ]
    return verifier.assemble(parts)


def _decode_signature(version: int) -> Decode:
    verifier = _multi(version)
    head = reader_of(WRITER, 16).head

    def decode(data: bytes) -> tuple[object, None]:
        parts = verifier.disassemble(data)
        if verifier.verify(head, data):
            trimmed = verifier.trimmed(head, data)
            assert verifier.verify(head, trimmed)
            assert verifier.trimmed(head, trimmed) == trimmed
        return parts, None

    return decode


def _verify_inclusion(data: bytes) -> tuple[object, None]:
    return verify_inclusion_proof(data), None


def _verify_fork(data: bytes) -> tuple[object, None]:
    return verify_fork_proof(data), None


@dataclass(frozen=True)
class _ReaderLog:
    """A reader that knows the head, and no block yet."""

    head: Head
    nodes: Mapping[int, MerkleNode]
    key: bytes = MANIFEST.key
    verifier: Verifier | None = VERIFIER

    def read_node(self, index: int) -> MerkleNode | None:
        return self.nodes.get(index)


_KNOWS_HEAD = reader_of(WRITER, 64)
_READER = _ReaderLog(_KNOWS_HEAD.head, _KNOWS_HEAD.nodes)


def _take_block(data: bytes) -> tuple[object, None]:
    """The loop that decodes and verifies at once, on the way of every downloaded block."""
    offset = 0
    for _ in range(3):
        _, offset = uint_at(data, offset)
    intake = Intake(_READER)
    size = intake.accept_block(3, data, offset)
    for changes in intake.changesets():
        assert changes.blocks == [(3, BLOCKS[3])]
        assert all(WRITER.nodes[node.index] == node for node in changes.nodes)
    return size, None


class _Held:
    """What uploads read from."""

    manifest = MANIFEST
    verifier = VERIFIER
    contiguous_length = 64

    def __init__(self) -> None:
        self.bitfield = Bitfield()
        self.bitfield.set_range(0, 64)
        self.read_node = WRITER.nodes.get

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        return [BLOCKS[index] if index < 64 else None for index in indices]


_HELD = _Held()


def _answer_request(data: bytes) -> tuple[object, bytes | None]:
    """A request is queued and answered; one for a block alone is decoded by a loop of its own."""
    uploads = Uploads(_HELD, Counters())
    uploads.add(data)
    request = Request.decode(data)
    answers = uploads.take(1 << 20, WRITER.head)
    assert len(answers) == 1
    (answer,) = answers
    wanted = request.proof
    if wanted == ProofRequest(wanted.fork, wanted.block) and not request.manifest:
        same = Uploads(_HELD, Counters())
        same.add(Request(request.id, wanted).encode())
        assert same.take(1 << 20, WRITER.head) == [answer]
    return answer, None


# --- storage ------------------------------------------------------------------------------------


def _records() -> dict[str, tuple[Decode, list[Encodable]]]:
    keys = bytes(32), discovery_key(bytes(32))
    return {
        "store head": (
            _of(StoreHead.decode),
            [StoreHead(), StoreHead(3, 4, 5, bytes(32), bytes(32)), StoreHead(300, 70000)],
        ),
        "core record": (
            _of(CoreRecord.decode),
            [CoreRecord(0, 300), CoreRecord(1, 2, Alias(bytes(32), "name"))],
        ),
        "auth record": (
            _of(AuthRecord.decode),
            [
                AuthRecord(*keys),
                AuthRecord(*keys, None, bytes(32), bytes(64), bytes(32)),
                *(AuthRecord(*keys, manifest, bytes(32)) for manifest in _manifests()),
            ],
        ),
        "head record": (
            _of(HeadRecord.decode),
            [HeadRecord(0, 5, bytes(32), bytes(68), 1700000000000), HeadRecord(1, 0, bytes(32))],
        ),
        "hints": (_of(Hints.decode), [Hints(), Hints(300), Hints(1, 2, 1700000000000)]),
    }


def _decode_key(data: bytes) -> tuple[object, bytes]:
    value = decode_number(Reader(data))
    return value, encode_number(value)


def _decode_text(data: bytes) -> tuple[object, bytes]:
    text = decode_text(Reader(data))
    return text, encode_text(text)


def _decode_alias(data: bytes) -> tuple[object, bytes]:
    name = decode_alias_key(data)
    return name, alias_key(bytes(32), name)


def _decode_node(data: bytes) -> tuple[object, bytes]:
    node = decode_node(Reader(data))
    return node, encode_node(node)


def _load_page(data: bytes) -> tuple[object, bytes]:
    bitfield = Bitfield()
    bitfield.load_page(0, data)
    return bitfield.count(0, 8 * PAGE_BYTES), bitfield.page_bytes(0)


_CIPHER = BlockCipher(bytes(32), bytes(32))


def _decrypt(data: bytes) -> tuple[object, None]:
    return _CIPHER.decrypt(7, data), None


# --- above ----------------------------------------------------------------------------------------


def _decode_record(data: bytes) -> tuple[object, bytes]:
    record = decode_record(data)
    with suppress(DecodeError):
        decode_levels(record.index)
    return record, encode_record(record.index, record.key, record.value)


def _decode_extension(data: bytes) -> tuple[object, bytes]:
    messages = decode_extension(data)
    return list(messages), b"".join(message.encode() for message in messages)


def _cut_frames(data: bytes) -> tuple[object, bytes]:
    """In two pieces, as a stream may bring them."""
    decoder = FrameDecoder(1 << 10)
    frames: list[bytes] = []
    for chunk in (data[: len(data) // 2], data[len(data) // 2 :]):
        decoder.add(chunk)
        frames += decoder.take_all()
    assert decoder.buffered_bytes <= len(data)
    return frames, b"".join(map(encode_frame, frames))


def _bee_blocks() -> list[bytes]:
    vectors = json.loads((_VECTORS / "bee.json").read_text())
    blocks = [block for vector in vectors for block in vector.get("blocks", ())]
    return [bytes.fromhex(block) for block in blocks[1:200:13]]


def wire_decoders() -> list[Decoder]:
    """The messages of a replication channel."""
    kinds: dict[str, Callable[[bytes], Encodable]] = {
        "handshake": Handshake.decode,
        "sync": Sync.decode,
        "request": Request.decode,
        "cancel": Cancel.decode,
        "data": Data.decode,
        "noData": NoData.decode,
        "want": Want.decode,
        "bitfield": HaveBits.decode,
        "range": Range.decode,
        "extension": Extension.decode,
    }
    own: dict[str, list[bytes]] = {
        "data": [Data(1, proof).encode() for proof in _proofs()],
        "request": [Request(5, ProofRequest(0, BlockRequest(300, 4)), True, 9).encode()],
    }
    return [
        _decoder(kind, _of(decode), _wire_examples(kind) + own.get(kind, []), _WIRE, _MANIFEST)
        for kind, decode in kinds.items()
    ]


_MANIFEST = "hypercore/manifest.py"
_LAYOUT = "hypercore/storage/layout.py"
_PROVEN = ("hypercore/inclusion_proof.py", "hypercore/fork_proof.py", "hypercore/proof.py")


def storage_decoders() -> list[Decoder]:
    """Records and keys of the database."""
    numbers = [encode_number(number) for number in (0, 251, 252, 70000, 2**40)]
    return [
        *(
            _decoder(name, decode, [each.encode() for each in examples], _LAYOUT, _MANIFEST)
            for name, (decode, examples) in _records().items()
        ),
        _decoder("number key", _decode_key, numbers, _LAYOUT),
        _decoder("text key", _decode_text, [encode_text(b"a\x00b"), encode_text(b"")], _LAYOUT),
        _decoder("alias key", _decode_alias, [alias_key(bytes(32), "n\u00e4me\x00")], _LAYOUT),
        _decoder("tree node", _decode_node, [encode_node(WRITER.nodes[63])]),
        _decoder(
            "bitfield page",
            _load_page,
            [b"\xff" * 7, bytes(PAGE_BYTES)],
            "hypercore/bitfield.py",
            errors=(ValueError,),
        ),
    ]


def proof_decoders() -> list[Decoder]:
    """Signatures, manifests, proofs and blocks."""
    inclusion = [
        build_inclusion_proof(VERIFIER, WRITER.head, WRITER.nodes.get, *which).encode()
        for which in ((), (7, BLOCKS[7]), (63, BLOCKS[63]))
    ]
    fork = fork_proof().encode()
    block = WRITER.answer(block=BlockRequest(3, 6)).block
    assert block is not None
    assert block.value is not None
    answer = encode_block_data(1, 0, 3, block.value, block.nodes)
    refused = (InvalidProof, InvalidSignature, DecodeError)
    requests = [
        Request(1, ProofRequest(0, BlockRequest(3, 6))),
        Request(2, ProofRequest(0, seek=SeekRequest(30, 0), upgrade=UpgradeRequest(5, 20))),
        Request(3, ProofRequest(0, hash=HashRequest(9, 2)), manifest=True),
        Request(4, ProofRequest(0, BlockRequest(3, 2), upgrade=UpgradeRequest(0, 64)), priority=1),
    ]
    manifests = [manifest.encode() for manifest in _manifests()]
    return [
        _decoder("primitives", decode_primitives, _primitive_examples()),
        _decoder("manifest", _of(lambda data: Manifest.decode(Reader(data))), manifests, _MANIFEST),
        *(
            _decoder(
                f"signature of version {version}",
                _decode_signature(version),
                [_signature(version)],
                _MANIFEST,
            )
            for version in (0, 1)
        ),
        _decoder(
            "inclusion proof", _of(InclusionProof.decode), inclusion, *_PROVEN, errors=refused
        ),
        _decoder("proven block", _verify_inclusion, inclusion, *_PROVEN, errors=refused),
        _decoder("fork proof", _of(ForkProof.decode), [fork], *_PROVEN, errors=refused),
        _decoder("proven fork", _verify_fork, [fork], *_PROVEN, errors=refused),
        _decoder(
            "downloaded block",
            _take_block,
            [answer],
            "hypercore/replication/intake.py",
            _WIRE,
            errors=refused,
        ),
        _decoder(
            "answered request",
            _answer_request,
            [request.encode() for request in requests],
            "hypercore/replication/uploads.py",
            "hypercore/proof_request.py",
            _WIRE,
            errors=(DecodeError, TooManyRequests),
        ),
        _decoder(
            "encrypted block",
            _decrypt,
            [_CIPHER.encrypt(7, 0, b"block")],
            "hypercore/block_cipher.py",
            errors=(ValueError,),
        ),
    ]


def upper_decoders() -> list[Decoder]:
    """What bees and connections read."""
    bee = ("bee/messages.py", "bee/protobuf.py")
    hint = encode_bytes_field(1, b"\x08\x01\x10\x05\x1a\x02\x01\x02")
    get = encode_bytes_field(2, b"\x08\x07\x12\x01k")
    iterator = encode_bytes_field(3, b"\x08\x07\x12\x01a\x2a\x01z\x30\x05\x38\x01\x42\x01\x09")
    return [
        _decoder("bee header", _of(Header.decode), [Header().encode()], *bee),
        _decoder("bee record", _decode_record, _bee_blocks(), *bee),
        _decoder("bee extension", _decode_extension, [hint, get, iterator], *bee),
        _decoder(
            "frames",
            _cut_frames,
            [encode_frame(b"hi") + encode_frame(b"") + encode_frame(bytes(300))],
            "swarm/frames.py",
            errors=(MalformedPacket,),
        ),
    ]


@cache
def all_decoders() -> dict[str, Decoder]:
    """By name."""
    decoders = (
        *proof_decoders(),
        *wire_decoders(),
        *storage_decoders(),
        *upper_decoders(),
    )
    return {decoder.name: decoder for decoder in decoders}
