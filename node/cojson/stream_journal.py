"""[disk] The streams that a node has begun, in case it crashes: `cut_streams.log`.

A line is appended before the first piece of a stream is sent, and nothing is taken away when the
client has all of it: what a crash leaves is more than was cut, and to be doubted does little harm.
The system keeps what was written when the process is killed; a power cut takes the last seconds.

File format: a line for each stream, ["co_z...",{"<session>":count,...}]. At MAX_BYTES the file
becomes `cut_streams.log.old` in place of the one before, and another one is begun.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import SessionCounts

MAX_BYTES = 1024 * 1024
"""Of one file: some 7,000 large values of one session."""

MAX_COUNTERS = 10_000
"""In one line, about 750 KB, written in 5 ms; streams with more are not noted."""

_log = structlog.get_logger(__name__)


class StreamJournal:
    """Appends to the file at `path` while it is open, and reads what an earlier one left there.

    What cannot be written is not remembered, and that is all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old_path = path.with_name(f"{path.name}.old")
        self._descriptor: int | None = None
        self._size = 0
        self._written: dict[RawCoId, SessionCounts] = {}
        """What the file says last of each value: many clients load the same ones."""
        self._is_failing = False

    def read(self) -> Iterator[tuple[RawCoId, SessionCounts]]:
        """What was begun, oldest first; a line that a crash or a full disk spoiled is left out."""
        for path in (self._old_path, self._path):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError:
                continue  # most nodes have none
            for line in lines:
                try:
                    yield _parse(line)
                except (ValueError, RecursionError):
                    continue

    def begin(self, co_id: RawCoId, announced: SessionCounts) -> None:
        """A stream begins that will end there. Not in a thread: it takes some 10 us."""
        if self._written.get(co_id) == announced or len(announced) > MAX_COUNTERS:
            return
        text = json.dumps([co_id, dict(announced)], separators=(",", ":"))
        try:
            # The line feed comes first: the line before may have been cut short.
            self._write(b"\n" + text.encode())
        except OSError as error:
            if not self._is_failing:
                _log.warning("streams not noted", path=str(self._path), error=str(error))
            self._is_failing = True
            return
        self._is_failing = False
        self._written[co_id] = announced

    def _write(self, line: bytes) -> None:
        if self._size >= MAX_BYTES:
            self.close()
            self._path.replace(self._old_path)
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptor = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size
        self._size += os.write(self._descriptor, line)

    def close(self) -> None:
        """Write nothing more until a stream begins; what was written stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
        self._size = 0
        self._written.clear()

    def remove(self) -> None:
        """Close it, and leave nothing: what was cut is known otherwise. Raises: OSError."""
        self.close()
        for path in (self._old_path, self._path):
            path.unlink(missing_ok=True)


def _parse(line: bytes) -> tuple[RawCoId, SessionCounts]:
    match json.loads(line):
        case [str(co_id), announced]:
            return RawCoId(co_id), session_counts(announced)
    raise ValueError


def session_counts(counts: object) -> SessionCounts:
    """Counters as they are kept in JSON. Raises: ValueError."""
    found: dict[CoSessionId, int] = {}
    if not isinstance(counts, dict):
        raise ValueError
    for session_id, count in counts.items():
        if type(count) is not int or count < 0:
            raise ValueError
        found[CoSessionId(session_id)] = count
    return found
