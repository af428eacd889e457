"""Decoders of what disks give us, of the encoding below everything, and of what is above."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from bee.extension_messages import decode_extension
from bee.messages import Header, decode_levels, decode_record, encode_record
from bee.protobuf import encode_bytes_field
from hypercore.bitfield import PAGE_BYTES, Bitfield
from hypercore.crypto import discovery_key
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
from hypercore.manifest import Manifest, Prologue, Signer
from hypercore.merkle import decode_node, encode_node
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
from tests.support.fuzzing import Decode, Decoder
from tests.support.vector_log import WRITER

MANIFEST_PY = "hypercore/manifest.py"
_LAYOUT = "hypercore/storage/layout.py"
VECTORS = Path(__file__).parents[1] / "vectors" / "hypercore"
GROUND = ("hypercore/encoding.py", "hypercore/merkle.py")


class Encodable(Protocol):
    """What most decoders make."""

    def encode(self) -> bytes: ...


def recoded(decode: Callable[[bytes], Encodable]) -> Decode:
    def both(data: bytes) -> tuple[object, bytes]:
        value = decode(data)
        return value, value.encode()

    return both


def make_decoder(
    name: str,
    decode: Decode,
    examples: Sequence[bytes],
    *modules: str,
    errors: tuple[type[Exception], ...] = (DecodeError,),
) -> Decoder:
    return Decoder(name, decode, examples, (*modules, *GROUND), errors)


def manifests() -> list[Manifest]:
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


def primitive_examples() -> list[bytes]:
    values: list[object] = [
        *(300, -5, b"abc", None, "ä", True, [1, 70000], bytes(8), bytes(32), bytes(64)),
        *(7, 8, 9, 10, 11, WRITER.nodes[3]),
    ]
    parts = [
        bytes((number,)) + encode(value)
        for number, (value, (_, encode)) in enumerate(zip(values, _PRIMITIVES, strict=True))
    ]
    return [*parts, b"".join(parts)]


# --- storage ------------------------------------------------------------------------------------


def _records() -> dict[str, tuple[Decode, list[Encodable]]]:
    keys = bytes(32), discovery_key(bytes(32))
    return {
        "store head": (
            recoded(StoreHead.decode),
            [StoreHead(), StoreHead(3, 4, 5, bytes(32), bytes(32)), StoreHead(300, 70000)],
        ),
        "core record": (
            recoded(CoreRecord.decode),
            [CoreRecord(0, 300), CoreRecord(1, 2, Alias(bytes(32), "name"))],
        ),
        "auth record": (
            recoded(AuthRecord.decode),
            [
                AuthRecord(*keys),
                AuthRecord(*keys, None, bytes(32), bytes(64), bytes(32)),
                *(AuthRecord(*keys, manifest, bytes(32)) for manifest in manifests()),
            ],
        ),
        "head record": (
            recoded(HeadRecord.decode),
            [HeadRecord(0, 5, bytes(32), bytes(68), 1700000000000), HeadRecord(1, 0, bytes(32))],
        ),
        "hints": (recoded(Hints.decode), [Hints(), Hints(300), Hints(1, 2, 1700000000000)]),
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
    vectors = json.loads((VECTORS / "bee.json").read_text())
    blocks = [block for vector in vectors for block in vector.get("blocks", ())]
    return [bytes.fromhex(block) for block in blocks[1:200:13]]


def storage_decoders() -> list[Decoder]:
    """Records and keys of the database."""
    numbers = [encode_number(number) for number in (0, 251, 252, 70000, 2**40)]
    return [
        *(
            make_decoder(name, decode, [each.encode() for each in examples], _LAYOUT, MANIFEST_PY)
            for name, (decode, examples) in _records().items()
        ),
        make_decoder("number key", _decode_key, numbers, _LAYOUT),
        make_decoder("text key", _decode_text, [encode_text(b"a\x00b"), encode_text(b"")], _LAYOUT),
        make_decoder("alias key", _decode_alias, [alias_key(bytes(32), "n\u00e4me\x00")], _LAYOUT),
        make_decoder("tree node", _decode_node, [encode_node(WRITER.nodes[63])]),
        make_decoder(
            "bitfield page",
            _load_page,
            [b"\xff" * 7, bytes(PAGE_BYTES)],
            "hypercore/bitfield.py",
            errors=(ValueError,),
        ),
    ]


def upper_decoders() -> list[Decoder]:
    """What bees and connections read."""
    bee = ("bee/messages.py", "bee/extension_messages.py", "bee/protobuf.py")
    hint = encode_bytes_field(1, b"\x08\x01\x10\x05\x1a\x02\x01\x02")
    get = encode_bytes_field(2, b"\x08\x07\x12\x01k")
    iterator = encode_bytes_field(3, b"\x08\x07\x12\x01a\x2a\x01z\x30\x05\x38\x01\x42\x01\x09")
    return [
        make_decoder("bee header", recoded(Header.decode), [Header().encode()], *bee),
        make_decoder("bee record", _decode_record, _bee_blocks(), *bee),
        make_decoder("bee extension", _decode_extension, [hint, get, iterator], *bee),
        make_decoder(
            "frames",
            _cut_frames,
            [encode_frame(b"hi") + encode_frame(b"") + encode_frame(bytes(300))],
            "swarm/frames.py",
            errors=(MalformedPacket,),
        ),
    ]
