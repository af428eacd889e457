"""What can go wrong with a bee.

BeeError
  NotABee            the log holds something else
  UnknownFormat      a bee of a kind this package does not read
  CorruptTree        a block that fits the log's signature, but not the tree
  HistoryReplaced    the log was truncated under a snapshot
  IndexNotBuilt      an index was read before it was built
  BatchEnded         a batch was used after it was flushed
  LogChanged         somebody appended to the log while a change was made
"""

from __future__ import annotations


class BeeError(Exception):
    """Base of everything this package raises on purpose."""


class NotABee(BeeError):
    """The first block of the log is not the header of a bee."""


class UnknownFormat(BeeError):
    """The header names a format that this package does not know."""

    def __init__(self, version: str) -> None:
        super().__init__(f"format {version!r} is unknown, only 'hyperbee' is read")
        self.version = version


class CorruptTree(BeeError):
    """Block `seq` is not what the tree says it is.

    Its writer's fault: the log is signed, so no peer on the way can have caused it.
    """

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(f"block {seq}: {reason}")
        self.seq = seq
        self.reason = reason


class HistoryReplaced(BeeError):
    """A snapshot whose log has been truncated since: what it showed may be gone."""

    def __init__(self, fork: int, current_fork: int) -> None:
        super().__init__(f"snapshot of fork {fork}, the log is at fork {current_fork} now")
        self.fork = fork
        self.current_fork = current_fork


class LogChanged(BeeError, RuntimeError):
    """The log grew or was truncated between a change and its append: nothing was appended.

    The holder of a batch (or of the log's `exclusive()`) must not append beside it.
    """


class BatchEnded(BeeError, RuntimeError):
    """A batch takes nothing more once it was flushed or its block was left."""


class IndexNotBuilt(BeeError):
    """An index that does not cover all rows yet: `IndexedBee.build` has to run at the writer."""

    def __init__(self, name: str, revision: int, found: int | None) -> None:
        state = "it was never built" if found is None else f"revision {found} is there"
        super().__init__(f"index {name!r} at revision {revision} is not built: {state}")
        self.name = name
