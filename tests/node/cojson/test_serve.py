from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio
import trio.testing

from bee.bee import Bee
from node.cojson.gatekeeper import ACCEPTED, Origin, Pace, Ruling
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.messages import Known, Load, Message, decode_frame, encode_lines, encode_message
from node.cojson.serve import (
    MAX_BAD_LINES,
    MAX_FRAME_LINES,
    QUIET_BYTES,
    QUIET_SECONDS,
    serve_client,
)
from node.covalue.bee_store import BeeStore
from node.covalue.keys import header_key, short_key
from node.covalue.known_state import NOTHING
from tests.node.cojson.test_host import TREE, free, open_host
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog

ANN = Author("ann")
FREE = map_header("free")


class Client:
    """The client's end of a socket in memory; the server's end is the socket itself."""

    remote = "test"

    def __init__(self, room: int = 1000) -> None:
        self._to_server, self._at_server = trio.open_memory_channel[str](1000)
        self.bytes_received = 0
        self._gone = trio.Event()
        self._to_client, self.frames = trio.open_memory_channel[str](room)

    async def receive(self) -> str | None:
        try:
            return await self._at_server.receive()
        except trio.EndOfChannel:
            return None

    async def wait_gone(self) -> None:
        await self._gone.wait()

    async def send(self, text: str) -> None:
        await self._to_client.send(text)

    def send_soon(self, text: str) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._to_client.send_nowait(text)

    def say(self, *lines: str) -> None:
        self.say_frame("\n".join(lines))

    def say_frame(self, text: str) -> None:
        self.bytes_received += len(text)
        self._to_server.send_nowait(text)

    def hang_up(self) -> None:
        self._to_server.close()
        self._gone.set()

    async def messages(self) -> list[Message]:
        """What has come once nothing moves any more, without pings."""
        await trio.testing.wait_all_tasks_blocked()
        found: list[Message] = []
        while True:
            try:
                found += decode_frame(self.frames.receive_nowait()).messages
            except trio.WouldBlock:
                return found


@asynccontextmanager
async def open_client(
    serve: Callable[[SyncHost, Client], Awaitable[None]] = serve_client, room: int = 1000
) -> AsyncIterator[tuple[SyncHost, Client, trio.Event]]:
    ended = trio.Event()
    client = Client(room)
    async with open_host() as (host, _), trio.open_nursery() as nursery:

        async def run() -> None:
            await serve(host, client)
            ended.set()

        nursery.start_soon(run)
        yield host, client, ended
        nursery.cancel_scope.cancel()


async def test_a_ping_comes_at_once_and_then_every_second_and_a_half(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_client() as (_, client, _):
        await trio.sleep(6.5)
        pings = []
        while True:
            try:
                pings.append(json.loads(client.frames.receive_nowait()))
            except trio.WouldBlock:
                break
        assert len(pings) == 5
        assert set(pings[0]) == {"type", "time", "dc"}
        assert pings[0]["type"] == "ping"
        assert isinstance(pings[0]["time"], int)


async def test_a_client_uploads_and_another_loads() -> None:
    async with open_client() as (host, client, _):
        client.say(encode_lines(TREE))
        assert [type(item) for item in await client.messages()] == [Known] * 3
        other = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_client, host, other)
            other.say(encode_message(Load(TREE[2].co_id, NOTHING)))
            assert await other.messages() == TREE
            nursery.cancel_scope.cancel()


async def test_bad_lines_cost_nothing_but_themselves() -> None:
    async with open_client() as (host, client, _):
        good = encode_message(Load(FREE.id, NOTHING))
        client.say("{bad", "", good, "null")
        client.say("")
        client.say('{"action":"nonsense"}', '{"foo":1}', '{"type":"ping"}')
        assert await client.messages() == [Known(FREE.id, NOTHING)]
        assert host.statistics().bad_lines == 2


async def test_an_id_cut_short_is_answered_and_remembered_nowhere() -> None:
    async with open_client() as (host, client, _):
        await trio.testing.wait_all_tasks_blocked()
        client.frames.receive_nowait()  # the ping
        cut = FREE.id[:-3]
        client.say(json.dumps({"action": "load", "id": cut, "header": False, "sessions": {}}))
        await trio.testing.wait_all_tasks_blocked()
        answer = json.loads(client.frames.receive_nowait())
        assert answer == {"action": "known", "id": cut, "header": False, "sessions": {}}
        assert host.statistics().bad_lines == 0
        assert host.statistics().values_in_memory == 0
        assert host.subscribed_ids() == frozenset()


