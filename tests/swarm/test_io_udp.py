from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm import open_connection
from swarm.io.datagrams import Datagram, DatagramSocket
from swarm.io.udp import (
    CLOSE_SECONDS,
    MAX_WAITING_DATAGRAMS,
    UdxEndpoint,
    open_udx_endpoint,
)
from swarm.io.udx_relay import RelayEnd
from swarm.io.udx_transport import FAREWELL_SECONDS, MAX_WAITING_MESSAGES, UdxTransport
from swarm.udx.mtu import MAX_MTU
from swarm.udx.packet import DATA, DESTROY, MESSAGE, encode_packet
from swarm.udx.stream import SEND_BUFFER_BYTES
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.udx_stranger import hostile_datagram

HOST = "127.0.0.1"
CLOGGING_BYTES = SEND_BUFFER_BYTES + 40_000
"""More than a stream takes whose remote has room for 20,000 bytes, but for its last piece."""

INITIATOR = KeyPair.from_seed(b"\x01" * 32)
RESPONDER = KeyPair.from_seed(b"\x02" * 32)


@asynccontextmanager
async def open_pair(
    *, window_bytes: int = 4 * 2**20
) -> AsyncIterator[tuple[UdxTransport, UdxTransport]]:
    """Two streams of two endpoints, connected with one another."""
    with trio.fail_after(60):
        async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
            yield connect(left, right, window_bytes=window_bytes)


def connect(
    left: UdxEndpoint, right: UdxEndpoint, *, window_bytes: int = 4 * 2**20
) -> tuple[UdxTransport, UdxTransport]:
    ours, theirs = (end.open_stream(window_bytes=window_bytes) for end in (left, right))
    ours.connect(theirs.local_id, right.address)
    theirs.connect(ours.local_id, left.address)
    return ours, theirs


async def read_all(stream: UdxTransport) -> bytes:
    chunks: list[bytes] = []
    while chunk := await stream.receive_some():
        chunks.append(chunk)
    return b"".join(chunks)


async def test_it_is_a_stream_as_trio_wants_them() -> None:
    async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:

        async def make() -> tuple[UdxTransport, UdxTransport]:
            return connect(left, right)

        async def make_clogged() -> tuple[UdxTransport, UdxTransport]:
            ours, theirs = connect(left, right, window_bytes=20_000)
            for stream in (ours, theirs):  # what is written after this waits for a reader
                await stream.send_all(bytes(CLOGGING_BYTES))
            return ours, theirs

        with trio.fail_after(60):
            await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_a_megabyte_each_way_at_once() -> None:
    data = Random(1).randbytes(2**20)
    async with open_pair() as (ours, theirs), trio.open_nursery() as nursery:

        async def send(stream: UdxTransport) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async def receive(stream: UdxTransport) -> None:
            assert await read_all(stream) == data

        for stream in (ours, theirs):
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream)


async def test_an_encrypted_connection_runs_on_it() -> None:
    async with open_pair() as (ours, theirs), trio.open_nursery() as nursery:

        async def respond() -> None:
            async with open_connection(theirs, RESPONDER, is_initiator=False) as connection:
                received: list[bytes] = []
                while len(received) < len(messages):
                    received += await connection.receive()
                await connection.send(received)
                with pytest.raises(trio.EndOfChannel):
                    await connection.receive()

        messages = [b"echo", bytes(300_000), b"again"]
        nursery.start_soon(respond)
        async with open_connection(ours, INITIATOR, is_initiator=True) as connection:
            assert connection.link.remote_public_key == RESPONDER.public_key
            await connection.send(messages)
            echoed: list[bytes] = []
            while len(echoed) < len(messages):
                echoed += await connection.receive()
            assert echoed == messages


