"""Members that mean well and make a lot of work, or have a slow machine: nobody sends them away."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from node.mesh import conduct
from node.mesh.effort import Effort
from node.mesh.replicas import ReplicaPolicy
from node.mesh.session import MAX_OPEN_QUERIES
from tests.node.mesh import samples
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, subscribed

EVERYTHING = ReplicaPolicy(everything=True)
VALUES = 100
IDS = 30
PATIENCE_SECONDS = 3600
SLOWNESS = 300.0
"""What is done for a member takes so many times as long as here."""


class SlowMachine:
    """Says how slow the processor is, from now on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.slowness = SLOWNESS
        spend = Effort.spend

        def spend_longer(effort: Effort, seconds: float, now: float, size: int = 0) -> None:
            spend(effort, seconds * self.slowness, now, size)

        patch.setattr(Effort, "spend", spend_longer)


def is_at_peace(*nodes: MeshNode) -> bool:
    return all(node.mesh.penalties.total == 0 and len(node.mesh.members) == 1 for node in nodes)


async def test_a_full_replica_catches_up_on_a_slow_machine_and_compares_it_all(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowMachine(monkeypatch)
    values = [Author(1).value(f"value {number}") for number in range(VALUES)]
    async with (
        open_mesh_node(1, policy=EVERYTHING) as holder,
        open_mesh_node(2, policy=EVERYTHING) as replica,
    ):
        await holder.host.receive_content("test", [v.edit("[]", with_header=True) for v in values])
        wanted = {value.id: {value.session_id: value.count} for value in values}
        for _ in range(2):
            async with connected(holder, replica):
                async with subscribed(replica, *wanted):
                    await replica.wait_counts(wanted, PATIENCE_SECONDS)
                    await trio.sleep(60)
                # Edits on both sides, and nothing for a while.
                await holder.host.receive_content("test", [values[0].edit("[]")])
                wanted[values[0].id] = {values[0].session_id: values[0].count}
                await replica.wait_counts(wanted, PATIENCE_SECONDS)
                await trio.sleep(60)
                assert is_at_peace(holder, replica)
        assert holder.store.count() == replica.store.count()


async def test_a_cold_node_whose_clients_ask_for_what_is_nowhere_waits_and_stays(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct, "MAX_ABSENT", 100)
    slow = SlowMachine(monkeypatch)
    value = Author(1).value("here")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as cold:
        await holder.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(holder, cold):
            started = trio.current_time()
            for client in range(MAX_OPEN_QUERIES + 8):
                ids = [samples.co_id(IDS * client + number) for number in range(IDS)]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cold.mesh.find, ids, {})
                    nursery.start_soon(cold.mesh.find, [samples.co_id(client)], {})
            assert trio.current_time() - started > 30, "it is answered at once"
            assert is_at_peace(holder, cold)
            slow.slowness = 1
            await trio.sleep(300)
            assert await cold.host.load(value.id) is not None
            assert is_at_peace(holder, cold)
