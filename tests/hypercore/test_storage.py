"""The storage seam, the same tests on both twins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore.errors import CorruptStorage, StoreLocked, UsageError
from hypercore.storage import READ_AHEAD_ITEMS, Durability, Storage
from hypercore.storage.memory import MemoryStorage
from hypercore.storage.rocks import RocksStorage
from tests.support.cancel_everywhere import cancel_everywhere

EVERYTHING = (b"", b"\xff" * 8)


@pytest.fixture(params=["memory", "rocks"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    opened: Storage
    if request.param == "memory":
        opened = MemoryStorage()
    else:
        opened = RocksStorage(tmp_path, Durability.COMMIT)
    yield opened
    opened.close()


def put(storage: Storage, **rows: bytes) -> int:
    batch = storage.batch()
    for key, value in rows.items():
        batch.put(key.encode(), value)
    return storage.commit(batch)


def test_what_was_committed_is_read(storage: Storage) -> None:
    assert storage.get(b"a") is None
    put(storage, a=b"1", b=b"", c=bytes(5000))
    assert storage.get(b"a") == b"1"
    assert storage.get(b"b") == b""
    assert storage.get_many([b"c", b"nothing", b"a"]) == [bytes(5000), None, b"1"]
    assert [key for key, _ in storage.items(*EVERYTHING)] == [b"a", b"b", b"c"]
    assert list(storage.items(b"a", b"b")) == [(b"a", b"1")]
    assert list(storage.items(b"b", b"b")) == []
    assert not storage.is_read_only


def test_an_uncommitted_batch_changes_nothing(storage: Storage) -> None:
    storage.batch().put(b"a", b"1")
    assert storage.get(b"a") is None


def test_changes_of_a_batch_are_applied_in_order(storage: Storage) -> None:
    put(storage, a=b"1", b=b"2", c=b"3", d=b"4")
    batch = storage.batch()
    batch.delete_range(b"a", b"c")
    batch.put(b"b", b"again")
    batch.delete(b"d")
    batch.delete(b"not there")
    storage.commit(batch)
    assert list(storage.items(*EVERYTHING)) == [(b"b", b"again"), (b"c", b"3")]


def test_long_ranges_are_read_in_pieces(storage: Storage) -> None:
    batch = storage.batch()
    count = 2 * READ_AHEAD_ITEMS + 1
    for number in range(count):
        batch.put(b"%05d" % number, b"%d" % number)
    storage.commit(batch)
    found = [int(value) for _, value in storage.items(*EVERYTHING)]
    assert found == list(range(count))


def test_a_range_sees_what_is_deleted_meanwhile(storage: Storage) -> None:
    batch = storage.batch()
    for number in range(2 * READ_AHEAD_ITEMS):
        batch.put(b"%05d" % number, b"")
    storage.commit(batch)
    rows = storage.items(*EVERYTHING)
    next(rows)
    batch = storage.batch()
    batch.delete_range(b"%05d" % READ_AHEAD_ITEMS, b"9")
    storage.commit(batch)
    assert len(list(rows)) == READ_AHEAD_ITEMS - 1


def test_a_snapshot_is_of_one_moment(storage: Storage) -> None:
    put(storage, a=b"1", b=b"", c=bytes(5000))
    snapshot = storage.snapshot()
    put(storage, a=b"2", d=b"4")
    batch = storage.batch()
    batch.delete(b"c")
    batch.delete_range(b"b", b"c")
    storage.commit(batch)
    found = [snapshot.get(key) for key in (b"a", b"b", b"c", b"d", b"nothing")]
    assert found == [b"1", b"", bytes(5000), None, None]
    assert storage.get(b"a") == b"2"
    snapshot.close()


def test_a_batch_is_committed_once_and_where_it_was_made(storage: Storage) -> None:
    batch = storage.batch()
    batch.put(b"a", b"1")
    storage.commit(batch)
    other = MemoryStorage() if isinstance(storage, RocksStorage) else None
    if other is not None:
        with pytest.raises(UsageError):
            storage.commit(other.batch())
    with pytest.raises(UsageError):
        storage.commit(batch)
    put(storage, b=b"a mistake does not stop the store")


async def test_sequences_grow_and_become_durable(storage: Storage) -> None:
    first = put(storage, a=b"1")
    second = put(storage, a=b"2")
    assert second > first
    await storage.wait_durable(second)
    assert storage.durable_sequence >= second
    await storage.wait_writable()


async def test_cancelled_waiting_takes_nothing_back(storage: Storage) -> None:
    async def write_and_wait() -> None:
        await storage.wait_durable(put(storage, a=b"1"))

    await cancel_everywhere(write_and_wait)
    assert storage.get(b"a") == b"1"


KEYS = st.binary(min_size=1, max_size=2)
CHANGES = st.lists(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=4))
    | st.tuples(st.just("delete"), KEYS, st.just(b""))
    | st.tuples(st.just("delete range"), KEYS, KEYS),
    max_size=8,
)


@settings(max_examples=25)
@given(batches=st.lists(CHANGES, max_size=6))
def test_the_twins_agree(
    batches: list[list[tuple[str, bytes, bytes]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    twins: list[Storage] = [
        MemoryStorage(),
        RocksStorage(tmp_path_factory.mktemp("twin"), Durability.OS),
    ]
    for twin in twins:
        for changes in batches:
            batch = twin.batch()
            for change, key, value in changes:
                if change == "put":
                    batch.put(key, value)
                elif change == "delete":
                    batch.delete(key)
                elif key <= value:  # RocksDB refuses a range that ends before it starts
                    batch.delete_range(key, value)
            twin.commit(batch)
    memory, rocks = (list(twin.items(b"", b"\xff" * 3)) for twin in twins)
    assert memory == rocks
    for twin in twins:
        twin.close()


def test_rocks_keeps_rows_and_releases_its_locks(tmp_path: Path) -> None:
    for turn in range(3):
        storage = RocksStorage(tmp_path, Durability.OS)
        assert storage.get(b"turn") == (b"%d" % (turn - 1) if turn else None)
        put(storage, turn=b"%d" % turn)
        rows = storage.items(*EVERYTHING)
        next(rows)
        storage.close()
        storage.close()
        with pytest.raises(trio.ClosedResourceError):
            storage.get(b"turn")


def test_rocks_deletes_ranges_in_the_family_of_its_rows(tmp_path: Path) -> None:
    """The binding deletes in another family, silently, unless it is told which."""
    storage = RocksStorage(tmp_path, Durability.OS)
    put(storage, a=b"1", b=b"2")
    batch = storage.batch()
    batch.delete_range(b"a", b"z")
    storage.commit(batch)
    assert list(storage.items(*EVERYTHING)) == []
    storage.close()


def test_a_store_is_opened_once(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path, Durability.OS)
    with pytest.raises(StoreLocked, match="this process"):
        RocksStorage(tmp_path, Durability.OS)
    reader = RocksStorage(tmp_path, Durability.OS, read_only=True)
    assert reader.is_read_only
    with pytest.raises(UsageError, match="read-only"):
        reader.commit(reader.batch())
    reader.close()
    storage.close()


def test_reading_a_store_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store"):
        RocksStorage(tmp_path / "nothing", Durability.OS, read_only=True)
    assert not (tmp_path / "nothing").exists()


def test_a_store_in_recovery_is_refused(tmp_path: Path) -> None:
    RocksStorage(tmp_path, Durability.OS).close()
    (tmp_path / "db" / "RECOVERING").touch()
    with pytest.raises(CorruptStorage, match="write-ahead log"):
        RocksStorage(tmp_path, Durability.OS)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    RocksStorage(tmp_path, Durability.OS).close()
    for manifest in (tmp_path / "db").glob("MANIFEST-*"):
        manifest.write_bytes(b"\x00" * 100)
    with pytest.raises(CorruptStorage, match="db"):
        RocksStorage(tmp_path, Durability.OS)
    with pytest.raises(CorruptStorage, match="db"):
        RocksStorage(tmp_path, Durability.OS)  # and not "locked": the first one let go


def test_compacting_changes_no_rows(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path, Durability.OS)
    put(storage, a=b"1", b=bytes(10_000))
    storage.compact()
    assert list(storage.items(*EVERYTHING)) == [(b"a", b"1"), (b"b", bytes(10_000))]
    storage.close()
    storage.compact()


def files_with(path: Path, secret: bytes) -> list[str]:
    return [file.name for file in path.rglob("*") if file.is_file() and secret in file.read_bytes()]


@pytest.mark.parametrize("size", [100, 10_000], ids=["in tables", "in blob files"])
@pytest.mark.parametrize("is_spread", [False, True])
async def test_deleted_bytes_leave_every_file(tmp_path: Path, size: int, is_spread: bool) -> None:
    """Also those in a blob file that live values share."""
    storage = RocksStorage(tmp_path, Durability.COMMIT)
    rows = {}
    for number in range(60):
        value = (b"secret" if number % 2 else b"public") * (size // 6)
        rows[f"{number:03}"] = value
        put(storage, **{f"{number:03}": value})
        if is_spread and number % 10 == 9:
            await storage.reclaim()  # as many files as the store would have in its old age
    assert files_with(tmp_path, b"secret" * 10)
    for number in range(1, 60, 2):
        batch = storage.batch()
        if number < 30:
            batch.delete(b"%03d" % number)
        else:
            batch.delete_range(b"%03d" % number, b"%03d" % (number + 1))
        storage.commit(batch)
    await storage.reclaim()
    assert not files_with(tmp_path, b"secret" * 10)
    assert files_with(tmp_path, b"public" * 10)
    kept = [(key.encode(), rows[key]) for key in sorted(rows) if int(key) % 2 == 0]
    assert list(storage.items(*EVERYTHING)) == kept
    storage.close()
    assert not files_with(tmp_path, b"secret" * 10)


async def test_commits_go_on_while_room_is_reclaimed(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path, Durability.COMMIT)
    for number in range(200):
        put(storage, **{f"{number:05}": bytes(100_000)})
    is_over = False
    written = 0

    async def write() -> None:
        nonlocal written
        while not is_over:
            put(storage, **{f"x{written:05}": b"1"})
            written += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await storage.reclaim()
        is_over = True
    assert written > 10
    assert len([key for key, _ in storage.items(*EVERYTHING)]) == 200 + written
    sequence = put(storage, last=b"1")
    assert storage.durable_sequence < sequence, "the disk is waited for by those who have to"
    storage.close()


async def test_nothing_is_reclaimed_in_a_store_that_is_closed_or_for_reading(
    tmp_path: Path,
) -> None:
    storage = RocksStorage(tmp_path, Durability.OS)
    put(storage, a=b"1")
    storage.close()
    with pytest.raises(trio.ClosedResourceError):
        await storage.reclaim()
    reader = RocksStorage(tmp_path, Durability.OS, read_only=True)
    with pytest.raises(UsageError):
        await reader.reclaim()
    reader.close()


@pytest.mark.parametrize(
    ("text", "durability"),
    [
        ("commit", Durability.COMMIT),
        ("os", Durability.OS),
        ("group(5)", Durability.group(5)),
        ("group(0.5)", Durability.group(0.5)),
    ],
)
def test_durability_as_text(text: str, durability: Durability) -> None:
    assert Durability.parse(text) == durability
    assert str(durability) == text


@pytest.mark.parametrize("text", ["", "none", "group", "group(-1)", "group(x)", "Commit"])
def test_no_durability(text: str) -> None:
    with pytest.raises(ValueError, match="durability is"):
        Durability.parse(text)
