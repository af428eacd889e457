"""What nodes say of how far they are in step, and what clients are told because of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from node.cojson.host_options import HostOptions
from node.cojson.messages import Known, Load, decode_line
from node.covalue.content import Content
from node.covalue.known_state import KnownState
from node.mesh.acknowledgements import MAX_TOLD_WHOLE
from node.mesh.copy_questions import FIRST_SECONDS
from node.mesh.copy_watch import LOOK_SECONDS, watch_copies
from node.mesh.hearsay_messages import Brief
from node.mesh.member_data import Cause
from node.mesh.messages import Interest, MessageType, Stored, Update
from node.mesh.peer_rules import LAN, Direction, PeerRule, PeerRules
from node.mesh.replicas import ReplicaPolicy
from node.mesh.sync_state import MemberSync, Obstacle, SyncState
from node.syncing import perform_on_sync
from node.verbs import ExitCode, Result, ShowSync, VerbError, WaitSync
from tests.node.mesh import samples
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, subscribed, wait_until
from tests.node.mesh.test_serve import raw_member, receive_one

EVERYTHING = ReplicaPolicy(everything=True)
FOLLOWS = ReplicaPolicy(prefixes=("co_z",))
TWO_COPIES = HostOptions(min_copies=2)


async def upload(node: MeshNode, *contents: Content) -> None:
    receipt = await node.host.receive_content("test", contents)
    assert not receipt.refused


async def wait_done(*nodes: MeshNode) -> None:
    with trio.fail_after(20):
        for node in nodes:
            while not node.mesh.sync_state().is_done:
                await node.mesh.wait_sync_changed()


async def results(node: MeshNode, verb: ShowSync | WaitSync) -> list[Result]:
    return [result async for result in perform_on_sync(node.host, node.mesh, verb)]


async def acknowledged(node: MeshNode, value: Value, *contents: Content) -> None:
    """As a client: send these, and return when it is told that all of the value is synced."""
    with node.host.client("test") as link:
        full = KnownState(True, {value.session_id: value.count})
        await link.receive(contents or [Load(value.id, full)])
        while True:
            for line in await link.next_lines(10_000):
                message = decode_line(line)
                if isinstance(message, Known) and message.known.covers(full):
                    return
            await link.outbox.wake.wait()


@pytest.mark.parametrize("direction", [Direction.UP, Direction.OFF])
async def test_who_takes_nothing_has_nothing_to_compare(direction: Direction) -> None:
    author = Author(1)
    rules = PeerRules({LAN: PeerRule(direction)})
    async with (
        open_mesh_node(1, policy=EVERYTHING) as left,
        open_mesh_node(2, policy=replace(EVERYTHING, peers=rules)) as right,
    ):
        await upload(left, author.created("not taken"))
        async with connected(left, right):
            await wait_done(right)
            assert right.mesh.sync_state().held == 0


async def test_who_begins_to_keep_everything_has_what_was_written_just_before(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Of it only what moved last is announced; heads are looked at ten seconds later, and what
    came with them was found after five minutes."""
    monkeypatch.setattr("node.mesh.telling.MAX_RECENT", 5)
    values = [Author(1).value(f"kept {number}") for number in range(30)]
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2) as keeper,
        connected(holder, keeper),
    ):
        await trio.sleep(60)
        for value in values:
            await upload(holder, value.edit("[]", with_header=True))
        await trio.sleep(1)
        keeper.mesh.change_policy(EVERYTHING)
        await keeper.wait_counts({value.id: {value.session_id: 1} for value in values})


@pytest.mark.parametrize("keeps", ["pins", "everything"])
async def test_who_is_to_keep_more_is_in_step_once_it_has_it(
    keeps: str, autojump_clock: trio.testing.MockClock
) -> None:
    """`beemesh policy set all` and then `beemesh sync wait` said so at once, with nothing here."""
    values = [Author(1).value(f"kept {number}") for number in range(30)]
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2) as keeper,
        connected(holder, keeper),
    ):
        await upload(holder, *(value.edit("[]", with_header=True) for value in values))
        await trio.sleep(30)
        await wait_done(keeper)
        pins = ReplicaPolicy(pinned=frozenset(value.id for value in values))
        policy = pins if keeps == "pins" else EVERYTHING
        keeper.mesh.change_policy(policy)
        await wait_done(keeper)
        for value in values:
            assert await keeper.counts(value.id) == {value.session_id: 1}


