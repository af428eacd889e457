"""What keys and values mean to the caller: codecs, and prefixes of sub-databases.

A sub-database `name` holds the keys that start with `name || separator`; inside it they are shown
without that. As in the original, its ranges leave out the keys "" and "\\0" of the sub, and what
lies below a deeper sub with the separator "\\0" shows up in the parent's ranges.

Source: hyperbee 2.27.3 index.js sub, prefixEncoding, encRange.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar

from bee.errors import CorruptTree
from hypercore.errors import UsageError
from hypercore.given_blocks import check_numbers
from hypercore.javascript_json import encode_json

if TYPE_CHECKING:
    # Only these type variables have defaults: a bare `Bee` is a `Bee[bytes, bytes]`.
    import typing_extensions

    K = typing_extensions.TypeVar("K", default=bytes)
    V = typing_extensions.TypeVar("V", default=bytes)
else:
    K = TypeVar("K")
    V = TypeVar("V")

T = TypeVar("T")
A = TypeVar("A")

SEPARATOR = b"\0"


class Bounds(TypedDict, Generic[T], total=False):
    """What lies between two keys, or in the history between two seqs. None is open.

    The exclusive bound wins where both are given; in the history `lte` wins, as in the original.
    """

    gt: T | None
    gte: T | None
    lt: T | None
    lte: T | None


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """Turns keys or values into bytes and back; `decode` raises ValueError if it cannot."""

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


# `bytes` itself would take a number, and make as many zeros.
BINARY: Codec[bytes] = Codec(bytes.__bytes__, bytes)
UTF8: Codec[str] = Codec(str.encode, bytes.decode)
JSON: Codec[object] = Codec(encode_json, json.loads)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Encoded bounds; None is open. `limit` is how many results at most, None for all."""

    lower: bytes | None = None
    upper: bytes | None = None
    includes_lower: bool = True
    includes_upper: bool = True
    reverse: bool = False
    limit: int | None = None

    @property
    def first(self) -> tuple[bytes | None, bool]:
        """The bound where reading starts, and whether it belongs to the range."""
        if self.reverse:
            return self.upper, self.includes_upper
        return self.lower, self.includes_lower

    @property
    def last(self) -> tuple[bytes | None, bool]:
        if self.reverse:
            return self.lower, self.includes_lower
        return self.upper, self.includes_upper

    def contains(self, key: bytes) -> bool:
        """Whether `key` is between the bounds."""
        lower, upper = self.lower, self.upper
        if lower is not None and (key < lower or (key == lower and not self.includes_lower)):
            return False
        return upper is None or key < upper or (key == upper and self.includes_upper)

    def rest(self, last_key: bytes | None, limit: int | None) -> KeyRange:
        """What is left after `last_key`, or of all if that is None, and no more than `limit`."""
        if last_key is None:
            return replace(self, limit=limit)
        if self.reverse:
            return replace(self, upper=last_key, includes_upper=False, limit=limit)
        return replace(self, lower=last_key, includes_lower=False, limit=limit)

    @property
    def is_past(self) -> Callable[[bytes], bool] | None:
        """A test whether reading ends before a key; None if it ends with the last key.

        (A method of the bound itself, since it is called for every key that is read.)
        """
        bound, is_included = self.last
        if bound is None:
            return None
        if self.reverse:
            return bound.__gt__ if is_included else bound.__ge__
        return bound.__lt__ if is_included else bound.__le__


@dataclass(frozen=True, slots=True)
class Keyspace(Generic[K, V]):
    """Keys below `prefix`, shown without it, and the codecs of keys and values."""

    keys: Codec[K]
    values: Codec[V]
    prefix: bytes = b""
    separator: bytes = SEPARATOR

    def sub(
        self, name: bytes, separator: bytes | None, keys: Codec[T], values: Codec[A]
    ) -> Keyspace[T, A]:
        """`separator` counts for this sub alone; deeper ones use the bee's."""
        end = self.separator if separator is None else separator
        return Keyspace(keys, values, self.prefix + name + end, self.separator)

    def encoded(self, keys: Codec[T], values: Codec[A]) -> Keyspace[T, A]:
        """The same keys and values, shown by other codecs."""
        return Keyspace(keys, values, self.prefix, self.separator)

    @property
    def is_plain(self) -> bool:
        """Whether keys and values are shown just as they are stored."""
        return not self.prefix and self.keys is BINARY and self.values is BINARY

    def encode_key(self, key: K) -> bytes:
        """Raises: TypeError for what its codec does not take."""
        try:
            encoded = self.keys.encode(key)
        except TypeError as error:
            raise TypeError(f"not a key of this bee: {type(key).__name__} ({error})") from error
        return self.prefix + encoded if self.prefix else encoded

    def encode_value(self, value: V | None) -> bytes | None:
        """Raises: TypeError for what its codec does not take."""
        try:
            return None if value is None else self.values.encode(value)
        except TypeError as error:
            raise TypeError(f"not a value of this bee: {type(value).__name__} ({error})") from error

    def decode_key(self, key: bytes, seq: int) -> K:
        """Raises: CorruptTree."""
        try:
            return self.keys.decode(key[len(self.prefix) :] if self.prefix else key)
        except (ValueError, RecursionError) as error:
            raise CorruptTree(seq, f"undecodable key: {error}") from error

    def decode_value(self, value: bytes | None, seq: int) -> V | None:
        """Raises: CorruptTree."""
        if value is None:
            return None
        try:
            return self.values.decode(value)
        except (ValueError, RecursionError) as error:
            raise CorruptTree(seq, f"undecodable value: {error}") from error

    def key_range(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> KeyRange:
        """The keys between these bounds, encoded: what a `Bounds` is for.

        Raises: UsageError for a limit below 0.
        """
        check_limit(limit)
        lower, upper = gte if gt is None else gt, lte if lt is None else lt
        includes_lower, includes_upper = gt is None, lt is None
        encoded_lower = None if lower is None else self.encode_key(lower)
        encoded_upper = None if upper is None else self.encode_key(upper)
        if self.prefix:
            if encoded_lower is None:
                encoded_lower, includes_lower = self.prefix + SEPARATOR, False
            if encoded_upper is None:
                encoded_upper, includes_upper = _after_prefix(self.prefix), False
        return KeyRange(
            encoded_lower, encoded_upper, includes_lower, includes_upper, reverse, limit
        )

    def between(
        self,
        *,
        gt: K | None = None,
        gte: K | None = None,
        lt: K | None = None,
        lte: K | None = None,
    ) -> KeyRange:
        """As `key_range`, in order and without a limit."""
        return self.key_range(gt=gt, gte=gte, lt=lt, lte=lte)

    def prefix_range(self, prefix: K) -> KeyRange:
        """All keys that begin as `prefix` does, encoded."""
        encoded = self.encode_key(prefix)
        return KeyRange(encoded, _after_prefix(encoded), includes_upper=False)


def check_limit(limit: int | None) -> None:
    """Raises: UsageError for one below 0, by which the original means no limit; TypeError."""
    check_numbers("a limit", limit)
    if limit is not None and limit < 0:
        raise UsageError(f"a limit of {limit}; None is no limit")


def _after_prefix(prefix: bytes) -> bytes | None:
    """The least key above all that start with `prefix`; None if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def encode_name(name: str | bytes) -> bytes:
    """The name of a sub-database as bytes."""
    return name.encode() if isinstance(name, str) else name
