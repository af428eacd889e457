"""The operations of an append that is being made."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from bee.btree import OpenNode


class PendingBlocks:
    """The operations so far, each a block to be: `slots` are the nodes it rewrote, except its root.

    Lists of all blocks, instead of an object for each: 100,000 of those took the garbage collector
    as long as the tree itself. The stops are an array: as integers they would take 4 MB.
    """

    __slots__ = ("_slots", "_stops", "keys", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []
        self._slots: list[OpenNode] = []
        self._stops = array("q")

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: bytes, value: bytes | None, slots: list[OpenNode]) -> None:
        self.keys.append(key)
        self.values.append(value)
        self._slots += slots
        self._stops.append(len(self._slots))

    def content_bytes(self) -> int:
        return sum(map(len, self.keys)) + sum(map(len, filter(None, self.values)))

    def drain(self) -> Iterator[tuple[bytes, bytes | None, list[OpenNode]]]:
        """Key, value and slots of each; values are let go, for the blocks have them."""
        start = 0
        values, slots = self.values, self._slots
        for number, (key, stop) in enumerate(zip(self.keys, self._stops, strict=True)):
            value, values[number] = values[number], None
            yield key, value, slots[start:stop]
            start = stop
