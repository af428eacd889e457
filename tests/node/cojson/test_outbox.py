from __future__ import annotations

import trio
import trio.testing

from node.cojson.change_feed import MAX_CHANGED_VALUES, ChangeFeed
from node.cojson.client_table import ClientTable
from node.cojson.gatekeeper import UNKNOWN_ORIGIN
from node.cojson.messages import Known, Load, encode_message
from node.cojson.outbox import CONTROL_BYTES, MAX_CONTROL_BYTES, Outbox
from node.cojson.outputs import Send
from node.cojson.peer_view import MAX_COUNTERS, MAX_SUBSCRIPTIONS, PeerView, ValueView
from node.cojson.sync import SyncEngine
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, map_header

A, B, C = (RawCoId(letter) for letter in "abc")


def test_lines_come_in_order_as_many_as_fit() -> None:
    outbox = Outbox()
    for n in range(10):
        outbox.push(str(n) * 10)
    assert outbox.take_lines(25) == ["0" * 10, "1" * 10, "2" * 10]
    assert outbox.take_lines(1) == ["3" * 10]
    assert len(outbox.take_lines(1000)) == 6
    assert outbox.take_lines(1000) == []


def test_values_come_by_priority_and_stay_until_served() -> None:
    outbox = Outbox()
    outbox.want(A, 6)
    outbox.want(B, 3)
    outbox.want(C, 3)
    outbox.want(B, 3)
    assert outbox.next_wanted() == (B, 3)
    assert outbox.next_wanted() == (B, 3)
    outbox.served(B, 3)
    outbox.want(A, 0)
    assert outbox.next_wanted() == (A, 0)
    for value, priority in ((A, 0), (C, 3), (A, 6)):
        assert outbox.next_wanted() == (value, priority)
        outbox.served(value, priority)
    assert outbox.next_wanted() is None


def test_what_is_wanted_while_it_is_served_is_served_again() -> None:
    outbox = Outbox()
    outbox.want(A, 3)
    assert outbox.next_wanted() == (A, 3)
    outbox.want(A, 3)
    outbox.served(A, 3)
    assert outbox.next_wanted() == (A, 3)
    outbox.served(A, 3)
    assert outbox.next_wanted() is None
    outbox.served(A, 3)


async def test_a_client_that_does_not_read_is_ended() -> None:
    outbox = Outbox()
    outbox.push("x" * MAX_CONTROL_BYTES)
    assert len(outbox.take_lines(1)) == 1
    outbox.push("x" * MAX_CONTROL_BYTES)
    outbox.push("y")
    assert outbox.end_reason == "the client does not read"
    assert outbox.take_lines(10) == []
    await outbox.wake.wait()


def test_who_is_told_much_at_once_is_not_ended_for_it() -> None:
    """Found in review: 60 edits of values with 600 sessions were, by what acknowledged them."""
    table = ClientTable(SyncEngine(), min_copies=1)
    peer_id, outbox = table.add("a", UNKNOWN_ORIGIN)
    author = Author("ann")
    sessions = {author.session_id(str(n), as_agent=True): n for n in range(1000)}
    for n in range(60):
        table.tell(Send(peer_id, Known(map_header(str(n)).id, KnownState(True, sessions))))
    many = {CoSessionId(f"{session}{n}"): n for session in sessions for n in range(50)}
    for message in (Known(A, KnownState(True, many), True), Load(A, KnownState(True, many))):
        table.tell(Send(peer_id, message))
    assert outbox.end_reason is None
    assert outbox.control_bytes > CONTROL_BYTES
    found = [line for _ in range(62) for line in outbox.take_lines(1)]
    assert sum(map(len, found)) > 4 * MAX_CONTROL_BYTES
    assert outbox.control_bytes == 0
    assert outbox.take_lines(1) == []


