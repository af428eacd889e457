"""An app as Jazz developers write it, with jazz-tools, whose users are at different nodes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio

from tests.support.running_node import INTEROP, open_running_node, wait_members

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STRICT = ("--enforce-permissions",)
SAFE = ("--min-copies", "2", "--replicate", "all")

ALL = "18 passed, 0 failed"


async def run_app(*servers: str) -> str:
    """What did not come true, and how much did."""
    with trio.fail_after(180):
        result = await trio.run_process(
            ["node", "jazz_app.mjs", *servers],
            cwd=INTEROP,
            capture_stdout=True,
            check=False,
            stderr=subprocess.STDOUT,
        )
    lines = result.stdout.decode().splitlines()
    return "\n".join([line for line in lines if not line.startswith("ok ")])


@pytest.mark.parametrize("store", ["bee", "sqlite", "hybrid"])
async def test_an_app_runs_at_one_node(tmp_path: Path, store: str) -> None:
    async with open_running_node(tmp_path, "--store", store) as node:
        assert await run_app(node.ws, node.ws) == ALL


@pytest.mark.parametrize("options", [(), STRICT, SAFE], ids=["open", "strict", "safe"])
async def test_an_app_runs_across_two_nodes(tmp_path: Path, options: tuple[str, ...]) -> None:
    first, second = (("--store", store, *options) for store in ("bee", "hybrid"))
    async with (
        open_running_node(tmp_path / "a", *first) as a,
        open_running_node(tmp_path / "b", *second, "--join", a.ready["ticket"]) as b,
    ):
        await wait_members(a, b)
        assert await run_app(a.ws, b.ws) == ALL
