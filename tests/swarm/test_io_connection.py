from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from swarm import Connection, HandshakeFailed, MalformedPacket, open_connection
from swarm.frames import encode_frame
from swarm.io.connection import MANY_MESSAGES, RECEIVE_BYTES, SILENCE_SECONDS
from swarm.io.tasks import open_background_nursery
from swarm.secret_stream import HANDSHAKE_SECONDS, KEEP_ALIVE_SECONDS, SecretStream, Transmit
from tests.support.stream_pair import INITIATOR, RESPONDER, open_connection_pair


async def test_both_ends_know_each_other_and_talk() -> None:
    async with open_connection_pair() as (left, right):
        assert left.link.is_initiator
        assert not right.link.is_initiator
        assert left.link.handshake_hash == right.link.handshake_hash
        assert left.link.remote_public_key == RESPONDER.public_key
        assert right.link.remote_public_key == INITIATOR.public_key
        before = left.statistics().messages_received
        await left.send([b"one", b"two"])
        await left.send([b"three"])
        assert await right.receive() == [b"one", b"two", b"three"]
        await right.send([b"back"])
        assert await left.receive() == [b"back"]
        statistics = left.statistics()
        assert (statistics.messages_sent, statistics.messages_received) == (3, before + 1)
        assert statistics.bytes_sent == right.statistics().bytes_received


async def test_a_hang_up_ends_the_other_side() -> None:
    async with open_connection_pair() as (left, right):
        await left.send([b"last"])
        await left.aclose()
        assert await right.receive() == [b"last"]
        with pytest.raises(trio.EndOfChannel):
            await right.receive()
        with pytest.raises(trio.ClosedResourceError):
            await left.receive()
        with pytest.raises(trio.BrokenResourceError):
            await right.send([b"nobody there"])


async def test_silent_connections_are_kept_alive(autojump_clock: trio.testing.MockClock) -> None:
    async with open_connection_pair() as (left, right):
        before, sent = left.statistics().messages_received, right.statistics().messages_sent
        with trio.move_on_after(10 * KEEP_ALIVE_SECONDS + 1):
            await left.receive()
        assert left.statistics().messages_received - before == 10
        assert 9 <= right.statistics().messages_sent - sent <= 10


async def test_a_silent_initiator_is_heard_of_from_the_beginning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_connection_pair() as (_, right):
        with trio.move_on_after(KEEP_ALIVE_SECONDS + 1):
            await right.receive()
        assert right.statistics().messages_received == 1


@asynccontextmanager
async def _cut_cable(
    *, has_kept_alive: bool, keep_alive_seconds: float = 0.0
) -> AsyncIterator[Connection]:
    """One end of a connection whose other end is there, and not heard any more."""
    left, right = trio.testing.memory_stream_pair()

    async def respond() -> None:
        async with open_connection(right, RESPONDER, is_initiator=False) as connection:
            if has_kept_alive:
                await trio.sleep(keep_alive_seconds)
                await connection.send([b""])
            await connection.send([b"last"])
            right.send_stream.send_all_hook = None
            await trio.sleep_forever()

    async with open_background_nursery() as nursery:
        nursery.start_soon(respond)
        async with open_connection(left, INITIATOR, is_initiator=True) as connection:
            while b"last" not in await connection.receive():
                pass
            yield connection


async def test_who_kept_alive_and_is_not_heard_any_more_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _cut_cable(has_kept_alive=True) as connection:
        start = trio.current_time()
        with pytest.raises(trio.ClosedResourceError):
            await connection.receive()
        assert SILENCE_SECONDS <= trio.current_time() - start <= SILENCE_SECONDS + 2


async def test_who_never_kept_alive_may_be_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with _cut_cable(has_kept_alive=False) as connection:
        with trio.move_on_after(3600) as patience:
            await connection.receive()
        assert patience.cancelled_caught


async def test_who_keeps_alive_less_often_is_given_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _cut_cable(has_kept_alive=True, keep_alive_seconds=4.9) as connection:
        start = trio.current_time()
        with pytest.raises(trio.ClosedResourceError):
            await connection.receive()
        assert trio.current_time() - start >= 1.5 * 4.9


