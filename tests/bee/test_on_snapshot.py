"""A bee on a snapshot of its core: it reads one history, whatever becomes of the log."""

from __future__ import annotations

import pytest
import trio

from bee import Bee, FrozenLog
from bee.errors import HistoryReplaced
from hypercore import NotWritable, SnapshotNotAvailable, open_corestore
from tests.support.replicating_cores import replicating


async def test_a_bee_of_an_old_history() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        for number in range(300):
            await bee.put(b"%03d" % number, b"old")
        version = bee.snapshot()
        async with core.snapshot() as snapshot, await core.checkout(101) as checkout:
            old, older = Bee(FrozenLog(snapshot)), Bee(FrozenLog(checkout))
            await core.truncate(50)
            for number in range(300):
                await bee.put(b"%03d" % number, b"new")
            with pytest.raises(HistoryReplaced):
                await version.get(b"200")
            entry = await old.get(b"200")
            assert entry is not None
            assert entry.value == b"old"
            assert len([entry async for entry in old.range()]) == 300
            assert len([entry async for entry in older.range()]) == 100
            assert [entry.key async for entry in older.checkout(11).range()] == [
                b"%03d" % number for number in range(10)
            ]
            differences = [item async for item in old.snapshot().diff(101)]
            assert len(differences) == 200
            assert old.version == 301
        entry = await bee.get(b"200")
        assert entry is not None
        assert entry.value == b"new"


async def test_a_bee_on_a_snapshot_does_not_write() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        await Bee(core).put(b"a", b"1")
        async with core.snapshot() as snapshot:
            bee = Bee(FrozenLog(snapshot))
            assert not bee.is_writable
            for call in (
                lambda: bee.put(b"a", b"2"),
                lambda: bee.delete(b"a"),
                lambda: bee.compact(),
                lambda: bee.erase(gte=b"a"),
            ):
                with pytest.raises(NotWritable):
                    await call()
        assert core.length == 2


async def test_a_bee_on_a_snapshot_of_a_copy() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        bee = Bee(core)
        for number in range(300):
            await bee.put(b"%03d" % number, b"old")
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(301)
            async with copy.snapshot() as snapshot:
                old = Bee(FrozenLog(snapshot))
                first = await old.get(b"007")
                await core.truncate(50)
                await bee.put(b"007", b"new")
                while copy.fork == 0:
                    await trio.testing.wait_all_tasks_blocked()
                assert first == await Bee(FrozenLog(snapshot)).get(b"007")
                with pytest.raises(SnapshotNotAvailable):
                    [entry async for entry in old.range()]
