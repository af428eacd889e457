"""What every `CoValueStore` promises, asked of every backend."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.covalue.canonical import JsonValue
from node.covalue.content import PIECE_BYTES, Content, SessionContent, Transaction
from node.covalue.header import parse_header
from node.covalue.ids import CoSessionId, RawCoId, agent_public_key
from node.covalue.known_state import KnownState
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.session_fork import SessionFork
from node.covalue.session_log import SessionLog
from node.covalue.store import CoValueStore
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.cojson_vectors import VALUES, account_keys, pieces
from tests.support.stores import HOMES, Appender, StoreHome, deletion, joined, load_all

ANN, BOB = Author("ann"), Author("bob")
HEADER = map_header("m")
ID = HEADER.id

backends = pytest.mark.parametrize("backend", HOMES)


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> StoreHome:
    return HOMES[request.param](tmp_path)


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


async def test_a_value_reads_back_as_one_piece(home: StoreHome) -> None:
    async with home.open() as store:
        content = _content(edits(3))
        await Appender().put(store, content)
        loaded = await store.load(ID)
        assert loaded.is_complete
        assert list(loaded.pieces) == [content]
        assert loaded.pieces[0].expect_until is None
        value = await store.load_value(ID)
        assert value is not None
        assert value.header == HEADER
        assert value.known_state == content.known_state
        assert not value.is_deleted


async def test_an_unknown_value_is_nothing(home: StoreHome) -> None:
    async with home.open() as store:
        assert list((await store.load(ID)).pieces) == []
        assert await store.load_value(ID) is None
        assert store.count() == 0


async def test_a_header_alone_is_a_value(home: StoreHome) -> None:
    async with home.open() as store:
        await Appender().put(store, Content(ID, HEADER, {}))
        assert list((await store.load(ID)).pieces) == [Content(ID, HEADER, {}, HEADER.priority)]
        assert not (await store.load(ID, KnownState(True))).pieces


async def test_what_is_refused_now_and_was_not_is_read(home: StoreHome) -> None:
    """A value with a flag that is no boolean, stored before cojson's native core refused it."""
    ruleset: JsonValue = {"type": "ownedByGroup", "group": HEADER.id, "restrictDeletion": 1}
    header = parse_header({**HEADER.fields, "ruleset": ruleset})
    content = ANN.content(header, edits(2), as_agent=True)
    async with home.open() as store:
        await Appender().put(store, content)
    async with home.open() as store:
        assert list((await store.load(header.id)).pieces) == [content]
        value = await store.load_value(header.id)
        assert value is not None
        assert value.header == header


@pytest.mark.parametrize("is_joined", [False, True])
@backends
@given(
    sizes=st.lists(st.sampled_from([10, 20_000, 60_000, 150_000]), min_size=1, max_size=8),
    have=st.integers(0, 8),
    max_bytes=st.sampled_from([1, 50_000, 200_000, 10**9]),
)
@settings(max_examples=20)
def test_pieces_verify_from_any_known_state(
    backend: str, is_joined: bool, sizes: list[int], have: int, max_bytes: int
) -> None:
    async def run(home: StoreHome) -> None:
        appender = Appender()
        transactions = [Transaction(n, "x" * size) for n, size in enumerate(sizes)]
        contents = [_content(transactions[: n + 1], after=n) for n in range(len(transactions))]
        other = _content(edits(2), session="b", author=BOB)
        appends = [appender.append(content) for content in [*contents, other]]
        async with home.open() as store:
            for batch in [appends] if is_joined else [[append] for append in appends]:
                await store.store(batch)
            count = min(have, len(transactions))
            session_id = ANN.session_id(as_agent=True)
            known = KnownState(count > 0, {session_id: count} if count else {})
            found = await load_all(store, ID, known, max_bytes)
        assert joined(found).get(session_id, []) == transactions[count:]
        assert joined(found)[BOB.session_id("b", as_agent=True)] == edits(2)
        assert (found[0].header is None) == (count > 0)
        key = agent_public_key(ANN.agent_id)
        log = SessionLog()
        if count:
            log = log.extended(transactions[:count], ANN.sign(transactions[:count]), key)
        for piece in found:
            part = piece.new.get(session_id)
            if part is not None:
                log = log.extended(part.transactions, part.signature, key)
        assert log.count == len(transactions)

    _run_in_new_home(backend, run)


async def test_pieces_stay_near_their_size_and_announce_the_end(home: StoreHome) -> None:
    appender = Appender()
    transactions = [Transaction(n, "x" * 60_000) for n in range(20)]
    async with home.open() as store:
        for n in range(20):
            await appender.put(store, _content(transactions[: n + 1], after=n))
        loaded = await store.load(ID)
    assert len(loaded.pieces) == 10
    assert all(piece.size < 2 * PIECE_BYTES for piece in loaded.pieces)
    assert loaded.pieces[0].expect_until == {ANN.session_id(as_agent=True): 20}
    assert all(piece.expect_until is None for piece in loaded.pieces[1:])


