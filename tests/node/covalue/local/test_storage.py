from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bee.bee import Bee
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.local.erasure_schedule import STARTUP_SECONDS, THROTTLE_SECONDS, Phase
from node.covalue.local.storage import LocalStorage, NotCorrected, open_local_storage
from node.covalue.local.sync_notes import BATCH_SECONDS
from node.covalue.reconciliation_lock import INTERVAL_MS, LockRefusal, ReconciliationLock
from node.covalue.store import Erased, StoredValue, ValueAppend
from node.errors import CorruptStore
from tests.support.authors import Author, edits, map_header
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.data_log import DataLog

ANN = Author("ann")
SESSION = ANN.session_id(as_agent=True)
DELETION = ANN.delete_session_id(as_agent=True)
HEADER = map_header("m")
ID = HEADER.id
ALL = edits(20)


class SlowStore(BeeStore):
    """A store whose operations can be held up, and which says what was asked of it."""

    def __init__(self) -> None:
        log = DataLog()
        super().__init__(Bee(log), log)
        self.looked_up: list[RawCoId] = []
        self.tracked: list[int] = []
        self.damaged: set[RawCoId] = set()
        self.gate = trio.Event()
        self.gate.set()

    def close_gate(self) -> trio.Event:
        self.gate = trio.Event()
        return self.gate

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        self.looked_up.append(co_id)
        await self.gate.wait()
        return await super().load_value(co_id)

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        await self.gate.wait()
        await super().store(appends)

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        await self.gate.wait()
        self.tracked.append(len(changes))
        await super().track_sync(changes)

    async def erase(self, co_id: RawCoId) -> Erased:
        if co_id in self.damaged:
            raise CorruptStore(co_id, "a test said so")
        await self.gate.wait()
        return await super().erase(co_id)


class Clock:
    unix_ms = 1_000_000

    def __call__(self) -> int:
        return self.unix_ms


@asynccontextmanager
async def _open(
    store: SlowStore | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[LocalStorage, SlowStore]]:
    store = store or SlowStore()
    async with open_local_storage(store, clock or Clock()) as storage:
        yield storage, store


def _content(after: int, stop: int, *, header: bool = False) -> Content:
    part = SessionContent(after, ALL[after:stop], stop.to_bytes(64, "big"))
    return Content(ID, HEADER if header else None, {SESSION: part})


def _value(number: int) -> Content:
    """Of a value of its own."""
    return ANN.content(map_header(str(number)), ALL[:3], as_agent=True)


def _deletion(co_id: RawCoId) -> Content:
    marker = Transaction(5, "[]", None, f'{{"deleted":"{co_id}"}}')
    return Content(co_id, None, {DELETION: SessionContent(0, [marker], ANN.sign([marker]))})


async def _no_correction(known: KnownState) -> None:
    raise AssertionError(f"asked for what is beyond {known}")


async def _delete(storage: LocalStorage, co_id: RawCoId) -> None:
    storage.mark_deletion_valid(co_id)
    await storage.store(_deletion(co_id), _no_correction)


def _known(count: int) -> KnownState:
    return KnownState(True, {SESSION: count})


# Storing.


async def test_what_is_stored_is_known_and_can_be_loaded() -> None:
    async with _open() as (storage, _):
        assert storage.known_state(ID) == NOTHING
        await storage.store(_content(0, 3, header=True), _no_correction)
        await storage.store(_content(3, 5), _no_correction)
        assert storage.known_state(ID) == _known(5)
        pieces = [piece async for piece in storage.load(ID)]
        assert pieces == [_content(0, 5, header=True)]
        assert storage.count() == 1
        assert storage.statistics().stored == 2


async def test_stale_content_changes_nothing() -> None:
    async with _open() as (storage, store):
        await storage.store(_content(0, 5, header=True), _no_correction)
        await storage.store(_content(0, 3, header=True), _no_correction)
        value = await store.load_value(ID)
        assert value is not None
        assert value.sessions[SESSION].signature == (5).to_bytes(64, "big")
        assert storage.statistics().stored == 1


