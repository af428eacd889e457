"""Let a disk fail at every call: `python -m tests.hypercore.failing_disk_campaign`.

For each kind of failure the same short run (`tests.support.failing_disk`) is made again and
again, each time with another of its calls failing, until none was reached. With `--real` a small
file system is mounted besides and filled to the brim, which takes root.
"""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import Core, Corestore, Durability, StorageFailed, open_corestore
from hypercore.store_repair import audit_core
from tests.support.power_cut import Calls, build_shim, shim_environment

_PROJECT = Path(__file__).parents[2]
_EVER = 1_000_000
_DISK_BYTES = 48 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """Which calls fail, how many in a row, and how."""

    calls: Calls
    count: int
    error: int

    def __str__(self) -> str:
        kinds = " and ".join(kind.name.lower() for kind in Calls if kind & self.calls if kind.name)
        how_many = "one" if self.count == 1 else "all from one on"
        return f"{errno.errorcode[self.error]} for {kinds} calls, {how_many}"


FAULTS = {
    "sync": Fault(Calls.SYNC, 1, errno.EIO),
    "syncs": Fault(Calls.SYNC, _EVER, errno.EIO),
    "write": Fault(Calls.WRITE, 1, errno.EIO),
    "full-write": Fault(Calls.WRITE, 1, errno.ENOSPC),
    "full": Fault(Calls.WRITE, _EVER, errno.ENOSPC),
    "name": Fault(Calls.NAME, 1, errno.EIO),
    "full-names": Fault(Calls.NAME, _EVER, errno.ENOSPC),
    "quota": Fault(Calls.WRITE | Calls.NAME, _EVER, errno.EDQUOT),
}


@dataclass
class Report:
    fault: str
    runs: int = 0
    opening: int = 0
    writing: int = 0
    closing: int = 0
    recovered: int = 0
    """Runs that failed while writing, and went on in the same open store."""
    hits: int = 0
    """Calls that failed."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run_fault(
    scratch: Path, name: str, *, first: int = 0, step: int = 1, runs: int = _EVER
) -> Report:
    """All runs of one kind of failure."""
    fault = FAULTS[name]
    report = Report(str(fault))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        disk = Path(directory) / "disk"
        disk.mkdir()
        numbers = (int(fault.calls), fault.count, fault.error, first, step, runs)
        child = subprocess.run(
            [sys.executable, "-m", "tests.support.failing_disk", str(disk), *map(str, numbers)],
            env=shim_environment(build_shim(Path(directory)), disk),
            cwd=_PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
    report.seconds = time.monotonic() - start
    if child.returncode == 0:
        counts = map(int, child.stdout.split())
        report.runs, report.opening, report.writing = next(counts), next(counts), next(counts)
        report.closing, report.recovered, report.hits = next(counts), next(counts), next(counts)
    else:
        number = first
        for line in child.stderr.splitlines():
            if line.startswith("at run "):
                number = int(line.removeprefix("at run "))
        report.wrong.append(f"{child.stderr[-2000:]}\nagain: {again(name, number, step)}")
    return report


def again(name: str, number: int, step: int) -> str:
    """The command that repeats one run."""
    return (
        f"python -m tests.hypercore.failing_disk_campaign {name} --first {number} --runs 1 "
        f"--step {step}"
    )


@contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """A small file system in memory. Raises: subprocess.CalledProcessError without root."""
    path.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(path)], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


async def _append_until_full(core: Core) -> int:
    """The length that was acknowledged."""
    while True:
        length = core.length
        try:
            await core.append([b"%d " % length * 1000] * 8)
        except StorageFailed:
            return length


async def _check_full(store: Corestore, core: Core, ballast: Path, length: int) -> None:
    for _ in range(3):
        try:
            await store.recover()
        except StorageFailed:
            pass
        else:  # what had been written in part was deleted, and made room
            length = await _append_until_full(core)
        for index in range(length):
            assert core.get_local(index)
        assert not await _appends(core)
    await trio.Path(ballast).unlink()
    assert not await _appends(core)
    await store.recover()
    assert core.length >= length
    assert (await audit_core(core)).is_sound
    assert await _appends(core)
    assert (await audit_core(core)).is_sound


async def _appends(core: Core) -> bool:
    try:
        await core.append(b"more")
    except StorageFailed:
        return False
    return True


async def fill_real_disk(path: Path, durability: Durability, ballast_bytes: int) -> int:
    """Fill a small disk, empty it, and go on in the same store; the length it came to."""
    ballast = path / "ballast"
    ballast.write_bytes(bytes(ballast_bytes))
    async with open_corestore(path / "store", durability=durability) as store:
        core = await store.get(name="log")
        length = await _append_until_full(core)
        await _check_full(store, core, ballast, length)
        length = core.length
    async with open_corestore(path / "store") as store:
        core = await store.get(name="log")
        assert core.length == length
        assert (await audit_core(core)).is_sound
    return length


def real_disks(scratch: Path) -> Report:
    """A disk that is full after more and more bytes."""
    report = Report("a real disk, full")
    start = time.monotonic()
    for number, mebibytes in enumerate((16, 20, 24, 28, 32, 36)):
        for durability in (Durability.COMMIT, Durability.OS):
            with mounted(scratch / f"full-{number}-{durability}") as path:
                try:
                    trio.run(fill_real_disk, path, durability, mebibytes << 20)
                except (AssertionError, StorageFailed) as error:
                    report.wrong.append(
                        f"{mebibytes} MiB taken, {durability}: {error!r}; again: "
                        "python -m tests.hypercore.failing_disk_campaign real"
                    )
                else:
                    report.recovered += 1
            report.runs += 1
            report.writing += 1
    report.seconds = time.monotonic() - start
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", default=[*FAULTS], choices=[*FAULTS, "real"])
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--step", type=int, default=1, help="calls from one run to the next")
    parser.add_argument("--runs", type=int, default=_EVER, help="at most so many of each")
    options = parser.parse_args()
    is_wrong = False
    with tempfile.TemporaryDirectory() as path:
        for name in options.faults:
            if name == "real":
                report = real_disks(Path(path))
            else:
                report = run_fault(
                    Path(path), name, first=options.first, step=options.step, runs=options.runs
                )
            sys.stdout.write(f"{name}: {report}\n")
            sys.stdout.flush()
            is_wrong |= bool(report.wrong)
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
