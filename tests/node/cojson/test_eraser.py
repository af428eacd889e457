"""The pace of erasing, and that nothing of a deleted value is left on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from bee.bee import Bee
from hypercore.corestore import open_corestore
from hypercore.storage import Durability
from node.cojson.eraser import PAUSE_SECONDS, RECLAIM_SHARE, START_SECONDS, Eraser
from node.cojson.group_reading import DeletionJudge
from node.cojson.host import open_sync_host
from node.cojson.host_options import HostOptions
from node.covalue.bee_store import BeeStore
from node.covalue.content import Transaction
from node.covalue.hybrid_store import open_hybrid_store
from node.covalue.ids import RawCoId
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import CoValueStore, Erased, SessionSize
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.data_log import DataLog

ANN = Author("ann")
IDS = [map_header(str(number)).id for number in range(4)]


class PendingStore(BeeStore):
    """Says what is pending; erasing takes a second, reclaiming ten."""

    def __init__(self, pending: list[RawCoId]) -> None:
        log = DataLog()
        super().__init__(Bee(log), log)
        self.pending = pending
        self.events: list[tuple[float, str]] = []

    async def pending_erasures(self) -> list[RawCoId]:
        return list(self.pending)

    async def erase(self, co_id: RawCoId) -> Erased:
        await trio.sleep(1)
        self.pending.remove(co_id)
        self.events.append((trio.current_time(), co_id))
        return Erased({ANN.session_id(): SessionSize(3, 30)})

    async def reclaim(self) -> None:
        await trio.sleep(10)
        self.events.append((trio.current_time(), "reclaim"))


async def allowed(_: RawCoId) -> bool:
    return True


async def test_what_was_left_is_erased_at_the_start_and_the_rest_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PendingStore(IDS[:2])
    eraser = Eraser(store, lambda: allowed)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(eraser.run)
        await trio.sleep(20)
        store.pending += IDS[2:]
        eraser.wake()
        await trio.sleep(10 * RECLAIM_SHARE + PAUSE_SECONDS * 3)
        nursery.cancel_scope.cancel()
    times = [(round(time - begun), event) for time, event in store.events]
    start = START_SECONDS + 1
    later = 20 + PAUSE_SECONDS + 1
    assert times[:5] == [
        (start, IDS[0]),
        (start + 1, IDS[1]),
        (start + 11, "reclaim"),
        (later, IDS[2]),
        (later + 1, IDS[3]),
    ]
    (again,) = times[5:]
    assert again[0] >= start + 11 + 10 * RECLAIM_SHARE
    assert eraser.erased_values == 4


async def test_nothing_is_erased_while_our_own_log_is_being_fetched_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 40198: a deleted value was called damaged, of which a block was on its way."""
    log = DataLog()
    store = BeeStore(Bee(log), log)
    asked: list[RawCoId] = []

    async def note(co_id: RawCoId) -> bool:
        asked.append(co_id)
        return True

    group = group_header(ANN.account_id)
    secret = map_header("secret", group.id)
    founding = [role(ANN.account_id, "admin")]
    contents = [ANN.account(), ANN.content(group, founding), ANN.content(secret, edits(3))]
    async with open_sync_host(store, HostOptions(erases=False)) as host:
        await host.receive_content("test", contents)
        await host.receive_content("test", [ANN.deletion(secret)])
    eraser = Eraser(store, lambda: note)
    async with trio.open_nursery() as nursery, log.exclusive():
        nursery.start_soon(eraser.erase_pending)
        await trio.testing.wait_all_tasks_blocked()
        assert asked == []
    assert asked == [secret.id]
    assert eraser.erased_values == 1


async def test_what_is_no_deletion_any_more_is_not_erased(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PendingStore(IDS[:2])

    async def is_second(co_id: RawCoId) -> bool:
        return co_id == IDS[1]

    await Eraser(store, lambda: is_second).erase_pending()
    assert store.pending == IDS[:1]


@asynccontextmanager
async def bee_store(path: Path) -> AsyncIterator[CoValueStore]:
    async with open_corestore(path / "corestore", durability=Durability.OS) as store:
        core = await store.get(name="data")
        yield BeeStore(Bee(core), core, store.reclaim)
        await core.close()


@asynccontextmanager
async def sqlite_store(path: Path) -> AsyncIterator[CoValueStore]:
    async with open_sqlite_store(path / "covalues.sqlite", Durability.OS) as store:
        yield store


@asynccontextmanager
async def hybrid_store(path: Path) -> AsyncIterator[CoValueStore]:
    async with (
        open_corestore(path / "corestore", durability=Durability.OS) as corestore,
        open_sqlite_store(path / "covalues.sqlite", Durability.OS) as sqlite,
    ):
        core = await corestore.get(name="data")
        bee = BeeStore(Bee(core), core, corestore.reclaim)
        async with open_hybrid_store(sqlite, bee) as store:
            yield store
        await core.close()


@pytest.mark.parametrize("open_store", [bee_store, sqlite_store, hybrid_store])
async def test_no_file_holds_anything_of_an_erased_value(
    tmp_path: Path, open_store: object
) -> None:
    assert callable(open_store)
    group = group_header(ANN.account_id)
    secret, kept = map_header("secret", group.id), map_header("kept", group.id)
    founding = [role(ANN.account_id, "admin")]
    words = [Transaction(2000 + i, f'["the-secret-{i}"]') for i in range(400)]
    async with open_store(tmp_path) as store:
        async with open_sync_host(store, HostOptions(erases=False)) as host:
            await host.receive_content(
                "test",
                [
                    ANN.account(),
                    ANN.content(group, founding),
                    ANN.content(secret, words[:200]),
                    ANN.content(kept, edits(50)),
                    ANN.content(secret, words, after=200, with_header=False),
                ],
            )
            assert holders(tmp_path, b"the-secret-")
            receipt = await host.receive_content("test", [ANN.deletion(secret)])
            assert receipt.accepted == {secret.id}
            assert await store.pending_erasures() == [secret.id]
        await Eraser(store, lambda: DeletionJudge(store).is_valid).erase_pending()
        assert await store.pending_erasures() == []
        assert len((await store.load(kept.id)).pieces[0].new[ANN.session_id()].transactions) == 50
        value = await store.load_value(secret.id)
        assert value is not None
        assert list(value.sessions) == [ANN.delete_session_id()]
    assert holders(tmp_path, b"the-secret-") == []
    assert holders(tmp_path, kept.id.encode())


def holders(directory: Path, text: bytes) -> list[str]:
    """The files in which this text stands."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path.name for path in files if text in path.read_bytes()]
