"""Two continuations of one session: the first is kept, the other is evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
import trio

from bee.bee import Bee
from hypercore.errors import StorageFailed
from node.cojson.fork_check import Verdict, check_fork, stored_transactions
from node.cojson.fork_watch import AGAIN_SECONDS, MAX_SUSPICIONS, ForkWatch
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Known, Load
from node.cojson.outputs import CheckFork
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.ids import agent_public_key
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_fork import MAX_EVIDENCE_BYTES, SessionFork
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.engine_shell import EngineShell

ANN, EVE = Author("ann"), Author("eve")
FREE = map_header("free")
SESSION = ANN.session_id(as_agent=True)
KEY = agent_public_key(ANN.agent_id)
OURS = edits(6)
THEIRS = [*OURS[:4], *edits(4, start=100)]
"""Another session from transaction 4 on."""


def content(transactions: Sequence[Transaction], after: int = 0, author: Author = ANN) -> Content:
    part = SessionContent(after, list(transactions[after:]), author.sign(transactions))
    return Content(FREE.id, None if after else FREE, {SESSION: part}, FREE.priority)


# The engine suspects.


@pytest.fixture
def shell() -> EngineShell:
    shell = EngineShell()
    shell.client("a")
    shell.say("a", content(OURS))
    shell.commit()
    shell.take("a")
    return shell


@pytest.mark.parametrize("count", [6, 8])
@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_part_that_does_not_fit_is_suspected(shell: EngineShell, after: int, count: int) -> None:
    part = content(THEIRS[:count], after)
    shell.say("a", part)
    shell.commit()
    assert shell.suspicions == [CheckFork(FREE.id, SESSION, part.new[SESSION], KEY, "a")]
    assert shell.disk.logs[FREE.id][SESSION] == OURS


def test_what_fits_is_not_suspected(shell: EngineShell) -> None:
    shell.say("a", content(OURS), content(OURS[:3]), content([*OURS, *edits(1)], 6))
    shell.commit()
    assert shell.suspicions == []


def test_the_whole_session_is_asked_for_once(shell: EngineShell) -> None:
    for expected in ([Known(FREE.id, KnownState(True, {}), True)], []):
        shell.carry_out(shell.engine.fork_unproven("a", FREE.id, SESSION))
        assert shell.take("a") == expected
    assert shell.engine.fork_unproven("gone", FREE.id, SESSION) == []


# The store tells.


async def stored(transactions: Sequence[Transaction], log: DataLog | None = None) -> BeeStore:
    log = log or DataLog()
    store = BeeStore(Bee(log), log)
    async with open_sync_host(store) as host:
        receipt = await host.receive_content("test", [content(transactions)])
        assert receipt.accepted == {FREE.id}
    return store


async def test_who_handed_in_sessions_of_which_one_does_not_fit_is_told() -> None:
    log = DataLog()
    async with open_sync_host(await stored(OURS, log)) as host:
        other = ANN.content(FREE, edits(1), session="other", as_agent=True)
        mixed = replace(other, new={**other.new, **content(THEIRS, 5).new})
        receipt = await host.receive_content("test", [mixed])
        assert receipt.accepted == {FREE.id}
        assert receipt.refused == {}
        assert "bad signature" in receipt.partly[FREE.id]
        assert (await host.receive_content("test", [other])).partly == {}


def check(transactions: Sequence[Transaction], after: int = 0, author: Author = ANN) -> CheckFork:
    part = content(transactions, after, author).new[SESSION]
    return CheckFork(FREE.id, SESSION, part, KEY, "a")


@pytest.mark.parametrize("after", [0, 2, 4])
async def test_a_fork_is_proven_from_anywhere_before_it(after: int) -> None:
    store = await stored(OURS)
    assert await check_fork(store, check(THEIRS, after)) == SessionFork(
        FREE.id,
        SESSION,
        SessionContent(4, OURS[4:], ANN.sign(OURS)),
        SessionContent(4, THEIRS[4:], ANN.sign(THEIRS)),
    )


@pytest.mark.parametrize(
    ("suspect", "verdict"),
    [
        (check(THEIRS, 5), Verdict.UNPROVEN),
        (check(OURS, 0, EVE), Verdict.FORGED),
        (check(THEIRS, 0, EVE), Verdict.FORGED),
        (check(OURS), Verdict.FORGED),
        (check(OURS[:3]), Verdict.FORGED),
        (check([*OURS, *edits(2)]), Verdict.FORGED),
        (check([*OURS, *edits(2)], 7), Verdict.FORGED),
    ],
)
async def test_anything_else_is_no_fork(suspect: CheckFork, verdict: Verdict) -> None:
    assert await check_fork(await stored(OURS), suspect) is verdict


async def test_evidence_is_bounded() -> None:
    large = [OURS[0], *edits(4, size=MAX_EVIDENCE_BYTES // 2)]
    fork = await check_fork(await stored(large), check([OURS[0], *edits(4, size=600_000, start=9)]))
    assert isinstance(fork, SessionFork)
    assert len(fork.kept.transactions) == len(fork.refused.transactions) == 1


# The watch.


async def test_each_session_is_looked_into_once_a_minute(autojump_clock: object) -> None:
    unproven: list[CheckFork] = []
    watch = ForkWatch(await stored(OURS), unproven.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        for expected in (1, 1, 2):
            watch.suspect(check(THEIRS, 5))
            await trio.testing.wait_all_tasks_blocked()
            assert len(unproven) == expected
            if expected == 1:
                watch.suspect(check(THEIRS, 5))
                await trio.testing.wait_all_tasks_blocked()
            else:
                break
            await trio.sleep(AGAIN_SECONDS / 2 + 1)
        nursery.cancel_scope.cancel()


async def test_few_suspicions_wait() -> None:
    unproven: list[CheckFork] = []
    watch = ForkWatch(await stored(OURS), unproven.append)
    for number in range(MAX_SUSPICIONS + 5):
        part = check(THEIRS, 5).part
        session = ANN.session_id(str(number), as_agent=True)
        watch.suspect(CheckFork(FREE.id, session, part, KEY, "a"))
    watch.suspect(check(THEIRS, 5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert unproven == []


async def test_how_much_is_kept_of_all_forks_is_bounded() -> None:
    store = await stored(OURS)
    found = await check_fork(store, check(THEIRS))
    assert isinstance(found, SessionFork)
    watch = ForkWatch(store, lambda _: None, max_bytes=3 * found.size)
    for number in range(10):
        session = ANN.session_id(str(number), as_agent=True)
        await watch.keep(replace(found, session_id=session))
    assert watch.forks_found == len(await store.forks()) == 3
    # And after a restart.
    again = ForkWatch(store, lambda _: None, max_bytes=3 * found.size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again.run)
        await trio.testing.wait_all_tasks_blocked()
        await again.keep(found)
        nursery.cancel_scope.cancel()
    assert len(await store.forks()) == 3


# All of it.


async def test_a_client_that_went_back_leaves_evidence_and_hinders_nobody() -> None:
    log = DataLog()
    store = BeeStore(Bee(log), log)
    async with open_sync_host(store, HostOptions(erases=False)) as host:
        with host.client("first") as link:
            await link.receive([content(OURS)])
            await trio.testing.wait_all_tasks_blocked()
        with host.client("restored") as link:
            await link.receive([content(THEIRS, 6)])
            await trio.testing.wait_all_tasks_blocked()
            lines = await link.next_lines(10_000)
            assert any('"isCorrection":true' in line for line in lines)
            await link.receive([content(THEIRS)])
            await trio.testing.wait_all_tasks_blocked()
            (fork,) = await store.forks()
            assert fork.index == 4
            assert host.statistics().forks_found == 1
            await link.receive([Load(FREE.id, NOTHING)])
            assert '"after":0' in (await link.next_lines(100_000))[-1]
        loaded = await store.load(FREE.id)
        assert loaded.pieces[0].new[SESSION].transactions == OURS


async def test_what_is_on_its_way_to_the_disk_is_compared_as_well() -> None:
    """Found by seed 20447: the kept half was verified, and not stored yet."""
    log = DataLog()
    store = BeeStore(Bee(log), log)
    async with open_sync_host(store) as host:
        with host.client("first") as first, host.client("restored") as restored:
            log.durable = trio.Event()
            other = map_header("other")
            host.receive(first.peer_id, [ANN.content(other, edits(1), as_agent=True)])
            await trio.testing.wait_all_tasks_blocked()
            host.receive(first.peer_id, [content(OURS)])
            host.receive(restored.peer_id, [content(THEIRS)])
            await trio.testing.wait_all_tasks_blocked()
            assert await store.forks() == []
            log.durable.set()
            await trio.testing.wait_all_tasks_blocked()
        (fork,) = await store.forks()
        assert fork.index == 4


class FullLog(DataLog):
    """Beside its blocks there is no room for rows while it is full."""

    is_full = False

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        if self.is_full:
            raise StorageFailed("no space left on the device")
        await super().write_local(rows)


async def test_evidence_that_finds_no_room_is_kept_later() -> None:
    log = FullLog()
    store = await stored(OURS, log)
    log.is_full = True
    watch = ForkWatch(store, lambda _: None)
    watch.suspect(check(THEIRS))
    with pytest.raises(StorageFailed):
        await watch.run()
    assert watch.forks_found == 0
    log.is_full = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert watch.forks_found == len(await store.forks()) == 1


async def test_a_session_is_read_to_its_end_while_another_grows() -> None:
    """Found in review: where much came of another session, it seemed to end."""
    log, names = DataLog(), "bcdefgh"
    store = BeeStore(Bee(log), log)
    first = min(names, key=lambda name: ANN.session_id(name, as_agent=True))
    assert ANN.session_id(first, as_agent=True) < SESSION
    large = edits(30, size=90_000)

    async def grow(host: SyncHost, session: str) -> None:
        for count in range(1, len(large) + 1):
            part = ANN.content(FREE, large[:count], after=count - 1, session=session, as_agent=True)
            assert not (await host.receive_content("test", [part])).refused

    async with open_sync_host(store) as host:
        await grow(host, "a")
        value = await store.load_value(FREE.id)
        assert value is not None
        found: list[Transaction] = []
        async with aclosing(stored_transactions(store, FREE.id, SESSION, value)) as runs:
            async for transactions in runs:
                if not found:
                    await grow(host, first)
                found += transactions
        assert found == large
