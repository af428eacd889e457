"""The table on real sockets of this machine."""

from __future__ import annotations

import socket
import types
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm.announcement import Address
from swarm.dht.messages import ErrorCode, Internal, Request
from swarm.dht.payloads import PeerRecord, immutable_target, peer_target
from swarm.dht.reachability import Role
from swarm.dht.requests import Call
from swarm.errors import DhtError, PeerUnreachable
from swarm.io.carrier import UdpSocket
from swarm.io.dht import Dht, Pong, open_bootstrap, open_dht
from tests.support.cancel_everywhere import cancel_everywhere

LOOPBACK = "127.0.0.1"
TOPIC = b"\x01" * 32
PAIR = KeyPair.from_seed(b"\x02" * 32)
RELAYS: tuple[Address, ...] = (("192.0.2.1", 5),)
NOBODY: Address = (LOOPBACK, 9)  # the discard service, which nobody runs


@pytest.fixture
def quick_clock() -> trio.testing.MockClock:
    """Jumps over timeouts, but leaves real sockets the time they need."""
    return trio.testing.MockClock(autojump_threshold=0.1)


@asynccontextmanager
async def open_network(size: int) -> AsyncIterator[list[Dht]]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_bootstrap(LOOPBACK, 0))]
        while len(nodes) < size:
            opened = open_dht(
                bootstrap=[nodes[0].address],
                host=LOOPBACK,
                port=0,
                role=Role.PERSISTENT,
                is_open=True,
            )
            nodes.append(await stack.enter_async_context(opened))
            await nodes[-1].wait_bootstrapped()
        yield nodes


async def records_of(dht: Dht, remembered: Sequence[Address] = ()) -> set[PeerRecord]:
    answers = dht.lookup(TOPIC, remembered=remembered)
    return {record async for found in answers for record in found.records}


async def test_topics_peers_and_values() -> None:
    with trio.fail_after(30):
        async with open_network(6) as nodes:
            first, second = nodes[1], nodes[4]
            stored = await first.announce(TOPIC, PAIR, RELAYS)
            assert stored.nodes == len(stored.closest) == 5
            assert await records_of(second) == {PeerRecord(PAIR.public_key, RELAYS)}
            assert await records_of(second, stored.closest) == await records_of(second)
            assert await first.unannounce(TOPIC, PAIR) == 5
            assert await records_of(second) == set()

            target = peer_target(PAIR.public_key)
            await first.announce(target, PAIR)
            found = [peer async for peer in second.find_peer(PAIR.public_key)]
            assert {peer.record for peer in found} == {PeerRecord(PAIR.public_key)}
            assert {peer.seen_as for peer in found} == {second.public_address}

            assert (await first.immutable_put(b"value")).nodes == 5
            assert await second.immutable_get(immutable_target(b"value")) == b"value"
            assert await second.immutable_get(TOPIC) is None
            await first.mutable_put(PAIR, b"one", seq=1)
            for latest in (True, False):
                content = await second.mutable_get(PAIR.public_key, latest=latest)
                assert content is not None
                assert (content.seq, content.value) == (1, b"one")
            assert await second.mutable_get(PAIR.public_key, min_seq=2) is None
            with pytest.raises(DhtError, match="5 nodes refused") as refused:
                await first.mutable_put(PAIR, b"null", seq=0)
            assert refused.value.code == ErrorCode.SEQUENCE_TOO_LOW


async def test_the_members_of_a_network_know_one_another() -> None:
    with trio.fail_after(30):
        async with open_network(5) as nodes:
            for node in nodes:
                statistics = node.statistics()
                assert not statistics.is_ephemeral
                assert node.public_address == node.address
                assert statistics.malformed == 0
            everybody = {node.address for node in nodes}
            assert set(nodes[-1].nodes) == everybody - {nodes[-1].address}


async def test_nodes_of_an_earlier_run_replace_a_bootstrap_node() -> None:
    with trio.fail_after(30):
        async with open_network(4) as nodes:
            known = nodes[1].nodes
            async with open_dht(bootstrap=(), host=LOOPBACK, port=0, nodes=known) as dht:
                await dht.wait_bootstrapped()
                await dht.ping(known[0])  # what it asked before that is answered by now
                assert dht.nodes
                await nodes[2].announce(TOPIC, PAIR)
                assert await records_of(dht) == {PeerRecord(PAIR.public_key)}


