"""Reading a record: what does not decode is damage, and the error says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypercore.crypto import KEY_BYTES, KeyPair
from hypercore.encoding import DecodeError
from hypercore.errors import CorruptStorage, UsageError

T = TypeVar("T")


def decode_record(where: str, decode: Callable[[bytes], T], data: bytes) -> T:
    """Raises: CorruptStorage, naming the record."""
    try:
        return decode(data)
    except DecodeError as error:
        raise CorruptStorage(where, str(error)) from error


def stored_key_pair(public_key: bytes, secret_key: bytes | None, offset: int) -> KeyPair | None:
    """The pair in a record that was read up to `offset`; None without its secret half.

    Raises: DecodeError.
    """
    if len(public_key) != KEY_BYTES:
        raise DecodeError(f"a key pair of which one half has {len(public_key)} bytes", offset)
    try:
        return None if secret_key is None else KeyPair(public_key, secret_key)
    except UsageError as error:
        raise DecodeError(str(error), offset) from error
