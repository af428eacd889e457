"""What strangers and peers may try: it costs them only, and nobody else is disturbed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from hypercore.encoding import encode_string
from swarm import (
    Connection,
    HandshakeFailed,
    MalformedPacket,
    MuxHandle,
    OutboxOverflow,
    open_connection,
    open_mux,
)
from swarm.frames import MAX_FRAME_BYTES, PREFIX_BYTES, encode_frame
from swarm.io.entrance import MAX_UNPROVEN_CONNECTIONS
from swarm.io.mux import MAX_OUTBOX_BYTES
from swarm.io.sessions import LOOK_SECONDS
from swarm.mux import Message, encode_frames
from swarm.secret_stream import HANDSHAKE_SECONDS, Output, SecretStream, Transmit
from tests.support.stream_pair import INITIATOR, RESPONDER, open_connection_pair
from tests.support.swarm_party import LARGE, LOOPBACK, SMALL, THIRD, Party, open_party
from tests.support.turns import counting_turns

ECHO = "echo"
OPEN_ECHO = encode_frames([(0, 1, b"\x01" + encode_string(ECHO) + b"\x00")])
OPEN_UNKNOWN = encode_frames([(0, 1, b"\x01" + encode_string("unknown") + b"\x00")])
EVE = KeyPair.from_seed(b"\x66" * 32)
REAL_SECONDS = 0.1  # that sockets may take before an autojump clock jumps

Check = Callable[[], Awaitable[None]]


async def serve_echo(_: Party, connection: Connection) -> None:
    async with open_mux(connection, accept=[ECHO]) as mux:
        channel = await mux.open_channel(ECHO, None)
        while True:
            for message_type, payload in await channel.receive():
                channel.send(message_type, payload)


@asynccontextmanager
async def open_peer(port: int, key_pair: KeyPair) -> AsyncIterator[Connection]:
    stream = await trio.open_tcp_stream(LOOPBACK, port)
    async with open_connection(stream, key_pair, is_initiator=True) as connection:
        yield connection


@asynccontextmanager
async def open_honest(port: int, key_pair: KeyPair) -> AsyncIterator[Check]:
    """A peer of someone who serves echoes; calling the value gets one in good time."""
    async with open_peer(port, key_pair) as connection, open_mux(connection) as mux:
        channel = await mux.open_channel(ECHO, None)

        async def check() -> None:
            channel.send(0, b"hello")
            with trio.fail_after(2):
                assert await channel.receive() == [(0, b"hello")]

        await check()
        yield check


async def read_to_end(stream: trio.SocketStream) -> None:
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass


def wire(outputs: Sequence[Output]) -> bytes:
    return b"".join(output.data for output in outputs if isinstance(output, Transmit))


async def test_hundreds_who_never_shake_hands(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = REAL_SECONDS
    ended: list[float] = []

    async def watch(stream: trio.SocketStream) -> None:
        await read_to_end(stream)
        ended.append(trio.current_time())

    async with open_party(LARGE, serve_echo) as party, open_honest(party.port, SMALL) as check:
        slow = await trio.open_tcp_stream(LOOPBACK, party.port, local_address="127.0.0.2")
        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            for _ in range(500):
                nursery.start_soon(watch, await trio.open_tcp_stream(LOOPBACK, party.port))
            await check()
            async with (
                open_honest(party.port, THIRD) as check_newcomer,
                open_connection(slow, EVE, is_initiator=True),  # of a host with no crowd
            ):
                await check_newcomer()
                assert party.swarm.statistics().refused >= 500 - MAX_UNPROVEN_CONNECTIONS
                assert len(ended) >= 500 - MAX_UNPROVEN_CONNECTIONS
                await party.wait(lambda: party.opened == 3)
            await check()
        assert len(ended) == 500
        assert max(ended) - started < HANDSHAKE_SECONDS + 1
        await check()


async def test_a_handshake_byte_by_byte_takes_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    first = wire(SecretStream(INITIATOR, is_initiator=True, now=0.0).start())

    async def drip() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for value in first:
                await theirs.send_all(bytes((value,)))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        start = trio.current_time()
        with pytest.raises(HandshakeFailed, match="within"):
            async with open_connection(ours, RESPONDER, is_initiator=False):
                pass
        assert trio.current_time() - start == pytest.approx(HANDSHAKE_SECONDS)
        nursery.cancel_scope.cancel()


async def test_a_responder_that_never_sends_its_header_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def answer_once() -> None:
        machine = SecretStream(RESPONDER, is_initiator=False, now=0.0)
        await theirs.send_all(wire(machine.receive(bytes(await theirs.receive_some()), 0.0)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_once)
        start = trio.current_time()
        async with open_connection(ours, INITIATOR, is_initiator=True) as connection:
            await connection.send([b"early"])
            with pytest.raises(trio.ClosedResourceError):
                await connection.receive()
            with pytest.raises(MalformedPacket):
                await connection.send([b"late"])
        assert trio.current_time() - start == pytest.approx(HANDSHAKE_SECONDS)


async def test_second_connections_of_one_key_do_not_pile_up() -> None:
    ended = 0
    changed = trio.Condition()

    async def call(port: int) -> None:
        """Prove the key, and then say nothing at all."""
        nonlocal ended
        async with open_peer(port, EVE) as connection:
            with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                await connection.receive()
        async with changed:
            ended += 1
            changed.notify_all()

    with trio.fail_after(30):
        async with (
            open_party(LARGE, serve_echo) as party,
            open_honest(party.port, SMALL) as check,
            open_honest(party.port, EVE) as check_first,
            trio.open_nursery() as nursery,
        ):
            for _ in range(50):
                nursery.start_soon(call, party.port)
            async with changed:
                while ended < 49:  # all but the one under decision
                    await changed.wait()
            await check()
            await check_first()
            assert party.opened == 2
            nursery.cancel_scope.cancel()


async def test_messages_that_never_come_whole_take_only_so_much(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty strangers of one host had a node keep 16 MiB each, for as long as they liked."""
    autojump_clock.autojump_threshold = REAL_SECONDS
    monkeypatch.setattr("swarm.io.sessions.MAX_PARTIAL_BYTES", 2**20)
    announced = MAX_FRAME_BYTES.to_bytes(PREFIX_BYTES, "little")
    async with (
        open_party(LARGE, serve_echo) as party,
        open_honest(party.port, SMALL) as check,
        open_peer(party.port, THIRD) as modest,
        open_peer(party.port, EVE) as eve,
    ):
        await modest.stream.send_all(announced + bytes(2**19))
        await trio.sleep(2 * LOOK_SECONDS)
        await party.wait(lambda: len(party.open) == 3)
        with contextlib.suppress(trio.BrokenResourceError):
            await eve.stream.send_all(announced + bytes(2**20))
        with (
            trio.fail_after(10),
            contextlib.suppress(trio.EndOfChannel, trio.BrokenResourceError),
        ):
            while True:
                await eve.receive()
        await party.wait(lambda: len(party.open) == 2)
        await check()
        assert party.swarm.statistics().refused == 1


