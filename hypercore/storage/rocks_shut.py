"""Functions that take the place of a read while no database is open; each raises why."""

from __future__ import annotations

from collections.abc import Callable

import trio

from hypercore.errors import HypercoreError, StorageFailed, StoreSuspended


def closed(key: bytes) -> bytes | None:
    """The store is closed."""
    raise trio.ClosedResourceError("the store is closed")


def suspended(key: bytes) -> bytes | None:
    """The store is suspended: others may have its files."""
    raise StoreSuspended


def lost(key: bytes) -> bytes | None:
    """After a failure the store could not even be opened for reading."""
    raise StorageFailed("the store can be neither read nor written until it recovers")


def why_shut(read: Callable[[bytes], object]) -> Exception:
    """The error that one of these raises."""
    try:
        read(b"")
    except (HypercoreError, trio.ClosedResourceError) as error:
        return error.with_traceback(None)
    raise AssertionError("the database is open")
