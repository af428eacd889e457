"""Real cojson clients against running nodes: the 54 checks of conformance.mjs, on every store."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from tests.support.running_node import open_running_node, run_claims, wait_members

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STORES = ["bee", "sqlite", "hybrid"]
MESH_STORES = ["bee", "hybrid"]

ONE_SERVER_ONLY = "content sent to a deleted value is acknowledged"
"""A value is deleted at one node and uploaded anew to the other by somebody who never asked for
it: that node learns of the deletion with the first load, and stores what it is sent until then."""


conformance = partial(run_claims, "conformance.mjs")
"""Run the checks; the last line says how many passed, the rest which did not."""


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
