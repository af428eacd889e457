"""What is peculiar to a SQLite file: who may open it, what it may hold, what erasing leaves."""

from __future__ import annotations

import secrets
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hypercore.errors import StoreLocked
from hypercore.storage import Durability
from node.covalue import sqlite_reader
from node.covalue.content import Content, Transaction
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.sqlite_schema import SCHEMA_VERSION
from node.covalue.sqlite_space import SMALL_FILE_BYTES
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import LoadedPieces, StoredText
from node.errors import ConfigError, CorruptStore
from tests.support.authors import Author, edits, map_header
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.line_process import open_line_process
from tests.support.stores import Appender, deletion, joined
from tests.support.turns import counting_turns

ANN = Author("ann")
HEADER, OTHER = map_header("m"), map_header("n")
SESSION = ANN.session_id(as_agent=True)

# The steps of cojson's migrations that a file may have stopped at, as cojson writes them.
VERSION_1 = """
CREATE TABLE transactions (ses INTEGER, idx INTEGER, tx TEXT NOT NULL,
    PRIMARY KEY (ses, idx)) WITHOUT ROWID;
CREATE TABLE sessions (rowID INTEGER PRIMARY KEY, coValue INTEGER NOT NULL,
    sessionID TEXT NOT NULL, lastIdx INTEGER, lastSignature TEXT, UNIQUE (sessionID, coValue));
CREATE INDEX sessionsByCoValue ON sessions (coValue);
CREATE TABLE coValues (rowID INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    header TEXT NOT NULL UNIQUE);
CREATE INDEX coValuesByID ON coValues (id);
"""
VERSION_3 = """
CREATE TABLE signatureAfter (ses INTEGER, idx INTEGER, signature TEXT NOT NULL,
    PRIMARY KEY (ses, idx)) WITHOUT ROWID;
ALTER TABLE sessions ADD COLUMN bytesSinceLastSignature INTEGER;
"""
VERSION_4 = """
CREATE TABLE unsynced_covalues (rowID INTEGER PRIMARY KEY, co_value_id TEXT NOT NULL,
    peer_id TEXT NOT NULL, UNIQUE (co_value_id, peer_id));
CREATE INDEX idx_unsynced_covalues_co_value_id ON unsynced_covalues(co_value_id);
"""
VERSION_5 = """
CREATE TABLE deletedCoValues (coValueID TEXT PRIMARY KEY, status INTEGER NOT NULL DEFAULT 0)
    WITHOUT ROWID;
CREATE INDEX deletedCoValuesByStatus ON deletedCoValues (status);
"""
VERSION_6 = """
CREATE TABLE storageReconciliationLocks (key TEXT PRIMARY KEY, holderSessionId TEXT NOT NULL,
    acquiredAt INTEGER NOT NULL, expiresAt INTEGER NOT NULL,
    lastProcessedOffset INTEGER NOT NULL DEFAULT 0, releasedAt INTEGER) WITHOUT ROWID;
"""
STEPS = [(1, VERSION_1), (3, VERSION_3), (4, VERSION_4), (5, VERSION_5), (6, VERSION_6)]


def content(transactions: Sequence[Transaction], after: int = 0) -> Content:
    return ANN.content(HEADER, transactions, after=after, as_agent=True, with_header=not after)


async def fill(path: Path, *contents: Content) -> None:
    async with open_sqlite_store(path, Durability.OS) as store:
        await Appender().put(store, *contents)


