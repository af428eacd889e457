"""Roles and validity in random groups: cojson and we agree on every one of them."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.role_scenarios import book_of, role_differences, validity_differences

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
SCENARIOS = 40


def fresh_scenarios(seed: int, count: int) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["node", "roles_oracle.mjs", str(seed), str(count)],
        cwd=HERE,
        capture_output=True,
        check=True,
    )
    scenarios: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(scenarios) == count
    return scenarios


def test_random_groups() -> None:
    seed = random.randrange(2**30)
    scenarios = fresh_scenarios(seed, SCENARIOS)
    roles: set[str] = set()
    for scenario in scenarios:
        book = book_of(scenario)
        # A scenario's name holds the seed that makes it again.
        assert role_differences(book, scenario) == []
        assert validity_differences(book, scenario) == []
        for members in scenario["roles"].values():
            roles.update(*(answers.split(" ") for answers in members.values()))
    assert len(roles) >= 8, "scenarios in which hardly anybody has a role show nothing"
