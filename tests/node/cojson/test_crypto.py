from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.cojson.crypto import (
    RunningHash,
    base58_decode,
    base58_encode,
    decode_signature,
    encode_signature,
    hash_text,
    verify_session,
)
from node.covalue.ids import agent_public_key
from tests.support.authors import Author
from tests.support.cojson_vectors import vectors


@pytest.mark.parametrize("case", vectors()["blake3"], ids=lambda case: case["utf8"][:10] or "empty")
def test_hashes_and_base58(case: dict[str, Any]) -> None:
    digest = RunningHash(case["utf8"].encode()).digest()
    assert base58_encode(digest) == case["base58"]
    assert base58_decode(case["base58"]) == digest


@given(st.binary(max_size=93))
def test_base58_reads_back(data: bytes) -> None:
    assert base58_decode(base58_encode(data)) == data


@given(st.binary(max_size=93) | st.integers(0, 93).map(lambda size: b"\xff" * size))
def test_base58_is_a_number_of_base_58(data: bytes) -> None:
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = letters[digit] + text
    zeros = len(data) - len(data.lstrip(b"\0"))
    assert base58_encode(data) == "1" * zeros + text


def test_more_is_not_written_in_base58() -> None:
    with pytest.raises(ValueError, match="94 bytes"):
        base58_encode(bytes(94))


@pytest.mark.parametrize(
    "text", ["0", "O", "I", "l", "1 1", "é", "\ud800", "abcdefghijk0", "0abcdefghijk", "z" * 129]
)
def test_other_letters_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        base58_decode(text)


def test_the_worked_example() -> None:
    assert base58_encode(b"\x00\x01") == "12"


@given(st.binary(min_size=64, max_size=64))
def test_signatures_read_back(signature: bytes) -> None:
    assert decode_signature(encode_signature(signature)) == signature


@given(st.text() | st.text("123ABCxyz", max_size=120).map(lambda text: "signature_z" + text))
def test_any_text_is_a_signature_or_refused(text: str) -> None:
    try:
        assert len(decode_signature(text)) == 64
    except DecodeError:
        return


def test_a_signature_is_bound_to_hash_and_key() -> None:
    ann, bob = Author("ann"), Author("bob")
    signature = ann.sign([])
    assert verify_session(RunningHash(), signature, agent_public_key(ann.agent_id))
    assert not verify_session(RunningHash(), signature, agent_public_key(bob.agent_id))
    assert not verify_session(RunningHash(b"x"), signature, agent_public_key(ann.agent_id))
    assert not verify_session(RunningHash(), bytes(64), agent_public_key(ann.agent_id))
    assert hash_text(RunningHash()).startswith("hash_z")
