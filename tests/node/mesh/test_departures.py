"""Members that go while something is asked of them or read."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing
import trio

from node.cojson.host import SyncHost
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.mesh.membership import Membership
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until
from tests.node.mesh.test_mesh import upload, upload_filler


@pytest.mark.parametrize("steps", range(0, 60, 6))
async def test_a_member_may_go_in_the_middle_of_a_load(steps: int) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload_filler(holder, 500)
        value = Author(1).value("wanted")
        await upload(holder, value.edit("[]", with_header=True))
        async with trio.open_nursery() as nursery, connected(holder, asker):
            nursery.start_soon(asker.host.load, value.id)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        async with connected(holder, asker):
            assert await asker.host.load(value.id) is not None


@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
async def test_a_load_survives_a_gap_between_two_connections(pause: float) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        value = Author(1).value("wanted")
        await upload(holder, value.edit("[]", with_header=True))
        async with connected(holder, asker):
            pass
        found: list[bool] = []

        async def load() -> None:
            found.append(await asker.host.load(value.id) is not None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await trio.sleep(pause)
            async with connected(holder, asker):
                await wait_until(lambda: bool(found))
        assert found == [True]


class SlowHost:
    """A host that answers members' queries when it is let."""

    def __init__(self, host: SyncHost) -> None:
        self._host = host
        self.go_on = trio.Event()

    async def known_state(self, co_id: RawCoId) -> KnownState:
        await self.go_on.wait()
        return await self._host.known_state(co_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


async def test_a_question_is_put_again_when_a_connection_replaces_another() -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        value = Author(1).value("wanted")
        await upload(holder, value.edit("[]", with_header=True))
        slow = SlowHost(holder.host)
        holder.mesh.host = slow
        found: list[bool] = []
        both_are_up = trio.Event()

        async def load() -> None:
            found.append(await asker.host.load(value.id) is not None)

        async def connect_first() -> None:
            async with connected(holder, asker):
                nursery.start_soon(load)
                await both_are_up.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect_first)
            # One, or two if the value was wanted by the time that both compared what they hold.
            await wait_until(lambda: queries_asked(asker) >= 1)
            members = asker.mesh.members
            first = members[holder.identity.public_key]
            async with connected(asker, holder):
                await wait_until(lambda: members[holder.identity.public_key] is not first)
                both_are_up.set()
                await wait_until(lambda: first.close_reason is not None)
                slow.go_on.set()
                await wait_until(lambda: bool(found))
        assert found == [True]


async def test_members_that_come_and_go_are_logged() -> None:
    with structlog.testing.capture_logs() as events:
        async with open_mesh_node(1) as left, open_mesh_node(2) as right, connected(left, right):
            pass
    joined = [event for event in events if event["event"] == "member joined"]
    assert {(event["name"], event["role"]) for event in joined} == {
        ("node 1", "writer"),
        ("node 2", "writer"),
    }
    left_again = [event for event in events if event["event"] == "member left"]
    assert {event["name"] for event in left_again} == {"node 1", "node 2"}
    assert all(len(event["id"]) == 12 for event in events)


async def test_of_one_that_is_not_let_in_no_empty_name_is_logged() -> None:
    other = Membership("bees", b"other secret")
    with structlog.testing.capture_logs() as events:
        async with (
            open_mesh_node(1) as left,
            open_mesh_node(2, other) as right,
            connected(left, right, admitted=False),
        ):
            await wait_until(lambda: bool(left.goodbyes))
    refused = [event for event in events if event["event"] == "not admitted"]
    assert refused
    assert all(not {"name", "role"} & event.keys() for event in refused)


def queries_asked(node: MeshNode) -> int:
    return sum(member.queries_asked for member in node.mesh.statistics().members)
