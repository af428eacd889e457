"""Long appends whose rows go into tables of their own: all of it is there or nothing."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trio

from hypercore import Core, CorruptStorage, Durability, StorageFailed, open_corestore
from hypercore.errors import StoreSuspended
from hypercore.storage.log_file import records
from hypercore.storage.rocks_tables import TableBatch
from hypercore.storage.salvage import salvage
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.crash_states import Disk, Survival
from tests.support.long_writer import LONG, MUCH, block_of, check, pieces
from tests.support.power_cut import Calls, Kind, build_shim, read_trace, shim_environment
from tests.support.storage_rows import rows_of_directory, verify_core

_PROJECT = Path(__file__).parents[2]
BLOCKS = [block for piece in pieces(1) for block in piece]
ROWS = {b"new": b"1", b"changed": b"2", b"gone": None}


def files_ahead(path: Path) -> list[str]:
    return [file.name for file in (path / "db").glob("ahead-*")]


async def append_blocks(core: Core, *, at_once: bool = False) -> None:
    await core.append([b"before"], local={b"changed": b"1", b"gone": b"1"})
    if at_once:
        await core.append(BLOCKS, local=ROWS)
    else:
        await core.append_pieces(pieces(1), local=ROWS, expected_bytes=MUCH)


async def test_the_store_is_as_after_one_append(tmp_path: Path) -> None:
    for at_once in (True, False):
        path = tmp_path / str(at_once)
        async with open_corestore(path, primary_key=bytes(32)) as store:
            core = await store.get(name="log")
            await append_blocks(core, at_once=at_once)
            await core.append(b"after")
            assert verify_core(store.storage, core.discovery_key) == LONG + 2
            assert files_ahead(path) == []
    assert rows_of_directory(tmp_path / "True") == rows_of_directory(tmp_path / "False")


async def test_many_small_blocks_whose_tree_is_as_large(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        small = [b"%d" % number for number in range(70_000)]
        await core.append_pieces(
            (small[start : start + 97] for start in range(0, 70_000, 97)), expected_bytes=MUCH
        )
        assert verify_core(store.storage, core.discovery_key) == len(small)
        assert await core.get_many(range(len(small))) == small


async def test_more_than_one_table_takes(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.append_pieces(
            ([b"%d " % number * 200_000] for number in range(80)), expected_bytes=MUCH
        )
        assert verify_core(store.storage, core.discovery_key) == 80
        assert files_ahead(tmp_path) == []


async def test_a_log_that_was_cut(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await append_blocks(core)
        await core.truncate(0)
        await append_blocks(core)
        assert await core.get_many(range(1, core.length)) == BLOCKS
        assert verify_core(store.storage, core.discovery_key) == LONG + 1


async def test_two_at_once_beside_a_compaction(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        cores = [await store.get(name=name) for name in ("one", "two")]
        async with trio.open_nursery() as nursery:
            for core in cores:
                nursery.start_soon(append_blocks, core)
            nursery.start_soon(store.reclaim)
        for core in cores:
            assert verify_core(store.storage, core.discovery_key) == LONG + 1
        assert files_ahead(tmp_path) == []


async def test_cancelled_at_each_step_nothing_was_appended(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")

        async def append() -> None:
            assert core.length == 0
            assert files_ahead(tmp_path) == []
            await core.append_pieces(pieces(0), expected_bytes=MUCH)

        assert await cancel_everywhere(append) > 10
        assert await core.get_many(range(core.length)) == [block_of(n) for n in range(LONG)]


async def test_who_has_no_more_pieces_to_give(tmp_path: Path) -> None:
    def failing() -> Iterator[list[bytes]]:
        yield from pieces(0)
        assert files_ahead(tmp_path)
        raise RuntimeError("no more")

    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        with pytest.raises(RuntimeError, match="no more"):
            await core.append_pieces(failing(), expected_bytes=MUCH)
        assert core.length == 0
        assert files_ahead(tmp_path) == []


async def test_a_suspended_store_is_left_without_such_files(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        is_ahead = trio.Event()

        def slow() -> Iterator[list[bytes]]:
            for piece in pieces(0):
                yield piece
                if files_ahead(tmp_path):
                    is_ahead.set()
            yield from ([b"more"] for _ in range(1_000))

        async def append() -> None:
            with pytest.raises(StoreSuspended):
                await core.append_pieces(slow(), expected_bytes=MUCH)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            await is_ahead.wait()
            await store.suspend()
            assert files_ahead(tmp_path) == []
        await store.resume()
        assert await core.append_pieces(pieces(0), expected_bytes=MUCH) == 0


def test_a_batch_may_be_given_up_while_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who closes the database does it in a thread, and who was writing finds it closed."""
    batch = TableBatch(tmp_path, [b"a", b"b"])
    for key in (b"a1", b"b1"):
        batch.put(key, b"row")
    batch.settle()
    files = [*tmp_path.glob("ahead-*")]
    assert len(files) == 2
    unlink = Path.unlink

    def unlink_meanwhile(path: Path, missing_ok: bool = False) -> None:
        monkeypatch.undo()
        batch.close()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_meanwhile)
    batch.lose()
    assert not any(file.exists() for file in files)


