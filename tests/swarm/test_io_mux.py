from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.encoding import encode_string, encode_uint
from hypercore.replication.channel import Multiplexer
from swarm import (
    Channel,
    ChannelRejected,
    MalformedPacket,
    MuxHandle,
    OutboxOverflow,
    RemoteOpen,
    open_mux,
)
from swarm.io.mux import BULK_BYTES, FIRST_BULK_BYTES, MAX_INBOX_BYTES, MAX_OUTBOX_BYTES
from swarm.mux import MAX_MESSAGE_BYTES, MAX_UNCLAIMED_BYTES, Message, encode_frames
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.stream_pair import open_connection_pair, open_mux_pair

P = "p"


async def open_both(
    left: MuxHandle, right: MuxHandle, id: bytes | None = None
) -> tuple[Channel, Channel]:
    channels: dict[MuxHandle, Channel] = {}

    async def open_one(mux: MuxHandle) -> None:
        channels[mux] = await mux.open_channel(P, id, b"initiator" if mux is left else b"responder")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_one, left)
        nursery.start_soon(open_one, right)
    return channels[left], channels[right]


@asynccontextmanager
async def open_channel_pair(
    *, is_lockstep: bool = False
) -> AsyncIterator[tuple[Channel, Channel, MuxHandle, MuxHandle]]:
    async with open_mux_pair(P, is_lockstep=is_lockstep) as (left_mux, right_mux):
        left, right = await open_both(left_mux, right_mux)
        yield left, right, left_mux, right_mux


async def receive(channel: Channel, count: int) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        messages += await channel.receive()
    return messages


async def test_it_is_what_replication_wants() -> None:
    async with open_mux_pair() as (left, _):
        multiplexer: Multiplexer = left
        assert multiplexer.link.is_initiator


async def test_messages_both_ways_in_order() -> None:
    async with open_channel_pair() as (left, right, _, _):
        assert left.remote_handshake == b"responder"
        assert right.remote_handshake == b"initiator"
        sent = [(i % 300, b"%d" % i) for i in range(2000)]
        for message_type, payload in sent:
            left.send(message_type, payload)
            right.send(message_type, payload)
        assert await receive(left, 2000) == sent
        assert await receive(right, 2000) == sent


async def test_everything_queued_leaves_as_one_message_and_arrives_as_one_list() -> None:
    async with open_channel_pair() as (left, right, left_mux, _):
        await trio.testing.wait_all_tasks_blocked()
        before = left_mux.connection.statistics().messages_sent
        for i in range(1000):
            left.send(0, b"%d" % i)
        await left_mux.flush()
        assert left_mux.connection.statistics().messages_sent == before + 1
        await trio.testing.wait_all_tasks_blocked()
        assert len(await right.receive()) == 1000
        assert left_mux.statistics().outbox_bytes == 0


async def test_a_channel_that_the_remote_closes_ends_after_its_last_message() -> None:
    async with open_channel_pair() as (left, right, _, right_mux):
        left.send(1, b"last")
        left.close()
        left.close()
        assert await right.receive() == [(1, b"last")]
        with pytest.raises(trio.EndOfChannel):
            await right.receive()
        right.send(1, b"dropped")
        right.wake_source()
        right.close()
        with pytest.raises(trio.ClosedResourceError):
            left.send(1, b"x")
        with pytest.raises(trio.ClosedResourceError):
            await left.receive()
        assert right_mux.statistics().channels == 0


async def test_closing_wakes_whoever_receives() -> None:
    async with open_channel_pair() as (left, _, _, _), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await left.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        left.close()


async def test_a_closed_channels_number_serves_the_next_one() -> None:
    async with open_channel_pair() as (left, right, left_mux, right_mux):
        right.close()
        with pytest.raises(trio.EndOfChannel):
            await left.receive()
        again_left, again_right = await open_both(left_mux, right_mux)
        left.close()  # must not touch the new channel that has its number
        again_left.send(0, b"fine")
        assert await again_right.receive() == [(0, b"fine")]


async def test_channels_that_nobody_wants_are_rejected() -> None:
    async with open_mux_pair() as (left, right):
        with pytest.raises(ChannelRejected):
            await left.open_channel("unknown", None)
        with pytest.raises(trio.BrokenResourceError):
            await right.open_channel("unknown", b"\x01" * 32)


