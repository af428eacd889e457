from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bee.bee import Bee
from hypercore.corestore import corestore_on
from hypercore.storage.memory import MemoryStorage
from node.cojson.client_link import ClientLink
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.messages import Known, Load, Message, decode_line
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.keys import header_key, short_key
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.data_log import DataLog
from tests.support.storage_rows import lose_blocks

ANN = Author("ann")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
FREE = map_header("free")
SESSION = ANN.session_id()
AGENT_SESSION = ANN.session_id(as_agent=True)
TREE = [ANN.account(), ANN.content(GROUP, edits(2)), ANN.content(MAP, edits(3))]


def free(count: int, after: int = 0) -> Content:
    return ANN.content(FREE, edits(count), after=after, as_agent=True, with_header=after == 0)


@asynccontextmanager
async def open_host(log: DataLog | None = None) -> AsyncIterator[tuple[SyncHost, DataLog]]:
    log = log or DataLog()
    async with open_sync_host(BeeStore(Bee(log), log)) as host:
        yield host, log


async def lines(link: ClientLink) -> list[Message]:
    """Everything that is to be said to this client once nothing moves any more."""
    found: list[Message] = []
    while True:
        await trio.testing.wait_all_tasks_blocked()
        taken = await link.next_lines(25_000)
        if not taken:
            return found
        for line in taken:
            message = decode_line(line)
            assert message is not None
            found.append(message)


class Member:
    """A mesh of one member that holds some contents."""

    def __init__(self, contents: Sequence[Content]) -> None:
        self.contents = contents
        self.asked: list[tuple[list[RawCoId], dict[RawCoId, KnownState]]] = []

    async def find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> Mapping[RawCoId, Sequence[Content]]:
        self.asked.append((list(ids), dict(known)))
        await trio.lowlevel.checkpoint()
        return {item.co_id: [item] for item in self.contents if item.co_id in ids}


async def test_an_acknowledgement_waits_for_the_disk() -> None:
    async with open_host() as (host, log):
        log.durable = trio.Event()
        with host.client("a") as a, host.client("b") as b:
            await b.receive([Load(FREE.id, NOTHING)])
            assert await lines(b) == [Known(FREE.id, NOTHING)]
            await a.receive([free(2)])
            assert await lines(a) == []
            assert await lines(b) == []
            assert log.length > 0
            log.durable.set()
            assert await lines(a) == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}))]
            assert await lines(b) == [free(2)]


async def test_what_waits_together_is_one_append() -> None:
    async with open_host() as (host, log):
        with host.client("a") as a:
            await a.receive(
                [ANN.content(map_header(f"m{n}"), [], as_agent=True) for n in range(50)]
            )
            assert len(await lines(a)) == 50
            assert log.appends <= 2
            statistics = host.statistics()
            assert (statistics.messages_stored, statistics.values_stored) == (50, 50)
            assert statistics.clients == 1
        assert host.statistics().clients == 0


async def test_a_restart_serves_and_continues_what_was_stored() -> None:
    log = DataLog()
    async with open_host(log) as (host, _):
        receipt = await host.receive_content("test", TREE)
        assert receipt.accepted == {content.co_id for content in TREE}
    async with open_host(log) as (host, _):
        with host.client("a") as a:
            await a.receive([Load(MAP.id, NOTHING)])
            contents = await lines(a)
            assert contents == TREE
            await a.receive([ANN.content(MAP, edits(5), after=3, with_header=False)])
            assert await lines(a) == [Known(MAP.id, KnownState(True, {SESSION: 5}))]
            assert await host.known_state(MAP.id) == KnownState(True, {SESSION: 5})