async def test_sessions_come_sorted(home: StoreHome) -> None:
    appender = Appender()
    async with home.open() as store:
        await appender.put(store, _content(edits(1)))
        for name in ("q", "c", "z", "m"):
            await appender.put(store, _content(edits(2), session=name, author=BOB))
        (piece,) = (await store.load(ID)).pieces
    assert list(piece.new) == sorted(piece.new)
    assert len(piece.new) == 5


@pytest.mark.parametrize("name", VALUES)
async def test_recorded_values_read_back(home: StoreHome, name: str) -> None:
    recorded = pieces(name)
    async with home.open() as store:
        await Appender(account_keys()).put(store, *recorded)
        loaded = (await store.load(recorded[0].co_id)).pieces
    assert loaded[0].header == recorded[0].header
    assert joined(loaded) == joined(recorded)


async def test_enumeration_and_count(home: StoreHome) -> None:
    appender = Appender()
    headers = [map_header(f"m{n}") for n in range(20)]
    async with home.open() as store:
        for header in headers:
            await appender.put(store, ANN.content(header, edits(1), as_agent=True))
        more = ANN.content(headers[0], edits(2), after=1, as_agent=True, with_header=False)
        await appender.put(store, more)
        assert store.count() == 20
        ids = [co_id async for co_id in store.ids()]
        assert ids == sorted(header.id for header in headers)
        assert [co_id async for co_id in store.ids(after=ids[4])] == ids[5:]
        prefix = ids[3][:6]
        expected = [co_id for co_id in ids if co_id.startswith(prefix)]
        assert [co_id async for co_id in store.ids(prefix)] == expected
        assert [co_id async for co_id in store.ids(prefix, ids[3])] == [
            co_id for co_id in expected if co_id > ids[3]
        ]


async def test_sync_tracking(home: StoreHome) -> None:
    other = map_header("n").id
    async with home.open() as store:
        await store.track_sync({(ID, "wss://a:1"): False, (ID, "b"): False, (other, "b"): False})
        assert set(await store.unsynced_ids()) == {ID, other}
        await store.track_sync({(other, "b"): True})
        assert await store.unsynced_ids() == [ID]
        await store.stop_tracking_sync(ID)
        assert await store.unsynced_ids() == []


async def test_of_a_deleted_value_the_tombstone_is_loaded_and_the_rest_is_erased(
    home: StoreHome,
) -> None:
    appender = Appender()
    tombstone = deletion(ID, ANN)
    async with home.open() as store:
        await appender.put(store, _content(edits(3)), _content(edits(2), session="b"))
        await store.store([appender.append(tombstone, is_deletion=True)])
        for is_erased in (False, True):
            assert await store.pending_erasures() == ([] if is_erased else [ID])
            value = await store.load_value(ID)
            assert value is not None
            assert value.is_deleted
            assert value.known_state == tombstone.known_state.merged(KnownState(True))
            loaded = await store.load(ID)
            assert loaded.is_complete
            assert list(loaded.pieces) == [replace(tombstone, header=HEADER)]
            assert not (await store.load(ID, value.known_state)).pieces
            assert (await store.erase(ID)).transactions == (0 if is_erased else 5)
        assert store.count() == 1


async def test_nothing_is_erased_of_a_value_that_is_not_deleted(home: StoreHome) -> None:
    async with home.open() as store:
        await Appender().put(store, _content(edits(3)))
        assert not (await store.erase(ID)).sessions
        assert joined((await store.load(ID)).pieces)[ANN.session_id(as_agent=True)]


async def test_locks_and_forks_are_kept(home: StoreHome) -> None:
    async with home.open() as store:
        assert await store.read_lock("wss://a:1") is None
        for lock in (ReconciliationLock("s", 5, 100), ReconciliationLock("s", 5, 0, 9)):
            await store.write_lock("wss://a:1", lock)
            assert await store.read_lock("wss://a:1") == lock
        assert await store.forks() == []
        part = next(iter(_content(edits(2)).new.values()))
        fork = SessionFork(ID, ANN.session_id(), part, part._replace(transactions=edits(1)))
        await store.keep_fork(fork)
        await store.keep_fork(replace(fork, refused=part))
        assert await store.forks() == [fork]


async def test_a_group_is_stored_with_its_members(home: StoreHome) -> None:
    header = group_header(ANN.agent_id)
    member = f'[{{"op":"set","key":"{BOB.account_id}","value":"writer"}}]'
    async with home.open() as store:
        content = ANN.content(header, [Transaction(1, member)], as_agent=True)
        await Appender().put(store, content)
        value = await store.load_value(header.id)
        assert value is not None
        assert value.dependencies == {BOB.account_id}


