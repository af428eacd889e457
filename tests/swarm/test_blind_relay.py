"""Meeting at a relay: the messages, who is matched with whom, and how many bytes that is worth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError
from swarm.blind_relay import (
    MAX_WAITING,
    MAX_WAITING_PER_HOST,
    MAX_WAITING_PER_SESSION,
    PAIR,
    PROTOCOL,
    UNPAIR,
    Matched,
    Pair,
    Pairings,
    Unpair,
)
from swarm.dht.peer_messages import RelayThrough
from swarm.io.channel import Channel
from swarm.io.dht import open_bootstrap
from swarm.io.hyperdht import HyperDht, open_hyperdht
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.peer_server import PeerServer
from swarm.io.relay_client import open_meeting
from swarm.io.relay_server import MAX_MESSAGE_BYTES, BlindRelay
from swarm.io.tasks import open_background_nursery
from swarm.io.udp import open_udx_endpoint
from swarm.relay_budget import RelayBudget
from swarm.udx.packet import DATA, decode_packet, encode_packet
from swarm.udx.path import Path
from swarm.udx.relay import UdxRelay

TOKEN, OTHER = b"\x07" * 32, b"\x08" * 32
LOOPBACK = "127.0.0.1"
RELAY = KeyPair.from_seed(b"\x01" * 32)


def test_the_worked_example() -> None:
    assert Pair(True, TOKEN, 9).encode() == b"\x01" + TOKEN + b"\x09\x00"
    assert Unpair(TOKEN).encode() == b"\x00" + TOKEN


@given(st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_what_is_encoded_is_decoded(is_initiator: bool, stream_id: int, seq: int) -> None:
    pair = Pair(is_initiator, TOKEN, stream_id, seq)
    encoded = pair.encode()
    assert Pair.decode(encoded) == pair
    assert Unpair.decode(Unpair(TOKEN).encode()) == Unpair(TOKEN)
    for stop in range(len(encoded)):
        with pytest.raises(DecodeError):
            Pair.decode(encoded[:stop])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_not(data: bytes) -> None:
    for decode in (Pair.decode, Unpair.decode):
        try:
            value = decode(data)
        except DecodeError:
            continue
        assert decode(value.encode()) == value


@pytest.mark.parametrize("is_first_initiator", [True, False])
def test_two_with_one_token_are_matched(is_first_initiator: bool) -> None:
    pairings: Pairings[str] = Pairings(str)
    first, second = Pair(is_first_initiator, TOKEN, 1), Pair(not is_first_initiator, TOKEN, 2)
    assert pairings.pair("a", first) is None
    assert pairings.pair("c", Pair(not is_first_initiator, OTHER, 3)) is None
    assert pairings.pair("d", Pair(is_first_initiator, TOKEN, 4)) is None, "there is one already"
    matched = pairings.pair("b", second)
    expected = ("a", first, "b", second) if is_first_initiator else ("b", second, "a", first)
    assert matched == Matched(*expected)
    assert len(pairings) == 1, "the other token"
    assert pairings.pair("b", second) is None, "the token is used up"


def test_who_leaves_or_changes_its_mind_waits_no_more() -> None:
    pairings: Pairings[str] = Pairings(str)
    pairings.pair("a", Pair(True, TOKEN, 1))
    pairings.unpair("b", TOKEN)
    assert len(pairings) == 1, "somebody else's token"
    pairings.unpair("a", TOKEN)
    pairings.unpair("a", TOKEN)
    assert len(pairings) == 0
    pairings.pair("a", Pair(True, TOKEN, 1))
    pairings.pair("a", Pair(True, OTHER, 1))
    pairings.ended("a")
    assert len(pairings) == 0
    assert pairings.pair("b", Pair(False, TOKEN, 2)) is None


def test_waiting_is_bounded() -> None:
    pairings: Pairings[int] = Pairings(str)
    for index in range(MAX_WAITING_PER_SESSION + 1):
        pairings.pair(0, Pair(True, index.to_bytes(32, "big"), 1))
    assert (len(pairings), pairings.refused) == (MAX_WAITING_PER_SESSION, 1)
    for index in range(100, 100 + MAX_WAITING):
        pairings.pair(index, Pair(True, index.to_bytes(32, "big"), 1))
    assert len(pairings) == MAX_WAITING


def test_a_host_that_waits_with_many_sessions_leaves_room_for_others() -> None:
    """Two hosts, with 96 connections each, had all of it."""
    pairings: Pairings[int] = Pairings(lambda session: "many" if session < MAX_WAITING else "other")
    for index in range(MAX_WAITING):
        pairings.pair(index, Pair(True, index.to_bytes(32, "big"), 1))
    assert (len(pairings), pairings.refused) == (
        MAX_WAITING_PER_HOST,
        MAX_WAITING - MAX_WAITING_PER_HOST,
    )
    assert pairings.pair(MAX_WAITING, Pair(True, TOKEN, 1)) is None
    pairings.ended(0)
    assert pairings.pair(1, Pair(True, OTHER, 1)) is None, "there is room for one more"
    assert len(pairings) == MAX_WAITING_PER_HOST + 1


def test_nobody_makes_way_for_a_host_that_would_wait_with_as_many() -> None:
    pairings: Pairings[int] = Pairings(lambda session: f"192.0.2.{session % 8}")
    for index in range(MAX_WAITING):
        pairings.pair(index, Pair(True, index.to_bytes(32, "big"), 1))
    assert len(pairings) == MAX_WAITING
    assert pairings.making_way(0, Pair(True, OTHER, 1)) is None
    assert pairings.making_way(0, Pair(False, (7).to_bytes(32, "big"), 1)) is None, "a second end"


def test_a_host_that_waits_makes_way_for_one_that_has_less() -> None:
    """Found in review: eight hosts together had all of it."""
    pairings: Pairings[str] = Pairings(lambda session: session[:3])
    hosts = [f"{number:03}" for number in range(MAX_WAITING // MAX_WAITING_PER_HOST)]
    for index in range(MAX_WAITING):
        session = f"{hosts[index % len(hosts)]} {index}"
        pairings.pair(session, Pair(True, index.to_bytes(32, "big"), 1))
    new = Pair(True, TOKEN, 1)
    crowded = pairings.making_way("new", new)
    assert crowded is not None
    other, token = crowded
    assert pairings.waiting(other) == {token}
    pairings.unpair(other, token)
    assert pairings.pair("new", new) is None
    assert pairings.making_way("new", new) is None, "it waits already"
    assert len(pairings) == MAX_WAITING


def test_relays_end_when_the_bytes_they_share_are_used_up() -> None:
    budget = RelayBudget(500).link("192.0.2.1", "192.0.2.2")
    paths = (Path(1, ("192.0.2.1", 1)), Path(2, ("192.0.2.2", 2)))
    relays = [UdxRelay(paths, budget) for _ in range(2)]
    datagram = encode_packet(DATA, 9, 0, 0, 0, bytes(80))
    packet = decode_packet(datagram)
    sent = [relay.receive(0, [(packet, datagram)]) for relay in (*relays, *relays)]
    assert [len(outputs) for outputs in sent] == [1, 1, 2, 2], "the third does not go out whole"
    assert sum(relay.bytes for relay in relays) == 200
    assert relays[0].receive(1, [(packet, datagram)]) == []


def test_one_host_takes_no_more_than_it_leaves_to_the_others() -> None:
    budget = RelayBudget(1000)
    greedy, modest = budget.link("192.0.2.1", "192.0.2.2"), budget.link("192.0.2.3", "192.0.2.4")
    again = budget.link("192.0.2.1", "192.0.2.5")
    assert [greedy.take(100) for _ in range(5)] == [True] * 5
    assert not again.take(1), "whoever is at the other end"
    assert [budget.has_room(f"192.0.2.{host}") for host in (1, 2, 3)] == [False, False, True]
    assert [modest.take(100) for _ in range(3)] == [True, True, False]
    assert budget.has_room("192.0.2.5"), "there is always something left"
    budget.refill()
    assert (budget.left, greedy.take(500), greedy.take(1)) == (1000, True, False)


async def test_a_relay_refuses_the_host_that_had_its_share() -> None:
    with trio.fail_after(30):
        async with (
            open_relay(max_bytes=1000) as (hyperdht, relay),
            open_ends(hyperdht, 2, 3) as ends,
            open_udx_endpoint(LOOPBACK) as elsewhere,
        ):
            for token, links in ((TOKEN, 1), (OTHER, 0)):
                for is_initiator, (_, channel) in zip((True, False), ends, strict=True):
                    channel.send(PAIR, Pair(is_initiator, token, 5).encode())
                [(kind, payload)] = await ends[0][1].receive()
                await ends[1][1].receive()
                assert (kind == PAIR, relay.statistics().links) == (links == 1, links)
                if links:
                    stream_id = Pair.decode(payload).stream_id
                    packet = encode_packet(DATA, stream_id, 0, 0, 0, bytes(80))
                    while relay.statistics().links:
                        elsewhere.send_datagram(packet, hyperdht.address)
                        await trio.sleep(0.01)
            assert 300 < relay.statistics().bytes_left <= 500
            assert relay.statistics().refused == 1


@asynccontextmanager
async def open_relay(max_bytes: int = 1000) -> AsyncIterator[tuple[HyperDht, BlindRelay]]:
    """A relay that can be connected to by the key `RELAY`, from the node that it is on."""
    async with (
        open_bootstrap(LOOPBACK, 0) as boot,
        open_hyperdht(bootstrap=[boot.address], host=LOOPBACK, port=0, is_open=True) as hyperdht,
        open_background_nursery() as nursery,
    ):
        relay = BlindRelay(max_bytes)
        serve = partial(hyperdht.serve, max_message_bytes=MAX_MESSAGE_BYTES)
        server: PeerServer = await nursery.start(serve, RELAY, relay.handle)
        await server.wait_announced()
        yield hyperdht, relay


async def test_a_relay_serves_only_who_names_itself() -> None:
    """Over connections that are real: two ends meet, a third under another's name does not."""
    with trio.fail_after(30):
        async with open_relay() as (hyperdht, relay):
            keys = [KeyPair.from_seed(bytes([n]) * 32) for n in (2, 3)]
            async with (
                hyperdht.connect(RELAY.public_key, keys[0]) as one,
                hyperdht.connect(RELAY.public_key, keys[1]) as two,
                open_mux(one) as first,
                open_mux(two) as second,
            ):
                with pytest.raises(trio.BrokenResourceError):
                    await first.open_channel(PROTOCOL, keys[1].public_key)
                ours = await first.open_channel(PROTOCOL, keys[0].public_key)
                theirs = await second.open_channel(PROTOCOL, keys[1].public_key)
                ours.send(PAIR, Pair(True, TOKEN, 5).encode())
                theirs.send(PAIR, Pair(False, TOKEN, 6).encode())
                answers = [
                    Pair.decode(payload)
                    for channel in (ours, theirs)
                    for _, payload in await channel.receive()
                ]
                assert [(each.is_initiator, each.token) for each in answers] == [
                    (True, TOKEN),
                    (False, TOKEN),
                ]
                assert answers[0].stream_id != answers[1].stream_id
                statistics = relay.statistics()
                assert (statistics.sessions, statistics.links, statistics.waiting) == (2, 1, 0)
                theirs.send(PAIR, b"nonsense")
                with pytest.raises(trio.EndOfChannel):
                    await theirs.receive()
            while relay.statistics().sessions:
                await trio.lowlevel.checkpoint()
            assert relay.statistics().links == 0


