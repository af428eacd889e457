"""What members of each role are told, and whether what they have is taken, at both ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.access.gate import Gate
from node.access.reasons import Reason
from node.cojson.gatekeeper import Origin
from node.cojson.host_options import HostOptions
from node.mesh.membership import Membership
from node.mesh.messages import PROTOCOL, Message, Query, Welcome, message_type
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Role
from node.mesh.trust_messages import Records
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import (
    MeshNode,
    connected,
    open_mesh_node,
    subscribed,
    wait_until,
)
from tests.node.mesh.test_serve import RAW, prove, raw_connection
from tests.node.mesh.test_sync import acknowledged
from tests.support.authors import Author as Person
from tests.support.authors import edits, map_header
from tests.support.engine_shell import EngineShell

ADMIN, MEMBER = (KeyPair.from_seed(bytes((number,)) * 32) for number in range(1, 3))


def founded() -> Membership:
    return Membership.found("bees", ADMIN.public_key, is_encrypted=True)


def joined(founder: Membership, role: Role) -> Membership:
    return Membership.join(founder.invite(ADMIN, role=role, unix_seconds=1))


async def upload(node: MeshNode, author: int) -> Author:
    writer = Author(author)
    value = writer.value("shared")
    receipt = await node.host.receive_content("test", [value.edit("[]", with_header=True)])
    assert not receipt.refused
    return writer


@pytest.mark.parametrize(
    ("role", "reads", "is_taken"),
    [(Role.WRITER, True, True), (Role.READER, True, False), (Role.BLIND, False, False)],
)
@pytest.mark.parametrize("kept", [False, True], ids=["asked for", "kept"])
async def test_what_crosses_between_an_admin_and_a_member(
    role: Role, reads: bool, is_taken: bool, kept: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Both have a value. By a question or by themselves: who gets the other's?"""
    founder = founded()
    policy = ReplicaPolicy(everything=kept)
    ours, theirs = Author(1).value("ours"), Author(2).value("theirs")
    async with (
        open_mesh_node(1, founder, policy) as admin,
        open_mesh_node(2, joined(founder, role), policy) as member,
    ):
        await admin.host.receive_content("test", [ours.edit("[]", with_header=True)])
        await member.host.receive_content("test", [theirs.edit("[]", with_header=True)])
        async with connected(admin, member):
            if not kept:
                assert (await member.host.load(ours.id) is not None) is reads
                assert (await admin.host.load(theirs.id) is not None) is is_taken
            else:
                await trio.sleep(30)  # virtual seconds
                assert (await member.counts(ours.id) != {}) is reads
                assert (await admin.counts(theirs.id) != {}) is is_taken
            # And what moves later.
            async with subscribed(admin, theirs.id), subscribed(member, ours.id):
                await admin.host.receive_content("test", [ours.edit("[1]")])
                await member.host.receive_content("test", [theirs.edit("[1]")])
                await trio.sleep(30)
            assert (await member.counts(ours.id) == {ours.session_id: 2}) is reads
            assert (await admin.counts(theirs.id) == {theirs.session_id: 2}) is is_taken


async def test_a_member_that_becomes_a_writer_is_heard_and_one_that_was_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    founder = founded()
    value = Author(2).value("theirs")
    async with (
        open_mesh_node(1, founder, ReplicaPolicy(everything=True)) as admin,
        open_mesh_node(2, joined(founder, Role.READER)) as member,
    ):
        await member.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(admin, member):
            await trio.sleep(30)
            assert await admin.counts(value.id) == {}
            grant = founder.invite(ADMIN, role=Role.WRITER, member=MEMBER.public_key).grant
            assert grant is not None
            admin.mesh.trust.take([grant])
            await trio.sleep(30)
            assert await admin.counts(value.id) == {value.session_id: 1}
            await wait_until(lambda: member.mesh.trust.may_write)
            # Back to reading: its grants go, and it gets a smaller one.
            membership = admin.mesh.membership
            admin.mesh.trust.take([membership.revoke(ADMIN, grant.digest, unix_seconds=1)])
            await wait_until(lambda: not member.mesh.trust.may_write)
            await member.host.receive_content("test", [value.edit("[1]")])
            await trio.sleep(30)
            assert await admin.counts(value.id) == {value.session_id: 1}


