"""Records of admins whose time is over, as one clock has it and others do not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.mesh.membership import Membership
from node.mesh.ticket import Grant, Role
from node.mesh.trust import LOOK_SECONDS
from tests.node.mesh.nodes import MeshNode, connected, identity_of, open_mesh_node

FOUNDER, ANN, BOB, CARL, DAN = map(identity_of, range(1, 6))
DAY = 86_400
ENDS = 2 * DAY


@dataclass
class Clock:
    """What a machine takes for the time, which is `error` off."""

    error: float = 0.0

    def __call__(self) -> float:
        return DAY + trio.current_time() + self.error


def founded() -> Membership:
    """A mesh in which Ann is an admin for a day, and Bob may read."""
    founder = Membership.found("bees", FOUNDER.public_key, lambda size: b"s" * size)
    key = founder.key
    return founder.taking(
        (
            Grant.issue(key, FOUNDER, Role.ADMIN, member=ANN.public_key, expiry=ENDS),
            Grant.issue(key, FOUNDER, Role.READER, member=BOB.public_key),
        )
    )


def role(node: MeshNode, member: KeyPair) -> Role | None:
    return node.mesh.trust.judge(member.public_key, None)


async def test_what_an_admin_signed_whose_time_seemed_over_counts_when_the_clock_is_mended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mesh, ahead = founded(), Clock(30 * DAY)
    async with (
        open_mesh_node(1, mesh, clock=Clock()) as founder,
        open_mesh_node(3, mesh, clock=ahead) as bob,
        connected(founder, bob),
    ):
        by_ann = Grant.issue(mesh.key, ANN, Role.ADMIN, member=CARL.public_key)
        by_carl = Grant.issue(mesh.key, CARL, Role.WRITER, member=DAN.public_key)
        founder.mesh.trust.take([by_ann])
        founder.mesh.trust.take([by_carl])
        await trio.sleep(1)
        assert role(founder, DAN) is Role.WRITER
        assert role(bob, DAN) is None
        ahead.error = 0.0
        await trio.sleep(LOOK_SECONDS + 1)
        assert role(bob, CARL) is Role.ADMIN
        assert role(bob, DAN) is Role.WRITER


async def test_what_counts_again_when_the_clock_is_mended_is_passed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mesh, ahead = founded(), Clock(30 * DAY)
    more = mesh.taking([Grant.issue(mesh.key, ANN, Role.WRITER, member=DAN.public_key)])
    async with (
        open_mesh_node(1, more, clock=ahead) as founder,
        open_mesh_node(3, mesh, clock=Clock()) as bob,
        connected(founder, bob),
    ):
        await trio.sleep(1)
        assert role(bob, DAN) is None, "it does not count where it is"
        ahead.error = 0.0
        await trio.sleep(LOOK_SECONDS + 1)
        assert role(bob, DAN) is Role.WRITER


async def test_what_an_admin_signed_after_its_time_counts_once_that_is_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its clock is slow, and nobody else's."""
    mesh = founded()
    async with (
        open_mesh_node(1, mesh, clock=Clock(2 * DAY)) as founder,
        open_mesh_node(3, mesh, clock=Clock(2 * DAY)) as bob,
        connected(founder, bob),
    ):
        by_ann = Grant.issue(mesh.key, ANN, Role.WRITER, member=DAN.public_key)
        founder.mesh.trust.take([by_ann])
        await trio.sleep(1)
        assert role(founder, DAN) is None
        longer = Grant.issue(
            mesh.key, FOUNDER, Role.ADMIN, member=ANN.public_key, expiry=30 * DAY, serial=1
        )
        bob.mesh.trust.take([longer])
        await trio.sleep(1)
        assert role(founder, DAN) is Role.WRITER
        assert role(bob, DAN) is Role.WRITER


async def test_who_signs_what_it_likes_after_its_time_fills_no_memory_nor_file(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.mesh.ledger.MAX_RECORDS", 10)
    mesh = founded()
    async with open_mesh_node(1, mesh, clock=Clock(2 * DAY)) as founder:
        trust = founder.mesh.trust
        for number in range(100):
            member = number.to_bytes(32, "big")
            trust.take([Grant.issue(mesh.key, ANN, Role.WRITER, member=member)])
        assert trust.membership == mesh
        assert 0 < len(trust.untimely.records) <= 10