async def test_nobody_is_silent_while_nobody_listens(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with _cut_cable(has_kept_alive=True) as connection:
        await trio.sleep(3600)
        with trio.move_on_after(SILENCE_SECONDS) as patience:
            await connection.receive()
        assert patience.cancelled_caught
        await connection.send([b"still open"])


async def test_a_receiver_that_is_cancelled_loses_nothing() -> None:
    async with open_connection_pair() as (left, right):
        with trio.move_on_after(0):
            await right.receive()
        await left.send([b"kept"])
        with trio.move_on_after(0):
            await right.receive()
        assert await right.receive() == [b"kept"]


async def test_tiny_messages_are_read_in_small_pieces_and_large_ones_in_large_ones() -> None:
    """Forty strangers with tiny ones had everybody else wait for two seconds."""
    async with open_connection_pair() as (left, right):
        await left.send([b"x"] * 50_000)
        counts: list[int] = []
        while sum(counts) < 50_000:
            counts.append(len(await right.receive()))
        assert max(counts) <= 2 * MANY_MESSAGES + 1  # which had begun in the read before
        await left.send([bytes(2**12)] * 1024)
        sizes: list[int] = []
        while sum(sizes) < 2**22:
            sizes.append(sum(map(len, await right.receive())))
        assert max(sizes) > RECEIVE_BYTES - 2**13


async def test_a_silent_stranger_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    start = trio.current_time()
    with pytest.raises(HandshakeFailed):
        async with open_connection(ours, RESPONDER, is_initiator=False):
            pass
    assert trio.current_time() - start == pytest.approx(HANDSHAKE_SECONDS)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", encode_frame(bytes(32))])
async def test_strangers_who_speak_something_else(said: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    await theirs.send_eof()
    with pytest.raises(HandshakeFailed):
        async with open_connection(ours, RESPONDER, is_initiator=False):
            pass
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_stranger_who_hangs_up_after_the_first_message() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(HandshakeFailed):
        async with open_connection(ours, INITIATOR, is_initiator=True):
            pass


async def test_nothing_is_kept_of_a_message_that_did_not_come_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_connection_pair() as (left, right):
        begun = (2**20).to_bytes(3, "little") + bytes(1000)
        await left.stream.send_all(begun)
        with trio.move_on_after(0.1):
            await right.receive()
        assert right.partial_bytes == len(begun)
    assert right.partial_bytes == 0


async def test_garbage_after_the_handshake_is_told_as_such() -> None:
    left, right = trio.testing.memory_stream_pair()

    async def respond(connections: list[Connection]) -> None:
        async with open_connection(right, RESPONDER, is_initiator=False) as connection:
            connections.append(connection)
            with pytest.raises(MalformedPacket):
                await connection.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond, [])
        async with open_connection(left, INITIATOR, is_initiator=True):
            await left.send_all(encode_frame(bytes(40)))


async def test_the_body_gets_its_own_exception_out() -> None:
    with pytest.raises(KeyError):
        async with open_connection_pair():
            raise KeyError


async def test_an_opening_that_is_cancelled_closes_the_stream() -> None:
    for patience in (0, 1):
        ours, theirs = trio.testing.memory_stream_pair()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_open_and_wait, ours)
                for _ in range(patience):
                    await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        while await theirs.receive_some():
            pass  # what was said before the hang-up


async def _open_and_wait(stream: trio.abc.Stream) -> None:
    async with open_connection(stream, INITIATOR, is_initiator=True):
        await trio.sleep_forever()


async def test_a_stranger_who_proves_its_key_and_reads_no_more_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found in review: it was taken for a connection, with nobody at the other end."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    machine = SecretStream(INITIATOR, is_initiator=True, now=0.0)

    async def shake_hands() -> None:
        for output in machine.start():
            assert isinstance(output, Transmit)
            await theirs.send_all(output.data)
        outputs = machine.receive(bytes(await theirs.receive_some()), 0.0)
        last = b"".join(output.data for output in outputs if isinstance(output, Transmit))
        await theirs.send_all(last)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake_hands)
        with pytest.raises(HandshakeFailed):
            async with open_connection(ours, RESPONDER, is_initiator=False):
                pass
