"""The check itself: a failure is told of at once, whatever runs beside."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.check import Beside, run

ROOT = Path(__file__).resolve().parent.parent


def says(text: str, code: int = 0) -> list[str | Path]:
    return [sys.executable, "-c", f"print({text!r}); raise SystemExit({code})"]


def test_a_step_that_fails_waits_for_none_beside_it(tmp_path: Path) -> None:
    """npm takes two minutes, and its children are not to go on alone."""
    place = tmp_path / "started"
    script = f"""
from pathlib import Path
from tests.check import Beside, run
with Beside() as beside:
    beside.start("npm", ["sh", "-c", "echo >{place}; sleep 600; true"])
    while not Path("{place}").is_file():
        pass
    run("format", ["false"])
"""
    read, write = os.pipe()
    with os.fdopen(write):
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, cwd=ROOT, stdin=read, stderr=subprocess.PIPE, timeout=60, check=False
        )
        os.close(read)
        assert done.returncode == 1
        assert done.stderr == b"format failed with exit code 1\n"
        readers = select.poll()
        readers.register(write, 0)  # that none is left is an error, told of unasked
        assert readers.poll(60_000), "what `sh` has started lives on"


def test_of_what_succeeds_beside_the_last_line_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with Beside() as beside:
        wait = beside.start("collect", says("many\n7288 tests"))
        run("lint", says("All checks passed!"))
        wait()
    out = capfd.readouterr().out
    assert "\n7288 tests\n-- collect: done" in out
    assert "many" not in out


def test_of_what_fails_beside_all_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, Beside() as beside:
        beside.start("collect", says("no module\n1 error", 2))()
    assert ended.value.code == 2
    shown = capfd.readouterr()
    assert "\nno module\n1 error\n-- collect: done" in shown.out
    assert shown.err == "collect failed with exit code 2\n"
