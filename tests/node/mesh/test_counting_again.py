"""Whose word or grant counts again, after it did not for a while."""

from __future__ import annotations

import trio
import trio.testing

from node.mesh.membership import Membership
from node.mesh.trust import LOOK_SECONDS, OUT_LOOK_SECONDS
from tests.node.mesh.nodes import connected, open_mesh_node
from tests.node.mesh.test_trust import ADMIN, founded


async def test_a_node_whose_clock_was_wrong_soon_knows_that_its_grant_has_not_run_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its members never took it for anything else: their connections stay."""
    error = 0

    def clock() -> float:
        return trio.current_time() + 1_000_000

    founder = founded()
    guest = Membership.join(founder.invite(ADMIN, expiry=int(clock()) + 3600))
    async with (
        open_mesh_node(1, founder, clock=clock) as admin,
        open_mesh_node(2, guest, clock=lambda: clock() + error) as ann,
        connected(admin, ann),
    ):
        error = 7200
        await trio.sleep(LOOK_SECONDS + 1)
        assert ann.mesh.trust.verdict.role is None
        error = 0
        await trio.sleep(OUT_LOOK_SECONDS + 1)
        assert ann.mesh.trust.may_write
        assert ADMIN.public_key in ann.mesh.members