async def test_messages_arrive_and_too_many_are_dropped() -> None:
    async with open_pair() as (ours, theirs):
        ours.send_message(b"one")
        assert await theirs.receive_message() == b"one"
        with pytest.raises(ValueError, match="at most"):
            ours.send_message(bytes(ours.max_message_bytes + 1))
        for number in range(MAX_WAITING_MESSAGES + 10):
            ours.send_message(b"%d" % number)
        await ours.send_all(b"after them")
        assert await theirs.receive_some() == b"after them"
        received = [await theirs.receive_message() for _ in range(MAX_WAITING_MESSAGES)]
        assert received == [b"%d" % number for number in range(MAX_WAITING_MESSAGES)]
        with trio.move_on_after(0.05) as patience:
            await theirs.receive_message()
        assert patience.cancelled_caught


async def test_a_cancelled_receiver_or_sender_loses_nothing() -> None:
    async with open_pair(window_bytes=20_000) as (ours, theirs):
        await ours.send_all(b"abc")
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await theirs.receive_some(1))

        await cancel_everywhere(receive)
        await cancel_everywhere(receive)
        await cancel_everywhere(receive)
        assert b"".join(received) == b"abc"

        await ours.send_all(bytes(CLOGGING_BYTES))
        with trio.move_on_after(0.1):
            await ours.send_all(b"never taken")
        await ours.send_eof()
        assert await read_all(theirs) == bytes(CLOGGING_BYTES)


async def test_a_hang_up_delivers_what_was_sent_even_when_cancelled() -> None:
    data = bytes(500_000)
    async with open_pair() as (ours, theirs):

        async def hang_up() -> None:
            await ours.send_all(data)
            await trio.aclose_forcefully(ours)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up)
            assert await read_all(theirs) == data
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()


async def test_an_endpoint_that_closes_waits_for_what_is_under_way_but_not_long() -> None:
    data = bytes(200_000)
    async with open_udx_endpoint(HOST) as right:
        async with open_udx_endpoint(HOST) as left:
            ours, theirs = connect(left, right)
            await ours.send_all(data)
            await ours.aclose()
        with trio.fail_after(20):
            assert await read_all(theirs) == data
        async with open_udx_endpoint(HOST) as left:
            ours = left.open_stream()
            with socket.socket(type=socket.SOCK_DGRAM) as silent:
                silent.bind((HOST, 0))
                ours.connect(1, silent.getsockname())
                await ours.send_all(data)
                await ours.aclose()
                start = trio.current_time()
                left_closing = trio.current_time
        assert CLOSE_SECONDS / 2 < left_closing() - start < 5 * CLOSE_SECONDS


async def test_a_closed_endpoint_resets_its_streams() -> None:
    async with open_udx_endpoint(HOST) as right:
        async with open_udx_endpoint(HOST) as left:
            ours, theirs = connect(left, right)
            await ours.send_all(b"hello")
            assert await theirs.receive_some() == b"hello"
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"more")
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError, match="reset"):
            await theirs.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            left.open_stream()
        with pytest.raises(trio.ClosedResourceError):
            left.send_datagram(b"x", right.address)
        with pytest.raises(trio.ClosedResourceError):
            await left.receive_datagram()


async def test_who_waits_learns_that_the_stream_is_over() -> None:
    async with open_pair(window_bytes=20_000) as (ours, theirs):
        await ours.send_all(bytes(CLOGGING_BYTES))

        async def broken(call: object) -> None:
            assert callable(call)
            with pytest.raises(trio.BrokenResourceError):
                await call()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(broken, ours.wait_send_all_might_not_block)
            nursery.start_soon(broken, ours.receive_some)
            nursery.start_soon(broken, ours.receive_message)
            await trio.testing.wait_all_tasks_blocked()
            theirs.destroy()


async def test_a_silent_remote_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_udx_endpoint(HOST) as endpoint:
        with socket.socket(type=socket.SOCK_DGRAM) as silent:
            silent.bind((HOST, 0))
            stream = endpoint.open_stream()
            stream.connect(1, silent.getsockname())
            await stream.send_all(b"is anybody there?")
            start = trio.current_time()
            with pytest.raises(trio.BrokenResourceError, match="answers no more"):
                await stream.receive_some()
            assert 12 < trio.current_time() - start < 16
        assert endpoint.statistics().streams == 0


