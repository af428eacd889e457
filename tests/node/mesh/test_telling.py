"""What is told to whom, in full or in brief, and that nothing is lost by that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
import trio.testing

from node.covalue.content import Content
from node.mesh.hearsay import SECOND_SECONDS
from node.mesh.hearsay_messages import Brief, Neighbors, Unclear, short_name
from node.mesh.messages import Answer, Interest, MessageType, Query, Update, decode_message
from node.mesh.replicas import ReplicaPolicy
from node.mesh.telling import NEIGHBOR_SECONDS
from swarm.io.channel import Channel
from tests.node.mesh import samples
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node
from tests.node.mesh.test_serve import raw_member, receive_one

EVERYTHING = ReplicaPolicy(everything=True)


async def upload(node: MeshNode, content: Content) -> None:
    assert not (await node.host.receive_content("client", [content])).refused


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[MeshNode]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_mesh_node(number + 1, policy=EVERYTHING))
            for number in range(count)
        ]


@asynccontextmanager
async def all_connected(nodes: list[MeshNode]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number, one in enumerate(nodes):
            for other in nodes[number + 1 :]:
                await stack.enter_async_context(connected(one, other))
        await trio.sleep(4 * NEIGHBOR_SECONDS)  # all of them have said who their neighbors are
        yield


def updates_sent(node: MeshNode) -> int:
    return sum(member.updates_sent for member in node.mesh.statistics().members)


async def test_those_who_hear_of_an_edit_from_its_node_do_not_announce_it_to_one_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("shared")
    async with replicas(4) as nodes, all_connected(nodes):
        await upload(nodes[0], value.edit("[]", with_header=True))
        for node in nodes:
            await node.wait_counts({value.id: {value.session_id: 1}})
        await trio.sleep(2 * SECOND_SECONDS)
        assert [updates_sent(node) for node in nodes] == [3, 0, 0, 0]
        for node in nodes:
            # One of each two has said in brief how far it is, and the other knows it, therefore.
            state = node.mesh.sync_state()
            assert state.is_done, state.why
        known = sum(
            not member.acknowledgements.lacks(value.id, {value.session_id: 1})
            for node in nodes[1:]
            for member in node.mesh.members.values()
            if member.id != nodes[0].identity.public_key
        )
        assert known == 3


async def test_who_does_not_hear_of_an_edit_from_its_node_is_told_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("shared")
    async with replicas(3) as nodes, connected(*nodes[:2]), connected(*nodes[1:]):
        await trio.sleep(4 * NEIGHBOR_SECONDS)
        started = trio.current_time()
        await upload(nodes[0], value.edit("[]", with_header=True))
        await nodes[2].wait_counts({value.id: {value.session_id: 1}})
        assert trio.current_time() - started < 0.1
        assert [updates_sent(node) for node in nodes] == [1, 1, 0]


async def receive_each(channel: Channel, *wanted: MessageType) -> dict[int, object]:
    """The first messages of these types; a minute is enough for all that is tried again."""
    found: dict[int, object] = {}
    with trio.fail_after(60):
        while not found.keys() >= set(wanted):
            for number, payload in await channel.receive():
                if number in wanted:
                    found.setdefault(number, decode_message(number, payload))
    return found


@asynccontextmanager
async def listening(node: MeshNode, source: MeshNode) -> AsyncIterator[Channel]:
    """A member of `node` that says it is one of `source`, too, and is not."""
    async with connected(source, node), raw_member(node) as channel:
        channel.send(MessageType.INTEREST, Interest(everything=True).encode())
        neighbors = Neighbors((source.identity.public_key,))
        channel.send(MessageType.NEIGHBORS, neighbors.encode())
        await trio.sleep(NEIGHBOR_SECONDS)
        yield channel


async def test_who_has_not_heard_of_it_after_all_is_told_in_full(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("shared")
    name = short_name(value.id, value.session_id)
    async with replicas(2) as (source, node), listening(node, source) as channel:
        await upload(source, value.edit("[]", with_header=True))
        brief = await receive_one(channel, MessageType.BRIEF)
        assert brief == Brief(node.data.durable_length, ((name, 1),))
        channel.send(MessageType.UNCLEAR, Unclear((name, bytes(16))).encode())
        said = await receive_each(channel, MessageType.BRIEF, MessageType.UPDATE)
        assert said[MessageType.BRIEF] == Brief(0, ((bytes(16), 0),))
        update = said[MessageType.UPDATE]
        assert isinstance(update, Update)
        assert update.changes == ((value.id, {value.session_id: 1}),)


async def test_what_it_has_said_by_then_is_not_said_to_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("shared")
    name = short_name(value.id, value.session_id)
    async with replicas(2) as (source, node), listening(node, source) as channel:
        for count in (1, 2):
            await upload(source, value.edit("[]", with_header=count == 1))
            await node.wait_counts({value.id: {value.session_id: count}})
            if count == 1:
                channel.send(MessageType.BRIEF, Brief(1, ((name, 1),)).encode())
                await trio.sleep(2 * SECOND_SECONDS)
        brief = await receive_one(channel, MessageType.BRIEF)
        assert isinstance(brief, Brief)
        assert brief.counts == ((name, 2),), "the first one was not said"


async def test_a_name_that_says_nothing_is_asked_about(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1, policy=EVERYTHING) as node, raw_member(node) as channel:
        await receive_one(channel, MessageType.NEIGHBORS)
        channel.send(MessageType.BRIEF, Brief(3, ((b"x" * 16, 1),)).encode())
        assert await receive_one(channel, MessageType.UNCLEAR) == Unclear((b"x" * 16,))
        assert not node.mesh.sync_state().missing


async def test_what_is_said_in_brief_and_is_not_here_is_fetched() -> None:
    value = Author(1).value("shared")
    name = short_name(value.id, value.session_id)
    async with open_mesh_node(1, policy=EVERYTHING) as node, raw_member(node) as channel:
        await upload(node, value.edit("[]", with_header=True))
        await receive_one(channel, MessageType.NEIGHBORS)
        channel.send(MessageType.BRIEF, Brief(3, ((name, 5),)).encode())
        with trio.fail_after(20):
            while not node.mesh.sync_state().missing:
                await node.mesh.wait_sync_changed()


def _nothing(query: Query) -> bytes:
    return Answer(query.request_id, 0, tuple((co_id, None) for co_id in query.ids)).encode()


async def test_what_nobody_can_explain_any_more_is_found_by_comparing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wanted = samples.co_id(1)
    policy = ReplicaPolicy(pinned=frozenset((wanted,)))
    async with open_mesh_node(1, policy=policy) as node, raw_member(node) as channel:
        first = await receive_one(channel, MessageType.QUERY)
        assert isinstance(first, Query)
        channel.send(MessageType.BRIEF, Brief(0, ((b"x" * 16, 0),)).encode())
        channel.send(MessageType.ANSWER, _nothing(first))
        again = (await receive_each(channel, MessageType.QUERY))[MessageType.QUERY]
        assert isinstance(again, Query)
        assert again.ids == (wanted,)


async def test_an_older_node_is_told_in_full(autojump_clock: trio.testing.MockClock) -> None:
    value = Author(1).value("shared")
    async with replicas(2) as (source, node), connected(source, node), raw_member(node) as channel:
        channel.send(MessageType.INTEREST, Interest(everything=True).encode())
        await trio.sleep(4 * NEIGHBOR_SECONDS)
        await upload(source, value.edit("[]", with_header=True))
        update = await receive_one(channel, MessageType.UPDATE)
        assert isinstance(update, Update)
        assert update.changes == ((value.id, {value.session_id: 1}),)


async def test_an_edit_of_a_member_is_fetched_with_one_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("shared")
    async with replicas(2) as (source, node), connected(source, node):
        await upload(source, value.edit("[]", with_header=True))
        await node.wait_counts({value.id: {value.session_id: 1}})
        [core] = [core for core in node.cores.open_cores() if core.key == source.data.key]
        for count in (2, 3):
            before = core.replication.totals().requests_sent
            await upload(source, value.edit("[]"))
            await node.wait_counts({value.id: {value.session_id: count}})
            # The head and the last block, which is the root of the tree and holds the edit.
            assert core.replication.totals().requests_sent == before + 1
