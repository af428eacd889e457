"""A member that says that a core is its own which cannot be."""

from __future__ import annotations

from node.mesh.messages import PROTOCOL, MessageType, Welcome
from node.mesh.trust_messages import Records
from tests.node.mesh.nodes import open_mesh_node, wait_until
from tests.node.mesh.test_safekeeping import ADMIN, founded
from tests.node.mesh.test_serve import prove, raw_connection


async def test_a_core_that_cannot_have_been_encrypted_ends_its_member_alone() -> None:
    """A member whose core began with three bytes ended every node that it met."""
    mesh = founded()
    shown = mesh.invite(ADMIN).grant
    async with open_mesh_node(1, mesh) as node, raw_connection(node) as mux:
        short = await node.cores.get(name="short")
        await short.append(b"abc")
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, mesh)
        channel.send(MessageType.RECORDS, Records(bytes(32), shown=shown).encode())
        channel.send(MessageType.WELCOME, Welcome(short.key, 1, "raw", "", shown, ()).encode())
        await wait_until(lambda: bool(node.goodbyes))
        assert "block 0 was not encrypted with this key" in node.goodbyes[0]