async def test_a_farewell_to_a_silent_remote_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
        ours, theirs = connect(left, right)
        await ours.send_all(b"bye")
        await ours.aclose()
        assert await read_all(theirs) == b"bye"
        assert left.statistics().streams == 1
        await trio.sleep(FAREWELL_SECONDS + 1)  # theirs never ends
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await theirs.send_all(b"still here")


async def test_ids_are_random_unless_given_and_never_taken_twice() -> None:
    async with open_udx_endpoint(HOST) as endpoint:
        streams = [endpoint.open_stream() for _ in range(50)]
        assert len({stream.local_id for stream in streams}) == 50
        endpoint.open_stream(7)
        with pytest.raises(ValueError, match="7 is taken"):
            endpoint.open_stream(7)
        streams[0].destroy()
        endpoint.open_stream(streams[0].local_id)


async def test_an_unconnected_stream_is_not_used() -> None:
    async with open_udx_endpoint(HOST) as endpoint:
        stream = endpoint.open_stream()
        assert stream.remote_address == ""
        with pytest.raises(RuntimeError, match="not connected"):
            await stream.send_all(b"x")
        await stream.aclose()
        assert endpoint.statistics().streams == 0


async def test_what_is_not_udx_is_for_somebody_else() -> None:
    async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
        with trio.fail_after(20):
            for data in (b"", b"\x03dht", b"\xff\x01 too short", bytes(1400)):
                left.send_datagram(data, right.address)
                assert await right.receive_datagram() == (data, left.address)
            left.send_datagram(b"close by", right.address, ttl=1)
            assert await right.receive_datagram() == (b"close by", left.address)
            left.send_datagram(b"as ever", right.address)
            assert await right.receive_datagram() == (b"as ever", left.address)


async def test_datagrams_that_nobody_takes_are_bounded() -> None:
    async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
        for _ in range(MAX_WAITING_DATAGRAMS + 50):
            left.send_datagram(b"x", right.address)
            if right.statistics().datagrams_received % 100 == 0:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(20):
            while right.statistics().datagrams_received < MAX_WAITING_DATAGRAMS + 50:
                await trio.lowlevel.checkpoint()
        assert right.statistics().others_dropped == 50


async def test_a_stream_moves_to_another_socket_of_the_same_table() -> None:
    async with (
        open_udx_endpoint(HOST) as first,
        open_udx_endpoint(HOST, sharing=first) as second,
        open_udx_endpoint(HOST) as right,
    ):
        ours, theirs = connect(first, right)
        with trio.fail_after(20):
            await ours.send_all(b"one")
            assert await theirs.receive_some() == b"one"
            with pytest.raises(ValueError, match="does not share"):
                await ours.change_remote(theirs.local_id, right.address, through=right)
            await ours.change_remote(theirs.local_id, right.address, through=second)
            assert ours.endpoint is second
            await ours.send_all(b"two")
            assert await theirs.receive_some() == b"two"
            # The remote still answers to the first socket, which takes it for the stream.
            await theirs.send_all(b"three")
            assert await ours.receive_some() == b"three"
        assert second.statistics().datagrams_sent >= 1


async def test_whoever_changes_a_remote_twice_hears_of_both_changes() -> None:
    async with (
        open_udx_endpoint(HOST) as first,
        open_udx_endpoint(HOST, sharing=first) as second,
        open_udx_endpoint(HOST) as right,
    ):
        ours, theirs = connect(first, right)
        with trio.fail_after(20):
            await ours.send_all(b"one")
            assert await theirs.receive_some() == b"one"
            async with trio.open_nursery() as nursery:
                await ours.send_all(b"two")  # is under way
                for through in (second, first):
                    change = partial(ours.change_remote, through=through)
                    nursery.start_soon(change, theirs.local_id, right.address)
            assert ours.endpoint in (first, second)


