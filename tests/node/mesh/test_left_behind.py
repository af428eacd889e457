"""A member that was away while another one compacted its log without a thought for it."""

from __future__ import annotations

from bee.bee import Bee
from hypercore import flat_tree
from node.covalue.keys import value_range
from node.mesh.replicas import ReplicaPolicy
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import connected, open_mesh_node, subscribed, wait_until

AUTHOR = Author(1)
OLD = [AUTHOR.created(f"old {number}") for number in range(100)]
MEANWHILE = [AUTHOR.created(f"meanwhile {number}") for number in range(100)]
SINCE = [AUTHOR.created(f"since {number}") for number in range(100)]
LATER = AUTHOR.created("later")


async def test_it_reads_the_log_as_it_is_now() -> None:
    """So is one that was put back to an older state than its last visit."""
    async with (
        open_mesh_node(1) as writer,
        open_mesh_node(2, policy=ReplicaPolicy(everything=True)) as full,
        open_mesh_node(3) as sparse,
        subscribed(sparse, SINCE[7].co_id, LATER.co_id),
    ):
        await writer.host.receive_content("test", OLD)
        async with connected(writer, full), connected(writer, sparse):
            await wait_until(lambda: full.store.count() == len(OLD))
            member = sparse.mesh.members[writer.identity.public_key]
            await wait_until(lambda: member.data is not None and member.data.length > 0)
        before = writer.data.length
        await writer.host.receive_content("test", MEANWHILE)
        await writer.host.receive_content("test", SINCE)
        bee = Bee(writer.data)
        for content in [*OLD, *MEANWHILE]:
            start, stop = value_range(content.co_id)
            await bee.erase(gte=start, lt=stop)
        await bee.compact()
        roots = flat_tree.full_roots(before)
        assert any(writer.data.read_node(root) is None for root in roots), "pruned"
        async with connected(writer, full), connected(writer, sparse):
            await wait_until(lambda: full.store.count() == len(OLD) + len(SINCE))
            await wait_until(lambda: sparse.store.count() > 0)
            await writer.host.receive_content("test", [LATER])
            await wait_until(lambda: full.store.count() == len(OLD) + len(SINCE) + 1)
            counts = {session_id: part.stop for session_id, part in LATER.new.items()}
            await sparse.wait_counts({LATER.co_id: counts})
        for node in (full, sparse):
            assert not node.mesh.penalties.total
            assert not node.mesh.witness.forked_cores
