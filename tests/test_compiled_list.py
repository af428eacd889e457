"""What setup.py compiles, and what README says of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def compiled_modules() -> list[str]:
    """Without running setup.py: its two lists of files."""
    lists = [
        ast.literal_eval(statement.value)
        for statement in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List)
    ]
    return [path for paths in lists for path in paths]


def test_the_number_of_compiled_modules_is_told() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    told = re.findall(r"(?:mypyc takes|bees, the) (\d+) modules", words)
    assert told == [str(len(compiled_modules()))] * 2


def test_what_is_compiled_is_here_and_listed_once() -> None:
    modules = compiled_modules()
    assert len(set(modules)) == len(modules)
    assert [path for path in modules if not (ROOT / path).is_file()] == []
