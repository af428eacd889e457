"""Sessions that grow by single edits: few rows, whatever the order of commits and restarts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from bee.bee import Bee
from hypercore.encoding import DecodeError
from node.covalue.bee_store import BeeStore
from node.covalue.content import PIECE_BYTES, Content, Transaction
from node.covalue.ids import CoSessionId
from node.covalue.keys import header_key, run_key, session_key, summary_range, value_range
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.pieces import ValueReader
from node.covalue.reading import read_covalue
from node.covalue.records import (
    decode_run,
    encode_header,
    encode_run,
    encode_session,
    frame_run,
    pack_transactions,
    unframe_run,
)
from node.covalue.store import SessionAppend, ValueAppend
from node.covalue.tails import (
    NOTHING_YET,
    RUN_BYTES,
    TAIL_BYTES,
    EndCache,
    SessionEnd,
    Stretch,
    fits_row,
    join_run,
    pack_stretches,
)
from node.errors import CorruptStore
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.stores import Appender, joined, load_all

ANN = Author("ann")
HEADER = map_header("m")
ID = HEADER.id
SESSION = ANN.session_id(as_agent=True)


def _content(transactions: Sequence[Transaction], after: int) -> Content:
    return ANN.content(HEADER, transactions, after=after, as_agent=True, with_header=after == 0)


def _row(session_id: CoSessionId, after: int, transactions: Sequence[Transaction]) -> ValueAppend:
    """What a session is appended; its signature is nobody's business here."""
    header = HEADER if after == 0 and session_id == SESSION else None
    part = SessionAppend(after, transactions, bytes(64), 10, is_checkpoint=False)
    return ValueAppend(ID, header, {session_id: part})


async def _store_singly(store: BeeStore, transactions: Sequence[Transaction], start: int) -> None:
    for index in range(start, len(transactions)):
        await store.store([_row(SESSION, index, transactions[index : index + 1])])


async def test_single_edits_are_few_rows_and_one_block_each() -> None:
    log = DataLog()
    bee = Bee(log)
    transactions = [Transaction(1000 + n, "x" * 136) for n in range(1000)]  # 200 bytes each
    await _store_singly(BeeStore(bee, log), transactions, 0)
    start, stop = value_range(ID)
    rows = [entry.key async for entry in bee.range(gte=start, lt=stop)]
    assert len(rows) < 120
    assert log.length < 1400
    assert joined(await read_covalue(bee.snapshot(), ID)) == {SESSION: transactions}


@given(
    sizes=st.lists(
        st.integers(1, 400) | st.sampled_from([TAIL_BYTES, RUN_BYTES, 30_000, PIECE_BYTES]),
        min_size=1,
        max_size=30,
    ),
    commits=st.lists(st.integers(1, 5), min_size=30, max_size=30),
    restarts=st.sets(st.integers(0, 29)),
    have=st.integers(0, 30),
    max_bytes=st.sampled_from([1, 300, 5000, None]),
)
@settings(max_examples=60)
def test_any_way_of_growing_reads_back_from_any_state(
    sizes: list[int],
    commits: list[int],
    restarts: set[int],
    have: int,
    max_bytes: int | None,
) -> None:
    transactions = [Transaction(n, "x" * size) for n, size in enumerate(sizes)]

    async def run() -> None:
        log = DataLog()
        store = BeeStore(Bee(log), log)
        appender = Appender()
        stored = 0
        for number, count in enumerate(commits):
            if number in restarts:
                store = BeeStore(Bee(log), log)
            stops = range(stored + 1, min(stored + count, len(transactions)) + 1)
            await appender.put(
                store, *(_content(transactions[:stop], after=stop - 1) for stop in stops)
            )
            stored = min(stored + count, len(transactions))
            known = min(have, stored)
            state = KnownState(True, {SESSION: known}) if known else NOTHING
            found = joined(await load_all(store, ID, state, max_bytes))
            assert found.get(SESSION, []) == transactions[known:stored]

    trio.run(run)


async def test_who_follows_reads_most_edits_with_the_summary() -> None:
    log = DataLog()
    bee = Bee(log)
    store = BeeStore(bee, log)
    transactions = edits(300)
    needed_runs = 0
    for index in range(300):
        await store.store([_row(SESSION, index, transactions[index : index + 1])])
        reader = ValueReader(ID, KnownState(index > 0, {SESSION: index} if index else {}))
        start, stop = summary_range(ID)
        async for entry in bee.range(gte=start, lt=stop):
            reader.receive(entry.key, entry.value or b"")
        if reader.wanted_runs:
            needed_runs += 1
        else:
            assert joined(reader.finish()[0]) == {SESSION: transactions[index : index + 1]}
    assert 0 < needed_runs < 100


async def test_rows_without_a_tail_are_continued() -> None:
    """As they were written before there were tails: every edit a run."""
    log = DataLog()
    bee = Bee(log)
    transactions = edits(60)
    await _store_singly(BeeStore(bee, log), transactions[:1], 0)
    await bee.put(session_key(ID, SESSION), encode_session(5, bytes(64), 10))
    for index, transaction in enumerate(transactions[:5]):
        await bee.put(run_key(ID, SESSION, index), encode_run([transaction]))
    await _store_singly(BeeStore(bee, log), transactions, 5)
    for known in range(60):
        state = KnownState(True, {SESSION: known}) if known else NOTHING
        found = joined(await read_covalue(bee.snapshot(), ID, state))
        assert found == {SESSION: transactions[known:]}