async def test_a_relay_counts_who_is_connected_and_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found in review: only those counted that had opened a channel."""
    monkeypatch.setattr("swarm.io.relay_server.MAX_CONNECTIONS", 1)
    own, another = (KeyPair.from_seed(bytes([n]) * 32) for n in (2, 3))
    with trio.fail_after(30):
        async with open_relay() as (hyperdht, relay):
            assert relay.lets_in(another.public_key)
            async with (
                hyperdht.connect(RELAY.public_key, own) as connection,
                open_mux(connection) as mux,
            ):
                with pytest.raises(trio.BrokenResourceError):
                    await mux.open_channel(PROTOCOL, another.public_key)
                assert relay.statistics().sessions == 0
                assert not relay.lets_in(another.public_key)
            while not relay.lets_in(another.public_key):
                await trio.lowlevel.checkpoint()


async def test_a_relay_keeps_little_of_what_it_is_told() -> None:
    """A hundred clients of one host had it keep 25 MB each, for a minute at a time."""
    own = KeyPair.from_seed(bytes([2]) * 32)
    with trio.fail_after(30):
        async with (
            open_relay() as (hyperdht, _),
            hyperdht.connect(RELAY.public_key, own) as connection,
        ):
            await connection.send([bytes(MAX_MESSAGE_BYTES + 1)])
            with pytest.raises((trio.BrokenResourceError, trio.EndOfChannel)):
                await connection.receive()


@asynccontextmanager
async def open_elsewhere(relay: HyperDht, host: str) -> AsyncIterator[HyperDht]:
    """Another host, on the loopback as well."""
    boot = [relay.address]
    async with open_hyperdht(bootstrap=boot, host=host, port=0, is_open=True) as hyperdht:
        yield hyperdht


async def link(token: bytes, one: Channel, other: Channel) -> None:
    """Meet at the relay, which must take both."""
    one.send(PAIR, Pair(True, token, 5).encode())
    other.send(PAIR, Pair(False, token, 6).encode())
    for channel in (one, other):
        [(kind, _)] = await channel.receive()
        assert kind == PAIR


async def test_a_full_relay_has_a_link_for_hosts_that_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found in review: four hosts held all links of a relay, for as long as they liked."""
    monkeypatch.setattr("swarm.io.relay_server.MAX_LINKS", 3)
    with trio.fail_after(30):
        async with (
            open_relay() as (hyperdht, relay),
            open_elsewhere(hyperdht, "127.0.0.2") as elsewhere,
            open_ends(hyperdht, 2, 3) as [(_, one), (_, two)],
            open_ends(elsewhere, 4, 5) as [(_, three), (_, four)],
        ):
            for number in range(3):
                await link(bytes([number]) * 32, one, two)
            await link(TOKEN, three, four)
            assert relay.statistics().links == 3
            one.send(PAIR, Pair(True, OTHER, 5).encode())
            two.send(PAIR, Pair(False, OTHER, 6).encode())
            for channel in (one, two):  # it would have as many as before
                assert await channel.receive() == [(UNPAIR, Unpair(OTHER).encode())]
            assert (relay.statistics().links, relay.statistics().refused) == (3, 1)


