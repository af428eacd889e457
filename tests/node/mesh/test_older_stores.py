"""What an older version stored, and is refused today, keeps no group from other nodes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from node.covalue.header import parse_header
from node.mesh.follow import MAX_READING_BYTES
from node.mesh.replicas import ReplicaPolicy
from tests.node.mesh.nodes import connected, open_mesh_node
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.stores import Appender

ANN, EVE = sorted((Author("ann"), Author("eve")), key=lambda who: who.agent_id, reverse=True)
GROUP = group_header(ANN.agent_id)
MAP = map_header("m", GROUP.id)
ODD = parse_header({**map_header("odd").fields, "meta": {"a": 0.000001}})
EVERYTHING = ReplicaPolicy(everything=True)


@pytest.mark.parametrize("size", [0, MAX_READING_BYTES])
async def test_a_group_that_names_a_value_that_clients_do_not_take_comes_over_without_that(
    size: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Other nodes refused the value, and waited for it with the group and all that is in it.

    Where hers was all that came with the header, they took nothing of the group.
    """
    founding = [role(ANN.agent_id, "admin"), role("everyone", "writer")]
    naming = [role(ODD.id, "reader"), role("filler", "x" * size)]
    assert EVE.session_id(as_agent=True) < ANN.session_id(as_agent=True), "hers comes first"
    async with (
        open_mesh_node(1) as older,
        open_mesh_node(2, policy=EVERYTHING) as node,
    ):
        appender = Appender()
        await appender.put(older.store, EVE.content(ODD, edits(1), as_agent=True))
        await appender.put(older.store, ANN.content(GROUP, founding, as_agent=True))
        hers = EVE.content(GROUP, naming, as_agent=True, with_header=False)
        await appender.put(older.store, hers)
        await appender.put(older.store, ANN.content(MAP, edits(2), as_agent=True))
        async with connected(node, older):
            ours = ANN.session_id(as_agent=True)
            await node.wait_counts({GROUP.id: {ours: 2}, MAP.id: {ours: 2}})
            with trio.fail_after(60):
                while not node.mesh.sync_state().is_done:
                    await node.mesh.wait_sync_changed()
            (member,) = node.mesh.members.values()
            assert member.conduct.fault() is None
            assert member.conduct.undelivered == 0
        assert await node.counts(ODD.id) == {}
