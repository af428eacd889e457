"""Members of meshes with admins: what they are told, and who is let in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.crypto import KeyPair
from node.errors import ConfigError
from node.mesh.member import Member
from node.mesh.member_book import MemberBook, load_book
from node.mesh.membership import Membership, NotAllowed
from node.mesh.messages import (
    PROTOCOL,
    VERSION,
    Hello,
    MessageType,
    Welcome,
    decode_message,
    message_type,
)
from node.mesh.ticket import Grant, Revocation, Role, Ticket
from node.mesh.trust_messages import Farewell, Held, Records, split_records
from swarm.io.channel import Channel
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until
from tests.node.mesh.test_serve import RAW, prove, raw_connection, wait_closed

ADMIN, ANN, BOB, CARL = (KeyPair.from_seed(bytes((number,)) * 32) for number in range(1, 5))


def founded() -> Membership:
    return Membership.found("bees", ADMIN.public_key, lambda size: b"s" * size)


def role(node: MeshNode, member: KeyPair) -> Role | None:
    return node.mesh.trust.judge(member.public_key, None)


async def test_a_revocation_ends_connections_everywhere_and_says_why() -> None:
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN))
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, guest) as ann,
        open_mesh_node(3, guest) as bob,
    ):
        async with connected(admin, ann), connected(admin, bob), connected(ann, bob):
            await wait_until(lambda: len(ann.mesh.membership.grants) == 2)
            revocation = founder.revoke(
                ADMIN, bob.identity.public_key, "lost laptop", unix_seconds=1
            )
            started = trio.current_time()
            admin.mesh.trust.take([revocation])
            await wait_until(lambda: not bob.mesh.members)
            assert trio.current_time() - started < 1
            assert set(ann.mesh.members) == {ADMIN.public_key}
            assert set(admin.mesh.members) == {ANN.public_key}
        for node in (admin, ann):
            assert "an admin shut it out: lost laptop" in node.goodbyes
        assert "it said farewell: an admin shut it out: lost laptop" in bob.goodbyes
        assert bob.mesh.trust.verdict.role is None
        assert bob.mesh.trust.trouble == "an admin shut it out: lost laptop"


async def test_who_was_away_hears_of_it_from_whom_it_meets_first() -> None:
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN))
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, guest) as ann,
        open_mesh_node(3, guest) as bob,
        open_mesh_node(4, guest) as carl,
    ):
        async with connected(admin, ann), connected(admin, bob):
            await wait_until(lambda: len(bob.mesh.membership.grants) == 2)
        revocation = founder.revoke(ADMIN, BOB.public_key, unix_seconds=1)
        admin.mesh.trust.take([revocation])
        async with connected(admin, ann):
            await wait_until(lambda: role(ann, BOB) is None)
        async with connected(carl, bob):  # it does not know yet
            async with connected(carl, ann):
                await wait_until(lambda: BOB.public_key not in carl.mesh.members)
            assert revocation in carl.mesh.membership.revocations
        # And the one shut out is not let in by who knows.
        async with connected(carl, bob, admitted=False):
            await wait_until(lambda: bob.mesh.trust.trouble != "")


async def test_who_is_being_let_in_hears_of_what_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by seed 902948: between our introduction and its welcome it is no member yet."""
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN))
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, guest) as ann,
        open_mesh_node(3, guest) as bob,
        connected(admin, bob),
        connected(ann, bob),
    ):
        trust = admin.mesh.trust
        introduce = trust.introduction
        revocation = founder.revoke(ADMIN, BOB.public_key, unix_seconds=1)

        def revoke_then(member: Member) -> list[Records]:
            introduction = introduce(member)
            trust.take([revocation])
            assert member.id not in admin.mesh.members
            return introduction

        monkeypatch.setattr(trust, "introduction", revoke_then)
        async with connected(ann, admin):
            await wait_until(lambda: BOB.public_key not in ann.mesh.members)


