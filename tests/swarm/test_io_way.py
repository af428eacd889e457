"""Leaving a relay for a direct way while a stream is in use, on real sockets of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest
import trio
import trio.testing

from swarm.announcement import Address
from swarm.io.udp import UdxEndpoint, open_udx_endpoint
from swarm.io.udx_relay import RelayEnd, UdxRelayHandle
from swarm.io.udx_transport import UdxTransport
from swarm.io.way import Way, leave_relay, reach_of
from swarm.reach import Reach, Route
from swarm.udx.packet import MESSAGE, encode_packet

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class _Relayed:
    """Two streams that know only the relay's ids of each other."""

    left: UdxTransport
    right: UdxTransport
    left_end: UdxEndpoint
    right_end: UdxEndpoint
    relay: UdxRelayHandle

    @property
    def relay_address(self) -> Address:
        return self.relay.endpoint.address


@asynccontextmanager
async def open_relayed() -> AsyncIterator[_Relayed]:
    async with (
        open_udx_endpoint(HOST) as between,
        open_udx_endpoint(HOST) as left_end,
        open_udx_endpoint(HOST) as right_end,
    ):
        left, right = left_end.open_stream(), right_end.open_stream()
        relay = between.open_relay(
            RelayEnd(101, left.local_id, left_end.address),
            RelayEnd(102, right.local_id, right_end.address),
        )
        left.connect(101, between.address)
        right.connect(102, between.address)
        with trio.fail_after(30):
            yield _Relayed(left, right, left_end, right_end, relay)


async def follow(pair: _Relayed, route: Route) -> None:
    """What the end does that did not find the way."""
    endpoint, source = await pair.right.wait_contact_beyond(pair.relay_address)
    way = Way(endpoint, source, Reach.PUNCHED)
    await leave_relay(pair.right, pair.left.local_id, way, pair.relay_address, route)


async def test_a_transfer_goes_on_along_the_new_way_and_without_the_relay() -> None:
    async with open_relayed() as pair:
        ours, theirs = (Route(Reach.RELAYED, "relay") for _ in range(2))
        data = Random(1).randbytes(2**20)
        received = b""

        async def receive() -> None:
            nonlocal received
            while len(received) < 2 * len(data):
                received += await pair.right.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(follow, pair, theirs)
            await pair.left.send_all(data)
            way = Way(pair.left_end, pair.right_end.address, Reach.PUNCHED)
            await leave_relay(pair.left, pair.right.local_id, way, pair.relay_address, ours)
            assert ours.reach is Reach.PUNCHED
            await pair.left.send_all(data)
        assert received == 2 * data
        assert theirs == Route(Reach.PUNCHED, f"{HOST}:{pair.left_end.address[1]}")
        relayed = pair.relay.statistics().packets
        pair.relay.close()
        await pair.right.send_all(b"the other way round")
        assert await pair.left.receive_some() == b"the other way round"
        assert pair.relay.statistics().packets == relayed, "nobody missed it"


async def test_an_idle_stream_shows_the_remote_where_it_is() -> None:
    async with open_relayed() as pair, trio.open_nursery() as nursery:
        ours, theirs = (Route(Reach.RELAYED, "relay") for _ in range(2))
        nursery.start_soon(follow, pair, theirs)
        way = Way(pair.left_end, pair.right_end.address, Reach.LAN)
        await leave_relay(pair.left, pair.right.local_id, way, pair.relay_address, ours)


async def test_a_remote_that_is_not_heard_there_is_not_counted_as_reached() -> None:
    async with open_relayed() as pair:
        route = Route(Reach.RELAYED, "relay")
        nowhere = Way(pair.left_end, (HOST, 9), Reach.PUNCHED)
        with trio.move_on_after(0.2) as scope:
            await leave_relay(pair.left, pair.right.local_id, nowhere, pair.relay_address, route)
        assert scope.cancelled_caught
        assert route == Route(Reach.RELAYED, "relay")


async def test_a_stream_that_ends_meanwhile_says_so() -> None:
    async with open_relayed() as pair:
        way = Way(pair.left_end, pair.right_end.address, Reach.PUNCHED)
        await pair.left.send_all(b"under way")
        pair.right.destroy()
        with pytest.raises(trio.BrokenResourceError):
            await leave_relay(
                pair.left, pair.right.local_id, way, pair.relay_address, Route(Reach.RELAYED, "")
            )


async def test_only_packets_from_elsewhere_are_contacts() -> None:
    async with open_relayed() as pair, trio.open_nursery() as nursery:
        contacts: list[Address] = []

        async def watch() -> None:
            contacts.append((await pair.right.wait_contact_beyond(pair.relay_address))[1])

        nursery.start_soon(watch)
        await pair.left.send_all(b"by the relay")
        assert await pair.right.receive_some() == b"by the relay"
        assert contacts == []
        knock = encode_packet(MESSAGE, pair.right.local_id, 0, 0, 0)
        pair.left_end.send_datagram(knock, pair.right_end.address)
        await pair.right.receive_message()
        await trio.testing.wait_all_tasks_blocked()
        assert contacts == [pair.left_end.address]


def test_what_it_is_to_send_straight_to_an_address() -> None:
    assert reach_of(("192.168.1.2", 1), is_punched=True) is Reach.LAN
    assert reach_of(("20.0.0.1", 1)) is Reach.DIRECT
    assert reach_of(("20.0.0.1", 1), is_punched=True) is Reach.PUNCHED