async def test_who_follows_is_in_step_once_it_has_all_that_it_follows() -> None:
    """It said so after a millisecond, with nothing here: nobody had told it of anything yet."""
    values = [Author(1).value(f"followed {number}") for number in range(100)]
    async with open_mesh_node(1) as holder, open_mesh_node(2, policy=FOLLOWS) as follower:
        await upload(holder, *(value.edit("[]", with_header=True) for value in values[:50]))
        async with connected(holder, follower):
            await wait_done(follower)
            assert follower.mesh.sync_state().held == 50
            follower.mesh.change_policy(ReplicaPolicy())
            await wait_done(follower)
            await upload(holder, *(value.edit("[]", with_header=True) for value in values[50:]))
            follower.mesh.change_policy(FOLLOWS)
            await wait_done(follower)
            assert follower.mesh.sync_state().held == 100


@pytest.mark.parametrize("direction", [Direction.DOWN, Direction.OFF])
async def test_who_is_given_nothing_does_not_wait_to_be_told_all(direction: Direction) -> None:
    rules = PeerRules({LAN: PeerRule(direction)})
    async with (
        open_mesh_node(1, policy=ReplicaPolicy(peers=rules)) as left,
        open_mesh_node(2, policy=FOLLOWS) as right,
    ):
        await upload(left, Author(1).created("kept to itself"))
        async with connected(left, right):
            await wait_done(right)


async def test_who_had_no_room_for_all_that_it_was_told_is_in_step_when_it_has_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("node.mesh.announcements.MAX_MEMBER_SESSIONS", 20)
    values = [Author(1).value(f"followed {number}") for number in range(15)]
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=FOLLOWS) as follower,
    ):
        await upload(holder, *(value.edit("[]", with_header=True) for value in values))
        async with connected(holder, follower):
            await wait_done(follower)
            assert follower.mesh.sync_state().held == 15


@pytest.mark.parametrize("policy", [EVERYTHING, FOLLOWS])
async def test_who_has_no_room_on_its_disk_is_not_in_step_before_it_has(
    policy: ReplicaPolicy, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=policy) as keeper,
        connected(holder, keeper),
    ):
        await wait_done(keeper)
        keeper.mesh.pause("no room")
        await upload(holder, Author(1).created("too much"))
        await trio.sleep(30)
        assert not keeper.mesh.sync_state().is_done
        keeper.mesh.resume()
        await wait_done(keeper)
        assert keeper.mesh.sync_state().held == 1


async def test_what_could_not_be_read_is_not_done(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=EVERYTHING) as keeper,
        connected(holder, keeper),
    ):
        await wait_done(keeper)
        [member] = keeper.mesh.members.values()
        member.read_failed(trio.current_time(), Cause.MISSING)
        assert not keeper.mesh.sync_state().is_done
        await wait_done(keeper)


async def test_what_a_member_cannot_name_any_more_is_not_done() -> None:
    async with open_mesh_node(1, policy=EVERYTHING) as node, raw_member(node) as channel:
        [member] = node.mesh.members.values()
        member.acknowledgements.is_compared = True
        channel.send(MessageType.BRIEF, Brief(1, ((bytes(16), 0),)).encode())
        await wait_until(lambda: not member.acknowledgements.is_compared)


async def test_who_begins_to_keep_everything_is_in_step_with_what_was_written_just_before(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("node.mesh.telling.MAX_RECENT", 5)
    values = [Author(1).value(f"kept {number}") for number in range(30)]
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2) as keeper,
        connected(holder, keeper),
    ):
        await trio.sleep(60)
        await wait_done(keeper)
        for value in values:
            await upload(holder, value.edit("[]", with_header=True))
        keeper.mesh.change_policy(EVERYTHING)
        await wait_done(keeper)
        assert keeper.mesh.sync_state().held == 30