def change(path: Path, script: str) -> None:
    """As another program would, while nobody has the file open."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(script)
    connection.close()


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    found: list[tuple[object, ...]] = connection.execute(query).fetchall()
    connection.close()
    return found


async def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_sqlite_store(path):
            pass
    return str(caught.value)


def schema(path: Path) -> dict[str, list[tuple[object, ...]]]:
    tables = ask(path, "SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")
    return {str(name): ask(path, f"PRAGMA table_xinfo({name})") for (name,) in tables}


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5, 6])
async def test_a_file_of_any_version_goes_on(tmp_path: Path, version: int) -> None:
    await fill(tmp_path / "new", content(edits(2)))
    old = tmp_path / "old"
    change(old, "PRAGMA journal_mode=WAL")
    for number, script in STEPS:
        if number <= version:
            change(old, script)
    change(old, f"PRAGMA user_version={version}")
    if version:
        change(
            old,
            f"ATTACH '{tmp_path / 'new'}' AS new;"
            "INSERT INTO coValues SELECT * FROM new.coValues;"
            "INSERT INTO sessions (rowID, coValue, sessionID, lastIdx, lastSignature)"
            " SELECT rowID, coValue, sessionID, lastIdx, lastSignature FROM new.sessions;"
            "INSERT INTO transactions SELECT * FROM new.transactions;",
        )
    for count in (3, 4):
        async with open_sqlite_store(old) as store:
            appender = Appender()
            if version or count > 3:
                (piece,) = (await store.load(HEADER.id)).pieces
                assert piece == content(edits(count - 1))
                appender.append(piece)
            after = count - 1 if version or count > 3 else 0
            await appender.put(store, content(edits(count), after))
    assert schema(old) == schema(tmp_path / "new")
    assert ask(old, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert ask(old, "PRAGMA journal_mode") == [("wal",)]


async def test_migrations_that_javascript_broke_off_are_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _, script in STEPS:
        change(path, script)
    change(path, "ALTER TABLE storageReconciliationLocks DROP COLUMN expiresAt")
    for version in (0, 1, 3, 6):  # each step was done, and its number was not written
        change(path, f"PRAGMA user_version={version}")
        async with open_sqlite_store(path):
            pass
        assert ask(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


async def test_what_is_no_file_of_cojson_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database" * 100)
    assert "not a usable SQLite database" in await refusal(text)
    assert text.read_text() == "not a database" * 100
    other = tmp_path / "other"
    change(other, "CREATE TABLE bookmarks (url)")
    assert "none of cojson's" in await refusal(other)
    assert ask(other, "SELECT name FROM sqlite_master") == [("bookmarks",)]
    newer = tmp_path / "newer"
    change(newer, VERSION_1 + "PRAGMA user_version=9")
    assert "version 9" in await refusal(newer)
    assert "cannot be opened" in await refusal(tmp_path / "nowhere" / "file")
    assert "cannot be opened" in await refusal(tmp_path)


async def test_two_nodes_cannot_open_one_file(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    async with open_sqlite_store(path) as store:
        for name in (path, link):
            with pytest.raises(StoreLocked, match="in use by this process"):
                async with open_sqlite_store(name):
                    pass
        await Appender().put(store, content(edits(1)))
    async with open_sqlite_store(path) as store:
        assert store.count() == 1


OTHER_PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("SELECT count(*) FROM coValues").fetchone()
print('{"open": true}', flush=True)
sys.stdin.read()
"""


async def test_a_file_that_a_server_has_open_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    await fill(path, content(edits(1)))
    command = [sys.executable, "-c", OTHER_PROGRAM, str(path)]
    async with open_line_process(command, tmp_path) as server:
        assert await server.read() == {"open": True}
        with pytest.raises(StoreLocked, match="in use"):
            async with open_sqlite_store(path):
                pass
    async with open_sqlite_store(path) as store:
        assert store.count() == 1


async def test_a_write_of_another_program_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    appender = Appender()
    async with open_sqlite_store(path) as store:
        await appender.put(store, content(edits(1)))
        change(path, "INSERT INTO unsynced_covalues (co_value_id, peer_id) VALUES ('a', 'b')")
        for _ in range(2):
            with pytest.raises(StoreLocked, match="which wrote to it"):
                await store.store([appender.append(ANN.content(OTHER, (), as_agent=True))])
        assert store.count() == 1


@pytest.mark.parametrize("durability", [Durability.COMMIT, Durability.OS])
async def test_a_cancelled_store_is_there_whole_or_not_at_all(
    tmp_path: Path, durability: Durability
) -> None:
    async with open_sqlite_store(tmp_path / "file", durability) as store:
        appender = Appender()
        transactions = edits(100)
        stored = 0

        async def put_two() -> None:
            nonlocal stored
            value = await store.load_value(HEADER.id)
            stored = 0 if value is None else value.sessions[SESSION].count
            assert stored % 2 == 0
            log = Appender()
            if stored:
                log.append(content(transactions[:stored]))
            await log.put(
                store,
                content(transactions[: stored + 1], stored),
                content(transactions[: stored + 2], stored + 1),
            )

        await cancel_everywhere(put_two)
        (piece,) = (await store.load(HEADER.id)).pieces
        assert joined([piece])[SESSION] == transactions[: stored + 2]
        assert store.count() == 1
        appender.append(piece)
        await appender.put(store, content(transactions[: stored + 3], stored + 2))


