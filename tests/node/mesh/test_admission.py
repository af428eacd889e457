"""What happens to, or because of, a member between its welcome and its place in the table."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio
import trio.testing

from hypercore.core import Core
from node.mesh.exchange import Traffic
from node.mesh.ledger import Ledger
from node.mesh.membership import Membership
from node.mesh.messages import PROTOCOL, message_type
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Grant, Revocation, Role
from node.mesh.trust_messages import Records
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MESH, connected, open_mesh_node, wait_until
from tests.node.mesh.samples import ADMIN
from tests.node.mesh.test_serve import RAW, prove, raw_connection


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


async def test_what_was_known_when_a_member_came_is_not_held_for_good() -> None:
    """Found in review: of a large mesh that is some megabytes for each of them."""
    mesh = Membership.found("bees", ADMIN.public_key)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(open_mesh_node(1, mesh))
        for number in range(2, 10):
            guest = Membership.join(mesh.invite(ADMIN))
            node = await stack.enter_async_context(open_mesh_node(number, guest))
            await stack.enter_async_context(connected(admin, node))
        assert len(admin.mesh.membership.grants) == 8, "one for each, signed as it came"
        await trio.testing.wait_all_tasks_blocked(0.05)
        gc.collect()
        ledgers = [item for item in gc.get_objects() if isinstance(item, Ledger)]
        assert not {len(ledger.grants) for ledger in ledgers} & set(range(1, 7))


async def test_who_floods_before_its_welcome_is_sent_away_like_a_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has a ticket, and could stay what it is for ten seconds, again and again."""
    monkeypatch.setattr("node.mesh.conduct.MAX_IDLE_WORDS", 1000)
    mesh = Membership.found("bees", ADMIN.public_key)
    shown = Grant.issue(mesh.key, ADMIN, Role.WRITER)
    rubbish = [Revocation.issue(mesh.key, RAW, bytes((n,)) * 32, n) for n in range(100)]
    records = Records(bytes(32), (), tuple(rubbish), shown)
    async with open_mesh_node(1, mesh) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, mesh)
        with trio.fail_after(5):
            while not node.goodbyes:
                channel.send(message_type(records), records.encode())
                await trio.testing.wait_all_tasks_blocked()
        assert node.goodbyes == ["words about members without end"]
        assert node.mesh.penalties.keeps_out(RAW.public_key, trio.current_time()) is not None
