from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import trio
import zeroconf
from zeroconf._protocol.outgoing import DNSOutgoing

from hypercore.crypto import KeyPair
from swarm import Connection, Source, Swarm, open_swarm
from swarm.announcement import MAX_TOPICS, Announcement, create_instance_name
from swarm.io.mdns import SERVICE_TYPE, open_mdns
from tests.support.no_more_files import no_more_files

LOOPBACK = "127.0.0.1"
TOPIC, OTHER = b"\x11" * 32, b"\x12" * 32
KEYS = [KeyPair.from_seed(bytes((i,)) * 32) for i in (11, 12, 13)]


@pytest.fixture(autouse=True)
def own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes and tests beside this one hear all of this machine, too: no peers for it, nor it for
    them."""
    assert SERVICE_TYPE == "_beemesh._tcp.local."
    own = f"_beemesh-{secrets.token_hex(3)}._tcp.local."
    for module in ("swarm.io.mdns", __name__):
        monkeypatch.setattr(f"{module}.SERVICE_TYPE", own)


async def hold(connection: Connection) -> None:
    await connection.send([b"hello"])
    while True:
        await connection.receive()


async def until(is_true: Callable[[], object], swarm: Swarm) -> None:
    while not is_true():
        await swarm.wait_changed()


async def wait_connections(swarm: Swarm, count: int) -> None:
    await until(lambda: len(swarm.connections) == count, swarm)


@pytest.mark.parametrize("interfaces", [None, [LOOPBACK]])
async def test_neighbors_with_a_common_topic_find_each_other_and_others_do_not(
    interfaces: list[str] | None,
) -> None:
    host = "0.0.0.0" if interfaces is None else LOOPBACK
    with trio.fail_after(60):
        async with open_swarm(KEYS[0], hold, listen=(host, 0), interfaces=interfaces) as first:
            await first.join(TOPIC)
            await first.wait_announced()
            async with (
                open_swarm(KEYS[1], hold, listen=(host, 0), interfaces=interfaces) as second,
                open_swarm(KEYS[2], hold, listen=(host, 0), interfaces=interfaces) as third,
            ):
                await third.join(OTHER)
                await second.join(TOPIC)
                with trio.fail_after(20):
                    await wait_connections(first, 1)
                    await wait_connections(second, 1)
                assert first.connections[0].remote_public_key == KEYS[1].public_key
                assert Source.LAN in {first.connections[0].source, second.connections[0].source}
                assert third.connections == ()
                # One who joins the topic later is found as well.
                await third.join(TOPIC)
                with trio.fail_after(20):
                    await wait_connections(third, 2)
                assert first.statistics().lan_error == ""
            # A goodbye takes the names away at once.
            await until(lambda: not any(TOPIC in peer.topics for peer in first.peers), first)
            await wait_connections(first, 0)


async def test_what_was_joined_first_is_announced_however_much_is_joined_later() -> None:
    """The lowest 24 were: two nodes with as many mirrors each did not see one another."""
    common = b"\xff" * 32
    with trio.fail_after(60):
        async with (
            open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as first,
            open_swarm(KEYS[1], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as second,
        ):
            for swarm in (first, second):
                await swarm.join(common)
                for number in range(MAX_TOPICS):
                    await swarm.join(bytes((number,)) + swarm.public_key[1:])
            await wait_connections(first, 1)
            await wait_connections(second, 1)


async def test_who_leaves_all_topics_is_not_seen_any_more() -> None:
    with trio.fail_after(60):
        async with (
            open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as first,
            open_swarm(KEYS[1], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as second,
        ):
            await first.join(OTHER)
            await first.wait_announced()
            port = first.addresses[0][1]

            def sees_first() -> bool:
                return any(peer.addresses[0][1] == port for peer in second.peers)

            await until(sees_first, second)
            await first.leave(OTHER)
            assert first.topics == frozenset()
            await until(lambda: not sees_first(), second)
            assert second.connections == ()


async def test_who_is_suspended_is_not_seen_until_it_resumes() -> None:
    with trio.fail_after(60):
        async with (
            open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as first,
            open_swarm(KEYS[1], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as second,
        ):
            await second.join(TOPIC)
            await first.join(TOPIC)
            await until(lambda: second.peers, second)
            await wait_connections(second, 1)
            first.suspend()
            await until(lambda: not second.peers, second)
            await first.join(OTHER)
            await first.wait_announced()
            assert second.peers == []
            first.resume()
            await until(lambda: second.peers, second)
            await wait_connections(second, 1)


async def test_a_machine_without_another_file_is_reported_and_harmless() -> None:
    with trio.fail_after(20), no_more_files():
        async with open_mdns(create_instance_name(), LOOPBACK, 1, interfaces=[LOOPBACK]) as mdns:
            await mdns.receive()
            assert "open files" in mdns.error


async def test_a_network_without_multicast_is_reported_and_harmless() -> None:
    # An address that is not ours: joining a multicast group on it fails.
    with trio.fail_after(60):
        async with open_swarm(
            KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=["203.0.113.77"]
        ) as swarm:
            await swarm.join(TOPIC)
            await until(lambda: bool(swarm.statistics().lan_error), swarm)


@pytest.fixture
def network() -> Iterator[zeroconf.Zeroconf]:
    """Says on the network what a test wants, true or not."""
    instance = zeroconf.Zeroconf(interfaces=[LOOPBACK])
    yield instance
    instance.close()


def create_service(port: int) -> zeroconf.ServiceInfo:
    name = create_instance_name()
    return zeroconf.ServiceInfo(
        SERVICE_TYPE,
        f"{name}.{SERVICE_TYPE}",
        addresses=[socket.inet_aton(LOOPBACK)],
        port=port,
        properties=Announcement.of([TOPIC], b"saltsalt").encode(),
        server=f"{name}.local.",
    )


def create_pointer(service: zeroconf.ServiceInfo) -> DNSOutgoing:
    """Says that there is such a service, and nothing else of it."""
    pointer = DNSOutgoing(0x8400)  # an authoritative answer
    pointer.add_answer_at_time(service.dns_pointer(), 0)
    return pointer


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind((LOOPBACK, 0))
        port: int = unused.getsockname()[1]
    return port


async def wait_seen(swarm: Swarm, service: zeroconf.ServiceInfo) -> None:
    name = service.name.partition(".")[0]
    await until(lambda: any(peer.name == name for peer in swarm.peers), swarm)


async def test_a_goodbye_right_behind_an_announcement_is_the_last_word(
    network: zeroconf.Zeroconf,
) -> None:
    with trio.fail_after(60):
        async with open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as swarm:
            await swarm.join(OTHER)
            await swarm.wait_announced()
            for _ in range(3):
                gone = [create_service(9) for _ in range(40)]
                marker = create_service(free_port())
                for service in gone:
                    network.send(network.generate_service_broadcast(service, None))
                    network.send(network.generate_service_broadcast(service, 0))
                network.send(network.generate_service_broadcast(marker, None))
                await wait_seen(swarm, marker)
            assert len(swarm.peers) == 3, "nobody but the markers"


async def test_names_that_answer_nothing_keep_no_neighbor_waiting(
    network: zeroconf.Zeroconf,
) -> None:
    """Two hundred of them, 8 KB in all, had a neighbor wait for a minute and a half."""
    with trio.fail_after(30):
        async with open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as swarm:
            await swarm.join(OTHER)
            await swarm.wait_announced()
            for _ in range(200):
                network.send(create_pointer(create_service(9)))
            marker = create_service(free_port())
            network.send(network.generate_service_broadcast(marker, None))
            await wait_seen(swarm, marker)
            await swarm.join(TOPIC)
            await swarm.wait_announced()


async def test_a_network_that_announces_too_much_is_forgotten_and_looked_at_again(
    network: zeroconf.Zeroconf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.io.mdns.MAX_NAMES", 100)
    monkeypatch.setattr("swarm.io.mdns._WATCH_SECONDS", 0.1)
    with trio.fail_after(60):
        async with open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as swarm:
            await swarm.join(OTHER)
            await swarm.wait_announced()
            for _ in range(200):
                network.send(create_pointer(create_service(9)))
            await until(lambda: "100 names" in swarm.statistics().lan_error, swarm)
            await until(lambda: not swarm.statistics().lan_error, swarm)
            marker = create_service(free_port())
            network.send(network.generate_service_broadcast(marker, None))
            await wait_seen(swarm, marker)


@pytest.mark.slow
async def test_a_name_that_did_not_answer_is_asked_once_more(network: zeroconf.Zeroconf) -> None:
    with trio.fail_after(30):
        async with open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as swarm:
            await swarm.join(OTHER)
            await swarm.wait_announced()
            service = create_service(free_port())
            network.send(create_pointer(service))
            await trio.sleep(3)
            assert swarm.peers == []
            network.registry.async_add(service)  # answers from now on, and says nothing by itself
            await wait_seen(swarm, service)


@pytest.mark.slow
async def test_a_neighbor_without_a_goodbye_is_forgotten_when_nobody_listens(
    network: zeroconf.Zeroconf,
) -> None:
    with trio.fail_after(60):
        async with open_swarm(KEYS[0], hold, listen=(LOOPBACK, 0), interfaces=[LOOPBACK]) as swarm:
            await swarm.join(TOPIC)
            await swarm.wait_announced()
            crashed = create_service(free_port())
            network.send(network.generate_service_broadcast(crashed, None))
            await until(lambda: swarm.peers, swarm)
            await until(lambda: not swarm.peers, swarm)
            assert swarm.statistics().dials_failed == 3


def test_zeroconf_is_loaded_when_it_is_used() -> None:
    code = "import swarm, sys; sys.exit('zeroconf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
