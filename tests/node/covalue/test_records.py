from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.covalue.content import Transaction
from node.covalue.records import (
    decode_checkpoint,
    decode_count,
    decode_header,
    decode_run,
    decode_session,
    encode_checkpoint,
    encode_count,
    encode_header,
    encode_run,
    encode_session,
)
from node.covalue.store import StoredSession
from tests.support.cojson_vectors import VALUES, pieces

DECODERS: list[Callable[[bytes], object]] = [
    decode_header,
    decode_session,
    decode_run,
    decode_checkpoint,
    decode_count,
]

transactions = st.builds(
    Transaction,
    st.integers(0, 2**64 - 1),
    st.text(),
    st.none() | st.text(),
    st.none() | st.text(),
)
packable = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
    | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(st.lists(transactions, min_size=1))
def test_runs_read_back(run: list[Transaction]) -> None:
    assert decode_run(encode_run(run)) == run


def test_the_worked_example() -> None:
    assert encode_run([Transaction(5, "[]")]) == bytes.fromhex("919405a25b5dc0c0")


@pytest.mark.parametrize("name", VALUES)
def test_recorded_headers_read_back_with_their_ids(name: str) -> None:
    header = pieces(name)[0].header
    assert header is not None
    assert decode_header(encode_header(header)) == header
    assert decode_header(encode_header(header)).canonical == header.canonical


@given(st.integers(0, 2**53), st.binary(min_size=64, max_size=64), st.integers(0, 2**53))
def test_sessions_checkpoints_and_counts_read_back(
    count: int, signature: bytes, since: int
) -> None:
    stored = StoredSession(count, signature, since)
    assert decode_session(encode_session(count, signature, since)) == (stored, [])
    assert decode_checkpoint(encode_checkpoint(signature)) == signature
    assert decode_count(encode_count(count)) == count


def test_further_fields_are_ignored() -> None:
    assert decode_run(msgpack.packb([[5, "[]", None, None, "new"]])) == [Transaction(5, "[]")]
    assert decode_session(msgpack.packb([1, bytes(64), 2, [], {}])) == (
        StoredSession(1, bytes(64), 2),
        [],
    )


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary())
def test_any_bytes_are_a_record_or_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except DecodeError:
        return


@pytest.mark.parametrize("decode", DECODERS)
@given(packable)
def test_any_msgpack_is_a_record_or_refused(
    decode: Callable[[bytes], object], value: object
) -> None:
    try:
        decode(msgpack.packb(value))
    except DecodeError:
        return


@pytest.mark.parametrize("decode", DECODERS)
def test_deep_nesting_is_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(DecodeError):
        decode(b"\x91" * 100_000 + b"\xc0")