async def test_who_sends_nothing_but_bad_lines_is_sent_away() -> None:
    async with open_client() as (_, client, ended):
        client.say(*["{"] * (MAX_BAD_LINES + 1))
        with trio.fail_after(20):
            await ended.wait()


async def test_who_hangs_up_is_forgotten() -> None:
    async with open_client() as (host, client, ended):
        client.say(encode_message(Load(FREE.id, NOTHING)))
        await client.messages()
        client.hang_up()
        with trio.fail_after(20):
            await ended.wait()
        assert host.statistics().clients == 0
        assert host.subscribed_ids() == frozenset()


async def test_a_connection_that_breaks_ends_quietly() -> None:
    async with open_client() as (host, client, ended):
        await client.messages()
        client.frames.close()
        client.say(encode_message(Load(FREE.id, NOTHING)))
        with trio.fail_after(20):
            await ended.wait()
        assert host.statistics().clients == 0


async def test_many_answers_share_a_frame() -> None:
    async with open_client() as (_, client, _):
        await client.messages()
        ids = [map_header(f"u{n}").id for n in range(100)]
        client.say(*[encode_message(Load(co_id, NOTHING)) for co_id in ids])
        await trio.testing.wait_all_tasks_blocked()
        assert client.frames.statistics().current_buffer_used <= 4
        assert len(await client.messages()) == 100


async def test_a_client_that_does_not_read_waits_without_harm() -> None:
    async with open_client(room=0) as (host, client, _):
        transactions = edits(40, size=60_000)
        contents = [
            ANN.content(FREE, transactions[: n + 1], after=n, as_agent=True, with_header=n == 0)
            for n in range(40)
        ]
        await host.receive_content("test", contents)
        client.say(encode_message(Load(FREE.id, NOTHING)))
        await trio.testing.wait_all_tasks_blocked()
        other = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_client, host, other)
            other.say(encode_message(Load(FREE.id, NOTHING)))
            assert len(await other.messages()) == 20
            nursery.cancel_scope.cancel()
        got = 0
        with trio.fail_after(20):
            while got < 20:
                got += len(decode_frame(await client.frames.receive()).messages)


async def test_edits_reach_a_subscriber_while_it_is_idle() -> None:
    async with open_client() as (host, client, _):
        await host.receive_content("test", [free(1)])
        client.say(encode_message(Load(FREE.id, NOTHING)))
        assert await client.messages() == [free(1)]
        await host.receive_content("test", [free(3, after=1)])
        assert await client.messages() == [free(3, after=1)]


async def test_a_frame_of_far_too_many_lines_ends_the_connection() -> None:
    async with open_client() as (host, client, ended):
        good = encode_message(Load(FREE.id, NOTHING))
        client.say(good, *["{}"] * MAX_FRAME_LINES)
        with trio.fail_after(20):
            await ended.wait()
        # What came before the line too many was handled.
        assert host.statistics().messages_received == 1


async def test_a_client_that_claims_more_and_falls_silent_is_asked_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_client() as (host, client, _):
        await host.receive_content("test", [free(1)])
        client.say(encode_message(Load(FREE.id, free(2).known_state)))
        assert await client.messages() == [Known(FREE.id, free(1).known_state)]
        for _ in range(6):  # it sends other things
            await trio.sleep(3)
            client.say("[" * QUIET_BYTES + "]" * QUIET_BYTES)
            assert await client.messages() == []
        await trio.sleep(QUIET_SECONDS)
        assert await client.messages() == []
        for _ in range(5):  # it sends little
            await trio.sleep(QUIET_SECONDS / 5)
            client.say(encode_message(Load(map_header("none").id, NOTHING)))
        asked = Load(FREE.id, free(1).known_state)
        assert asked in await client.messages()
        await trio.sleep(10 * QUIET_SECONDS)
        assert asked not in await client.messages()


