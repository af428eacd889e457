"""Whose word or grant counts again, after it did not for a while."""

from __future__ import annotations

import trio
import trio.testing

from node.mesh.membership import Membership
from node.mesh.ticket import Role
from node.mesh.trust import LOOK_SECONDS, OUT_LOOK_SECONDS
from tests.node.mesh.nodes import connected, open_mesh_node, wait_until
from tests.node.mesh.test_trust import ADMIN, ANN, BOB, CARL, founded, role


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


async def test_what_an_admin_signed_that_is_one_again_is_told_to_who_never_heard_of_it() -> None:
    founder = founded()
    office = founder.sign_grant(
        ADMIN, Role.ADMIN, member=ANN.public_key, expiry=None, unix_seconds=1
    )
    guest = founder.sign_grant(
        ADMIN, Role.WRITER, member=BOB.public_key, expiry=None, unix_seconds=1
    )
    known = founder.taking([office, guest], 1)
    async with open_mesh_node(1, known) as admin, open_mesh_node(3, known) as bob:
        by_ann = known.sign_grant(
            ANN, Role.READER, member=CARL.public_key, expiry=None, unix_seconds=1
        )
        admin.mesh.trust.take([by_ann])
        end = admin.mesh.membership.revoke(ADMIN, ANN.public_key, keeps=False, unix_seconds=2)
        admin.mesh.trust.take([end])
        async with connected(admin, bob):
            await wait_until(lambda: role(bob, ANN) is None)
            assert role(admin, CARL) is None
            again = admin.mesh.membership.sign_grant(
                ADMIN, Role.ADMIN, member=ANN.public_key, expiry=None, unix_seconds=3
            )
            admin.mesh.trust.take([again])
            await wait_until(lambda: role(bob, ANN) is Role.ADMIN)
            assert role(admin, CARL) is Role.READER
            await wait_until(lambda: role(bob, CARL) is Role.READER)
