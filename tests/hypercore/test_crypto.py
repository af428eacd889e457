"""Hashes, keys and ids: JS vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import (
    KeyPair,
    blake2b,
    decode_id,
    discovery_key,
    encode_id,
    namespace,
    sign,
    verify,
    z_base_32_decode,
    z_base_32_encode,
)
from hypercore.manifest import Manifest

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hypercore" / "keys.json").read_text()
)


def test_key_pairs_are_those_of_js() -> None:
    for vector in VECTORS["keyPairs"]:
        key_pair = KeyPair.from_seed(bytes.fromhex(vector["seed"]))
        assert key_pair.public_key.hex() == vector["publicKey"]
        assert key_pair.secret_key.hex() == vector["secretKey"]


def test_signatures_are_those_of_js() -> None:
    for vector in VECTORS["sign"]:
        key_pair = KeyPair.from_seed(bytes.fromhex(vector["seed"]))
        message = bytes.fromhex(vector["message"])
        signature = sign(message, key_pair.secret_key)
        assert signature.hex() == vector["signature"]
        assert verify(message, signature, key_pair.public_key)
        assert not verify(message + b"!", signature, key_pair.public_key)


def test_namespaces_and_discovery_keys_are_those_of_js() -> None:
    for name, hashes in VECTORS["namespaces"].items():
        assert [part.hex() for part in namespace(name, len(hashes))] == hashes
    for vector in VECTORS["discoveryKeys"]:
        assert discovery_key(bytes.fromhex(vector["key"])).hex() == vector["discoveryKey"]


def test_named_cores_have_the_keys_of_js() -> None:
    (corestore,) = namespace("corestore", 1)
    for vector in VECTORS["corestore"]:
        space = bytes(32)
        for name in vector["namespace"]:
            space = blake2b(space, name.encode())
        assert space.hex() == vector["ns"]
        primary_key = bytes.fromhex(vector["primaryKey"])
        seed = blake2b(corestore, space, vector["name"].encode(), key=primary_key)
        public_key = KeyPair.from_seed(seed).public_key
        assert public_key.hex() == vector["publicKey"]
        manifest = Manifest.single_signer(public_key)
        assert manifest.encode().hex() == vector["manifest"]
        assert manifest.key.hex() == vector["key"]
        assert discovery_key(manifest.key).hex() == vector["discoveryKey"]


def test_capabilities_are_keyed_hashes() -> None:
    spaces = namespace("hypercore", 6)
    for name, space in (("capabilitytrue", spaces[1]), ("capabilityfalse", spaces[2])):
        vector = VECTORS[name]
        key, handshake_hash = bytes.fromhex(vector["key"]), bytes.fromhex(vector["handshakeHash"])
        assert blake2b(space, key, key=handshake_hash).hex() == vector["hex"]


def test_keys_come_from_the_entropy_given_and_stay_out_of_repr() -> None:
    key_pair = KeyPair.generate(lambda size: bytes(size))
    assert key_pair == KeyPair.from_seed(bytes(32))
    assert key_pair.secret_key.hex() not in repr(key_pair)
    assert KeyPair.generate() != KeyPair.generate()


@given(st.binary(max_size=70), st.binary(max_size=40), st.binary(max_size=10))
def test_any_signature_and_key_give_an_answer(
    signature: bytes, public_key: bytes, message: bytes
) -> None:
    assert not verify(message, signature, public_key)


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=32, max_size=32))
def test_a_random_signature_is_refused(signature: bytes, public_key: bytes) -> None:
    assert not verify(b"message", signature, public_key)


@given(st.binary(min_size=32, max_size=32))
def test_ids_round_trip_in_every_form(key: bytes) -> None:
    text = encode_id(key)
    assert len(text) == 52
    for form in (text, key.hex(), f"pear://{text}", f"pear://{text}/path", f"pear://0.1.{text}"):
        assert decode_id(form) == key


@given(st.binary(max_size=40))
def test_z_base_32_round_trip(data: bytes) -> None:
    assert z_base_32_decode(z_base_32_encode(data)) == data


@given(st.text(max_size=70))
def test_any_text_is_a_key_or_a_value_error(text: str) -> None:
    try:
        assert len(decode_id(text)) == 32
    except ValueError:
        return


@pytest.mark.parametrize("text", ["", "yyyy", "l" * 52, "0" * 63 + "g", "y" * 51 + "9"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_id(text)
