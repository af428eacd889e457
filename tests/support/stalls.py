"""Whether some task kept all others waiting, or memory was taken, meanwhile."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

_PROCESS = Path("/proc/self")


class _LongestStep(trio.abc.Instrument):
    """By the processor's time, which other jobs of the machine do not take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.task = ""
        self._started = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._started = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.thread_time() - self._started
        if seconds > self.seconds:
            self.seconds, self.task = seconds, task.name


def _begin_peak() -> int:
    """Forget how much memory was ever used at once; returns how much is in use, in KiB.

    What earlier tests freed goes back to the system first: in it a growth would not be seen.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
        return _status("VmRSS")
    return _peak()


def _peak() -> int:
    """The most that was used at once since then; elsewhere than on Linux, ever."""
    with suppress(OSError):
        return _status("VmHWM")
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextmanager
def unharmed(*, seconds: float = 1.0, megabytes: int = 200) -> Iterator[None]:
    """No task runs so long without a pause, and no more memory is taken, while in this block."""
    longest = _LongestStep()
    before = _begin_peak()
    trio.lowlevel.add_instrument(longest)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(longest)
    taken = (_peak() - before) // 1024
    assert longest.seconds < seconds, f"{longest.task} ran for {longest.seconds:.1f} s"
    assert taken < megabytes, f"{taken} MB more"
