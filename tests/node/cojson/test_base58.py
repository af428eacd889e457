from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.cojson.base58 import base58_decode, base58_encode
from node.cojson.crypto import RunningHash
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
