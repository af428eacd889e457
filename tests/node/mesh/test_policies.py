"""What nodes keep of one another, when that changes while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from hypercore.core import Core
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.errors import CorruptStore
from node.explaining import explain
from node.mesh.conduct import MAX_UNDELIVERED
from node.mesh.exchange import Traffic
from node.mesh.follow_rules import OwnerKind, OwnerRule
from node.mesh.peer_rules import Direction, PeerRule, PeerRules
from node.mesh.replicas import ReplicaPolicy
from node.verbs import Explain, VerbError
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, subscribed, wait_until
from tests.node.mesh.test_mesh import edit, recorded_contents, upload, upload_filler

ACCOUNT = "co_zboxStf4RWUtrR5ZvhYXHBk5GoR"
GROUPS = ("co_zJwvMtr61fmVGyemddtz4Cp9Vxv", "co_z6NVbUDfD2VatoySCqJC3bcSevg")
OF_FIRST, OF_SECOND = (
    RawCoId("co_zQrCUavQ5i2mSfL2s3p1QKHTub8"),
    RawCoId("co_zdT9fHkCYPNmLETBV9mCqoPdQ97"),
)


async def ids_of(node: MeshNode) -> set[str]:
    return {co_id async for co_id in node.store.ids()}


async def wait_ids(node: MeshNode, wanted: Collection[str]) -> None:
    """Wait until exactly these are here, and nothing goes on any more."""
    with trio.fail_after(20):
        while await ids_of(node) != set(wanted):
            await trio.testing.wait_all_tasks_blocked(0.01)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert await ids_of(node) == set(wanted)


async def explained(node: MeshNode, co_id: str) -> dict[str, Any]:
    [result] = [result async for result in explain(node.host, node.mesh, node.data, Explain(co_id))]
    return dict(result)


async def test_pins_while_the_node_runs() -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as keeper:
        await upload_filler(holder, 500)
        value = Author(1).value("wanted")
        await upload(holder, value.edit("[]", with_header=True))
        async with connected(holder, keeper):
            assert await ids_of(keeper) == set()
            keeper.mesh.change_policy(ReplicaPolicy(pinned=frozenset([value.id])))
            await keeper.wait_counts({value.id: {value.session_id: 1}})
            await edit(holder, value, "kept up to date")
            await keeper.wait_counts({value.id: {value.session_id: 2}})
            [member] = keeper.mesh.statistics().members
            assert member.blocks_fetched < holder.data.length // 20, "no more than it takes"
            keeper.mesh.change_policy(ReplicaPolicy())
            await trio.testing.wait_all_tasks_blocked(0.02)
            await edit(holder, value, "nobody cares")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert dict(await keeper.counts(value.id)) == {value.session_id: 2}
            report = await explained(keeper, value.id)
            assert (report["is_here"], report["wanted"]) == (True, False)
            assert report["why_not"] == ["no client asks for it, and no rule pins or follows it"]


async def test_a_prefix_is_followed_from_when_it_is_said() -> None:
    author = Author(1)
    values = [author.value(f"value {number}") for number in range(100)]
    prefix = values[0].id[:5]
    inside = [value for value in values if value.id.startswith(prefix)]
    assert 1 <= len(inside) < 50
    later = next(
        value
        for value in (author.value(f"later {number}") for number in range(10_000))
        if value.id.startswith(prefix)
    )
    async with open_mesh_node(1) as holder, open_mesh_node(2) as keeper:
        await upload(holder, *(value.edit("[]", with_header=True) for value in values))
        async with connected(holder, keeper):
            keeper.mesh.change_policy(ReplicaPolicy(prefixes=(prefix,)))
            await wait_ids(keeper, {value.id for value in inside})
            await upload(holder, later.edit("[]", with_header=True))
            await wait_ids(keeper, {later.id, *(value.id for value in inside)})
            await edit(holder, inside[0], "more")
            await keeper.wait_counts({inside[0].id: {inside[0].session_id: 2}})
        # What is here already is not read again.
        async with connected(holder, keeper):
            await wait_until(
                lambda: sum(m.updates_received for m in keeper.mesh.statistics().members) > 0
            )
            await trio.testing.wait_all_tasks_blocked(0.05)
            [member] = keeper.mesh.statistics().members
            assert member.blocks_fetched == 0


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (OwnerRule(OwnerKind.OWNER, GROUPS[0]), {OF_FIRST}),
        (OwnerRule(OwnerKind.GROUP, GROUPS[0]), {OF_FIRST}),
        (OwnerRule(OwnerKind.ACCOUNT, ACCOUNT), {OF_FIRST, OF_SECOND, *GROUPS}),
    ],
)
async def test_owners_are_followed(rule: OwnerRule, wanted: set[str]) -> None:
    """With what it takes to check them: their group, and the accounts of their authors."""
    contents = recorded_contents("01-create-upload.jsonl")
    policy = ReplicaPolicy(owners=frozenset([rule]))
    async with open_mesh_node(1) as holder, open_mesh_node(2, policy=policy) as keeper:
        await upload_filler(holder, 250)
        await upload(holder, *contents)
        async with connected(holder, keeper):
            dependencies = {GROUPS[0], ACCOUNT}
            await wait_ids(keeper, wanted | dependencies)
            for co_id in wanted:
                held = await holder.host.known_state(RawCoId(co_id))
                assert await keeper.host.known_state(RawCoId(co_id)) == held
            report = await explained(keeper, OF_FIRST)
            assert report["why"] == [f"it is followed ({rule.text})"]
            assert report["owner"] == GROUPS[0]


async def test_who_follows_an_owner_is_in_step_once_it_has_all_that_is_owned() -> None:
    policy = ReplicaPolicy(owners=frozenset([OwnerRule(OwnerKind.OWNER, GROUPS[0])]))
    async with open_mesh_node(1) as holder, open_mesh_node(2, policy=policy) as keeper:
        await upload_filler(holder, 250)
        await upload(holder, *recorded_contents("01-create-upload.jsonl"))
        async with connected(holder, keeper):
            with trio.fail_after(20):
                while not keeper.mesh.sync_state().is_done:
                    await keeper.mesh.wait_sync_changed()
            assert await keeper.counts(RawCoId(OF_FIRST))


async def test_a_value_of_an_owner_that_comes_later() -> None:
    contents = recorded_contents("01-create-upload.jsonl")
    rule = OwnerRule(OwnerKind.GROUP, GROUPS[1])
    policy = ReplicaPolicy(owners=frozenset([rule]))
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=policy) as keeper,
        connected(holder, keeper),
    ):
        await upload(holder, *contents, Author(1).created("of nobody"))
        await wait_ids(keeper, {OF_SECOND, GROUPS[1], ACCOUNT})


async def deny_id(node: MeshNode) -> None:
    node.mesh.change_policy(ReplicaPolicy(everything=True, denied=frozenset([OF_FIRST])))


async def deny_prefix(node: MeshNode) -> None:
    node.mesh.change_policy(ReplicaPolicy(everything=True, denied_prefixes=(OF_FIRST[:8],)))


async def deny_owner(node: MeshNode) -> None:
    rules = frozenset([OwnerRule(OwnerKind.OWNER, GROUPS[0])])
    node.mesh.change_policy(ReplicaPolicy(everything=True, denied_owners=rules))


@pytest.mark.parametrize("deny", [deny_id, deny_prefix, deny_owner])
async def test_what_is_denied_comes_when_it_is_allowed_again(
    deny: Callable[[MeshNode], Awaitable[None]],
) -> None:
    contents = recorded_contents("01-create-upload.jsonl")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as keeper:
        await deny(keeper)
        await upload(holder, *contents)
        async with connected(holder, keeper):
            others = await ids_of(holder) - {OF_FIRST}
            await wait_ids(keeper, others)
            async with subscribed(keeper, OF_FIRST):
                assert await keeper.host.load(OF_FIRST) is None, "whoever asks"
            report = await explained(keeper, OF_FIRST)
            assert not report["is_here"]
            assert [holder["name"] for holder in report["holders"]] == ["node 1"]
            [reason] = report["why_not"]
            assert "denied by" in reason
            keeper.mesh.change_policy(ReplicaPolicy(everything=True))
            await wait_ids(keeper, {*others, OF_FIRST})


@pytest.mark.parametrize("denied", [ACCOUNT, GROUPS[0]])
async def test_what_others_depend_on_comes_with_them_though_it_is_denied(denied: str) -> None:
    """Else they could not be kept, and the member would seem to have announced what it lacks."""
    policy = ReplicaPolicy(everything=True, denied=frozenset([RawCoId(denied)]))
    async with open_mesh_node(1) as holder, open_mesh_node(2, policy=policy) as keeper:
        await upload(holder, *recorded_contents("01-create-upload.jsonl"))
        async with connected(holder, keeper):
            await wait_ids(keeper, await ids_of(holder))
            [member] = keeper.mesh.members.values()
            assert member.conduct.undelivered == 0


async def test_large_values_are_not_followed_but_loaded() -> None:
    author = Author(1)
    small, large = author.value("small"), author.value("large")
    policy = ReplicaPolicy(everything=True, max_value_bytes=100_000)
    async with open_mesh_node(1) as holder, open_mesh_node(2, policy=policy) as keeper:
        text = '["' + "x" * 50_000 + '"]'
        await upload(holder, large.edit(text, text, text, with_header=True))
        await upload(holder, small.edit(text, with_header=True))
        async with connected(holder, keeper):
            await wait_ids(keeper, {small.id})
            report = await explained(keeper, large.id)
            [reason] = report["why_not"]
            assert "too large: about 1" in reason
            assert "at most 100000 are followed" in reason
            assert await keeper.host.load(large.id) is not None
            assert (await explained(keeper, large.id))["why_not"] == []


async def test_old_values_are_not_followed() -> None:
    """Their last change was made in 2023, as their author's clock says."""
    policy = ReplicaPolicy(everything=True, max_age_seconds=86_400)
    value = Author(1).value("old")
    async with open_mesh_node(1) as holder, open_mesh_node(2, policy=policy) as keeper:
        await upload(holder, value.edit("[]", with_header=True))
        async with connected(holder, keeper):
            await wait_until(lambda: keeper.mesh.screening.not_taken(value.id) is not None)
            report = await explained(keeper, value.id)
            [reason] = report["why_not"]
            assert "too old: changed" in reason
            assert await ids_of(keeper) == set()
            keeper.mesh.change_policy(ReplicaPolicy(everything=True))
            await wait_ids(keeper, {value.id})


