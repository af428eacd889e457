"""Content that was stored or read a moment ago, for those who want just that.

A live edit goes to every subscriber without a look at the store, and is encoded once for all of
them; a client that loads a value gets it whole, as the store would give it. Kept is text, ready to
be sent: as objects the same transactions would take twice as much memory, and be encoded anew for
everybody who loads them. What was read to tell the engine of a value is kept for the client that
asked for it, and for the next ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from sys import getsizeof
from typing import NamedTuple

from node.cojson.crypto import encode_signature
from node.cojson.messages import join_content, join_session
from node.covalue.content import PIECE_BYTES, Content, canonical_lines, join_lines
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from node.covalue.store import StoredText, ValueAppend

RECENT_BYTES = 32 * 1024 * 1024
"""Content kept, and the lines that were encoded from it, unless told otherwise."""

MAX_CHUNKS = 64
"""Those of one session; with more, the old ones are joined, and given out as one."""

KEPT_BYTES = 2 * PIECE_BYTES
"""Text kept of one value; of a longer one only the end is kept."""

_LINE_SHARE = 8
"""Lines take an eighth of the memory at most."""

_LATEST_CHUNKS = 8
"""The latest are not joined: somebody may know one of these edits and not the next."""

_MANY_CHUNKS = 2 * _LATEST_CHUNKS
"""More are joined when a client loads the value: the next one gets them as one text."""

_MANY_SESSIONS = 64
"""Of a value that is too large and has more, only the sessions that came last are kept: to look at
all of 5000 with every edit kept a node from everything else."""

_VALUE_BYTES = 700
_SESSION_BYTES = 660
_CHUNK_BYTES = 64
_LINE_BYTES = 900
"""What Python needs beside the texts, measured with tracemalloc."""


class Line(NamedTuple):
    """A content message, and what a client that takes it has."""

    text: str
    reached: KnownState


@dataclass(slots=True)
class _Run:
    """The end of one session: chunk i has its transactions from `starts[i]` on."""

    starts: list[int]
    texts: list[str]
    stop: int
    signature: str
    """In the form that is sent: to encode it each time took a tenth of a load."""

    @property
    def text_bytes(self) -> int:
        return sum(map(len, self.texts))

    def chunks_from(self, count: int) -> list[str] | None:
        """All beyond the first `count` transactions; None if that is not here."""
        index = bisect_left(self.starts, count)
        if index == len(self.starts) or self.starts[index] != count:
            return None
        return self.texts[index:] if index else self.texts

    def join_old(self) -> None:
        """Make one chunk of all but the latest."""
        self.texts = [",".join(self.texts[:-_LATEST_CHUNKS]), *self.texts[-_LATEST_CHUNKS:]]
        self.starts = [self.starts[0], *self.starts[-_LATEST_CHUNKS:]]

    def drop_old(self) -> None:
        """Let go of what is older than the last half, if that is in chunks of its own."""
        size, most, kept = 0, self.text_bytes // 2, 0
        while kept < len(self.texts) and size + len(self.texts[-1 - kept]) <= most:
            kept += 1
            size += len(self.texts[-kept])
        kept = max(kept, 1)
        self.texts, self.starts = self.texts[-kept:], self.starts[-kept:]


@dataclass(slots=True)
class _Kept:
    """The ends of the sessions of one value, and the round in which they were last used."""

    header: CoValueHeader | None
    priority: int
    round: int
    runs: dict[CoSessionId, _Run] = field(default_factory=dict)
    text_bytes: int = 0
    size: int = _VALUE_BYTES

    def add(
        self, session_id: CoSessionId, after: int, text: str, count: int, signature: bytes
    ) -> None:
        """Keep what continues a session; what it does not continue is of no use any more."""
        run = self.runs.get(session_id)
        is_other = run is not None and run.stop != after
        if run is None or is_other:
            run = self.runs[session_id] = _Run([], [], after, "")
            self.size += _SESSION_BYTES
        run.starts.append(after)
        run.texts.append(text)
        run.stop = after + count
        run.signature = encode_signature(signature)
        if is_other or len(run.texts) > MAX_CHUNKS or self.text_bytes + len(text) > KEPT_BYTES:
            self._fit()
        else:
            self.text_bytes += len(text)
            self.size += _CHUNK_BYTES + getsizeof(text)

    def join(self, max_chunks: int) -> bool:
        """Join what is in more chunks than that; whether anything was."""
        has_many = False
        for run in self.runs.values():
            if len(run.texts) > max_chunks:
                run.join_old()
                has_many = True
        if has_many:
            self._count()
        return has_many

    def _fit(self) -> None:
        """Join what is in many chunks, let go of the oldest of what is too much, and count."""
        for run in self.runs.values():
            if len(run.texts) > MAX_CHUNKS:
                run.join_old()
        self._count()
        if self.text_bytes > KEPT_BYTES:
            self._drop_oldest()
            self._count()

    def _drop_oldest(self) -> None:
        """Let go of half of it, so that it is not looked at again with the next edit."""
        for run in self.runs.values():
            run.drop_old()
        if sum([run.text_bytes for run in self.runs.values()]) > PIECE_BYTES:
            for session_id in list(self.runs)[:-_MANY_SESSIONS]:
                del self.runs[session_id]

    def _count(self) -> None:
        self.text_bytes = sum([run.text_bytes for run in self.runs.values()])
        self.size = _VALUE_BYTES
        for run in self.runs.values():
            self.size += _SESSION_BYTES + sum(
                [_CHUNK_BYTES + getsizeof(text) for text in run.texts]
            )


class RecentContent:
    """The ends of the values that changed, or were read, last."""

    def __init__(self, max_bytes: int = RECENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._values: OrderedDict[RawCoId, _Kept] = OrderedDict()
        self._lines: OrderedDict[RawCoId, tuple[KnownState, Line, int]] = OrderedDict()
        """Of each value: what a client has that can take its last line, the line, and its size."""
        self._line_bytes = 0
        self._round = 0

    @property
    def used_bytes(self) -> int:
        """Never more than was allowed once a call has returned."""
        return self._used_bytes + self._line_bytes

    def allow(self, max_bytes: int) -> None:
        """From now on `used_bytes` is at most this."""
        self._max_bytes = max_bytes
        self._trim()
        self._trim_lines()

    def add(self, append: ValueAppend, priority: int) -> None:
        """Keep what was stored, which continues what is kept of this value already."""
        kept = self._use(append.co_id)
        if kept is None:
            kept = self._values[append.co_id] = _Kept(append.header, priority, self._round)
            before = 0
        else:
            before = kept.size
            self._forget_line(append.co_id)
        for session_id, part in append.sessions.items():
            text = join_lines(part.canonical)
            kept.add(session_id, part.after, text, len(part.transactions), part.signature)
        self._used_bytes += kept.size - before
        self._trim()

    def keep_text(self, co_id: RawCoId, stored: StoredText) -> None:
        """Keep a value that was read as text, unless it is here."""
        if co_id in self._values:
            return
        header, sessions = stored.value.header, stored.value.sessions
        kept = self._values[co_id] = _Kept(header, header.priority, self._round)
        for session_id, text in stored.texts.items():
            session = sessions[session_id]
            kept.add(session_id, 0, text, session.count, session.signature)
        self._used_bytes += kept.size
        self._trim()

    def keep(self, pieces: Sequence[Content]) -> None:
        """Keep a value that was read as a whole, unless it is here or too large for a piece."""
        if len(pieces) == 1 and pieces[0].co_id not in self._values:
            content = pieces[0]
            kept = _Kept(content.header, content.priority, self._round)
            for session_id, part in content.new.items():
                text = join_lines(canonical_lines(part.transactions).decode())
                kept.add(session_id, part.after, text, len(part.transactions), part.signature)
            self._values[content.co_id] = kept
            self._used_bytes += kept.size
            self._trim()

    def forget(self, co_id: RawCoId) -> None:
        """Drop what is kept of a value: it is no longer what is stored."""
        kept = self._values.pop(co_id, None)
        if kept is not None:
            self._used_bytes -= kept.size
        self._forget_line(co_id)

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

    def line(self, co_id: RawCoId, known: KnownState, held: KnownState) -> Line | None:
        """The one message that leads from `known` to `held`; None when it is not all here.

        It is encoded once for all clients that ask for it in a row.
        """
        kept = self._use(co_id)
        if kept is None or not (known.header or kept.header):
            return None
        made = self._lines.get(co_id)
        if made is not None and made[0] == known:
            line = made[1]
        else:
            before = kept.size
            if not known.header and kept.join(_MANY_CHUNKS):
                self._used_bytes += kept.size - before
            encoded = _encode(co_id, kept, known)
            if encoded is None:
                return None
            line = encoded
            self._keep_line(co_id, known, line)
        return line if _leads(known, line.reached, held) else None

    def _keep_line(self, co_id: RawCoId, known: KnownState, line: Line) -> None:
        self._forget_line(co_id)
        size = _LINE_BYTES + getsizeof(line.text)
        self._lines[co_id] = known, line, size
        self._line_bytes += size
        self._trim_lines()

    def _trim_lines(self) -> None:
        most = self._max_bytes // _LINE_SHARE
        while self._line_bytes > most:
            _, (_, _, size) = self._lines.popitem(last=False)
            self._line_bytes -= size

    def _forget_line(self, co_id: RawCoId) -> None:
        made = self._lines.pop(co_id, None)
        if made is not None:
            self._line_bytes -= made[2]

    def _use(self, co_id: RawCoId) -> _Kept | None:
        kept = self._values.get(co_id)
        if kept is not None:
            self._values.move_to_end(co_id)
            kept.round = self._round
        return kept

    def _trim(self) -> None:
        while self._used_bytes > self._max_bytes - self._max_bytes // _LINE_SHARE:
            self.forget(next(iter(self._values)))


def _encode(co_id: RawCoId, kept: _Kept, known: KnownState) -> Line | None:
    """All that is kept beyond `known`; None if there is nothing, or it does not continue that."""
    sessions: list[str] = []
    reached: dict[CoSessionId, int] = {}
    chunks = size = 0
    for session_id, run in kept.runs.items():
        count = known.sessions.get(session_id, 0)
        if count < run.stop:
            texts = run.chunks_from(count)
            if texts is None:
                return None
            chunks += len(texts)
            text = texts[0] if len(texts) == 1 else ",".join(texts)
            size += len(text)
            sessions.append(join_session(session_id, count, text, run.signature))
            reached[session_id] = run.stop
    header = None if known.header else kept.header
    if (header is None and not sessions) or (chunks > 1 and size > PIECE_BYTES):
        return None
    return Line(join_content(co_id, header, kept.priority, sessions), KnownState(True, reached))


def _leads(known: KnownState, reached: KnownState, held: KnownState) -> bool:
    """Whether a client with `known` that takes what goes up to `reached` has all that is held."""
    counts, further = known.sessions, reached.sessions
    for session_id, count in held.sessions.items():
        if counts.get(session_id, 0) < count and further.get(session_id, 0) < count:
            return False
    return True
