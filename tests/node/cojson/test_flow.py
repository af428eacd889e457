"""What flows to clients: small answers pass streams, a slow reader waits, no work is done twice."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
import trio.testing

from bee.bee import Bee
from node.cojson.client_link import ClientLink
from node.cojson.host import MAX_UNSETTLED_BYTES, SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Known, Load, Message, Reconcile, ReconcileAck, decode_line
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState, sessions_hash
from node.covalue.store import LoadedPieces, StoredText
from tests.node.cojson.test_host import lines
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.bee_hosts import bee_store_over, open_bee_host
from tests.support.data_log import DataLog

ANN = Author("ann")
SESSION = ANN.session_id(as_agent=True)
FREE = map_header("free")
CHUNKS = edits(40, size=60_000)


def stream_header() -> CoValueHeader:
    return parse_header(
        {
            "type": "costream",
            "ruleset": {"type": "unsafeAllowAll"},
            "meta": {"type": "binary"},
            "uniqueness": "s",
        }
    )


STREAM = stream_header()


def chunks(header: CoValueHeader, count: int = len(CHUNKS)) -> list[Content]:
    return [
        ANN.content(header, CHUNKS[: n + 1], after=n, as_agent=True, with_header=n == 0)
        for n in range(count)
    ]


async def taken(link: ClientLink) -> list[Message]:
    """What one frame holds."""
    await trio.testing.wait_all_tasks_blocked()
    found = [decode_line(line) for line in await link.next_lines(25_000)]
    return [message for message in found if message is not None]


async def fill(host: SyncHost) -> None:
    await host.receive_content(
        "test", [*chunks(STREAM), ANN.content(FREE, edits(1), as_agent=True)]
    )


async def test_an_edit_and_an_answer_pass_a_stream_that_is_being_sent() -> None:
    async with open_bee_host() as host:
        await fill(host)
        with host.client("a") as a:
            await a.receive([Load(FREE.id, NOTHING), Load(STREAM.id, NOTHING)])
            contents = [item for item in await taken(a) if isinstance(item, Content)]
            assert contents[0].co_id == FREE.id
            assert contents[-1].co_id == STREAM.id
            edit = ANN.content(FREE, edits(2), after=1, as_agent=True, with_header=False)
            await host.receive_content("test", [edit])
            await a.receive([Load(map_header("none").id, NOTHING)])
            first, second, *rest = await taken(a)
            assert (first, second) == (Known(map_header("none").id, NOTHING), edit)
            assert len(rest) <= 1
            rest += await lines(a)
            assert isinstance(rest[-1], Content)
            assert rest[-1].new[SESSION].stop == len(CHUNKS)


async def test_a_group_passes_values_and_those_pass_streams() -> None:
    group = group_header(ANN.agent_id)
    async with open_bee_host() as host:
        await fill(host)
        await host.receive_content("test", [ANN.content(group, edits(1), as_agent=True)])
        with host.client("a") as a:
            await a.receive([Load(item.id, NOTHING) for item in (STREAM, FREE, group)])
            contents = [item for item in await lines(a) if isinstance(item, Content)]
            order = list(dict.fromkeys(item.co_id for item in contents))
            assert order == [group.id, FREE.id, STREAM.id]


async def test_a_slow_reader_costs_what_is_in_its_frame() -> None:
    async with open_bee_host() as host:
        await fill(host)
        with host.client("slow") as slow, host.client("quick") as quick:
            for link in (slow, quick):
                await link.receive([Load(STREAM.id, NOTHING)])
            await taken(slow)
            assert len(await lines(quick)) == 20
            assert slow.outbox.control_bytes == 0
            assert slow.outbox.is_wanted(STREAM.id)
            edit = ANN.content(FREE, edits(2), after=1, as_agent=True, with_header=False)
            await quick.receive([edit])
            assert await lines(quick) == [Known(FREE.id, KnownState(True, {SESSION: 2}))]
            assert slow.end_reason is None
            assert len(await lines(slow)) == 19


async def test_a_thousand_loads_in_flight_are_all_answered() -> None:
    headers = [map_header(f"m{n}") for n in range(500)]
    contents = [ANN.content(header, edits(1), as_agent=True) for header in headers]
    async with open_bee_host(memory_bytes=50_000) as host:
        await host.receive_content("test", contents)
        absent = [map_header(f"absent{n}").id for n in range(500)]
        with host.client("a") as a:
            wanted = [*[header.id for header in headers], *absent]
            await a.receive([Load(co_id, NOTHING) for co_id in wanted])
            found = await lines(a)
            assert len(found) == 1000
            assert [item for item in found if isinstance(item, Content)] == contents
            assert {item.co_id for item in found if isinstance(item, Known)} == set(absent)


async def test_what_many_want_is_encoded_once() -> None:
    async with open_bee_host() as host:
        with ExitStack() as stack:
            links = [stack.enter_context(host.client(str(number))) for number in range(50)]
            for link in links:
                await link.receive([Load(FREE.id, NOTHING)])
                assert await lines(link) == [Known(FREE.id, NOTHING)]
            await host.receive_content("test", [ANN.content(FREE, edits(1), as_agent=True)])
            sent = [await link.next_lines(25_000) for link in links]
        assert all(len(frame) == 1 for frame in sent)
        assert len({id(line) for frame in sent for line in frame}) == 1


class CountingStore(BeeStore):
    """Counts how often transactions are read."""

    def __init__(self, log: DataLog) -> None:
        super().__init__(Bee(log), log)
        self.loads = 0

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        self.loads += 1
        return await super().load(co_id, known, max_bytes)

    async def load_text(self, co_id: RawCoId) -> StoredText | None:
        text = await super().load_text(co_id)
        self.loads += text is not None
        return text


async def test_what_was_read_for_one_is_there_for_the_next() -> None:
    log = DataLog()
    async with open_sync_host(bee_store_over(log)) as host:
        await host.receive_content("test", [ANN.content(FREE, edits(3), as_agent=True)])
    store = CountingStore(log)
    async with open_sync_host(store) as host:
        sent: list[str] = []
        for name in ("a", "b", "c"):
            with host.client(name) as link:
                await link.receive([Load(FREE.id, NOTHING)])
                await trio.testing.wait_all_tasks_blocked()
                sent += await link.next_lines(25_000)
        assert len(sent) == 3
        assert len({id(line) for line in sent}) == 1
        assert store.loads == 1


class SlowStore(BeeStore):
    """Reads transactions at once, and hands them out when it may."""

    def __init__(self, log: DataLog) -> None:
        super().__init__(Bee(log), log)
        self.may_go_on = trio.Event()

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        loaded = await super().load(co_id, known, max_bytes)
        await self.may_go_on.wait()
        return loaded


async def test_an_edit_made_while_the_value_is_read_for_a_client_reaches_it() -> None:
    log = DataLog()
    async with open_sync_host(bee_store_over(log)) as host:
        await host.receive_content("test", [ANN.content(FREE, edits(2), as_agent=True)])
    store = SlowStore(log)
    async with open_sync_host(store) as host:
        with host.client("a") as a:
            await a.receive([Load(FREE.id, KnownState(True, {SESSION: 1}))])
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                frame: list[str] = []

                async def take() -> None:
                    frame.extend(await a.next_lines(25_000))

                nursery.start_soon(take)
                await trio.testing.wait_all_tasks_blocked()
                edit = ANN.content(FREE, edits(1), session="b", as_agent=True, with_header=False)
                await host.receive_content("test", [edit])
                store.may_go_on.set()
            found = [decode_line(line) for line in frame] + await lines(a)
            sent = [item.new.keys() for item in found if isinstance(item, Content)]
            assert sent == [{SESSION}, {ANN.session_id("b", as_agent=True)}]


async def test_a_client_is_not_read_from_while_much_of_it_is_on_its_way() -> None:
    log = DataLog()
    async with open_sync_host(bee_store_over(log)) as host, trio.open_nursery() as nursery:
        log.durable = trio.Event()
        with host.client("a") as a, host.client("b") as b:
            received = 0

            async def upload() -> None:
                nonlocal received
                for content in chunks(FREE):
                    await a.receive([content])
                    received += 1

            nursery.start_soon(upload)
            await trio.testing.wait_all_tasks_blocked()
            held = sum(content.size for content in chunks(FREE, received + 1))
            assert MAX_UNSETTLED_BYTES < held < MAX_UNSETTLED_BYTES + 2 * chunks(FREE, 2)[1].size
            with trio.fail_after(20):
                await b.receive([ANN.content(map_header("b"), edits(1), as_agent=True)])
            log.durable.set()
            await trio.testing.wait_all_tasks_blocked()
            assert received == len(CHUNKS)


@pytest.mark.parametrize("is_equal", [True, False])
async def test_reconciling_subscribes_to_nothing_and_reads_no_transactions(is_equal: bool) -> None:
    log = DataLog()
    headers = [map_header(f"m{n}") for n in range(200)]
    async with open_sync_host(bee_store_over(log)) as host:
        await host.receive_content(
            "test", [ANN.content(header, edits(2), as_agent=True) for header in headers]
        )
    store = CountingStore(log)
    async with open_sync_host(store, HostOptions(memory_bytes=100_000)) as host:
        with host.client("a") as a:
            digest = sessions_hash({SESSION: 2 if is_equal else 1})
            for start in range(0, 200, 100):
                batch = tuple((header.id, digest) for header in headers[start : start + 100])
                await a.receive([Reconcile(f"batch {start}", batch)])
                answers = await lines(a)
                if is_equal:
                    assert answers == [ReconcileAck(f"batch {start}")]
                else:
                    known = KnownState(True, {SESSION: 2})
                    assert answers == [Load(co_id, known) for co_id, _ in batch]
            assert host.subscribed_ids() == frozenset()
            assert host.statistics().state_bytes <= 62_500
        assert store.loads == 0
