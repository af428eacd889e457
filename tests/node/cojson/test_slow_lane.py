"""Clients whose messages take much time leave most of it to others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio
from trio.testing import MockClock

from bee.bee import Bee
from node.cojson.client_link import FIRST_WEIGHT, TURN, ClientLink, ContentSource
from node.cojson.client_table import ClientTable
from node.cojson.foresight import Extensions
from node.cojson.gatekeeper import UNKNOWN_ORIGIN
from node.cojson.messages import Load, Message
from node.cojson.recent import RecentContent
from node.cojson.signature_checks import LookAhead
from node.cojson.slow_lane import SlowLane
from node.cojson.sync import SyncEngine
from node.covalue.bee_store import BeeStore
from node.covalue.known_state import NOTHING
from tests.support.authors import map_header
from tests.support.data_log import DataLog

LOAD = Load(map_header("m").id, NOTHING)


class SlowInlet:
    """Takes so many seconds for each message, of which its stopwatch tells; notes each turn."""

    def __init__(self, seconds_each: float) -> None:
        self.seconds_each = seconds_each
        self.seconds = 0.0
        self.turns: list[int] = []

    def elapsed(self) -> float:
        return self.seconds

    async def look_ahead(self, _peer_id: str, _messages: Sequence[Message]) -> LookAhead:
        return LookAhead()

    def receive(
        self, _peer_id: str, messages: Sequence[Message], _foreseen: Sequence[Extensions]
    ) -> None:
        self.turns += [len(messages)] if messages else []
        self.seconds += len(messages) * self.seconds_each

    async def wait_settled(self, _peer_id: str) -> None: ...

    def has_claims(self, _peer_id: str) -> bool:
        return False

    def listened(self, _peer_id: str, *, is_quiet: bool) -> None: ...


def links(lane: SlowLane, *inlets: SlowInlet) -> Iterator[ClientLink]:
    engine, log = SyncEngine(), DataLog()
    clients = ClientTable(engine, 1)
    store = BeeStore(Bee(log), log)
    source = ContentSource(engine, RecentContent(), store, clients.screen)
    for number, inlet in enumerate(inlets):
        outbox = clients.add(f"{number}", UNKNOWN_ORIGIN)[1]
        yield ClientLink(f"{number}", outbox, source, inlet, lane, inlet.elapsed)


async def test_a_turn_has_fewer_messages_while_they_take_long(autojump_clock: MockClock) -> None:
    inlet = SlowInlet(0.01)
    (link,) = links(SlowLane(), inlet)
    await link.receive([LOAD] * 100)
    assert inlet.turns == [TURN // FIRST_WEIGHT, TURN // (4 * FIRST_WEIGHT), *[1] * 90]
    inlet.seconds_each = 0.00001
    await link.receive([LOAD] * 1000)
    assert TURN in inlet.turns


async def test_clients_whose_messages_take_long_share_half_of_the_time(
    autojump_clock: MockClock,
) -> None:
    inlets = [SlowInlet(0.01) for _ in range(3)]
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for link in links(SlowLane(), *inlets):
            nursery.start_soon(link.receive, [LOAD] * 100)
    worked = sum(inlet.seconds for inlet in inlets)
    assert trio.current_time() - started >= 2 * worked - 0.001


async def test_a_client_whose_messages_take_little_never_rests(autojump_clock: MockClock) -> None:
    inlet = SlowInlet(0.0001)
    (link,) = links(SlowLane(), inlet)
    started = trio.current_time()
    await link.receive([LOAD] * 1000)
    assert trio.current_time() == started


async def test_whoever_sends_one_slow_message_does_not_wait_for_those_that_send_nothing_else(
    autojump_clock: MockClock,
) -> None:
    lane, honest = SlowLane(), SlowInlet(0.003)
    (link,) = links(lane, honest)
    async with trio.open_nursery() as nursery:
        for attacker in links(lane, *[SlowInlet(0.1) for _ in range(8)]):
            nursery.start_soon(attacker.receive, [LOAD] * 100)
        await trio.sleep(5)
        started = trio.current_time()
        await link.receive([LOAD])
        assert trio.current_time() - started <= 2 * honest.seconds + 0.001
        nursery.cancel_scope.cancel()


async def test_slow_clients_have_as_much_time_as_one_another(autojump_clock: MockClock) -> None:
    lane = SlowLane()
    inlets = [SlowInlet(0.1), SlowInlet(0.01), SlowInlet(0.01)]
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for link in links(lane, *inlets):
                nursery.start_soon(link.receive, [LOAD] * 10_000)
    assert all(abs(inlet.seconds - 10) <= 1 for inlet in inlets)


async def test_nobody_waits_for_slow_clients_that_left(autojump_clock: MockClock) -> None:
    lane, inlet = SlowLane(), SlowInlet(0.1)
    for link in links(lane, *[SlowInlet(0.1) for _ in range(20)]):
        with trio.move_on_after(0.01):
            await link.receive([LOAD])
    started = trio.current_time()
    (link,) = links(lane, inlet)
    await link.receive([LOAD])
    assert trio.current_time() - started <= 2 * inlet.seconds + 0.001
