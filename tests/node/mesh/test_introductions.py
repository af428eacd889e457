"""What a member says of data cores, its own and those it keeps, costs others next to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.mesh.member import MAX_INTRODUCTIONS
from node.mesh.member_book import MemberBook
from node.mesh.membership import Membership
from node.mesh.messages import PROTOCOL, MessageType, Welcome
from node.mesh.ticket import Grant, Role
from node.mesh.trust import Trust
from node.mesh.trust_messages import Introduction, Kept, Records
from swarm.io.channel import Channel
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until
from tests.node.mesh.samples import STRANGER
from tests.node.mesh.test_safekeeping import ADMIN, founded, joined
from tests.node.mesh.test_serve import RAW, prove, raw_connection

CORE = b"k" * 32


@asynccontextmanager
async def raw_writer(node: MeshNode, mesh: Membership) -> AsyncIterator[Channel]:
    """A writer of an encrypted mesh whose messages the test writes."""
    shown = mesh.invite(ADMIN).grant
    async with raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, mesh)
        channel.send(MessageType.RECORDS, Records(bytes(32), shown=shown).encode())
        channel.send(MessageType.WELCOME, Welcome(CORE, 0, "raw", "", shown, ()).encode())
        await wait_until(lambda: RAW.public_key in node.mesh.members)
        yield channel


async def test_who_introduces_itself_again_and_again_is_told_of_once() -> None:
    """Found in review: with 50,000 such words a writer had its keeper flood all others."""
    mesh = founded()
    async with (
        open_mesh_node(2, joined(mesh, Role.BLIND)) as keeper,
        raw_writer(keeper, mesh) as channel,
    ):
        for batch in range(3):
            names = (f"{batch} {number}" for number in range(500))
            about = [Introduction.issue(mesh.key, RAW, CORE, name, None) for name in names]
            channel.send(MessageType.KEPT, Kept(tuple(about)).encode())
            await trio.testing.wait_all_tasks_blocked(0.01)
        met = keeper.mesh.trust.book.get(RAW.public_key.hex())
        assert met is not None
        kept = Introduction.decode_bytes(bytes.fromhex(met.introduction))
        assert kept.name == "0 0"


async def test_others_have_their_turn_while_introductions_of_nobody_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And who makes them pays for it: 12,000 took 2 s, 0.3 s in one piece."""
    mesh, turn = founded(), 0
    judged: Counter[int] = Counter()
    judge = Trust.judge

    def count_judged(trust: Trust, id: bytes, grant: Grant | None) -> Role | None:
        judged[turn] += 1
        return judge(trust, id, grant)

    monkeypatch.setattr(Trust, "judge", count_judged)
    async with open_mesh_node(1, mesh) as node, raw_writer(node, mesh) as channel:
        member = node.mesh.members[RAW.public_key]
        ids = [number.to_bytes(32, "big") for number in range(1000)]
        nobody = Grant.issue(mesh.key, STRANGER, Role.WRITER)
        about = [Introduction(id, CORE, "", nobody, bytes(64)) for id in ids]
        judged.clear()
        seconds = count()
        member.stopwatch = lambda: next(seconds) / 1000
        channel.send(MessageType.KEPT, Kept(tuple(about)).encode())
        with trio.fail_after(10):
            while not member.conduct.effort.pause_seconds(trio.current_time()):
                turn += 1
                await trio.lowlevel.checkpoint()
        assert 0 < max(judged.values()) < 10


@pytest.mark.parametrize("role", [Role.BLIND, Role.READER])
async def test_who_names_cores_that_nobody_has_heard_of_pays_for_their_opening(role: Role) -> None:
    """Found in review: 2,000 took 1.6 s, and were opened anew with each connection."""
    mesh, writer = founded(), KeyPair.from_seed(b"w" * 32)
    shown = mesh.invite(ADMIN).grant
    async with open_mesh_node(2, joined(mesh, role)) as node, raw_writer(node, mesh) as channel:
        member = node.mesh.members[RAW.public_key]
        seconds = count()
        member.stopwatch = lambda: next(seconds) / 1000
        key = node.mesh.membership.data_key
        known = await node.cores.get(name="one that has blocks", encryption_key=key)
        await known.append([b"block"])

        effort = member.conduct.effort
        while (now := trio.current_time()) and not effort.pause_seconds(now):
            effort.spend(0.001, now)

        async def price(key: bytes) -> float:
            """Seconds that the member has to wait for naming it."""
            before = effort.pause_seconds(now)
            about = Introduction.issue(mesh.key, writer, key, "", shown)
            channel.send(MessageType.KEPT, Kept((about,)).encode())
            await wait_until(lambda: effort.pause_seconds(now) > before)
            await trio.testing.wait_all_tasks_blocked(0.01)
            return effort.pause_seconds(now) - before

        assert await price(b"x" * 32) > 1.2 * await price(known.key) > 0


async def test_a_keeper_names_no_more_writers_than_others_listen_to() -> None:
    """Found in review: with more of them every reader hung up on it, again and again."""
    mesh, book = founded(), MemberBook()
    for number in range(MAX_INTRODUCTIONS + 100):
        writer = KeyPair.from_seed(number.to_bytes(32, "big"))
        about = Introduction.issue(mesh.key, writer, number.to_bytes(32, "big"), "", None)
        book.introduce(about, float(number))
    async with (
        open_mesh_node(1, mesh) as owner,
        open_mesh_node(2, joined(mesh, Role.BLIND), book=book) as keeper,
        connected(owner, keeper),
    ):
        member = owner.mesh.members[keeper.identity.public_key]
        await wait_until(lambda: member.gossip.is_heard or member.close_reason is not None)
        assert member.close_reason is None