async def test_a_ping_says_how_we_are_seen() -> None:
    async with (
        open_bootstrap(LOOPBACK, 0) as node,
        open_dht(bootstrap=[node.address], host=LOOPBACK, port=0) as dht,
    ):
        pong = await dht.ping(node.address)
        assert isinstance(pong, Pong)
        assert pong.seen_as[0] == LOOPBACK
        assert pong.seen_as != dht.address, "not from the server's socket, as far as it knows yet"
        assert 0 <= pong.seconds < 10


async def test_nobody_answers(quick_clock: trio.testing.MockClock) -> None:
    async with open_dht(bootstrap=(), host=LOOPBACK, port=0) as dht:
        await dht.wait_bootstrapped()
        with pytest.raises(PeerUnreachable, match=r"127\.0\.0\.1:9 did not answer \(4 attempts\)"):
            await dht.ping(NOBODY)
        with pytest.raises(DhtError, match="stored nowhere") as nowhere:
            await dht.announce(TOPIC, PAIR)
        assert (nowhere.value.code, nowhere.value.silent) == (None, 0)
        assert await records_of(dht) == set()
        assert await dht.unannounce(TOPIC, PAIR) == 0
        assert await dht.immutable_get(TOPIC) is None


async def test_a_taken_port_leads_to_another_one_unless_it_matters() -> None:
    taken = UdpSocket(LOOPBACK, 0)
    port = taken.address[1]
    async with open_dht(bootstrap=(), host=LOOPBACK, port=port) as dht:
        assert dht.address[1] != port
    with pytest.raises(OSError, match="in use"):
        async with open_bootstrap(LOOPBACK, port):
            pass
    taken.close()
    async with open_bootstrap(LOOPBACK, port) as node:
        assert node.address == (LOOPBACK, port)


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "255.255.255.255"])
async def test_a_bootstrap_node_needs_an_address_that_others_can_use(host: str) -> None:
    with pytest.raises(ValueError, match=host):
        async with open_bootstrap(host, 0):
            pass


async def test_bootstrap_nodes_have_names() -> None:
    with trio.fail_after(30):
        async with open_bootstrap(LOOPBACK, 0) as node:
            port = node.address[1]
            for name in (f"localhost:{port}", f"{LOOPBACK}@nowhere.invalid:{port}"):
                async with open_dht(bootstrap=[name], host=LOOPBACK, port=0) as dht:
                    await dht.wait_bootstrapped()
                    assert dht.nodes == (node.address,)


async def test_the_name_helps_when_the_address_does_not(
    quick_clock: trio.testing.MockClock,
) -> None:
    async with open_bootstrap(LOOPBACK, 0) as node:
        name = f"127.0.0.77@localhost:{node.address[1]}"
        async with open_dht(bootstrap=[name], host=LOOPBACK, port=0) as dht:
            await dht.wait_bootstrapped()
            assert not dht.nodes
            await trio.sleep(120)
            assert dht.nodes == (node.address,)


async def test_a_name_that_means_nothing_is_no_crash(quick_clock: trio.testing.MockClock) -> None:
    names = ["nowhere.invalid:5", "no..name:5"]
    async with open_dht(bootstrap=names, host=LOOPBACK, port=0) as dht:
        with trio.fail_after(60):
            await dht.wait_bootstrapped()
        assert dht.nodes == ()
    with pytest.raises(ValueError, match="HOST:PORT"):
        async with open_dht(bootstrap=["nowhere"]):
            pass


async def test_after_the_end_nothing_works_and_nobody_waits() -> None:
    waited: list[str] = []

    async def wait_for(name: str, call: object) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call  # type: ignore[misc]  # all are awaitable
        waited.append(name)

    async with (
        trio.open_nursery() as nursery,
        open_dht(bootstrap=[NOBODY], host=LOOPBACK, port=0) as dht,
    ):
        answers = dht.lookup(TOPIC)
        nursery.start_soon(wait_for, "answers", answers.__anext__())
        nursery.start_soon(wait_for, "ping", dht.ping(NOBODY))
        nursery.start_soon(wait_for, "announce", dht.announce(TOPIC, PAIR))
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(waited) == ["announce", "answers", "ping"]
    with pytest.raises(trio.ClosedResourceError):
        await dht.ping(NOBODY)
    with pytest.raises(trio.ClosedResourceError):
        dht.lookup(TOPIC)
    with pytest.raises(trio.ClosedResourceError):
        await answers.wait_finished()


