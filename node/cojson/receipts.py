"""[trio] What becomes of content that was handed in: a receipt for each delivery of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from node.cojson.outputs import Settled
from node.cojson.reports import Receipt
from node.covalue.ids import CoSessionId, RawCoId


@dataclass(slots=True)
class OpenReceipt:
    """Contents of which some are not settled yet."""

    number: int
    unresolved: int
    _settled: trio.Event = field(default_factory=trio.Event)
    _accepted: set[RawCoId] = field(default_factory=set)
    _refused: dict[RawCoId, str] = field(default_factory=dict)
    _partly: dict[RawCoId, str] = field(default_factory=dict)
    _doubtful: dict[RawCoId, frozenset[CoSessionId]] = field(default_factory=dict)
    _waiting: Counter[RawCoId] = field(default_factory=Counter)

    async def wait_settled(self) -> Receipt:
        """What became of all of them, once nothing is open.

        Cancel: the contents are settled all the same.
        """
        if self.unresolved > 0:
            await self._settled.wait()
        waiting = frozenset(+self._waiting)
        accepted = frozenset(self._accepted)
        return Receipt(accepted, self._refused, waiting, self._partly, self._doubtful)

    def note(self, settled: Settled) -> None:
        co_id = settled.co_id
        if settled.was_waiting:
            self._waiting[co_id] -= 1
        else:
            self.unresolved -= 1
        if settled.is_waiting:
            self._waiting[co_id] += 1
        elif settled.refusal is not None:
            self._refused[co_id] = settled.refusal
        else:
            self._accepted.add(co_id)
        if settled.partly is not None:
            self._partly[co_id] = settled.partly
        if settled.doubtful is not None:
            self._doubtful[co_id] = settled.doubtful | self._doubtful.get(co_id, frozenset())
        if self.unresolved <= 0:
            self._settled.set()


class Receipts:
    """Open receipts by number."""

    def __init__(self) -> None:
        self._open: dict[int, OpenReceipt] = {}
        self._next_number = 1

    @contextmanager
    def open(self, contents: int) -> Iterator[OpenReceipt]:
        """A receipt for so many contents, while the block lasts."""
        number = self._next_number
        self._next_number += 1
        receipt = self._open[number] = OpenReceipt(number, contents)
        try:
            yield receipt
        finally:
            del self._open[number]

    def note(self, settled: Settled) -> None:
        """One of the contents is settled; perhaps nobody waits for it any more."""
        receipt = self._open.get(settled.receipt)
        if receipt is not None:
            receipt.note(settled)
