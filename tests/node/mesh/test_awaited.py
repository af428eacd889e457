"""What content of a client waits for may come later than anybody waits for an answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from node.cojson.messages import Load, Message, decode_line
from node.cojson.reports import Receipt
from node.covalue.content import PIECE_BYTES, Content, Transaction
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.mesh.replicas import ReplicaPolicy
from node.mesh.session import ANSWER_SECONDS
from tests.node.mesh.nodes import connected, open_mesh_node, wait_until
from tests.support.authors import Author, edits, group_header, map_header

ANN = Author("ann")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
MAP_OF_ALL = map_header("large")


async def test_an_account_that_nobody_has_when_it_is_asked_for_is_told_of_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    group = ANN.content(GROUP, edits(2))
    async with open_mesh_node(1) as near, open_mesh_node(2) as far, connected(near, far):
        with near.host.client("test") as client:
            messages: list[Message] = [group]
            await client.receive(messages)
            await wait_until(lambda: near.mesh.statistics().absent > 0)
            await trio.sleep(5)  # the word that it is not wanted any more would come by now
            receipt = await far.host.receive_content("test", [ANN.account()])
            assert not receipt.refused
            await near.wait_counts({GROUP.id: {ANN.session_id(): 2}})


async def test_an_answer_that_comes_when_the_question_was_given_up_counts_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 60253: who was cut off while it asked never got what it had asked for."""
    held = [ANN.account(), ANN.content(GROUP, edits(2))]
    async with (
        open_mesh_node(1) as near,
        open_mesh_node(2, stored=held) as far,
        connected(near, far) as line,
    ):
        await trio.sleep(60)
        healed_at = trio.current_time() + 2 * ANSWER_SECONDS
        deliver = line.send_all_hook
        assert deliver is not None

        async def hold() -> None:
            await trio.sleep_until(healed_at)
            await deliver()

        line.send_all_hook = hold
        with near.host.client("test") as client:
            messages: list[Message] = [ANN.content(MAP, edits(3))]
            await client.receive(messages)
            await near.wait_counts({MAP.id: {ANN.session_id(): 3}}, 60)


async def test_a_member_that_goes_on_answering_is_waited_for(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients were told that there was nothing when a member had many questions to answer first."""
    values = [map_header(name) for name in "abcd"]
    held = [ANN.content(header, edits(2), as_agent=True) for header in values]
    async with (
        open_mesh_node(1) as near,
        open_mesh_node(2, stored=held) as far,
        connected(near, far),
    ):
        known_state = far.host.known_state

        async def look_up(co_id: RawCoId) -> KnownState:
            await trio.sleep(0.6)
            return await known_state(co_id)

        monkeypatch.setattr(far.host, "known_state", look_up)
        with near.host.client("test") as client:
            for header in values:
                await client.receive([Load(header.id, NOTHING)])
                await trio.sleep(0.01)
            answers: list[Message | None] = []
            while len(answers) < len(values):
                await client.outbox.wake.wait()
                answers += map(decode_line, await client.next_lines(10**6))
        assert all(isinstance(answer, Content) for answer in answers)


async def test_a_large_value_that_moved_lately_is_brought_over_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that asks for it hears that it moved, too, and read it once for each of the two."""
    whole = edits(60, size=PIECE_BYTES)
    async with (
        open_mesh_node(1) as near,
        open_mesh_node(2) as far,
        connected(near, far),
    ):
        await far.host.receive_content("test", [ANN.content(MAP_OF_ALL, whole, as_agent=True)])
        brought: list[int] = []
        receive_content = near.host.receive_content

        async def count(source: str, contents: Sequence[Content]) -> Receipt:
            brought.append(
                sum(len(part.transactions) for content in contents for part in content.new.values())
            )
            return await receive_content(source, contents)

        monkeypatch.setattr(near.host, "receive_content", count)
        with near.host.client("test") as client:
            await client.receive([Load(MAP_OF_ALL.id, NOTHING)])
            session = ANN.session_id(as_agent=True)
            await near.wait_counts({MAP_OF_ALL.id: {session: len(whole)}}, 60)
            await trio.sleep(60)
        assert sum(brought) == len(whole)


async def test_what_else_is_asked_for_does_not_wait_for_a_value_that_is_being_fetched(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did, if one question was about both: for up to 30 s."""
    other = map_header("other")
    async with (
        open_mesh_node(1, policy=ReplicaPolicy(pinned=frozenset([MAP_OF_ALL.id]))) as near,
        open_mesh_node(2, stored=[ANN.content(other, edits(2), as_agent=True)]) as far,
        connected(near, far),
    ):
        receive_content = near.host.receive_content
        has_begun, may_end = trio.Event(), trio.Event()

        async def receive_when_allowed(source: str, contents: Sequence[Content]) -> Receipt:
            if any(content.co_id == MAP_OF_ALL.id for content in contents):
                has_begun.set()
                await may_end.wait()
            return await receive_content(source, contents)

        monkeypatch.setattr(near.host, "receive_content", receive_when_allowed)
        await far.host.receive_content("test", [ANN.content(MAP_OF_ALL, edits(2), as_agent=True)])
        await has_begun.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.mesh.find, [MAP_OF_ALL.id, other.id], {})
            await near.wait_counts({other.id: {ANN.session_id(as_agent=True): 2}})
            may_end.set()
        assert await near.counts(MAP_OF_ALL.id) == {ANN.session_id(as_agent=True): 2}


async def test_a_value_moves_on_though_a_large_one_is_still_being_fetched_beside_it(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its edits waited until the other one was here, from whomever they could have come."""
    other = map_header("other")
    whole = [Transaction(1000 + index, f'["{"x" * PIECE_BYTES}"]') for index in range(20)]
    large = [
        ANN.content(MAP_OF_ALL, whole[: stop + 1], after=stop, as_agent=True) for stop in range(20)
    ]
    session = ANN.session_id(as_agent=True)
    async with (
        open_mesh_node(1, policy=ReplicaPolicy(everything=True)) as near,
        open_mesh_node(2) as far,
    ):
        receive_content = near.host.receive_content
        has_begun, may_end = trio.Event(), trio.Event()

        async def receive_when_allowed(source: str, contents: Sequence[Content]) -> Receipt:
            if {content.co_id for content in contents} == {MAP_OF_ALL.id}:
                has_begun.set()
                await may_end.wait()
            return await receive_content(source, contents)

        monkeypatch.setattr(near.host, "receive_content", receive_when_allowed)
        small = ANN.content(other, edits(2), as_agent=True)
        await far.host.receive_content("test", [small, *large])
        async with connected(near, far):
            await has_begun.wait()
            await near.wait_counts({other.id: {session: 2}})
            edit = ANN.content(other, edits(3), after=2, as_agent=True, with_header=False)
            await far.host.receive_content("test", [edit])
            await near.wait_counts({other.id: {session: 3}}, 600)
            may_end.set()
            await near.wait_counts({MAP_OF_ALL.id: {session: len(whole)}}, 600)