async def test_a_crowded_relay_has_room_for_hosts_that_are_not_there_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swarm.io.relay_server.CROWDED_CONNECTIONS", 2)
    with trio.fail_after(30):
        async with (
            open_relay() as (hyperdht, relay),
            open_elsewhere(hyperdht, "127.0.0.2") as elsewhere,
            open_ends(hyperdht, 2, 3) as [(first, _), _],
            open_ends(elsewhere, 4),
        ):
            await first.wait_ended()
            assert relay.statistics().sessions == 2


async def test_an_end_that_makes_way_for_another_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.blind_relay.MAX_WAITING", 2)
    with trio.fail_after(30):
        async with (
            open_relay() as (hyperdht, relay),
            open_elsewhere(hyperdht, "127.0.0.2") as elsewhere,
            open_ends(hyperdht, 2) as [(_, crowd)],
            open_ends(elsewhere, 3) as [(_, newcomer)],
        ):
            for token in (TOKEN, OTHER):
                crowd.send(PAIR, Pair(True, token, 5).encode())
            while relay.statistics().waiting < 2:
                await trio.lowlevel.checkpoint()
            newcomer.send(PAIR, Pair(True, bytes(32), 5).encode())
            assert await crowd.receive() == [(UNPAIR, Unpair(OTHER).encode())]
            assert relay.statistics().waiting == 2