async def test_a_load_of_everything_tells_what_load_value_would(home: StoreHome) -> None:
    appender = Appender()
    header = group_header(ANN.agent_id)
    member = f'[{{"op":"set","key":"{BOB.account_id}","value":"writer"}}]'
    async with home.open() as store:
        await appender.put(
            store,
            ANN.content(header, [Transaction(1, member)], as_agent=True),
            ANN.content(map_header("m", header.id), edits(3), as_agent=True),
        )
        for co_id in (header.id, map_header("m", header.id).id):
            loaded = await store.load(co_id)
            assert loaded.value is not None
            assert loaded.value == await store.load_value(co_id)
            assert (await store.load(co_id, KnownState(True))).value is None


async def test_readers_see_whole_appends_while_one_is_written(home: StoreHome) -> None:
    appender = Appender()
    seen: set[int] = set()
    written = trio.Event()
    async with home.open() as store, trio.open_nursery() as nursery:
        await appender.put(store, _content(edits(1)))

        async def write() -> None:
            for n in range(1, 20):
                contents = [_content(edits(2 * n + i), after=2 * n + i - 1) for i in (0, 1)]
                await appender.put(store, *contents)
            written.set()

        nursery.start_soon(write)
        while not written.is_set():
            (piece,) = (await store.load(ID)).pieces
            seen.add(piece.new[ANN.session_id(as_agent=True)].stop)
            await trio.lowlevel.checkpoint()
    assert seen
    assert all(count % 2 for count in seen)


# The model: what a store must hold after any sequence of calls.


@dataclass
class _Value:
    sessions: dict[CoSessionId, list[Transaction]] = field(default_factory=dict)
    tombstone: Content | None = None
    is_erased: bool = False


@dataclass
class _Model:
    values: dict[int, _Value] = field(default_factory=dict)
    unsynced: set[tuple[RawCoId, str]] = field(default_factory=set)
    locks: dict[str, ReconciliationLock] = field(default_factory=dict)
    forks: dict[tuple[RawCoId, CoSessionId], SessionFork] = field(default_factory=dict)


HEADERS = [map_header(f"value {n}") for n in range(3)]
AUTHORS = [ANN, BOB]
PEERS = ["a", "wss://b:1/?x=y:z"]

_value = st.integers(0, len(HEADERS) - 1)
_author = st.integers(0, len(AUTHORS) - 1)
_peer = st.sampled_from(PEERS)
_sizes = st.lists(st.sampled_from([0, 10, 1000, 60_000, 110_000]), min_size=1, max_size=3)
_operations = st.one_of(
    st.tuples(
        st.just("store"), st.lists(st.tuples(_value, _author, _sizes), min_size=1, max_size=4)
    ),
    st.tuples(st.just("delete"), _value),
    st.tuples(st.just("erase"), _value),
    st.tuples(st.just("track"), _value, _peer, st.booleans()),
    st.tuples(st.just("stop tracking"), _value),
    st.tuples(st.just("lock"), _peer, st.integers(0, 2**50), st.none() | st.integers(0, 2**50)),
    st.tuples(st.just("fork"), _value, _author, st.integers(1, 3)),
    st.tuples(st.just("reopen")),
    st.tuples(
        st.just("load"), _value, st.integers(0, 4), st.sampled_from([None, 1, 70_000, 200_000])
    ),
)


