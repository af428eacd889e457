"""What one of a store's users has open, to be closed with the user."""

from __future__ import annotations

from hypercore.handle import Handle

_FEWEST_LOOKED_THROUGH = 64


class StoreSession:
    """Made by `Corestore.session`."""

    def __init__(self) -> None:
        self._opened: list[Handle] = []
        self._limit = _FEWEST_LOOKED_THROUGH
        self.is_closed = False

    def add(self, handle: Handle) -> None:
        """The handle was opened through this session, or made of one that was."""
        self._opened.append(handle)
        if len(self._opened) > self._limit:
            # Forget those that the user closed; seldom enough to cost little for each core.
            self._opened = [opened for opened in self._opened if not opened.is_closed]
            self._limit = max(_FEWEST_LOOKED_THROUGH, 2 * len(self._opened))

    def close(self) -> None:
        """Close what was opened through it and is still open."""
        self.is_closed = True
        while self._opened:
            self._opened.pop().close()
