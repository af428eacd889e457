"""Content that was stored or read a moment ago, for those who want just that.

A live edit goes to every subscriber without a look at the store, and is encoded once for all of
them. Who lacks several pieces gets them joined, as the store would give them. What was read to
tell the engine of a value is kept for the client that asked for it, and for the next ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.cojson.messages import encode_message
from node.covalue.content import PIECE_BYTES, Content, SessionContent
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from node.covalue.store import ValueAppend

RECENT_BYTES = 32 * 1024 * 1024
"""Content kept, and the lines that were encoded from it."""

MAX_PIECES = 8
"""Pieces kept of one value; more are joined, so that a value of many edits can be kept whole."""


_PIECE_BYTES = 1024
_TRANSACTION_BYTES = 112
"""What Python needs beside what `Content.size` counts, measured with tracemalloc."""


@dataclass(slots=True)
class Piece:
    """A piece and, once somebody was served with it as it is, its line."""

    content: Content
    size: int
    """Bytes of the content, and of its line once there is one."""
    line: str | None = field(default=None, repr=False)
    is_kept: bool = False


@dataclass(slots=True)
class _Kept:
    """The pieces of one value, in order, and the round in which they were last used."""

    pieces: list[Piece]
    round: int

    @property
    def size(self) -> int:
        return sum([piece.size for piece in self.pieces])


class RecentContent:
    """The last pieces of the values that changed, or were read, last."""

    def __init__(self, max_bytes: int = RECENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._values: OrderedDict[RawCoId, _Kept] = OrderedDict()
        self._round = 0

    @property
    def used_bytes(self) -> int:
        """Never more than was allowed once a call has returned."""
        return self._used_bytes

    def add(self, append: ValueAppend, priority: int) -> None:
        """Keep what was stored, which continues what is kept of this value already."""
        new = {
            session_id: SessionContent(part.after, part.transactions, part.signature)
            for session_id, part in append.sessions.items()
        }
        content = Content(append.co_id, append.header, new, priority)
        size = _footprint(content)
        pieces = self._use(append.co_id)
        if pieces is None:
            pieces = []
            self._values[append.co_id] = _Kept(pieces, self._round)
        pieces.append(Piece(content, size, is_kept=True))
        self._used_bytes += size
        if len(pieces) > MAX_PIECES:
            self._compact(pieces)
        self._trim()

    def keep(self, pieces: Sequence[Content]) -> None:
        """Keep a value that was read as a whole, unless it is here or too large for a piece."""
        if len(pieces) == 1 and pieces[0].co_id not in self._values:
            content = pieces[0]
            piece = Piece(content, _footprint(content), is_kept=True)
            self._values[content.co_id] = _Kept([piece], self._round)
            self._used_bytes += piece.size
            self._trim()

    def forget(self, co_id: RawCoId) -> None:
        """Drop what is kept of a value: it is no longer what is stored."""
        kept = self._values.pop(co_id, None)
        if kept is not None:
            self._used_bytes -= kept.size

    def begin_round(self) -> None:
        """What is not used until the end of this round can be forgotten in the next one."""
        self._round += 1

    def forget_unused(self, max_values: int) -> bool:
        """Forget up to `max_values` that were used neither in this round nor the one before.

        True when there may be more.
        """
        for _ in range(max_values):
            oldest = next(iter(self._values.items()), None)
            if oldest is None or oldest[1].round >= self._round - 1:
                return False
            self.forget(oldest[0])
        return True

    def piece(self, co_id: RawCoId, known: KnownState, held: KnownState) -> Piece | None:
        """The one piece that leads from `known` to `held`; None when it is not all here."""
        pieces = self._use(co_id)
        if pieces is None:
            return None
        counts = dict(known.sessions)
        has_header = known.header
        found: list[Piece] = []
        for piece in pieces:
            fitting = _cut(piece, counts, has_header)
            if fitting is None:
                return None
            if fitting.content.new or fitting.content.header is not None:
                found.append(fitting)
                has_header = has_header or fitting.content.header is not None
                counts.update({key: part.stop for key, part in fitting.content.new.items()})
        if not found or not KnownState(has_header, counts).covers(held):
            return None
        return found[0] if len(found) == 1 else _join([piece.content for piece in found])

    def line(self, piece: Piece) -> str:
        """The line of a piece that was just given out; of one that is kept it is made once."""
        if piece.line is not None:
            return piece.line
        line = encode_message(piece.content)
        if piece.is_kept:
            piece.line = line
            piece.size += len(line)
            self._used_bytes += len(line)
            self._trim()
        return line

    def _use(self, co_id: RawCoId) -> list[Piece] | None:
        kept = self._values.get(co_id)
        if kept is None:
            return None
        self._values.move_to_end(co_id)
        kept.round = self._round
        return kept.pieces

    def _compact(self, pieces: list[Piece]) -> None:
        """Join all pieces but the newest; drop the oldest when they are too large for one."""
        newest = pieces.pop()
        joined = _join([piece.content for piece in pieces])
        if joined is None:
            self._used_bytes -= pieces.pop(0).size
        else:
            self._used_bytes += joined.size - sum(piece.size for piece in pieces)
            joined.is_kept = True
            pieces.clear()
            pieces.append(joined)
        pieces.append(newest)

    def _trim(self) -> None:
        while self._used_bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._used_bytes -= oldest.size


def _footprint(content: Content) -> int:
    count = sum([len(part.transactions) for part in content.new.values()])
    return _PIECE_BYTES + _TRANSACTION_BYTES * count + content.size


def _join(contents: list[Content]) -> Piece | None:
    """Contents as one; None when that is too large for a piece, or they do not follow."""
    if sum(content.size for content in contents) > PIECE_BYTES:
        return None
    new: dict[CoSessionId, SessionContent] = {}
    for content in contents:
        for session_id, part in content.new.items():
            before = new.get(session_id)
            if before is not None and before.stop != part.after:
                return None  # something between them was not kept
            if before is not None:
                part = SessionContent(
                    before.after, [*before.transactions, *part.transactions], part.signature
                )
            new[session_id] = part
    first = contents[0]
    content = Content(first.co_id, first.header, new, first.priority)
    return Piece(content, _footprint(content))


def _cut(piece: Piece, counts: Mapping[CoSessionId, int], has_header: bool) -> Piece | None:
    """Of a piece what is beyond `counts`; None when it does not continue them."""
    content = piece.content
    is_whole = content.header is None or not has_header
    new: dict[CoSessionId, SessionContent] = {}
    for session_id, part in content.new.items():
        count = counts.get(session_id, 0)
        if part.after > count:
            return None
        if part.after < count:
            is_whole = False
            part = part._replace(after=count, transactions=part.transactions[count - part.after :])
        if part.transactions:
            new[session_id] = part
    if is_whole and len(new) == len(content.new):
        return piece
    header = None if has_header else content.header
    rest = Content(content.co_id, header, new, content.priority)
    return Piece(rest, _footprint(rest))
