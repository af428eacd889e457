"""Cutting a coValue into content messages, and putting them together from its stored rows.

Sessions come one after the other. A session's transactions up to a signature checkpoint are a
piece of their own; what follows the last checkpoint (the tail) joins the current piece while
that stays below PIECE_BYTES. The header goes with the first piece. A piece must end where a
signature was made, and no other signatures are kept.

Source: cojson 0.20.19 coValueContentMessage.ts, storage/storageSync.ts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from hypercore.encoding import DecodeError
from node.covalue.content import PIECE_BYTES, Content, SessionContent, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.keys import RowKey, RowKind, decode_key, row_order
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.records import decode_checkpoint, decode_header, decode_run, decode_session
from node.covalue.store import StoredSession


class PieceBuilder:
    """Takes parts of sessions in order and gives pieces."""

    def __init__(self, co_id: RawCoId, header: CoValueHeader | None, priority: int) -> None:
        self.pieces: list[Content] = []
        self.size = 0
        """Bytes of changes in all pieces so far."""
        self._co_id = co_id
        self._header = header
        self._priority = priority
        self._current: dict[CoSessionId, SessionContent] = {}
        self._current_size = 0

    def add(self, session_id: CoSessionId, part: SessionContent, *, is_checkpoint: bool) -> None:
        """Append a part that ends where a signature was made."""
        size = sum([len(transaction.changes) for transaction in part.transactions])
        self.size += size
        if self._current and (is_checkpoint or self._current_size + size > PIECE_BYTES):
            self._close()
        self._current[session_id] = part
        self._current_size += size
        if is_checkpoint:
            self._close()

    def finish(self, until: SessionCounts) -> list[Content]:
        """The pieces; the first announces `until`, the counts at the end, if it is not all."""
        if self._current or self._header is not None:
            self._close()
        if self.pieces:
            first = self.pieces[0]
            if len(self.pieces) > 1 or not KnownState(
                True, {key: part.stop for key, part in first.new.items()}
            ).covers(KnownState(True, until)):
                self.pieces[0] = Content(
                    first.co_id, first.header, first.new, first.priority, until
                )
        return self.pieces

    def _close(self) -> None:
        self.pieces.append(Content(self._co_id, self._header, self._current, self._priority))
        self._header = None
        self._current = {}
        self._current_size = 0


def sessions_beyond(
    sessions: Mapping[CoSessionId, StoredSession], known: KnownState
) -> dict[CoSessionId, int]:
    """Sessions that go beyond `known`, in order, and from which count on."""
    counts = known.sessions
    return {
        session_id: counts.get(session_id, 0)
        for session_id in sorted(sessions, key=row_order)
        if sessions[session_id].count > counts.get(session_id, 0)
    }


class ValueReader:
    """Reads the rows of one value, in the order of their keys, into pieces beyond `known`.

    Of the runs only those are needed that `wanted_runs` tells. Once it `is_full`, which it is
    with `max_bytes` of changes, it takes no more.

    Rows may come from somebody else's bee: any bytes give pieces or DecodeError. That they
    verify is for the engine to find out. Of a tombstone only the delete sessions count.
    """

    def __init__(
        self,
        co_id: RawCoId,
        known: KnownState,
        *,
        max_bytes: int | None = None,
        is_tombstone: bool = False,
    ) -> None:
        self._max_bytes = max_bytes
        self._is_tombstone = is_tombstone
        self.header: CoValueHeader | None = None
        self.sessions: dict[CoSessionId, StoredSession] = {}
        self._co_id = co_id
        self._known = known
        self._tails: dict[CoSessionId, list[Transaction]] = {}
        self._checkpoints: dict[CoSessionId, list[tuple[int, bytes]]] = {}
        self._unread: deque[CoSessionId] = deque()
        """Lacking sessions that were not come to yet, in order."""
        self._builder: PieceBuilder | None = None
        self._session_id: CoSessionId | None = None
        self._next = 0
        """Index that the next transaction of the session being read must have."""
        self._part: list[Transaction] = []

    def receive(self, key: bytes, value: bytes) -> RowKey:
        """Take the next row, and say which it is. Raises: DecodeError."""
        row = decode_key(key)
        if row.co_id != self._co_id:
            raise DecodeError("row of another value", 0)
        match row.kind:
            case RowKind.HEADER:
                self.header = decode_header(value)
                if not self.header.has_id(self._co_id):
                    raise DecodeError("stored header of another value", 0)
            case _ if self._is_tombstone and not is_delete_session(row.session_id):
                pass
            case RowKind.SESSION:
                session, tail = decode_session(value)
                self.sessions[row.session_id] = session
                if tail:
                    self._tails[row.session_id] = tail
            case RowKind.CHECKPOINT:
                checkpoints = self._checkpoints.setdefault(row.session_id, [])
                checkpoints.append((row.index + 1, decode_checkpoint(value)))
            case RowKind.RUN:
                self._receive_run(row.session_id, row.index, decode_run(value))
        return row

    @property
    def lacking(self) -> dict[CoSessionId, int]:
        """Sessions that go beyond `known`, in order, and from which count on."""
        return sessions_beyond(self.sessions, self._known)

    @property
    def wanted_runs(self) -> dict[CoSessionId, int]:
        """Lacking sessions whose tails do not bring all, in order, and from which count on."""
        return {
            session_id: count
            for session_id, count in self.lacking.items()
            if count < self.sessions[session_id].count - len(self._tails.get(session_id, ()))
        }

    def may_lack_checkpoints(self, session_id: CoSessionId) -> bool:
        """Whether what lies beyond `known` goes back beyond the session's last checkpoint.

        Of one whose tail does not bring all of it that is not known before its runs are read.
        """
        session, tail = self.sessions[session_id], self._tails.get(session_id, [])
        count = session.count - self._known.sessions.get(session_id, 0)
        if count > len(tail):
            return True
        size = sum([len(transaction.changes) for transaction in tail[len(tail) - count :]])
        return size > session.bytes_since_checkpoint

    @property
    def is_complete(self) -> bool:
        """Whether header and session rows say that there is nothing beyond `known`."""
        return self.header is None or (self._known.header and not self.lacking)

    @property
    def is_full(self) -> bool:
        """Whether it has as many bytes of changes as it was to read."""
        if self._builder is None or self._max_bytes is None:
            return False
        return self._builder.size >= self._max_bytes

    def finish(self) -> tuple[list[Content], bool]:
        """The pieces, and whether they are all; only whole parts are given if not.

        Raises: DecodeError when something is missing although reading went to the end.
        """
        if self.header is None:
            if self.sessions:
                raise DecodeError("stored sessions without their header", 0)
            return [], True
        builder = self._start()
        if not self.is_full:
            self._end_session()
            self._read_tails()
        lacking = self.lacking
        pieces = builder.finish({key: self.sessions[key].count for key in lacking})
        reached = {key: part.stop for piece in pieces for key, part in piece.new.items()}
        is_all = all(reached.get(key, 0) == self.sessions[key].count for key in lacking)
        if not is_all and not self.is_full:
            raise DecodeError("stored session without its transactions", 0)
        return pieces, is_all

    def _start(self) -> PieceBuilder:
        if self._builder is None:
            header = self.header
            if header is None:
                raise DecodeError("stored transactions without their header", 0)
            wanted = None if self._known.header else header
            self._builder = PieceBuilder(self._co_id, wanted, header.priority)
            self._unread.extend(self.lacking)
        return self._builder

    def _receive_run(self, session_id: CoSessionId, index: int, run: list[Transaction]) -> None:
        self._start()
        session = self.sessions.get(session_id)
        if session is None:
            raise DecodeError("stored transactions of an unknown session", 0)
        if session_id != self._session_id:
            self._end_session()
            self._read_tails(before=session_id)
            if self.is_full:
                return
            self._begin_session(session_id)
        skipped = self._next - index
        if skipped < 0 or index + len(run) > session.count:
            raise DecodeError("stored transactions with a gap, or beyond their session", 0)
        self._add_transactions(session_id, session, run[skipped:] if skipped else run)

    def _add_transactions(
        self, session_id: CoSessionId, session: StoredSession, fresh: list[Transaction]
    ) -> None:
        checkpoints = self._checkpoints.get(session_id, [])
        while fresh:
            stop = self._next + len(fresh)
            while checkpoints and checkpoints[0][0] <= self._next:
                checkpoints.pop(0)
            signature = None
            if checkpoints and checkpoints[0][0] <= stop:
                stop, signature = checkpoints[0]
            count = stop - self._next
            self._part += fresh[:count]
            fresh = fresh[count:]
            self._next = stop
            if signature is not None and stop < session.count:
                self._end_part(session_id, signature, is_checkpoint=True)

    def _begin_session(self, session_id: CoSessionId) -> None:
        if self._unread and self._unread[0] == session_id:
            self._unread.popleft()
        self._session_id = session_id
        self._next = self._known.sessions.get(session_id, 0)

    def _read_tails(self, before: CoSessionId | None = None) -> None:
        """Read the sessions that come next and have no runs, until it is enough."""
        while self._unread and not self.is_full:
            if before is not None and row_order(self._unread[0]) >= row_order(before):
                return
            self._begin_session(self._unread[0])
            self._end_session()

    def _end_session(self) -> None:
        """Close the session that was being read with its tail: it must be whole."""
        session_id = self._session_id
        if session_id is None:
            return
        self._session_id = None
        session = self.sessions[session_id]
        tail = self._tails.get(session_id, [])
        skipped = self._next - (session.count - len(tail))
        if skipped < 0:
            raise DecodeError("stored session is cut short", 0)
        self._add_transactions(session_id, session, tail[skipped:])
        if self._part:
            checkpoints = self._checkpoints.get(session_id, [])
            is_checkpoint = bool(checkpoints) and checkpoints[-1][0] == session.count
            self._end_part(session_id, session.signature, is_checkpoint=is_checkpoint)

    def _end_part(self, session_id: CoSessionId, signature: bytes, *, is_checkpoint: bool) -> None:
        part = SessionContent(self._next - len(self._part), self._part, signature)
        self._start().add(session_id, part, is_checkpoint=is_checkpoint)
        self._part = []
