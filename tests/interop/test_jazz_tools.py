"""An app as Jazz developers write it, with jazz-tools, whose users are at different nodes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.running_node import open_running_node, run_claims, wait_members

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STRICT = ("--enforce-permissions",)
SAFE = ("--min-copies", "2", "--replicate", "all")

ALL = "18 passed, 0 failed"


run_app = partial(run_claims, "jazz_app.mjs")
"""Run it, with a server for each of its two users."""


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
