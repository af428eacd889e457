"""Encrypted meshes: blind members keep what they cannot read, and serve it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from bee.bee import Bee
from hypercore.crypto import KeyPair
from hypercore.errors import StorageFailed
from hypercore.storage import Durability
from node.covalue.content import SessionContent
from node.covalue.session_fork import SessionFork
from node.mesh.member_book import MemberBook
from node.mesh.membership import Membership
from node.mesh.messages import (
    PROTOCOL,
    Answer,
    Interest,
    Message,
    MessageType,
    Query,
    Welcome,
    decode_message,
    message_type,
)
from node.mesh.recall import GRACE_SECONDS, RecallState
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Grant, Role
from node.mesh.trust_messages import Introduction, Records
from node.mesh.witness import encode_session_evidence
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import (
    MeshNode,
    connected,
    open_mesh_node,
    subscribed,
    wait_until,
)
from tests.node.mesh.test_serve import RAW, prove, raw_connection
from tests.simulation.disk import Disk, DiskStorage, Shortage
from tests.support.forked_logs import ONE, fork_proof
from tests.support.trees import KEY_PAIR, MANIFEST

ADMIN, ANN, WRITER = (KeyPair.from_seed(bytes((number,)) * 32) for number in (1, 5, 9))
MARKER = "nobody-but-readers-may-see-this"


def founded(*, is_encrypted: bool = True) -> Membership:
    return Membership.found("bees", ADMIN.public_key, is_encrypted=is_encrypted)


def joined(founder: Membership, role: Role) -> Membership:
    return Membership.join(founder.invite(ADMIN, role=role, unix_seconds=1))


async def keep_all(keeper: MeshNode, owner: MeshNode) -> None:
    """Wait until the keeper has every block of the owner's core."""
    with trio.fail_after(20):
        core = await keeper.cores.get(key=owner.data.key)
        await core.wait_length(owner.data.length)
        await core.download()
        await core.close()


