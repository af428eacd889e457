"""[trio] Makes what members did on other channels count, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import trio

from hypercore.core import Core
from node.mesh.member import Member

CONDUCT_SECONDS = 0.5
"""How often to look at what members did to cores."""


class OpenCores(Protocol):
    """What is needed of the corestore."""

    def open_cores(self) -> Sequence[Core]: ...


async def watch_conduct(members: Mapping[bytes, Member], cores: OpenCores | None) -> None:
    """Expel members that broke a rule, until cancelled; one look at all cores is for all members.

    `members` is the mesh's own table, by id.
    """
    while True:
        await trio.sleep(CONDUCT_SECONDS)
        if members:
            _look(members, cores)  # a call of its own: no local keeps alive a member that has gone


def _look(members: Mapping[bytes, Member], cores: OpenCores | None) -> None:
    for core in () if cores is None else cores.open_cores():
        for member_id, reason in core.replication.refusals.items():
            if (member := members.get(member_id)) is not None:
                member.expel(f"core {core.key.hex()[:12]}: {reason}")
    for member in list(members.values()):
        member.judge()
