"""Removing a core: what hypercore's test/purge.js asks, and what it would take today.

In 11.37.1 `purge` throws, and its tests are switched off; they look for the files that versions
before 11 had. Here a core's rows are looked for, and its bytes in every file of the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import Core, Corestore, Durability, KeyPair, UsageError, open_corestore
from hypercore.replication.messages import PROTOCOL
from hypercore.storage.layout import (
    CoreGroup,
    CoreRecord,
    DataKeys,
    core_group_key,
    core_key,
    group_update_key,
    sessions_key,
)
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.storage_rows import all_rows, verify_core
from tests.support.stream_pair import open_mux_pair

SECRET = b"nobody is to find this "


@pytest.fixture(params=["memory", "disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    path = None if request.param == "memory" else tmp_path
    async with open_corestore(path, durability=Durability.OS) as opened:
        yield opened


async def filled(store: Corestore, name: str) -> Core:
    core = await store.get(name=name, user_data={"note": SECRET})
    await core.append([SECRET + b"%d" % index for index in range(20)])
    await core.append(SECRET * 500)
    await core.write_local({b"row": SECRET})
    await core.set_user_data("more", SECRET)
    async with core.marking() as marks:
        marks.add(3)
    return core


async def test_nothing_remains(store: Corestore) -> None:
    """basic purge."""
    before = all_rows(store.storage)
    core = await filled(store, "log")
    assert core.key_pair is not None
    assert await store.purge(name="log")
    assert core.is_closed
    rows = all_rows(store.storage)
    # The counters stay above the pointers that were in use: they are never used again.
    assert set(rows) == set(before)
    for value in rows.values():
        for trace in (SECRET, core.key, core.discovery_key, core.key_pair.secret_key):
            assert trace not in value
    assert store.names() == []
    assert store.discovery_keys() == []
    assert await store.find(core.discovery_key) is None
    assert not await store.purge(name="log")
    assert not await store.purge(key=core.key)


async def test_all_users_see_it_closed(store: Corestore) -> None:
    """purge closes all sessions."""
    core = await filled(store, "log")
    same = await store.get(key=core.key)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await same.wait_length(100)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await store.purge(discovery_key=core.discovery_key)
    for user in (core, same):
        assert user.is_closed
        with pytest.raises(trio.ClosedResourceError):
            await user.append(b"x")
        await user.close()


async def test_the_name_may_be_used_again(store: Corestore) -> None:
    core = await filled(store, "log")
    neighbor = await filled(store, "neighbor")
    await store.purge(name="log")
    again = await store.get(name="log")
    assert (again.length, again.key) == (0, core.key)
    assert again.get_user_data("note") is None
    assert again.get_local_value(b"row") is None
    await again.append(b"anew")
    assert verify_core(store.storage, again.discovery_key) == 1
    assert verify_core(store.storage, neighbor.discovery_key) == 21
    assert neighbor.get_local_value(b"row") == SECRET


async def test_no_file_holds_its_bytes_after_reclaiming(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await filled(store, "log")
        kept = await store.get(name="kept")
        await kept.append(b"this stays " * 500)
        assert core.key_pair is not None
        traces = [SECRET, core.key, core.key_pair.secret_key, core.head.tree_hash]
        await store.purge(name="log")
        await store.reclaim()
        assert await kept.get(0) == b"this stays " * 500
    # Opened anew, RocksDB writes its manifest anew: it names first and last keys of old tables.
    async with open_corestore(tmp_path) as store:
        assert store.names() == ["kept"]
    files = contents_of(tmp_path)
    assert any(b"this stays this stays" in content for content in files)
    for trace in traces:
        assert not any(trace in content for content in files)


def contents_of(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.rglob("*") if file.is_file()]


async def test_channels_to_peers_end_and_others_stay() -> None:
    async with (
        open_corestore(None) as ours,
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        doomed, kept = await filled(ours, "doomed"), await filled(ours, "kept")
        copies = [await theirs.get(key=core.key) for core in (doomed, kept)]
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            for copy in copies:
                await copy.get(0)
            await ours.purge(name="doomed")
            await trio.testing.wait_all_tasks_blocked()
            assert [len(copy.replication.peers) for copy in copies] == [0, 1]
            assert await copies[1].get(19) == SECRET + b"19"
            assert copies[0].get_local(0) == SECRET + b"0", "what peers have is theirs"
            again = await ours.get(name="doomed")
            await again.append(b"another history")
        nursery.cancel_scope.cancel()


async def test_a_cancelled_purge_is_whole_or_nothing(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        neighbor = await filled(store, "neighbor")

        async def purge() -> None:
            core = await filled(store, "log")
            await store.purge(key=core.key)

        await cancel_everywhere(purge)
        assert store.names() == ["neighbor"]
        assert verify_core(store.storage, neighbor.discovery_key) == 21


async def test_which_core(store: Corestore) -> None:
    with pytest.raises(UsageError, match="which core"):
        await store.purge()
    inner = store.namespace("inner")
    core = await filled(inner, "log")
    assert not await store.purge(name="log")
    assert not core.is_closed
    assert await inner.purge(name="log")
    pair = KeyPair.from_seed(bytes(32))
    by_pair = await store.get(key_pair=pair)
    assert await store.purge(key=by_pair.key)


async def test_overwriting_begins_anew(store: Corestore) -> None:
    core = await filled(store, "log")
    again = await store.get(name="log", overwrite=True, user_data={"note": b"new"})
    assert core.is_closed
    assert (again.length, again.key) == (0, core.key)
    assert again.get_user_data("note") == b"new"
    new = await store.get(name="new", overwrite=True)
    assert new.length == 0
    copy = await store.get(key=again.key, overwrite=True)
    assert (copy.length, copy.is_writable) == (0, False)


# --- what JavaScript may have kept beside a core -------------------------------------------------


def put(store: Corestore, key: bytes, value: bytes) -> None:
    batch = store.storage.batch()
    batch.put(key, value)
    store.storage.commit(batch)


def record_of(store: Corestore, core: Core) -> CoreRecord:
    return CoreRecord.decode(store.storage.get(core_key(core.discovery_key)) or b"")


async def test_drafts_and_group_updates_go_too(store: Corestore) -> None:
    before = set(all_rows(store.storage))
    core = await filled(store, "log")
    pointer = record_of(store, core).core_pointer
    put(store, sessions_key(pointer), b"\x01\x05draft\x09")
    put(store, DataKeys(9).block(0), SECRET)
    put(store, core_group_key(pointer), CoreGroup(bytes(32), 4).encode())
    others = {
        group_update_key(4, 5000, pointer + 1): b"another core",
        group_update_key(3, 5000, pointer): b"another group",
    }
    for key, value in {**others, group_update_key(4, 5000, pointer): core.key}.items():
        put(store, key, value)
    await store.purge(name="log")
    assert set(all_rows(store.storage)) == before | set(others)


async def test_rows_that_another_core_shares_stay(store: Corestore) -> None:
    """Corestore's staticify makes a second core of the same rows."""
    core = await filled(store, "log")
    record = record_of(store, core)
    other_key = bytes(32)
    put(store, core_key(other_key), CoreRecord(record.core_pointer, record.data_pointer).encode())
    rows = all_rows(store.storage)
    await store.purge(name="log")
    gone = set(rows) - set(all_rows(store.storage))
    assert {key[:1] for key in gone} == {b"\x01", b"\x02"}
    await store.purge(discovery_key=other_key)
    assert len(all_rows(store.storage)) == 1


async def test_a_draft_upon_its_blocks_protects_a_core(store: Corestore) -> None:
    core, other = await filled(store, "log"), await filled(store, "other")
    pointer = record_of(store, core).data_pointer
    put(store, DataKeys(record_of(store, other).data_pointer).dependency, bytes((pointer, 5)))
    rows = all_rows(store.storage)
    with pytest.raises(UsageError, match="draft"):
        await store.purge(name="log")
    assert all_rows(store.storage) == rows
    assert not core.is_closed
