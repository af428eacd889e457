"""Every decoder of what peers, disks and files give us, with valid inputs to begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from hypercore.bitfield import Bitfield
from hypercore.block_cipher import BlockCipher
from hypercore.crypto import KeyPair
from hypercore.encoding import (
    DecodeError,
    Reader,
    uint_at,
)
from hypercore.errors import InvalidProof, InvalidSignature
from hypercore.flat_tree import growth
from hypercore.fork_proof import ForkProof, verify_fork_proof
from hypercore.inclusion_proof import (
    InclusionProof,
    build_inclusion_proof,
    verify_inclusion_proof,
)
from hypercore.log import Head
from hypercore.manifest import Manifest, Signer
from hypercore.merkle import MerkleNode, encode_node
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
)
from hypercore.replication.statistics import Counters
from hypercore.replication.uploads import TooManyRequests, Uploads
from hypercore.verifier import PartialSignature, Verifier
from tests.hypercore.fuzz_records import (
    MANIFEST_PY,
    VECTORS,
    Encodable,
    decode_primitives,
    make_decoder,
    manifests,
    primitive_examples,
    recoded,
    storage_decoders,
    upper_decoders,
)
from tests.support.forked_logs import fork_proof
from tests.support.fuzzing import Decode, Decoder
from tests.support.trees import MANIFEST, VERIFIER, reader_of
from tests.support.vector_log import BLOCKS, WRITER

_WIRE = "hypercore/replication/messages.py"
_PROVEN = ("hypercore/inclusion_proof.py", "hypercore/fork_proof.py", "hypercore/proof.py")


def _wire_examples(kind: str) -> list[bytes]:
    vectors = json.loads((VECTORS / "wire-messages.json").read_text())
    return [bytes.fromhex(each["hex"]) for each in vectors if each["name"] == kind]


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
    return [*answers, *(replace(answers[3], manifest=manifest) for manifest in manifests())]


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
    patch = [WRITER.nodes[index] for index in growth(16, 64)]
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
        for node_index, encoded in changes.encoded_nodes.items():
            assert encoded == encode_node(WRITER.nodes[node_index])
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

    def encoded_nodes(self, indices: Sequence[int]) -> list[bytes | None]:
        nodes = [self.read_node(index) for index in indices]
        return [None if node is None else encode_node(node) for node in nodes]

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


_CIPHER = BlockCipher(bytes(32), bytes(32))


def _decrypt(data: bytes) -> tuple[object, None]:
    return _CIPHER.decrypt(7, data), None


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
        make_decoder(
            kind, recoded(decode), _wire_examples(kind) + own.get(kind, []), _WIRE, MANIFEST_PY
        )
        for kind, decode in kinds.items()
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
    answer = encode_block_data(1, 0, 3, block.value, [encode_node(node) for node in block.nodes])
    refused = (InvalidProof, InvalidSignature, DecodeError)
    requests = [
        Request(1, ProofRequest(0, BlockRequest(3, 6))),
        Request(2, ProofRequest(0, seek=SeekRequest(30, 0), upgrade=UpgradeRequest(5, 20))),
        Request(3, ProofRequest(0, hash=HashRequest(9, 2)), manifest=True),
        Request(4, ProofRequest(0, BlockRequest(3, 2), upgrade=UpgradeRequest(0, 64)), priority=1),
    ]
    encoded = [manifest.encode() for manifest in manifests()]
    return [
        make_decoder("primitives", decode_primitives, primitive_examples()),
        make_decoder(
            "manifest",
            recoded(lambda data: Manifest.decode(Reader(data))),
            encoded,
            MANIFEST_PY,
        ),
        *(
            make_decoder(
                f"signature of version {version}",
                _decode_signature(version),
                [_signature(version)],
                MANIFEST_PY,
            )
            for version in (0, 1)
        ),
        make_decoder(
            "inclusion proof", recoded(InclusionProof.decode), inclusion, *_PROVEN, errors=refused
        ),
        make_decoder("proven block", _verify_inclusion, inclusion, *_PROVEN, errors=refused),
        make_decoder("fork proof", recoded(ForkProof.decode), [fork], *_PROVEN, errors=refused),
        make_decoder("proven fork", _verify_fork, [fork], *_PROVEN, errors=refused),
        make_decoder(
            "downloaded block",
            _take_block,
            [answer],
            "hypercore/replication/intake.py",
            _WIRE,
            errors=refused,
        ),
        make_decoder(
            "answered request",
            _answer_request,
            [request.encode() for request in requests],
            "hypercore/replication/uploads.py",
            "hypercore/proof_request.py",
            _WIRE,
            errors=(DecodeError, TooManyRequests),
        ),
        make_decoder(
            "encrypted block",
            _decrypt,
            [_CIPHER.encrypt(7, 0, b"block")],
            "hypercore/block_cipher.py",
            errors=(ValueError,),
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
