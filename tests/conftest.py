"""Whether the JavaScript originals can be run, and what holds for all tests."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

INTEROP = Path(__file__).parent / "interop"
TAKE_LONG = frozenset({"test_simulation.py", "test_examples.py"})
"""Files that by their names would be among the last, and end when other workers have no more."""

# A shared two-core machine: wall-clock limits per example would only measure the neighbors.
settings.register_profile(
    "gate", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("gate")


def _javascript_is_here() -> bool:
    return shutil.which("node") is not None and (INTEROP / "node_modules" / "hypercore").is_dir()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip interop tests without node_modules, unless BEEMESH_REQUIRE_JS says they matter.

    Beside the simulation, which takes both cores, run those of bees: they wait for nothing.
    """
    items.sort(key=lambda item: item.path.name not in TAKE_LONG)
    if _javascript_is_here() or os.environ.get("BEEMESH_REQUIRE_JS") == "1":
        return
    reason = "needs node and `npm install` in tests/interop (python3 -m tests.check does it)"
    for item in items:
        if item.get_closest_marker("interop"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Have the garbage collector never look again at what all tests and their modules are.

    Every store that closes collects all garbage, thousands of times: among the 300,000 objects
    of seven thousand tests, each time would take 0.15 s.
    """
    gc.collect()
    gc.freeze()