async def test_a_gap_is_filled_by_the_caller_before_anything_else_is_stored() -> None:
    asked: list[KnownState] = []
    async with _open() as (storage, _):

        async def correct(known: KnownState) -> list[Content]:
            asked.append(known)
            nursery.start_soon(storage.store, _content(7, 9), _no_correction)
            await wait_all_tasks_blocked()
            return [_content(0, 4, header=True), _content(4, 7)]

        async with trio.open_nursery() as nursery:
            await storage.store(_content(5, 7), correct)
        assert asked == [NOTHING]
        assert storage.known_state(ID) == _known(9)
        assert storage.statistics().corrections == 1


async def test_the_caller_is_told_what_is_stored() -> None:
    async with _open() as (storage, _):
        await storage.store(_content(0, 2, header=True), _no_correction)

        async def correct(known: KnownState) -> list[Content]:
            assert known == _known(2)
            return [_content(2, 6)]

        await storage.store(_content(4, 6), correct)
        assert storage.known_state(ID) == _known(6)


async def test_a_gap_that_nobody_fills_is_the_callers_mistake() -> None:
    async def helpless(_: KnownState) -> None:
        return None

    async with _open() as (storage, _):
        await storage.store(_content(0, 2, header=True), _no_correction)
        with pytest.raises(NotCorrected, match="2 transactions stored") as caught:
            await storage.store(_content(4, 6), helpless)
        assert (caught.value.known, caught.value.is_second) == (_known(2), False)
        assert storage.known_state(ID) == _known(2)
        await storage.store(_content(2, 4), _no_correction)  # it goes on


async def test_a_correction_with_a_gap_is_not_corrected_again() -> None:
    async def correct(_: KnownState) -> list[Content]:
        return [_content(0, 2, header=True), _content(3, 6), _content(2, 6)]

    async with _open() as (storage, _):
        with pytest.raises(NotCorrected, match="correction") as caught:
            await storage.store(_content(5, 6), correct)
        assert caught.value.is_second
        assert storage.known_state(ID) == _known(2)  # what fitted before is kept


async def test_stores_go_one_after_the_other_in_the_order_of_their_calls() -> None:
    async with _open() as (storage, store), trio.open_nursery() as nursery:
        gate = store.close_gate()
        for after in range(5):
            content = _content(after, after + 1, header=after == 0)
            nursery.start_soon(storage.store, content, _no_correction)
            await wait_all_tasks_blocked()
        assert len(store.looked_up) == 1
        gate.set()
    assert store.looked_up == [ID] * 5


async def test_storages_that_share_a_turn_can_share_a_store() -> None:
    store, turn = SlowStore(), trio.Lock()
    async with (
        open_local_storage(store, Clock(), turn) as one,
        open_local_storage(store, Clock(), turn) as two,
        trio.open_nursery() as nursery,
    ):
        for storage in (one, two):
            nursery.start_soon(storage.store, _content(0, 5, header=True), _no_correction)
    value = await store.load_value(ID)
    assert value is not None
    assert value.known_state == _known(5)


async def test_a_cancelled_store_stores_whole_messages_and_blocks_nobody() -> None:
    async with _open() as (storage, store):
        count = 0

        async def call() -> None:
            nonlocal count
            await storage.store(_content(0, 5, header=True), _no_correction)
            count += 1

        assert await cancel_everywhere(call) > 0
        value = await store.load_value(ID)
        assert value is not None
        assert value.known_state == storage.known_state(ID) == _known(5)


# Known states.


async def test_a_known_state_is_read_from_the_disk_once() -> None:
    store = SlowStore()
    async with _open(store) as (storage, _):
        await storage.store(_content(0, 4, header=True), _no_correction)
    store.looked_up.clear()
    async with _open(store) as (storage, _):
        assert storage.known_state(ID) == NOTHING
        assert await storage.load_known_state(ID) == _known(4)
        assert await storage.load_known_state(ID) == _known(4)
        assert storage.known_state(ID) == _known(4)
        assert await storage.load_known_state(map_header("absent").id) is None
        assert store.looked_up.count(ID) == 1


async def test_who_asks_at_the_same_time_shares_one_look_up() -> None:
    store = SlowStore()
    async with _open(store) as (storage, _):
        await storage.store(_content(0, 4, header=True), _no_correction)
    store.looked_up.clear()
    found: list[KnownState | None] = []
    async with _open(store) as (storage, _):

        async def ask() -> None:
            found.append(await storage.load_known_state(ID))

        gate = store.close_gate()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert len(store.looked_up) == 1
            gate.set()
    assert found == [_known(4)] * 3
    assert len(store.looked_up) == 1