async def test_sessions_whose_ids_begin_alike_are_told_apart() -> None:
    """Their rows sort otherwise than their ids do: `:` is above digits, below letters."""
    log = DataLog()
    bee = Bee(log)
    store = BeeStore(bee, log)
    expected = {}
    for ending in ("", "1", "1A", "A", "2"):
        session_id = CoSessionId(SESSION + ending)
        count = 100 if ending in ("1", "A") else 2
        expected[session_id] = edits(count)
        await store.store([_row(session_id, 0, expected[session_id])])
    for max_bytes in (1, 1000, None):
        assert joined(await load_all(store, ID, NOTHING, max_bytes)) == expected
    known = KnownState(True, dict.fromkeys(expected, 1))
    found = joined((await store.load(ID, known)).pieces)
    assert found == {session_id: rest[1:] for session_id, rest in expected.items()}


async def test_many_short_sessions_come_in_pieces_as_large_as_asked_for() -> None:
    log = DataLog()
    store = BeeStore(Bee(log), log)
    transactions = [Transaction(5, "x" * 300)]
    sessions = [CoSessionId(f"{SESSION}{letter}") for letter in ["", *"ABCDEFGH"]]
    for session_id in sessions:
        await store.store([_row(session_id, 0, transactions)])
    loaded = await store.load(ID, NOTHING, 600)
    assert not loaded.is_complete
    assert list(joined(loaded.pieces)) == sessions[:2]
    assert joined(await load_all(store, ID, NOTHING, 600)) == dict.fromkeys(sessions, transactions)


async def test_what_was_not_stored_is_not_remembered() -> None:
    log = DataLog()
    store = BeeStore(Bee(log), log)
    transactions = edits(4)
    await _store_singly(store, transactions[:2], 0)
    log.durable = trio.Event()
    with trio.move_on_after(0):
        await store.store([_row(SESSION, 2, transactions[2:3])])
    log.durable.set()
    loaded = joined((await store.load(ID)).pieces)[SESSION]
    await store.store([_row(SESSION, len(loaded), transactions[len(loaded) :])])
    assert joined((await store.load(ID)).pieces) == {SESSION: transactions}


async def test_an_append_that_does_not_continue_its_session_is_refused() -> None:
    log = DataLog()
    store = BeeStore(Bee(log), log)
    await _store_singly(store, edits(2), 0)
    blocks = log.length
    with pytest.raises(CorruptStore, match="2 are stored where 3 should be"):
        await store.store([_row(SESSION, 3, edits(1))])
    assert log.length == blocks


async def test_a_tail_that_lies_is_refused() -> None:
    bee = Bee(DataLog())
    await bee.put(header_key(ID), encode_header(HEADER))
    await bee.put(session_key(ID, SESSION), encode_session(1, bytes(64), 10, encode_run(edits(2))))
    store = BeeStore(bee, DataLog())
    with pytest.raises(DecodeError, match="stored session"):
        await read_covalue(bee.snapshot(), ID)
    assert not (await store.load(ID)).pieces


def test_long_transactions_become_several_runs() -> None:
    transactions = [Transaction(n, "x" * 40_000) for n in range(5)]
    stretches = pack_stretches(7, transactions)
    assert [stretch.start for stretch in stretches] == [7, 9, 11]
    assert [item for stretch in stretches for item in decode_run(stretch.record)] == transactions
    assert not any(map(fits_row, stretches))


def test_a_run_takes_in_what_follows_it_and_nothing_else() -> None:
    (before,) = pack_stretches(3, edits(2))
    (tail,) = pack_stretches(5, edits(3))
    joined_run = join_run(before, tail)
    assert (joined_run.start, joined_run.stop) == (3, 8)
    assert decode_run(joined_run.record) == [*edits(2), *edits(3)]
    assert join_run(pack_stretches(2, edits(2))[0], tail) == tail
    assert join_run(NOTHING_YET, tail) == tail
    (long,) = pack_stretches(5, [Transaction(1, "x" * RUN_BYTES)])
    assert join_run(before, long) == long


@pytest.mark.parametrize("count", [1, 15, 16, 17, 65_535, 65_536])
def test_runs_of_any_length_are_framed_as_msgpack_does(count: int) -> None:
    transactions = [Transaction(5, "[]")] * count
    packed = b"".join(pack_transactions(transactions))
    assert frame_run(count, packed) == encode_run(transactions)
    assert unframe_run(encode_run(transactions)) == (count, packed)


@pytest.mark.parametrize("record", [b"", b"\xc0", b"\xdc\x00", b"\xdd\x00\x00\x00", b"\x80"])
def test_what_is_no_run_is_not_unframed(record: bytes) -> None:
    with pytest.raises(DecodeError):
        unframe_run(record)


def test_the_cache_stays_within_its_bytes() -> None:
    cache = EndCache(max_bytes=20_000)
    sessions = [CoSessionId(f"{SESSION}{number}") for number in range(100)]
    (tail,) = pack_stretches(0, edits(3))
    end = SessionEnd(None, tail)
    for session_id in sessions:
        cache.keep(ID, session_id, end)
    kept = [session_id for session_id in sessions if cache.take(ID, session_id) == end]
    assert kept == sessions[-len(kept) :]
    assert 3 <= len(kept) <= 20_000 // len(tail.packed)


def test_the_cache_does_not_keep_long_runs() -> None:
    cache = EndCache(max_bytes=5_000)
    (run,) = pack_stretches(0, [Transaction(1, "x" * 10_000)])
    cache.keep(ID, SESSION, SessionEnd(run, Stretch(run.stop)))
    assert cache.take(ID, SESSION) == SessionEnd(Stretch(0), Stretch(1))
