"""The whole chain without web and disk: sync hosts joined by the mesh."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import trio
import trio.testing

from node.cojson.messages import decode_line
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.mesh.membership import Membership
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Revocation
from tests.node.mesh import samples
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import (
    MeshNode,
    connected,
    open_mesh_node,
    subscribed,
    wait_until,
)

TRANSCRIPTS = Path(__file__).parents[2] / "vectors" / "cojson" / "transcripts"


def recorded_contents(name: str) -> list[Content]:
    """What a real client uploaded, in its order."""
    contents: list[Content] = []
    for line in (TRANSCRIPTS / name).read_text().splitlines():
        step = json.loads(line)
        if step.get("dir") == "C>S":
            messages = [decode_line(json.dumps(message)) for message in step["msgs"]]
            contents += [message for message in messages if isinstance(message, Content)]
    return contents


async def upload(node: MeshNode, *contents: Content) -> None:
    receipt = await node.host.receive_content("test", contents)
    assert not receipt.refused


async def upload_filler(node: MeshNode, count: int) -> None:
    author = Author(7)
    for start in range(0, count, 250):
        await upload(node, *(author.created(f"filler {start + n}") for n in range(250)))


async def edit(node: MeshNode, value: Value, text: str) -> None:
    await upload(node, value.edit(json.dumps([{"op": "set", "key": "k", "value": text}])))


async def test_a_value_is_found_and_fetched_sparsely() -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload_filler(holder, 2000)
        value = Author(1).value("wanted")
        await upload(holder, value.edit("[]", "[]", with_header=True))
        async with connected(holder, asker):
            report = await asker.host.load(value.id)
            assert report is not None
            assert report.source == "mesh"
            assert dict(report.sessions) == {value.session_id: 2}
            fetch = asker.mesh.report(value.id)
            assert fetch is not None
            assert fetch.member_id == holder.identity.public_key
            assert 0 < fetch.blocks < holder.data.length // 100
            assert 0 < fetch.round_trips <= 8  # without a line between them hints come late
            assert fetch.bytes > 0
            [member] = asker.mesh.statistics().members
            assert fetch.blocks <= member.blocks_fetched < holder.data.length // 100
            assert member.length == holder.data.length
            assert member.key == holder.data.key
            assert member.name == "node 1"
            assert asker.mesh.statistics().found == 1
            [member] = holder.mesh.statistics().members
            assert holder.mesh.statistics().queries_answered >= 1
        again = await asker.host.load(value.id)
        assert again is not None
        assert again.source == "store"


async def test_groups_and_accounts_come_with_a_value_of_real_clients() -> None:
    contents = recorded_contents("01-create-upload.jsonl")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload(holder, *contents)
        ids = list(dict.fromkeys(content.co_id for content in contents))
        states = {co_id: await holder.host.known_state(co_id) for co_id in ids}
        assert all(state.header for state in states.values())
        async with connected(holder, asker):
            for co_id in reversed(ids):
                report = await asker.host.load(co_id)
                assert report is not None
        for co_id, state in states.items():
            assert await asker.host.known_state(co_id) == state


async def test_many_loads_share_questions() -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        author = Author(1)
        contents = [author.created(f"value {number}") for number in range(300)]
        await upload(holder, *contents)
        async with connected(holder, asker):
            async with trio.open_nursery() as nursery:
                for content in contents:
                    nursery.start_soon(asker.host.load, content.co_id)
            [member] = asker.mesh.statistics().members
            assert member.queries_asked < 30
        for content in contents:
            assert (await asker.host.known_state(content.co_id)).header


async def test_what_is_nowhere_is_absent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_mesh_node(1) as left, open_mesh_node(2) as right, connected(left, right):
        started = trio.current_time()
        assert await right.host.load(samples.co_id(1)) is None
        assert trio.current_time() - started < 1
        assert right.mesh.statistics().absent == 1


async def test_without_members_everything_is_absent() -> None:
    async with open_mesh_node(1) as node:
        assert await node.host.load(samples.co_id(1)) is None
        assert await node.mesh.find([samples.co_id(1)], {}) == {}


async def test_live_edits_pass_both_ways() -> None:
    async with open_mesh_node(1) as left, open_mesh_node(2) as right:
        value = Author(1).value("shared")
        await upload(left, value.edit("[]", with_header=True))
        answer = Author(2).joined(value)
        async with (
            connected(left, right),
            subscribed(left, value.id),
            subscribed(right, value.id),
        ):
            await right.wait_counts({value.id: {value.session_id: 1}})
            counts = {value.session_id: 1}
            for number in range(5):
                await edit(left, value, f"left {number}")
                counts[value.session_id] = value.count
                await right.wait_counts({value.id: counts})
                await edit(right, answer, f"right {number}")
                counts[answer.session_id] = answer.count
                await left.wait_counts({value.id: counts})
            # Who wrote it hears of it once more, compares, and fetches nothing.
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert left.mesh.statistics().announced == 0
            [right_seen_by_left] = left.mesh.statistics().members
            assert right_seen_by_left.failures == 0


async def test_what_nobody_wants_is_not_announced() -> None:
    async with open_mesh_node(1) as left, open_mesh_node(2) as right, connected(left, right):
        value = Author(1).value("private")
        await upload(left, value.edit("[]", with_header=True))
        await trio.testing.wait_all_tasks_blocked(0.05)
        [member] = left.mesh.statistics().members
        assert member.updates_sent == 0
        assert await right.counts(value.id) == {}


async def test_a_new_value_reaches_who_waits_for_it() -> None:
    async with open_mesh_node(1) as left, open_mesh_node(2) as right, connected(left, right):
        value = Author(1).value("not yet")
        async with subscribed(right, value.id):
            await wait_until(lambda: right.mesh.statistics().absent == 1)
            await upload(left, value.edit("[]", with_header=True))
            await right.wait_counts({value.id: {value.session_id: 1}})


async def test_catching_up_after_an_absence() -> None:
    async with open_mesh_node(1) as left, open_mesh_node(2) as right:
        value = Author(1).value("shared")
        await upload(left, value.edit("[]", with_header=True))
        async with subscribed(right, value.id), subscribed(left, value.id):
            async with connected(left, right):
                await right.wait_counts({value.id: {value.session_id: 1}})
            assert left.mesh.statistics().members == ()
            answer = Author(2).joined(value)
            await edit(left, value, "meanwhile here")
            await edit(right, answer, "meanwhile there")
            both = {value.session_id: 2, answer.session_id: 1}
            async with connected(right, left):
                await left.wait_counts({value.id: both})
                await right.wait_counts({value.id: both})


async def converge(nodes: list[MeshNode], links: list[tuple[int, int]]) -> None:
    """All edit one value, all are subscribed: all must end up with everything."""
    first = Author(1).value("shared")
    await upload(nodes[0], first.edit("[]", with_header=True))
    writers = [first] + [Author(2 + n).joined(first) for n in range(len(nodes) - 1)]
    async with AsyncExitStack() as stack:
        for left, right in links:
            await stack.enter_async_context(connected(nodes[left], nodes[right]))
        for node in nodes:
            await stack.enter_async_context(subscribed(node, first.id))
        for node in nodes:
            await node.wait_counts({first.id: {first.session_id: 1}})
        for number in range(4):
            async with trio.open_nursery() as nursery:
                for node, writer in zip(nodes, writers, strict=True):
                    nursery.start_soon(edit, node, writer, str(number))
        wanted = {writer.session_id: writer.count for writer in writers}
        for node in nodes:
            await node.wait_counts({first.id: wanted})
        # Nothing goes round: after convergence the mesh falls silent.
        before = [node.mesh.statistics() for node in nodes]
        await trio.testing.wait_all_tasks_blocked(0.1)
        after = [node.mesh.statistics() for node in nodes]
        assert [len(status.members) for status in after] == [
            len(status.members) for status in before
        ]
        for node in nodes:
            assert node.mesh.statistics().announced == 0
        sent = [member.updates_sent for status in after for member in status.members]
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sent == [
            member.updates_sent for node in nodes for member in node.mesh.statistics().members
        ]


async def test_a_line_of_four_converges() -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_mesh_node(n + 1)) for n in range(4)]
        await converge(nodes, [(0, 1), (1, 2), (2, 3)])


async def test_a_triangle_converges() -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_mesh_node(n + 1)) for n in range(3)]
        await converge(nodes, [(0, 1), (1, 2), (2, 0)])


async def test_two_members_with_different_sessions_make_one_value() -> None:
    async with (
        open_mesh_node(1) as one,
        open_mesh_node(2) as two,
        open_mesh_node(3) as asker,
    ):
        value = Author(1).value("shared")
        created = value.edit("[]", with_header=True)
        await upload(one, created)
        await upload(two, created)
        other = Author(2).joined(value)
        await edit(one, value, "only one has this")
        await edit(two, other, "only two has this")
        await edit(two, other, "and this")
        async with connected(one, asker), connected(two, asker):
            assert await asker.host.load(value.id) is not None
            await asker.wait_counts({value.id: {value.session_id: 2, other.session_id: 2}})


async def test_a_full_replica_takes_everything_and_stays_current() -> None:
    policy = ReplicaPolicy(everything=True)
    async with open_mesh_node(1) as source, open_mesh_node(2, policy=policy) as replica:
        await upload_filler(source, 500)
        async with connected(source, replica):
            feed = replica.host.changes()
            with trio.fail_after(20):
                while replica.store.count() < 500:
                    await feed.receive_many()
            value = Author(1).value("new")
            await upload(source, value.edit("[]", with_header=True))
            await replica.wait_counts({value.id: {value.session_id: 1}})
            await wait_until(lambda: replica.mesh.catch_up.merged(source.data.key).length > 1000)
        missed = Author(1).value("missed")
        await upload(source, missed.edit("[]", with_header=True))
        async with connected(source, replica):
            await replica.wait_counts({missed.id: {missed.session_id: 1}})


async def test_denied_values_are_not_taken() -> None:
    value = Author(1).value("unwanted")
    policy = ReplicaPolicy(everything=True, denied=frozenset((value.id,)))
    async with open_mesh_node(1) as source, open_mesh_node(2, policy=policy) as replica:
        await upload(source, value.edit("[]", with_header=True))
        other = Author(1).value("wanted")
        await upload(source, other.edit("[]", with_header=True))
        async with connected(source, replica):
            await replica.wait_counts({other.id: {other.session_id: 1}})
            assert await replica.host.load(value.id) is None
            assert not (await replica.host.known_state(value.id)).header


async def test_a_large_value_comes_in_several_readings() -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        value = Author(1).value("large")
        await upload(holder, value.edit("[]", with_header=True))
        for number in range(30):
            await upload(holder, value.edit(json.dumps([str(number) * 90_000])))
        async with connected(holder, asker):
            assert await asker.host.load(value.id) is not None
            await asker.wait_counts({value.id: {value.session_id: 31}})
            fetch = asker.mesh.report(value.id)
            assert fetch is not None
            assert fetch.bytes > 30 * 90_000


async def test_only_what_is_lacking_is_fetched_of_a_value() -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        value = Author(1).value("long")
        first = value.edit(*["[]"] * 10, with_header=True)
        await upload(holder, first)
        await upload(asker, first)
        for number in range(80):
            await upload(holder, value.edit(json.dumps([f"{number:04}" * 1000])))
        await upload(asker, value.piece(10, 86))
        async with connected(holder, asker):
            known = await asker.host.known_state(value.id)
            assert known.sessions == {value.session_id: 86}
            await asker.mesh.find([value.id], {value.id: known})
            assert await asker.counts(value.id) == {value.session_id: 90}
            fetch = asker.mesh.report(value.id)
            assert fetch is not None
            assert fetch.bytes < 80 * 4000 / 3


async def test_strangers_learn_nothing() -> None:
    stranger_mesh = Membership("bees", b"other secret")
    async with (
        open_mesh_node(1) as member,
        open_mesh_node(2, stranger_mesh) as stranger,
    ):
        value = Author(1).value("secret")
        await upload(member, value.edit("[]", with_header=True))
        async with connected(member, stranger, admitted=False):
            await wait_until(lambda: len(member.goodbyes) == 1 and len(stranger.goodbyes) == 1)
            assert not member.mesh.members
            assert not stranger.mesh.members
            assert member.data.discovery_key not in {
                core.discovery_key for core in stranger.cores.open_cores()
            }
        assert "secret" in member.goodbyes[0]


async def test_a_revoked_member_goes_at_once_and_stays_out() -> None:
    founder = Membership.found("bees", samples.ADMIN.public_key, lambda size: b"s" * size)
    guest = Membership.join(founder.invite(samples.ADMIN))
    async with open_mesh_node(1, founder) as admin, open_mesh_node(2, guest) as member:
        async with connected(admin, member):
            revocation = Revocation.issue(founder.key, samples.ADMIN, member.identity.public_key, 1)
            admin.mesh.trust.take([revocation])
            await wait_until(lambda: not admin.mesh.members and not member.mesh.members)
        async with connected(admin, member, admitted=False):
            await wait_until(lambda: len(admin.goodbyes) == 2)
            assert not admin.mesh.members
        assert "shut it out" in admin.goodbyes[0]


async def test_a_member_that_shows_our_own_core_is_turned_away() -> None:
    async with open_mesh_node(1) as node, open_mesh_node(1) as mirror:
        async with connected(node, mirror, admitted=False):
            await wait_until(lambda: len(node.goodbyes) == 1)
        assert "our own" in node.goodbyes[0]


async def test_pinned_values_are_kept_without_clients() -> None:
    value = Author(1).value("pinned")
    policy = ReplicaPolicy(pinned=frozenset((value.id,)))
    async with open_mesh_node(1) as source, open_mesh_node(2, policy=policy) as keeper:
        await upload(source, value.edit("[]", with_header=True))
        async with connected(source, keeper):
            await keeper.wait_counts({value.id: {value.session_id: 1}})
            await edit(source, value, "later")
            await keeper.wait_counts({value.id: {value.session_id: 2}})


async def test_the_nearer_member_serves_what_it_merged() -> None:
    async with (
        open_mesh_node(1) as source,
        open_mesh_node(2) as middle,
        open_mesh_node(3) as far,
    ):
        value = Author(1).value("relayed")
        await upload(source, value.edit("[]", with_header=True))
        async with connected(source, middle):
            assert await middle.host.load(value.id) is not None
        async with connected(middle, far):
            assert await far.host.load(value.id) is not None
            fetch = far.mesh.report(value.id)
            assert fetch is not None
            assert fetch.member_id == middle.identity.public_key


async def test_cancelling_a_load_leaves_the_mesh_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        value = Author(1).value("wanted")
        await upload(holder, value.edit("[]", with_header=True))
        async with connected(holder, asker):
            with trio.move_on_after(0):
                await asker.mesh.find([value.id], {value.id: NOTHING})
            assert await asker.mesh.find([value.id], {value.id: KnownState(False)}) == {
                RawCoId(value.id): ()
            }


async def test_an_edit_before_the_interest_is_told_of_is_not_missed() -> None:
    """Made by a client here, edited there at once, where nobody has heard that we want it."""
    async with open_mesh_node(1) as maker, open_mesh_node(2) as editor, connected(maker, editor):
        value = Author(1).value("shared")
        with maker.host.client("test") as client:
            await client.receive([value.edit("[]", with_header=True)])
            assert await editor.host.load(value.id) is not None
            await edit(editor, value, "there")
            await maker.wait_counts({value.id: {value.session_id: 2}})
