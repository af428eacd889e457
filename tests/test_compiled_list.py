"""What setup.py compiles, and what README says of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def compiled_modules() -> list[str]:
    """Without running setup.py: its lists of files."""
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


def test_no_name_stands_for_exceptions_of_two_kinds() -> None:
    """mypyc gives a name one type, the first, and refuses with a TypeError what comes later."""
    twice = []
    for path in compiled_modules():
        for function in ast.walk(ast.parse((ROOT / path).read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            kinds: dict[str, set[str]] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                    kinds.setdefault(node.name, set()).add(ast.unparse(node.type))
            twice += [f"{path}: {function.name}" for each in kinds.values() if len(each) > 1]
    assert twice == []
