"""Keys and records: bytes that JavaScript writes, order, and any bytes whatever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError, Reader
from hypercore.manifest import Manifest, Prologue
from hypercore.storage.layout import (
    ROOT_NAMESPACE,
    Alias,
    AuthRecord,
    CoreRecord,
    DataKeys,
    HeadRecord,
    Hints,
    StoreHead,
    alias_key,
    alias_range,
    auth_key,
    core_key,
    decode_alias_key,
    decode_number,
    decode_text,
    encode_number,
    encode_text,
)

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))
NUMBERS = st.integers(0, 2**53 - 1) | st.integers(0, 70_000)
BYTES32 = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (0xFB, "fb"),
        (0xFC, "fc00fc"),
        (300, "fc012c"),
        (0xFFFF, "fcffff"),
        (0x10000, "fd00010000"),
        (0xFFFFFFFF, "fdffffffff"),
        (2**32, "fe0000000100000000"),
    ],
)
def test_numbers_in_keys(number: int, encoded: str) -> None:
    assert encode_number(number).hex() == encoded
    assert decode_number(Reader(bytes.fromhex(encoded))) == number


@given(NUMBERS, NUMBERS)
def test_numbers_sort_as_numbers(one: int, other: int) -> None:
    assert (encode_number(one) < encode_number(other)) == (one < other)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_texts_sort_as_texts_and_come_back(one: bytes, other: bytes) -> None:
    assert (encode_text(one) < encode_text(other)) == (one < other)
    reader = Reader(encode_text(one) + b"rest")
    assert decode_text(reader) == one
    assert reader.rest() == b"rest"


def test_infinity_is_no_number() -> None:
    with pytest.raises(DecodeError):
        decode_number(Reader(b"\xff"))


def test_keys_of_records() -> None:
    keys = DataKeys(5)
    assert keys.block(300).hex() == "040503fc012c"
    assert keys.node(1).hex() == "04050401"
    assert keys.page(2).hex() == "0405050200"
    assert keys.head.hex() == "040500"
    assert keys.hints.hex() == "040502"
    assert keys.user_data("a\0b").hex() == "0405060061000262" + "0001"
    assert keys.local(b"\0x").hex() == "0405070078"
    assert auth_key(1).hex() == "030100"
    assert core_key(KEY) == b"\x01" + KEY
    assert keys.block_index(keys.block(70_000)) == 70_000
    assert keys.page_number(keys.page(9)) == 9
    assert keys.local_key(keys.local(b"row")) == b"row"


@given(st.text(max_size=20))
def test_names_come_back_from_their_keys(name: str) -> None:
    if any(0xD800 <= ord(letter) < 0xE000 for letter in name):
        return  # no UTF-8
    key = alias_key(ROOT_NAMESPACE, name)
    start, stop = alias_range(ROOT_NAMESPACE)
    assert start <= key < stop
    assert decode_alias_key(key) == name


@given(st.binary(max_size=80))
def test_any_bytes_as_an_alias_key(key: bytes) -> None:
    decoded_or_refused(decode_alias_key, key)


def test_worked_records() -> None:
    assert StoreHead(seed=KEY).encode() == b"\x02\x00\x00\x00\x01" + KEY
    assert Hints().encode() == b"\x00"
    assert Hints(300).encode().hex() == "01fd2c01"
    assert Hints(1, 2, 3).encode().hex() == "07010203"
    assert Hints(0, 7).encode().hex() == "0207"
    assert CoreRecord(1, 2).encode().hex() == "02010200"
    alias = Alias(ROOT_NAMESPACE, "log")
    assert CoreRecord(0, 0, alias).encode() == b"\x02\x00\x00\x01\x03log" + ROOT_NAMESPACE
    assert len(HeadRecord(0, 9, KEY, bytes(68), 10**12).encode()) == 112


def test_old_records() -> None:
    assert StoreHead.decode(b"\x01\x07\x03\x04" + KEY + OTHER) == StoreHead(3, 4, 0, KEY, OTHER)
    assert StoreHead.decode(b"\x01\x02" + KEY) == StoreHead(seed=KEY)
    assert CoreRecord.decode(b"\x01\x05\x06\x00") == CoreRecord(5, 6)
    assert HeadRecord.decode(b"\x01\x02" + KEY + b"\x00") == HeadRecord(1, 2, KEY)


@pytest.mark.parametrize("record", [StoreHead, CoreRecord])
def test_unknown_versions_are_refused(record: type[StoreHead] | type[CoreRecord]) -> None:
    with pytest.raises(DecodeError, match="version 9"):
        record.decode(b"\x09" + bytes(60))


@given(NUMBERS, NUMBERS, NUMBERS, st.none() | BYTES32, st.none() | BYTES32)
def test_store_heads_come_back(
    cores: int, datas: int, groups: int, seed: bytes | None, first: bytes | None
) -> None:
    head = StoreHead(cores, datas, groups, seed, first)
    assert StoreHead.decode(head.encode()) == head


@given(NUMBERS, NUMBERS, st.none() | st.builds(Alias, BYTES32, st.text("abc\0\u00e4")))
def test_core_records_come_back(core: int, data: int, alias: Alias | None) -> None:
    record = CoreRecord(core, data, alias)
    assert CoreRecord.decode(record.encode()) == record


@given(NUMBERS, NUMBERS, BYTES32, st.binary(max_size=200), st.integers(0, 2**53 - 1))
def test_heads_come_back(
    fork: int, length: int, tree_hash: bytes, signature: bytes, unix_ms: int
) -> None:
    head = HeadRecord(fork, length, tree_hash, signature, unix_ms)
    assert HeadRecord.decode(head.encode()) == head


@given(st.builds(Hints, NUMBERS, NUMBERS, NUMBERS))
def test_hints_come_back(hints: Hints) -> None:
    assert Hints.decode(hints.encode()) == hints


MANIFESTS = [
    Manifest.single_signer(KEY),
    Manifest.single_signer(KEY, version=0),
    Manifest(version=0, quorum=0, signers=(), prologue=Prologue(KEY, 0)),
    Manifest(version=2, quorum=0, prologue=Prologue(KEY, 300), user_data=b"x", linked=(OTHER,)),
]


@pytest.mark.parametrize("manifest", [None, *MANIFESTS])
@pytest.mark.parametrize("key_pair", [None, KeyPair.from_seed(KEY)])
@pytest.mark.parametrize("encryption_key", [None, OTHER])
def test_auth_comes_back(
    manifest: Manifest | None, key_pair: KeyPair | None, encryption_key: bytes | None
) -> None:
    auth = AuthRecord(
        KEY,
        OTHER,
        manifest,
        key_pair.public_key if key_pair else None,
        key_pair.secret_key if key_pair else None,
        encryption_key,
    )
    decoded = AuthRecord.decode(auth.encode())
    assert decoded == auth
    assert decoded.key_pair == key_pair


def test_the_usual_auth_record_has_234_bytes() -> None:
    pair = KeyPair.from_seed(KEY)
    manifest = Manifest.single_signer(pair.public_key)
    auth = AuthRecord(KEY, OTHER, manifest, pair.public_key, pair.secret_key)
    assert len(auth.encode()) == 234
    assert "secret" not in repr(pair)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_public_key_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        AuthRecord.decode(KEY + OTHER + b"\x02" + bytes((size,)) + bytes(size) + b"\x00")


DECODERS: list[Callable[[bytes], object]] = [
    StoreHead.decode,
    CoreRecord.decode,
    AuthRecord.decode,
    HeadRecord.decode,
    Hints.decode,
]


def decoded_or_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(data)


@pytest.mark.parametrize("decode", DECODERS, ids=["store", "core", "auth", "head", "hints"])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_record_or_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    decoded_or_refused(decode, data)
    decoded_or_refused(decode, b"\x02" + data)


@pytest.mark.parametrize(
    "record",
    [
        StoreHead(1, 2, 3, KEY, OTHER).encode(),
        CoreRecord(1, 2, Alias(KEY, "name")).encode(),
        HeadRecord(1, 2, KEY, bytes(64), 5).encode(),
        Hints(1, 2, 3).encode(),
    ],
    ids=["store", "core", "head", "hints"],
)
def test_cut_records_are_refused_or_older_ones(record: bytes) -> None:
    for cut in range(len(record)):
        for decode in DECODERS:
            decoded_or_refused(decode, record[:cut])
