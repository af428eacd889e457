"""Whether some task kept all others waiting, or memory was taken, meanwhile."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio


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


@contextmanager
def unharmed(*, seconds: float = 1.0, megabytes: int = 200) -> Iterator[None]:
    """No task runs so long without a pause, and no more memory is taken, while in this block."""
    longest = _LongestStep()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trio.lowlevel.add_instrument(longest)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(longest)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert longest.seconds < seconds, f"{longest.task} ran for {longest.seconds:.1f} s"
    assert taken < megabytes, f"{taken} MB more"
