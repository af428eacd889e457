"""The one test command: `python3 -m tests.check`.

Needs Python 3.11+, node and npm, and nothing else: it makes `.venv`, installs the project with
its test extras and the pinned JavaScript originals, and runs every check. A browser is needed,
too: where none is found Debian's Chromium is installed, which takes root. `--fast` leaves out
JavaScript, the browser and the slow tests.

Thousands of tests open small stores, and would mostly wait for the disk to sync: where there is
room, all temporary files are in memory. Power cuts are simulated, and need no disk either.

Hundreds of tests start processes of the originals, cut networks and throw dice at NATs, three at
a time, since they wait as much as they work. A few that fail are therefore run once more, alone;
what fails again fails the check, and what does not is named in the last lines: it is a bug all the
same, of ours or of the test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
INTEROP = ROOT / "tests" / "interop"
PACKAGES = ["hypercore", "bee", "swarm", "node"]
LAST_FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
TESTS_FAILED = 1
"""What pytest exits with then; anything else is not about single tests."""
SECOND_CHANCES = 3
"""More failing tests than this are no accident."""
MEMORY = Path("/dev/shm")
"""A file system in memory, on Linux."""
MEMORY_BYTES = 4 * 2**30
"""Free there, if tests are to use it; they take a quarter of that."""


def attempt(title: str, command: list[str | Path], cwd: Path = ROOT) -> int:
    """Run one step; its exit code."""
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    result = subprocess.run([str(part) for part in command], cwd=cwd, check=False)
    print(f"-- {title}: {time.monotonic() - started:.1f} s", flush=True)
    return result.returncode


def end_if_failed(title: str, code: int) -> None:
    """A step that fails ends the whole check with its exit code."""
    if code:
        print(f"{title} failed with exit code {code}", file=sys.stderr)
        sys.exit(code)


def run(title: str, command: list[str | Path], cwd: Path = ROOT) -> None:
    end_if_failed(title, attempt(title, command, cwd))


def end_process(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started, unless it has ended; it leads a session of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


class Beside:
    """Steps that run while others do. A check that fails meanwhile waits for none of them."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def start(self, title: str, command: list[str | Path], cwd: Path = ROOT) -> Callable[[], None]:
        """What this returns waits for the step; of one that succeeds the last line is shown."""
        print(f"\n== {title}, beside what follows", flush=True)
        started = time.monotonic()
        said = self._held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the block closes it
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._held.callback(end_process, process)

        def finish() -> None:
            code = process.wait()
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
            print("", *(lines if code else lines[-1:]), sep="\n")
            print(f"-- {title}: done after {time.monotonic() - started:.1f} s", flush=True)
            end_if_failed(title, code)

        return finish


def run_tests(pytest: list[str | Path], options: list[str]) -> list[str]:
    """Three tests at a time; the names of those that failed then and passed alone."""
    # In the order of `conftest`: files with the fewest tests take longest, and would end alone.
    workers = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "--cache-clear"]
    code = attempt("tests", [*pytest, *workers, *options])
    if code != TESTS_FAILED:
        end_if_failed("tests", code)
        return []
    failed = list(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.is_file() else []
    if not 1 <= len(failed) <= SECOND_CHANCES:
        end_if_failed("tests", code)
    run("failed tests, alone", [*pytest, *failed])
    return failed


def has_room(directory: Path) -> bool:
    """Whether it is there, large enough, and keeps attributes of files as stores write them."""
    if not directory.is_dir() or shutil.disk_usage(directory).free < MEMORY_BYTES:
        return False
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            os.setxattr(file.fileno(), "user.beemesh", b"")
    except OSError:  # not ours to write in, or a kernel before 6.6
        return False
    return True


@contextmanager
def temporary_directory() -> Iterator[None]:
    """What the tests and the processes that they start take for `/tmp`, gone afterwards."""
    place = MEMORY if has_room(MEMORY) else None
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as directory:
        os.environ["TMPDIR"] = directory
        yield


def fingerprint(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def is_installed(stamp: Path, value: str) -> bool:
    """Whether the inputs of an install are those with which it last succeeded."""
    return stamp.is_file() and stamp.read_text() == value


def prepare_python() -> Path:
    python = VENV / "bin" / "python"
    if not python.is_file():
        print(f"== making {VENV.name}", flush=True)
        venv.create(VENV, with_pip=True)
    stamp = VENV / ".beemesh-installed"
    value = fingerprint(ROOT / "pyproject.toml") + sys.version
    if not is_installed(stamp, value):
        run("install the project", [python, "-m", "pip", "install", "--quiet", "-e", ".[test]"])
        stamp.write_text(value)
    return python


def begin_javascript(beside: Beside) -> Callable[[], None]:
    """Install the originals, if that is to be done; what this returns waits for it."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("the JavaScript originals need node and npm; or leave them out with --fast")
    stamp = INTEROP / "node_modules" / ".beemesh-installed"
    value = fingerprint(INTEROP / "package.json")
    if is_installed(stamp, value):
        return lambda: None
    wait = beside.start("install the JavaScript originals", [npm, "install"], INTEROP)

    def finish() -> None:
        wait()
        stamp.write_text(value)

    return finish


def prepare_browser() -> None:
    """One of these names must be on the path; `tests/support/browser.py` looks for the same."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if any(map(shutil.which, names)):
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        sys.exit("a browser is needed: install chromium, or leave it out with --fast")
    run("look for packages", [apt, "update", "-qq"])
    run("install a browser", [apt, "install", "-y", "-qq", "--no-install-recommends", "chromium"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.check", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="some minutes: no JS, no slow tests")
    parser.add_argument("pytest_options", nargs="*", help="passed on to pytest, after --")
    options = parser.parse_args()
    # Hundreds of processes run ours: without the cache each compiles 500 modules for 0.7 s.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    selection = ["-m", "not interop and not slow"] if options.fast else []
    selection += options.pytest_options
    with Beside() as beside:
        # npm first, which mostly waits for the network.
        javascript = None if options.fast else begin_javascript(beside)
        python = prepare_python()
        tools = python.parent
        pytest: list[str | Path] = [python, "-m", "pytest", "-q"]
        # A test file that cannot be imported is told of now. What pytest makes of the others is
        # kept: each worker that had to make it would take 9 s of a processor.
        collected = beside.start("collect tests", [*pytest, "--collect-only", *selection])
        compiling: list[str | Path] = [python, "-m", "tests.compiled"]
        compiled = None if options.fast else beside.start("compiled modules", compiling)
        run("format", [tools / "ruff", "format", "--check", "."])
        run("lint", [tools / "ruff", "check", "."])
        run("imports", [tools / "lint-imports"])
        run("types", [tools / "mypy", *PACKAGES, "tests", "examples"])
        collected()
        if javascript is not None and compiled is not None:
            compiled()
            javascript()
            prepare_browser()
            os.environ.setdefault("BEEMESH_REQUIRE_JS", "1")
    with temporary_directory():
        unsteady = run_tests(pytest, selection)
    for name in unsteady:
        print(f"\nunsteady, passed only alone: {name}")
    print("\nall checks passed")


if __name__ == "__main__":
    main()