def disk_holds(path: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("is_encrypted", [True, False])
async def test_what_a_keeper_has_on_its_disk(tmp_path: Path, is_encrypted: bool) -> None:
    """Nothing that can be read, in an encrypted mesh; the other kind shows that we look well."""
    founder = founded(is_encrypted=is_encrypted)
    role = Role.BLIND if is_encrypted else Role.READER
    value = Author(1).value(MARKER)
    async with (
        open_mesh_node(1, founder, path=tmp_path / "owner") as owner,
        open_mesh_node(2, joined(founder, role), path=tmp_path / "keeper") as keeper,
    ):
        content = value.edit(f'["{MARKER}"]', with_header=True)
        await owner.host.receive_content("test", [content])
        async with connected(owner, keeper):
            await keep_all(keeper, owner)
            assert await keeper.host.load(value.id) is None or not is_encrypted
    assert disk_holds(tmp_path / "owner", MARKER)
    assert disk_holds(tmp_path / "keeper", MARKER) is not is_encrypted


@pytest.mark.parametrize("is_compacted", [False, True])
async def test_a_keeper_is_in_step_once_it_has_all_that_there_is(is_compacted: bool) -> None:
    founder = founded()
    async with (
        open_mesh_node(1, founder) as owner,
        open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
        open_mesh_node(3, joined(founder, Role.READER)) as reader,
    ):
        value = Author(1).value("edited")
        await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
        for _ in range(30):
            await owner.host.receive_content("test", [value.edit("[]")])
        if is_compacted:
            await Bee(owner.data).compact()
        length = owner.data.length
        held = owner.data.bitfield.count(0, length)
        assert (held < length) is is_compacted
        async with connected(keeper, owner), connected(keeper, reader), connected(owner, reader):
            await wait_until(lambda: keeper.mesh.sync_state().is_done)
            core = await keeper.cores.get(key=owner.data.key)
            assert core.bitfield.count(0, core.length) == held
            await core.close()
            state = keeper.mesh.sync_state()
            shown = {member.id: member for member in state.members}
            kept = shown[owner.identity.public_key.hex()]
            assert (kept.state, kept.length, kept.merged) == ("in step", length, length)
            assert (kept.blocks_fetched, kept.bytes_fetched > 0) == (held, True)
            assert (state.logs_kept, owner.mesh.sync_state().logs_kept) == (1, None)
            await wait_until(lambda: owner.mesh.sync_state().is_done)
            await wait_until(lambda: reader.mesh.sync_state().is_done)


@pytest.mark.parametrize("policy", [ReplicaPolicy(), ReplicaPolicy(everything=True)])
async def test_a_reader_gets_from_a_keeper_what_its_owner_wrote(policy: ReplicaPolicy) -> None:
    founder = founded()
    values = [Author(1).value(f"value {n}") for n in range(20)]
    async with open_mesh_node(2, joined(founder, Role.BLIND)) as keeper:
        async with open_mesh_node(1, founder) as owner:
            for value in values[:10]:
                await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
            async with connected(owner, keeper):
                await keep_all(keeper, owner)
                for value in values[10:]:  # what comes later is kept as well
                    await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
                await keep_all(keeper, owner)
                assert keeper.mesh.safekeeping.kept() == {owner.data.key: (0, None)}
                assert owner.mesh.safekeeping.kept() == {}
        assert not keeper.mesh.members
        # The owner is away for good; the reader never met it.
        reading = joined(founder, Role.READER)
        async with open_mesh_node(3, reading, policy) as reader, connected(reader, keeper):
            if policy.everything:
                await reader.wait_counts({value.id: {value.session_id: 1} for value in values})
            for value in values:
                report = await reader.host.load(value.id)
                assert report is not None
                assert report.sessions == {value.session_id: 1}


async def test_who_becomes_a_writer_is_introduced_to_those_who_are_connected(
    autojump_clock: trio.testing.MockClock,
) -> None:
    founder = founded()
    value = Author(1).value("kept")
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
    ):
        async with (
            open_mesh_node(9, joined(founder, Role.READER)) as owner,
            connected(admin, keeper),
            connected(owner, keeper),
        ):
            grant = founder.invite(ADMIN, role=Role.WRITER, member=WRITER.public_key).grant
            assert grant is not None
            admin.mesh.trust.take([grant])
            await wait_until(lambda: owner.mesh.trust.may_write)
            await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
            await keep_all(keeper, owner)
            assert owner.data.key in keeper.mesh.safekeeping.kept()
        reading = joined(founder, Role.READER).taking([grant])
        async with open_mesh_node(3, reading) as reader, connected(reader, keeper):
            assert await reader.host.load(value.id) is not None


