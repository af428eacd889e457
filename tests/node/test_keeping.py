"""What a running node writes down of its mesh."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
import trio

from hypercore.crypto import KeyPair
from node.access.gate import Gate
from node.config import load_config
from node.governing import perform_on_mesh
from node.identity import load_or_create_identity
from node.keeping import DirectorySeat, MeshKeeper, open_keeper
from node.mesh.membership import Membership
from node.mesh.membership_file import MembershipText, load_membership, save_membership
from node.mesh.ticket import Grant, Role
from node.verbs import MeshRevoke, VerbError
from tests.node.mesh.nodes import open_mesh_node

SAVE_SECONDS = 0.05
ADMIN = KeyPair.from_seed(bytes((1,)) * 32)


async def test_a_large_file_is_not_written_for_each_record_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Membership.found("bees", ADMIN.public_key)
    written: list[int] = []

    def save_slowly(path: Path, membership: Membership, text: MembershipText) -> None:
        written.append(len(membership.grants))
        time.sleep(SAVE_SECONDS)
        save_membership(path, membership, text)

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


@pytest.mark.parametrize("is_running", [True, False])
async def test_what_cannot_be_written_is_said_to_count_or_not(
    is_running: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: on a full disk `beemesh revoke` said that the answer is no JSON."""

    def find_no_room(path: Path, membership: Membership, *_: MembershipText) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    mesh = Membership.found("bees", ADMIN.public_key)
    config = load_config({"data": tmp_path}, {})
    load_or_create_identity(config.key_path)
    save_membership(config.mesh_path, mesh)
    verb = MeshRevoke("cd" * 32, "left")
    async with open_mesh_node(1, mesh) as node:
        running = MeshKeeper(node.mesh, ADMIN, config, Gate(), list, dict, node.host.end_refused)
        seat = running if is_running else DirectorySeat(config)
        seat.identity = ADMIN
        with monkeypatch.context() as full:
            full.setattr("node.keeping.save_membership", find_no_room)
            said = (
                "it counts.* No space left" if is_running else "No space left.*nothing has changed"
            )
            with pytest.raises(VerbError, match=said):
                _ = [row async for row in perform_on_mesh(seat, verb)]
        assert bool(seat.membership.revocations) is is_running
        _ = [row async for row in perform_on_mesh(seat, verb)]
        saved = load_membership(config.mesh_path)
        assert saved is not None
        assert len(saved.revocations) == 1 + is_running