async def test_who_waits_for_a_cancelled_look_up_makes_it_itself() -> None:
    store = SlowStore()
    async with _open(store) as (storage, _):
        await storage.store(_content(0, 4, header=True), _no_correction)
    found: list[KnownState | None] = []
    async with _open(store) as (storage, _):

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await storage.load_known_state(ID))

        gate = store.close_gate()
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(ask, scope)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, trio.CancelScope())
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            gate.set()
    assert found == [_known(4)]


async def test_unmounting_forgets_what_was_known_and_touches_nothing_stored() -> None:
    async with _open() as (storage, _):
        await storage.store(_content(0, 4, header=True), _no_correction)
        storage.unmount(ID)
        assert storage.known_state(ID) == NOTHING
        assert await storage.load_known_state(ID) == _known(4)


# Waiting.


async def test_waiting_ends_when_what_is_wanted_is_stored() -> None:
    wanted = _known(3)
    async with _open() as (storage, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.wait_stored, ID, lambda: wanted)
            await wait_all_tasks_blocked()
            await storage.store(_content(0, 2, header=True), _no_correction)
            wanted = _known(5)  # the value grew meanwhile
            await storage.store(_content(2, 4), _no_correction)
            await wait_all_tasks_blocked()
            assert storage.statistics().waiting == 1
            await storage.store(_content(4, 5), _no_correction)
        assert storage.statistics().waiting == 0
        await storage.wait_stored(ID, lambda: wanted)


async def test_more_than_wanted_is_enough() -> None:
    async with _open() as (storage, _):
        await storage.store(_content(0, 4, header=True), _no_correction)
        await storage.wait_stored(ID, lambda: _known(2))


async def test_unmounting_ends_waiting_but_asking_for_the_state_does_not() -> None:
    async with _open() as (storage, _):
        await storage.store(_content(0, 2, header=True), _no_correction)
        storage.unmount(ID)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.wait_stored, ID, lambda: _known(3))
            await wait_all_tasks_blocked()
            await storage.load_known_state(ID)
            await wait_all_tasks_blocked()
            assert storage.statistics().waiting == 1
            storage.unmount(ID)


async def test_erasing_ends_waiting_for_what_was_erased() -> None:
    store = SlowStore()
    async with _open(store) as (storage, _), _open(store) as (elsewhere, _):
        await storage.store(_content(0, 3, header=True), _no_correction)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.wait_stored, ID, lambda: _known(9))
            await wait_all_tasks_blocked()
            await _delete(elsewhere, ID)
            await wait_all_tasks_blocked()
            assert storage.statistics().waiting == 1
            assert await storage.eraser.erase_pending() == 1
        assert storage.known_state(ID) == KnownState(True, {DELETION: 1})


async def test_cancelled_waiting_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _open() as (storage, _):
        with trio.move_on_after(1):
            await storage.wait_stored(ID, lambda: _known(1))
        assert storage.statistics().waiting == 0


# Enumeration.


async def _all_ids(storage: LocalStorage, limit: int, between: Callable[[int], None]) -> list[str]:
    found: list[str] = []
    while page := await storage.ids(limit, len(found)):
        found += page
        between(len(found))
    return found


async def test_pages_of_ids_make_the_whole() -> None:
    async with _open() as (storage, _):
        contents = [_value(number) for number in range(11)]
        for content in contents:
            await storage.store(content, _no_correction)
        ids = sorted(content.co_id for content in contents)
        for limit in (1, 4, 11, 100):
            assert await _all_ids(storage, limit, lambda _: None) == ids
        assert await storage.ids(3, 5) == ids[5:8]  # a page that nothing led to
        assert await storage.ids(3, 11) == []
        assert storage.count() == 11


async def test_what_is_stored_between_two_pages_does_not_shift_them() -> None:
    contents = sorted((_value(number) for number in range(12)), key=lambda c: c.co_id)
    async with _open() as (storage, _):
        for content in contents[2:]:
            await storage.store(content, _no_correction)
        first = await storage.ids(4, 0)
        for content in contents[:2]:  # they sort before everything
            await storage.store(content, _no_correction)
        assert [*first, *await storage.ids(100, 4)] == [c.co_id for c in contents[2:]]


