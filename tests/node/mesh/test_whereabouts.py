from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.mesh.fields import pack_fields
from node.mesh.whereabouts import (
    MAX_ADDRESSES,
    MAX_ENTRIES,
    MAX_MESSAGE_BYTES,
    as_seen,
    decode,
    encode,
    split,
)

ANN, BOB = b"\x01" * 32, b"\x02" * 32


def test_they_come_back_as_they_were_said() -> None:
    said = {ANN: ("10.0.0.1:49737", "wss://ann.example/mesh"), BOB: ()}
    assert decode(encode(said)) == said
    many = {number.to_bytes(32, "big"): ("h:1",) for number in range(MAX_ENTRIES + 3)}
    parts = list(split(many))
    assert [len(part) for part in parts] == [MAX_ENTRIES, 3]
    assert {id: said for part in parts for id, said in decode(encode(part)).items()} == many


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pack_fields(5),
        pack_fields([[ANN[:31], []]]),
        pack_fields([[ANN, ["x" * 300]]]),
        pack_fields([[ANN, ["h:1"] * (MAX_ADDRESSES + 1)]]),
        pack_fields([[ANN, [b"h:1"]]]),
        pack_fields([[ANN, []]] * (MAX_ENTRIES + 1)),
        bytes(MAX_MESSAGE_BYTES + 1),
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_addresses_or_refused(data: bytes) -> None:
    with suppress(DecodeError):
        said = decode(data)
        assert decode(encode(said)) == said


@pytest.mark.parametrize(
    ("said", "host", "seen"),
    [
        (["10.1.2.3:5"], None, ["10.1.2.3:5"]),
        (["10.1.2.3:5"], "10.1.2.3", ["10.1.2.3:5"]),
        (["10.1.2.3:5"], "8.9.9.9", ["10.1.2.3:5", "8.9.9.9:5"]),
        (["127.0.0.1:5"], "127.0.0.1", ["127.0.0.1:5"]),
        (["127.0.0.1:5", "localhost:6"], None, []),
        (["10.1.2.3:5"], "127.0.0.1", ["10.1.2.3:5"]),
        (["[fe80::1]:5"], "fd00::2", ["[fe80::1]:5", "[fd00::2]:5"]),
        (["wss://a.example/m", "nonsense"], "8.9.9.9", ["wss://a.example/m", "nonsense"]),
    ],
)
def test_a_machine_is_dialed_where_it_is_seen_too(
    said: list[str], host: str | None, seen: list[str]
) -> None:
    assert as_seen(said, host) == tuple(seen)
