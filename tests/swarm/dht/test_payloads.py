from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError
from swarm.dht.messages import Command
from swarm.dht.payloads import (
    Announcement,
    LookupAnswer,
    MutablePut,
    MutableValue,
    PeerRecord,
    immutable_target,
    is_announcement_signed,
    peer_target,
    sign_announcement,
)
from tests.support.dht_vectors import VECTORS, parse_addresses, parse_bytes

PAYLOADS: dict[str, Any] = VECTORS["payloads"]
KEY_PAIR = KeyPair.from_seed(bytes.fromhex(PAYLOADS["seed"]))
TARGET = bytes.fromhex(PAYLOADS["target"])
TOKEN = bytes.fromhex(PAYLOADS["token"])
STORING_ID = bytes.fromhex(PAYLOADS["storingId"])
RELAYS = (("192.0.2.1", 49737), ("192.0.2.2", 1))
RECORDS = (PeerRecord(KEY_PAIR.public_key, RELAYS), PeerRecord(KEY_PAIR.public_key))

keys = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
uints = st.integers(0, 2**40)
addresses = st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535))
records = st.builds(PeerRecord, keys, st.lists(addresses, max_size=4).map(tuple))
announcements = st.builds(
    Announcement, st.none() | records, st.none() | keys, st.none() | signatures, uints
)
lookups = st.builds(LookupAnswer, st.lists(records, max_size=20).map(tuple), uints)
mutables = st.builds(MutableValue, uints, st.binary(max_size=300), signatures)
puts = st.builds(MutablePut, keys, mutables)

DECODERS: list[Callable[[bytes], Any]] = [
    PeerRecord.decode,
    LookupAnswer.decode,
    Announcement.decode,
    MutableValue.decode,
    MutablePut.decode,
]


@pytest.mark.parametrize("vector", PAYLOADS["announcements"], ids=lambda vector: vector["name"])
def test_announcements_are_signed_as_the_original_signs_them(vector: dict[str, Any]) -> None:
    record = PeerRecord(KEY_PAIR.public_key, parse_addresses(vector["relays"]))
    assert record.encode().hex() == vector["record"]
    bare = Announcement(record, parse_bytes(vector["refresh"]), None, vector["bump"])
    for command, key in ((Command.ANNOUNCE, "signature"), (Command.UNANNOUNCE, "unannounce")):
        signature = sign_announcement(command, TARGET, STORING_ID, TOKEN, bare, KEY_PAIR)
        assert signature.hex() == vector[key]
        signed = Announcement(record, bare.refresh, signature, bare.bump_unix_ms)
        assert is_announcement_signed(command, TARGET, STORING_ID, TOKEN, signed)
        if command is Command.ANNOUNCE:
            assert signed.encode().hex() == vector["encoded"]
        assert Announcement.decode(signed.encode()) == signed


def test_a_signature_holds_for_one_command_target_node_token_and_record() -> None:
    command = Command.ANNOUNCE
    bare = Announcement(RECORDS[0])
    signature = sign_announcement(command, TARGET, STORING_ID, TOKEN, bare, KEY_PAIR)
    signed = Announcement(RECORDS[0], None, signature)
    other = bytes(32)
    assert is_announcement_signed(command, TARGET, STORING_ID, TOKEN, signed)
    assert not is_announcement_signed(Command.UNANNOUNCE, TARGET, STORING_ID, TOKEN, signed)
    assert not is_announcement_signed(command, other, STORING_ID, TOKEN, signed)
    assert not is_announcement_signed(command, TARGET, other, TOKEN, signed)
    assert not is_announcement_signed(command, TARGET, STORING_ID, other, signed)
    for changed in (
        Announcement(RECORDS[1], None, signature),
        Announcement(RECORDS[0], other, signature),
        Announcement(RECORDS[0], None, bytes(64)),
        Announcement(RECORDS[0], None, None),
        Announcement(None, None, signature),
    ):
        assert not is_announcement_signed(command, TARGET, STORING_ID, TOKEN, changed)


def test_nothing_to_sign_without_a_record() -> None:
    with pytest.raises(ValueError, match="nothing to sign"):
        sign_announcement(
            Command.ANNOUNCE, TARGET, STORING_ID, TOKEN, Announcement(refresh=bytes(32)), KEY_PAIR
        )


def test_a_refresh_travels_alone() -> None:
    announcement = Announcement(refresh=b"\x07" * 32)
    assert announcement.encode() == b"\x02" + b"\x07" * 32
    assert announcement.encode().hex() == PAYLOADS["refreshOnly"]


@pytest.mark.parametrize("vector", PAYLOADS["lookups"])
def test_lookup_answers_are_those_of_the_original(vector: dict[str, Any]) -> None:
    answer = LookupAnswer(RECORDS, vector["bump"])
    assert answer.encode().hex() == vector["encoded"]
    assert LookupAnswer.decode(answer.encode()) == answer


def test_a_lookup_answer_of_an_older_node_has_no_bump() -> None:
    decoded = LookupAnswer.decode(bytes.fromhex(PAYLOADS["lookupOfOld"]))
    assert decoded == LookupAnswer(RECORDS)


@pytest.mark.parametrize("vector", PAYLOADS["mutables"], ids=lambda vector: vector["seq"])
def test_mutable_values_are_signed_as_the_original_signs_them(vector: dict[str, Any]) -> None:
    content = MutableValue.create(KEY_PAIR, bytes.fromhex(vector["value"]), vector["seq"])
    assert content.signature.hex() == vector["signature"]
    assert content.encode().hex() == vector["response"]
    assert content.is_signed_by(KEY_PAIR.public_key)
    put = MutablePut(KEY_PAIR.public_key, content)
    assert put.encode().hex() == vector["put"]
    assert MutablePut.decode(put.encode()) == put


def test_a_mutable_value_cannot_be_changed() -> None:
    content = MutableValue.create(KEY_PAIR, b"value", 3)
    other = KeyPair.from_seed(bytes(32)).public_key
    assert not content.is_signed_by(other)
    assert not MutableValue(4, b"value", content.signature).is_signed_by(KEY_PAIR.public_key)
    assert not MutableValue(3, b"other", content.signature).is_signed_by(KEY_PAIR.public_key)


def test_targets_are_hashes() -> None:
    assert peer_target(KEY_PAIR.public_key).hex() == PAYLOADS["peerTarget"]
    assert immutable_target(KEY_PAIR.public_key) == peer_target(KEY_PAIR.public_key)


@given(records | announcements | lookups | mutables | puts)
def test_any_payload_survives_the_wire(payload: Any) -> None:
    assert type(payload).decode(payload.encode()) == payload


@given(records | announcements | mutables | puts, st.data())
def test_a_payload_cut_anywhere_is_refused(payload: Any, data: st.DataObject) -> None:
    encoded = payload.encode()
    size = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        type(payload).decode(encoded[:size])


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_payload_or_refused(decode: Callable[[bytes], Any], data: bytes) -> None:
    try:
        payload = decode(data)
    except DecodeError:
        return
    assert decode(payload.encode()) == payload
