"""How a failure is told: an exit code, and one line that names the fault and says what to do.

The same for the command and for a node that carries out a verb. What nobody foresaw is our fault.
"""

from __future__ import annotations

import errno

from node.errors import CorruptStore, NodeError, reason_of
from node.verbs import ExitCode, VerbError

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_AT_THE_DISK = "check the disk, then try again"


def tell_failure(error: BaseException) -> tuple[ExitCode, str] | None:
    """None for what was not foreseen."""
    match error:
        case VerbError():
            return error.code, error.text
        case CorruptStore():
            return ExitCode.CORRUPT, f"{error}: restore the data directory from a backup"
        case NodeError():
            return ExitCode.FAILED, str(error)
        case PermissionError() | FileNotFoundError() | NotADirectoryError():
            return ExitCode.FAILED, _where_and_why(error)
        case OSError() if error.errno in _OF_THE_DISK:
            return ExitCode.FAILED, f"{_where_and_why(error)}: {_AT_THE_DISK}"
    return _tell_store_failure(error)


def _where_and_why(error: OSError) -> str:
    """Errors of sockets have no file name."""
    return f"{error.filename}: {error.strerror}" if error.filename else reason_of(error)


def only_cause(error: BaseException) -> BaseException:
    """The one failure within groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def causes(error: BaseException) -> str:
    """What went wrong, a group taken apart: its own text says nothing."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(causes, error.exceptions))
    return f"{type(error).__name__}: {error}"


def _tell_store_failure(error: BaseException) -> tuple[ExitCode, str] | None:
    from hypercore.errors import (  # late: most commands meet no store
        CopiedStore,
        CorruptStorage,
        HypercoreError,
        StorageFailed,
    )

    match error:
        case CopiedStore():
            return ExitCode.FAILED, str(error)
        case CorruptStorage():
            advice = "run `beemesh core verify --repair`, or restore the directory from a backup"
            return ExitCode.CORRUPT, f"{error}: {advice}"
        case StorageFailed():
            return ExitCode.FAILED, f"{error}: {_AT_THE_DISK}"
        case HypercoreError():
            return ExitCode.FAILED, str(error)
    return None