async def test_what_could_not_be_stored_for_a_time_is_asked_of_a_silent_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found in review: its client had sent it once, and was not told that it was lost."""
    log = DataLog()
    async with open_host(log) as (host, _):
        await host.receive_content("test", [free(2)])
    sound = await Bee(log).get(header_key(FREE.id))
    short = log.rows.pop(short_key(FREE.id))
    await Bee(log).put(header_key(FREE.id), b"\xc1")
    client = Client()
    async with open_host(log) as (host, _), trio.open_nursery() as nursery:
        nursery.start_soon(serve_client, host, client)
        client.say(encode_message(free(3, after=2)))
        await trio.sleep(3 * QUIET_SECONDS)
        assert await client.messages() == []
        assert sound is not None
        await Bee(log).put(header_key(FREE.id), sound.value)
        log.rows[short_key(FREE.id)] = short
        await trio.sleep(8 * QUIET_SECONDS)
        assert await client.messages() == [Load(FREE.id, free(2).known_state)]
        client.say(encode_message(free(3, after=2)))
        assert await client.messages() == [Known(FREE.id, free(3).known_state)]
        await trio.sleep(20 * QUIET_SECONDS)
        assert await client.messages() == []
        nursery.cancel_scope.cancel()


async def test_a_while_is_over_though_its_parts_do_not_add_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.jump(2**30 - 2 + 2**-23)  # from 2**30 on, steps of 2**-23 are rounded to none
    async with open_client() as (_, client, _):
        client.say(encode_message(Load(FREE.id, free(2).known_state)))
        await client.messages()
        await trio.sleep_until(2**30 - 1)
        client.say("")
        await trio.sleep(3 * QUIET_SECONDS)
        assert await client.messages() == [Load(FREE.id, NOTHING)]


async def test_who_is_left_unread_is_not_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_paced(Pace(), Pace(), Pace(60.0)) as (_, client, _):
        client.say(encode_message(Load(FREE.id, free(2).known_state)))
        assert await client.messages() == [Known(FREE.id, NOTHING)]
        client.say("")
        await trio.sleep(1)
        client.say(encode_message(free(2)))
        await trio.sleep(60 + 3 * QUIET_SECONDS)
        assert await client.messages() == [Known(FREE.id, free(2).known_state)]


class Slow:
    """A gatekeeper that takes everything, and slows those who send."""

    def __init__(self, *paces: Pace) -> None:
        self.paces = list(paces)
        self.received_from: list[tuple[Origin, int]] = []

    def screen(self, *_: object, **__: object) -> Ruling:
        return ACCEPTED

    def is_unwelcome(self, *_: object, **__: object) -> bool:
        return False

    def judge(self, *_: object, **__: object) -> Ruling:
        return ACCEPTED

    def stored(self, *_: object) -> None:
        pass

    def not_stored(self, *_: object) -> None:
        pass

    def erased(self, *_: object) -> None:
        pass

    def received(self, origin: Origin, size: int, messages: int, now: float) -> Pace:
        self.received_from.append((origin, messages))
        return self.paces.pop(0) if self.paces else Pace()


@asynccontextmanager
async def open_paced(*paces: Pace) -> AsyncIterator[tuple[Slow, Client, trio.Event]]:
    log = DataLog()
    slow, client, ended = Slow(*paces), Client(), trio.Event()
    async with (
        open_sync_host(BeeStore(Bee(log), log), access=slow) as host,
        trio.open_nursery() as nursery,
    ):

        async def run() -> None:
            await serve_client(host, client, Origin("192.0.2.1", "phone"))
            ended.set()

        nursery.start_soon(run)
        yield slow, client, ended
        nursery.cancel_scope.cancel()


async def test_who_sends_too_fast_is_left_unread_and_answered_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_paced(Pace(), Pace(30.0)) as (slow, client, ended):
        started = trio.current_time()
        for number in range(3):
            client.say(encode_message(Load(map_header(f"u{number}").id, NOTHING)))
        answers: list[Message] = []
        times: list[float] = []
        while len(answers) < 3:
            found = decode_frame(await client.frames.receive()).messages
            answers += found
            times += [trio.current_time() - started] * len(found)
        assert times == [0, 30, 30]
        assert slow.received_from == [
            (Origin("192.0.2.1", "phone"), 0),
            *[(Origin("192.0.2.1", "phone"), 1)] * 3,
        ]
        assert not ended.is_set()


async def test_who_goes_while_it_is_left_unread_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_paced(Pace(), Pace(1800.0)) as (_, client, ended):
        client.say(encode_message(Load(FREE.id, NOTHING)))
        await client.messages()
        assert not ended.is_set()
        started = trio.current_time()
        client.hang_up()
        await ended.wait()
        assert trio.current_time() == started


async def test_who_is_left_unread_costs_no_frame() -> None:
    async with open_paced(Pace(), Pace(60.0)) as (_, client, _):
        frame = encode_message(free(1))
        references = sys.getrefcount(frame)
        client.say_frame(frame)
        assert len(await client.messages()) == 1
        assert sys.getrefcount(frame) == references


async def test_who_is_far_beyond_the_rate_is_sent_away() -> None:
    async with open_paced(Pace(), Pace(900.0, "too much")) as (_, client, ended):
        client.say(encode_message(Load(FREE.id, NOTHING)))
        client.say(encode_message(Load(FREE.id, NOTHING)))
        with trio.fail_after(20):
            await ended.wait()
