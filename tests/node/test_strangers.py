"""Peers that are no members do not keep members out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.corestore import open_corestore
from hypercore.crypto import KeyPair
from node.config import load_config
from node.daemon import open_node
from node.running import Node
from node.strangers import MOST_UNKNOWN, Strangers
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery

CROWD = 5
QUIET = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}


async def connect(
    node: Node, number: int, key: bytes | None, gone: trio.MemorySendChannel[int]
) -> None:
    """A stranger, which replicates a core if it knows the key of one, until it is sent away."""
    assert node.addresses.mesh is not None
    host, _, port = node.addresses.mesh.rpartition(":")
    identity = KeyPair.from_seed(number.to_bytes(32, "big"))
    stream = await trio.open_tcp_stream(host, int(port))
    async with (
        open_corestore(None) as store,
        open_connection(stream, identity, is_initiator=True) as connection,
        open_mux(connection) as mux,
    ):
        if key is not None:
            await store.get(key=key)
        await store.replicate(mux)
    await gone.send(number)


@pytest.mark.parametrize(("is_crowded", "left"), [(False, set()), (True, {2, 3, 4, 5, 6, 7})])
async def test_who_replicates_nothing_makes_room_when_connections_are_scarce(
    is_crowded: bool, left: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.strangers.CROWD", CROWD if is_crowded else 100)
    monkeypatch.setattr("node.strangers.IDLE_SECONDS", 0.5)
    monkeypatch.setattr("node.mesh.serve.ADMISSION_SECONDS", 0.5)
    config = load_config({"data": tmp_path, "discovery": "off", **QUIET}, {})
    async with open_node(config) as node:
        core = await node.store.get(name="a core of people")
        await core.append([b"one"])
        gone, arrivals = trio.open_memory_channel[int](10)
        numbers: set[int] = set()
        async with open_background_nursery() as nursery:
            for number in range(1, 8):
                key = core.key if number == 1 else None
                nursery.start_soon(connect, node, number, key, gone)
            with trio.move_on_after(20 if is_crowded else 3):
                while numbers != left or not is_crowded:
                    numbers.add(await arrivals.receive())
            assert numbers == left
            assert any(peer.remote_public_key for peer in core.peers)


async def test_strangers_do_not_take_all_places_by_replicating_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: who held one channel of a core was never sent away."""
    monkeypatch.setattr("node.strangers.MOST", 2)
    monkeypatch.setattr("node.mesh.serve.ADMISSION_SECONDS", 0.5)
    config = load_config({"data": tmp_path, "discovery": "off", **QUIET}, {})
    async with open_node(config) as node, open_background_nursery() as nursery:
        core = await node.store.get(name="a core of people")
        await core.append([b"one"])
        gone, arrivals = trio.open_memory_channel[int](10)
        with trio.fail_after(20):
            for number in (1, 2):
                nursery.start_soon(connect, node, number, core.key, gone)
            while len(core.replication.peers) < 2:
                await core.replication.activity.park()
            nursery.start_soon(connect, node, 3, core.key, gone)
            assert await arrivals.receive() == 3
            assert len(core.replication.peers) == 2


async def test_who_shows_nothing_makes_room_but_a_member_that_was_here_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: who came with another key each ten seconds kept all places taken."""
    monkeypatch.setattr("node.strangers.MOST_UNKNOWN", 2)
    monkeypatch.setattr("node.strangers.CROWD", 2)
    config = load_config({"data": tmp_path, "discovery": "off", **QUIET}, {})
    member, *others = (KeyPair.from_seed(bytes((number,)) * 32) for number in range(1, 6))
    gone, arrivals = trio.open_memory_channel[KeyPair](10)

    async def say_nothing(
        node: Node, identity: KeyPair, task_status: trio.TaskStatus[None]
    ) -> None:
        assert node.addresses.mesh is not None
        host, _, port = node.addresses.mesh.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with open_connection(stream, identity, is_initiator=True) as connection:
            await connection.receive()
            task_status.started()
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                while True:
                    await connection.receive()
        await gone.send(identity)

    async with open_node(config) as node, open_background_nursery() as nursery:
        assert node.mesh is not None
        node.mesh.trust.book.note(member.public_key.hex(), "a member", "writer", 0.0)
        with trio.fail_after(5):
            for identity in (member, *others):
                await nursery.start(say_nothing, node, identity)
            assert [await arrivals.receive() for _ in range(2)] == others[:2]
        assert len(node.peers()) == 3


class NoCores:
    def open_cores(self) -> list[Core]:
        return []


async def test_a_hundred_at_once_from_one_host_are_heard_while_there_is_room() -> None:
    """So many new members, in one data center, were sent away, and came again seconds later."""
    connections = lost = 0
    strangers = Strangers(NoCores(), lambda: connections)

    async def come() -> None:
        nonlocal connections, lost
        connections += 1
        try:
            with strangers.finding_out("192.0.2.1") as place:
                await trio.Event().wait()
            lost += place.is_lost
        finally:
            connections -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(come)
        await trio.testing.wait_all_tasks_blocked()
        assert (connections, lost) == (100, 0)
        connections += 90  # members
        nursery.start_soon(come)
        await trio.testing.wait_all_tasks_blocked()
        assert (connections - 90, lost) == (MOST_UNKNOWN, 101 - MOST_UNKNOWN)
        nursery.cancel_scope.cancel()
