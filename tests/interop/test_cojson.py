"""Real cojson clients against running nodes: the 54 checks of conformance.mjs, on every store."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
import trio

from tests.support.running_node import INTEROP, open_running_node, wait_members

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STORES = ["bee", "sqlite", "hybrid"]
MESH_STORES = ["bee", "hybrid"]

ONE_SERVER_ONLY = "content sent to a deleted value is acknowledged"
"""A value is deleted at one node and uploaded anew to the other by somebody who never asked for
it: that node learns of the deletion with the first load, and stores what it is sent until then."""


async def conformance(*arguments: str) -> str:
    """Run the checks; the last line says how many passed, the rest which did not."""
    with trio.fail_after(300):
        result = await trio.run_process(
            ["node", "conformance.mjs", *arguments],
            cwd=INTEROP,
            capture_stdout=True,
            check=False,
            stderr=subprocess.STDOUT,
        )
    lines = result.stdout.decode().splitlines()
    return "\n".join([line for line in lines if not line.startswith("ok ")])


@pytest.mark.parametrize("store", STORES)
async def test_real_clients_find_what_they_expect(tmp_path: Path, store: str) -> None:
    async with open_running_node(tmp_path, "--store", store) as node:
        outcome = await conformance(node.ws, "--big=3", "--many=300")
    assert outcome == "54 passed, 0 failed, 0 left out"


@pytest.mark.parametrize("store", STORES)
async def test_after_a_restart_everything_is_there(tmp_path: Path, store: str) -> None:
    state = f"--state={tmp_path / 'state.json'}"
    async with open_running_node(tmp_path / "node", "--store", store) as node:
        outcome = await conformance(node.ws, "--phase=write", state)
        assert outcome == "1 passed, 0 failed, 0 left out"
        await node.stop(signal.SIGKILL)
    async with open_running_node(tmp_path / "node", "--store", store) as node:
        outcome = await conformance(node.ws, "--phase=read", state)
    assert outcome == "8 passed, 0 failed, 0 left out"


@pytest.mark.parametrize("store", MESH_STORES)
async def test_a_node_behind_another_serves_as_well(tmp_path: Path, store: str) -> None:
    async with (
        open_running_node(tmp_path / "a", "--store", store) as a,
        open_running_node(tmp_path / "b", "--store", store, "--join", a.ready["ticket"]) as b,
    ):
        await wait_members(a, b)
        outcome = await conformance(b.ws, "--big=3", "--many=300")
    assert outcome == "54 passed, 0 failed, 0 left out"


@pytest.mark.parametrize("store", MESH_STORES)
async def test_clients_of_two_nodes_find_what_they_expect_of_one_another(
    tmp_path: Path, store: str
) -> None:
    async with (
        open_running_node(tmp_path / "a", "--store", store) as a,
        open_running_node(tmp_path / "b", "--store", store, "--join", a.ready["ticket"]) as b,
    ):
        await wait_members(a, b)
        outcome = await conformance(
            a.ws, b.ws, "--big=3", "--many=300", f"--without={ONE_SERVER_ONLY}"
        )
    assert outcome == "53 passed, 0 failed, 1 left out"
