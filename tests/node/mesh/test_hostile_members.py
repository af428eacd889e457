"""Liars and spammers that know the secret: each goes within 5 s, and does not come back at once.

What others have left meanwhile is measured by `python -m tests.node.hostile_members_campaign`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.mesh.exchange import measure_traffic
from node.mesh.replicas import ReplicaPolicy
from node.mesh.serve import KeptOut, serve_member
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MESH, MeshNode, connected, open_mesh_node
from tests.support.hostile_members import ACCEPTED, be_member

EVERYTHING = ReplicaPolicy(everything=True)
LATENCY_SECONDS = 0.001
LIAR = KeyPair.from_seed(b"l" * 32)

QUICK = {
    "claims that are never delivered": "its log cannot be read",
    "claims, and then nothing": "its log cannot be read",
    "wrong proofs": "core",
    "old heads": "its log cannot be read",
    "heads of anything": "its log cannot be read",
    "interest": "say nothing",
    "interest that turns": "what it follows",
    "messages that nobody knows": "nobody knows",
    "false evidence": "false evidence",
    "lengths of our own log": "of our log, which we did not sign",
}
"""By what is done, what is said about it. Floods take seconds of work, and never let a clock jump
that waits for everybody to be idle: the campaign has them."""

STALLS = {"claims, and then nothing", "old heads", "heads of anything"}
"""A line that carries nothing looks like that, too: these may come back once."""


async def attack(node: MeshNode, kind: str) -> None:
    near, far = trio.testing.memory_stream_pair()
    far.send_stream.send_all_hook = partial(_deliver_later, far.send_stream.send_all_hook)
    async with open_background_nursery() as nursery:
        nursery.start_soon(_serve, node, near)
        async with (
            open_connection(far, LIAR, is_initiator=True) as connection,
            open_mux(connection, accept=ACCEPTED) as mux,
        ):
            with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                await be_member(mux, MESH, kind)


async def _deliver_later(deliver: Callable[[], Awaitable[object]] | None) -> None:
    """What is said after something else comes after it: a line of no latency hides that."""
    assert deliver is not None
    await trio.sleep(LATENCY_SECONDS)
    await deliver()


async def _serve(node: MeshNode, stream: trio.abc.Stream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async with (
            open_connection(stream, node.identity, is_initiator=False) as connection,
            open_mux(connection, accept=ACCEPTED) as mux,
        ):
            with suppress(KeptOut):
                await serve_member(node.mesh, mux, node.cores, measure_traffic(connection))


@pytest.mark.parametrize("kind", list(QUICK))
async def test_it_goes_with_a_reason_and_does_not_come_back_at_once(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    value = Author(1).value("shared")
    async with open_mesh_node(1, policy=EVERYTHING) as node, open_mesh_node(2) as friend:
        await friend.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(node, friend), open_background_nursery() as liars:
            await node.mesh.recall.wait_settled()
            penalties = node.mesh.penalties
            for times in (1, 2) if kind in STALLS else (1,):
                liars.start_soon(attack, node, kind)
                with trio.fail_after(5):
                    while penalties.total < times:
                        await node.mesh.wait_members_changed()
                (penalty,) = penalties.recent(trio.current_time())
                assert QUICK[kind] in penalty.reason
            assert len(penalties.current(trio.current_time())) == 1
            with trio.fail_after(5):
                await attack(node, kind)
            assert penalties.turned_away == 1
            assert list(node.mesh.members) == [friend.identity.public_key]
            # The others have what they had.
            assert await node.host.load(value.id) is not None