async def test_a_peer_that_stops_reading_bulk_and_control() -> None:
    given = 0
    outbox: list[int] = []
    muxes: list[MuxHandle] = []
    is_full = trio.Event()

    def take(_: int) -> list[Message]:
        nonlocal given
        given += 1
        return [(0, bytes(2**16))]

    async def serve(party: Party, connection: Connection) -> None:
        if connection.link.remote_public_key != EVE.public_key:
            await serve_echo(party, connection)
        async with open_mux(connection, accept=[ECHO]) as mux:
            muxes.append(mux)
            channel = await mux.open_channel(ECHO, None)
            channel.set_source(take)
            await is_full.wait()
            while not mux.is_ended:
                channel.send(1, bytes(2**10))
                outbox.append(mux.statistics().outbox_bytes)

    with trio.fail_after(30):
        async with (
            open_party(LARGE, serve) as party,
            open_honest(party.port, SMALL) as check,
            open_peer(party.port, EVE) as eve,
        ):
            await eve.send(OPEN_ECHO)
            before = -1
            while before != given or not given:
                before = given
                await trio.testing.wait_all_tasks_blocked(0.05)
            # What the system holds for the two sockets, and one turn of the writer's.
            assert given * 2**16 < 2**24
            await check()
            is_full.set()
            await party.wait(lambda: len(party.open) == 1)
            assert isinstance(muxes[0].error, OutboxOverflow)
            assert MAX_OUTBOX_BYTES < max(outbox) < MAX_OUTBOX_BYTES + 2**12
            await check()


async def test_a_peer_that_stops_reading_delays_our_end_by_moments(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_connection_pair(is_lockstep=True) as (left, _):
        start = trio.current_time()
        async with open_mux(left) as mux:
            with trio.move_on_after(0):
                await mux.open_channel(ECHO, None)
            assert mux.statistics().outbox_bytes
        assert trio.current_time() - start == pytest.approx(2.0)


@pytest.mark.parametrize(
    "message",
    [
        None,
        b"\x00\x02\x07",
        b"\x00\x01\x05\x04echo\x00",
        b"\x00\x00\x01\x7f",
        b"\x00\x00\x00\x02\x00\x01",
    ],
    ids=["forged", "reject of nothing", "number from nowhere", "cut batch", "nested batch"],
)
async def test_garbage_behind_a_good_handshake_ends_that_connection(message: bytes | None) -> None:
    with trio.fail_after(30):
        async with (
            open_party(LARGE, serve_echo) as party,
            open_honest(party.port, SMALL) as check,
        ):
            stream = await trio.open_tcp_stream(LOOPBACK, party.port)
            async with open_connection(stream, EVE, is_initiator=True) as eve:
                await eve.send(OPEN_ECHO)
                await party.wait(lambda: len(party.open) == 2)
                if message is None:
                    await stream.send_all(encode_frame(bytes(2**16)))
                else:
                    await eve.send([message])
                await party.wait(lambda: len(party.open) == 1)
            await check()


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x00\x01" + b"\x01\x00" * 500_000,
        b"\x00\x00\x01" + b"\x00\x02" * 500_000,
        b"\x00\x00\x00" + b"\x01\x09" * 500_000,
        b"\x00\x00\x00" + b"\x02\x03\x09" * 500_000,
    ],
    ids=["messages", "channel numbers", "control of no type", "closes"],
)
async def test_what_is_for_no_channel_is_unpacked_in_small_steps(frame: bytes) -> None:
    async with open_connection_pair() as (left, right), open_mux(right) as mux:
        await left.send([frame, *OPEN_UNKNOWN])
        async with counting_turns() as turns:
            assert len(await left.receive()) == 1, "the reject of what came behind it"
            assert turns.count > 500_000 // 5000
        assert (mux.statistics().inbox_bytes, mux.statistics().channels) == (0, 0)
