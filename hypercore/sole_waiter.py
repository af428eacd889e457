"""Waits of one task at a time, where a second task would not get what it meant to."""

from __future__ import annotations

from types import TracebackType

from hypercore.errors import UsageError


class SoleWaiter:
    """`with sole_waiter:` goes around a wait; a second task there gets UsageError."""

    __slots__ = ("_is_taken", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_taken = False

    def __enter__(self) -> None:
        """Raises: UsageError when another task is inside."""
        if self._is_taken:
            raise UsageError(f"another task is {self._what}")
        self._is_taken = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_taken = False
