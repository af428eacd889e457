"""What callers give to be kept beside a log, checked before anything is changed.

A row that is refused only when it is written would leave a log that takes nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hypercore.errors import UsageError
from hypercore.storage.layout import MAX_LOCAL_KEY_BYTES

LocalRows = Mapping[bytes, bytes | None]
"""Changes of the local rows: a value to put, None to delete."""

UserData = Mapping[str, bytes | None]
"""Changes of the user data: a value to put, None to delete."""


def checked_rows(local: LocalRows | None) -> LocalRows:
    """Raises: UsageError for a key that is too long, TypeError for what is not bytes."""
    if not local:
        return {}
    check_kind("the key of a local row", local, bytes)
    check_kind("a local row", _values_put(local), bytes)
    if (longest := max(map(len, local))) > MAX_LOCAL_KEY_BYTES:
        raise UsageError(f"a local key of {longest} bytes, at most {MAX_LOCAL_KEY_BYTES}")
    return local


def checked_user_data(rows: UserData) -> UserData:
    """Raises: TypeError for a key that is not text, or a value that is not bytes."""
    check_kind("the key of user data", rows, str)
    check_kind("user data", _values_put(rows), bytes)
    return rows


def _values_put(changes: LocalRows | UserData) -> Iterable[object]:
    return (value for value in changes.values() if value is not None)


def check_kind(what: str, given: Iterable[object], wanted: type) -> None:
    """Raises: TypeError when one of those `given` is of another type."""
    for kind in set(map(type, given)):
        if not issubclass(kind, wanted):
            raise TypeError(f"{what} is {wanted.__name__}, not {kind.__name__}")
