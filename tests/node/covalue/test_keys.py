from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.covalue.keys import (
    RowKey,
    RowKind,
    checkpoint_key,
    decode_key,
    decode_sync_key,
    header_key,
    id_key,
    run_key,
    session_key,
    session_runs_range,
    summary_range,
    sync_key,
    sync_range,
    value_range,
)
from tests.support.authors import Author, map_header

ANN = Author("ann")
ID = map_header("m").id
SESSION = ANN.session_id(as_agent=True)


def test_keys_read_back() -> None:
    assert decode_key(header_key(ID)) == RowKey(ID, RowKind.HEADER)
    assert decode_key(session_key(ID, SESSION)) == RowKey(ID, RowKind.SESSION, SESSION)
    assert decode_key(run_key(ID, SESSION, 7)) == RowKey(ID, RowKind.RUN, SESSION, 7)
    last = checkpoint_key(ID, SESSION, 10**10 - 1)
    assert decode_key(last) == RowKey(ID, RowKind.CHECKPOINT, SESSION, 10**10 - 1)
    assert run_key(ID, SESSION, 7) == f"{ID}:tx:{SESSION}:0000000007".encode()


def test_rows_of_a_value_sort_together_and_in_reading_order() -> None:
    rows = [
        header_key(ID),
        session_key(ID, SESSION),
        checkpoint_key(ID, SESSION, 9),
        run_key(ID, SESSION, 9),
        run_key(ID, SESSION, 10),
        run_key(ID, SESSION, 1000),
    ]
    assert rows == sorted(rows)
    start, stop = value_range(ID)
    assert all(start <= row < stop for row in rows)
    start, stop = summary_range(ID)
    assert [start <= row < stop for row in rows] == [True] * 3 + [False] * 3
    start, stop = session_runs_range(ID, SESSION)
    assert [start <= row < stop for row in rows] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"co_zX:header",
        ID.encode(),
        f"{ID}:".encode(),
        f"{ID}:header:x".encode(),
        f"{ID}:session".encode(),
        f"{ID}:tx:{SESSION}".encode(),
        f"{ID}:tx:{SESSION}:7".encode(),
        f"{ID}:tx:{SESSION}:000000000x".encode(),
        f"{ID}:tx:{SESSION}:+000000007".encode(),
        f"{ID}:tx:{SESSION}:0000000007:8".encode(),
        f"{ID}:sig:nobody:0000000007".encode(),
        f"{ID}:meta".encode(),
        f"{ID}:héader".encode(),
    ],
)
def test_other_keys_are_refused(key: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_key(key)


@given(st.binary() | st.text().map(lambda text: f"{ID}:{text}".encode("utf-8", "replace")))
def test_any_bytes_are_a_key_or_refused(key: bytes) -> None:
    try:
        row = decode_key(key)
    except DecodeError:
        return
    assert key.startswith(row.co_id.encode())


def test_a_peer_may_have_colons_in_its_id() -> None:
    key = sync_key(ID, "wss://cloud.example:4200")
    assert decode_sync_key(key) == (ID, "wss://cloud.example:4200")
    start, stop = sync_range(ID)
    assert start <= key < stop
    start, stop = sync_range()
    assert start <= key < stop
    assert not start <= id_key(ID) < stop
    for bad in (b"", b"sync:", b"sync:x:y", b"\xff:\xff:\xff"):
        with pytest.raises(DecodeError):
            decode_sync_key(bad)
