"""What a running node writes down of its mesh."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from hypercore.crypto import KeyPair
from node.access.gate import Gate
from node.config import load_config
from node.keeping import MeshKeeper, open_keeper
from node.mesh.membership import Membership
from node.mesh.membership_file import load_membership, save_membership
from node.mesh.ticket import Grant, Role
from tests.node.mesh.nodes import open_mesh_node

SAVE_SECONDS = 0.05
ADMIN = KeyPair.from_seed(bytes((1,)) * 32)


async def test_a_large_file_is_not_written_for_each_record_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Membership.found("bees", ADMIN.public_key)
    written: list[int] = []

    def save_slowly(path: Path, membership: Membership) -> None:
        written.append(len(membership.grants))
        time.sleep(SAVE_SECONDS)
        save_membership(path, membership)

    def grant(number: int) -> Grant:
        member = number.to_bytes(32, "big")
        return Grant.issue(mesh.key, ADMIN, Role.READER, member=member)

    monkeypatch.setattr("node.keeping.save_membership", save_slowly)
    config = load_config({"data": tmp_path}, {})
    async with open_mesh_node(1, mesh) as node:
        seat = MeshKeeper(node.mesh, ADMIN, config, Gate(), list, dict, node.host.end_refused)
        async with open_keeper(seat) as keeper:
            started = time.perf_counter()
            for number in range(80):  # heard from others
                node.mesh.trust.take([grant(number)])
                await trio.sleep(0.01)
            assert 1 <= len(written) <= 2 + (time.perf_counter() - started) / SAVE_SECONDS / 5
            await keeper.take([grant(100)])  # signed here: it is there now
            assert load_membership(config.mesh_path) == node.mesh.membership
            node.mesh.trust.take([grant(101)])
        assert load_membership(config.mesh_path) == node.mesh.membership
