"""What can go wrong in a node, told by whose fault it is.

NodeError
  ConfigError   the configuration is wrong: nothing was started
  CorruptStore  what this node stored itself is damaged
"""

from __future__ import annotations


class NodeError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(NodeError):
    """The configuration is wrong; the text names the option and what it may be."""


def reason_of(error: OSError | ValueError) -> str:
    """Why a file could not be read or written, in words and without its name."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class CorruptStore(NodeError):
    """A stored record that this node cannot have written; `co_id` names the coValue."""

    def __init__(self, co_id: str, reason: str) -> None:
        super().__init__(f"stored coValue {co_id} is damaged: {reason}")
        self.co_id = co_id
        self.reason = reason
