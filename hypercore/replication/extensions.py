"""Who handles the extension messages of one core."""

from __future__ import annotations

from hypercore.errors import UsageError
from hypercore.replication.peer_handle import ExtensionHandler


class ExtensionHandlers:
    """One handler for each name: of those who use the core the last one to ask for it."""

    def __init__(self) -> None:
        self.current: dict[str, ExtensionHandler] = {}
        self._of: dict[str, dict[object, ExtensionHandler]] = {}

    def set(self, name: str, handler: ExtensionHandler | None, owner: object) -> None:
        """Handle messages of this name for an owner; None: it does so no longer.

        Raises: UsageError for the empty name, which means "the one before" on the wire.
        """
        if not name:
            raise UsageError("an extension needs a name")
        handlers = self._of.setdefault(name, {})
        handlers.pop(owner, None)
        if handler is not None:
            handlers[owner] = handler
        if handlers:
            self.current[name] = next(reversed(handlers.values()))
        else:
            del self._of[name]
            self.current.pop(name, None)

    def forget(self, owner: object) -> None:
        """It has left: who handled its messages before does so again."""
        for name in [name for name, handlers in self._of.items() if owner in handlers]:
            self.set(name, None, owner)
