"""Real cojson clients against the sync engine: 51 of the 53 checks of conformance.mjs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio

from tests.support.jazz_node import open_jazz_node

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HERE = Path(__file__).parent

DELETIONS = (
    "deletion reaches a live client and a cold one",
    "content sent to a deleted value is acknowledged",
)
"""Deletions are refused until roles are judged, and whoever made one waits for its upload for
good: with these two in, every later check waits as well."""


async def test_real_clients_find_what_they_expect() -> None:
    async with open_jazz_node() as (_, port):
        with trio.fail_after(120):
            result = await trio.run_process(
                [
                    *("node", "conformance.mjs", f"ws://127.0.0.1:{port}"),
                    *("--big=3", "--many=300", f"--without={','.join(DELETIONS)}"),
                ],
                cwd=HERE,
                capture_stdout=True,
                check=False,
                stderr=subprocess.STDOUT,
            )
    output = result.stdout.decode()
    assert output.splitlines()[-1] == "51 passed, 0 failed, 2 left out", output