async def test_a_long_value_is_read_as_the_client_takes_it() -> None:
    async with open_host() as (host, _):
        transactions = edits(20, size=60_000)
        contents = [
            ANN.content(FREE, transactions[: n + 1], after=n, as_agent=True, with_header=n == 0)
            for n in range(20)
        ]
        await host.receive_content("test", contents)
        with host.client("a") as a:
            await a.receive([Load(FREE.id, NOTHING)])
            await trio.testing.wait_all_tasks_blocked()
            first = await a.next_lines(25_000)
            assert sum(map(len, first)) < 200_000
            await a.receive([Load(map_header("unknown").id, NOTHING)])
            await trio.testing.wait_all_tasks_blocked()
            second = await a.next_lines(25_000)
            assert decode_line(second[0]) == Known(map_header("unknown").id, NOTHING)
            got = [decode_line(line) for line in [*first, *second[1:]]] + await lines(a)
            pieces = [item for item in got if isinstance(item, Content)]
            assert pieces[-1].new[AGENT_SESSION].stop == 20
            assert [item.new[AGENT_SESSION].after for item in pieces] == list(range(0, 20, 2))


async def test_what_members_send_takes_the_same_door() -> None:
    async with open_host() as (host, _):
        feed = host.changes()
        bad = Content(FREE.id, map_header("other"), free(1).new)
        receipt = await host.receive_content("member", [TREE[2], bad, TREE[1], TREE[0]])
        assert receipt.accepted == {content.co_id for content in TREE}
        assert set(receipt.refused) == {FREE.id}
        assert receipt.waiting == frozenset()
        changes = dict(await feed.receive_many())
        assert changes[MAP.id] == {SESSION: 3}
        receipt = await host.receive_content("member", [TREE[2]])
        assert receipt.accepted == {MAP.id}
        assert (await host.receive_content("member", [])).accepted == frozenset()


async def test_content_that_lacks_its_group_is_kept_waiting() -> None:
    async with open_host() as (host, _):
        receipt = await host.receive_content("member", [TREE[2]])
        assert receipt.waiting == {MAP.id}
        receipt = await host.receive_content("member", TREE[:2])
        assert receipt.accepted == {GROUP.id, ANN.account_id}
        with trio.fail_after(20):
            while not (await host.known_state(MAP.id)).header:
                await trio.testing.wait_all_tasks_blocked()


async def test_what_depends_on_a_value_on_our_disk_is_stored_when_the_receipt_comes() -> None:
    """Found by seed 300555: the member that sent it was never told that it is here."""
    log = DataLog()
    async with open_host(log) as (host, _):
        await host.receive_content("member", TREE[:2])
    async with open_host(log) as (host, _):
        receipt = await host.receive_content("member", [TREE[2]])
        assert receipt.accepted == {MAP.id}
        assert receipt.waiting == frozenset()
        assert await host.known_state(MAP.id) == KnownState(True, {SESSION: 3})


async def test_nobody_waits_for_the_receipt_of_pieces_that_lack_their_group() -> None:
    async with open_host() as (host, _):
        pieces = [
            ANN.content(MAP, edits(count), after=count - 1, with_header=count == 1)
            for count in (1, 2, 3)
        ]
        with trio.fail_after(20):
            receipt = await host.receive_content("member", pieces)
        assert receipt.waiting == {MAP.id}
        assert receipt.accepted == frozenset()
        await host.receive_content("member", TREE[:2])
        with trio.fail_after(20):
            while (await host.known_state(MAP.id)).sessions != {SESSION: 3}:
                await trio.testing.wait_all_tasks_blocked()


async def test_the_mesh_gives_what_is_not_here_with_its_dependencies() -> None:
    async with open_host() as (host, _):
        host.mesh = member = Member(TREE)
        with host.client("a") as a:
            await a.receive([Load(MAP.id, NOTHING)])
            assert await lines(a) == TREE
            await a.receive([Load(FREE.id, NOTHING)])
            assert await lines(a) == [Known(FREE.id, NOTHING)]
        asked = [ids for ids, _ in member.asked]
        assert asked[0] == [MAP.id]
        assert all(not known for _, known in member.asked[:3])


async def test_newer_content_is_looked_for_when_a_client_subscribes() -> None:
    async with open_host() as (host, _):
        await host.receive_content("test", TREE)
        newer = ANN.content(MAP, edits(6), after=3, with_header=False)
        host.mesh = member = Member([newer])
        with host.client("a") as a:
            await a.receive([Load(MAP.id, KnownState(True, {SESSION: 3}))])
            assert newer in await lines(a)
        assert member.asked[0][1] == {MAP.id: KnownState(True, {SESSION: 3})}


