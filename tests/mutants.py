"""Would a test fail if the code were wrong? Changes it in one place at a time, and looks.

`python -m tests.mutants [hypercore/proof.py ...] [--jobs 2]`: each mutant has another comparison,
operator, number or condition, or lacks a statement; the tests named beside its module in `JUDGES`
run against it, in a process that was forked before any of our modules was imported. What none of
them notices is printed with its number, which `--only` tries again. Without modules all of `JUDGES`
have their turn, which takes hours.

Many of those that live change nothing: a fast way is not taken and the general one gives the same,
a bound of 4,096 is one of 4,097. Each is to be looked at by somebody.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.util
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

_PROOFS = ("hypercore/test_proof.py", "hypercore/test_spoiled_proofs.py", "hypercore/test_seek.py")
_GROUPS = (
    *("node/covalue/test_roles.py", "node/covalue/test_membership.py"),
    *("node/cojson/test_large_groups.py", "node/cojson/test_rights.py"),
)

JUDGES = {
    "hypercore/flat_tree.py": ("hypercore/test_flat_tree.py",),
    "hypercore/merkle.py": ("hypercore/test_merkle.py", "hypercore/test_proof.py"),
    "hypercore/proof.py": _PROOFS,
    "hypercore/log.py": ("hypercore/test_log.py", "hypercore/test_proof.py"),
    "hypercore/manifest.py": ("hypercore/test_manifest.py", "hypercore/test_multisig.py"),
    "hypercore/verifier.py": ("hypercore/test_manifest.py", "hypercore/test_multisig.py"),
    "hypercore/inclusion_proof.py": ("hypercore/test_inclusion_proof.py",),
    "hypercore/fork_proof.py": ("hypercore/test_fork_proof.py",),
    "node/covalue/session_log.py": ("node/covalue/test_session_log.py",),
    "node/covalue/membership.py": _GROUPS,
    "node/covalue/role_judgment.py": _GROUPS,
    "node/covalue/roles.py": _GROUPS,
    "node/mesh/ticket.py": ("node/mesh/test_ticket.py",),
    "node/mesh/ledger.py": ("node/mesh/test_ledger.py",),
}
"""Modules on which promises rest, and the tests that hold them to it."""

PATIENCE = 4
"""How many times as long as with the right code tests may take; then the mutant is noticed."""

_FOREIGN = (
    *("pytest", "trio", "msgspec", "msgpack", "nacl.bindings", "structlog", "rocksdict"),
    *("sortedcontainers", "cryptography"),
)
"""Imported once, and not in each process."""

_OTHERS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
"""What stands in place of an operator."""


class Change(NamedTuple):
    """One place of a module, and what is done to its syntax tree there."""

    line: int
    what: str
    apply: Callable[[], None]


class Places(ast.NodeVisitor):
    """All changes of a tree. Not looked at: types, decorators, texts, asserts, constants."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def generic_visit(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            for place, item in enumerate(value) if isinstance(value, list) else ():
                if isinstance(item, ast.AST):
                    self._look_at(item, value, place)
            if isinstance(value, ast.AST):
                self._look_at_not(value, partial(setattr, node, name))
                self.visit(value)

    def _look_at(self, item: ast.AST, siblings: list[Any], place: int) -> None:
        """A statement in its block, or an expression among others."""
        if isinstance(item, ast.stmt) and _may_be_left_out(item):
            nothing = ast.copy_location(ast.Pass(), item)
            self._add(item, "without it", lambda: siblings.__setitem__(place, nothing))
        self._look_at_not(item, partial(siblings.__setitem__, place))
        if not isinstance(item, ast.Raise):
            self.visit(item)

    def _look_at_not(self, item: ast.AST, put: Callable[[ast.AST], None]) -> None:
        if isinstance(item, ast.UnaryOp) and isinstance(item.op, ast.Not):
            operand = item.operand
            self._add(item, "without not", lambda: put(operand))

    def _add(self, node: ast.expr | ast.stmt, what: str, apply: Callable[[], None]) -> None:
        self.changes.append(Change(node.lineno, what, apply))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for place, statement in enumerate(node.body):
            self._look_at(statement, node.body, place)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        for place, statement in enumerate(node.body):
            self._look_at(statement, node.body, place)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        is_constant = isinstance(node.target, ast.Name) and node.target.id.isupper()
        if node.value is not None and not is_constant:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if not any(name.isupper() or name.startswith("__") for name in names):
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            opposite = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
            self._add(node, "if not", lambda: setattr(node, "test", opposite))
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit_If(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, operator in enumerate(node.ops):
            other = _OTHERS[type(operator)]()
            what = f"{type(operator).__name__} as {type(other).__name__}"
            self._add(node, what, partial(node.ops.__setitem__, place, other))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp | ast.BoolOp | ast.AugAssign) -> None:
        if type(node.op) in _OTHERS:
            other = _OTHERS[type(node.op)]()
            what = f"{type(node.op).__name__} as {type(other).__name__}"
            self._add(node, what, lambda: setattr(node, "op", other))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit_BinOp(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit_BinOp(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(node, f"{not value}", lambda: setattr(node, "value", not value))
        elif isinstance(value, int):
            self._add(node, f"{value + 1}", lambda: setattr(node, "value", value + 1))


def _may_be_left_out(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call | ast.Await)
    return isinstance(statement, ast.Raise | ast.Continue | ast.Break | ast.AugAssign)


def places(source: str) -> tuple[ast.Module, list[Change]]:
    """The syntax tree of a module, and all that can be done to it, one thing to each tree."""
    tree, found = ast.parse(source), Places()
    found.generic_visit(tree)
    return tree, found.changes


class _Mutant(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Has one module imported from another tree than that of its file."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._path = str(path)
        self._name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self._code = compile(ast.fix_missing_locations(tree), self._path, "exec")

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=self._path)

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def get_source(self, fullname: str) -> None:
        return None


def run_tests(tests: Sequence[str], mutant: _Mutant | None, seconds: float) -> bool:
    """Run them in a fork; whether they passed in that time."""
    child = os.fork()
    if child == 0:
        code = 1  # also of a module that ends the process where it is imported
        try:
            code = _judge(tests, mutant)
        finally:
            os._exit(code)
    ended = os.pidfd_open(child)
    is_late = not any(select.select([ended], [], [], seconds))
    os.close(ended)
    if is_late:
        os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def _judge(tests: Sequence[str], mutant: _Mutant | None) -> int:
    os.setpgid(0, 0)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(silence, stream)
    if mutant is not None:
        sys.meta_path.insert(0, mutant)
    import pytest

    # That it fails is enough: the smallest example takes most of the time.
    engine = importlib.import_module("hypothesis.internal.conjecture.engine")
    engine.ConjectureRunner.shrink_interesting_examples = lambda _: None
    options = ["-x", "-n0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestWarning"]
    return int(pytest.main([*options, *(f"tests/{test}" for test in tests)]))


def try_module(path: Path, tests: Sequence[str], only: Sequence[int], jobs: int) -> Iterator[str]:
    """Lines about each mutant that lives, and in the end how many there were."""
    source = path.read_text()
    name, lines = path.relative_to(ROOT), source.splitlines()
    started = time.monotonic()
    if not run_tests(tests, None, 3600):
        sys.exit(f"{name}: its tests fail as it is")
    seconds = PATIENCE * (time.monotonic() - started) + 10

    def lives(number: int) -> bool:
        tree, changes = places(source)
        changes[number].apply()
        return run_tests(tests, _Mutant(path, tree), seconds)

    _, changes = places(source)
    numbers = only or range(len(changes))
    living = 0
    with ThreadPoolExecutor(jobs) as pool:
        for number, is_alive in zip(numbers, pool.map(lives, numbers), strict=True):
            if is_alive:
                living += 1
                line, what, _ = changes[number]
                yield f"{name}:{line} (--only {number}) {what}: {lines[line - 1].strip()}"
    yield f"{name}: {len(numbers) - living} of {len(numbers)} were noticed"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument(
        "modules", nargs="*", default=list(JUDGES), help="such as hypercore/proof.py"
    )
    parser.add_argument("--tests", nargs="*", default=[], help="below tests/; default: see JUDGES")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of mutants")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    os.chdir(ROOT)
    for foreign in _FOREIGN:
        importlib.import_module(foreign)
    for module in options.modules:
        tests = options.tests or JUDGES[module]
        for line in try_module(ROOT / module, tests, options.only, options.jobs):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
