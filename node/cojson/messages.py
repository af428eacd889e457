"""The messages of the sync protocol: one JSON object a line, one or more lines a frame.

| action        | fields                                                                        |
|---------------|-------------------------------------------------------------------------------|
| load          | id, header, sessions: "I hold this; subscribe me and send what I lack"        |
| known         | id, header, sessions, isCorrection?: "I hold this", or "resend from here"     |
| content       | id, header?, priority, new: {session: {after, newTransactions, lastSignature}}, |
|               | expectContentUntil?                                                           |
| done          | id: without meaning                                                           |
| reconcile     | id (of the batch), values: [[coValue id, hash of its counts]...]              |
| reconcile-ack | id (of the batch): that batch is settled                                      |

Worked example: {"action":"load","id":"co_z...","header":false,"sessions":{}}

What a line may cost is bounded before it is paid for: fields whose decoded form is many times
their text (a header of empty arrays, a map of tiny keys) are kept as text, looked at for their
size or their count, and decoded only then. A line of 32 MiB, whatever is in it, takes at most
four times its own size and a second.

| per line               | bound                  | because                                        |
|------------------------|------------------------|------------------------------------------------|
| nesting                | msgspec's, about 1000  | headers, the only free JSON, may nest 127 deep |
| an integer's digits    | 4300, Python's         | no field of ours needs more than 20            |
| a header               | `MAX_HEADER_BYTES`     | its objects take 20 times its text             |
| sessions named         | `MAX_SESSIONS`         | a counter takes 150 bytes                      |
| transactions           | `MAX_TRANSACTIONS`     | a piece is 100 KiB of changes                  |
| values to reconcile    | `MAX_RECONCILE_VALUES` | JavaScript sends 100                           |
| an id                  | 30, 120, 170 letters   | coValue, agent, session (`ids.py`)             |

Of two equal keys in one object the last one counts, as in JavaScript.

Source: cojson 0.20.19 sync.ts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

import msgspec

from hypercore.encoding import DecodeError
from node.cojson.crypto import decode_signature, encode_signature
from node.cojson.line_shapes import NULL, Line
from node.covalue.canonical import quote
from node.covalue.content import Content, SessionContent, canonical_lines, join_lines
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import (
    CoSessionId,
    RawCoId,
    is_co_id,
    parse_co_id,
    parse_session_id,
    parse_session_ids,
)
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.transaction_json import parse_transaction

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""Largest frame taken. JavaScript takes 100 MiB; a transaction it makes has at most 1 MiB."""

MAX_COUNT = 10**10
"""Counts stay below this: stored keys have ten digits for an index."""

MAX_RECONCILE_VALUES = 1000
"""Values in one reconcile batch; JavaScript sends 100."""

MAX_HEADER_BYTES = 256 * 1024
"""A header's text. JavaScript has no limit; headers in the wild have a few hundred bytes."""

MAX_SESSIONS = 50_000
"""Sessions that one line may name, of which a value gets one per device and tab."""

MAX_TRANSACTIONS = 200_000
"""Transactions in one line: twice what a piece of the smallest changes (`[]`) can hold."""

_MAX_BATCH_ID_CHARACTERS = 256
_MAX_ECHOED_CHARACTERS = 128
_MAX_REASON_CHARACTERS = 200


class Load(NamedTuple):
    """The sender holds `known` and wants what is beyond it, now and later."""

    co_id: RawCoId
    known: KnownState


@dataclass(frozen=True, slots=True)
class NoSuchId:
    """Both ways: a load of what looks like an id and cannot be one, and the answer to it.

    It is `load` coming in and an empty `known` going out. JavaScript clients wait a minute for
    what is not answered, and an id cut off while being copied is no reason to wait.
    """

    text: str


class Known(NamedTuple):
    """The sender holds `known`; as a correction: send everything beyond it again."""

    co_id: RawCoId
    known: KnownState
    is_correction: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Without meaning; older clients send it."""

    co_id: RawCoId


@dataclass(frozen=True, slots=True)
class Reconcile:
    """The sender's stored values, each with the hash of its counts, to be compared."""

    batch_id: str
    values: tuple[tuple[RawCoId, str], ...]


@dataclass(frozen=True, slots=True)
class ReconcileAck:
    """The values of that batch are equal on both sides now."""

    batch_id: str


ControlMessage = Load | NoSuchId | Known | Done | Reconcile | ReconcileAck
Message = Content | ControlMessage


class Frame(NamedTuple):
    """What a frame held: its messages in order, and what was wrong with its other lines."""

    messages: list[Message]
    errors: list[DecodeError]


_decoder = msgspec.json.Decoder(Line)
_header_decoder: msgspec.json.Decoder[bool | dict[str, Any] | None] = msgspec.json.Decoder(
    bool | dict[str, Any] | None
)
_counts_decoder = msgspec.json.Decoder(dict[str, int] | None)
_values_decoder = msgspec.json.Decoder(list[tuple[str, str]] | None)
_DECODE_FAILURES = (msgspec.MsgspecError, UnicodeError, RecursionError)

