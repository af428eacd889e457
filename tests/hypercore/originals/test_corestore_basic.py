"""Many cores in one store: what corestore's test/basic.js asks, and what else a store promises.

Without a counterpart: the options `treeCache` and `globalCache` (each log has a small bounded
cache of its own), "finding peers" (`Core.update` waits for peers that are connecting), "session
pre ready" (nothing is half open here), "can set default manifest" and the version 0 half of
"named cores are stable" (names give manifests of version 1; another one is given as such), "open
by discovery key" with a key (that is `get` by key), "open pushOnly" (replication's own tests).
"audit" is `tests.support.storage_rows.verify_core` here, which all of these tests use.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    CopiedStore,
    Core,
    Corestore,
    CorruptStorage,
    Durability,
    KeyPair,
    Manifest,
    NoSuchCore,
    NotWritable,
    StorageFailed,
    StoreLocked,
    StoreSuspended,
    UsageError,
    open_corestore,
)
from hypercore.replication.messages import PROTOCOL
from hypercore.storage.layout import ROOT_NAMESPACE, auth_key
from hypercore.storage.rocks import RocksStorage
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.line_process import open_line_process
from tests.support.storage_rows import verify_core
from tests.support.stream_pair import open_mux_pair

PAIR = KeyPair.from_seed(b"\x05" * 32)
ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["memory", "disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    path = None if request.param == "memory" else tmp_path / "store"
    async with open_corestore(path, durability=Durability.OS) as opened:
        yield opened


async def filled(store: Corestore, name: str, count: int = 3) -> Core:
    core = await store.get(name=name)
    await core.append([b"%s %d" % (name.encode(), index) for index in range(count)])
    return core


# --- opening cores -------------------------------------------------------------------------------


async def test_one_name_one_core(store: Corestore) -> None:
    """basic; basic non parallel."""
    one = await store.get(name="test")
    other = await store.get(name="test")
    await one.append(b"x")
    assert (one.key, one.length) == (other.key, other.length)
    assert one.manifest is not None
    assert len(one.manifest.signers) == 1
    assert one.key != one.manifest.signers[0].public_key


async def test_a_given_primary_key(tmp_path: Path) -> None:
    """pass primary key."""
    primary_key = b"\x01" * 32
    keys = []
    for path in (tmp_path / "one", tmp_path / "other"):
        async with open_corestore(path, primary_key=primary_key) as store:
            assert store.primary_key == primary_key
            keys.append((await store.get(name="test")).key)
    assert keys[0] == keys[1]
    async with open_corestore(tmp_path / "one") as store:
        assert store.primary_key == primary_key


async def test_names_are_stable(tmp_path: Path) -> None:
    """named cores are stable; manifest is persisted."""
    manifest = Manifest.single_signer(PAIR.public_key)
    async with open_corestore(tmp_path) as store:
        named = (await store.get(name="test")).manifest
        by_key = await store.get(key=manifest.key)
        assert by_key.manifest is None
    async with open_corestore(tmp_path) as store:
        assert (await store.get(name="test")).manifest == named
        assert (await store.get(manifest=manifest)).key == manifest.key


async def test_a_key_is_known_at_once(store: Corestore) -> None:
    """if key is passed, its available immediately."""
    assert (await store.get(key=bytes(32))).key == bytes(32)


async def test_by_discovery_key_only_what_is_stored(store: Corestore) -> None:
    """open by discovery key."""
    assert await store.find(bytes(32)) is None
    core = await store.get(key_pair=PAIR)
    found = await store.find(core.discovery_key)
    assert found is not None
    assert found.key == core.key


async def test_a_key_pair_beside_a_reader(store: Corestore) -> None:
    """basic - open with a keypair, read-only session concurrently opened."""
    manifest = Manifest.single_signer(PAIR.public_key)
    core = await store.get(key=manifest.key, key_pair=PAIR, manifest=manifest)
    assert core.manifest == manifest
    assert core.is_writable
    assert (await store.get(key=manifest.key)).manifest == manifest


async def test_only_what_is_there(store: Corestore) -> None:
    with pytest.raises(NoSuchCore, match="no core named 'log'"):
        await store.get(name="log", create_if_missing=False)
    with pytest.raises(NoSuchCore, match="no core with key 00"):
        await store.get(key=bytes(32), create_if_missing=False)
    with pytest.raises(NoSuchCore, match="no core with key"):
        await store.get(key_pair=PAIR, create_if_missing=False)
    assert store.discovery_keys() == []
    core = await filled(store, "log")
    assert (await store.get(name="log", create_if_missing=False)).length == 3
    assert (await store.get(key=core.key, create_if_missing=False)).length == 3


async def test_replicates(store: Corestore) -> None:
    """replicates."""
    core = await filled(store, "foo")
    async with (
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        clone = await theirs.get(key=core.key)
        nursery.start_soon(store.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            assert await clone.get(0) == b"foo 0"
        nursery.cancel_scope.cancel()


# --- several users of one store ------------------------------------------------------------------


async def test_a_session_closes_what_was_opened_through_it(store: Corestore) -> None:
    """session of hypercore sessions are tracked in corestore sessions."""
    shared = await store.get(name="shared")
    async with store.session() as session:
        mine = await session.get(name="mine")
        inner = await session.namespace("inner").get(name="mine")
        found = await session.find(inner.discovery_key)
        assert found is not None
        await (await session.get(name="shared")).append(b"by the session")
        async with store.session() as other:
            kept = await other.get(name="mine")
            await kept.append(b"by another one")
    assert inner.is_closed
    for closed in (session, session.namespace("inner")):
        with pytest.raises(trio.ClosedResourceError):
            await closed.get(name="mine")
    assert not shared.is_closed
    assert await shared.get(0) == b"by the session"
    assert [core.discovery_key for core in store.open_cores()] == [shared.discovery_key]
    again = await store.get(name="mine")
    assert again.key == mine.key
    assert await again.get(0) == b"by another one"


async def test_a_session_closes_what_was_made_of_what_it_opened(store: Corestore) -> None:
    """session of hypercore sessions are tracked in corestore sessions."""
    shared = await store.get(name="log")
    await shared.append(b"x")
    async with store.session() as session:
        core = await session.get(name="log")
        one = core.session()
        two = one.session()
        snapshot, checkout = two.snapshot(), await two.checkout(1)
    for made in (one, two, snapshot, checkout):
        with pytest.raises(trio.ClosedResourceError):
            await made.get(0)
    assert await shared.session().get(0) == b"x"


async def test_a_session_with_a_core_that_another_user_has(store: Corestore) -> None:
    async with store.session() as one, store.session() as other:
        await one.get(name="log")
        async with store.session() as brief:
            await (await brief.get(name="log")).append(b"x")
        core = await other.get(name="log")
        assert (core.length, core.is_closed) == (1, False)
    assert store.open_cores() == []


async def test_nothing_is_left_of_closed_sessions(store: Corestore) -> None:
    """corestores set does not grow; namespace sessions are removed from corestores set on close."""
    for number in range(100):
        async with store.session() as session:
            for name in ("log", f"{number}"):
                await session.namespace("inner").get(name=name)
    assert store.open_cores() == []
    async with store.session() as session:
        for number in range(300):
            core = await session.get(name=f"{number}")
            if number % 2:
                await core.close()
        assert len(store.open_cores()) == 150
    assert store.open_cores() == []


# --- listing and watching ------------------------------------------------------------------------


async def test_listing(store: Corestore) -> None:
    """list stream."""
    inner = store.namespace("test")
    cores = [await filled(store, f"core{number}", number) for number in range(5)]
    cores += [await filled(inner, f"core{number}", number) for number in range(5, 10)]
    foreign = await store.get(key=bytes(32))
    await cores[4].truncate(2)
    await cores[9].clear(1, 4)
    listed = {summary.discovery_key: summary async for summary in store.cores()}
    assert set(listed) == {core.discovery_key for core in (*cores, foreign)}
    for number, core in enumerate(cores):
        summary = listed[core.discovery_key]
        assert (summary.name, summary.key) == (f"core{number}", core.key)
        assert summary.namespace == (ROOT_NAMESPACE if number < 5 else summary.namespace)
        assert (summary.length, summary.fork) == (core.length, core.fork)
        assert summary.byte_length == core.byte_length
        assert summary.blocks_held == core.info().blocks_held
        assert summary.has_secret_key
        assert (summary.changed_unix_ms > 1_600_000_000_000) == (number > 0)
    unnamed = listed[foreign.discovery_key]
    assert (unnamed.name, unnamed.namespace, unnamed.has_secret_key) == (None, None, False)
    async for _ in store.cores():
        break  # a generator would be warned of
    gc.collect()
    here = [summary.name async for summary in inner.cores(is_here=True)]
    assert sorted(name or "" for name in here) == [f"core{number}" for number in range(5, 10)]
    assert [summary async for summary in store.namespace("empty").cores(is_here=True)] == []


async def test_listing_names_the_damaged_core(store: Corestore) -> None:
    core = await filled(store, "log")
    batch = store.storage.batch()
    batch.delete(auth_key(0))
    store.storage.commit(batch)
    with pytest.raises(CorruptStorage, match=core.discovery_key.hex()[:16]):
        _ = [summary async for summary in store.cores()]


async def test_listing_while_cores_go(store: Corestore) -> None:
    for number in range(100):
        await store.get(name=f"{number}")
    seen = 0
    async for summary in store.cores():
        seen += 1
        if seen == 1:
            assert summary.name is not None
            for number in range(100):
                if f"{number}" != summary.name:
                    await store.purge(name=f"{number}")
    assert 1 <= seen < 100


async def test_watching_cores_open(tmp_path: Path) -> None:
    """weak ref to react to cores opening; watchers are cleared when store is closed."""
    seen: list[bytes] = []
    async with trio.open_nursery() as nursery, open_corestore(tmp_path) as store:
        cores = store.watch()
        first = await store.get(name="before the first step")

        async def note() -> None:
            async for core in cores:
                seen.append(core.key)  # noqa: PERF401  # it is looked at while it grows

        nursery.start_soon(note)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [first.key]
        await store.get(name="before the first step")
        other = await store.namespace("inner").get(name="other")
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [first.key, other.key]
        await other.close()
        assert other.is_closed, "watching keeps nothing open"
        again = await store.namespace("inner").get(name="other")
        await again.close()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [first.key, other.key], "closed before its turn"
        await store.namespace("inner").get(name="other")
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [first.key, other.key, other.key]
        # The store is closed: the iteration ends, and with it the nursery.


# --- who may write, and who has it open ----------------------------------------------------------


async def test_beside_a_writer(tmp_path: Path) -> None:
    """open readOnly."""
    async with open_corestore(tmp_path, durability=Durability.OS) as writer:
        await filled(writer, "log")
        assert not writer.is_read_only
        assert writer.why_read_only == ""
        async with open_corestore(tmp_path, read_only=True) as reader:
            assert reader.is_read_only
            assert "read-only" in reader.why_read_only
            await reader.suspend()
            await reader.resume()
            assert reader.is_read_only
            assert (await reader.get(name="log")).length == 3
            with pytest.raises(NoSuchCore, match="read-only"):
                await reader.get(name="new")


async def test_a_copied_directory_is_for_reading_and_says_why(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    async with open_corestore(original) as store:
        await filled(store, "log")
    shutil.copytree(original, copy)
    async with open_corestore(copy) as store:
        assert store.is_read_only
        assert "was copied" in store.why_read_only
        assert str(copy / "CORESTORE") in store.why_read_only
        core = await store.get(name="log")
        assert await core.get(2) == b"log 2"
        assert not core.is_writable
        with pytest.raises(NotWritable, match="was copied"):
            await core.append(b"x")
        with pytest.raises(UsageError, match="was copied"):
            await core.write_local({b"k": b"v"})
    with pytest.raises(CopiedStore, match="was copied"):
        async with open_corestore(copy, read_only=False):
            pass
    remove(copy / "CORESTORE")
    async with open_corestore(copy, read_only=False) as store:
        await filled(store, "log")


def remove(path: Path) -> None:
    path.unlink()


async def test_who_holds_the_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys, trio; from pathlib import Path; from hypercore import open_corestore\n"
        "async def hold():\n"
        "    async with open_corestore(Path(sys.argv[1])):\n"
        "        print(os.getpid(), flush=True); sys.stdin.read()\n"
        "trio.run(hold)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    async with open_line_process(command, ROOT) as holder:
        process = await holder.read()
        with pytest.raises(StoreLocked) as caught:
            async with open_corestore(tmp_path):
                pass
        facts = caught.value.holder
        assert facts.startswith(f"process {process} ({sys.executable} -c import os")
        assert "running since 20" in facts
    async with open_corestore(tmp_path):
        pass


# --- suspending ----------------------------------------------------------------------------------


async def change(store: Corestore, core: Core) -> None:
    async with store.atom(core) as atom:
        atom[core].append(b"x")


async def test_suspended_nothing_is_read_or_written(store: Corestore) -> None:
    core = await filled(store, "log")
    await core.set_user_data("note", b"kept")
    await store.suspend()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: core.append(b"x"),
        lambda: core.get(0),
        lambda: core.truncate(1),
        lambda: core.clear(0, 1),
        lambda: core.write_local({b"k": b"v"}),
        lambda: core.set_user_data("note", b"other"),
        lambda: core.sweep(),
        lambda: store.get(name="other"),
        lambda: store.purge(name="log"),
        lambda: store.reclaim(),
        lambda: change(store, core),
    ]
    for call in calls:
        with pytest.raises(StoreSuspended):
            await call()
    assert store.is_suspended
    await store.resume()
    await store.resume()
    assert core.length == 3
    assert await core.append(b"goes on") == 3
    assert core.get_user_data("note") == b"kept"
    assert verify_core(store.storage, core.discovery_key) == 4


async def test_another_process_writes_meanwhile(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core, gone = await filled(store, "log"), await filled(store, "gone")
        unchanged = await filled(store, "unchanged")
        head = unchanged.head
        await store.suspend()
        async with open_corestore(tmp_path) as other:
            await (await other.get(name="log")).append([b"theirs"] * 2)
            await (await other.get(name="made there")).append(b"new")
            await other.purge(name="gone")
            with pytest.raises(StoreLocked):
                await store.resume()
            assert store.is_suspended
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.wait_length, 5)
            await trio.testing.wait_all_tasks_blocked()
            await store.resume()
        assert await core.get(4) == b"theirs"
        assert await core.append(b"ours") == 5
        assert gone.is_closed
        assert unchanged.head is head
        made = await store.get(name="made here")
        await made.append(b"pointers of its own")
        for name, length in (("log", 6), ("made there", 1), ("made here", 1), ("unchanged", 3)):
            log = await store.get(name=name)
            assert verify_core(store.storage, log.discovery_key) == length


async def test_damage_found_on_resuming_stops_that_core_alone(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core, sound = await filled(store, "log"), await filled(store, "sound")
        await store.suspend()
        storage = RocksStorage(tmp_path, Durability.OS)
        batch = storage.batch()
        batch.delete(auth_key(0))
        storage.commit(batch)
        storage.close()
        await store.resume()
        assert list(store.statistics().failures) == [core.discovery_key]
        with pytest.raises(StorageFailed, match="keys are missing"):
            await core.append(b"x")
        await sound.append(b"x")


async def test_another_store_in_its_place_is_refused(tmp_path: Path) -> None:
    path, aside = tmp_path / "store", tmp_path / "aside"
    async with open_corestore(path) as store:
        await store.suspend()
        path.rename(aside)
        async with open_corestore(path):
            pass
        with pytest.raises(CorruptStorage, match="another store"):
            await store.resume()


async def test_peers_wait_for_a_suspended_store(tmp_path: Path) -> None:
    async with (
        open_corestore(tmp_path) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        core = await filled(ours, "log")
        copy = await theirs.get(key=core.key)
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            assert await copy.get(0) == b"log 0"
            await ours.suspend()
            await trio.testing.wait_all_tasks_blocked()
            assert core.replication.peers == ()
            nursery.start_soon(copy.download)
            await trio.testing.wait_all_tasks_blocked()
            await ours.resume()
            assert await copy.get(2) == b"log 2"
            await core.append(b"live")
            assert await copy.get(3) == b"live"
        nursery.cancel_scope.cancel()


async def test_suspending_can_be_cancelled_anywhere(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await filled(store, "log")

        async def pause() -> None:
            await store.resume()
            await core.append(b"x")
            await store.suspend()
            await store.resume()

        assert await cancel_everywhere(pause) > 1
        await store.resume()
        assert verify_core(store.storage, core.discovery_key) == core.length


# --- thousands -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_thousands_of_cores_with_few_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.many_cores", str(tmp_path), "3000", "256"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["files"] < 128
    assert report["bytes_per_core"] < 32_000
    assert report["seconds_to_open"] < 60  # 3 on a quiet machine


@pytest.mark.slow
async def test_a_thousand_cores_over_one_connection() -> None:
    count = 1000
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        cores = [await ours.get(name=f"{number}") for number in range(count)]
        async with ours.atom(*cores) as atom:
            for number, core in enumerate(cores):
                atom[core].append(b"%d" % number)
        copies = [await theirs.get(key=core.key) for core in cores]
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(60):
            for number, copy in enumerate(copies):
                assert await copy.get(0) == b"%d" % number
            await cores[-1].append(b"live")
            assert await copies[-1].get(1) == b"live"
        nursery.cancel_scope.cancel()