# Who has what.


async def test_notes_are_written_in_batches(autojump_clock: trio.testing.MockClock) -> None:
    async with _open() as (storage, store):
        for number in range(50):
            storage.sync.note(_value(number).co_id, "peer", is_synced=False)
            storage.sync.note(ID, "peer", is_synced=number % 2 == 1)
            await trio.sleep(BATCH_SECONDS / 40)
        await trio.sleep(2 * BATCH_SECONDS)
        assert sum(store.tracked) == 52  # the note for ID is in both batches
        assert len(store.tracked) == 2
        unsynced = await storage.sync.unsynced_ids()
        assert set(unsynced) == {_value(number).co_id for number in range(50)}


async def test_what_was_just_noted_counts() -> None:
    async with _open() as (storage, _):
        storage.sync.note(ID, "one", is_synced=False)
        storage.sync.note(ID, "two", is_synced=False)
        assert await storage.sync.unsynced_ids() == [ID]
        storage.sync.note(ID, "one", is_synced=True)
        assert await storage.sync.unsynced_ids() == [ID]
        storage.sync.note(ID, "three", is_synced=False)
        await storage.sync.stop(ID)
        assert await storage.sync.unsynced_ids() == []


async def test_notes_survive_a_cancelled_write_and_closing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = SlowStore()
    async with _open(store) as (storage, _):
        storage.sync.note(ID, "peer", is_synced=False)
        gate = store.close_gate()
        with trio.move_on_after(0.01):
            await storage.sync.flush()
        assert store.tracked == []
        gate.set()
    assert store.tracked == [1]
    assert await store.unsynced_ids() == [ID]


# Reconciliation locks.


async def test_a_lock_is_held_renewed_and_released() -> None:
    clock = Clock()
    async with _open(clock=clock) as (storage, _):
        locks = storage.locks
        taken = await locks.try_acquire("peer", "s1")
        assert taken == ReconciliationLock("s1", clock.unix_ms)
        assert await locks.try_acquire("peer", "s2") is LockRefusal.LOCK_HELD
        assert await locks.renew("peer", "s1", 200)
        assert not await locks.renew("peer", "s2", 300)
        clock.unix_ms += 2
        resumed = await locks.try_acquire("peer", "s2", ttl_ms=1)
        assert isinstance(resumed, ReconciliationLock)
        assert resumed.last_processed_offset == 200
        assert not await locks.release("peer", "s1")
        assert await locks.release("peer", "s2")
        assert await locks.try_acquire("peer", "s1") is LockRefusal.NOT_DUE
        clock.unix_ms += INTERVAL_MS
        assert isinstance(await locks.try_acquire("peer", "s1"), ReconciliationLock)


async def test_of_all_who_ask_at_once_one_gets_the_lock() -> None:
    async with _open() as (storage, _):
        found: list[object] = []

        async def ask(session: str) -> None:
            found.append(await storage.locks.try_acquire("peer", session))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, f"s{number}")
        assert sum(isinstance(item, ReconciliationLock) for item in found) == 1
        assert found.count(LockRefusal.LOCK_HELD) == 4


# Deletion.


async def test_a_judged_deletion_makes_a_tombstone_that_waits_to_be_erased() -> None:
    async with _open() as (storage, _):
        await storage.store(_content(0, 3, header=True), _no_correction)
        await _delete(storage, ID)
        assert await storage.eraser.pending() == [ID]
        assert storage.known_state(ID) == KnownState(True, {DELETION: 1})
        pieces = [piece async for piece in storage.load(ID)]
        assert [set(piece.new) for piece in pieces] == [{DELETION}]
        await storage.store(_content(3, 5), _no_correction)  # no gap: it is of no interest
        assert await storage.eraser.erase_pending() == 1
        assert await storage.eraser.pending() == []
        assert storage.count() == 1


async def _wait_until(condition: Callable[[], bool], seconds: float) -> float:
    """How long it took, on a clock that jumps."""
    begun = trio.current_time()
    for _ in range(round(seconds / 0.25)):
        if condition():
            break
        await trio.sleep(0.25)
    return trio.current_time() - begun


