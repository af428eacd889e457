from __future__ import annotations

import errno

import pytest

from node.failures import tell_failure
from node.verbs import ExitCode


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "/data: Permission denied"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "Operation not permitted"),
        (OSError(errno.EROFS, "Read-only", "/data"), "/data: Read-only: check the disk, then"),
    ],
)
def test_a_failure_is_told_with_the_name_of_the_file_if_it_has_one(
    error: OSError, text: str
) -> None:
    """A socket has none."""
    told = tell_failure(error)
    assert told is not None
    assert (told[0], told[1].startswith(text)) == (ExitCode.FAILED, True)
