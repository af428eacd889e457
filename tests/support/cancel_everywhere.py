"""Repeats an async call, cancelled at its first, second, ... step, until it completes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope when the task has made so many steps."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task, self._scope, self._left = task, scope, step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancel_everywhere(call: Callable[[], Awaitable[object]]) -> int:
    """Call until it completes uncancelled; return how many times it was cancelled."""
    for step in range(1, 10_000):
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(trio.lowlevel.current_task(), scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await call()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        if not scope.cancelled_caught:
            return step - 1
    raise AssertionError("never completed")