def with_rule(number: int, rule: PeerRule, *, everything: bool = False) -> ReplicaPolicy:
    return ReplicaPolicy(everything, peers=PeerRules({f"node {number}": rule}))


@pytest.mark.parametrize("direction", Direction)
async def test_one_way_rules(direction: Direction) -> None:
    mine, theirs = Author(1).value("mine"), Author(2).value("theirs")
    policy = with_rule(1, PeerRule(direction), everything=True)
    other = ReplicaPolicy(everything=True)
    async with open_mesh_node(1, policy=other) as left, open_mesh_node(2, policy=policy) as right:
        await upload(left, theirs.edit("[]", with_header=True))
        await upload(right, mine.edit("[]", with_header=True))
        async with connected(left, right):
            await wait_ids(right, {mine.id, theirs.id} if direction.takes else {mine.id})
            await wait_ids(left, {mine.id, theirs.id} if direction.gives else {theirs.id})
            if not direction.takes:
                assert await right.host.load(theirs.id) is None
            if not direction.gives:
                assert await left.host.load(mine.id) is None


@pytest.mark.parametrize("direction", [Direction.DOWN, Direction.OFF])
async def test_who_is_being_let_in_is_told_of_nothing_that_it_is_not_given(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It says what it wants to hear of while its data core is still being opened here."""
    value = Author(1).value("mine")
    async with (
        open_mesh_node(1, policy=ReplicaPolicy(everything=True)) as left,
        open_mesh_node(2, policy=with_rule(1, PeerRule(direction))) as right,
    ):
        await upload(right, value.edit("[]", with_header=True))
        get_core = right.cores.get

        async def get_later(*, key: bytes, encryption_key: bytes | None = None) -> Core:
            await trio.sleep(1)
            return await get_core(key=key, encryption_key=encryption_key)

        monkeypatch.setattr(right.cores, "get", get_later)
        async with connected(left, right):
            await trio.sleep(5)
            [member] = left.mesh.statistics().members
            assert member.updates_received == 0


async def test_a_rule_that_changes_ends_the_connection() -> None:
    async with open_mesh_node(1) as left, open_mesh_node(2) as right, connected(left, right):
        right.mesh.change_policy(with_rule(1, PeerRule(Direction.DOWN)))
        await wait_until(lambda: bool(right.goodbyes))
        assert right.goodbyes == ["by its rule or budget the exchange is now down, and was both"]


async def test_since_when_and_from_whom() -> None:
    author = Author(1)
    value, own = author.value("theirs"), author.value("own")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as keeper:
        await upload(holder, value.edit("[]", with_header=True))
        await upload(keeper, own.edit("[]", with_header=True))
        async with connected(holder, keeper):
            assert await keeper.host.load(value.id) is not None
            for _ in range(2):  # noted, then written
                report = await explained(keeper, value.id)
                came = report["came_unix"]
                assert report["came_from"] == f"node {holder.identity.public_key.hex()}"
                assert report["updated_unix"] == came
                assert report["transactions"] == 1
                [held] = report["holders"]
                assert (held["transactions"], held["ahead"], held["behind"]) == (1, 0, 0)
                await keeper.mesh.provenance.flush()
            await edit(holder, value, "ahead")
            [held] = (await explained(keeper, value.id))["holders"]
            assert (held["ahead"], held["behind"]) == (1, 0)
            report = await explained(keeper, own.id)
            assert (report["came_from"], report["updated_from"], report["holders"]) == (
                None,
                None,
                [],
            )
            assert report["came_unix"] != (None, None)
            unknown = Author(3).value("nowhere").id
            assert not (await explained(keeper, unknown))["found"]
            with pytest.raises(VerbError, match="is no coValue id"):
                await explained(keeper, "x")


async def test_what_a_client_adds_to_a_value_of_a_member_came_from_no_node() -> None:
    value = Author(1).value("shared")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as keeper:
        await upload(holder, value.edit("[]", with_header=True))
        holder.mesh.change_policy(ReplicaPolicy(pinned=frozenset([value.id])))
        async with connected(holder, keeper):
            assert await keeper.host.load(value.id) is not None
            name = f"node {holder.identity.public_key.hex()}"
            await edit(keeper, value, "of a client")
            for _ in range(2):  # noted, then written
                report = await explained(keeper, value.id)
                assert (report["came_from"], report["updated_from"]) == (name, None)
                assert report["updated_unix"] != report["came_unix"]
                await keeper.mesh.provenance.flush()
            await holder.wait_counts({value.id: {value.session_id: 2}})
            report = await explained(holder, value.id)
            assert report["came_from"] is None
            assert report["updated_from"] == f"node {keeper.identity.public_key.hex()}"


async def test_times_of_what_clients_wrote(autojump_clock: trio.testing.MockClock) -> None:
    author = Author(1)
    values: list[Value] = [author.value(f"{number}") for number in range(3)]
    contents: list[Content] = [value.edit("[]", with_header=True) for value in values]
    async with open_mesh_node(1) as node:
        for content in contents:
            await upload(node, content)
            await trio.sleep(61)
        marks = [(await explained(node, value.id))["came_unix"] for value in values]
        assert all(mark[0] is not None for mark in marks[1:])
        assert all(mark[1] is not None for mark in marks[:-1])


async def test_a_used_up_budget_ends_the_exchange() -> None:
    policy = with_rule(1, PeerRule(day_bytes=1000))
    async with (
        open_mesh_node(1) as left,
        open_mesh_node(2, policy=policy) as right,
        connected(left, right),
    ):
        member_id = left.identity.public_key
        await right.mesh.exchange.count(member_id, 999)
        assert right.mesh.exchange.due(member_id, "node 1") is Direction.BOTH
        await right.mesh.exchange.count(member_id, 1)
        right.mesh.exchange.changed()
        await wait_until(lambda: bool(right.goodbyes))
        assert right.goodbyes == ["by its rule or budget the exchange is now off, and was both"]
        assert right.mesh.exchange.counted(member_id).month_bytes == 1000


async def test_brief_connections_use_up_a_budget_as_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = with_rule(1, PeerRule(day_bytes=1000))
    exchanged = 0
    traffic = Traffic(True, lambda: exchanged, trio.current_time, lambda: False)
    async with open_mesh_node(1) as left, open_mesh_node(2, policy=policy) as right:
        member_id = left.identity.public_key
        for _ in range(2):
            async with connected(left, right, traffic=traffic):
                assert right.mesh.members[member_id].direction is Direction.BOTH
                await trio.sleep(1)
                exchanged = 600
            exchanged = 0
        async with connected(left, right, traffic=traffic):
            assert right.mesh.members[member_id].direction is Direction.OFF
        assert right.mesh.exchange.counted(member_id).day_bytes == 1200


async def test_what_was_announced_while_there_was_no_room_comes_afterwards() -> None:
    """And whoever announced it is not blamed for it."""
    author = Author(1)
    before, *since = (author.value(f"value {number}") for number in range(MAX_UNDELIVERED + 2))
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=ReplicaPolicy(everything=True)) as keeper,
        connected(holder, keeper),
    ):
        await upload(holder, before.edit("[]", with_header=True))
        await wait_ids(keeper, {before.id})
        keeper.mesh.pause("no room")
        await upload(holder, *(value.edit("[]", with_header=True) for value in since))
        (member,) = keeper.mesh.members.values()
        await wait_until(lambda: member.session.announced_length == holder.data.durable_length)
        await wait_until(lambda: keeper.mesh.statistics().announced == 0)
        assert member.conduct.undelivered == 0
        keeper.mesh.resume()
        with trio.fail_after(20):
            await wait_ids(keeper, {before.id, *(value.id for value in since)})


async def test_a_damaged_store_that_cannot_be_listed_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found in review: one row of ours that could not be read ended the node."""
    async with open_mesh_node(1) as node, open_mesh_node(2) as follower:

        async def ids(prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
            for text in (prefix, after):
                if text:
                    raise CorruptStore(text, "a block is damaged")
                yield RawCoId(text)

        monkeypatch.setattr(node.store, "ids", ids)
        async with connected(node, follower):
            with capture_logs() as logs:
                follower.mesh.change_policy(ReplicaPolicy(prefixes=("co_z",)))
                await wait_until(lambda: any("cannot list" in entry["event"] for entry in logs))
            value = Author(1).created("later", "[]")
            assert not (await node.host.receive_content("test", [value])).refused
            await follower.wait_counts({value.co_id: dict(value.known_state.sessions)})
