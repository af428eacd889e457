"""What users of an open RocksDB hold of it: batches and snapshots.

Each keeps the database locked for as long as the binding's object in it lives, so each can let go
of that object and live on.
"""

from __future__ import annotations

import trio
from rocksdict import ColumnFamily, Snapshot
from rocksdict import WriteBatch as NativeBatch

from hypercore.errors import CorruptStorage, StorageError


class RocksBatch:
    """A native batch; `put` and `delete` are its native methods, to cost nothing on top.

    While one is neither committed nor garbage, closing the store does not unlock it, unless the
    store knows the batch and can take it away.
    """

    __slots__ = ("__weakref__", "_column", "delete", "is_lost", "native", "put")

    def __init__(self, column: ColumnFamily) -> None:
        native = NativeBatch(raw_mode=True)
        native.set_default_column_family(column)
        self.native = native
        self.put = native.put
        self.delete = native.delete
        self._column: ColumnFamily | None = column
        self.is_lost = False

    def delete_range(self, start: bytes, stop: bytes, /) -> None:
        # Without the column it would delete in the default family, and say nothing.
        self.native.delete_range(start, stop, self._column)

    @property
    def is_used(self) -> bool:
        return self._column is None

    def settle(self) -> None:
        """Nothing to do: all of it waits here."""

    def release(self) -> None:
        """Let go of the database."""
        self.native.set_default_column_family(None)
        self._column = None

    def close(self) -> None:
        if not self.is_used:
            self.native.clear()
            self.release()

    def lose(self) -> None:
        """The database is being closed, and this would keep it locked."""
        self.is_lost = not self.is_used
        self.release()


class RocksSnapshot:
    """One of the database's own snapshots.

    Single rows only: the binding's iterators over a snapshot show the present rows.
    It ends with the database, which may be closed for a while: then all its rows are gone.
    """

    def __init__(self, native: Snapshot) -> None:
        self._native: Snapshot | None = native
        self._is_lost = False

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    def get(self, key: bytes) -> bytes | None:
        if self._is_lost:
            return None
        if self._native is None:
            raise trio.ClosedResourceError("the snapshot is closed")
        try:
            value: bytes = self._native[key]
        except Exception as error:  # RocksDB's errors have no class of their own
            if str(error) == "key not found":
                return None
            if "Corruption" in str(error):
                raise CorruptStorage("a snapshot", str(error)) from error
            raise StorageError(f"a snapshot cannot be read: {error}") from error
        return value

    def close(self) -> None:
        self._native = None

    def lose(self) -> None:
        """The database is being closed, and this would keep it locked."""
        self._is_lost = self._native is not None
        self._native = None