async def test_a_full_disk_stops_the_store_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = FULL_DISK.format(path=str(path))
    done = await trio.run_process(
        [sys.executable, "-c", script], capture_stdout=True, cwd=Path(__file__).parents[3]
    )
    failures, stored = done.stdout.split()
    assert failures == b"2"
    async with open_sqlite_store(path) as store:
        loaded = await store.load(HEADER.id)
        assert joined(loaded.pieces)[SESSION] == edits(int(stored), size=10_000)
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


# The largest file that a process may write is what a full disk looks like.
FULL_DISK = """
import resource, signal, trio
from pathlib import Path
from hypercore.errors import StorageFailed
from node.covalue.sqlite_space import SMALL_FILE_BYTES
from node.covalue.sqlite_store import open_sqlite_store
from tests.node.covalue.test_sqlite_store import ANN, HEADER, content
from tests.support.authors import edits
from tests.support.line_process import open_line_process
from tests.support.stores import Appender

async def main():
    appender = Appender()
    transactions = edits(200, size=10_000)
    stored = failures = 0
    async with open_sqlite_store(Path("{path}")) as store:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        while failures < 2:
            if not failures:
                append = appender.append(content(transactions[: stored + 1], stored))
            try:
                await store.store([append])
            except StorageFailed:
                failures += 1
            else:
                stored += 1
        print(failures, stored)

trio.run(main)
"""


# Damage.

TEXTS = ["", "{}", "[]", "null", '{"privacy":"trusting","madeAt":1}', "\ud7ff", "co_z", SESSION]
values = (
    st.none()
    | st.integers(-3, 5)
    | st.floats(allow_nan=False)
    | st.binary(max_size=20)
    | st.sampled_from(TEXTS)
    | st.sampled_from([HEADER.canonical, OTHER.canonical, OTHER.id])
)
CELLS = {
    "coValues": ["id", "header"],
    "sessions": [
        *("rowID", "coValue", "sessionID", "lastIdx", "lastSignature"),
        "bytesSinceLastSignature",
    ],
    "transactions": ["ses", "idx", "tx"],
    "signatureAfter": ["ses", "idx", "signature"],
    "deletedCoValues": ["coValueID", "status"],
}
cells = st.sampled_from([(table, column) for table, names in CELLS.items() for column in names])


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "file"
    large = [Transaction(n, "x" * 60_000) for n in range(4)]
    parts = [content(large[: n + 1], n) for n in range(4)]
    trio.run(partial(fill, path, *parts, ANN.content(OTHER, edits(2), as_agent=True)))
    change(path, f"INSERT INTO deletedCoValues VALUES ('{OTHER.id}', 0)")
    assert ask(path, "SELECT count(*) FROM signatureAfter") == [(2,)]
    return path


@contextmanager
def names_the_value(co_id: RawCoId) -> Iterator[None]:
    """The block may find damage, of this value."""
    damaged = co_id
    try:
        yield
    except CorruptStore as error:
        damaged = RawCoId(error.co_id)
    assert damaged == co_id


