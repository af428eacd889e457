"""The messages of the sync protocol: one JSON object a line, one or more lines a frame.

| action        | fields                                                                        |
|---------------|-------------------------------------------------------------------------------|
| load          | id, header, sessions: "I hold this; subscribe me and send what I lack"        |
| known         | id, header, sessions, isCorrection?: what the sender holds, or wants from     |
| content       | id, header?, priority, new: {session: {after, newTransactions, lastSignature}}, |
|               | expectContentUntil?                                                           |
| done          | id: without meaning                                                           |
| reconcile     | id (of the batch), values: [[coValue id, hash of its counts]...]              |
| reconcile-ack | id (of the batch): that batch is settled                                      |

Worked example: {"action":"load","id":"co_z...","header":false,"sessions":{}}

Source: cojson 0.20.19 sync.ts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

import msgspec

from hypercore.encoding import DecodeError
from node.cojson.crypto import decode_signature, encode_signature
from node.covalue.canonical import quote
from node.covalue.content import Content, SessionContent, canonical_transaction
from node.covalue.header import parse_header
from node.covalue.ids import CoSessionId, RawCoId, is_co_id, parse_co_id, parse_session_id
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.transaction_json import TransactionJson, parse_transaction

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""Largest frame taken. JavaScript takes 100 MiB; a transaction it makes has at most 1 MiB."""

MAX_COUNT = 10**10
"""Counts stay below this: stored keys have ten digits for an index."""

MAX_RECONCILE_VALUES = 1000
"""Values in one reconcile batch; JavaScript sends 100."""

_MAX_BATCH_ID_CHARACTERS = 256
_MAX_ECHOED_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Load:
    """The sender holds `known` and wants what is beyond it, now and later."""

    co_id: RawCoId
    known: KnownState


@dataclass(frozen=True, slots=True)
class NoSuchId:
    """Both ways: a load of what looks like an id and cannot be one, and the answer to it.

    It is `load` coming in and an empty `known` going out. JavaScript clients wait a minute for
    what is not answered, and an id cut off while it was copied is no reason to wait.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Known:
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


Message = Load | NoSuchId | Known | Content | Done | Reconcile | ReconcileAck


class Frame(NamedTuple):
    """What a frame held: its messages in order, and what was wrong with its other lines."""

    messages: list[Message]
    errors: list[DecodeError]


class _SessionContent(msgspec.Struct, rename="camel", gc=False):
    after: int
    new_transactions: list[TransactionJson]
    last_signature: str


class _Line(msgspec.Struct, rename="camel", gc=False):
    """Every field of every action: which are needed depends on the action."""

    action: str | None = None
    id: str | None = None
    header: bool | dict[str, Any] | None = None
    sessions: dict[str, int] | None = None
    is_correction: bool = False
    new: dict[str, _SessionContent] | None = None
    expect_content_until: dict[str, int] | None = None
    values: list[tuple[str, str]] | None = None


_decoder = msgspec.json.Decoder(_Line)


def decode_frame(text: str) -> Frame:
    """Read every line of a frame; a bad line does not cost the good ones.

    Pings, lines of unknown action and empty lines are left out without an error.
    """
    messages: list[Message] = []
    errors: list[DecodeError] = []
    for line in text.split("\n"):
        if line and not line.isspace():
            try:
                message = decode_line(line)
            except DecodeError as error:
                errors.append(error)
            else:
                if message is not None:
                    messages.append(message)
    return Frame(messages, errors)


def decode_line(line: str | bytes) -> Message | None:
    """One message; None for an action that this protocol version does not know.

    Raises: DecodeError.
    """
    try:
        raw = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"not a message: {error}", 0) from None
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


def _decode_load(raw: _Line) -> Load | NoSuchId:
    try:
        return Load(_co_id(raw), _known_state(raw))
    except DecodeError:
        text = raw.id or ""
        if len(text) > _MAX_ECHOED_CHARACTERS or not text.startswith("co_z") or is_co_id(text):
            raise
        return NoSuchId(text)


def _co_id(raw: _Line) -> RawCoId:
    if raw.id is None:
        raise DecodeError("message without id", 0)
    return parse_co_id(raw.id)


def _batch_id(raw: _Line) -> str:
    if raw.id is None or len(raw.id) > _MAX_BATCH_ID_CHARACTERS:
        raise DecodeError("batch without a usable id", 0)
    return raw.id


def _known_state(raw: _Line) -> KnownState:
    if not isinstance(raw.header, bool) or raw.sessions is None:
        raise DecodeError("known state without header and sessions", 0)
    return KnownState(raw.header, _counts(raw.sessions))


def _counts(raw: dict[str, int]) -> SessionCounts:
    counts: dict[CoSessionId, int] = {}
    for text, count in raw.items():
        if not 0 <= count < MAX_COUNT:
            raise DecodeError(f"session count {count}", 0)
        counts[parse_session_id(text)] = count
    return counts


def _decode_content(raw: _Line) -> Content:
    co_id = _co_id(raw)
    if raw.new is None or isinstance(raw.header, bool):
        raise DecodeError("content without sessions, or with a header that is none", 0)
    header = None if raw.header is None else parse_header(raw.header)
    new: dict[CoSessionId, SessionContent] = {}
    for text, part in raw.new.items():
        if not 0 <= part.after < MAX_COUNT:
            raise DecodeError(f"transactions after {part.after}", 0)
        new[parse_session_id(text)] = SessionContent(
            part.after,
            [parse_transaction(transaction) for transaction in part.new_transactions],
            decode_signature(part.last_signature),
        )
    until = None if raw.expect_content_until is None else _counts(raw.expect_content_until)
    if header is None:
        return Content(co_id, None, new, expect_until=until)
    return Content(co_id, header, new, header.priority, until)


def _decode_reconcile(raw: _Line) -> Reconcile:
    if raw.values is None or len(raw.values) > MAX_RECONCILE_VALUES:
        raise DecodeError(f"reconcile of no values or more than {MAX_RECONCILE_VALUES}", 0)
    values = tuple((parse_co_id(text), sessions_hash) for text, sessions_hash in raw.values)
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
    parts = [f'{{"action":"content","id":"{content.co_id}",']
    if content.header is not None:
        parts.append(f'"header":{content.header.canonical},')
    parts.append(f'"priority":{content.priority},"new":{{')
    parts.append(",".join([_encode_session(key, session) for key, session in content.new.items()]))
    parts.append("}")
    if content.expect_until is not None:
        parts.append(f',"expectContentUntil":{_encode_counts(content.expect_until)}')
    parts.append("}")
    return "".join(parts)


def _encode_session(session_id: CoSessionId, session: SessionContent) -> str:
    transactions = ",".join(map(canonical_transaction, session.transactions))
    return (
        f'"{session_id}":{{"after":{session.after},"newTransactions":[{transactions}],'
        f'"lastSignature":"{encode_signature(session.signature)}"}}'
    )


def encode_lines(messages: Sequence[Message]) -> str:
    """Several messages as one frame."""
    return "\n".join(map(encode_message, messages))
