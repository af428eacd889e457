"""All that clients do over stores that take their time: in the end everybody has everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from node.cojson.client_link import ClientLink
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Known, Load, Message, decode_line
from node.covalue.content import Content
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.stores import HOMES
from tests.support.tardy_store import TardyStore

ANN = Author("ann")
GROUP = group_header(ANN.account_id)
DOOMED = map_header("doomed", GROUP.id)
FOUNDING = [ANN.account(), ANN.content(GROUP, [role(ANN.account_id, "admin")])]
HEADERS = {header.id: header for header in (map_header(f"m{n}") for n in range(6))}
IDS = [*HEADERS, DOOMED.id]

EDITORS, STEPS = 4, 60

Counts = dict[CoSessionId, int]


class Editor:
    """As much of a client as it takes: it edits in a session of its own, and keeps what comes."""

    def __init__(self, name: str, seed: int) -> None:
        self._author = Author(name)
        self._random = Random(f"{seed} {name}")
        self.name = name
        self.session_id = self._author.session_id(as_agent=True)
        self.held: dict[RawCoId, Counts] = {}
        self.acknowledged: dict[RawCoId, int] = {}
        self._link: ClientLink | None = None

    async def run(self, host: SyncHost) -> None:
        """Come and go, and do something in between."""
        for _ in range(STEPS // 20):
            with self._connected(host) as link:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, link)
                    for co_id in IDS:
                        await link.receive([self._load(co_id)])
                    for _ in range(20):
                        await trio.sleep(self._random.choice((0, 0, 0.005, 0.05)))
                        await link.receive([self._edit(self._random.choice(list(HEADERS)))])
                    await trio.sleep(self._random.choice((0, 0.1, 1)))
                    nursery.cancel_scope.cancel()

    async def stay(self, host: SyncHost) -> None:
        """Take what comes, and send what is lacking, until cancelled."""
        with self._connected(host) as link:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, link)
                await link.receive([self._load(co_id) for co_id in IDS])

    @contextmanager
    def _connected(self, host: SyncHost) -> Iterator[ClientLink]:
        with host.client(self.name) as link:
            yield link

    def _load(self, co_id: RawCoId) -> Load:
        return Load(co_id, self._known(co_id))

    def _known(self, co_id: RawCoId) -> KnownState:
        held = self.held.get(co_id)
        return NOTHING if held is None else KnownState(True, dict(held))

    def _edit(self, co_id: RawCoId) -> Content:
        is_new = co_id not in self.held
        held = self.held.setdefault(co_id, {})
        after = held.get(self.session_id, 0)
        held[self.session_id] = after + 1
        return self._content(HEADERS[co_id], after, with_header=is_new)

    def _content(self, header: CoValueHeader, after: int, *, with_header: bool) -> Content:
        transactions = edits(self.held[header.id][self.session_id])
        return self._author.content(
            header, transactions, after=after, as_agent=True, with_header=with_header
        )

    async def _read(self, link: ClientLink) -> None:
        while True:
            found = await link.next_lines(25_000)
            if not found:
                await link.outbox.wake.wait()
            for line in found:
                message = decode_line(line)
                assert message is not None
                answer = self._take(message)
                if answer is not None:
                    await link.receive([answer])

    def _take(self, message: Message) -> Message | None:
        match message:
            case Content(co_id, header, new):
                assert header is not None or co_id in self.held
                held = self.held.setdefault(co_id, {})
                for session_id, part in new.items():
                    assert part.after <= held.get(session_id, 0), "a gap"
                    held[session_id] = max(held.get(session_id, 0), part.stop)
                return Known(co_id, self._known(co_id))
            case Load(co_id, known) | Known(co_id, known) if co_id in HEADERS:
                count = known.sessions.get(self.session_id, 0)
                own = self.held.get(co_id, {}).get(self.session_id, 0)
                assert count <= own, "more than there ever was"
                if isinstance(message, Known):
                    assert count >= self.acknowledged.get(co_id, 0), "it was acknowledged"
                    self.acknowledged[co_id] = count
                if count < own:
                    return self._content(HEADERS[co_id], count, with_header=not known.header)
        return None


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("store", HOMES)
async def test_everybody_gets_everything(
    tmp_path: Path, store: str, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.002  # threads, where there are any, are waited for
    editors = [Editor(f"editor {n}", seed) for n in range(EDITORS)]
    options = HostOptions(memory_bytes=30_000, memory_seconds=0.5)
    async with (
        HOMES[store](tmp_path).open() as inner,
        open_sync_host(TardyStore(inner, seed), options) as host,
    ):
        receipt = await host.receive_content("test", [*FOUNDING, ANN.content(DOOMED, edits(3))])
        assert len(receipt.accepted) == 3
        async with trio.open_nursery() as nursery:
            for editor in editors:
                nursery.start_soon(editor.run, host)
            await trio.sleep(0.5)
            await host.receive_content("test", [ANN.deletion(DOOMED)])
        expected = {
            co_id: {
                editor.session_id: editor.held[co_id][editor.session_id]
                for editor in editors
                if editor.session_id in editor.held.get(co_id, {})
            }
            for co_id in HEADERS
        }
        async with trio.open_nursery() as nursery:
            for editor in editors:
                nursery.start_soon(editor.stay, host)
            await trio.sleep(150)  # the eraser looks once a minute
            nursery.cancel_scope.cancel()
        for editor in editors:
            assert {co_id: editor.held[co_id] for co_id in HEADERS} == expected
            assert any(map(is_delete_session, editor.held[DOOMED.id]))
        for co_id, counts in expected.items():
            value = await inner.load_value(co_id)
            assert value is not None
            assert value.known_state.sessions == counts
        assert host.statistics().refused == 0
        assert await inner.pending_erasures() == []
