from __future__ import annotations

import subprocess
import sys

import pytest

CODE = r"""
import logging, sys
import structlog
from node.journal import configure_journal

configure_journal("info", sys.argv[1])
log = structlog.get_logger("node")
log.info("member here", name="eve\x1b[2J\x9b2J", ids=("\x1b",), reason="\x07 and\nmore")
try:
    raise ValueError("\x1b[2J")
except ValueError:
    log.exception("failed")
logging.getLogger("trio").error("\x1b[2J")
"""


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_a_terminal_obeys_nothing_that_the_journal_tells(form: str) -> None:
    """Members choose their names, admins their reasons."""
    command = [sys.executable, "-c", CODE, form]
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, encoding="utf-8")
    lines = done.stderr.split("\n")
    assert all(line.isprintable() for line in lines)
    assert "eve" in lines[0]
    assert "more" in lines[0]
    assert any("ValueError: " in line for line in lines)
