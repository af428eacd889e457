"""Small pieces of structured concurrency that the shells here need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import trio


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks stop when the `async with` body ends.

    A nursery wraps every exception in a group, even the one the body raised. Here the body's
    own exception leaves unwrapped; a crash of a background task leaves as the group that trio
    made.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                body_error = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if body_error is not None and group.exceptions == (body_error,):
            raise body_error from body_error.__cause__
        raise


class Wakeup:
    """A flag for one waiting task: `set` it from sync code, `wait` takes it down again.

    A third of the cost of a new `trio.Event` for every wait.
    """

    __slots__ = ("_is_set", "_task")

    def __init__(self) -> None:
        self._is_set = False
        self._task: trio.lowlevel.Task | None = None

    def set(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        else:
            self._is_set = True

    async def wait(self) -> None:
        """Return once the flag is set; at once, and without a checkpoint, if it is already.

        Raises: trio.BusyResourceError when another task waits.
        Cancel: nothing is lost, the flag stays as it is.
        """
        if self._is_set:
            self._is_set = False
            return
        if self._task is not None:
            raise trio.BusyResourceError("another task waits here already")
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class SoleSender:
    """`with sole_sender:` around a send: another task is told that it cannot send meanwhile."""

    __slots__ = ("_is_sending",)

    def __init__(self) -> None:
        self._is_sending = False

    def __enter__(self) -> None:
        """Raises: trio.BusyResourceError when another task is within."""
        if self._is_sending:
            raise trio.BusyResourceError("another task sends on this stream")
        self._is_sending = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_sending = False