async def test_who_is_being_let_in_is_what_it_was_made_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its welcome and its place in the table its data core is opened."""
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN, role=Role.READER))
    grant = founder.invite(ADMIN, member=ANN.public_key).grant
    assert grant is not None
    async with open_mesh_node(1, founder) as admin, open_mesh_node(2, guest) as ann:
        get_core = admin.cores.get

        async def grant_then(*, key: bytes, encryption_key: bytes | None = None) -> Core:
            admin.mesh.trust.take([grant])
            return await get_core(key=key, encryption_key=encryption_key)

        monkeypatch.setattr(admin.cores, "get", grant_then)
        async with connected(admin, ann):
            assert admin.mesh.members[ANN.public_key].role is Role.WRITER
            await wait_until(lambda: ann.mesh.trust.may_write)


async def test_a_member_is_let_in_again_by_a_grant_that_names_the_revocation() -> None:
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN))
    async with open_mesh_node(1, founder) as admin, open_mesh_node(2, guest) as ann:
        async with connected(admin, ann):
            admin.mesh.trust.take([founder.revoke(ADMIN, ANN.public_key, unix_seconds=1)])
            await wait_until(lambda: not ann.mesh.members)
        back = admin.mesh.membership.invite(ADMIN, member=ANN.public_key, role=Role.READER).grant
        assert back is not None
        admin.mesh.trust.take([back])
        async with connected(admin, ann):
            assert admin.mesh.members[ANN.public_key].role is Role.READER
            await wait_until(lambda: ann.mesh.trust.verdict.role is Role.READER)
            assert ann.mesh.trust.trouble == ""


async def test_an_admin_made_while_connected_is_known_to_all_and_can_invite() -> None:
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN))
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, guest) as ann,
        open_mesh_node(3, guest) as bob,
    ):
        async with connected(admin, ann), connected(admin, bob):
            grant = founder.invite(ADMIN, role=Role.ADMIN, member=ANN.public_key).grant
            assert grant is not None
            admin.mesh.trust.take([grant])
            await wait_until(lambda: ann.mesh.trust.verdict.role is Role.ADMIN)
            assert admin.mesh.members[ANN.public_key].role is Role.ADMIN
        ticket = ann.mesh.membership.invite(ANN, role=Role.READER)
        async with open_mesh_node(4, Membership.join(ticket)) as carl, connected(bob, carl):
            assert bob.mesh.members[CARL.public_key].role is Role.READER
            assert carl.mesh.members[BOB.public_key].role is Role.WRITER


async def test_who_was_away_learns_of_an_admin_from_whom_it_invited() -> None:
    founder = founded()
    made = founder.invite(ADMIN, role=Role.ADMIN, member=ANN.public_key)
    guest = Membership.join(Membership.join(made).invite(ANN))
    stale = Membership.join(founder.invite(ADMIN))
    async with open_mesh_node(3, stale) as bob, open_mesh_node(4, guest) as carl:
        assert role(bob, ANN) is None
        async with connected(bob, carl):
            assert role(bob, ANN) is Role.ADMIN


async def test_tickets_end_without_those_who_came_in_with_them() -> None:
    founder = founded()
    ticket = founder.invite(ADMIN)
    assert ticket.grant is not None
    guest = Membership.join(ticket)
    async with open_mesh_node(1, founder) as admin, open_mesh_node(2, guest) as ann:
        async with connected(admin, ann):
            await wait_until(lambda: role(ann, ANN) is Role.WRITER)
            revocation = founder.revoke(ADMIN, ticket.grant.digest, unix_seconds=1)
            admin.mesh.trust.take([revocation])
            await wait_until(lambda: bool(ann.mesh.membership.revocations))
            assert ANN.public_key in admin.mesh.members
        async with open_mesh_node(3, guest) as late, connected(admin, late, admitted=False):
            await wait_until(lambda: late.mesh.trust.trouble != "")
        [met] = [met for met in admin.mesh.trust.book if met.id == ANN.public_key.hex()]
        assert (met.name, met.role, met.ticket) == (
            "node 2",
            "writer",
            ticket.grant.digest.hex(),
        )


async def test_a_ticket_is_used_up_by_those_who_come_to_its_maker() -> None:
    founder = founded()
    ticket = founder.invite(ADMIN, role=Role.READER, uses=2)
    guest = Membership.join(Ticket.decode(ticket.encode()))
    assert guest.role_of(ANN.public_key, guest.grant, 0) is None
    with pytest.raises(NotAllowed):
        guest.invite(ANN)
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, guest) as ann,
        open_mesh_node(3, guest) as bob,
        open_mesh_node(4, guest) as carl,
    ):
        async with connected(
            ann, bob, admitted=False
        ):  # nobody here can tell how often it was used
            await wait_until(lambda: "go there first" in ann.mesh.trust.trouble)
        for _ in range(2):  # coming back is no second use
            async with connected(admin, ann), connected(admin, bob):
                assert admin.mesh.members[BOB.public_key].role is Role.READER
                await wait_until(lambda: bob.mesh.trust.verdict.role is Role.READER)
        async with connected(admin, carl, admitted=False):
            await wait_until(lambda: "used up" in carl.mesh.trust.trouble)
        async with connected(ann, bob):
            assert ann.mesh.members[BOB.public_key].role is Role.READER
        # The next ticket of the kind is another one.
        again = admin.mesh.membership.invite(ADMIN, role=Role.READER, uses=2)
        assert again.grant != ticket.grant
        async with (
            open_mesh_node(5, Membership.join(again)) as dan,
            connected(admin, dan),
        ):
            assert dan.mesh.members[ADMIN.public_key].role is Role.ADMIN


async def test_two_tickets_for_one_node_each_let_in_two_nodes() -> None:
    founder = founded()
    tickets = [founder.invite(ADMIN, uses=1) for _ in range(2)]
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, Membership.join(tickets[0])) as ann,
        open_mesh_node(3, Membership.join(tickets[1])) as bob,
        connected(admin, ann),
        connected(admin, bob),
    ):
        assert set(admin.mesh.members) == {ANN.public_key, BOB.public_key}


async def test_of_two_that_bring_the_last_use_at_once_one_is_let_in() -> None:
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN, uses=1))
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, guest) as ann,
        open_mesh_node(3, guest) as bob,
        connected(admin, ann, admitted=False),
        connected(admin, bob, admitted=False),
    ):
        guests = (ann, bob)
        await wait_until(lambda: any("used up" in node.mesh.trust.trouble for node in guests))
        await wait_until(lambda: any(node.mesh.trust.may_write for node in guests))
        assert len(admin.mesh.members) == 1
        assert len(admin.mesh.membership.grants) == 1


async def test_a_grant_that_runs_out_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def clock() -> float:
        return trio.current_time() + 1_000_000

    founder = founded()
    guest = Membership.join(founder.invite(ADMIN, expiry=int(clock()) + 30))
    async with (
        open_mesh_node(1, founder, clock=clock) as admin,
        open_mesh_node(2, guest, clock=clock) as ann,
        connected(admin, ann),
    ):
        started = trio.current_time()
        with trio.fail_after(40):
            while admin.mesh.members:
                await admin.mesh.wait_members_changed()
        assert 28 < trio.current_time() - started < 31
        await wait_until(lambda: "has expired" in ann.mesh.trust.trouble)


async def test_a_grant_that_ran_out_while_the_clock_stood_still_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A machine that slept, in a mesh where somebody comes twice a minute."""
    slept = 0

    def clock() -> float:
        return trio.current_time() + 1_000_000 + slept

    founder = founded()
    brief = Membership.join(founder.invite(ADMIN, expiry=int(clock()) + 3600))
    guest = Membership.join(founder.invite(ADMIN))
    async with (
        open_mesh_node(1, founder, clock=clock) as admin,
        open_mesh_node(2, brief, clock=clock) as ann,
        open_mesh_node(3, guest, clock=clock) as bob,
        connected(admin, ann),
    ):
        async with connected(admin, bob):
            pass  # from now on it comes with a grant of its own
        slept = 7200
        for _ in range(3):
            async with connected(admin, bob):
                await trio.sleep(30)
        assert ANN.public_key not in admin.mesh.members