class _Machine:
    """Does each operation to a store and to the model."""

    def __init__(self, store: CoValueStore, model: _Model, appender: Appender) -> None:
        self.store = store
        self.model = model
        self.appender = appender

    async def store_some(self, parts: list[tuple[int, int, list[int]]]) -> None:
        appends = []
        for number, author_number, sizes in parts:
            header, author = HEADERS[number], AUTHORS[author_number]
            is_first = number not in self.model.values
            value = self.model.values.setdefault(number, _Value())
            if value.tombstone is not None:
                continue  # the engine refuses these
            session_id = author.session_id(as_agent=True)
            before = value.sessions.setdefault(session_id, [])
            after = len(before)
            before += [Transaction(after + i, "x" * size) for i, size in enumerate(sizes)]
            content = author.content(
                header, before, after=after, as_agent=True, with_header=is_first
            )
            appends.append(self.appender.append(content))
        await self.store.store(appends)

    async def delete(self, number: int) -> None:
        value = self.model.values.get(number)
        if value is not None and value.tombstone is None:
            value.tombstone = deletion(HEADERS[number].id, ANN)
            await self.store.store([self.appender.append(value.tombstone, is_deletion=True)])

    async def erase(self, number: int) -> None:
        value = self.model.values.get(number)
        expected = 0
        if value is not None and value.tombstone is not None and not value.is_erased:
            value.is_erased = True
            expected = sum(map(len, value.sessions.values()))
        assert (await self.store.erase(HEADERS[number].id)).transactions == expected

    async def track(self, number: int, peer: str, is_synced: bool) -> None:
        key = (HEADERS[number].id, peer)
        if is_synced:
            self.model.unsynced.discard(key)
        else:
            self.model.unsynced.add(key)
        await self.store.track_sync({key: is_synced})

    async def stop_tracking(self, number: int) -> None:
        co_id = HEADERS[number].id
        self.model.unsynced = {key for key in self.model.unsynced if key[0] != co_id}
        await self.store.stop_tracking_sync(co_id)

    async def lock(self, peer: str, acquired_at: int, released_at: int | None) -> None:
        lock = ReconciliationLock("holder", acquired_at, acquired_at % 1000, released_at)
        self.model.locks[peer] = lock
        await self.store.write_lock(peer, lock)

    async def fork(self, number: int, author_number: int, count: int) -> None:
        author = AUTHORS[author_number]
        session_id = author.session_id(as_agent=True)
        kept, refused = edits(count), edits(count, start=5)
        fork = SessionFork(
            HEADERS[number].id,
            session_id,
            SessionContent(2, kept, author.sign(kept)),
            SessionContent(2, refused, author.sign(refused)),
        )
        self.model.forks.setdefault((fork.co_id, session_id), fork)
        await self.store.keep_fork(fork)

    async def load(self, number: int, have: int, max_bytes: int | None) -> None:
        co_id = HEADERS[number].id
        value = self.model.values.get(number)
        expected = self._sessions(value)
        known = KnownState(
            have > 0,
            {key: min(have, len(found)) for key, found in expected.items()} if have else {},
        )
        contents = await load_all(self.store, co_id, known, max_bytes)
        assert joined(contents) == {
            key: found[have:] for key, found in expected.items() if found[have:]
        }
        headers = [content.header for content in contents if content.header is not None]
        assert headers == ([HEADERS[number]] if value is not None and not have else [])
        stored = await self.store.load_value(co_id)
        assert (stored is None) == (value is None)
        if stored is not None and value is not None:
            assert stored.is_deleted == (value.tombstone is not None)
            counts = {key: item.count for key, item in stored.sessions.items()}
            assert counts == {key: len(found) for key, found in expected.items()}

    @staticmethod
    def _sessions(value: _Value | None) -> dict[CoSessionId, Sequence[Transaction]]:
        if value is None:
            return {}
        if value.tombstone is not None:
            return {key: part.transactions for key, part in value.tombstone.new.items()}
        return dict(value.sessions)

    async def check(self) -> None:
        for number in range(len(HEADERS)):
            await self.load(number, 0, None)
        ids = sorted(HEADERS[number].id for number in self.model.values)
        assert [co_id async for co_id in self.store.ids()] == ids
        assert self.store.count() == len(ids)
        assert sorted(await self.store.unsynced_ids()) == sorted(
            {co_id for co_id, _ in self.model.unsynced}
        )
        for peer in PEERS:
            assert await self.store.read_lock(peer) == self.model.locks.get(peer)
        assert await self.store.forks() == [
            self.model.forks[key] for key in sorted(self.model.forks)
        ]
        assert sorted(await self.store.pending_erasures()) == sorted(
            HEADERS[number].id
            for number, value in self.model.values.items()
            if value.tombstone is not None and not value.is_erased
        )


@backends
@given(st.lists(_operations, max_size=12))
@settings(max_examples=60)
def test_any_sequence_of_calls_leaves_what_the_model_says(
    backend: str, operations: list[tuple[object, ...]]
) -> None:
    async def run(home: StoreHome) -> None:
        model, appender = _Model(), Appender()
        pending = list(operations)
        while True:
            async with home.open() as store:
                machine = _Machine(store, model, appender)
                actions = {
                    "store": machine.store_some,
                    "delete": machine.delete,
                    "erase": machine.erase,
                    "track": machine.track,
                    "stop tracking": machine.stop_tracking,
                    "lock": machine.lock,
                    "fork": machine.fork,
                    "load": machine.load,
                }
                while pending and pending[0] != ("reopen",):
                    name, *arguments = pending.pop(0)
                    await actions[str(name)](*arguments)  # type: ignore[operator]  # one of each
                await machine.check()
            if not pending:
                return
            pending.pop(0)

    _run_in_new_home(backend, run)


def _run_in_new_home(backend: str, run: Callable[[StoreHome], Awaitable[None]]) -> None:
    """Hypothesis makes many examples of one test: each has a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        trio.run(run, HOMES[backend](Path(directory)))