async def test_remote_opens_wait_to_be_answered() -> None:
    async with open_mux_pair(P) as (left, right), trio.open_nursery() as nursery:

        async def offer(id: bytes) -> None:
            if id == b"no":
                with pytest.raises(ChannelRejected):
                    await left.open_channel(P, id)
            else:
                channel = await left.open_channel(P, id, b"hs" + id)
                channel.send(0, id)

        for id in (b"one", b"no", b"two"):
            nursery.start_soon(offer, id)
        seen: set[bytes | None] = set()
        async for remote_open in right.remote_opens(P):
            seen.add(remote_open.id)
            if remote_open.id == b"no":
                remote_open.reject()
                remote_open.reject()
            else:
                assert remote_open.handshake == b"hs" + (remote_open.id or b"")
                channel = await right.open_channel(P, remote_open.id)
                assert await channel.receive() == [(0, remote_open.id)]
                remote_open.reject()  # too late to mean anything
            if len(seen) == 3:
                break
        assert right.statistics().channels == 2


async def test_an_open_answered_by_our_own_is_not_handed_out() -> None:
    async with open_mux_pair(P) as (left, right):
        await open_both(left, right, b"\x01")
        await open_both(left, right, b"\x02")
        opens = right.remote_opens(P)
        assert opens is right.remote_opens(P)

        async def close_later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            opens.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_later)
            handed_out = [remote_open async for remote_open in opens]
        assert handed_out == []


async def test_closed_remote_opens_reject_what_waits_and_what_comes() -> None:
    async with open_mux_pair(P) as (left, right), trio.open_nursery() as nursery:

        async def offer(id: bytes) -> None:
            with pytest.raises(ChannelRejected):
                await left.open_channel(P, id)

        nursery.start_soon(offer, b"early")
        await trio.testing.wait_all_tasks_blocked()
        closed = right.remote_opens(P)
        await closed.aclose()
        nursery.start_soon(offer, b"late")
        await trio.testing.wait_all_tasks_blocked()
        opens = right.remote_opens(P)
        closed.close()
        nursery.start_soon(left.open_channel, P, b"again")
        remote_open = await anext(opens)
        assert remote_open.id == b"again"
        await right.open_channel(P, b"again")


async def test_an_open_that_is_cancelled_is_withdrawn() -> None:
    async with open_mux_pair(P) as (left, right):
        with trio.move_on_after(0):
            await left.open_channel(P, b"gone")
        await left.flush()
        await trio.testing.wait_all_tasks_blocked()
        opens = right.remote_opens(P)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.open_channel, P, b"next")
            assert (await anext(opens)).id == b"next"
            await right.open_channel(P, b"next")
        assert left.statistics().channels == 1


