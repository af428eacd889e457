"""Members that were never told of one another, and what they believe of who tells them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from node.config import Config
from node.daemon import open_node
from node.introducing import MAX_WORDS, Introducer
from node.mesh.fields import pack_fields
from node.mesh.hearsay import Hearsay
from node.mesh.hearsay_messages import Neighbors
from node.mesh.member_book import MemberBook
from node.mesh.whereabouts import PROTOCOL, decode, encode
from node.running import Node
from tests.node.mesh.nodes import wait_until
from tests.node.test_daemon import config, mesh_of, ticket_of
from tests.support.memory_mux import MemoryChannel, memory_mux_pair

US, ANN, BOB, EVE = (bytes((number,)) * 32 for number in range(4))


async def wait_members(node: Node, *others: Node) -> None:
    mesh = mesh_of(node)
    while not {other.id for other in others} <= set(mesh.members):
        await mesh.wait_members_changed()


async def run_node(config: Config, task_status: trio.TaskStatus[Node]) -> None:
    async with open_node(config) as node:
        task_status.started(node)
        await trio.sleep_forever()


async def test_who_came_with_one_ticket_meet_and_do_without_who_gave_it(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as members:
            async with trio.open_nursery() as founder:
                first: Node = await founder.start(run_node, config(tmp_path / "first"))
                join = [ticket_of(first)]
                second, third = [
                    await members.start(run_node, config(tmp_path / name, join=join))
                    for name in ("second", "third")
                ]
                await wait_members(second, third, first)
                await wait_members(third, second, first)
                founder.cancel_scope.cancel()
            mesh = mesh_of(second)
            while first.id in mesh.members:
                await mesh.wait_members_changed()
            assert set(mesh.members) == {third.id}
            met = mesh.trust.book.get(third.id.hex())
            assert met is not None
            assert met.address, "it is looked for there after a restart"
            members.cancel_scope.cancel()


async def test_a_member_that_moved_is_found_where_it_said_last(tmp_path: Path) -> None:
    """Each listens somewhere else after each start."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as earlier:
                async with open_node(config(tmp_path / "first")) as first:
                    join = [ticket_of(first)]
                    second: Node = await earlier.start(
                        run_node, config(tmp_path / "second", join=join)
                    )
                    await wait_members(first, second)
                    await wait_members(second, first)
                first = await nursery.start(run_node, config(tmp_path / "first"))
                await wait_members(second, first)
                book = mesh_of(second).trust.book
                await wait_until(
                    lambda: (first.id.hex(), first.addresses.mesh) in book.addresses(9)
                )
                earlier.cancel_scope.cancel()
            async with open_node(config(tmp_path / "second", join=join)) as second:
                await wait_members(second, first)
            nursery.cancel_scope.cancel()


@dataclass(eq=False)
class Stranger:
    """A member, as far as an introducer is concerned."""

    id: bytes
    hearsay: Hearsay = field(default_factory=Hearsay)
    fault: str = ""

    @property
    def is_expelled(self) -> bool:
        return bool(self.fault)

    def expel(self, fault: str) -> None:
        self.fault = fault


class Party:
    """An introducer of ours, whom it dials, and members that speak to it by hand."""

    def __init__(self) -> None:
        self.here = {ANN}
        self.dialed: list[tuple[tuple[str, int] | str, bytes]] = []
        self.introducer = Introducer(
            *(US, lambda: ["10.0.0.9:1"], MemberBook()),
            *(lambda id: id in self.here, lambda id: id == EVE),
        )
        self.introducer.use(self)

    def suggest_peer(self, where: tuple[str, int] | str, public_key: bytes) -> None:
        if isinstance(where, str) and not where.startswith("wss://"):
            raise ValueError(where)
        self.dialed.append((where, public_key))

    async def meet(self, nursery: trio.Nursery, member: Stranger) -> MemoryChannel:
        near, far = memory_mux_pair()
        near.expected.add((PROTOCOL, None))
        far.expected.add((PROTOCOL, None))
        nursery.start_soon(self.introducer.serve, "8.8.8.8", member, near)
        channel = await far.open_channel(PROTOCOL, None)
        ((_, payload),) = await channel.receive()
        assert decode(payload) == {US: ("10.0.0.9:1",)}
        return channel


def said(channel: MemoryChannel) -> list[tuple[int, bytes]]:
    """What the introducer at the other end said after its greeting."""
    assert channel.other is not None
    return channel.other.sent[1:]