# From the first letter to the end of the line: blank lines are passed over in C.
_TEXT_LINE = re.compile(r"\S[^\n]*")


def read_frame(text: str) -> Iterator[Message | DecodeError | None]:
    """What each line that is not blank says, or what is wrong with it; decoded as it is taken.

    None is a ping or a line of an action that this protocol version does not know.
    """
    for line in _lines(text):
        try:
            yield decode_line(line)
        except DecodeError as error:
            yield error


def _lines(text: str) -> Iterable[str]:
    """The lines that are not blank."""
    if "\n" in text:
        return (found.group() for found in _TEXT_LINE.finditer(text))
    return () if not text or text.isspace() else (text,)


def decode_frame(text: str) -> Frame:
    """Read every line of a frame; a bad line does not cost the good ones.

    Pings, lines of unknown action and empty lines are left out without an error.
    """
    messages: list[Message] = []
    errors: list[DecodeError] = []
    for item in read_frame(text):
        if isinstance(item, DecodeError):
            errors.append(item)
        elif item is not None:
            messages.append(item)
    return Frame(messages, errors)


def decode_line(line: str | bytes) -> Message | None:
    """One message; None for an action that this protocol version does not know.

    Raises: DecodeError.
    """
    try:
        raw = _decoder.decode(line)
    except _DECODE_FAILURES as error:
        raise DecodeError(f"not a message: {error}"[:_MAX_REASON_CHARACTERS], 0) from None
    match raw.action:
        case "content":
            return _decode_content(raw)
        case "load":
            return _decode_load(raw)
        case "known":
            return Known(_co_id(raw), _known_state(raw), raw.is_correction)
        case "done":
            return Done(_co_id(raw))
        case "reconcile":
            return _decode_reconcile(raw)
        case "reconcile-ack":
            return ReconcileAck(_batch_id(raw))
        case _:
            return None


def _decode_load(raw: Line) -> Load | NoSuchId:
    try:
        return Load(_co_id(raw), _known_state(raw))
    except DecodeError:
        text = raw.id or ""
        if len(text) > _MAX_ECHOED_CHARACTERS or not text.startswith("co_z") or is_co_id(text):
            raise
        return NoSuchId(text)


def _co_id(raw: Line) -> RawCoId:
    if raw.id is None:
        raise DecodeError("message without id", 0)
    return parse_co_id(raw.id)


def _batch_id(raw: Line) -> str:
    if raw.id is None or len(raw.id) > _MAX_BATCH_ID_CHARACTERS:
        raise DecodeError("batch without a usable id", 0)
    return raw.id


def _known_state(raw: Line) -> KnownState:
    header = _header(raw)
    sessions = _counts(raw.sessions)
    if not isinstance(header, bool) or sessions is None:
        raise DecodeError("known state without header and sessions", 0)
    return KnownState(header, sessions)


def _header(raw: Line) -> bool | dict[str, Any] | None:
    if raw.header is NULL:
        return None
    size = len(memoryview(raw.header))
    if size > MAX_HEADER_BYTES:
        raise DecodeError(f"a header of {size} bytes; {MAX_HEADER_BYTES} are allowed", 0)
    try:
        return _header_decoder.decode(raw.header)
    except _DECODE_FAILURES as error:
        raise DecodeError(f"not a header: {error}"[:_MAX_REASON_CHARACTERS], 0) from None


def _counts(raw: msgspec.Raw) -> SessionCounts | None:
    if raw is NULL:
        return None
    text = bytes(raw)
    if text == b"{}":  # as in most loads
        return {}
    # No id contains a colon: there are as many as keys, or the line is refused rightly.
    if text.count(b":") > MAX_SESSIONS:
        raise DecodeError(f"more than {MAX_SESSIONS} sessions in one line", 0)
    try:
        found = _counts_decoder.decode(raw)
    except _DECODE_FAILURES as error:
        raise DecodeError(f"not session counts: {error}"[:_MAX_REASON_CHARACTERS], 0) from None
    if found is None:
        return None
    for count in found.values():
        if not 0 <= count < MAX_COUNT:
            raise DecodeError(f"a session count that is not in [0, {MAX_COUNT})", 0)
    return dict(zip(parse_session_ids(found.keys()), found.values(), strict=True))


