"""What content of a client waits for may come into being later, at another node."""

from __future__ import annotations

import trio
import trio.testing

from node.cojson.messages import Message
from tests.node.mesh.nodes import connected, open_mesh_node, wait_until
from tests.support.authors import Author, edits, group_header, map_header

ANN = Author("ann")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)


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