async def test_replicas_catch_up_and_are_in_step_then_and_after_each_edit() -> None:
    author = Author(1)
    old = [author.created(f"old {number}") for number in range(40)]
    async with (
        open_mesh_node(1, policy=EVERYTHING) as left,
        open_mesh_node(2, policy=EVERYTHING) as right,
    ):
        await upload(left, *old[:30])
        await upload(right, *old[30:])
        assert not left.mesh.sync_state().is_done
        assert "no member" in left.mesh.sync_state().why
        async with connected(left, right):
            await wait_done(left, right)
            for node in (left, right):
                state = node.mesh.sync_state()
                assert (state.held, state.missing, state.wanted, state.why) == (40, 0, 40, "")
                [member] = state.members
                assert member.merged == member.length
                assert member.merged_there is not None
                assert member.merged_there >= member.ours
                assert member.state == "in step"
            [before] = left.mesh.statistics().members
            value = author.value("live")
            await upload(left, value.edit("[]", with_header=True))
            for _ in range(5):
                await upload(left, value.edit("[]"))
            await right.wait_counts({value.id: {value.session_id: 6}})
            await wait_done(left, right)
            # What somebody told us it is not told back.
            [seen] = left.mesh.statistics().members
            assert seen.updates_received == before.updates_received


async def test_who_catches_up_with_much_may_say_so_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever came to a mesh of more than 50,000 values to keep all was sent away at that."""
    monkeypatch.setattr("node.mesh.conduct.MAX_IDLE_WORDS", 3)
    old = [Author(1).created(f"old {number}") for number in range(40)]
    async with open_mesh_node(1, stored=old) as left, open_mesh_node(2, policy=EVERYTHING) as right:
        async with connected(left, right):
            await wait_done(left, right)
            assert right.store.count() == 40
        assert not left.mesh.penalties.total


async def test_until_a_member_acknowledges_it_is_not_in_step() -> None:
    value = Author(1).value("wanted")
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        held = Stored(5, 0, ((samples.co_id(1), {}),))
        channel.send(MessageType.STORED, held.encode())
        channel.send(MessageType.INTEREST, Interest(added=(value.id,)).encode())
        await wait_done(node)
        assert await receive_one(channel, MessageType.STORED) == Stored(node.data.durable_length)
        await upload(node, value.edit("[]", "[]", with_header=True))
        await receive_one(channel, MessageType.UPDATE)
        [member] = node.mesh.sync_state().members
        assert (member.unacknowledged, member.state, member.left) == (1, "sending", 1)
        for count, left in ((1, 1), (2, 0)):
            counts = ((value.id, {value.session_id: count}),)
            channel.send(MessageType.STORED, Stored(6, 0, counts).encode())
            with trio.fail_after(20):
                await node.mesh.wait_sync_changed()
            assert node.mesh.sync_state().left == left
        await upload(node, value.edit("[]"))
        await receive_one(channel, MessageType.UPDATE)
        channel.send(MessageType.STORED, Stored(6, 0, ((value.id, None),)).encode())
        await wait_done(node)
        [member] = node.mesh.sync_state().members
        assert member.declined == 1


async def test_what_was_announced_is_acknowledged_when_it_is_durable_here() -> None:
    value = Author(1).value("shared")
    async with open_mesh_node(1) as source, open_mesh_node(2) as node:
        await upload(source, value.edit("[]", "[]", with_header=True))
        async with connected(source, node), subscribed(node, value.id):
            await node.wait_counts({value.id: {value.session_id: 2}})
            await wait_done(source, node)
            await upload(source, value.edit("[]"))
            await node.wait_counts({value.id: {value.session_id: 3}})
            await wait_done(source, node)


async def test_a_claim_that_is_not_delivered_is_counted_and_not_acknowledged() -> None:
    claimed = samples.co_id(1)
    async with open_mesh_node(1, policy=EVERYTHING) as node, raw_member(node) as channel:
        changes = ((claimed, {samples.session_id(1): 3}),)
        channel.send(MessageType.UPDATE, Update(5, changes).encode())
        await wait_until(lambda: node.mesh.sync_state().missing == 1)
        [member] = node.mesh.sync_state().members
        assert not node.mesh.sync_state().is_done
        assert (member.missing, member.state) == (1, "comparing")


async def test_copies_are_waited_for_and_told_when_a_member_holds_them() -> None:
    value = Author(1).value("precious")
    async with (
        open_mesh_node(1, options=TWO_COPIES) as node,
        open_mesh_node(2, policy=EVERYTHING) as keeper,
        open_mesh_node(3) as idler,
    ):
        created = value.edit("[]", with_header=True)
        with trio.move_on_after(0.2) as lonely:
            await acknowledged(node, value, created)
        assert lonely.cancelled_caught
        assert (await node.host.known_state(value.id)).sessions == {value.session_id: 1}
        async with connected(node, idler):
            with trio.move_on_after(0.2) as idle:
                await acknowledged(node, value)
            assert idle.cancelled_caught
            async with connected(node, keeper):
                with trio.fail_after(20):
                    await acknowledged(node, value)
                    await acknowledged(node, value, value.edit("[]"))
                assert dict(await keeper.counts(value.id)) == {value.session_id: 2}
        assert node.host.copies.held_back == 0


async def test_an_edit_of_a_value_that_very_many_wrote_to_is_acknowledged_alone_and_at_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: each edit of it was acknowledged with all its sessions."""
    replies: list[Stored] = []
    encode = Stored.encode

    def record(reply: Stored) -> bytes:
        replies.append(reply)
        return encode(reply)

    monkeypatch.setattr(Stored, "encode", record)
    author = Author(1)
    value = author.value("popular")
    created = [value.edit("[]", with_header=True)]
    created += [author.joined(value).edit("[]") for _ in range(2 * MAX_TOLD_WHOLE)]
    async with (
        open_mesh_node(1, options=TWO_COPIES) as node,
        open_mesh_node(2, policy=EVERYTHING) as keeper,
        connected(node, keeper),
    ):
        await acknowledged(node, value, *created)
        replies.clear()
        for _ in range(3):
            started = trio.current_time()
            await acknowledged(node, value, value.edit("[]"))
            assert trio.current_time() - started < FIRST_SECONDS / 2
        told = [held for reply in replies for _, held in reply.values]
        assert told == [{value.session_id: count} for count in (2, 3, 4)]