def _decode_content(raw: Line) -> Content:
    co_id = _co_id(raw)
    fields = _header(raw)
    if raw.new is None or isinstance(fields, bool):
        raise DecodeError("content without sessions, or whose header is not one", 0)
    if len(raw.new) > MAX_SESSIONS:
        raise DecodeError(f"more than {MAX_SESSIONS} sessions in one line", 0)
    if sum([len(part.new_transactions) for part in raw.new.values()]) > MAX_TRANSACTIONS:
        raise DecodeError(f"more than {MAX_TRANSACTIONS} transactions in one line", 0)
    header = None if fields is None else parse_header(fields)
    new: dict[CoSessionId, SessionContent] = {}
    for text, part in raw.new.items():
        if not 0 <= part.after < MAX_COUNT:
            raise DecodeError(f"transactions after an index that is not in [0, {MAX_COUNT})", 0)
        new[parse_session_id(text)] = SessionContent(
            part.after,
            [parse_transaction(transaction) for transaction in part.new_transactions],
            decode_signature(part.last_signature),
        )
    until = _counts(raw.expect_content_until)
    if header is None:
        return Content(co_id, None, new, expect_until=until)
    return Content(co_id, header, new, header.priority, until)


def _decode_reconcile(raw: Line) -> Reconcile:
    too_many = DecodeError(f"reconcile of no values or more than {MAX_RECONCILE_VALUES}", 0)
    # Ids and hashes hold no bracket: one a value, and one around them all.
    if bytes(raw.values).count(b"[") > MAX_RECONCILE_VALUES + 1:
        raise too_many
    try:
        pairs = _values_decoder.decode(raw.values)
    except _DECODE_FAILURES as error:
        raise DecodeError(f"nothing to reconcile: {error}"[:_MAX_REASON_CHARACTERS], 0) from None
    if pairs is None or len(pairs) > MAX_RECONCILE_VALUES:
        raise too_many
    values = tuple((parse_co_id(text), sessions_hash) for text, sessions_hash in pairs)
    return Reconcile(_batch_id(raw), values)


def encode_message(message: Message) -> str:
    """The line of a message, without a line end."""
    match message:
        case Content():
            return _encode_content(message)
        case Load(co_id, known):
            return f'{{"action":"load",{_encode_known_state(co_id, known)}}}'
        case Known(co_id, known, is_correction):
            tail = ',"isCorrection":true' if is_correction else ""
            return f'{{"action":"known",{_encode_known_state(co_id, known)}{tail}}}'
        case NoSuchId(text):
            return f'{{"action":"known","id":{quote(text)},"header":false,"sessions":{{}}}}'
        case Done(co_id):
            return f'{{"action":"done","id":"{co_id}"}}'
        case Reconcile(batch_id, values):
            pairs = ",".join(f'["{co_id}",{quote(digest)}]' for co_id, digest in values)
            return f'{{"action":"reconcile","id":{quote(batch_id)},"values":[{pairs}]}}'
        case ReconcileAck(batch_id):
            return f'{{"action":"reconcile-ack","id":{quote(batch_id)}}}'
        case _:
            assert_never(message)


def encode_ping(unix_ms: int, place: str) -> str:
    """What keeps a client from taking the connection for dead; some read the clock from it."""
    return f'{{"type":"ping","time":{unix_ms},"dc":{quote(place)}}}'


def _encode_counts(counts: SessionCounts) -> str:
    # Ids are ASCII without anything to escape.
    return "{" + ",".join([f'"{key}":{count}' for key, count in counts.items()]) + "}"


def _encode_known_state(co_id: RawCoId, known: KnownState) -> str:
    header = "true" if known.header else "false"
    return f'"id":"{co_id}","header":{header},"sessions":{_encode_counts(known.sessions)}'


def _encode_content(content: Content) -> str:
    sessions = [
        join_session(
            session_id,
            after,
            join_lines(canonical_lines(transactions).decode()),
            encode_signature(signature),
        )
        for session_id, (after, transactions, signature) in content.new.items()
    ]
    return join_content(
        content.co_id, content.header, content.priority, sessions, content.expect_until
    )


def join_session(session_id: CoSessionId, after: int, transactions: str, signature: str) -> str:
    """A session's part of a content message, of canonical transactions and commas between them.

    `signature` is `signature_z...`.
    """
    return (
        f'"{session_id}":{{"after":{after},"newTransactions":[{transactions}],'
        f'"lastSignature":"{signature}"}}'
    )


def join_content(
    co_id: RawCoId,
    header: CoValueHeader | None,
    priority: int,
    sessions: Sequence[str],
    expect_until: SessionCounts | None = None,
) -> str:
    """The line of a content message, of what `join_session` made."""
    head = "" if header is None else f'"header":{header.canonical},'
    tail = "" if expect_until is None else f',"expectContentUntil":{_encode_counts(expect_until)}'
    return (
        f'{{"action":"content","id":"{co_id}",{head}"priority":{priority},'
        f'"new":{{{",".join(sessions)}}}{tail}}}'
    )


def encode_lines(messages: Sequence[Message]) -> str:
    """Several messages as one frame."""
    return "\n".join(map(encode_message, messages))