async def test_who_becomes_a_writer_is_heard_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    founder = founded()
    kept, pinned = (Author(2).value(name) for name in ("kept", "pinned"))
    everything, one = ReplicaPolicy(everything=True), ReplicaPolicy(pinned=frozenset({pinned.id}))
    async with (
        open_mesh_node(1, founder, everything) as admin,
        open_mesh_node(2, joined(founder, Role.READER)) as member,
        open_mesh_node(3, joined(founder, Role.WRITER), one) as bob,
    ):
        for value in (kept, pinned):
            await member.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(admin, member), connected(bob, member), connected(admin, bob):
            await trio.sleep(30)
            grant = founder.invite(ADMIN, role=Role.WRITER, member=MEMBER.public_key).grant
            assert grant is not None
            admin.mesh.trust.take([grant])
            await admin.wait_counts({kept.id: {kept.session_id: 1}}, 1)
            await bob.wait_counts({pinned.id: {pinned.session_id: 1}}, 1)
            await member.host.receive_content("test", [pinned.edit("[1]")])
            await bob.wait_counts({pinned.id: {pinned.session_id: 2}}, 1)


@pytest.mark.parametrize("keeps", ["pins", "follows", "everything"])
async def test_who_was_blind_and_has_the_key_reads_at_once_what_it_may_read(
    keeps: str, autojump_clock: trio.testing.MockClock
) -> None:
    founder = founded()
    blind = replace(joined(founder, Role.BLIND), data_secret=founder.data_secret)
    kept, pinned = Author(1).value("kept"), Author(3).value("pinned")
    policy = {
        "pins": ReplicaPolicy(pinned=frozenset({kept.id, pinned.id})),
        "follows": ReplicaPolicy(prefixes=("co_z",)),
        "everything": ReplicaPolicy(everything=True),
    }[keeps]
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, blind, policy) as member,
        open_mesh_node(3, joined(founder, Role.WRITER)) as bob,
    ):
        await admin.host.receive_content("test", [kept.edit("[]", with_header=True)])
        await bob.host.receive_content("test", [pinned.edit("[]", with_header=True)])
        async with connected(admin, member), connected(bob, member), connected(admin, bob):
            await trio.sleep(30)
            assert await member.counts(kept.id) == await member.counts(pinned.id) == {}
            grant = founder.invite(ADMIN, role=Role.READER, member=MEMBER.public_key).grant
            assert grant is not None
            admin.mesh.trust.take([grant])
            await wait_until(lambda: not member.mesh.members)  # they begin anew
        async with connected(admin, member), connected(bob, member), connected(admin, bob):
            await member.wait_counts({kept.id: {kept.session_id: 1}}, 1)
            await member.wait_counts({pinned.id: {pinned.session_id: 1}}, 1)


async def test_the_copy_of_a_reader_counts_for_who_asks_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 319791: it had said so before anybody waited for that, and was not asked."""
    founder = founded()
    value = Author(1).value("kept")
    async with (
        open_mesh_node(1, founder, options=HostOptions(min_copies=2)) as admin,
        open_mesh_node(2, joined(founder, Role.READER), ReplicaPolicy(everything=True)) as member,
        connected(admin, member),
    ):
        await admin.host.receive_content("test", [value.edit("[]", with_header=True)])
        await member.wait_counts({value.id: {value.session_id: 1}})
        await trio.sleep(30)
        with trio.fail_after(10):
            await acknowledged(admin, value)


@pytest.mark.parametrize(("role", "counts"), [(Role.BLIND, False), (Role.READER, True)])
async def test_the_word_of_a_blind_member_is_no_copy(role: Role, counts: bool) -> None:
    founder = founded()
    shown = founder.invite(ADMIN, role=role).grant
    value = Author(1).value("precious")
    created = value.edit("[]", with_header=True)
    options = HostOptions(min_copies=2)
    async with (
        open_mesh_node(1, founder, options=options) as node,
        raw_connection(node) as mux,
    ):
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        messages: list[Message] = [
            Records(bytes(32), shown=shown),
            Welcome(b"k" * 32, 5, "raw", "", shown, ()),
            Query(1, (value.id,), ({value.session_id: 1},)),
        ]
        with node.host.client("test") as link:
            await link.receive([created])
            await wait_until(lambda: node.host.copies.held_back == 1)
            for message in messages:
                channel.send(message_type(message), message.encode())
            await wait_until(lambda: RAW.public_key in node.mesh.members)
            member = node.mesh.members[RAW.public_key]
            await wait_until(lambda: member.session.queries_answered == 1)
            assert (node.host.copies.held_back == 0) is counts


def test_clients_of_a_reader_write_nothing() -> None:
    ann = Person("ann")
    header = map_header("m")
    gate = Gate()
    gate.is_read_only = True
    shell = EngineShell(access=gate)
    shell.client("a", Origin("192.0.2.1"))
    shell.say("a", ann.content(header, edits(2), as_agent=True))
    shell.commit()
    assert shell.disk.headers == {}
    assert gate.statistics().refused == {Reason.READ_ONLY: 1}
    assert "may only read" in shell.refusals["a"][0]
    gate.is_read_only = False
    shell.say("a", ann.content(header, edits(2), as_agent=True))
    shell.commit()
    assert list(shell.disk.headers) == [header.id]