@pytest.mark.parametrize("secret", [b"", b"wrong"])
async def test_strangers_see_the_same_whatever_mesh_it_is(secret: bytes) -> None:
    """Byte for byte, but for the 32 bytes of the proof, which differ on every connection."""
    seen = set()
    proofs = set()
    meshes = [
        Membership("bees", b"secret"),
        founded(),
        Membership.found("x" * 100, ADMIN.public_key, is_encrypted=True),
        Membership.open_mesh("demo"),
        Membership.join(founded().invite(ADMIN)),
        founded().taking([founded().revoke(ADMIN, RAW.public_key, "out", unix_seconds=1)]),
    ]
    for membership in meshes:
        async with open_mesh_node(1, membership) as node, raw_connection(node) as mux:
            cores = mux.remote_opens("hypercore/alpha")
            channel = await mux.open_channel(PROTOCOL, None)
            [(number, payload)] = await channel.receive()
            proofs.add(payload[-32:])
            prove(mux, channel, Membership("bees", secret + b"!"))
            rest = await wait_closed(channel)
            with trio.fail_after(20):
                offered = await anext(cores, None)  # until the connection ends
            seen.add((number, payload[:-32], len(payload), tuple(rest), offered))
    expected = Hello(VERSION, bytes(32)).encode()
    assert seen == {(MessageType.HELLO, expected[:-32], len(expected), (), None)}
    assert len(proofs) == len(meshes)


