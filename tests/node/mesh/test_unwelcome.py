"""What a member holds and this node does not take, for reasons of its own: no fault of its."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio.testing

from node.access.gate import Gate
from node.access.policy import AccessPolicy
from node.cojson.host_options import HostOptions
from node.covalue.content import Content
from node.mesh.conduct import MAX_UNDELIVERED
from node.mesh.follow import MAX_READING_BYTES
from node.mesh.replicas import ReplicaPolicy
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until
from tests.node.mesh.test_mesh import upload
from tests.support.authors import Author as Owner
from tests.support.authors import edits, group_header, map_header, role

EVERYTHING = ReplicaPolicy(everything=True)
COUNT = 2 * MAX_UNDELIVERED
UNWELCOME = Author(1)
FOUNDER, STRANGER = Owner("founder"), Owner("stranger")


def denied_authors() -> tuple[list[Content], Gate, HostOptions]:
    contents = [UNWELCOME.created(f"{number}") for number in range(COUNT)]
    return contents, Gate(AccessPolicy.of(deny=[UNWELCOME.agent_id])), HostOptions()


def a_denied_founder() -> tuple[list[Content], Gate, HostOptions]:
    """Their group is not taken, and so nothing of it."""
    group = group_header(FOUNDER.agent_id)
    roles = [role(FOUNDER.agent_id, "admin"), role("everyone", "writer")]
    contents = [FOUNDER.content(group, roles, as_agent=True)]
    headers = [map_header(f"{number}", group.id) for number in range(COUNT)]
    contents += [STRANGER.content(header, edits(1), as_agent=True) for header in headers]
    return contents, Gate(AccessPolicy.of(deny=[FOUNDER.agent_id])), HostOptions()


def no_rights() -> tuple[list[Content], Gate, HostOptions]:
    """The other node does not ask for any."""
    group = group_header(FOUNDER.agent_id)
    contents = [FOUNDER.content(group, [role(FOUNDER.agent_id, "admin")], as_agent=True)]
    headers = [map_header(f"{number}", group.id) for number in range(COUNT)]
    contents += [STRANGER.content(header, edits(1), as_agent=True) for header in headers]
    return contents, Gate(), HostOptions(enforces_writes=True)


async def looked_through(holder: MeshNode, keeper: MeshNode) -> None:
    """Wait until the keeper has looked into all that the holder has."""

    def is_merged() -> bool:
        return keeper.mesh.catch_up.merged(holder.data.key).length == holder.data.length

    await wait_until(lambda: is_merged() and not keeper.mesh.statistics().announced)


SetUp = Callable[[], tuple[list[Content], Gate, HostOptions]]


@pytest.mark.parametrize("set_up", [denied_authors, a_denied_founder, no_rights])
async def test_who_holds_what_is_refused_here_stays(set_up: SetUp) -> None:
    contents, gate, options = set_up()
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=EVERYTHING, options=options, access=gate) as keeper,
    ):
        await upload(holder, *contents)
        assert holder.store.count() == len(contents)
        async with connected(holder, keeper):
            await looked_through(holder, keeper)
            [member] = keeper.mesh.members.values()
            assert member.conduct.undelivered == 0
            assert keeper.store.count() < COUNT
            assert not keeper.mesh.penalties.total


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_stranger_who_writes_much_to_a_value_does_not_keep_it_from_who_enforces_rights(
    *,
    is_begun: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What was read first of it was all the stranger's: it was refused, and no more was read."""
    stranger, owner = sorted((FOUNDER, STRANGER), key=lambda who: who.agent_id)
    group = group_header(owner.agent_id)
    header = map_header("m", group.id)
    begun = [
        owner.content(group, [role(owner.agent_id, "admin")], as_agent=True),
        owner.content(header, edits(1), as_agent=True),
    ]
    large = stranger.content(header, edits(2, size=MAX_READING_BYTES // 2), as_agent=True)
    more = owner.content(header, edits(2), after=1, as_agent=True, with_header=False)
    options = HostOptions(enforces_writes=True)
    stored = begun if is_begun else []
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2, policy=EVERYTHING, options=options, stored=stored) as keeper,
    ):
        for content in (*begun, large, more):
            await upload(holder, content)
        async with connected(holder, keeper):
            await keeper.wait_counts({header.id: {owner.session_id(as_agent=True): 2}})


@pytest.mark.parametrize("before", [0, 1])
async def test_who_holds_the_other_of_two_continuations_stays(before: int) -> None:
    """An author who wants to part two nodes has only to fork enough sessions."""
    headers = [map_header(f"forked {number}") for number in range(COUNT)]

    def branch(count: int, start: int) -> list[Content]:
        transactions = [*edits(before), *edits(count, start=start)]
        return [STRANGER.content(header, transactions, as_agent=True) for header in headers]

    async with (
        open_mesh_node(1, stored=branch(2, 100)) as holder,
        open_mesh_node(2, stored=branch(1, 200), policy=EVERYTHING) as keeper,
        connected(holder, keeper),
    ):
        await looked_through(holder, keeper)
        [member] = keeper.mesh.members.values()
        assert member.conduct.undelivered == 0
        assert len(await keeper.store.forks()) == COUNT
