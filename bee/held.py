"""What of a bee's past somebody still reads, so that a compaction keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar
from weakref import ref

_SLACK = 64


class HeldVersion(Protocol):
    """A snapshot."""

    @property
    def version(self) -> int: ...
    @property
    def fork(self) -> int: ...


class HeldHistory(Protocol):
    """A history that goes on: it needs the blocks from `seq` on."""

    @property
    def seq(self) -> int: ...
    @property
    def fork(self) -> int: ...


T = TypeVar("T")


class Living(Generic[T]):
    """Objects for as long as others have them.

    Adding one takes a third of the time of a `WeakSet`: the dead are forgotten many at a time.
    """

    __slots__ = ("_limit", "_refs")

    def __init__(self) -> None:
        self._refs: list[ref[T]] = []
        self._limit = _SLACK

    def add(self, item: T) -> None:
        self._refs.append(ref(item))
        if len(self._refs) > self._limit:
            self._refs = [each for each in self._refs if each() is not None]
            self._limit = 2 * len(self._refs) + _SLACK

    def __iter__(self) -> Iterator[T]:
        for each in self._refs:
            item = each()
            if item is not None:
                yield item


class Held:
    """What is read of one bee and its subs."""

    __slots__ = ("histories", "snapshots")

    def __init__(self) -> None:
        self.snapshots: Living[HeldVersion] = Living()
        self.histories: Living[HeldHistory] = Living()

    def versions(self, fork: int) -> set[int]:
        return {each.version for each in self.snapshots if each.fork == fork}

    def history_start(self, fork: int, length: int) -> int:
        """The first block that a history still has to tell of; `length` if there is none."""
        return min((each.seq for each in self.histories if each.fork == fork), default=length)
