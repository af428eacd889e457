"""Reading rows of a column in order.

An iterator that outlives a call would keep the database locked after `close`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from rocksdict import Rdict, ReadOptions

from hypercore.storage import READ_AHEAD_BYTES


def read_ahead(
    column: Rdict, start: bytes, stop: bytes, most: int
) -> tuple[list[tuple[bytes, bytes]], Exception | None]:
    """Some rows of [start, stop), and why the one after them cannot be read."""
    options = ReadOptions()
    options.set_iterate_lower_bound(start)
    options.set_iterate_upper_bound(stop)
    rows: list[tuple[bytes, bytes]] = []
    size = 0
    # In raw mode, which is ours, keys are bytes; the binding's types allow for more.
    found = cast("Iterator[tuple[bytes, bytes]]", column.items(False, start, options))
    for key, value in found:
        rows.append((key, value))
        size += len(key) + len(value)
        if len(rows) >= most or size >= READ_AHEAD_BYTES:
            return rows, None
    return rows, _error_at(column, rows[-1][0] + b"\x00" if rows else start, options)


def _error_at(column: Rdict, key: bytes, options: ReadOptions) -> Exception | None:
    """Why no row follows, if it is an error: the binding takes an unreadable row for the end."""
    rest = column.iter(options)
    rest.seek(key)
    try:
        rest.status()
    except Exception as error:  # noqa: BLE001  # RocksDB's errors have no class of their own
        return error
    finally:
        del rest, column  # the error remembers this frame
    return None


def unverified_keys(column: Rdict, start: bytes, stop: bytes) -> Iterator[bytes]:
    """Keys of [start, stop), without a look at any checksum."""
    options = ReadOptions()
    options.set_verify_checksums(False)
    # What the cache held of this would not be verified any more. The type stub lacks the argument.
    options.fill_cache(False)  # type: ignore[call-arg]  # see above
    options.set_iterate_upper_bound(stop)
    found = column.iter(options)
    found.seek(start)
    while found.valid():
        yield cast("bytes", found.key())
        found.next()
