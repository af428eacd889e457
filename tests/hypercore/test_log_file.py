"""A turned bit of RocksDB's log files is found wherever it is, and a torn end is none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore import Durability, open_corestore
from hypercore.storage.log_file import (
    BLOCK_BYTES,
    crc32c,
    may_lack,
    records,
    turned_bit,
)


def test_the_check_value_of_the_crc() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, and every catalogue of CRCs


@pytest.fixture(scope="module")
def log_data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A write-ahead log as RocksDB wrote it: small writes, and some of several blocks."""
    import trio

    path = tmp_path_factory.mktemp("store")

    async def write() -> bytes:
        async with open_corestore(path, durability=Durability.OS) as store:
            core = await store.get(name="log")
            for index in range(6):
                await core.append([b"%d" % index, bytes(40_000) if index == 3 else b"small"])
            (log,) = (path / "db").glob("*.log")
            return log.read_bytes()

    return trio.run(write)


def test_records_cover_the_file(log_data: bytes) -> None:
    found = list(records(log_data))
    assert found[0].start == 0
    assert found[-1].stop == len(log_data)
    for one, next_one in pairwise(found):
        assert one.stop == next_one.start or next_one.start % BLOCK_BYTES == 0
    assert {record.type for record in found} >= {1, 2, 4}
    sequences = [record.last_sequence for record in found if record.last_sequence]
    assert sequences == sorted(sequences)
    assert not may_lack(log_data, sequences[-1])
    assert may_lack(log_data, sequences[-1] - 1)
    assert turned_bit(log_data) is None


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_turned_bit_is_found(log_data: bytes, draw: st.DataObject) -> None:
    offset = draw.draw(st.integers(0, len(log_data) - 1))
    bit = draw.draw(st.integers(0, 7))
    damaged = bytearray(log_data)
    damaged[offset] ^= 1 << bit
    found = turned_bit(bytes(damaged))
    last = max(record.last_sequence for record in records(log_data))
    # What RocksDB recovers ends before the damage.
    good = max((r.last_sequence for r in records(log_data) if r.stop <= offset), default=0)
    assert may_lack(bytes(damaged), good if found else last) == (found is not None)
    if found is None:  # in the zeros at the end of a block, which nobody reads
        assert BLOCK_BYTES - offset % BLOCK_BYTES < 7
    else:
        assert (found.offset, found.bit) == (offset, bit)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_torn_end_is_no_turned_bit(log_data: bytes, draw: st.DataObject) -> None:
    stop = draw.draw(st.integers(0, len(log_data) - 1))
    assert turned_bit(log_data[:stop]) is None
    assert turned_bit(log_data[:stop] + bytes(len(log_data) - stop)) is None or (
        log_data[stop:].count(0) >= len(log_data) - stop - 1  # that made one bit of a difference
    )