def test_of_a_value_the_newest_acknowledgement_waits() -> None:
    outbox = Outbox()
    old, new = (KnownState(True, {CoSessionId("s"): n, CoSessionId(str(n)): 1}) for n in (1, 2))
    newest = KnownState(True, {**old.sessions, **new.sessions})
    absent, correction, load = Known(A, NOTHING), Known(A, old, True), Load(A, old)
    told: list[Known | Load] = [absent, Known(A, old), Known(B, old), correction, load]
    for message in (*told, Known(A, new), Known(A, newest), correction):
        outbox.say(message)
    told[1] = Known(A, newest)
    assert outbox.take_lines(10**6) == [encode_message(message) for message in (*told, correction)]
    assert outbox.control_bytes == 0
    outbox.say(Known(A, new))
    assert outbox.take_lines(1) == [encode_message(Known(A, new))]
    outbox.end("enough")
    outbox.say(Known(A, new))
    outbox.push("x")
    assert outbox.take_lines(10) == []
    assert outbox.control_bytes == 0


async def test_changes_of_a_value_are_merged() -> None:
    feed = ChangeFeed()
    feed.add(A, {CoSessionId("s"): 1})
    feed.add(B, {CoSessionId("s"): 5})
    feed.add(A, {CoSessionId("s"): 3, CoSessionId("t"): 1})
    assert await feed.receive() == (A, {"s": 3, "t": 1})
    feed.add(C, {})
    assert await feed.receive_many() == [(B, {"s": 5}), (C, {})]


async def test_a_reader_waits_and_loses_nothing_when_cancelled() -> None:
    feed = ChangeFeed()
    with trio.move_on_after(0):
        await feed.receive()
    async with trio.open_nursery() as nursery:
        received: list[RawCoId] = []

        async def read() -> None:
            async for co_id, _ in feed:
                received.append(co_id)
                if len(received) == 2:
                    return

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        feed.add(A, {})
        await trio.testing.wait_all_tasks_blocked()
        assert received == [A]
        feed.add(B, {})


async def test_each_change_reaches_one_of_the_readers_that_wait() -> None:
    feed = ChangeFeed()
    received: list[RawCoId] = []

    async def read_one() -> None:
        received.append((await feed.receive())[0])

    async def read_many() -> None:
        received.extend(co_id for co_id, _ in await feed.receive_many())

    async with trio.open_nursery() as nursery:
        for read in (read_one, read_many, read_one):
            nursery.start_soon(read)
        for co_id in (A, B, C):
            await trio.testing.wait_all_tasks_blocked()
            feed.add(co_id, {})
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert received == [A, B, C]


async def test_changes_are_bounded() -> None:
    feed = ChangeFeed()
    for n in range(MAX_CHANGED_VALUES + 3):
        feed.add(RawCoId(str(n)), {})
    assert feed.left_out == 3
    assert (await feed.receive())[0] == "3"


def test_what_a_client_claims_is_bounded() -> None:
    peer = PeerView("p")
    view = peer.values[A] = ValueView()
    many = KnownState(True, {CoSessionId(str(n)): 1 for n in range(MAX_COUNTERS + 1)})
    peer.replace(view, many)
    assert peer.is_over_limit()
    peer.replace(view, NOTHING)
    assert not peer.is_over_limit()
    peer.confirm(view, many)
    assert peer.is_over_limit()
    peer.replace(view, NOTHING)
    peer.values.update((RawCoId(str(n)), view) for n in range(MAX_SUBSCRIPTIONS))
    assert peer.is_over_limit()


def test_what_was_sent_is_forgotten_once_confirmed() -> None:
    view = ValueView()
    sent = KnownState(True, {CoSessionId("s"): 3})
    view.add_sent(sent)
    assert not view.lacks(sent)
    assert view.real == NOTHING
    view.confirm(KnownState(True, {CoSessionId("s"): 2}))
    assert view.optimistic == sent
    view.confirm(sent)
    assert view.sent is None
    assert view.optimistic == sent
    view.add_sent(KnownState(True, {CoSessionId("s"): 9}))
    view.replace(NOTHING)
    assert view.lacks(sent)