async def test_the_end_of_the_connection_ends_everything_on_it() -> None:
    async with open_channel_pair() as (left, right, left_mux, right_mux):
        error = MalformedPacket("nonsense")
        opened: list[RemoteOpen] = []

        async def collect() -> None:
            opened.extend([remote_open async for remote_open in right_mux.remote_opens(P)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            nursery.start_soon(right_mux.wait_ended)
            await trio.testing.wait_all_tasks_blocked()
            left.abort(error)
            left.abort(ValueError("a second one changes nothing"))
        assert opened == []
        assert left_mux.error is error
        assert right_mux.error is None
        for channel in (left, right):
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
            channel.send(0, b"dropped")
            channel.close()
        for mux in (left_mux, right_mux):
            assert mux.is_ended
            await mux.flush()
            with pytest.raises(trio.EndOfChannel):
                await mux.open_channel(P, None)


async def test_what_was_sent_still_leaves_when_the_body_ends() -> None:
    async with open_connection_pair() as (left, right), open_mux(right, accept=[P]) as right_mux:
        channels: list[Channel] = []

        async def respond() -> None:
            channels.append(await right_mux.open_channel(P, None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            async with open_mux(left, accept=[P]) as left_mux:
                channel = await left_mux.open_channel(P, None)
                channel.send(0, b"x" * 100_000)
        assert await channels[0].receive() == [(0, b"x" * 100_000)]
        with pytest.raises(trio.EndOfChannel):
            await channels[0].receive()


@pytest.mark.parametrize("frame", [b"\x01", b"\x00\x01\x09\x01p\x00", b"\x00\x02\x07"])
async def test_a_malformed_frame_ends_the_connection_with_the_reason(frame: bytes) -> None:
    async with open_connection_pair() as (left, right), open_mux(right) as mux:
        await left.send([frame])
        await mux.wait_ended()
        assert isinstance(mux.error, MalformedPacket)
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await left.receive()


async def test_what_an_error_has_ended_goes_without_a_collection_of_garbage() -> None:
    """Of connections that were long over megabytes stayed, until there were a million objects."""
    gc.disable()
    try:
        async with open_connection_pair() as (left, right):
            async with open_mux(right) as mux:
                await left.send([b"\x01"])
                await mux.wait_ended()
            what_is_left = weakref.ref(mux)
            del mux
            assert what_is_left() is None
    finally:
        gc.enable()


async def test_a_receiver_that_does_not_read_stops_the_socket() -> None:
    async with open_channel_pair(is_lockstep=True) as (left, right, left_mux, right_mux):
        given = 0

        def take(_: int) -> list[Message]:
            nonlocal given
            given += 1
            return [(0, bytes(10_000))]

        left.set_source(take)
        await trio.testing.wait_all_tasks_blocked()
        held = right_mux.statistics().inbox_bytes
        assert MAX_INBOX_BYTES < held < MAX_INBOX_BYTES + 2 * BULK_BYTES
        assert given * 10_000 < held + 3 * BULK_BYTES
        before = given
        assert len(await right.receive()) > 100
        await trio.testing.wait_all_tasks_blocked()
        assert given > before
        assert left_mux.statistics().outbox_bytes == 0


async def test_control_messages_to_one_who_does_not_read_are_bounded() -> None:
    async with open_channel_pair(is_lockstep=True) as (left, _, left_mux, right_mux):
        payload = bytes(2**20)
        for _ in range(MAX_OUTBOX_BYTES // len(payload) + 2):
            left.send(0, payload)
        assert left_mux.is_ended
        assert isinstance(left_mux.error, OutboxOverflow)
        assert left_mux.error.limit_bytes == MAX_OUTBOX_BYTES
        await right_mux.wait_ended()


async def test_a_message_that_fits_no_frame_is_the_callers_error() -> None:
    async with open_channel_pair() as (left, right, _, _):
        with pytest.raises(ValueError, match="at most"):
            left.send(0, bytes(MAX_MESSAGE_BYTES + 1))
        left.send(0, bytes(MAX_MESSAGE_BYTES))
        assert len((await right.receive())[0][1]) == MAX_MESSAGE_BYTES


async def test_sources_take_turns_and_control_goes_first() -> None:
    async with open_mux_pair(P, is_lockstep=True) as (left_mux, right_mux):
        pairs = [await open_both(left_mux, right_mux, bytes((i,))) for i in (1, 2, 3)]
        order: list[int] = []

        def source(index: int, count: int) -> None:
            left = count

            def take(max_bytes: int) -> list[Message]:
                nonlocal left
                assert 0 < max_bytes <= BULK_BYTES
                order.append(index)
                left -= 1
                return [(0, bytes(1000))] if left >= 0 else []

            pairs[index][0].set_source(take)

        for index in range(3):
            source(index, 20)
        pairs[0][0].send(9, b"control")
        for index, (_, right) in enumerate(pairs):
            messages = await receive(right, 21 if index == 0 else 20)
            assert (messages[0] == (9, b"control")) == (index == 0)
        assert all(order[i : i + 3].count(order[i]) == 1 for i in range(0, 30, 3))
        await trio.testing.wait_all_tasks_blocked()
        asked = len(order)
        pairs[1][0].wake_source()
        pairs[1][0].wake_source()
        await trio.testing.wait_all_tasks_blocked()
        assert len(order) == asked + 1, "an empty source is asked once more when it is woken"


async def test_each_full_turn_is_twice_as_long_and_the_first_is_short() -> None:
    """Who waits can begin with a little; an answer that is all there was makes no turn longer."""
    async with open_channel_pair(is_lockstep=True) as (left, right, _, _):
        asked: list[int] = []
        sizes = [1000]

        def take(max_bytes: int) -> list[Message]:
            asked.append(max_bytes)
            return [(0, bytes(sizes.pop()))] if sizes else []

        left.set_source(take)
        await receive(right, 1)
        await trio.testing.wait_all_tasks_blocked()
        asked.clear()
        turns = [FIRST_BULK_BYTES * halves // 2 for halves in (2, 4, 6, 9)]
        sizes += reversed(turns)
        left.wake_source()
        await receive(right, 4)
        await trio.testing.wait_all_tasks_blocked()
        assert asked[:4] == turns
        asked.clear()
        left.wake_source()
        await trio.testing.wait_all_tasks_blocked()
        assert asked == [FIRST_BULK_BYTES]


async def test_a_closed_channel_is_not_asked_for_bulk() -> None:
    async with open_channel_pair() as (left, _, _, _):
        left.set_source(lambda _: pytest.fail("asked after its end"))
        left.close()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_flood_of_opens_is_bounded_and_disturbs_nobody_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_connection_pair(is_lockstep=True) as (flooder, flooded),
        open_mux(flooded, accept=[P]) as mux,
        open_channel_pair() as (left, right, _, _),
        trio.open_nursery() as nursery,
    ):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for number in range(1, 100_000):
                body = encode_uint(number) + encode_string(P) + b"\x00"
                await flooder.send(encode_frames([(0, 1, body)]))
                sent = number

        nursery.start_soon(flood)
        await trio.testing.wait_all_tasks_blocked()
        assert sent < MAX_UNCLAIMED_BYTES // 512 + 10
        left.send(0, b"still here")
        assert await right.receive() == [(0, b"still here")]
        stopped_at = sent
        opens = mux.remote_opens(P)
        for _ in range(50):
            (await anext(opens)).reject()
        await trio.testing.wait_all_tasks_blocked()
        assert sent > stopped_at
        nursery.cancel_scope.cancel()


async def test_opens_of_unknown_protocols_are_bounded_by_the_unread_rejects(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_connection_pair(is_lockstep=True) as (flooder, flooded),
        open_mux(flooded) as mux,
    ):
        body = encode_uint(1) + encode_string("nobody") + b"\x00"
        batch = encode_frames([(0, 1, body)] * 10_000)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - one of them fails
            for _ in range(20):
                await flooder.send(batch)
        await mux.wait_ended()
        assert isinstance(mux.error, OutboxOverflow)


async def test_two_who_receive_at_once_are_told() -> None:
    async with open_channel_pair() as (left, _, _, _), trio.open_nursery() as nursery:
        nursery.start_soon(left.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await left.receive()
        nursery.cancel_scope.cancel()


async def test_a_body_that_is_cancelled_ends_the_connection() -> None:
    async with open_connection_pair() as (left, right), open_mux(right) as right_mux:
        with trio.CancelScope() as scope:
            async with open_mux(left):
                scope.cancel()
                await trio.sleep_forever()
        await right_mux.wait_ended()


async def test_receiving_may_be_cancelled_anywhere_and_loses_nothing() -> None:
    async with open_channel_pair() as (left, right, _, _):
        received: list[Message] = []
        sent = 0

        async def receive_once() -> None:
            nonlocal sent
            left.send(0, b"%d" % sent)
            sent += 1
            received.extend(await right.receive())

        for _ in range(5):
            await cancel_everywhere(receive_once)
        while len(received) < sent:
            received += await right.receive()
        assert [payload for _, payload in received] == [b"%d" % i for i in range(sent)]


async def test_opening_may_be_cancelled_anywhere_and_leaves_no_channel() -> None:
    async with open_mux_pair(P) as (left, right), trio.open_nursery() as nursery:

        async def answer() -> None:
            async for remote_open in right.remote_opens(P):
                with contextlib.suppress(trio.EndOfChannel):
                    (await right.open_channel(P, remote_open.id)).close()

        async def open_and_close() -> None:
            with contextlib.suppress(trio.EndOfChannel):  # it may be closed as soon as it opens
                (await left.open_channel(P, b"id")).close()

        nursery.start_soon(answer)
        assert await cancel_everywhere(open_and_close) >= 1
        await trio.testing.wait_all_tasks_blocked()
        assert left.statistics().channels == right.statistics().channels == 0
        nursery.cancel_scope.cancel()