async def test_the_first_packet_tells_whence_it_came() -> None:
    async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
        closed, contactable = right.open_stream(1), right.open_stream(2, is_contactable=True)
        with trio.fail_after(20):
            for remote_id in (1, 2):
                stream = left.open_stream(remote_id + 10)
                stream.connect(remote_id, right.address)
                await stream.send_all(b"knock %d" % remote_id)
            endpoint, address = await contactable.wait_contact()
            assert (endpoint, address) == (right, left.address)
            contactable.connect(12, address)
            assert await contactable.receive_some() == b"knock 2"
            assert right.statistics().packets_unknown >= 1
            # The other one is answered when it is connected, since packets are sent again.
            closed.connect(11, left.address)
            assert await closed.receive_some() == b"knock 1"


class PortlessSocket(DatagramSocket):
    """To which every datagram comes from port 0, as whoever may forge it can have it."""

    def receive(self) -> list[Datagram]:
        return [(data, (host, 0)) for data, (host, _) in super().receive()]


async def test_port_0_is_nobody_to_connect_to() -> None:
    """Found in review: connecting there raised what ended the node."""
    with trio.fail_after(20):
        async with (
            open_udx_endpoint(HOST) as left,
            open_udx_endpoint(socket=PortlessSocket(HOST, 0)) as right,
            open_udx_endpoint(HOST, sharing=right) as other,
        ):
            stream = right.open_stream(is_contactable=True)
            knock = encode_packet(MESSAGE, stream.local_id, 0, 0, 0)
            left.send_datagram(knock, right.address)
            while not stream.statistics().packets_received:
                await trio.lowlevel.checkpoint()
            left.send_datagram(knock, other.address)
            assert await stream.wait_contact() == (other, left.address)


async def test_a_stream_that_was_ended_before_it_is_connected() -> None:
    with trio.fail_after(20):
        async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
            ended, closed = (right.open_stream(is_contactable=True) for _ in range(2))
            left.send_datagram(encode_packet(DESTROY, ended.local_id, 0, 0, 0), right.address)
            await ended.wait_over()
            with pytest.raises(trio.BrokenResourceError, match="the remote reset"):
                ended.connect(1, left.address)
            await closed.aclose()
            with pytest.raises(trio.ClosedResourceError):
                closed.connect(1, left.address)


async def test_two_ends_talk_through_a_relay_and_then_without_it() -> None:
    data = Random(2).randbytes(300_000)
    with trio.fail_after(30):
        async with (
            open_udx_endpoint(HOST) as left,
            open_udx_endpoint(HOST) as middle,
            open_udx_endpoint(HOST) as right,
        ):
            relay = middle.open_relay(RelayEnd(1, 11, left.address), RelayEnd(2, 12, right.address))
            for taken in (RelayEnd(1, 0, left.address), RelayEnd(3, 0, left.address)):
                with pytest.raises(ValueError, match="is taken"):
                    middle.open_relay(taken, taken)
            with pytest.raises(ValueError, match="is taken"):
                middle.open_stream(2)
            ours, theirs = left.open_stream(11), right.open_stream(12)
            ours.connect(1, middle.address)
            theirs.connect(2, middle.address)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, data)
                received = b""
                while len(received) < len(data):
                    received += await theirs.receive_some()
            assert received == data
            assert relay.statistics().bytes > len(data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.change_remote, 12, right.address)
                nursery.start_soon(theirs.change_remote, 11, left.address)
            relay.close()
            await relay.wait_closed()
            await ours.send_all(b"direct")
            assert await theirs.receive_some() == b"direct"
            middle.open_stream(2)  # free again


async def test_a_stream_destroyed_through_a_relay_ends_it() -> None:
    with trio.fail_after(30):
        async with open_udx_endpoint(HOST) as ends, open_udx_endpoint(HOST) as middle:
            relay = middle.open_relay(RelayEnd(1, 11, ends.address), RelayEnd(2, 12, ends.address))
            ours, theirs = ends.open_stream(11), ends.open_stream(12)
            ours.connect(1, middle.address)
            theirs.connect(2, middle.address)
            ours.destroy()
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                await theirs.receive_some()
            await relay.wait_closed()
        async with open_udx_endpoint(HOST) as middle:
            relay = middle.open_relay(RelayEnd(1, 11, (HOST, 9)), RelayEnd(2, 12, (HOST, 9)))
        await relay.wait_closed()