async def test_who_was_let_in_by_an_admin_that_is_not_known_yet_is_read_as_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its keeper introduces it before it has told what admins signed meanwhile."""
    founder = founded()
    value = Author(1).value("kept")
    reading = joined(founder, Role.READER)
    grant = founder.invite(ADMIN, role=Role.ADMIN, member=ANN.public_key).grant
    assert grant is not None
    later = founder.taking([grant])
    written = Membership.join(later.invite(ANN, role=Role.WRITER))
    async with open_mesh_node(2, joined(founder, Role.BLIND).taking([grant])) as keeper:
        async with open_mesh_node(9, written) as owner, connected(owner, keeper):
            await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
            await keep_all(keeper, owner)
        everything = ReplicaPolicy(everything=True)
        async with open_mesh_node(3, reading, everything) as reader, connected(reader, keeper):
            await reader.wait_counts({value.id: {value.session_id: 1}}, 3)


async def test_of_who_is_no_writer_any_more_nothing_is_read_from_its_keeper(
    autojump_clock: trio.testing.MockClock,
) -> None:
    founder = founded()
    values = [Author(1).value(name) for name in ("before", "between", "after")]
    grant = founder.invite(ADMIN, role=Role.WRITER, member=WRITER.public_key).grant
    assert grant is not None
    later = founder.taking([grant])
    blind, reading = (joined(later, role).taking([grant]) for role in (Role.BLIND, Role.READER))
    async with (
        open_mesh_node(1, later) as admin,
        open_mesh_node(2, blind) as keeper,
        open_mesh_node(3, reading, ReplicaPolicy(everything=True)) as reader,
        open_mesh_node(9, reading) as owner,
        connected(admin, keeper),
        connected(owner, keeper),
        connected(reader, keeper),
    ):

        async def write(value: Value) -> None:
            await owner.host.receive_content("test", [value.edit("[]", with_header=True)])

        await write(values[0])
        await reader.wait_counts({values[0].id: {values[0].session_id: 1}}, 5)
        revocation = later.revoke(ADMIN, grant.digest, unix_seconds=1)
        admin.mesh.trust.take([revocation])
        await trio.sleep(1)
        await write(values[1])  # as its own node would not let it
        await trio.sleep(30)
        assert await reader.counts(values[1].id) == {}
        again = admin.mesh.membership.invite(ADMIN, role=Role.WRITER, member=WRITER.public_key)
        assert again.grant is not None
        admin.mesh.trust.take([again.grant])
        await write(values[2])
        await reader.wait_counts({values[2].id: {values[2].session_id: 1}}, 15)


async def test_a_writer_that_is_made_blind_reads_no_more_and_keeps_until_it_is_a_reader(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 20952: it has the key, so it read from keepers whose writers were away."""
    founder = founded()
    values = [Author(1).value(name) for name in ("before", "kept")]
    first = founder.invite(ADMIN, role=Role.WRITER, member=WRITER.public_key)
    assert first.grant is not None
    later = founder.taking([first.grant])
    everything = ReplicaPolicy(everything=True)
    async with (
        open_mesh_node(1, later) as admin,
        open_mesh_node(2, joined(later, Role.BLIND)) as keeper,
        open_mesh_node(9, Membership.join(first), everything) as member,
        connected(admin, keeper),
    ):

        async def write(value: Value) -> None:
            await admin.host.receive_content("test", [value.edit("[]", with_header=True)])

        async def make(role: Role, *revoked: Grant | None) -> None:
            """While they are connected, which ends that: what is exchanged is something else."""
            membership = admin.mesh.membership
            grant = membership.invite(ADMIN, role=role, member=WRITER.public_key).grant
            assert grant is not None
            taken_back = [
                membership.revoke(ADMIN, each.digest, unix_seconds=1) for each in revoked if each
            ]
            admin.mesh.trust.take([grant, *taken_back])
            await wait_until(lambda: not member.mesh.members)
            verdict = member.mesh.trust.verdict
            assert verdict.role is role
            assert "begins anew" in member.goodbyes[-1]

        await write(values[0])
        async with connected(admin, member):
            await member.wait_counts({values[0].id: {values[0].session_id: 1}})
            await make(Role.BLIND, first.grant)
        async with connected(admin, member):
            await write(values[1])
            await keep_all(member, admin)
        await keep_all(keeper, admin)
        async with connected(keeper, member):
            await trio.sleep(30)
            assert await member.counts(values[1].id) == {}
        async with connected(admin, member):
            await make(Role.READER)
        async with connected(admin, member):
            await member.wait_counts({values[1].id: {values[1].session_id: 1}}, 1)


