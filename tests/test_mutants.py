"""What `tests.mutants` changes, and that it notices whether a test does."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests import mutants

SOURCE = """
LIMIT: int = 4


@cache
def clipped(value: int, most: int = 9) -> int:
    if value < 0 and not most:
        raise ValueError(f"{value + 1}")
    log(value)
    return value if most else -1
"""

EXPECTED = [
    "if value <= 0 and (not most):",
    "if value < 0 or not most:",
    "if value < 0 and most:",
    "if value < 1 and (not most):",
    "def clipped(value: int, most: int=10) -> int:",
    "pass",
    "pass",
    "return value if not most else -1",
    "return value if most else -2",
]


def test_one_thing_is_changed_at_a_time() -> None:
    before = ast.unparse(ast.parse(SOURCE)).splitlines()
    _, changes = mutants.places(SOURCE)
    found = []
    for number in range(len(changes)):
        tree, again = mutants.places(SOURCE)
        again[number].apply()
        after = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
        [line] = [new for old, new in zip(before, after, strict=True) if old != new]
        found.append(line.strip())
    assert sorted(found) == sorted(EXPECTED)


@pytest.mark.slow
def test_a_mutant_that_matters_is_noticed() -> None:
    command = [sys.executable, "-m", "tests.mutants", "hypercore/flat_tree.py", "--only", "0"]
    result = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "hypercore/flat_tree.py: 1 of 1 were noticed\n"
