"""MessagePack arrays whose fields are read one by one and checked where they are read.

Everything nodes tell one another (messages, tickets, grants) is an array of fields. Fields
left over at the end are ignored: that is how the formats grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgpack

from hypercore.encoding import MAX_UINT, DecodeError
from node.covalue.ids import CoSessionId, RawCoId, parse_co_id, parse_session_ids
from node.covalue.known_state import SessionCounts

Field: TypeAlias = "bool | int | str | bytes | Sequence[Field] | SessionCounts | None"
"""What a field may hold when it is written."""

MAX_ITEMS = 4096
"""Items in one array. A decoder reserves what an array claims, and arrays nest 1,024 deep at
most (msgpack's stack), so hostile claims cost 1,024 * 4,096 pointers = 32 MiB for a moment."""

MAX_SESSIONS = 65_536
"""Sessions in one map; the message's own size is the tighter bound."""

MAX_TEXT = 1024
"""Characters in any text field; ids and names have tighter bounds."""


class FieldError(DecodeError):
    """A field that is not what it should be; `offset` counts fields, not bytes."""

    def __init__(self, reason: str, field: int) -> None:
        ValueError.__init__(self, f"{reason} (field {field})")
        self.reason = reason
        self.offset = field


def pack_fields(*fields: Field) -> bytes:
    """One array. Equal fields give equal bytes: what is signed is packed with this."""
    packed: bytes = msgpack.packb(fields)
    return packed


class FieldReader:
    """A cursor over the fields of one array. Raises: DecodeError, and nothing else."""

    __slots__ = ("_items", "_position")

    def __init__(self, items: Sequence[object]) -> None:
        self._items = items
        self._position = 0

    @classmethod
    def unpack(cls, data: bytes, max_bytes: int) -> FieldReader:
        """Read an array that is the whole of `data`; longer data is refused unread."""
        if len(data) > max_bytes:
            raise FieldError(f"{len(data)} bytes, at most {max_bytes}", 0)
        try:
            value = msgpack.unpackb(
                data,
                strict_map_key=True,
                max_array_len=MAX_ITEMS,
                max_map_len=MAX_SESSIONS,
                max_str_len=MAX_TEXT,
                max_bin_len=max_bytes,
                max_ext_len=0,
            )
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise FieldError(f"not MessagePack: {error}", 0) from None
        if not isinstance(value, list):
            raise FieldError("not an array", 0)
        return cls(value)

    @property
    def remaining(self) -> int:
        return len(self._items) - self._position

    def is_text_next(self) -> bool:
        """Whether the next field is text, for fields of two types."""
        return self.remaining > 0 and isinstance(self._items[self._position], str)

    def _next(self) -> object:
        if self._position >= len(self._items):
            raise FieldError("field missing", self._position)
        self._position += 1
        return self._items[self._position - 1]

    def _refuse(self, wanted: str) -> FieldError:
        return FieldError(f"{wanted} wanted", self._position - 1)

    def uint(self, maximum: int = MAX_UINT) -> int:
        value = self._next()
        if type(value) is not int or not 0 <= value <= maximum:
            raise self._refuse(f"integer from 0 to {maximum}")
        return value

    def optional_uint(self) -> int | None:
        return None if self._skip_nil() else self.uint()

    def flag(self) -> bool:
        value = self._next()
        if not isinstance(value, bool):
            raise self._refuse("true or false")
        return value

    def text(self, max_length: int = MAX_TEXT) -> str:
        value = self._next()
        if not isinstance(value, str) or len(value) > max_length:
            raise self._refuse(f"text of at most {max_length} characters")
        return value

    def fixed(self, size: int) -> bytes:
        value = self._next()
        if not isinstance(value, bytes) or len(value) != size:
            raise self._refuse(f"{size} bytes")
        return value

    def data(self, max_bytes: int) -> bytes:
        value = self._next()
        if not isinstance(value, bytes) or len(value) > max_bytes:
            raise self._refuse(f"at most {max_bytes} bytes")
        return value

    def co_id(self) -> RawCoId:
        return parse_co_id(self.text())

    def array(self, max_items: int = MAX_ITEMS) -> FieldReader:
        value = self._next()
        if not isinstance(value, list) or len(value) > max_items:
            raise self._refuse(f"array of at most {max_items} items")
        return FieldReader(value)

    def optional_array(self, max_items: int = MAX_ITEMS) -> FieldReader | None:
        return None if self._skip_nil() else self.array(max_items)

    def co_ids(self, max_items: int) -> tuple[RawCoId, ...]:
        items = self.array(max_items)
        return tuple(items.co_id() for _ in range(items.remaining))

    def texts(self, max_items: int, max_length: int) -> tuple[str, ...]:
        items = self.array(max_items)
        return tuple(items.text(max_length) for _ in range(items.remaining))

    def sessions(self) -> dict[CoSessionId, int]:
        """A map of CoSessionId to count."""
        value = self._next()
        if not isinstance(value, dict):
            raise self._refuse("map of sessions")
        for session_id, count in value.items():
            if not isinstance(session_id, str):
                raise self._refuse("session id as key")
            if type(count) is not int or not 0 <= count <= MAX_UINT:
                raise self._refuse("count of transactions")
        return dict(zip(parse_session_ids(value.keys()), value.values(), strict=True))

    def optional_sessions(self) -> dict[CoSessionId, int] | None:
        return None if self._skip_nil() else self.sessions()

    def _skip_nil(self) -> bool:
        if self._position < len(self._items) and self._items[self._position] is None:
            self._position += 1
            return True
        return False