async def test_the_background_erases_by_its_schedule(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _open() as (storage, _):
        contents = [_value(number) for number in range(3)]
        for content in contents:
            await storage.store(content, _no_correction)
        await _delete(storage, contents[0].co_id)
        await trio.sleep(1000)
        assert storage.statistics().erased == 0  # it was not enabled
        storage.eraser.enable()
        took = await _wait_until(lambda: storage.statistics().erased == 1, 100)
        assert STARTUP_SECONDS <= took <= STARTUP_SECONDS + 0.25
        assert storage.eraser.phase is Phase.IDLE
        await _delete(storage, contents[1].co_id)
        await trio.sleep(10)
        await _delete(storage, contents[2].co_id)
        took = await _wait_until(lambda: storage.statistics().erased == 3, 200)
        assert THROTTLE_SECONDS - 10 <= took <= THROTTLE_SECONDS - 10 + 0.25
        assert storage.eraser.deadline is None


@pytest.mark.parametrize("interruption", ["load", "store"])
async def test_erasing_makes_way_and_goes_on_a_second_later(
    interruption: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with _open() as (storage, store):
        contents = [_value(number) for number in range(3)]
        for content in contents:
            await storage.store(content, _no_correction)
            await _delete(storage, content.co_id)
        storage.eraser.enable()
        gate = store.close_gate()
        await trio.sleep(STARTUP_SECONDS + 0.1)
        assert storage.eraser.phase is Phase.RUNNING
        async with trio.open_nursery() as nursery:
            if interruption == "load":
                assert [piece async for piece in storage.load(ID)] == []
            else:
                nursery.start_soon(storage.store, _content(0, 1, header=True), _no_correction)
                await wait_all_tasks_blocked()
            gate.set()
        await wait_all_tasks_blocked()
        # A store that waits for its turn makes way when it gets it: one more may be begun.
        assert len(await storage.eraser.pending()) in ({2} if interruption == "load" else {1, 2})
        took = await _wait_until(lambda: storage.statistics().erased == 3, 100)
        assert took <= 1.25


async def test_a_damaged_value_does_not_keep_the_others_from_being_erased(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _open() as (storage, store):
        contents = sorted((_value(number) for number in range(3)), key=lambda c: c.co_id)
        for content in contents:
            await storage.store(content, _no_correction)
            await _delete(storage, content.co_id)
        store.damaged = {contents[0].co_id}
        with pytest.raises(CorruptStore, match=contents[0].co_id):
            await storage.eraser.erase_pending()
        assert await storage.eraser.pending() == [contents[0].co_id]
        storage.eraser.enable()
        await trio.sleep(10)  # the background survives it
        assert storage.statistics().erasures_failed == 2
        assert storage.eraser.phase is Phase.IDLE


# The end.


async def test_closing_waits_for_the_store_in_flight_and_drops_the_others() -> None:
    outcomes: dict[int, str] = {}
    store = SlowStore()
    async with trio.open_nursery() as nursery, _open(store) as (storage, _):

        async def put(number: int) -> None:
            try:
                await storage.store(_value(number), _no_correction)
                outcomes[number] = "stored"
            except trio.ClosedResourceError:
                outcomes[number] = "dropped"

        gate = store.close_gate()
        for number in range(3):
            nursery.start_soon(put, number)
            await wait_all_tasks_blocked()
        closed = trio.Event()

        async def close() -> None:
            await storage.aclose()
            closed.set()

        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        assert not closed.is_set()
        gate.set()
        await closed.wait()
        assert outcomes == {0: "stored", 1: "dropped", 2: "dropped"}
    assert store.count() == 1


async def test_closing_between_a_gap_and_its_correction_stores_nothing_more() -> None:
    async with _open() as (storage, store), trio.open_nursery() as nursery:

        async def correct(_: KnownState) -> list[Content]:
            nursery.start_soon(storage.aclose)
            await wait_all_tasks_blocked()
            return [_content(0, 7, header=True)]

        with pytest.raises(trio.ClosedResourceError):
            await storage.store(_content(5, 7), correct)
    assert store.count() == 0


async def test_closing_ends_waiting() -> None:
    async with _open() as (storage, _), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await storage.wait_stored(ID, lambda: _known(1))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await storage.aclose()
