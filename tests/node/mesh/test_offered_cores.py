"""Which cores members open with one another."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until


def readers(node: MeshNode, owner: MeshNode) -> int:
    """With how many peers `node` exchanges the data core of `owner`."""
    return sum(
        len(core.replication.peers)
        for core in node.cores.open_cores()
        if core.key == owner.data.key
    )


async def test_a_members_core_is_read_from_that_member_alone() -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_mesh_node(number)) for number in range(1, 5)]
        for position, one in enumerate(nodes):
            for other in nodes[:position]:
                await stack.enter_async_context(connected(one, other))
        await wait_until(lambda: all(readers(node, node) == 3 for node in nodes))
        for reader in nodes:
            for owner in nodes:
                if reader is not owner:
                    assert readers(reader, owner) == 1


async def test_the_core_of_a_member_that_went_is_read_from_others() -> None:
    async with (
        open_mesh_node(1) as owner,
        open_mesh_node(2) as reader,
        open_mesh_node(3) as keeper,
        connected(reader, keeper),
    ):
        value = Author(1).value("kept")
        receipt = await owner.host.receive_content("test", [value.edit("[]", with_header=True)])
        assert not receipt.refused
        async with connected(owner, keeper):
            kept = await keeper.cores.get(key=owner.data.key)
            await kept.download(0, owner.data.length)
            assert kept.contiguous_length == owner.data.length
            async with connected(owner, reader):
                # As a mirror does.
                mirrored = await reader.cores.get(key=owner.data.key)
                assert readers(keeper, owner) == 1
        with trio.fail_after(20):
            assert await mirrored.get(0) == await owner.data.get(0)
        await mirrored.close()
        await kept.close()
