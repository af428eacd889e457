"""One task waits at a time, where a second one cannot have meant what would happen."""

from __future__ import annotations

from types import TracebackType

from hypercore.errors import UsageError


class SoleWaiter:
    """`with sole_waiter:` around what a task waits for; another one is told that it cannot."""

    __slots__ = ("_is_taken", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_taken = False

    def __enter__(self) -> None:
        """Raises: UsageError when another task is within."""
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