async def test_a_query_that_nobody_wants_any_more_is_stopped() -> None:
    async with open_dht(bootstrap=[NOBODY], host=LOOPBACK, port=0) as dht:
        await trio.testing.wait_all_tasks_blocked()
        running = dht.statistics().queries
        answers = dht.lookup(TOPIC)
        assert dht.statistics().queries == running + 1
        answers.cancel()
        answers.cancel()
        assert dht.statistics().queries == running
        with pytest.raises(trio.ClosedResourceError):
            await answers.__anext__()
        for call in (dht.immutable_get(TOPIC), dht.mutable_get(PAIR.public_key)):
            with trio.move_on_after(0):
                await call
        with trio.move_on_after(0):
            await dht.announce(TOPIC, PAIR)
        assert dht.statistics().queries == running


async def test_the_result_of_a_query_is_there_when_it_is_over() -> None:
    with trio.fail_after(30):
        async with open_network(4) as nodes:
            answers = nodes[1].lookup(TOPIC)
            result = await answers.wait_finished()
            assert answers.result is result
            assert result.replies == 3
            assert [answer async for answer in answers] == []


async def test_a_call_may_be_cancelled_anywhere() -> None:
    with trio.fail_after(30):
        async with open_network(3) as nodes:

            async def call() -> None:
                await nodes[1].ping(nodes[2].address)

            assert await cancel_everywhere(call) > 0
            assert nodes[1].statistics().requests.active == 0


async def test_noise_on_the_sockets_disturbs_nobody() -> None:
    with trio.fail_after(30):
        async with open_network(2) as nodes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
                for data in (b"", b"\x00", b"\xff\x01" + bytes(30), b"\x03", b"\x13" * 40):
                    noisy.sendto(data, nodes[0].address)
                ping = Request(5, nodes[0].address, Internal.PING, True).encode()
                noisy.sendto(ping, ("127.0.0.1", nodes[0].address[1]))
            assert (await nodes[1].ping(nodes[0].address)).seconds >= 0
            assert nodes[0].statistics().malformed == 1, "the others were not for us"


async def test_an_answer_to_an_unknown_command_is_an_answer() -> None:
    async with open_network(2) as nodes:
        response = await nodes[1].request(Call(nodes[0].address, 99, target=TOPIC))
        assert response.error == ErrorCode.UNKNOWN_COMMAND


async def test_what_cannot_be_sent_is_lost() -> None:
    carrier = UdpSocket(LOOPBACK, 0)
    carrier.send_to(b"x", ("255.255.255.255", 1))
    carrier.send_to(bytes(2**16), carrier.address)
    assert carrier.dropped_datagrams == 2
    carrier.send_to(b"x", carrier.address)
    assert await carrier.receive() == [(b"x", carrier.address)]
    carrier.close()


class MemoryCarrier:
    """A carrier that somebody else's socket could be behind."""

    def __init__(self, port: int) -> None:
        self.address: Address = (LOOPBACK, port)
        self.sent: list[tuple[bytes, Address]] = []
        self.put, self._arrived = trio.open_memory_channel[tuple[bytes, Address]](10)

    def send_to(self, data: bytes, address: Address) -> None:
        self.sent.append((data, address))

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        return [await self._arrived.receive()]


async def test_others_may_carry_the_datagrams() -> None:
    server, client = MemoryCarrier(4000), MemoryCarrier(5000)
    async with open_dht(bootstrap=[NOBODY], carriers=(server, client)) as dht:
        assert dht.address == server.address
        await trio.testing.wait_all_tasks_blocked()
        assert {address for _, address in client.sent} == {NOBODY}
        assert server.sent == []
        asker: Address = (LOOPBACK, 7000)
        await server.put.send((b"\xff\x01 not for us", asker))
        await server.put.send((Request(1, asker, Internal.PING, True).encode(), asker))
        await trio.testing.wait_all_tasks_blocked()
        assert [address for _, address in server.sent] == [asker]


async def test_sleep_is_noticed_by_the_clock_on_the_wall(
    quick_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = [1_800_000_000.0]
    clock = types.SimpleNamespace(time=lambda: wall[0] + trio.current_time(), time_ns=lambda: 0)
    monkeypatch.setattr("swarm.io.dht.time", clock)
    monkeypatch.setattr("swarm.io.dht_driver.time", clock)
    async with open_network(3) as nodes:
        before = nodes[1].statistics().requests.sent
        await trio.sleep(11)
        quiet = nodes[1].statistics().requests.sent
        wall[0] += 3600
        await trio.sleep(11)
        assert nodes[1].statistics().requests.sent > quiet >= before, "it looks around again"
        assert len(nodes[1].nodes) == 2
