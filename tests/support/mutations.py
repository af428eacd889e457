"""Messages with one field changed: every field of every record in them, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from typing import TypeVar

from hypercore.merkle import MerkleNode

HUGE = 2**53 - 1

T = TypeVar("T")


def mutations(value: T) -> Iterator[tuple[str, T]]:
    """(path of the field, a copy in which it alone is another); never the value itself."""
    for path, changed in _mutations("", value):
        if changed != value:
            yield path.removeprefix("."), changed  # type: ignore[misc]  # of the same type


def _mutations(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, bool):
        yield path, not value
    elif isinstance(value, IntEnum):
        yield path, int(value) + 1
    elif isinstance(value, int):
        for number in {value + 1, abs(value - 1), 2 * value + 7, HUGE, 0}:
            yield path, number
    elif isinstance(value, bytes):
        for changed in _spoiled_bytes(value):
            yield path, changed
    elif isinstance(value, str):
        yield path, value + "!"
        yield path, ""
    elif isinstance(value, MerkleNode):
        for name, part in zip(value._fields, value, strict=True):
            for _, changed in _mutations(path, part):
                if name != "hash" or len(changed) == 32:  # type: ignore[arg-type]  # bytes
                    yield f"{path}.{name}", value._replace(**{name: changed})
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            part = getattr(value, field.name)
            for inner, changed in _mutations(f"{path}.{field.name}", part):
                yield inner, replace(value, **{field.name: changed})
            if is_dataclass(part):
                yield f"{path}.{field.name}", replace(value, **{field.name: None})
    elif isinstance(value, Sequence):
        for changed_items in _spoiled_items(path, value):
            yield changed_items


def _spoiled_bytes(value: bytes) -> Iterator[bytes]:
    for place in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
        spoiled = bytearray(value)
        spoiled[place] ^= 1
        yield bytes(spoiled)
    yield value[:-1]
    yield value + b"\x00"
    yield b""


def _spoiled_items(path: str, items: Sequence[object]) -> Iterator[tuple[str, object]]:
    for place, item in enumerate(items):
        before, after = list(items[:place]), list(items[place + 1 :])
        yield path, _like(items, [*before, *after])
        yield path, _like(items, [*before, item, item, *after])
        if after:
            yield path, _like(items, [*before, after[0], item, *after[1:]])
        for inner, changed in _mutations(f"{path}[{place}]", item):
            yield inner, _like(items, [*before, changed, *after])


def _like(items: Sequence[object], changed: list[object]) -> Sequence[object]:
    return tuple(changed) if isinstance(items, tuple) else changed