async def test_members_are_not_asked_each_second_for_copies_that_do_not_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found in review: of a large value each question and answer had megabytes."""
    value = Author(1).value("nobody else's")
    async with (
        open_mesh_node(1, options=TWO_COPIES) as node,
        open_mesh_node(2) as idler,
        connected(node, idler),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(acknowledged, node, value, value.edit("[]", with_header=True))
        await trio.sleep(10)
        member = node.mesh.members[idler.identity.public_key]
        before = member.statistics().queries_asked
        await trio.sleep(120)
        assert 1 <= member.statistics().queries_asked - before <= 5
        nursery.cancel_scope.cancel()


async def test_a_waiting_client_shows_in_the_state() -> None:
    value = Author(1).value("precious")
    async with open_mesh_node(1, options=TWO_COPIES) as node, trio.open_nursery() as nursery:
        nursery.start_soon(acknowledged, node, value, value.edit("[]", with_header=True))
        await wait_until(lambda: node.mesh.sync_state().waiting == 1)
        state = node.mesh.sync_state()
        assert not state.is_done
        assert "1 acknowledgements wait for copies" in state.why
        nursery.cancel_scope.cancel()


async def test_it_is_said_that_members_keep_too_few_of_the_values_that_clients_wait_for() -> None:
    value = Author(1).value("nobody else's")
    async with (
        open_mesh_node(1, options=TWO_COPIES) as node,
        open_mesh_node(2) as idler,
        open_mesh_node(3) as keeper,
        connected(node, idler),
        connected(node, keeper),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(acknowledged, node, value, value.edit("[]", with_header=True))
        await wait_until(lambda: node.mesh.sync_state().unkept == 1)
        assert "run them with --replicate all" in node.mesh.sync_state().why
        keeper.mesh.change_policy(FOLLOWS)
        await wait_until(lambda: node.mesh.sync_state().unkept == 0)
        assert "--replicate all" not in node.mesh.sync_state().why


async def test_copies_that_nobody_makes_are_warned_of_once_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found = [0, 1, 0, 1, 1, 1, 0, 1, 1]
    state = SyncState(3, 0, 2, 7, (member(),), unkept=1)
    with trio.move_on_after(LOOK_SECONDS * (len(found) + 0.5)), capture_logs() as logs:
        await watch_copies(lambda: found.pop(0), lambda: state)
    assert not found
    assert [(log["log_level"], log["acknowledgements"], log["members"]) for log in logs] == [
        ("warning", 7, 1),
        ("warning", 7, 1),
    ]


async def test_waiting_for_values_brings_them_and_counts_their_copies() -> None:
    value = Author(1).value("wanted")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as node:
        await upload(holder, value.edit("[]", "[]", with_header=True))
        async with connected(holder, node):
            lines = await results(node, WaitSync((value.id,), 2, 5))
            assert lines[-1] == {
                "wanted": 1,
                "held": 1,
                "copied": 1,
                "copies": 2,
                "min_copies": 2,
                "nodes": 2,
                "is_done": True,
            }
            assert dict(await node.counts(value.id)) == {value.session_id: 2}
            assert (await results(node, WaitSync()))[-1]["is_done"]
            [shown] = await results(node, ShowSync())
            assert shown["is_done"]
        assert (await results(node, WaitSync((value.id,))))[-1]["copies"] == 1


@pytest.mark.parametrize(
    ("ids", "copies", "code", "text"),
    [
        ((samples.co_id(7),), 0, ExitCode.NOT_FOUND, "neither here nor at any of 0"),
        (("co_nonsense",), 0, ExitCode.USAGE, "no coValue id"),
        ((), 0, ExitCode.TIMEOUT, "no member is connected"),
        (None, 2, ExitCode.TIMEOUT, "0 on 2 nodes; 1 nodes are connected"),
    ],
)
async def test_a_wait_that_fails_says_why(
    ids: Sequence[str] | None, copies: int, code: ExitCode, text: str
) -> None:
    value = Author(1).value("mine")
    async with open_mesh_node(1) as node:
        await upload(node, value.edit("[]", with_header=True))
        verb = WaitSync((value.id,) if ids is None else tuple(ids), copies, 0.2)
        with pytest.raises(VerbError, match=text) as failed:
            await results(node, verb)
        assert failed.value.code is code


def member(**changes: object) -> MemberSync:
    facts: dict[str, object] = {
        "id": "ab" * 32, "name": "b", "is_frozen": False, "is_compared": True,
        "missing": 0, "undelivered": 0,
        "acknowledges": True, "unacknowledged": 0, "is_partial": False, "declined": 0,
        "length": 10, "merged": 10, "ours": 5, "merged_there": 5,
        "blocks_fetched": 0, "bytes_fetched": 0,
    }  # fmt: skip
    return MemberSync(**{**facts, **changes})  # type: ignore[arg-type]  # as the test says


@pytest.mark.parametrize(
    ("changes", "state", "left"),
    [
        ({}, "in step", 0),
        ({"is_compared": False}, "comparing", 0),
        ({"is_compared": False, "obstacle": Obstacle.PAUSED}, "paused, there is no room", 0),
        ({"missing": 2}, "fetching", 2),
        ({"merged": 7}, "fetching", 3),
        ({"merged": None, "merged_there": None}, "in step", 0),
        ({"unacknowledged": 4}, "sending", 4),
        ({"merged_there": 1}, "sending", 4),
        ({"acknowledges": False}, "does not acknowledge", 0),
        ({"is_frozen": True, "missing": 2}, "forked", 2),
    ],
)
def test_one_definition_of_done(changes: dict[str, object], state: str, left: int) -> None:
    one = member(**changes)
    assert (one.state, one.left, one.is_done) == (state, left, state == "in step")
    node = SyncState(3, one.missing, 1, 0, (member(), one))
    # A member whose log is forked is not waited for.
    assert node.is_done is (one.is_done or one.is_frozen)
    assert (node.why == "") is node.is_done
    assert not SyncState(3, 0, 1, 1, (one,)).is_done


def test_a_copy_that_a_forked_member_cannot_hold_is_said_to_be_lacking() -> None:
    node = SyncState(3, 0, 3, 0, (member(), member(is_frozen=True)))
    assert not node.is_done
    assert "3 copies wanted, 2 nodes can hold them" in node.why
    assert SyncState(3, 0, 2, 0, node.members).is_done
