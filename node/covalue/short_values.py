"""Short values as text: what a client is sent that has nothing, made when it is stored.

Most values are written once, loaded by many, and have a few kilobytes. In the tree they are three
rows or more, found by a descent: 0.4 ms. So a value that is short when it comes with its header
is also kept as one local row, which is read and sent as it is: 0.1 ms. The row is written in the
same step as those in the tree. An edit removes it, as a deletion does: rewriting it with every
edit would take a fifth of its time. A damaged row is passed over: the tree has all of it.
"""

from __future__ import annotations

from hypercore.encoding import DecodeError
from node.covalue.content import join_lines
from node.covalue.dependencies import value_dependencies
from node.covalue.gathering import ValueRows
from node.covalue.header import parse_header_text
from node.covalue.ids import RawCoId
from node.covalue.records import ShortSession, decode_short, encode_short
from node.covalue.store import StoredText, StoredValue

MAX_SHORT_BYTES = 8 * 1024
"""Of header and transactions: more takes so long to send that finding it does not matter."""


def make_short(value: ValueRows) -> bytes | None:
    """The row of a value that begins with this commit; None if it is long, a group or deleted.

    What a group depends on is in its transactions: their text does not show it.
    """
    header = value.header
    if header is None or header.is_group or value.is_deletion:
        return None
    sessions: list[ShortSession] = []
    room = MAX_SHORT_BYTES - len(header.canonical)
    for session_id in sorted(value.sessions):
        rows = value.sessions[session_id]
        text = join_lines(rows.lines)
        room -= len(text)
        if rows.after or rows.checkpoints or room < 0:
            return None
        last = rows.last
        about = rows.count, last.signature, last.bytes_since_checkpoint
        sessions.append(ShortSession(session_id, *about, text))
    return encode_short(header.canonical, sessions)


def read_short(co_id: RawCoId, record: bytes) -> StoredText | None:
    """What the row says; None if it is damaged."""
    try:
        text, rows = decode_short(record)
        header = parse_header_text(text)
    except DecodeError:
        return None
    if not header.has_id(co_id):
        return None
    sessions = {row.session_id: row.stored for row in rows}
    dependencies = value_dependencies(co_id, header, sessions, ())
    value = StoredValue(header, sessions, dependencies)
    return StoredText(value, {row.session_id: row.text for row in rows})