@contextmanager
def small_files() -> Iterator[None]:
    """No file can grow beyond 2 MiB."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_where_there_is_no_room_for_them_the_store_goes_on(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        with small_files(), pytest.raises(StorageFailed, match="cannot be written"):
            await core.append_pieces(pieces(0), expected_bytes=MUCH)
        assert core.length == 0
        assert files_ahead(tmp_path) == []
        assert await core.append(b"short") == 0
        assert await core.append_pieces(pieces(0), expected_bytes=MUCH) == 1


# --- crashes -------------------------------------------------------------------------------------


def command(path: Path, durability: str, *death: object) -> list[str]:
    program = [sys.executable, "-m", "tests.support.long_writer", str(path), durability]
    return [*program, *map(str, death)]


@pytest.mark.parametrize(("calls", "step"), [(Calls.WRITE, 16), (Calls.SYNC, 6), (Calls.NAME, 2)])
def test_killed_at_a_call(tmp_path: Path, calls: Calls, step: int) -> None:
    library = build_shim(tmp_path)
    chance = random.Random(int(calls))
    found = set()
    for number in count(2, step):
        path = tmp_path / str(number)
        path.mkdir()
        done = subprocess.run(
            command(
                path / "store", "commit", int(calls), number, chance.choice(["before", "after"])
            ),
            stdout=subprocess.PIPE,
            cwd=_PROJECT,
            env=shim_environment(library, path),
            check=False,
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        found.add(trio.run(partial(check, path / "store", done.stdout, is_promised=True)))
    assert 1 in found


@pytest.mark.slow
@pytest.mark.parametrize("calls", [Calls.WRITE, Calls.SYNC, Calls.NAME])
def test_a_call_that_fails_once(tmp_path: Path, calls: Calls) -> None:
    """The list may name tables that RocksDB deletes, since it does not know that it does."""
    library = build_shim(tmp_path)
    number = 0
    while True:
        path = tmp_path / str(number)
        path.mkdir()
        done = subprocess.run(
            command(path / "store", "commit", int(calls), number, "never"),
            stdout=subprocess.PIPE,
            cwd=_PROJECT,
            env=shim_environment(library, path),
            check=True,
        )
        if not done.stdout:
            break
        found = trio.run(partial(check, path / "store", done.stdout, is_promised=True))
        assert found == LONG + 1
        shutil.rmtree(path)
        number += 3 if calls is Calls.WRITE else 1
    assert number > 5


def crash_moments(trace: list[tuple[Kind, bytes]]) -> Iterator[int]:
    """All around what becomes of the tables, and some others."""
    for position, (kind, data) in enumerate(trace):
        if kind is Kind.LINK or b"/ahead-" in data or position % 10 == 0:
            yield position + 1


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "commit"])
def test_a_power_cut_at_any_moment(tmp_path: Path, durability: str) -> None:
    live, trace, state = (tmp_path / name for name in ("live", "trace", "state"))
    live.mkdir()
    subprocess.run(
        command(live / "store", durability),
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=_PROJECT,
        env=shim_environment(build_shim(tmp_path), live, trace),
    )
    chance = random.Random(11)
    disk = Disk(live)
    traced = list(read_trace(trace))
    found = set()
    for position in crash_moments([(record.kind, record.data) for record in traced]):
        while disk.position < position:
            disk.apply(traced[disk.position])
        disk.leave(state, chance.choice(list(Survival)), chance)
        said = b"".join(disk.output)
        is_promised = durability == "commit"
        found.add(trio.run(partial(check, state / "store", said, is_promised=is_promised)))
        shutil.rmtree(state)
    assert {0, 1, LONG + 1} >= found >= {1, LONG + 1}


async def left_in_the_middle(path: Path) -> None:
    """A store with one block, as a process leaves it that is killed in a long append."""
    async with open_corestore(path / "whole", durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append(b"before")
        left = path / "left"

        def copying() -> Iterator[list[bytes]]:
            yield from pieces(0)
            shutil.copytree(path / "whole", left)
            (left / "CORESTORE").unlink()  # it was copied, and is the one now

        await core.append_pieces(copying(), expected_bytes=MUCH)


async def test_what_a_crash_left_is_deleted_and_only_by_who_may_write(tmp_path: Path) -> None:
    await left_in_the_middle(tmp_path)
    left = tmp_path / "left"
    assert files_ahead(left)
    async with open_corestore(left, read_only=True) as store:
        assert (await store.get(name="log")).length == 1
    assert files_ahead(left)
    async with open_corestore(left) as store:
        assert files_ahead(left) == []
        assert (
            await (await store.get(name="log")).append_pieces(pieces(1), expected_bytes=MUCH) == 1
        )


# --- where RocksDB's list of its tables is lost or wrong -----------------------------------------


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_the_list_of_the_files_is_lost(tmp_path: Path, is_replaced: bool) -> None:
    """It alone numbers the rows that were taken over."""
    expected = [b"before", *BLOCKS]
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        log = await store.get(name="log")
        await append_blocks(log)
        if is_replaced:
            await log.truncate(40)
            await log.append([b"another history"] * 20)
            expected[40:] = [b"another history"] * 20
    for manifest in (tmp_path / "db").glob("MANIFEST-*"):
        manifest.unlink()
    salvage(tmp_path)
    async with open_corestore(tmp_path) as store:
        log = await store.get(name="log")
        assert await log.get_many(range(log.length)) == expected
        assert dict(log.local_items(b"", b"\xff")) == {b"new": b"1", b"changed": b"2"}
        assert verify_core(store.storage, log.discovery_key) == log.length


async def test_the_list_is_lost_and_a_table_cut_off(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        await append_blocks(await store.get(name="log"))
    largest = max((tmp_path / "db").glob("*.sst"), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    for manifest in (tmp_path / "db").glob("MANIFEST-*"):
        manifest.unlink()
    (gap,) = salvage(tmp_path).gaps
    assert gap.reason == f"the list of the tables is lost; {largest.name} cannot be read"


async def test_a_list_that_was_cut_off_loses_nothing(tmp_path: Path) -> None:
    path, copy = tmp_path / "store", tmp_path / "copy"
    async with open_corestore(path, durability=Durability.OS) as store:
        await append_blocks(await store.get(name="log"))
        shutil.copytree(path, copy)
    manifest = next((copy / "db").glob("MANIFEST-*"))
    content = manifest.read_bytes()
    outcomes = set()
    for stop in [record.stop for record in records(content)]:
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.copytree(copy, tmp_path / "cut")
        (tmp_path / "cut" / "CORESTORE").unlink()
        os.truncate(tmp_path / "cut" / "db" / manifest.name, stop)
        try:
            async with open_corestore(tmp_path / "cut") as store:
                outcomes.add((await store.get(name="log")).length)
        except CorruptStorage:
            outcomes.add(-1)
    assert outcomes == {-1, LONG + 1}


async def test_a_turned_bit_of_the_list_is_told_beside_such_files(tmp_path: Path) -> None:
    """With some RocksDB looks for the rest of a record for ever."""
    await left_in_the_middle(tmp_path)
    (manifest,) = (tmp_path / "left" / "db").glob("MANIFEST-*")
    content = manifest.read_bytes()
    last = [record.start for record in records(content)][-1]
    for offset in range(last, last + 8):
        for bit in range(8):
            data = bytearray(content)
            data[offset] ^= 1 << bit
            manifest.write_bytes(data)
            with pytest.raises(CorruptStorage, match="bit"):
                async with open_corestore(tmp_path / "left"):
                    pass
    manifest.write_bytes(content)
    async with open_corestore(tmp_path / "left") as store:
        assert (await store.get(name="log")).length == 1
