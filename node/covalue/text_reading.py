"""Reading a whole value from our bee as the text that is sent, without making objects of it.

For values that a client loads, and that are neither groups (what those depend on is in their
transactions) nor long. It stops as soon as it sees that a value is not of that kind: the rows
that tell come first. Anything odd is left to `reading.read_pieces`, which says what it is.
"""

from __future__ import annotations

from bee.bee import Snapshot
from node.covalue.content import join_lines
from node.covalue.dependencies import value_dependencies
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, parse_session_id
from node.covalue.keys import RowKind, run_key, value_range
from node.covalue.reading import PutTogether, put_together_at_once
from node.covalue.record_shapes import TransactionRow
from node.covalue.records import decode_header, decode_run_rows, decode_session_rows, row_lines
from node.covalue.store import StoredSession, StoredText, StoredValue

MAX_TEXT_BYTES = 64 * 1024
"""Of changes: longer values are read and sent a few pieces at a time."""


async def read_text(
    tree: Snapshot[bytes, bytes], co_id: RawCoId, put_together: PutTogether = put_together_at_once
) -> StoredText | None:
    """All of a value that is not deleted; None for one that is to be read in pieces.

    Raises: DecodeError; what the bee raises.
    Cancel: nothing is changed.
    """
    start, stop = value_range(co_id)
    reader = _TextReader(co_id, len(start))
    async for entry in tree.range(gte=start, lt=stop):
        if not reader.receive(entry.key, entry.value or b""):
            return None
    return await put_together(reader.finish, reader.sessions)


class _TextReader:
    def __init__(self, co_id: RawCoId, prefix_bytes: int) -> None:
        self._co_id = co_id
        self._prefix_bytes = prefix_bytes
        self._header: CoValueHeader | None = None
        self._sessions: dict[CoSessionId, StoredSession] = {}
        self._rows: dict[CoSessionId, list[TransactionRow]] = {}
        """Transactions in the runs that were read."""
        self._tails: dict[CoSessionId, list[TransactionRow]] = {}
        self._size = 0

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def receive(self, key: bytes, value: bytes) -> bool:
        """Take the next row; whether it is worth going on. Raises: DecodeError."""
        # All keys begin alike: `decode_key` would check their id once for each row.
        kind, _, rest = key[self._prefix_bytes :].decode("ascii", "replace").partition(":")
        match kind:
            case RowKind.HEADER.value:
                self._header = decode_header(value)
                return self._header.has_id(self._co_id) and not self._header.is_group
            case RowKind.SESSION.value:
                session_id = parse_session_id(rest)
                session, self._tails[session_id] = decode_session_rows(value)
                self._sessions[session_id] = session
                self._rows[session_id] = []
                self._size += session.bytes_since_checkpoint
                return self._size <= MAX_TEXT_BYTES
            case RowKind.RUN.value:
                session_id = CoSessionId(rest.partition(":")[0])
                rows = self._rows.get(session_id)
                if rows is None or key != run_key(self._co_id, session_id, len(rows)):
                    return False
                rows += decode_run_rows(value)
                return True
        return False

    def finish(self) -> StoredText | None:
        header = self._header
        if header is None:
            return None
        joined: dict[CoSessionId, str] = {}
        for session_id in sorted(self._sessions):
            rows = self._rows[session_id] + self._tails[session_id]
            if len(rows) != self._sessions[session_id].count:
                return None
            joined[session_id] = join_lines(row_lines(rows))
        dependencies = value_dependencies(self._co_id, header, self._sessions, ())
        return StoredText(StoredValue(header, self._sessions, dependencies), joined)
