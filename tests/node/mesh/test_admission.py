"""What happens to, or because of, a member between its welcome and its place in the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from hypercore.core import Core
from node.mesh.exchange import Traffic
from node.mesh.replicas import ReplicaPolicy
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MESH, connected, open_mesh_node, wait_until


@pytest.mark.parametrize("already", [0, 1])
async def test_what_a_client_writes_while_a_full_replica_is_let_in_is_told_to_it(
    already: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It said what it wants to hear of, and is in the table only once its core is open."""
    early, late = (Author(1).value(name) for name in ("early", "late"))
    async with (
        open_mesh_node(1) as writer,
        open_mesh_node(2, policy=ReplicaPolicy(everything=True)) as replica,
    ):
        get_core = writer.cores.get
        if already:
            await writer.host.receive_content("test", [early.edit("[]", with_header=True)])

        async def write_then(*, key: bytes, encryption_key: bytes | None = None) -> Core:
            await trio.sleep(0.5)
            await writer.host.receive_content("test", [late.edit("[]", with_header=True)])
            await trio.sleep(0.5)
            return await get_core(key=key, encryption_key=encryption_key)

        monkeypatch.setattr(writer.cores, "get", write_then)
        async with connected(writer, replica):
            await replica.wait_counts({late.id: {late.session_id: 1}}, 20)


@pytest.mark.parametrize("secret", [b"secret", b"another"])
async def test_a_connection_is_welcome_when_each_has_let_the_other_in(secret: bytes) -> None:
    is_member, welcomes = secret == MESH.secret, 0

    def note_welcome() -> None:
        nonlocal welcomes
        welcomes += 1

    traffic = Traffic(True, lambda: 0, trio.current_time, lambda: False, note_welcome)
    async with (
        open_mesh_node(1, replace(MESH, secret=secret)) as left,
        open_mesh_node(2) as right,
        connected(left, right, admitted=is_member, traffic=traffic),
    ):
        await wait_until(lambda: bool(right.mesh.members or right.goodbyes))
        assert welcomes == is_member