async def test_people_load_from_the_store_and_from_the_mesh() -> None:
    async with open_host() as (host, _):
        assert await host.load(MAP.id) is None
        host.mesh = Member(TREE)
        with trio.fail_after(20):
            assert await host.load(FREE.id) is None
            report = await host.load(MAP.id)
        assert report is not None
        assert report.source == "mesh"
        assert dict(report.sessions) == {SESSION: 3}
        report = await host.load(MAP.id)
        assert report is not None
        assert report.source == "store"
        assert report.header == MAP


class SlowMember:
    """Hands in a value part by part."""

    def __init__(self, host: SyncHost, parts: Sequence[Content]) -> None:
        self._host = host
        self._parts = parts
        self.go_on = trio.Event()

    async def find(
        self, ids: Sequence[RawCoId], _known: Mapping[RawCoId, KnownState]
    ) -> Mapping[RawCoId, Sequence[Content]]:
        for part in self._parts:
            await self._host.receive_content("slow", [part])
            await self.go_on.wait()
        return dict.fromkeys(ids, ())


async def test_people_load_a_value_with_all_its_parts() -> None:
    async with open_host() as (host, _), trio.open_nursery() as nursery:
        host.mesh = member = SlowMember(host, [free(2), free(5, after=2)])
        counts: list[int] = []

        async def load() -> None:
            report = await host.load(FREE.id)
            assert report is not None
            counts.extend(report.sessions.values())

        nursery.start_soon(load)
        await trio.testing.wait_all_tasks_blocked()
        assert (await host.known_state(FREE.id)).sessions == {AGENT_SESSION: 2}
        nursery.start_soon(load)  # comes when a part is stored already
        await trio.testing.wait_all_tasks_blocked()
        assert counts == []
        member.go_on.set()
        with trio.fail_after(20):
            while len(counts) < 2:
                await trio.testing.wait_all_tasks_blocked()
        assert counts == [5, 5]


async def test_interest_is_told() -> None:
    async with open_host() as (host, _):
        with trio.move_on_after(0) as scope:
            await host.wait_interest_changed()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.wait_interest_changed)
            await trio.testing.wait_all_tasks_blocked()
            with host.client("a") as a:
                await a.receive([Load(FREE.id, NOTHING)])
                assert host.subscribed_ids() == {FREE.id}
                await trio.testing.wait_all_tasks_blocked()
        await host.wait_interest_changed()
        assert host.subscribed_ids() == frozenset()


@pytest.mark.parametrize("has_mesh", [False, True])
async def test_damage_costs_one_value(has_mesh: bool) -> None:
    log = DataLog()
    async with open_host(log) as (host, _):
        await host.receive_content("test", [*TREE, free(2)])
    await Bee(log).put(header_key(FREE.id), b"\xc1")
    log.rows[short_key(FREE.id)] = b"\xc1"
    async with open_host(log) as (host, _):
        host.mesh = Member([]) if has_mesh else None
        with host.client("a") as a:
            await a.receive([Load(FREE.id, NOTHING), free(3, after=2), Load(MAP.id, NOTHING)])
            assert await lines(a) == [Known(FREE.id, NOTHING), *TREE]