async def test_it_dials_whom_it_lacks_where_nobody_else_is(autojump_clock: trio.abc.Clock) -> None:
    party, ann = Party(), Stranger(ANN)
    async with trio.open_nursery() as nursery:
        channel = await party.meet(nursery, ann)
        claims = {
            BOB: ("10.0.0.2:1", "wss://bob.example/", "ftp://no", "nonsense"),
            EVE: ("10.0.0.3:1",),
            US: ("10.0.0.4:1",),
        }
        channel.send(0, encode(claims))
        await trio.testing.wait_all_tasks_blocked()
        assert party.dialed == [(("10.0.0.2", 1), BOB), ("wss://bob.example/", BOB)]
        party.here.add(BOB)
        channel.send(0, encode(claims))
        await trio.testing.wait_all_tasks_blocked()
        assert len(party.dialed) == 2, "bob is here"
        assert not ann.fault
        channel.close()


async def test_others_have_their_turn_while_it_hears_of_many() -> None:
    """Found in review: 4,000 members, each at eight places, stopped a node for 2.7 s."""
    party, ann = Party(), Stranger(ANN)
    async with trio.open_nursery() as nursery:
        channel = await party.meet(nursery, ann)
        places = tuple(f"10.0.0.2:{port}" for port in range(1, 9))
        channel.send(0, encode({bytes(30) + bytes((9, number)): places for number in range(200)}))
        most = dialed = 0
        with trio.fail_after(10):
            while dialed < 200 * len(places):
                await trio.lowlevel.checkpoint()
                most = max(most, len(party.dialed) - dialed)
                dialed = len(party.dialed)
        assert most <= 2 * 32 * len(places)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fault", "is_back", "id", "is_dialed"),
    [
        ("", False, BOB, True),
        ("it lied", False, BOB, False),
        ("", True, BOB, False),
        ("", False, EVE, False),
    ],
)
async def test_whom_it_loses_it_dials(
    fault: str, is_back: bool, id: bytes, is_dialed: bool
) -> None:
    """Found by seed 316922: the other end may take the connection for alive for seconds."""
    party, bob = Party(), Stranger(id)
    async with trio.open_nursery() as nursery:
        channel = await party.meet(nursery, bob)
        channel.send(0, encode({id: ("10.0.0.2:1",)}))
        await trio.testing.wait_all_tasks_blocked()
        assert not party.dialed
        bob.fault = fault
        if is_back:
            again = await party.meet(nursery, Stranger(id))
            again.send(0, encode({id: ("10.0.0.2:1",)}))
            await trio.testing.wait_all_tasks_blocked()
        channel.close()
        await trio.testing.wait_all_tasks_blocked()
        assert ((("10.0.0.2", 1), id) in party.dialed) is is_dialed
        nursery.cancel_scope.cancel()


async def test_it_tells_of_those_alone_who_said_it_themselves_and_are_not_known(
    autojump_clock: trio.abc.Clock,
) -> None:
    party, ann, bob = Party(), Stranger(ANN), Stranger(BOB)
    dan = Stranger(b"\x04" * 32)
    dan.hearsay.receive(Neighbors((BOB,), ()))
    async with trio.open_nursery() as nursery:
        to_ann, to_dan = await party.meet(nursery, ann), await party.meet(nursery, dan)
        to_ann.send(0, encode({b"\x09" * 32: ("10.0.0.8:1",)}))
        to_bob = await party.meet(nursery, bob)
        to_bob.send(0, encode({BOB: ("10.0.0.2:1",)}))
        await trio.sleep(5)
        ((_, payload),) = await to_ann.receive()
        assert decode(payload) == {BOB: ("10.0.0.2:1", "8.8.8.8:1")}
        assert [said(channel) for channel in (to_dan, to_bob)] == [[], []]
        for channel in (to_ann, to_bob, to_dan):
            channel.close()


@pytest.mark.parametrize("is_flood", [False, True])
async def test_who_sends_rubbish_or_no_end_of_it_goes(is_flood: bool) -> None:
    party, ann = Party(), Stranger(ANN)
    async with trio.open_nursery() as nursery:
        channel = await party.meet(nursery, ann)
        for _ in range(MAX_WORDS + 1 if is_flood else 1):
            channel.send(0, encode({}) if is_flood else pack_fields([[5, []]]))
    assert ("more than 4096" if is_flood else "malformed") in ann.fault


async def test_who_tells_of_those_that_come_and_go_for_months_stays(
    autojump_clock: trio.abc.Clock,
) -> None:
    party, ann = Party(), Stranger(ANN)
    async with trio.open_nursery() as nursery:
        channel = await party.meet(nursery, ann)
        for minute in range(MAX_WORDS):
            channel.send(0, encode({BOB: (f"10.0.0.2:{1 + minute}",)}))
            await trio.sleep(60)
        assert not ann.fault
        channel.close()
