from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bee.protobuf import (
    decode_bytes,
    decode_fields,
    decode_packed,
    decode_varint,
    encode_bytes_field,
    encode_packed,
    encode_varint,
    encode_varint_field,
    split_varint_pairs,
    split_varints,
)
from hypercore.encoding import DecodeError

numbers = st.integers(0, 2**53 - 1)


def test_worked_examples() -> None:
    assert encode_varint(300).hex() == "ac02"
    assert encode_bytes_field(2, b"hi").hex() == "12026869"
    assert list(decode_fields(bytes.fromhex("12026869"))) == [(2, b"hi")]


@given(numbers, st.binary(max_size=5), st.binary(max_size=5))
def test_varints_come_back(number: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(number)
    stop = len(before) + len(encoded)
    assert decode_varint(before + encoded + after, len(before)) == (number, stop)
    for cut in range(len(encoded)):
        with pytest.raises(DecodeError):
            decode_varint(encoded[:cut], 0)


@given(st.lists(numbers))
def test_packed_lists_come_back_whole_and_split(values: list[int]) -> None:
    packed = encode_packed(values)
    assert decode_packed(packed) == values
    assert split_varints(packed) == [encode_varint(value) for value in values]


@given(st.lists(st.tuples(numbers, numbers)))
def test_pairs_come_back(pairs: list[tuple[int, int]]) -> None:
    packed = encode_packed(number for pair in pairs for number in pair)
    assert split_varint_pairs(packed) == [encode_packed(pair) for pair in pairs]
    with pytest.raises(DecodeError):
        split_varint_pairs(packed + b"\x01")


def test_split_varints_are_canonical() -> None:
    # 5 and 300, each with more bytes than it needs.
    assert split_varints(bytes.fromhex("8500ac8200")) == [b"\x05", bytes.fromhex("ac02")]
    assert split_varint_pairs(bytes.fromhex("850001")) == [b"\x05\x01"]


@pytest.mark.parametrize("packed", ["80", "01ff", "ffffffffffffffffff01", "80" * 100_000 + "01"])
def test_packed_lists_that_are_none(packed: str) -> None:
    with pytest.raises(DecodeError):
        split_varints(bytes.fromhex(packed))
    with pytest.raises(DecodeError):
        decode_packed(bytes.fromhex(packed))


@given(st.lists(st.tuples(st.integers(1, 40), st.one_of(numbers, st.binary(max_size=20)))))
def test_fields_come_back(fields: list[tuple[int, int | bytes]]) -> None:
    encoded = b"".join(
        encode_varint_field(number, value)
        if isinstance(value, int)
        else encode_bytes_field(number, value)
        for number, value in fields
    )
    assert list(decode_fields(encoded)) == fields


def test_fixed_fields_are_skipped_over() -> None:
    eight, four = b"\x09" + bytes(8), b"\x0d" + bytes(4)
    assert [number for number, _ in decode_fields(eight + four + b"\x08\x07")] == [1, 1, 1]


@pytest.mark.parametrize("encoded", ["0b", "0c", "0f", "09000000", "0a05aa", "08", "0a"])
def test_fields_that_are_none(encoded: str) -> None:
    with pytest.raises(DecodeError):
        list(decode_fields(bytes.fromhex(encoded)))


def test_a_message_of_countless_fields_is_refused() -> None:
    with pytest.raises(DecodeError):
        list(decode_fields(b"\x08\x01" * 1_001))


@given(st.binary())
def test_any_bytes_give_values_or_a_decode_error(data: bytes) -> None:
    for decode in (
        lambda: decode_varint(data, 0),
        lambda: decode_bytes(data, 0),
        lambda: list(decode_fields(data)),
        lambda: decode_packed(data),
        lambda: split_varints(data),
        lambda: split_varint_pairs(data),
    ):
        with contextlib.suppress(DecodeError):
            decode()
