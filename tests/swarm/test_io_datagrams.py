from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

import pytest
import trio
import trio.testing

from swarm.io.datagrams import (
    BATCH_DATAGRAMS,
    MAX_OUTBOX_BYTES,
    DatagramOutbox,
    DatagramSocket,
    verify_address,
)
from swarm.udx.path import Address
from tests.support.no_more_files import no_more_files

HOST = "127.0.0.1"


@contextmanager
def open_sockets(*uses_trains: bool) -> Iterator[list[DatagramSocket]]:
    sockets = [DatagramSocket(HOST, 0, uses_trains=trains) for trains in uses_trains]
    try:
        yield sockets
    finally:
        for socket in sockets:
            socket.close()


async def receive(socket: DatagramSocket, count: int) -> list[bytes]:
    received: list[bytes] = []
    while len(received) < count:
        with trio.fail_after(20):
            await trio.lowlevel.wait_readable(socket.socket)
        received += [datagram for datagram, _ in socket.receive()]
    return received


@pytest.mark.parametrize("sends_trains", [True, False])
@pytest.mark.parametrize("receives_trains", [True, False])
async def test_datagrams_of_all_sizes_arrive_as_they_were(
    sends_trains: bool, receives_trains: bool
) -> None:
    rng = Random(1)
    sizes = [rng.choice((0, 1, 20, 1200, 1472)) for _ in range(60)]
    sizes += [1472] * 100 + [1472, 500, 1472, 1472, 2000, 1, 2, 3, 3, 3, 1]
    datagrams = [rng.randbytes(size) for size in sizes]
    with open_sockets(sends_trains, receives_trains) as (left, right):
        assert left.send(right.address, datagrams) == len(datagrams)
        assert await receive(right, len(datagrams)) == datagrams
        assert right.receive() == []
        assert left.dropped_datagrams == 0


async def test_one_turn_takes_a_batch_and_no_more() -> None:
    with open_sockets(False, False) as (left, right):
        left.send(right.address, [b"x"] * (BATCH_DATAGRAMS + 10))
        await trio.lowlevel.wait_readable(right.socket)
        assert len(right.receive()) == BATCH_DATAGRAMS
        assert right.receive() == [(b"x", left.address)] * 10


async def test_what_the_system_refuses_is_as_if_lost() -> None:
    with open_sockets(True, True) as (left, right):
        datagrams = [b"before", bytes(70_000), b"after"]
        assert left.send(right.address, datagrams) == 3
        assert left.dropped_datagrams == 1
        assert await receive(right, 2) == [b"before", b"after"]


async def test_a_closed_port_does_not_stop_the_others() -> None:
    with open_sockets(True, True) as (left, right):
        with open_sockets(True) as (gone,):
            address = gone.address
        for _ in range(3):
            left.send(address, [b"x"] * 2)
            assert left.receive() == []
        left.send(right.address, [b"y"])
        assert await receive(right, 1) == [b"y"]


def test_the_mtu_of_a_link() -> None:
    with open_sockets(True) as (socket,):
        assert socket.link_mtu((HOST, 9), 1500) == 1500
        assert 1500 < socket.link_mtu((HOST, 9), 2**20) <= 2**20
        assert socket.link_mtu(("not an address", 9), 1400) == 1400
        with no_more_files():
            assert socket.link_mtu((HOST, 9), 1500) == 1500


def test_names_and_ports_that_cannot_be_sent_to() -> None:
    for address in ((HOST, 1), ("::1", 65535)):
        verify_address(address)
    for address in (("localhost", 1), ("", 1), ("1.2.3", 1), (HOST, 0), (HOST, 65536)):
        with pytest.raises(ValueError, match="is not a"):
            verify_address(address)


class ReluctantSocket(DatagramSocket):
    """Has room for `room` datagrams, and for one more whenever it is asked again."""

    room = 0

    def send(self, address: Address, datagrams: Sequence[bytes]) -> int:
        count = min(self.room, len(datagrams))
        self.room = max(1, self.room - count)
        return super().send(address, datagrams[:count])


async def test_an_outbox_keeps_the_order_when_there_is_no_room() -> None:
    with open_sockets(True) as (right,):
        left = ReluctantSocket(HOST, 0)
        outbox = DatagramOutbox(left)
        datagrams = [b"%d" % number for number in range(20)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.add(right.address, datagrams[:15])
            assert outbox.waiting_bytes > 0
            outbox.add(right.address, datagrams[15:])
            assert await receive(right, 20) == datagrams
            nursery.cancel_scope.cancel()
        left.close()
    assert (outbox.sent, outbox.dropped, outbox.waiting_bytes) == (20, 0, 0)


async def test_an_outbox_is_bounded() -> None:
    left = ReluctantSocket(HOST, 0)
    outbox = DatagramOutbox(left)
    for _ in range(3):
        outbox.add((HOST, 9), [bytes(1000)] * (MAX_OUTBOX_BYTES // 2000))
    assert MAX_OUTBOX_BYTES / 2 < outbox.waiting_bytes <= MAX_OUTBOX_BYTES
    assert outbox.dropped > 0
    left.close()