@given(st.lists(st.tuples(cells, st.integers(0, 4), values), min_size=1, max_size=3))
def test_any_cell_gives_pieces_or_names_the_value(
    good_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[tuple[str, str], int, object]],
) -> None:
    path = tmp_path_factory.mktemp("bad") / "file"
    path.write_bytes(good_file.read_bytes())
    connection = sqlite3.connect(path, isolation_level=None)
    for (table, column), row, value in changes:
        key = "rowID" if table in ("coValues", "sessions") else CELLS[table][0]
        query = f"""UPDATE OR IGNORE {table} SET {column} = ? WHERE {key} =
            (SELECT {key} FROM {table} LIMIT 1 OFFSET ?)"""
        try:
            connection.execute(query, (value, row))
        except sqlite3.IntegrityError:
            continue  # the file itself refuses it
    connection.close()

    async def read_everything() -> None:
        async with open_sqlite_store(path, Durability.OS) as store:
            for co_id in (HEADER.id, OTHER.id):
                for known in (KnownState(False), KnownState(True, {SESSION: 1})):
                    for max_bytes in (None, 1):
                        with names_the_value(co_id):
                            loaded = await store.load(co_id, known, max_bytes)
                            assert all(piece.co_id == co_id for piece in loaded.pieces)
                with names_the_value(co_id):
                    await store.load_value(co_id)
            assert {co_id async for co_id in store.ids()} <= {HEADER.id, OTHER.id}
            assert set(await store.pending_erasures()) <= {HEADER.id, OTHER.id}

    trio.run(read_everything)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE coValues SET header = '{'",
        f"UPDATE coValues SET header = '{OTHER.canonical}'",
        "UPDATE coValues SET header = CAST(x'ff' AS TEXT)",
        "UPDATE sessions SET sessionID = 'nobody'",
        "UPDATE sessions SET lastSignature = 'signature_z'",
        "UPDATE sessions SET lastIdx = 3",
        "UPDATE sessions SET lastIdx = -1",
        "DELETE FROM transactions WHERE idx = 0",
        "DELETE FROM transactions WHERE idx = 1",
        "UPDATE transactions SET tx = tx || ',' || tx WHERE idx = 0",
        "UPDATE transactions SET tx = x'00' WHERE idx = 0",
        "UPDATE transactions SET tx = CAST(x'22ff22' AS TEXT) WHERE idx = 1",
        "INSERT INTO signatureAfter SELECT rowID, 0, 'signature_z1' FROM sessions",
    ],
)
async def test_damage_costs_one_value(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file"
    await fill(path, content(edits(2)))
    change(path, damage)
    async with open_sqlite_store(path, Durability.OS) as store:
        for max_bytes in (None, 1000):
            with pytest.raises(CorruptStore, match=HEADER.id):
                await store.load(HEADER.id, max_bytes=max_bytes)
        # Its neighbors are none the worse, even one whose header a damaged row has taken.
        neighbor = ANN.content(OTHER, edits(1), as_agent=True)
        await Appender().put(store, neighbor)
        assert list((await store.load(OTHER.id)).pieces) == [neighbor]
        assert store.count() == 2


async def test_rows_beyond_a_session_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    await fill(path, content(edits(1)))
    change(path, "INSERT INTO transactions SELECT ses, 1, 'torn' FROM transactions")
    change(path, "INSERT INTO transactions VALUES (77, 0, 'of a session that is gone')")
    async with open_sqlite_store(path, Durability.OS) as store:
        appender = Appender()
        appender.append(content(edits(1)))
        await appender.put(store, content(edits(2), 1))
        assert joined((await store.load(HEADER.id)).pieces)[SESSION] == edits(2)


# Erasing.


def raw_bytes(path: Path) -> bytes:
    return b"".join(
        file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name)
    )


def secret_edits(count: int) -> tuple[bytes, list[Transaction]]:
    """Many transactions, so that rows move between pages, all with one secret in them."""
    secret = secrets.token_hex(16)
    return secret.encode(), [
        Transaction(n, f'["{secret}{"x" * (n % 7) * 300}"]') for n in range(count)
    ]


@pytest.mark.parametrize("auto_vacuum", [0, 2])
@pytest.mark.parametrize("durability", [Durability.COMMIT, Durability.OS])
async def test_what_was_erased_is_nowhere_in_the_file(
    tmp_path: Path, auto_vacuum: int, durability: Durability
) -> None:
    path = tmp_path / "file"
    if auto_vacuum == 0:  # as JavaScript makes it
        change(path, VERSION_1 + "PRAGMA user_version=1")
    secret, transactions = secret_edits(3000)
    appender = Appender()
    async with open_sqlite_store(path, durability) as store:
        # Two values grow in turns, so that their rows share pages and are pushed about.
        others = edits(300, size=500)
        for n in range(0, 300, 30):
            await appender.put(
                store,
                content(transactions[: 10 * (n + 30)], 10 * n),
                ANN.content(OTHER, others[: n + 30], after=n, as_agent=True, with_header=not n),
            )
        await store.store([appender.append(deletion(HEADER.id, ANN), is_deletion=True)])
        assert secret in raw_bytes(path)
        size = len(raw_bytes(path))
        assert (await store.erase(HEADER.id)).transactions == 3000
        assert secret not in raw_bytes(path)
        assert len(raw_bytes(path)) < size / 4
        assert joined((await store.load(OTHER.id)).pieces)[SESSION] == others
        assert path.with_name("file-wal").stat().st_size == 0
    assert ask(path, "PRAGMA auto_vacuum") == [(2,)]
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(path, "PRAGMA freelist_count") == [(0,)]


