"""Content that was stored a moment ago, for those who wait for just that.

A live edit goes to every subscriber without a look at the store, and is encoded once for all of
them. Who lacks several pieces gets them joined, as the store would give them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from node.cojson.messages import encode_message
from node.covalue.content import PIECE_BYTES, Content, SessionContent
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from node.covalue.store import ValueAppend

RECENT_BYTES = 8 * 1024 * 1024
"""Content kept; the lines encoded from it may take as much again."""

MAX_PIECES = 8
"""Pieces kept of one value."""


@dataclass(slots=True)
class Piece:
    """A piece and, once somebody was served with it, its line."""

    content: Content
    _line: str | None = field(default=None, repr=False)

    @property
    def line(self) -> str:
        if self._line is None:
            self._line = encode_message(self.content)
        return self._line


class RecentContent:
    """The last pieces of the values that changed last."""

    def __init__(self, max_bytes: int = RECENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._values: OrderedDict[RawCoId, deque[Piece]] = OrderedDict()

    def add(self, append: ValueAppend, priority: int) -> None:
        """Keep what was stored, which continues what is kept of this value already."""
        new = {
            session_id: SessionContent(part.after, part.transactions, part.signature)
            for session_id, part in append.sessions.items()
        }
        content = Content(append.co_id, append.header, new, priority)
        pieces = self._values.setdefault(append.co_id, deque())
        self._values.move_to_end(append.co_id)
        pieces.append(Piece(content))
        self._used_bytes += content.size
        if len(pieces) > MAX_PIECES:
            self._used_bytes -= pieces.popleft().content.size
        while self._used_bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._used_bytes -= sum(piece.content.size for piece in oldest)

    def forget(self, co_id: RawCoId) -> None:
        """It was deleted: what was kept of it is not served any more."""
        pieces = self._values.pop(co_id, ())
        self._used_bytes -= sum(piece.content.size for piece in pieces)

    def piece(self, co_id: RawCoId, known: KnownState, held: KnownState) -> Piece | None:
        """The one piece that leads from `known` to `held`; None when it is not all here."""
        pieces = self._values.get(co_id)
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


def _join(contents: list[Content]) -> Piece | None:
    """Contents that follow one another as one; None when that is too large for a piece."""
    if sum(content.size for content in contents) > PIECE_BYTES:
        return None
    new: dict[CoSessionId, SessionContent] = {}
    for content in contents:
        for session_id, part in content.new.items():
            before = new.get(session_id)
            if before is not None:
                part = SessionContent(
                    before.after, [*before.transactions, *part.transactions], part.signature
                )
            new[session_id] = part
    first = contents[0]
    return Piece(Content(first.co_id, first.header, new, first.priority))


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
    return Piece(Content(content.co_id, header, new, content.priority))
