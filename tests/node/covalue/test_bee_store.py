from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bee.bee import Bee
from hypercore.encoding import DecodeError
from node.covalue.bee_store import BeeStore
from node.covalue.content import PIECE_BYTES, Content, SessionContent, Transaction
from node.covalue.ids import CoSessionId, RawCoId, agent_public_key
from node.covalue.keys import checkpoint_key, header_key, run_key, session_key
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.pieces import ValueReader
from node.covalue.reading import read_covalue, read_known_state
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.records import encode_checkpoint, encode_header, encode_run, encode_session
from node.covalue.session_fork import SessionFork
from node.covalue.session_log import SessionLog
from node.covalue.store import SessionAppend, ValueAppend
from node.errors import CorruptStore
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.cojson_vectors import VALUES, account_keys, pieces
from tests.support.data_log import DataLog

ANN, BOB = Author("ann"), Author("bob")
HEADER = map_header("m")
ID = HEADER.id


class Writer:
    """Appends as the engine does: verified logs, one append a message."""

    def __init__(self) -> None:
        self.log = DataLog()
        self.bee = Bee(self.log)
        self.store = BeeStore(self.bee, self.log)
        self._logs: dict[tuple[RawCoId, CoSessionId], SessionLog] = {}

    def append(self, content: Content, keys: dict[str, bytes] | None = None) -> ValueAppend:
        sessions = {}
        for session_id, part in content.new.items():
            owner = session_id.partition("_session")[0]
            key = (keys or {}).get(owner) or agent_public_key(owner)
            log = self._logs.get((content.co_id, session_id), SessionLog())
            log = log.extended(part.transactions, part.signature, key)
            self._logs[content.co_id, session_id] = log
            sessions[session_id] = SessionAppend(
                part.after,
                part.transactions,
                part.signature,
                log.bytes_since_checkpoint,
                log.is_checkpoint,
            )
        return ValueAppend(content.co_id, content.header, sessions)

    async def put(self, *contents: Content) -> None:
        await self.store.store([self.append(content) for content in contents])


def _content(
    transactions: Sequence[Transaction], after: int = 0, session: str = "a", author: Author = ANN
) -> Content:
    return author.content(
        HEADER,
        transactions,
        after=after,
        session=session,
        as_agent=True,
        with_header=after == 0 and session == "a",
    )


def _transactions(contents: Sequence[Content]) -> dict[CoSessionId, list[Transaction]]:
    """What the pieces bring, each session in order and without a gap."""
    found: dict[CoSessionId, list[Transaction]] = {}
    first: dict[CoSessionId, int] = {}
    for content in contents:
        for session_id, part in content.new.items():
            start = first.setdefault(session_id, part.after)
            assert part.after == start + len(found.setdefault(session_id, []))
            found[session_id] += part.transactions
    return found


async def _load_all(store: BeeStore, known: KnownState, max_bytes: int) -> list[Content]:
    """As a client is served: a few pieces at a time, each from where the last one ended."""
    contents: list[Content] = []
    while True:
        loaded = await store.load(ID, known, max_bytes)
        contents += loaded.pieces
        for piece in loaded.pieces:
            known = known.merged(piece.known_state)
        if loaded.is_complete:
            return contents
        assert loaded.pieces


async def test_a_value_reads_back_as_one_piece() -> None:
    writer = Writer()
    content = _content(edits(3))
    await writer.put(content)
    loaded = await writer.store.load(ID)
    assert loaded.is_complete
    assert list(loaded.pieces) == [content]
    assert loaded.pieces[0].expect_until is None
    value = await writer.store.load_value(ID)
    assert value is not None
    assert value.header == HEADER
    assert value.known_state == content.known_state


async def test_an_unknown_value_is_nothing() -> None:
    store = Writer().store
    assert list((await store.load(ID)).pieces) == []
    assert await store.load_value(ID) is None
    assert store.count() == 0


async def test_several_messages_are_one_append_and_few_blocks() -> None:
    writer = Writer()
    transactions = edits(1000)
    appends = [writer.append(_content(transactions[:1]))]
    appends += [
        writer.append(_content(transactions[: n + 1], after=n)) for n in range(1, len(transactions))
    ]
    await writer.store.store(appends)
    assert writer.log.appends == 1
    assert writer.log.length <= 5
    loaded = await writer.store.load(ID)
    assert _transactions(loaded.pieces) == {ANN.session_id(as_agent=True): transactions}
    assert loaded.pieces[-1].new[ANN.session_id(as_agent=True)].signature == ANN.sign(transactions)