@pytest.mark.parametrize(("sessions", "takes_turns"), [(3, False), (4, True)])
async def test_others_have_their_turn_while_a_value_of_many_sessions_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: int, takes_turns: bool
) -> None:
    """20,000 rows took 0.2 s, for each 64 KB that a client was sent."""
    monkeypatch.setattr(sqlite_reader, "MANY_SESSIONS", 3)
    async with open_sqlite_store(tmp_path / "file", Durability.OS) as store:
        appender = Appender()
        for number in range(sessions):
            mine = ANN.content(
                HEADER, edits(2), session=f"{number}", as_agent=True, with_header=number == 0
            )
            await appender.put(store, mine)
        found: list[object] = []
        async with counting_turns() as turns:
            for read in (
                partial(store.load, HEADER.id, NOTHING, 1000),
                partial(store.load_value, HEADER.id),
                partial(store.load_text, HEADER.id),
            ):
                await trio.lowlevel.checkpoint()
                before = turns.count
                found.append(await read())
                assert (turns.count > before) is takes_turns
    loaded, value, text = found
    assert isinstance(loaded, LoadedPieces)
    assert isinstance(text, StoredText)
    assert loaded.value == value == text.value
    assert len(text.texts) == sessions


async def test_others_may_store_while_space_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    appender = Appender()
    transactions = [Transaction(n, "x" * 100_000) for n in range(100)]
    async with open_sqlite_store(path, Durability.OS) as store:
        await appender.put(store, content(transactions))
        await store.store([appender.append(deletion(HEADER.id, ANN), is_deletion=True)])
        erased = trio.Event()
        stored = 0

        async def erase() -> None:
            assert (await store.erase(HEADER.id)).transactions == 100
            erased.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(erase)
            while not erased.is_set():
                header = map_header(f"while {stored}")
                await appender.put(store, ANN.content(header, edits(1), as_agent=True))
                stored += 1
        assert stored > 2
        assert store.count() == stored + 1
    assert ask(path, "PRAGMA freelist_count") == [(0,)]


async def test_a_session_after_an_erased_one_has_no_old_transactions(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path / "file", Durability.OS) as store:
        appender = Appender()
        await appender.put(store, content(edits(3)))
        await store.store([appender.append(deletion(HEADER.id, ANN), is_deletion=True)])
        await store.erase(HEADER.id)
        await appender.put(store, ANN.content(OTHER, edits(1), as_agent=True))
        assert joined((await store.load(OTHER.id)).pieces)[SESSION] == edits(1)
        assert (await store.load_value(HEADER.id)) is not None


@pytest.mark.slow
async def test_a_large_file_of_javascript_is_rewritten_when_much_of_it_is_free(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    change(path, VERSION_1 + "PRAGMA user_version=1")
    secret, small = secret_edits(10)
    appender = Appender()
    large = [Transaction(n, "x" * 1_000_000) for n in range(70)]
    async with open_sqlite_store(path, Durability.OS) as store:
        await appender.put(store, content(small), ANN.content(OTHER, large, as_agent=True))
        await store.store([appender.append(deletion(HEADER.id, ANN), is_deletion=True)])
        await store.erase(HEADER.id)
        assert ask(path, "PRAGMA auto_vacuum") == [(0,)]
        assert secret not in raw_bytes(path)
        assert path.stat().st_size > SMALL_FILE_BYTES
        await store.store([appender.append(deletion(OTHER.id, ANN), is_deletion=True)])
        assert (await store.erase(OTHER.id)).transactions == 70
        assert ask(path, "PRAGMA auto_vacuum") == [(2,)]
        assert path.stat().st_size < 200_000
