from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bee.btree import MAX_DEPTH
from bee.errors import NotABee, UnknownFormat
from bee.extension_messages import (
    MAX_SEQS,
    CacheHint,
    DiffRequest,
    ExtensionMessage,
    GetRequest,
    IteratorRequest,
    KeysRequest,
    decode_extension,
    is_hint,
)
from bee.messages import (
    Header,
    Metadata,
    NodeRecord,
    decode_brought,
    decode_key_value,
    decode_level,
    decode_record,
    encode_level,
    encode_record,
    has_key,
    is_deletion,
)
from bee.protobuf import encode_bytes_field, encode_packed, encode_varint
from bee.tree import decode_header
from hypercore.encoding import DecodeError, encode_buffer

T = TypeVar("T")

numbers = st.integers(0, 2**53 - 1)
texts = st.binary(max_size=300)
optional = st.one_of(st.none(), st.binary(max_size=10))


def test_worked_example() -> None:
    index = encode_level(encode_varint(1), b"")
    assert index.hex() == "0a030a0101"
    assert encode_record(index, b"a", b"b").hex() == "0a050a030a01011201611a0162"


@given(texts, texts, st.one_of(st.none(), texts))
def test_records_come_back(index: bytes, key: bytes, value: bytes | None) -> None:
    block = encode_record(index, key, value)
    assert decode_record(block) == NodeRecord(index, key, value)
    # The order of fields, and unknown ones, do not matter.
    parts = [encode_bytes_field(9, b"new"), encode_bytes_field(2, key)]
    if value is not None:
        parts.append(encode_bytes_field(3, value))
    parts.append(encode_bytes_field(1, index))
    assert decode_record(b"".join(parts)) == NodeRecord(index, key, value)


@given(st.lists(st.tuples(st.lists(numbers, max_size=9), st.lists(st.tuples(numbers, numbers)))))
def test_levels_come_back(levels: list[tuple[list[int], list[tuple[int, int]]]]) -> None:
    index = b"".join(
        encode_level(encode_packed(keys), encode_packed(n for pair in children for n in pair))
        for keys, children in levels
    )
    for offset, (keys, children) in enumerate(levels):
        level = decode_level(index, offset)
        assert level.keys == [encode_varint(seq) for seq in keys]
        assert level.children == [encode_packed(pair) for pair in children]
    with pytest.raises(DecodeError):
        decode_level(index, len(levels))
    for seq in (0, 7, *(seq for keys, _ in levels for seq in keys)):
        assert has_key(index, seq) == any(seq in keys for keys, _ in levels)


def test_a_key_in_the_last_of_many_levels() -> None:
    index = encode_level(b"\1", b"") * 1_500 + encode_level(b"\2", b"")
    assert has_key(index, 2)
    assert not has_key(index, 3)


def test_deletions_are_told_from_puts_of_none() -> None:
    index = encode_level(encode_packed([4, 5]), b"")
    assert is_deletion(NodeRecord(index, b"k", None), 6)
    assert not is_deletion(NodeRecord(index, b"k", None), 5)
    assert not is_deletion(NodeRecord(index, b"k", b""), 6)


@given(optional, optional)
def test_headers_come_back(content_feed: bytes | None, user_data: bytes | None) -> None:
    for metadata in (None, Metadata(content_feed, user_data)):
        header = Header(metadata=metadata)
        assert Header.decode(header.encode()) == header
        assert decode_header(header.encode()) == header


@pytest.mark.parametrize("block", [b"", b"hello", b"\x0a\x02\xff\xff", Header("other").encode()])
def test_what_is_not_a_bee(block: bytes) -> None:
    with pytest.raises(NotABee):
        decode_header(block)


def test_a_bee_of_another_format() -> None:
    with pytest.raises(UnknownFormat) as raised:
        decode_header(Header("hyperbee2").encode())
    assert raised.value.version == "hyperbee2"


