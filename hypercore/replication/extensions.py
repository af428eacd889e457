"""Who handles the extension messages of one core."""

from __future__ import annotations

from typing import NamedTuple

from hypercore.errors import UsageError
from hypercore.replication.peer_handle import ExtensionHandler, ExtensionNote


class _Owned(NamedTuple):
    handler: ExtensionHandler
    note: ExtensionNote | None


class ExtensionHandlers:
    """One handler for each name: that of the owner that was the last to set one."""

    def __init__(self) -> None:
        self.current: dict[str, ExtensionHandler] = {}
        self.notes: dict[str, ExtensionNote] = {}
        self._of: dict[str, dict[object, _Owned]] = {}

    def set(
        self,
        name: str,
        handler: ExtensionHandler | None,
        owner: object,
        note: ExtensionNote | None = None,
    ) -> None:
        """Handle messages of this name for an owner; None: no longer.

        Raises: UsageError for the empty name, which means "the one before" on the wire.
        """
        if not name:
            raise UsageError("an extension needs a name")
        handlers = self._of.setdefault(name, {})
        handlers.pop(owner, None)
        if handler is not None:
            handlers[owner] = _Owned(handler, note)
        self.current.pop(name, None)
        self.notes.pop(name, None)
        if not handlers:
            del self._of[name]
            return
        current = next(reversed(handlers.values()))
        self.current[name] = current.handler
        if current.note is not None:
            self.notes[name] = current.note

    def forget(self, owner: object) -> None:
        """The owner has left: for its names, the handlers set before its own are used again."""
        for name in [name for name, handlers in self._of.items() if owner in handlers]:
            self.set(name, None, owner)
