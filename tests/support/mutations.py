"""Messages with one field changed: every field of every record in them, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from hypercore.flat_tree import TreeIndex
from hypercore.merkle import MerkleNode

HUGE = 2**53 - 1

T = TypeVar("T")


def mutations(value: T) -> Iterator[tuple[str, T]]:
    """(path of the field, a copy in which it alone is another); never the value itself."""
    for path, changed in _mutations("", value):
        if changed != value:
            yield path.removeprefix("."), changed  # type: ignore[misc]  # of the same type


def _mutations(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, MerkleNode):
        yield from _node_mutations(path, value)
    elif is_dataclass(value):
        yield from _record_mutations(path, value)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | str):
        yield from _item_mutations(path, value)
    else:
        for changed in _plain_mutations(value):
            yield path, changed


def _plain_mutations(value: object) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from {value + 1, abs(value - 1), 2 * value + 7, HUGE, 0}
    elif isinstance(value, bytes):
        yield from _spoiled_bytes(value)
    elif isinstance(value, str):
        yield value + "!"
        yield ""


def _node_mutations(path: str, node: MerkleNode) -> Iterator[tuple[str, MerkleNode]]:
    for number in {node.index + 1, node.index + 2, abs(node.index - 2), HUGE}:
        yield f"{path}.index", node._replace(index=TreeIndex(number))
    for number in {node.size + 1, abs(node.size - 1), 0, HUGE}:
        yield f"{path}.size", node._replace(size=number)
    for digest in _spoiled_bytes(node.hash):
        if len(digest) == len(node.hash):
            yield f"{path}.hash", node._replace(hash=digest)


def _record_mutations(path: str, record: object) -> Iterator[tuple[str, object]]:
    assert is_dataclass(record)
    assert not isinstance(record, type)
    for field in fields(record):
        part = getattr(record, field.name)
        for inner, changed in _mutations(f"{path}.{field.name}", part):
            yield inner, replace(record, **{field.name: changed})
        if is_dataclass(part) and field.default is None:
            yield f"{path}.{field.name}", replace(record, **{field.name: None})


def _spoiled_bytes(value: bytes) -> Iterator[bytes]:
    for place in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
        spoiled = bytearray(value)
        spoiled[place] ^= 1
        yield bytes(spoiled)
    yield value[:-1]
    yield value + b"\x00"
    yield b""


def _item_mutations(path: str, items: Sequence[object]) -> Iterator[tuple[str, object]]:
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
