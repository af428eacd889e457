"""Short questions to the store do not wait behind long ones."""

from __future__ import annotations

from collections import Counter

import trio
import trio.testing

from bee.bee import Bee
from node.cojson.client_link import SERVE_BYTES, TURN, ClientLink
from node.cojson.crypto import RunningHash
from node.cojson.host import open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Known, Load, Message, decode_line
from node.cojson.outputs import Rehash
from node.cojson.store_reader import LONG_READS
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, SessionContent
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.store import LoadedPieces, StoredValue
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.data_log import DataLog
from tests.support.engine_shell import EngineShell

ANN = Author("ann")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
LARGE = [map_header(f"large {number}") for number in range(LONG_READS + 1)]
SMALL = map_header("small")
TREE = [ANN.account(), ANN.content(GROUP, edits(2)), ANN.content(MAP, edits(2))]


class LongStore(BeeStore):
    """All that is long takes until `may_go_on`."""

    def __init__(self, log: DataLog) -> None:
        super().__init__(Bee(log), log)
        self.long: set[RawCoId] = set()
        self.reading: list[RawCoId] = []
        self.may_go_on = trio.Event()

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        if co_id in self.long and max_bytes is not None and max_bytes > SERVE_BYTES:
            self.reading.append(co_id)
            await self.may_go_on.wait()
        return await super().load(co_id, known, max_bytes)


async def told(link: ClientLink) -> list[Message]:
    found: list[Message] = []
    await trio.testing.wait_all_tasks_blocked()
    while lines := await link.next_lines(25_000):
        found += [message for line in lines if (message := decode_line(line)) is not None]
        await trio.testing.wait_all_tasks_blocked()
    return found


async def test_loads_do_not_wait_while_sessions_are_hashed_anew() -> None:
    """Found in review: all waited for a second behind one edit of a session of 200 MB."""
    log = DataLog()
    small = ANN.content(SMALL, edits(2), as_agent=True)
    async with open_sync_host(BeeStore(Bee(log), log)) as host:
        values = [ANN.content(header, edits(2), as_agent=True) for header in LARGE]
        await host.receive_content("test", [*values, small])
    store = LongStore(log)
    store.long = {header.id for header in LARGE}
    more = [
        ANN.content(header, edits(3), after=2, as_agent=True, with_header=False) for header in LARGE
    ]
    async with open_sync_host(store) as host:
        with host.client("a") as a, host.client("b") as b:
            await a.receive(more)
            await trio.testing.wait_all_tasks_blocked()
            assert store.reading == [header.id for header in LARGE[:LONG_READS]]
            await b.receive([Load(SMALL.id, NOTHING)])
            assert await told(b) == [small]
            store.may_go_on.set()
            answers = await told(a)
    for content in more:
        held = KnownState(True, {ANN.session_id(as_agent=True): 3})
        assert Known(content.co_id, held) in answers


class CountingStore(BeeStore):
    """How often each value was read, whole or in part."""

    def __init__(self, log: DataLog) -> None:
        super().__init__(Bee(log), log)
        self.reads: Counter[RawCoId] = Counter()

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        self.reads[co_id] += 1
        return await super().load(co_id, known, max_bytes)

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        self.reads[co_id] += 1
        return await super().load_value(co_id)


async def test_a_value_is_read_once_for_all_its_sessions_that_are_hashed_anew() -> None:
    """One message to each of 2000 sessions had it read 4000 times, for two minutes."""
    log = DataLog()
    names = [str(number) for number in range(2 * TURN)]

    def content(count: int, after: int = 0) -> Content:
        """Of sessions of different lengths, as many further transactions."""
        new: dict[CoSessionId, SessionContent] = {}
        for number, name in enumerate(names):
            log = edits(count + number % 3)
            start = after and after + number % 3
            new |= ANN.content(SMALL, log, after=start, session=name, as_agent=True).new
        return Content(SMALL.id, None if after else SMALL, new, SMALL.priority)

    async with open_sync_host(BeeStore(Bee(log), log)) as host:
        await host.receive_content("test", [content(2)])
    store = CountingStore(log)
    async with open_sync_host(store) as host:
        receipt = await host.receive_content("test", [content(4, 2)])
        assert receipt.refused == receipt.partly == {}
        assert store.reads[SMALL.id] <= 4
    value = await store.load_value(SMALL.id)
    assert value is not None
    assert sorted(item.count for item in value.sessions.values()) == sorted(
        4 + number % 3 for number, _ in enumerate(names)
    )


async def test_loads_do_not_wait_while_a_group_is_read() -> None:
    log = DataLog()
    small = ANN.content(SMALL, edits(2), as_agent=True)
    async with open_sync_host(BeeStore(Bee(log), log)) as host:
        await host.receive_content("test", [*TREE, small])
    store = LongStore(log)
    store.long = {GROUP.id}
    async with open_sync_host(store, HostOptions(enforces_writes=True)) as host:
        with host.client("a") as a, host.client("b") as b:
            await a.receive([ANN.content(MAP, edits(3), after=2, with_header=False)])
            await trio.testing.wait_all_tasks_blocked()
            assert store.reading == [GROUP.id]
            await b.receive([Load(SMALL.id, NOTHING)])
            assert await told(b) == [small]
            store.may_go_on.set()
            await trio.testing.wait_all_tasks_blocked()


def test_a_hash_of_before_the_value_was_read_again_counts_no_more() -> None:
    shell = EngineShell()
    shell.client("a")
    shell.say("a", ANN.content(SMALL, edits(2), as_agent=True))
    shell.commit()
    again = EngineShell(shell.disk)
    again.client("a")
    again.holds_reads = True
    more = ANN.content(SMALL, edits(3), after=2, as_agent=True, with_header=False)
    again.say("a", more)
    again.answer_read()
    session = ANN.session_id(as_agent=True)
    assert again.reads == [Rehash(SMALL.id, session, 2)]
    again.carry_out(again.engine.rehashed(SMALL.id, session, 1, RunningHash()))
    assert again.stores == []
    again.answer_reads()
    again.commit()
    assert again.take("a") == [Known(SMALL.id, KnownState(True, {session: 3}))]