@asynccontextmanager
async def open_ends(
    hyperdht: HyperDht, *seeds: int
) -> AsyncIterator[list[tuple[MuxHandle, Channel]]]:
    """Connections to the relay, each with its channel."""
    async with AsyncExitStack() as stack:
        ends = []
        for seed in seeds:
            own = KeyPair.from_seed(bytes([seed]) * 32)
            connection = await stack.enter_async_context(hyperdht.connect(RELAY.public_key, own))
            mux = await stack.enter_async_context(open_mux(connection))
            ends.append((mux, await mux.open_channel(PROTOCOL, own.public_key)))
        yield ends


async def test_a_link_that_nothing_passes_is_given_up_and_whoever_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found in review: 32 silent clients took all links there are, for as long as they liked."""
    monkeypatch.setattr("swarm.io.relay_server.QUIET_SECONDS", 0.2)
    with trio.fail_after(30):
        async with open_relay() as (hyperdht, relay), open_ends(hyperdht, 2, 3) as ends:
            for is_initiator, (_, channel) in zip((True, False), ends, strict=True):
                channel.send(PAIR, Pair(is_initiator, TOKEN, 5).encode())
            for _, channel in ends:
                await channel.receive()
            assert relay.statistics().links == 1
            for mux, _ in ends:
                await mux.wait_ended()
            statistics = relay.statistics()
            assert (statistics.sessions, statistics.links, statistics.waiting) == (0, 0, 0)


async def test_a_link_in_use_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.io.relay_server.QUIET_SECONDS", 0.2)
    with trio.fail_after(30):
        async with (
            open_relay(max_bytes=10**6) as (hyperdht, relay),
            open_ends(hyperdht, 2, 3) as ends,
            open_udx_endpoint(LOOPBACK) as elsewhere,
        ):
            for is_initiator, (_, channel) in zip((True, False), ends, strict=True):
                channel.send(PAIR, Pair(is_initiator, TOKEN, 5).encode())
            [(_, payload)] = await ends[0][1].receive()
            stream_id = Pair.decode(payload).stream_id
            for _ in range(20):
                elsewhere.send_datagram(encode_packet(DATA, stream_id, 0, 0, 0), hyperdht.address)
                await trio.sleep(0.05)
            assert relay.statistics().links == 1


async def test_who_waits_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.io.relay_server.QUIET_SECONDS", 0.2)
    with trio.fail_after(30):
        async with open_relay() as (hyperdht, relay), open_ends(hyperdht, 2) as [(mux, channel)]:
            channel.send(PAIR, Pair(True, TOKEN, 5).encode())
            assert await channel.receive() == [(UNPAIR, Unpair(TOKEN).encode())]
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
            assert (relay.statistics().waiting, mux.is_ended) == (0, False)


async def test_a_full_relay_says_so_to_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in review: they heard nothing, and waited for fifteen seconds."""
    monkeypatch.setattr("swarm.io.relay_server.MAX_LINKS", 1)
    with trio.fail_after(10):
        async with open_relay() as (hyperdht, relay), open_ends(hyperdht, 2, 3, 4) as ends:
            (_, one), (_, two), (_, three) = ends
            one.send(PAIR, Pair(True, TOKEN, 5).encode())
            two.send(PAIR, Pair(False, TOKEN, 5).encode())
            await one.receive()
            await two.receive()
            two.send(PAIR, Pair(True, OTHER, 6).encode())
            three.send(PAIR, Pair(False, OTHER, 7).encode())
            refusal = [(UNPAIR, Unpair(OTHER).encode())]
            assert await two.receive() == refusal
            assert await three.receive() == refusal
            with pytest.raises(trio.EndOfChannel):
                await three.receive()
            assert (relay.statistics().links, relay.statistics().refused) == (1, 1)
            two.send(UNPAIR, Unpair(TOKEN).encode())  # the first gives its link back, as it may
            while relay.statistics().links:
                await trio.lowlevel.checkpoint()


