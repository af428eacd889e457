"""Liars and spammers that know the secret: each goes within 5 s, and does not come back at once.

What others have left meanwhile is measured by `python -m tests.node.hostile_members_campaign`.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.mesh.mesh import Mesh
from node.mesh.replicas import ReplicaPolicy
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MESH, MeshNode, connected, open_mesh_node, serve_end, wait_until
from tests.support.hostile_members import ACCEPTED, be_member

EVERYTHING = ReplicaPolicy(everything=True)
LIAR = KeyPair.from_seed(b"l" * 32)

UNREADABLE = "its log cannot be read"
QUICK = {
    "claims that are never delivered": UNREADABLE,
    "wrong proofs": "core",
    "old heads": UNREADABLE,
    "messages that nobody knows": "nobody knows",
    "false evidence": "false evidence",
    "lengths of our own log": "one length of our log after the other",
}
"""By what is done, what is said about it. Floods take seconds of work, and never let a clock jump
that waits for everybody to be idle: the campaign has them."""


async def attack(node: MeshNode, kind: str) -> None:
    near, far = trio.testing.memory_stream_pair()
    async with open_background_nursery() as nursery:
        nursery.start_soon(_serve, node, near)
        async with (
            open_connection(far, LIAR, is_initiator=True) as connection,
            open_mux(connection, accept=ACCEPTED) as mux,
        ):
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                await be_member(mux, MESH, kind)


async def _serve(node: MeshNode, stream: trio.abc.Stream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await serve_end(node, stream, is_initiator=False)


@pytest.mark.parametrize("kind", list(QUICK))
async def test_it_goes_with_a_reason_and_does_not_come_back_at_once(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    value = Author(1).value("shared")
    async with open_mesh_node(1, policy=EVERYTHING) as node, open_mesh_node(2) as friend:
        await friend.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(node, friend), open_background_nursery() as liars:
            await node.mesh.recall.wait_settled()
            if QUICK[kind] == UNREADABLE:
                # A line that carries nothing looks like that, too: it may come back once.
                liars.start_soon(attack, node, kind)
                with trio.fail_after(5):
                    while node.mesh.penalties.total == 0:
                        await node.mesh.wait_members_changed()
                assert reason(node.mesh) is None
            liars.start_soon(attack, node, kind)
            with trio.fail_after(5):
                while (penalty := reason(node.mesh)) is None:
                    await node.mesh.wait_members_changed()
            assert QUICK[kind] in penalty
            liars.start_soon(attack, node, kind)
            await wait_until(lambda: node.mesh.penalties.turned_away == 1)
            assert list(node.mesh.members) == [friend.identity.public_key]
            # The others have what they had.
            assert await node.host.load(value.id) is not None


def reason(mesh: Mesh) -> str | None:
    """Why the only one that was sent away was."""
    penalties = mesh.penalties.current(trio.current_time())
    return penalties[0].reason if len(penalties) == 1 else None