async def test_a_socket_that_is_bound_already_is_taken_over() -> None:
    bound = DatagramSocket(HOST, 0)
    async with (
        open_udx_endpoint(socket=bound) as left,
        open_udx_endpoint(HOST) as right,
    ):
        assert left.address == bound.address
        ours, theirs = connect(left, right)
        await ours.send_all(b"hello")
        with trio.fail_after(20):
            assert await theirs.receive_some() == b"hello"
    assert bound.socket.fileno() == -1


def has_ipv6_loopback() -> bool:
    try:
        DatagramSocket("::1", 0).close()
    except OSError:
        return False
    return True


async def test_ipv6() -> None:
    if not has_ipv6_loopback():  # then that is what one is told
        with pytest.raises(OSError, match=r"::1|address|family"):
            async with open_udx_endpoint("::1"):
                pass
        return
    with trio.fail_after(20):
        async with open_udx_endpoint("::1") as left, open_udx_endpoint("::1") as right:
            ours, theirs = connect(left, right)
            assert ours.remote_address == f"[::1]:{right.address[1]}"
            await ours.send_all(bytes(100_000))
            await ours.send_eof()
            assert await read_all(theirs) == bytes(100_000)
            assert ours.statistics().mtu <= MAX_MTU


async def test_a_stranger_ends_one_stream_at_most() -> None:
    rng = Random(3)
    data = rng.randbytes(300_000)
    async with open_udx_endpoint(HOST) as left, open_udx_endpoint(HOST) as right:
        pairs = [connect(left, right) for _ in range(4)]
        victim = pairs[0][0]
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:

            async def attack() -> None:
                for _ in range(2000):
                    datagram = hostile_datagram(rng, victim.local_id, 0, rng.randrange(30))
                    stranger.sendto(datagram, left.address)
                    await trio.lowlevel.checkpoint()
                farewell = encode_packet(DESTROY, victim.local_id, 0, 0, 0)
                stranger.sendto(farewell, left.address)

            async def transfer(ours: UdxTransport, theirs: UdxTransport) -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ours.send_all, data)
                    received = b""
                    while len(received) < len(data):
                        received += await theirs.receive_some()
                assert received == data

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(attack)
                    for pair in pairs[1:]:
                        nursery.start_soon(transfer, *pair)
                with pytest.raises(trio.BrokenResourceError, match="reset"):
                    await read_all(victim)
        for ours, _ in pairs[1:]:
            assert ours.statistics().timeouts == 0
        assert left.statistics().packets_malformed > 0


async def test_a_packet_from_elsewhere_is_taken_by_its_id_as_in_the_original() -> None:
    async with open_pair() as (ours, theirs):
        with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
            packet = encode_packet(DATA, theirs.local_id, 2**20, 0, 0, b"by another way")
            host, port = theirs.endpoint.address
            elsewhere.sendto(packet, (host, port))
            assert await theirs.receive_some() == b"by another way"
        assert theirs.remote_address == f"{HOST}:{ours.endpoint.address[1]}"


async def test_a_port_that_is_taken() -> None:
    async with open_udx_endpoint(HOST) as endpoint:
        with pytest.raises(OSError, match="in use"):
            async with open_udx_endpoint(HOST, endpoint.address[1]):
                pass


async def test_statistics_of_an_endpoint() -> None:
    async with open_pair() as (ours, theirs):
        await ours.send_all(bytes(100_000))
        await ours.send_eof()
        await read_all(theirs)
        statistics = ours.endpoint.statistics()
        assert statistics.streams == 1
        assert statistics.datagrams_sent == ours.statistics().packets_sent
        assert statistics.datagrams_dropped == statistics.outbox_bytes == 0
        assert ours.statistics().bytes_sent > 100_000