async def test_one_host_does_not_take_all_by_many_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found in review: a bound for each connection was none for who came with 32 of them."""
    monkeypatch.setattr("swarm.io.relay_server.MAX_LINKS_PER_HOST", 1)
    monkeypatch.setattr("swarm.io.relay_server.MAX_CONNECTIONS_PER_HOST", 4)
    with trio.fail_after(10):
        async with open_relay() as (hyperdht, relay), open_ends(hyperdht, 2, 3, 4, 5) as ends:
            (_, one), (_, two), (_, three), (_, four) = ends
            one.send(PAIR, Pair(True, TOKEN, 5).encode())
            two.send(PAIR, Pair(False, TOKEN, 5).encode())
            await one.receive()
            three.send(PAIR, Pair(True, OTHER, 6).encode())
            four.send(PAIR, Pair(False, OTHER, 7).encode())
            assert await three.receive() == [(UNPAIR, Unpair(OTHER).encode())]
            own = KeyPair.generate()
            async with (
                hyperdht.connect(RELAY.public_key, own) as connection,
                open_mux(connection) as mux,
            ):
                with pytest.raises(trio.EndOfChannel):
                    await mux.open_channel(PROTOCOL, own.public_key)
            assert (relay.statistics().links, relay.statistics().refused) == (1, 2)


async def test_who_is_refused_by_a_full_relay_goes_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swarm.io.relay_server.MAX_LINKS", 0)
    with trio.fail_after(10):
        async with (
            open_relay() as (hyperdht, _),
            open_udx_endpoint(LOOPBACK) as endpoint,
            AsyncExitStack() as stack,
        ):
            meetings = [
                await stack.enter_async_context(
                    open_meeting(
                        RelayThrough(RELAY.public_key, TOKEN),
                        endpoint.open_stream(),
                        hyperdht.connect,
                        is_initiator=is_initiator,
                        is_caller=is_initiator,
                    )
                )
                for is_initiator in (True, False)
            ]
            assert [await meeting.wait_leg() for meeting in meetings] == [None, None]
