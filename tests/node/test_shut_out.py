"""Who was shut out does not come back as a stranger who knows the keys of cores."""

from __future__ import annotations

from pathlib import Path

import trio

from hypercore.corestore import open_corestore
from hypercore.crypto import KeyPair
from node.config import load_config
from node.daemon import open_node
from node.running import Node
from node.verbs import MeshMembers, MeshRevoke
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery
from tests.support.authors import Author, edits, map_header

FORMER, STRANGER = KeyPair.from_seed(b"f" * 32), KeyPair.from_seed(b"s" * 32)


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
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    config = load_config({"data": tmp_path, "discovery": "off", **quiet}, {})
    async with open_node(config) as node:
        ann = Author("ann")
        content = ann.content(map_header("m"), edits(2), as_agent=True)
        await node.host.receive_content("test", [content])
        other = await node.store.get(name="a core of people")
        await other.append(b"for everybody who has its key")
        assert node.key is not None
        assert await can_replicate(node, node.key, STRANGER, 20)
        revoke = MeshRevoke(FORMER.public_key.hex(), "left")
        (revoked,) = [result async for result in node.perform(revoke)]
        assert revoked["member"] == FORMER.public_key.hex()
        rows = [row async for row in node.perform(MeshMembers())]
        assert [bool(row["banned"]) for row in rows] == [False, True]
        for identity, is_served in ((STRANGER, True), (FORMER, False)):
            assert not await can_replicate(node, node.key, identity, 1)
            seconds = 20 if is_served else 1
            assert await can_replicate(node, other.key, identity, seconds) is is_served
        await other.close()
