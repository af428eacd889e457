"""Cutting a coValue into content messages, and putting them together from its stored rows.

Sessions come one after the other. A session's transactions up to a signature checkpoint are a
piece of their own; what follows the last checkpoint (the tail) joins the current piece while
that stays below PIECE_BYTES. The header goes with the first piece. A piece must end where a
signature was made, and no other signatures are kept.

Source: cojson 0.20.19 coValueContentMessage.ts, storage/storageSync.ts.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypercore.encoding import DecodeError
from node.covalue.content import PIECE_BYTES, Content, SessionContent, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.keys import RowKind, decode_key
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
    """Sessions that go beyond `known`, sorted by id, and from which count on."""
    counts = known.sessions
    return {
        session_id: counts.get(session_id, 0)
        for session_id in sorted(sessions)
        if sessions[session_id].count > counts.get(session_id, 0)
    }


class ValueReader:
    """Reads the rows of one value, in the order of their keys, into pieces beyond `known`.

    Rows may come from somebody else's bee: any bytes give pieces or DecodeError. That they
    verify is for the engine to find out. Of a tombstone only the delete sessions count.
    """

    def __init__(self, co_id: RawCoId, known: KnownState, *, is_tombstone: bool = False) -> None:
        self._is_tombstone = is_tombstone
        self.header: CoValueHeader | None = None
        self.sessions: dict[CoSessionId, StoredSession] = {}
        self._co_id = co_id
        self._known = known
        self._checkpoints: dict[CoSessionId, list[tuple[int, bytes]]] = {}
        self._builder: PieceBuilder | None = None
        self._session_id: CoSessionId | None = None
        self._next = 0
        """Index that the next transaction of the session being read must have."""
        self._part: list[Transaction] = []

    def receive(self, key: bytes, value: bytes) -> None:
        """Take the next row. Raises: DecodeError."""
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
                self.sessions[row.session_id] = decode_session(value)
            case RowKind.CHECKPOINT:
                checkpoints = self._checkpoints.setdefault(row.session_id, [])
                checkpoints.append((row.index + 1, decode_checkpoint(value)))
            case RowKind.RUN:
                self._receive_run(row.session_id, row.index, decode_run(value))

    @property
    def lacking(self) -> dict[CoSessionId, int]:
        """Sessions that go beyond `known`, in order, and from which count on."""
        return sessions_beyond(self.sessions, self._known)

    @property
    def is_complete(self) -> bool:
        """Whether header and session rows say that there is nothing beyond `known`."""
        return self.header is None or (self._known.header and not self.lacking)

    @property
    def size(self) -> int:
        """Bytes of changes read so far, to stop at."""
        return 0 if self._builder is None else self._builder.size

    def finish(self, *, is_cut: bool = False) -> list[Content]:
        """The pieces. `is_cut` says that reading stopped early: only whole parts are given.

        Raises: DecodeError when something is missing although reading went to the end.
        """
        if self.header is None:
            if self.sessions:
                raise DecodeError("stored sessions without their header", 0)
            return []
        if not is_cut:
            self._end_session()
        builder = self._start()
        until = {key: self.sessions[key].count for key in self.lacking}
        pieces = builder.finish(until)
        if not is_cut:
            self._check_all_read(pieces)
        return pieces

    def _start(self) -> PieceBuilder:
        if self._builder is None:
            header = self.header
            if header is None:
                raise DecodeError("stored transactions without their header", 0)
            wanted = None if self._known.header else header
            self._builder = PieceBuilder(self._co_id, wanted, header.priority)
        return self._builder

    def _receive_run(self, session_id: CoSessionId, index: int, run: list[Transaction]) -> None:
        self._start()
        session = self.sessions.get(session_id)
        if session is None:
            raise DecodeError("stored transactions of an unknown session", 0)
        if session_id != self._session_id:
            self._end_session()
            self._session_id = session_id
            self._next = self._known.sessions.get(session_id, 0)
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
                self._end_part(signature, is_checkpoint=True)

    def _end_session(self) -> None:
        """Close the session that was being read: it must be whole."""
        session_id = self._session_id
        if session_id is None or not self._part:
            return
        session = self.sessions[session_id]
        if self._next != session.count:
            raise DecodeError("stored session is cut short", 0)
        checkpoints = self._checkpoints.get(session_id, [])
        is_checkpoint = bool(checkpoints) and checkpoints[-1][0] == session.count
        self._end_part(session.signature, is_checkpoint=is_checkpoint)

    def _end_part(self, signature: bytes, *, is_checkpoint: bool) -> None:
        session_id = self._session_id
        if session_id is not None:
            part = SessionContent(self._next - len(self._part), self._part, signature)
            self._start().add(session_id, part, is_checkpoint=is_checkpoint)
            self._part = []

    def _check_all_read(self, pieces: list[Content]) -> None:
        reached = {key: part.stop for piece in pieces for key, part in piece.new.items()}
        for session_id in self.lacking:
            if reached.get(session_id, 0) != self.sessions[session_id].count:
                raise DecodeError("stored session without its transactions", 0)
