"""Compact encoding: JS vectors, round trips, and any bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import (
    MAX_ARRAY_ITEMS,
    MAX_UINT,
    DecodeError,
    Reader,
    encode_array,
    encode_buffer,
    encode_optional_buffer,
    encode_signed,
    encode_string,
    encode_uint,
    encode_uint32_array,
    encode_uint64,
)

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hypercore" / "primitives.json").read_text()
)

READS: list[Callable[[Reader], object]] = [
    Reader.uint,
    Reader.signed,
    Reader.fixed32,
    Reader.fixed64,
    Reader.uint8,
    Reader.uint16,
    Reader.uint24,
    Reader.uint32,
    Reader.uint64,
    Reader.buffer,
    Reader.optional_buffer,
    Reader.string,
    Reader.flag,
    Reader.rest,
    Reader.uint32_array,
    lambda reader: reader.array(Reader.uint),
    lambda reader: reader.array(Reader.buffer),
]


def test_integers_are_those_of_js() -> None:
    for vector in VECTORS["uint"]:
        assert encode_uint(vector["v"]).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).uint() == vector["v"]
    for vector in VECTORS["int"]:
        assert encode_signed(vector["v"]).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).signed() == vector["v"]


def test_buffers_and_arrays_are_those_of_js() -> None:
    for vector in VECTORS["string"]:
        assert encode_string(vector["v"]).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).string() == vector["v"]
    for vector in VECTORS["buffer"]:
        data = bytes([7]) * vector["len"]
        assert encode_buffer(data).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).buffer() == data
    for vector in VECTORS["optionalBuffer"]:
        optional = None if vector["len"] is None else bytes([7]) * vector["len"]
        assert encode_optional_buffer(optional).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).optional_buffer() == optional
    for vector in VECTORS["array"]:
        assert encode_array(map(encode_uint, vector["v"])).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).array(Reader.uint) == vector["v"]
    for vector in VECTORS["uint32array"]:
        words = b"".join(word.to_bytes(4, "little") for word in vector["v"])
        assert encode_uint32_array(words).hex() == vector["hex"]
        assert Reader(bytes.fromhex(vector["hex"])).uint32_array() == words


def test_integers_need_not_be_minimal_but_fit_a_double() -> None:
    assert Reader(bytes.fromhex("fd0100")).uint() == 1
    assert Reader(bytes.fromhex("ff0100000000000000")).uint() == 1
    assert Reader(b"\xff" + MAX_UINT.to_bytes(8, "little")).uint() == MAX_UINT
    with pytest.raises(DecodeError):
        Reader(b"\xff" + (MAX_UINT + 1).to_bytes(8, "little")).uint()


def test_an_empty_buffer_reads_as_none() -> None:
    assert encode_optional_buffer(b"") == encode_optional_buffer(None)
    assert Reader(b"\x00").optional_buffer() is None


def test_only_one_is_true() -> None:
    assert [Reader(bytes([byte])).flag() for byte in (0, 1, 2, 255)] == [False, True, False, False]


def test_a_long_array_is_refused_before_it_is_read() -> None:
    with pytest.raises(DecodeError, match="array of"):
        Reader(encode_uint(MAX_ARRAY_ITEMS + 1) + bytes(8)).array(Reader.uint)


def test_a_reader_stops_where_it_is_told() -> None:
    reader = Reader(b"abcdef", 1, 4)
    assert reader.remaining == 3
    assert reader.fixed(2) == b"bc"
    assert reader.rest() == b"d"
    assert reader.remaining == 0
    with pytest.raises(DecodeError) as caught:
        reader.uint()
    assert caught.value.offset == 4


@given(st.integers(0, MAX_UINT))
def test_uint_round_trip(value: int) -> None:
    reader = Reader(encode_uint(value) + b"x")
    assert reader.uint() == value
    assert reader.rest() == b"x"
    assert Reader(encode_uint64(value)).uint64() == value


@given(st.integers(-(2**52), 2**52 - 1))
def test_signed_round_trip(value: int) -> None:
    assert Reader(encode_signed(value)).signed() == value


@given(st.lists(st.binary()), st.text())
def test_arrays_and_text_round_trip(items: list[bytes], text: str) -> None:
    reader = Reader(encode_array(map(encode_buffer, items)) + encode_string(text))
    assert reader.array(Reader.buffer) == items
    assert reader.string() == text
    assert reader.remaining == 0


@given(st.sampled_from(READS), st.binary(), st.integers(0, 4))
def test_any_bytes_give_a_value_or_a_decode_error(
    read: Callable[[Reader], object], data: bytes, offset: int
) -> None:
    reader = Reader(data, min(offset, len(data)))
    with contextlib.suppress(DecodeError):
        read(reader)
    assert 0 <= reader.offset <= len(data)


@given(
    st.lists(st.binary(max_size=300), max_size=3), st.text(max_size=80), st.integers(0, MAX_UINT)
)
def test_every_prefix_is_refused(items: list[bytes], text: str, value: int) -> None:
    data = encode_array(map(encode_buffer, items)) + encode_string(text) + encode_uint(value)
    for stop in range(len(data)):
        reader = Reader(data, 0, stop)
        with pytest.raises(DecodeError):
            (reader.array(Reader.buffer), reader.string(), reader.uint())


@given(st.integers(MAX_UINT + 1, 2**64 - 1))
def test_eight_bytes_that_the_originals_do_not_read_are_refused(value: int) -> None:
    with pytest.raises(DecodeError, match="above"):
        Reader(encode_uint64(value)).uint64()