iterators = st.builds(
    IteratorRequest,
    numbers,
    optional,
    optional,
    optional,
    optional,
    numbers,
    st.booleans(),
    st.lists(numbers, max_size=30).map(tuple),
    numbers,
)
extension_messages: st.SearchStrategy[ExtensionMessage] = st.one_of(
    st.builds(CacheHint, st.lists(numbers, max_size=200).map(tuple), st.booleans(), numbers),
    st.builds(GetRequest, numbers, texts, numbers, numbers),
    st.builds(KeysRequest, numbers, st.lists(texts, max_size=20).map(tuple), numbers, numbers),
    st.builds(DiffRequest, numbers, iterators, numbers),
    iterators,
)


@given(extension_messages)
def test_extension_messages_come_back(message: ExtensionMessage) -> None:
    assert list(decode_extension(message.encode())) == [message]


@given(st.binary(), st.integers(0, 3))
def test_any_bytes_give_values_or_a_decode_error(data: bytes, offset: int) -> None:
    for decode in (
        lambda: decode_record(data),
        lambda: decode_level(data, offset),
        lambda: has_key(data, offset),
        lambda: Header.decode(data),
        lambda: decode_extension(data),
    ):
        with contextlib.suppress(DecodeError):
            decode()


def test_of_lists_without_end_the_start_is_read() -> None:
    """A hint, and a request with an iteration under way, as long as a message can be."""
    (hint,) = decode_extension(CacheHint((7,) * 1_000_000).encode())
    assert hint == CacheHint((7,) * MAX_SEQS)
    (request,) = decode_extension(IteratorRequest(9, checkpoint=(5, 0, 1) * 300_000).encode())
    assert request == IteratorRequest(9, checkpoint=(5, 0, 1) * MAX_DEPTH)


@given(extension_messages, st.data())
def test_spoiled_messages_give_values_or_a_decode_error(
    message: ExtensionMessage, data: st.DataObject
) -> None:
    encoded = bytearray(message.encode())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        decode_extension(bytes(encoded))


levels = st.lists(
    st.tuples(
        st.lists(numbers, max_size=9), st.lists(st.tuples(numbers, st.integers(0, 9)), max_size=10)
    ),
    max_size=4,
)


def outcome(decode: Callable[[], T]) -> T | None:
    try:
        return decode()
    except DecodeError:
        return None


@given(levels, texts, st.one_of(st.none(), texts), st.integers(0, 4), st.data())
def test_what_is_decoded_of_a_block_in_one_go_is_what_its_parts_say(
    levels: list[tuple[list[int], list[tuple[int, int]]]],
    key: bytes,
    value: bytes | None,
    offset: int,
    data: st.DataObject,
) -> None:
    index = b"".join(
        encode_level(encode_packed(keys), encode_packed(n for pair in children for n in pair))
        for keys, children in levels
    )
    block = bytearray(encode_record(index, key, value))
    for _ in range(data.draw(st.integers(0, 2), "damage")):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(block[: data.draw(st.integers(len(block) - 2, len(block)))])

    def of_parts() -> tuple[bytes, list[bytes], list[bytes]]:
        record = decode_record(whole)
        level = decode_level(record.index, offset)
        return record.key, list(level.keys), list(level.children)

    record = outcome(lambda: decode_record(whole))
    expected = None if record is None else (record.key, record.value)
    assert outcome(lambda: decode_key_value(whole)) == expected
    assert outcome(lambda: decode_brought(whole, offset)) == outcome(of_parts)


@given(extension_messages)
def test_hints_are_told_from_requests_by_their_first_bytes(message: ExtensionMessage) -> None:
    payload = encode_buffer(message.encode())
    assert is_hint(payload) == isinstance(message, CacheHint)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x01", b"\xfd", b"\xfe\x0a", b"\xff\x0a"])
def test_what_is_cut_off_is_no_hint(payload: bytes) -> None:
    assert not is_hint(payload)
