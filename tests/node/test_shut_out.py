"""Who was shut out does not come back as a stranger who knows the keys of cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hypercore.corestore import open_corestore
from hypercore.crypto import KeyPair
from node.config import Config, load_config
from node.daemon import open_node
from node.running import Node
from node.verbs import MeshInvite, MeshMembers, MeshRevoke, Result, Verb
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.nodes import wait_until
from tests.support.authors import Author, edits, map_header

FORMER, STRANGER = KeyPair.from_seed(b"f" * 32), KeyPair.from_seed(b"s" * 32)


def config(data: Path, **flags: object) -> Config:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    return load_config({"data": data, "discovery": "off", **quiet, **flags}, {})


async def perform(node: Node, verb: Verb) -> list[Result]:
    return [result async for result in node.perform(verb)]


async def can_replicate(node: Node, key: bytes, identity: KeyPair, seconds: float) -> bool:
    """Whether somebody that speaks nothing but hypercore is served this core in that time."""
    assert node.addresses.mesh is not None
    host, _, port = node.addresses.mesh.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with (
        open_corestore(None) as store,
        open_connection(stream, identity, is_initiator=True) as connection,
        open_mux(connection) as mux,
        open_background_nursery() as nursery,
    ):
        core = await store.get(key=key)

        async def replicate() -> None:
            await store.replicate(mux)
            ended.cancel()

        with trio.move_on_after(seconds) as ended:
            nursery.start_soon(replicate)
            await core.get(0)
            return True
        return False


async def test_data_cores_are_for_members_once_one_was_shut_out(tmp_path: Path) -> None:
    async with open_node(config(tmp_path)) as node:
        ann = Author("ann")
        content = ann.content(map_header("m"), edits(2), as_agent=True)
        await node.host.receive_content("test", [content])
        other = await node.store.get(name="a core of people")
        await other.append(b"for everybody who has its key")
        assert node.key is not None
        assert await can_replicate(node, node.key, STRANGER, 20)
        (revoked,) = await perform(node, MeshRevoke(FORMER.public_key.hex(), "left"))
        assert revoked["member"] == FORMER.public_key.hex()
        rows = await perform(node, MeshMembers())
        assert [bool(row["banned"]) for row in rows] == [False, True]
        for identity, is_served in ((STRANGER, True), (FORMER, False)):
            assert not await can_replicate(node, node.key, identity, 1)
            seconds = 20 if is_served else 1
            assert await can_replicate(node, other.key, identity, seconds) is is_served
        await other.close()


@pytest.mark.parametrize("identity", [STRANGER, FORMER])
async def test_who_is_here_as_a_stranger_goes_when_somebody_is_shut_out(
    identity: KeyPair, tmp_path: Path
) -> None:
    """Found in review: whoever replicated a data core before read on, also with its own key."""
    ann = Author("ann")
    async with open_node(config(tmp_path)) as node:
        assert node.key is not None
        assert node.addresses.mesh is not None
        content = ann.content(map_header("m"), edits(2), as_agent=True)
        await node.host.receive_content("test", [content])
        host, _, port = node.addresses.mesh.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with (
            open_corestore(None) as store,
            open_connection(stream, identity, is_initiator=True) as connection,
            open_mux(connection) as mux,
            open_background_nursery() as nursery,
        ):
            core = await store.get(key=node.key)
            nursery.start_soon(store.replicate, mux)
            with trio.fail_after(20):
                await core.get(0)
                assert not mux.is_ended
                await perform(node, MeshRevoke(FORMER.public_key.hex(), "left"))
                await mux.wait_ended()


async def test_clients_that_were_refused_meanwhile_come_again_once_their_node_is_let_in(
    tmp_path: Path,
) -> None:
    """Found by seed 2026: an admin becomes a writer by being revoked and invited, and between
    these what clients send is refused; they do not send it again before they come again."""
    ann, header = Author("ann"), map_header("m")
    async with open_node(config(tmp_path / "a")) as founder:
        ticket = founder.ticket()
        async with open_node(config(tmp_path / "b", join=[ticket])) as member:
            with trio.fail_after(20), member.host.client("test") as client:
                for other in (founder, member):
                    assert other.mesh is not None
                    while not other.mesh.members:
                        await other.mesh.wait_members_changed()
                gate, id = member.access.gate, member.id.hex()
                await perform(founder, MeshRevoke(id, "changed"))
                await wait_until(lambda: gate.is_read_only)
                await client.receive([ann.content(header, edits(2), as_agent=True)])
                assert client.end_reason is None
                await perform(founder, MeshInvite("writer", member=id))
                await wait_until(lambda: "now it may write" in (client.end_reason or ""))
                assert not gate.is_read_only
