"""Reading a record: what does not decode is damage, and the error says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypercore.encoding import DecodeError
from hypercore.errors import CorruptStorage

T = TypeVar("T")


def decode_record(where: str, decode: Callable[[bytes], T], data: bytes) -> T:
    """Raises: CorruptStorage, naming the record."""
    try:
        return decode(data)
    except DecodeError as error:
        raise CorruptStorage(where, str(error)) from error