async def test_nothing_is_read_from_a_keeper_before_our_own_log_is_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 32860: a node that was put back found its own values damaged."""
    founder = founded()
    value = Author(1).value("kept")
    book = MemberBook()
    book.note("ab" * 32, "somebody who is waited for", "writer", 0)
    async with open_mesh_node(2, joined(founder, Role.BLIND)) as keeper:
        async with open_mesh_node(1, founder) as owner, connected(owner, keeper):
            await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
            await keep_all(keeper, owner)
        reading = joined(founder, Role.READER)
        everything = ReplicaPolicy(everything=True)
        async with (
            open_mesh_node(3, reading, everything, book=book) as reader,
            connected(reader, keeper),
        ):
            await trio.sleep(GRACE_SECONDS / 2)
            assert reader.mesh.recall.state is RecallState.ASKING
            assert list(reader.mesh.safekeeping.absent) == [owner.identity.public_key]
            assert reader.host.statistics().values_in_memory == 0
            await reader.wait_counts({value.id: {value.session_id: 1}})


async def test_reading_from_a_keeper_goes_on_when_there_is_room_again() -> None:
    """Found by seed 32018: until the keeper came anew, nothing more was read."""
    founder = founded()
    first, second = Author(1).value("first"), Author(1).value("second")
    disk = Disk(Random(1), sync_seconds=0.0)
    storage = DiskStorage(disk, Durability.COMMIT)
    policy = ReplicaPolicy(everything=True)
    reading = joined(founder, Role.READER)
    async with (
        open_mesh_node(1, founder) as owner,
        open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
        open_mesh_node(3, reading, policy, storage=storage) as reader,
        connected(owner, keeper),
        connected(reader, keeper),
    ):
        await owner.host.receive_content("test", [first.edit("[]", with_header=True)])
        await reader.wait_counts({first.id: {first.session_id: 1}})
        core = await reader.cores.get(key=owner.data.key)
        disk.shortage = Shortage.FULL
        await owner.host.receive_content("test", [second.edit("[]", with_header=True)])
        with trio.fail_after(10), pytest.raises(StorageFailed):
            await core.wait_length(owner.data.length)
        reader.mesh.pause("the disk is full")
        await trio.testing.wait_all_tasks_blocked()
        assert list(reader.mesh.safekeeping.absent) == [owner.identity.public_key]
        disk.shortage = None
        await reader.cores.recover()
        reader.mesh.resume()
        await reader.wait_counts({second.id: {second.session_id: 1}})
        core.release()


async def test_two_keepers_and_one_of_them_goes() -> None:
    founder = founded()
    first, second = Author(1).value("first"), Author(1).value("second")
    blind = joined(founder, Role.BLIND)
    async with open_mesh_node(2, blind) as near, open_mesh_node(3, blind) as far:
        async with open_mesh_node(1, founder) as owner:
            for value in (first, second):
                await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
            async with connected(owner, near):
                await keep_all(near, owner)
                async with connected(near, far):  # it never meets the owner
                    await keep_all(far, owner)
        async with open_mesh_node(4, joined(founder, Role.READER)) as reader:
            async with connected(reader, far):
                async with connected(reader, near):
                    assert await reader.host.load(first.id) is not None
                assert await reader.host.load(second.id) is not None
            assert reader.mesh.safekeeping.absent == {}


async def test_nobody_waits_for_a_keeper_to_read_though_it_is_told_to_keep_everything() -> None:
    """With `--replicate all`, say: its writers were sending for ever, as their status said."""
    founder = founded()
    value = Author(1).value("kept")
    everything = ReplicaPolicy(everything=True)
    async with (
        open_mesh_node(1, founder) as owner,
        open_mesh_node(2, joined(founder, Role.BLIND), everything) as keeper,
    ):
        await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(owner, keeper):
            await keep_all(keeper, owner)
            await owner.host.receive_content("test", [value.edit("[1]")])
            keeper.mesh.change_policy(everything)
            await keep_all(keeper, owner)
            await wait_until(lambda: owner.mesh.sync_state().is_done)


async def test_writers_read_one_another() -> None:
    founder = founded()
    value = Author(1).value("shared")
    async with (
        open_mesh_node(1, founder) as owner,
        open_mesh_node(2, joined(founder, Role.WRITER)) as writer,
    ):
        await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(owner, writer):
            assert await writer.host.load(value.id) is not None
            await writer.host.receive_content("test", [value.edit("[1]")])
            await owner.mesh.find([value.id], {})
            assert await owner.counts(value.id) == {value.session_id: 2}


async def test_what_a_keeper_says_is_judged(autojump_clock: trio.testing.MockClock) -> None:
    """Cores of nobody, of members that may not write, and of signatures that are wrong."""
    founder = founded()
    stranger = KeyPair.from_seed(b"x" * 32)
    reading = joined(founder, Role.READER)
    key = founder.key
    good = Introduction.issue(key, WRITER, b"k" * 32, "writer", founder.invite(ADMIN).grant)
    for introduction in (
        Introduction.issue(key, stranger, b"k" * 32, "nobody", None),
        Introduction.issue(key, stranger, b"k" * 32, "reader", reading.grant),
        Introduction.issue(bytes(32), WRITER, b"k" * 32, "elsewhere", good.grant),
        Introduction(good.member, b"l" * 32, good.name, good.grant, good.signature),
        good,
    ):
        async with (
            open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
            open_mesh_node(3, reading) as reader,
        ):
            keeper.mesh.trust.keep_introduction(introduction)
            async with connected(reader, keeper):
                await trio.sleep(1)
                assert bool(reader.mesh.safekeeping.absent) is (introduction is good)
                await wait_until(lambda: bool(reader.mesh.members))
                # What nobody holds is known to be nowhere all the same.
                with trio.fail_after(10):
                    assert await reader.host.load(Author(9).value("nowhere").id) is None


async def test_a_keeper_does_not_learn_what_others_read() -> None:
    """No message names a value, whether it is asked for, wanted, changed or forked."""
    founder = founded()
    shown = founder.invite(ADMIN, role=Role.BLIND).grant
    ours, wanted, forked = (Author(n).value(f"value {n}") for n in range(1, 4))
    async with open_mesh_node(1, founder) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, founder)
        messages: list[Message] = [
            Records(bytes(32), shown=shown),
            Welcome(b"k" * 32, 5, "raw", "blind", shown, ()),
            Interest(everything=True),
            Query(1, (ours.id,), (None,)),
        ]
        for message in messages:
            channel.send(message_type(message), message.encode())
        await wait_until(lambda: RAW.public_key in node.mesh.members)
        async with subscribed(node, wanted.id):
            await node.host.receive_content("test", [ours.edit("[]", with_header=True)])
            half = SessionContent(0, [], b"")
            fork = SessionFork(forked.id, forked.session_id, half, half)
            node.mesh.members[RAW.public_key].outbox.queue_evidence([encode_session_evidence(fork)])
            assert await node.host.load(Author(9).value("nowhere").id) is None
            await node.host.receive_content("test", [ours.edit("[1]")])
            received: list[tuple[int, bytes]] = []
            with trio.move_on_after(0.3):
                while True:
                    received += await channel.receive()
    kinds = {number for number, _ in received}
    assert {MessageType.WELCOME, MessageType.ANSWER, MessageType.INTEREST} <= kinds
    for number, payload in received:
        if number == MessageType.ANSWER:  # it names what was asked for, as if nothing was here
            answer = decode_message(number, payload)
            assert isinstance(answer, Answer)
            assert answer.values == ((ours.id, None),)
        else:
            assert b"co_z" not in payload


async def test_a_keeper_is_sent_no_hints() -> None:
    founder = founded()
    values = [Author(1).value(f"value {n}") for n in range(100)]
    asked: list[bytes] = []

    async def note(payload: bytes, _peer: object) -> list[bytes]:
        asked.append(payload)
        return []

    async with open_mesh_node(2, joined(founder, Role.BLIND)) as keeper:
        async with open_mesh_node(1, founder) as owner:
            contents = [value.edit("[]", with_header=True) for value in values]
            await owner.host.receive_content("test", contents)
            async with connected(owner, keeper):
                await keep_all(keeper, owner)
        core = await keeper.cores.get(key=owner.data.key)
        core.set_extension("hyperbee", note)
        reading = joined(founder, Role.READER)
        async with open_mesh_node(3, reading) as reader, connected(reader, keeper):
            assert await reader.host.load(values[50].id) is not None
        await core.close()
    assert asked == []


async def test_who_becomes_a_writer_is_kept_from_then_on() -> None:
    founder = founded()
    value = Author(1).value("later")
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
        open_mesh_node(3, joined(founder, Role.READER)) as member,
        connected(admin, keeper),
        connected(member, keeper),
        connected(admin, member),
    ):
        await member.host.receive_content("test", [value.edit("[]", with_header=True)])
        id = member.identity.public_key
        grant = founder.invite(ADMIN, role=Role.WRITER, member=id).grant
        assert grant is not None
        admin.mesh.trust.take([grant])
        core = await keeper.cores.get(key=member.data.key)
        with trio.fail_after(20):
            await core.wait_length(member.data.length)
            while core.info().blocks_held < core.length:
                await trio.lowlevel.checkpoint()
        await core.close()


async def test_a_blind_member_that_may_write_needs_the_key_first() -> None:
    """Else it would write in the clear what others then could not read."""
    founder = founded()
    async with (
        open_mesh_node(1, founder) as admin,
        open_mesh_node(2, joined(founder, Role.BLIND)) as member,
        connected(admin, member),
    ):
        id = member.identity.public_key
        grant = founder.invite(ADMIN, role=Role.WRITER, member=id).grant
        assert grant is not None
        admin.mesh.trust.take([grant])
        await wait_until(lambda: member.mesh.trust.verdict.role is Role.WRITER)
        assert not member.mesh.trust.may_write
        assert "lacks the key" in member.mesh.trust.trouble


async def test_a_keeper_without_room_fetches_nothing_until_there_is_some() -> None:
    founder = founded()
    first, second = Author(1).value("first"), Author(1).value("second")
    async with (
        open_mesh_node(1, founder) as owner,
        open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
        connected(owner, keeper),
    ):
        await owner.host.receive_content("test", [first.edit("[]", with_header=True)])
        core = await keeper.cores.get(key=owner.data.key)
        await wait_until(lambda: core.length == owner.data.length == core.info().blocks_held > 0)
        held = core.length
        keeper.mesh.pause("no room")
        await owner.host.receive_content("test", [second.edit("[]", with_header=True)])
        with trio.fail_after(20):
            await core.wait_length(held + 1)  # its head costs nothing
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert core.info().blocks_held == held
        keeper.mesh.resume()
        await wait_until(lambda: core.info().blocks_held == owner.data.length > held)
        await core.close()


@pytest.mark.parametrize("length", [0, len(ONE)])
async def test_a_kept_core_that_turns_out_to_be_forked_is_read_no_more(length: int) -> None:
    """Found in review: who was reading along ended with it."""
    founder = founded()
    about = Introduction.issue(
        founder.key, WRITER, MANIFEST.key, "writer", founder.invite(ADMIN).grant
    )
    async with (
        open_mesh_node(2, joined(founder, Role.BLIND)) as keeper,
        open_mesh_node(3, joined(founder, Role.READER)) as reader,
    ):
        kept = await keeper.cores.get(key_pair=KEY_PAIR)
        await kept.append(ONE[:length])
        keeper.mesh.trust.keep_introduction(about)
        async with connected(reader, keeper):
            await wait_until(lambda: WRITER.public_key in reader.mesh.safekeeping.absent)
            core = await reader.cores.get(key=MANIFEST.key)
            await core.wait_length(length)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.host.load, Author(1).value("nobody's").id)
                await trio.testing.wait_all_tasks_blocked()
                await core.freeze(fork_proof())
            await wait_until(lambda: not reader.mesh.safekeeping.absent)
            assert keeper.identity.public_key in reader.mesh.members