async def receive_all(channel: Channel) -> list[tuple[int, bytes]]:
    received: list[tuple[int, bytes]] = []
    with trio.fail_after(20):
        try:
            while True:
                received += await channel.receive()
        except trio.EndOfChannel:
            return received


@pytest.mark.parametrize("shows", [MessageType.WELCOME, MessageType.RECORDS])
async def test_who_only_knows_the_secret_is_told_so(shows: MessageType) -> None:
    founder = founded()
    async with open_mesh_node(1, founder) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        said = {
            MessageType.WELCOME: Welcome(b"k" * 32, 0, "raw", "", None, ()).encode(),
            MessageType.RECORDS: Records(bytes(32)).encode(),
        }
        channel.send(shows, said[shows])
        received = await receive_all(channel)
        number, payload = received[-1]
        assert MessageType.WELCOME not in {kind for kind, _ in received}  # our core has a key
        farewell = Farewell("no admin of this mesh has let it in: join with a ticket")
        assert (number, payload) == (MessageType.FAREWELL, farewell.encode())


@pytest.mark.parametrize(
    "forged",
    [
        Revocation(ANN.public_key, 1, ADMIN.public_key, bytes(64)),
        Grant.issue(bytes(32), ADMIN, Role.ADMIN, member=RAW.public_key),
    ],
)
async def test_who_passes_on_a_forged_record_is_closed(forged: Grant | Revocation) -> None:
    founder = founded()
    async with open_mesh_node(1, founder) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        for records in split_records(bytes(32), [forged]):
            channel.send(message_type(records), records.encode())
        await receive_all(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert "has not signed" in node.goodbyes[0]
        assert node.mesh.membership == founder


async def test_records_of_nobody_leave_no_trace() -> None:
    founder = founded()
    shown = founder.invite(ADMIN).grant
    async with open_mesh_node(1, founder) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        rubbish = [Revocation.issue(founder.key, RAW, bytes((n,)) * 32, n) for n in range(100)]
        records = Records(bytes(32), (), tuple(rubbish), shown)
        channel.send(message_type(records), records.encode())
        channel.send(MessageType.WELCOME, Welcome(b"k" * 32, 0, "raw", "", shown, ()).encode())
        await wait_until(lambda: RAW.public_key in node.mesh.members)
        channel.send(MessageType.HELD, Held(frozenset()).encode())
        with trio.fail_after(20):
            while True:
                messages = await channel.receive()
                if found := [payload for number, payload in messages if number == 17]:
                    break
        assert found  # our summary differs from its
        assert not node.mesh.membership.revocations
        assert len(node.mesh.membership.grants) == 1  # the one that it was given on meeting


async def test_who_lacks_many_records_is_sent_them_once() -> None:
    founder = founded()
    shown = founder.invite(ADMIN).grant
    ids = [number.to_bytes(32, "big") for number in range(2500)]
    founder = founder.taking(
        Grant.issue(founder.key, ADMIN, Role.READER, member=member) for member in ids
    )
    async with open_mesh_node(1, founder) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        records = Records(bytes(32), shown=shown)
        channel.send(message_type(records), records.encode())
        channel.send(MessageType.WELCOME, Welcome(b"k" * 32, 0, "raw", "", shown, ()).encode())
        await wait_until(lambda: RAW.public_key in node.mesh.members)
        for _ in range(5):
            channel.send(MessageType.HELD, Held(frozenset()).encode())
        received: set[bytes] = set()
        count = 0
        with trio.move_on_after(0.5):
            while True:
                for number, payload in await channel.receive():
                    message = decode_message(number, payload)
                    if isinstance(message, Records):
                        received |= {grant.member or b"" for grant in message.grants}
                        count += len(message.grants)
    assert received >= {*ids, RAW.public_key}
    assert count <= len(ids) + 2  # and one for itself, that went to all


async def test_a_member_of_an_older_version_is_welcomed_by_its_grant() -> None:
    """It says nothing before its welcome, and ignores what we say."""
    founder = founded()
    shown = founder.invite(ADMIN).grant
    async with open_mesh_node(1, founder) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        channel.send(MessageType.WELCOME, Welcome(b"k" * 32, 0, "raw", "", shown, ()).encode())
        await wait_until(lambda: RAW.public_key in node.mesh.members)
        kinds: list[int] = []
        with trio.fail_after(20):
            while MessageType.WELCOME not in kinds:
                kinds += [number for number, _ in await channel.receive()]
        assert node.mesh.members[RAW.public_key].role is Role.WRITER


def test_the_book_round_trips_and_is_bounded() -> None:
    book = MemberBook()
    for number in range(4100):
        book.note(f"{number:064x}", f"node {number}", "writer", float(number), ticket="aa")
    book.note(f"{4099:064x}", "renamed", "reader", 9999.0)
    read = MemberBook.decode(book.encode())
    assert list(read) == list(book)
    assert len(list(read)) == 4096
    last = read.get(f"{4099:064x}")
    assert last is not None
    assert (last.name, last.since, last.seen) == ("renamed", 4099.0, 9999.0)
    assert read.get(f"{0:064x}") is None


@pytest.mark.parametrize(
    "text", ["", "{}", '[{"id": 1}]', '[{"id":"x","name":"","role":"","since":0,"seen":0}]']
)
def test_a_damaged_book_is_said_to_be_one_and_stays(text: str, tmp_path: Path) -> None:
    path = tmp_path / "members.json"
    assert list(load_book(path)) == []
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path} is damaged: .* restore it from a backup"):
        load_book(path)
    assert path.read_text() == text


def test_many_records_take_several_messages() -> None:
    records = [Revocation(bytes((n % 256,)) * 32, n, bytes(32), bytes(64)) for n in range(2500)]
    messages = list(split_records(bytes(32), records))
    assert [len(message.revocations) for message in messages] == [256] * 9 + [196]
    assert list(split_records(bytes(32), [])) == [Records(bytes(32))]
    large = [replace(record, kept=(bytes(32),) * 256) for record in records[:100]]
    messages = list(split_records(bytes(32), large))
    assert sum(len(message.revocations) for message in messages) == 100
    assert max(len(message.encode()) for message in messages) < 300_000