@pytest.mark.parametrize("is_whole_bee", [False, True])
async def test_a_block_that_the_disk_lost_costs_the_values_in_it(is_whole_bee: bool) -> None:
    """Found in review: one client that loaded such a value ended the node."""
    headers = [map_header(f"long {number}") for number in range(30)]
    contents = [ANN.content(header, edits(3, size=5000), as_agent=True) for header in headers]
    storage = MemoryStorage()
    with corestore_on(storage) as cores:
        data = await cores.get(name="data")
        async with open_sync_host(BeeStore(Bee(data), data)) as host:
            for content in contents:
                await host.receive_content("test", [content])
        length, discovery_key = data.length, data.discovery_key
    lost_blocks = range(1) if is_whole_bee else range(length // 2, length // 2 + 3)
    lose_blocks(storage, discovery_key, lost_blocks)
    with corestore_on(storage) as cores:
        data = await cores.get(name="data")
        store = BeeStore(Bee(data), data)
        async with open_sync_host(store) as host:
            with host.client("a") as a:
                await a.receive([Load(header.id, NOTHING) for header in headers])
                served = await lines(a)
                lost = sum(content not in served for content in contents)
                assert lost == len(contents) if is_whole_bee else 0 < lost < 20
                if is_whole_bee:
                    return
                more = ANN.content(headers[-1], edits(4, size=5000), after=3, as_agent=True)
                await a.receive([more])
                assert Known(headers[-1].id, more.known_state) in await lines(a)


async def test_a_block_that_the_disk_lost_costs_the_values_that_belong_there() -> None:
    """Found in review: the first client that wrote one of them ended the node."""
    storage = MemoryStorage()
    old = [
        ANN.content(map_header(f"old {n}"), edits(3, size=5000), as_agent=True) for n in range(30)
    ]
    new = [ANN.content(map_header(f"new {n}"), edits(1), as_agent=True) for n in range(30)]
    more = [
        ANN.content(map_header(f"new {n}"), edits(2), after=1, as_agent=True, with_header=False)
        for n in range(30)
    ]
    with corestore_on(storage) as cores:
        data = await cores.get(name="data")
        async with open_sync_host(BeeStore(Bee(data), data)) as host:
            for content in old:
                await host.receive_content("test", [content])
        length, discovery_key = data.length, data.discovery_key
    lose_blocks(storage, discovery_key, range(length // 2, length // 2 + 3))
    with corestore_on(storage) as cores:
        data = await cores.get(name="data")
        async with open_sync_host(BeeStore(Bee(data), data)) as host:
            stored: list[set[RawCoId]] = []
            with host.client("a") as a:
                for _ in range(2):  # what is sent again is refused again
                    await a.receive([*new, *more])
                    told = await lines(a)
                    whole = {
                        item.co_id
                        for item in more
                        if Known(item.co_id, KnownState(True, {AGENT_SESSION: 2})) in told
                    }
                    stored.append(whole)
                    for item in more:
                        held = await host.known_state(item.co_id)
                        assert held.header == (item.co_id in whole)
            assert stored[0] == stored[1]
            assert 10 < len(stored[0]) < 30
            receipt = await host.receive_content("member", new)
            assert receipt.accepted == stored[0]
            assert receipt.refused.keys() == {item.co_id for item in new} - stored[0]


async def test_receiving_content_can_be_cancelled_anywhere() -> None:
    numbers = iter(range(1000))
    async with open_host() as (host, _):

        async def call() -> None:
            content = ANN.content(map_header(f"c{next(numbers)}"), edits(1), as_agent=True)
            receipt = await host.receive_content("test", [content])
            assert receipt.accepted == {content.co_id}

        assert await cancel_everywhere(call) >= 1


@pytest.mark.parametrize("taken", [0, 1, 5])
async def test_a_client_may_go_at_any_time(taken: int) -> None:
    async with open_host() as (host, log):
        log.durable = trio.Event()
        with host.client("a") as a:
            await a.receive([*TREE[:taken], free(2), Load(MAP.id, NOTHING)])
            await a.next_lines(10)
        log.durable.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (await host.known_state(FREE.id)).header


async def test_a_session_is_hashed_again_while_another_of_its_value_grows() -> None:
    """Found in review: two who edited a large value ended a node that had just started."""
    log, large = DataLog(), edits(40, size=90_000)
    first, last = sorted("ab", key=lambda name: ANN.session_id(name, as_agent=True))

    def small(count: int, after: int) -> Content:
        return ANN.content(FREE, edits(count), after=after, session=first, as_agent=True)

    def long(count: int) -> Content:
        return ANN.content(FREE, large[:count], after=count - 1, session=last, as_agent=True)

    async with open_host(log) as (host, _):
        for count in range(1, len(large)):
            await host.receive_content("test", [long(count)])
        await host.receive_content("test", [small(1, 0)])
    async with open_host(log) as (host, _):
        receipt = await host.receive_content("test", [small(2, 1), long(len(large))])
        assert not receipt.refused
        counts = (await host.known_state(FREE.id)).sessions
        assert sorted(counts.values()) == [2, len(large)]
