"""The composite keys under which a coValue is kept; equal values sort next to each other.

| key                             | value                        | sorts |
|---------------------------------|------------------------------|-------|
| `{coID}:header`                 | the header                   | 1     |
| `{coID}:session:{sessionID}`    | how far it goes, and its end | 2     |
| `{coID}:sig:{sessionID}:{idx}`  | a signature checkpoint       | 3     |
| `{coID}:tx:{sessionID}:{idx}`   | a run of transactions        | 4     |

`{idx}` is ten decimal digits, so that runs sort by index: that of a run's first transaction, of a
checkpoint's last one. All rows of one value lie in [`{coID}:`, `{coID};`), `;` being the byte
after `:`; no id contains either.

Bookkeeping lies beside the data core, not in it:

| key                        | value                                                       |
|----------------------------|-------------------------------------------------------------|
| `id:{coID}`                | true: the value is stored                                   |
| `count`                    | how many are                                                |
| `transactions`             | how many transactions are loaded of all of them             |
| `short:{coID}`             | all of a short value, ready to be sent                      |
| `deleted:{coID}`           | a tombstone: 0 while more of it is on the disk, else 1      |
| `sync:{coID}:{peerID}`     | true: not synced to that peer yet (its id may contain `:`)  |
| `lock:{peerID}`            | the last reconciliation lock                                |
| `fork:{coID}:{sessionID}`  | evidence of a fork                                          |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hypercore.encoding import DecodeError
from node.covalue.ids import CoSessionId, RawCoId, parse_co_id, parse_session_id

_INDEX_DIGITS = 10
_NO_SESSION = CoSessionId("")


class RowKind(Enum):
    HEADER = "header"
    SESSION = "session"
    CHECKPOINT = "sig"
    RUN = "tx"


@dataclass(frozen=True, slots=True)
class RowKey:
    """One row of a value; `session_id` and `index` where its kind has them."""

    co_id: RawCoId
    kind: RowKind
    session_id: CoSessionId = _NO_SESSION
    index: int = 0


def header_key(co_id: RawCoId) -> bytes:
    return f"{co_id}:header".encode()


def session_key(co_id: RawCoId, session_id: CoSessionId) -> bytes:
    return f"{co_id}:session:{session_id}".encode()


def checkpoint_key(co_id: RawCoId, session_id: CoSessionId, index: int) -> bytes:
    """`index` is that of the last transaction that the checkpoint covers."""
    return f"{co_id}:sig:{session_id}:{index:0{_INDEX_DIGITS}d}".encode()


def run_key(co_id: RawCoId, session_id: CoSessionId, index: int) -> bytes:
    """`index` is that of the first transaction of the run."""
    return f"{co_id}:tx:{session_id}:{index:0{_INDEX_DIGITS}d}".encode()


def value_range(co_id: RawCoId) -> tuple[bytes, bytes]:
    """All rows of one value: those with start <= key < stop."""
    return f"{co_id}:".encode(), f"{co_id};".encode()


def summary_range(co_id: RawCoId) -> tuple[bytes, bytes]:
    """Header, sessions and checkpoints: everything but the transactions."""
    return f"{co_id}:".encode(), f"{co_id}:tx:".encode()


def sessions_range(co_id: RawCoId) -> tuple[bytes, bytes]:
    """Header and sessions only."""
    return f"{co_id}:".encode(), f"{co_id}:sig:".encode()


def checkpoints_range(co_id: RawCoId, session_id: CoSessionId, index: int) -> tuple[bytes, bytes]:
    """The checkpoints of one session that cover transaction `index`, or later ones."""
    return checkpoint_key(co_id, session_id, index), f"{co_id}:sig:{session_id};".encode()


def row_order(session_id: CoSessionId) -> str:
    """By this sessions sort as their rows do: `:` follows an id there, and sorts above digits."""
    return session_id + ":"


def session_runs_range(co_id: RawCoId, session_id: CoSessionId) -> tuple[bytes, bytes]:
    """The runs of one session."""
    return f"{co_id}:tx:{session_id}:".encode(), f"{co_id}:tx:{session_id};".encode()


def decode_key(key: bytes) -> RowKey:
    """Raises: DecodeError for anything that is no key of a row."""
    try:
        co_text, kind_text, *rest = key.decode("ascii").split(":")
        kind = RowKind(kind_text)
    except ValueError:
        raise DecodeError("not the key of a coValue's row", 0) from None
    co_id = parse_co_id(co_text)
    match kind, rest:
        case RowKind.HEADER, []:
            return RowKey(co_id, kind)
        case RowKind.SESSION, [session]:
            return RowKey(co_id, kind, parse_session_id(session))
        case ((RowKind.CHECKPOINT | RowKind.RUN), [session, digits]):
            if len(digits) == _INDEX_DIGITS and digits.isdecimal():
                return RowKey(co_id, kind, parse_session_id(session), int(digits))
    raise DecodeError(f"a {kind.value} row with {len(rest)} further parts", 0)


def co_id_in(key: bytes) -> RawCoId:
    """Whose row it is, of whatever kind. Raises: DecodeError when it is of no value."""
    return parse_co_id(key.partition(b":")[0].decode("ascii", "replace"))


ID_PREFIX = b"id:"
DELETED_RANGE = (b"deleted:", b"deleted;")
FORK_RANGE = (b"fork:", b"fork;")
COUNT_KEY = b"count"
TRANSACTIONS_KEY = b"transactions"
_SYNC_PREFIX = b"sync:"


def id_key(co_id: str) -> bytes:
    return ID_PREFIX + co_id.encode()


def short_key(co_id: RawCoId) -> bytes:
    return f"short:{co_id}".encode()


def deleted_key(co_id: RawCoId) -> bytes:
    return f"deleted:{co_id}".encode()


def decode_deleted_key(key: bytes) -> RawCoId:
    """Raises: DecodeError."""
    return parse_co_id(key.decode("ascii", "replace").removeprefix("deleted:"))


def lock_key(peer_id: str) -> bytes:
    return f"lock:{peer_id}".encode()


def fork_key(co_id: RawCoId, session_id: CoSessionId) -> bytes:
    return f"fork:{co_id}:{session_id}".encode()


def sync_key(co_id: RawCoId, peer_id: str) -> bytes:
    return f"sync:{co_id}:{peer_id}".encode()


def sync_range(co_id: str = "") -> tuple[bytes, bytes]:
    """Rows of one value, or of all: those with start <= key < stop."""
    if co_id:
        return f"sync:{co_id}:".encode(), f"sync:{co_id};".encode()
    return _SYNC_PREFIX, b"sync;"


def decode_sync_key(key: bytes) -> tuple[RawCoId, str]:
    """(value, peer). Raises: DecodeError."""
    try:
        _, co_id, peer_id = key.decode().split(":", 2)
    except ValueError:
        raise DecodeError("not the key of a sync row", 0) from None
    return parse_co_id(co_id), peer_id
