from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError, Reader, encode_uint, uint_at
from hypercore.flat_tree import TreeIndex
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, encode_node
from hypercore.proof import BlockProof, HashProof, Proof, SeekProof, UpgradeProof
from hypercore.proof_request import (
    BlockRequest,
    HashRequest,
    ProofRequest,
    SeekRequest,
    UpgradeRequest,
)
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
    encode_block_request,
)

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "hypercore" / "wire-messages.json").read_text()
)


class Message(Protocol):
    def encode(self) -> bytes: ...


DECODERS: dict[str, Callable[[bytes], Message]] = {
    "handshake": Handshake.decode,
    "sync": Sync.decode,
    "request": Request.decode,
    "cancel": Cancel.decode,
    "data": Data.decode,
    "noData": NoData.decode,
    "want": Want.decode,
    "unwant": Want.decode,
    "bitfield": HaveBits.decode,
    "range": Range.decode,
    "extension": Extension.decode,
}


def node(value: dict[str, Any]) -> MerkleNode:
    return MerkleNode(TreeIndex(value["index"]), value["size"], bytes.fromhex(value["hash"]))


def nodes(values: list[dict[str, Any]]) -> list[MerkleNode]:
    return [node(value) for value in values]


def request(message: dict[str, Any]) -> Request:
    block, hashes, seek, upgrade = (message[part] for part in ("block", "hash", "seek", "upgrade"))
    return Request(
        message["id"],
        ProofRequest(
            message["fork"],
            BlockRequest(block["index"], block["nodes"]) if block else None,
            HashRequest(hashes["index"], hashes["nodes"]) if hashes else None,
            SeekRequest(seek["bytes"], seek["padding"]) if seek else None,
            UpgradeRequest(upgrade["start"], upgrade["length"]) if upgrade else None,
        ),
        message["manifest"],
        message["priority"],
    )


def data(message: dict[str, Any]) -> Data:
    block, hashes, seek, upgrade = (message[part] for part in ("block", "hash", "seek", "upgrade"))
    manifest = None
    if message["manifest"]:
        signer = message["manifest"]["signers"][0]
        manifest = Manifest.single_signer(
            bytes.fromhex(signer["publicKey"]), namespace=bytes.fromhex(signer["namespace"])
        )
    return Data(
        message["request"],
        Proof(
            message["fork"],
            BlockProof(block["index"], bytes.fromhex(block["value"]), nodes(block["nodes"]))
            if block
            else None,
            HashProof(hashes["index"], nodes(hashes["nodes"])) if hashes else None,
            SeekProof(seek["bytes"], nodes(seek["nodes"])) if seek else None,
            UpgradeProof(
                upgrade["start"],
                upgrade["length"],
                nodes(upgrade["nodes"]),
                nodes(upgrade["additionalNodes"]),
                bytes.fromhex(upgrade["signature"]),
            )
            if upgrade
            else None,
            manifest,
        ),
    )


def expected(name: str, message: dict[str, Any]) -> Message:
    match name:
        case "handshake":
            return Handshake(bytes.fromhex(message["capability"]), message["seeks"])
        case "sync":
            return Sync(
                message["fork"],
                message["length"],
                message["remoteLength"],
                message["canUpgrade"],
                message["uploading"],
                message["downloading"],
                message["hasManifest"],
                message["allowPush"],
            )
        case "request":
            return request(message)
        case "cancel":
            return Cancel(message["request"])
        case "data":
            return data(message)
        case "noData":
            return NoData(message["request"], message["reason"])
        case "want" | "unwant":
            return Want(message["start"], message["length"], message["any"])
        case "bitfield":
            words = b"".join(word.to_bytes(4, "little") for word in message["bitfield"])
            return HaveBits(message["start"], words)
        case "range":
            return Range(message["start"], message["length"], message["drop"])
        case _:
            return Extension(message["name"], bytes.fromhex(message["message"]))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_message_is_read_and_written_as_in_javascript(vector: dict[str, Any]) -> None:
    message = expected(vector["name"], vector["msg"])
    encoded = bytes.fromhex(vector["hex"])
    assert message.encode() == encoded
    assert DECODERS[vector["name"]](encoded) == message


def test_the_worked_example_of_the_docstring() -> None:
    message = Request(1, ProofRequest(0, upgrade=UpgradeRequest(0, 1000)), manifest=True)
    assert message.encode() == bytes.fromhex("18010000fde803")


@pytest.mark.parametrize("name", DECODERS)
@given(payload=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(name: str, payload: bytes) -> None:
    decode = DECODERS[name]
    try:
        message = decode(payload)
    except DecodeError:
        return
    again = decode(message.encode())
    assert again == message


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_message_cut_off_anywhere_is_an_error_or_another_message(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["hex"])
    decode = DECODERS[vector["name"]]
    for stop in range(len(encoded)):
        with suppress(DecodeError):
            decode(encoded[:stop])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_bytes_after_the_last_field_are_ignored(vector: dict[str, Any]) -> None:
    if vector["name"] in ("extension", "want", "unwant"):
        return  # these end in a field that takes, or may take, what is left
    encoded = bytes.fromhex(vector["hex"])
    assert DECODERS[vector["name"]](encoded + b"\x07\x07").encode() == encoded


def test_a_no_data_without_flags_has_no_reason() -> None:
    assert NoData.decode(b"\x05") == NoData(5)


def test_a_bitfield_that_starts_within_a_word_is_refused() -> None:
    with pytest.raises(DecodeError, match="multiple of 32"):
        HaveBits.decode(HaveBits(33, bytes(4)).encode())


numbers = st.integers(0, 2**53 - 1)


@given(numbers, numbers, numbers, st.integers(0, 64))
def test_the_short_way_of_a_block_request(
    request_id: int, fork: int, index: int, levels: int
) -> None:
    message = Request(request_id, ProofRequest(fork, block=BlockRequest(index, levels)))
    assert encode_block_request(request_id, fork, index, levels) == message.encode()


merkle_nodes = st.builds(
    MerkleNode, numbers.map(TreeIndex), numbers, st.binary(min_size=32, max_size=32)
)


@given(numbers, numbers, numbers, st.binary(max_size=300), st.lists(merkle_nodes, max_size=5))
def test_the_short_way_of_block_data(
    request_id: int, fork: int, index: int, value: bytes, path: list[MerkleNode]
) -> None:
    message = Data(request_id, Proof(fork, block=BlockProof(index, value, path)))
    encoded = [encode_node(node) for node in path]
    assert encode_block_data(request_id, fork, index, value, encoded) == message.encode()
    assert Data.decode(message.encode()) == message


@given(st.binary(max_size=12), st.integers(0, 12))
def test_an_integer_at_an_offset_is_what_the_reader_reads(data: bytes, offset: int) -> None:
    reader = Reader(data, offset)
    try:
        value = reader.uint()
    except DecodeError:
        with pytest.raises(DecodeError):
            uint_at(data, offset)
    else:
        assert uint_at(data, offset) == (value, reader.offset)


@given(numbers)
def test_an_integer_at_an_offset_round_trip(value: int) -> None:
    encoded = encode_uint(value)
    assert uint_at(b"x" + encoded, 1) == (value, 1 + len(encoded))