@given(
    sizes=st.lists(st.sampled_from([10, 20_000, 60_000, 150_000]), min_size=1, max_size=8),
    have=st.integers(0, 8),
    max_bytes=st.sampled_from([1, 50_000, 200_000, 10**9]),
    joined=st.booleans(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_verify_from_any_known_state(
    sizes: list[int], have: int, max_bytes: int, joined: bool
) -> None:
    async def run() -> None:
        writer = Writer()
        transactions = [Transaction(n, "x" * size) for n, size in enumerate(sizes)]
        contents = [_content(transactions[: n + 1], after=n) for n in range(len(transactions))]
        other = _content(edits(2), session="b", author=BOB)
        appends = [writer.append(content) for content in [*contents, other]]
        if joined:
            await writer.store.store(appends)
        else:
            for append in appends:
                await writer.store.store([append])
        count = min(have, len(transactions))
        session_id = ANN.session_id(as_agent=True)
        known = KnownState(count > 0, {session_id: count} if count else {})
        pieces_read = await _load_all(writer.store, known, max_bytes)
        got = _transactions(pieces_read)
        assert got.get(session_id, []) == transactions[count:]
        assert got[BOB.session_id("b", as_agent=True)] == edits(2)
        assert (pieces_read[0].header is None) == (count > 0)
        log = (
            SessionLog().extended(
                transactions[:count], ANN.sign(transactions[:count]), agent_public_key(ANN.agent_id)
            )
            if count
            else SessionLog()
        )
        for piece in pieces_read:
            part = piece.new.get(session_id)
            if part is not None:
                log = log.extended(
                    part.transactions, part.signature, agent_public_key(ANN.agent_id)
                )
        assert log.count == len(transactions)

    trio.run(run)


async def test_pieces_stay_near_their_size_and_announce_the_end() -> None:
    writer = Writer()
    transactions = [Transaction(n, "x" * 60_000) for n in range(20)]
    for n in range(20):
        await writer.put(_content(transactions[: n + 1], after=n))
    loaded = await writer.store.load(ID)
    assert len(loaded.pieces) == 10
    assert all(piece.size < 2 * PIECE_BYTES for piece in loaded.pieces)
    assert loaded.pieces[0].expect_until == {ANN.session_id(as_agent=True): 20}
    assert all(piece.expect_until is None for piece in loaded.pieces[1:])


async def test_sessions_come_sorted() -> None:
    writer = Writer()
    await writer.put(_content(edits(1)))
    for name in ("q", "c", "z", "m"):
        await writer.put(_content(edits(2), session=name, author=BOB))
    (piece,) = (await writer.store.load(ID)).pieces
    assert list(piece.new) == sorted(piece.new)
    assert len(piece.new) == 5


@pytest.mark.parametrize("name", VALUES)
async def test_recorded_values_read_back(name: str) -> None:
    writer = Writer()
    recorded = pieces(name)
    await writer.store.store([writer.append(piece, account_keys()) for piece in recorded])
    loaded = (await writer.store.load(recorded[0].co_id)).pieces
    assert loaded[0].header == recorded[0].header
    assert _transactions(loaded) == _transactions(recorded)


async def test_enumeration_and_count() -> None:
    writer = Writer()
    headers = [map_header(f"m{n}") for n in range(20)]
    for header in headers:
        await writer.put(ANN.content(header, edits(1), as_agent=True))
    await writer.put(ANN.content(headers[0], edits(2), after=1, as_agent=True, with_header=False))
    assert writer.store.count() == 20
    ids = [co_id async for co_id in writer.store.ids()]
    assert ids == sorted(header.id for header in headers)
    assert [co_id async for co_id in writer.store.ids(after=ids[4])] == ids[5:]
    prefix = ids[3][:6]
    assert [co_id async for co_id in writer.store.ids(prefix)] == [
        co_id for co_id in ids if co_id.startswith(prefix)
    ]


async def test_sync_tracking() -> None:
    writer = Writer()
    other = map_header("n").id
    await writer.store.track_sync({(ID, "wss://a:1"): False, (ID, "b"): False, (other, "b"): False})
    assert set(await writer.store.unsynced_ids()) == {ID, other}
    await writer.store.track_sync({(other, "b"): True})
    assert await writer.store.unsynced_ids() == [ID]
    await writer.store.stop_tracking_sync(ID)
    assert await writer.store.unsynced_ids() == []


def _deletion(co_id: RawCoId, author: Author = ANN) -> Content:
    marker = Transaction(2000, "[]", None, f'{{"deleted":"{co_id}"}}')
    session_id = author.delete_session_id(as_agent=True)
    part = SessionContent(0, [marker], author.sign([marker]))
    return Content(co_id, None, {session_id: part})


async def test_of_a_deleted_value_the_tombstone_is_loaded_and_the_rest_is_erased() -> None:
    writer = Writer()
    deletion = _deletion(ID)
    delete_session = ANN.delete_session_id(as_agent=True)
    await writer.put(_content(edits(3)), _content(edits(2), session="b"))
    append = replace(writer.append(deletion), is_deletion=True)
    await writer.store.store([append])
    for is_erased in (False, True):
        assert await writer.store.pending_erasures() == ([] if is_erased else [ID])
        value = await writer.store.load_value(ID)
        assert value is not None
        assert value.is_deleted
        assert value.known_state == KnownState(True, {delete_session: 1})
        loaded = await writer.store.load(ID)
        assert loaded.is_complete
        assert list(loaded.pieces) == [replace(deletion, header=HEADER)]
        assert not (await writer.store.load(ID, value.known_state)).pieces
        assert await writer.store.erase(ID) == (0 if is_erased else 5)
    assert writer.store.count() == 1
    left = [entry.key async for entry in writer.bee.range()]
    assert len(left) == 3  # header, delete session, its run


async def test_nothing_is_erased_of_a_value_that_is_not_deleted() -> None:
    writer = Writer()
    await writer.put(_content(edits(3)))
    assert await writer.store.erase(ID) == 0
    assert _transactions((await writer.store.load(ID)).pieces)[ANN.session_id(as_agent=True)]


async def test_locks_and_forks_are_kept() -> None:
    store = Writer().store
    assert await store.read_lock("wss://a:1") is None
    for lock in (ReconciliationLock("s", 5, 100), ReconciliationLock("s", 5, 0, 9)):
        await store.write_lock("wss://a:1", lock)
        assert await store.read_lock("wss://a:1") == lock
    part = next(iter(_content(edits(2)).new.values()))
    fork = SessionFork(ID, ANN.session_id(), part, part._replace(transactions=edits(1)))
    await store.keep_fork(fork)
    await store.keep_fork(replace(fork, refused=part))
    assert await store.forks() == [fork]


async def test_a_group_is_stored_with_its_members() -> None:
    writer = Writer()
    header = group_header(ANN.agent_id)
    member = f'[{{"op":"set","key":"{BOB.account_id}","value":"writer"}}]'
    await writer.put(ANN.content(header, [Transaction(1, member)], as_agent=True))
    value = await writer.store.load_value(header.id)
    assert value is not None
    assert value.dependencies == {BOB.account_id}


async def test_a_remote_bee_reads_the_same_and_lies_are_told_apart() -> None:
    writer = Writer()
    content = _content(edits(3))
    await writer.put(content)
    tree = writer.bee.snapshot()
    assert await read_covalue(tree, ID) == [content]
    assert await read_known_state(tree, ID) == content.known_state
    assert await read_known_state(tree, map_header("other").id) is None
    assert await read_covalue(tree, ID, content.known_state) == []


SESSION = ANN.session_id(as_agent=True)
RUN = encode_run(edits(2))
GOOD = [
    (header_key(ID), encode_header(HEADER)),
    (session_key(ID, SESSION), encode_session(2, bytes(64), 20)),
    (run_key(ID, SESSION, 0), RUN),
]


@pytest.mark.parametrize(
    "change",
    [
        {header_key(ID): None},
        {header_key(ID): encode_header(map_header("other"))},
        {header_key(ID): b"\xc1"},
        {session_key(ID, SESSION): None},
        {session_key(ID, SESSION): encode_session(3, bytes(64), 20)},
        {session_key(ID, SESSION): encode_session(1, bytes(64), 20)},
        {run_key(ID, SESSION, 0): None},
        {run_key(ID, SESSION, 0): None, run_key(ID, SESSION, 1): RUN},
        {run_key(ID, SESSION, 1): RUN},
        {ID.encode() + b":xyz": b""},
    ],
)
async def test_rows_that_do_not_fit_are_refused(change: dict[bytes, bytes | None]) -> None:
    log = DataLog()
    bee = Bee(log)
    rows = {**dict(GOOD), **change}
    async with bee.batch() as batch:
        for key, value in rows.items():
            if value is not None:
                await batch.put(key, value)
    with pytest.raises(DecodeError):
        await read_covalue(bee.snapshot(), ID)


async def test_damage_at_home_names_the_value() -> None:
    writer = Writer()
    await writer.put(_content(edits(2)))
    await writer.bee.put(header_key(ID), b"\xc1")
    with pytest.raises(CorruptStore, match=ID):
        await writer.store.load(ID)
    with pytest.raises(CorruptStore, match=ID):
        await writer.store.load_value(ID)


RECORDS = [
    encode_header(HEADER),
    encode_session(2, bytes(64), 20),
    encode_session(5, bytes(64), 20),
    encode_checkpoint(bytes(64)),
    RUN,
    encode_run(edits(5)),
]
KEYS = [
    header_key(ID),
    session_key(ID, SESSION),
    checkpoint_key(ID, SESSION, 0),
    checkpoint_key(ID, SESSION, 1),
    checkpoint_key(ID, SESSION, 3),
    run_key(ID, SESSION, 0),
    run_key(ID, SESSION, 1),
    run_key(ID, SESSION, 2),
]
rows = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from(RECORDS) | st.binary(max_size=80), max_size=len(KEYS)
)


@given(rows, st.integers(0, 6))
def test_any_rows_are_pieces_that_continue_what_is_known_or_refused(
    found: dict[bytes, bytes], have: int
) -> None:
    reader = ValueReader(ID, KnownState(have > 0, {SESSION: have} if have else {}))
    try:
        for key in sorted(found):
            reader.receive(key, found[key])
        contents = reader.finish()
    except DecodeError:
        return
    for transactions in _transactions(contents).values():
        assert transactions
    for content in contents[:1]:
        for part in content.new.values():
            assert part.after == have


async def test_good_rows_are_pieces() -> None:
    bee = Bee(DataLog())
    async with bee.batch() as batch:
        for key, value in GOOD:
            await batch.put(key, value)
    assert await read_covalue(bee.snapshot(), ID, NOTHING)
