"""Admins make nodes something else: while they are connected, while they are away."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hypercore.crypto import KeyPair
from node.access.gate import Gate
from node.joining import Joining, choose_membership
from node.keeping import apply_role
from node.mesh.membership import Membership
from node.mesh.ticket import Grant, Record, Role, Ticket
from node.mesh.trust import Trust
from tests.simulation.clocks import START_UNIX_SECONDS
from tests.simulation.plans import NodePlan

MESH = Membership("bees", b"a secret of the simulation")
FOUNDER = 0


def identity_of(number: int) -> KeyPair:
    return KeyPair.from_seed(number.to_bytes(32, "big"))


def encrypted(mesh: Membership) -> Membership:
    return replace(mesh, is_encrypted=True, data_secret=b"another secret")


def found_mesh(mesh: Membership, plans: Sequence[NodePlan]) -> list[Membership]:
    """What each node knows of a mesh in which the founder, the first, let in the others by name."""
    founder = identity_of(FOUNDER)
    mesh = replace(mesh, founders=frozenset((founder.public_key,)))
    grants: list[Grant | None] = [None]
    for number, plan in enumerate(plans[1:], 1):
        id, seconds = identity_of(number).public_key, plan.grant_seconds
        expiry = None if seconds is None else START_UNIX_SECONDS + seconds
        grants.append(mesh.sign_grant(founder, plan.role, member=id, expiry=expiry, unix_seconds=0))
    known = frozenset(grant for grant in grants if grant is not None)
    return [
        replace(
            mesh,
            grant=grant,
            grants=known,
            data_secret=b"" if plan.role is Role.BLIND else mesh.data_secret,
        )
        for plan, grant in zip(plans, grants, strict=True)
    ]


async def keep_role(trust: Trust, gate: Gate, end_refused: Callable[[str], None]) -> None:
    """Do for clients what `MeshKeeper` does, until cancelled."""
    while True:
        apply_role(trust, gate, end_refused)
        await trust.wait_changed()


def draw_role(chance: random.Random, before: Role, *, is_encrypted: bool) -> Role:
    """Another one; nobody is blind where everybody can read."""
    others = [role for role in Role if role is not before]
    return chance.choice([role for role in others if is_encrypted or role is not Role.BLIND])


def sign_change(
    membership: Membership,
    admin: KeyPair,
    member: bytes,
    role: Role,
    *,
    is_shut_out_first: bool,
    unix_seconds: float,
) -> Iterator[list[Record]]:
    """What an admin signs one after the other, each with what it signed before taken in.

    To lessen a role it revokes the member, or what the member was granted.
    """
    granted = [grant for grant in membership.grants if grant.member == member]
    more = [grant.digest for grant in granted if grant.role.allows_more_than(role)]
    if more and is_shut_out_first:
        shut_out = membership.revoke(admin, member, "changed", unix_seconds=unix_seconds)
        yield [shut_out]
        membership = membership.taking([shut_out], unix_seconds)
    grant = membership.sign_grant(
        admin, role, member=member, expiry=None, unix_seconds=unix_seconds
    )
    yield [grant]
    if more and not is_shut_out_first:
        yield [
            membership.revoke(admin, digest, "changed", unix_seconds=unix_seconds)
            for digest in more
        ]


def renewed(stored: Membership, ticket: Ticket, member: bytes, unix_seconds: float) -> Membership:
    """What `beemesh up --join TICKET` makes of the membership of a node that stands still."""
    return choose_membership(
        stored, Joining((ticket,)), None, "", member, unix_seconds=unix_seconds
    )
