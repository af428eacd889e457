"""The requests that one peer has not answered yet: how many, which ids, what they will bring.

**Paths are shared between requests.** A request says how many levels above its block the
answer has to climb until it meets a node that is stored here. Asking for 512 blocks in a row
that way would bring the same upper nodes 512 times. So a request may also count on the nodes
that earlier, still open requests to the same peer will bring: a run of blocks then costs about
one node each. Answers usually come in the order of the requests; one that comes too early is
kept until the nodes below it have come, and asked for again, on its own, if they never do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hypercore import flat_tree
from hypercore.log import NodeReader
from hypercore.proof_request import UpgradeRequest

FIRST_WINDOW = 64
"""Requests for ranges in flight at first; grows by one with each answer."""

MAX_WINDOW = 512
"""Requests in flight at most; JavaScript seeders take 512 too."""

MAX_INFLIGHT_BYTES = 16 << 20
"""Bytes of blocks in flight, by their average size, so that large blocks do not pile up."""

MIN_WINDOW = 4

MAX_CANCELLED = 4096
"""Cancelled ids that wait for a round trip; with more, nothing else is asked of this peer."""

_MAX_LEVELS = 64


@dataclass(slots=True)
class InflightRequest:
    """One open request. `levels` are those whose nodes the answer will bring."""

    id: int
    sequence: int
    index: int
    """The block asked for; -1 when there is none."""

    levels: int
    is_shared: bool
    """It counts on nodes that earlier requests bring."""

    upgrade: UpgradeRequest | None
    fork: int
    sent_at: float
    parked: bytes | None = None
    """Its answer, when that came before the nodes it builds on."""


class _Withdrawn(NamedTuple):
    """A request that was taken back before it was answered."""

    last_sequence: int
    """That of the last request sent by then."""

    sequence: int
    block: int
    """The block that it was for; -1 also where it was for more than a block."""


class Inflight:
    """The open requests of one peer."""

    __slots__ = (
        "_cancelled",
        "_cautious",
        "_expected",
        "_free_ids",
        "_last_id",
        "_max_window",
        "_requests",
        "_sequence",
        "_window",
        "round_trip_guess",
        "round_trip_seconds",
    )

    def __init__(self, first_window: int = FIRST_WINDOW, max_window: int = MAX_WINDOW) -> None:
        self._max_window = max_window
        self._requests: dict[int, InflightRequest] = {}
        self._free_ids: list[int] = []
        self._last_id = 0
        self._sequence = 0
        self._cancelled: OrderedDict[int, _Withdrawn] = OrderedDict()
        self._expected: set[int] = set()
        self._cautious: set[int] = set()
        self._window = first_window
        self.round_trip_seconds = 0.0
        self.round_trip_guess = 0.0
        """Taken until one is measured: how long the handshake took."""

    @property
    def best_guess(self) -> float:
        """The round trip, as far as it is known."""
        return self.round_trip_seconds or self.round_trip_guess

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[InflightRequest]:
        """Oldest first."""
        return iter(self._requests.values())

    def newest_first(self) -> Iterator[InflightRequest]:
        return reversed(self._requests.values())

    def get(self, request_id: int) -> InflightRequest | None:
        return self._requests.get(request_id)

    def room(self, average_block_bytes: int) -> tuple[int, int]:
        """How many more requests may be sent now: for single blocks, and for parts of ranges.

        Somebody waits for each single block, so these do not wait for the window to grow.
        """
        if len(self._cancelled) > MAX_CANCELLED:
            return 0, 0
        most = self.most(average_block_bytes)
        open_requests = len(self._requests)
        return most - open_requests, min(most, self._window) - open_requests

    def most(self, average_block_bytes: int) -> int:
        """Requests in flight at most, for blocks of about that size."""
        by_size = max(MAX_INFLIGHT_BYTES // max(average_block_bytes, 1), MIN_WINDOW)
        return min(self._max_window, by_size)

    def resize(self, first_window: int, max_window: int) -> None:
        """Change the limits from now on."""
        self._max_window = max_window
        self._window = min(max(self._window, first_window), max_window)

    def plan_path(self, index: int, read_node: NodeReader) -> tuple[int, bool]:
        """How many levels a request for block `index` asks for, and whether it counts on others.

        The nodes it will bring count as expected from now on: call `add` with the result.
        """
        expected = self._expected
        node = 2 * index
        levels = 0
        if index in self._cautious:
            while levels < _MAX_LEVELS and read_node(node) is None:
                levels += 1
                node = flat_tree.parent(node)
            return levels, False
        while levels < _MAX_LEVELS:
            if node in expected:
                return levels, True
            if read_node(node) is not None:
                return levels, False
            # The same as flat_tree.sibling and flat_tree.parent, without their calls.
            step = ~node & (node + 1)
            expected.add(node)
            expected.add(node ^ (step << 1))
            node = (node | step) & ~(step << 1)
            levels += 1
        return levels, False

    def add(
        self,
        index: int,
        levels: int,
        is_shared: bool,
        upgrade: UpgradeRequest | None,
        fork: int,
        now: float,
    ) -> InflightRequest:
        if self._free_ids:
            request_id = self._free_ids.pop()
        else:
            request_id = self._last_id = self._last_id + 1
        self._sequence += 1
        request = InflightRequest(
            request_id, self._sequence, index, levels, is_shared, upgrade, fork, now
        )
        self._requests[request_id] = request
        return request

    def finish(self, request: InflightRequest) -> None:
        """The request was answered: its id is free, as are ids withdrawn before it was sent."""
        del self._requests[request.id]
        self._forget_path(request)
        self._free_ids.append(request.id)
        if self._window < self._max_window:
            self._window += 1
        self._forget_cancelled(request.sequence)

    def cancel(self, request: InflightRequest) -> bool:
        """The request is withdrawn. Its id stays taken: an answer to it may be on its way.

        Once a request that was sent later is answered, nothing for this id can come any more.
        Returns whether to tell the peer: once, when no more ids may wait, it is not told, since
        an end that withdraws all its requests never gets an answer, and would ask nothing more.
        """
        del self._requests[request.id]
        self._forget_path(request)
        block = -1 if request.upgrade is not None else request.index
        self._cancelled[request.id] = _Withdrawn(self._sequence, request.sequence, block)
        return len(self._cancelled) != MAX_CANCELLED + 1

    def receive_late(self, request_id: int) -> int:
        """An answer with an id that is not open: perhaps to a request that was withdrawn.

        Returns the block that was asked for, if nothing else was; otherwise -1.
        """
        found = self._cancelled.pop(request_id, None)
        if found is None:
            return -1
        self._free_ids.append(request_id)
        self._forget_cancelled(found.sequence)
        return found.block

    def _forget_cancelled(self, answered: int) -> None:
        """Free the ids that were withdrawn before the request of that sequence was sent."""
        cancelled = self._cancelled
        while cancelled:
            request_id, withdrawn = next(iter(cancelled.items()))
            if withdrawn.last_sequence >= answered:
                return
            del cancelled[request_id]
            self._free_ids.append(request_id)

    def retry_alone(self, index: int) -> None:
        """The next request for this block is to build on stored nodes only."""
        self._cautious.add(index)

    def _forget_path(self, request: InflightRequest) -> None:
        if request.index < 0:
            return
        if request.index in self._cautious:
            self._cautious.discard(request.index)
            return
        discard = self._expected.discard
        node = 2 * request.index
        for _ in range(request.levels):
            step = ~node & (node + 1)
            discard(node)
            discard(node ^ (step << 1))
            node = (node | step) & ~(step << 1)

    def measure_round_trip(self, seconds: float) -> None:
        """Smoothed over about eight measurements."""
        present = self.round_trip_seconds
        self.round_trip_seconds = seconds if not present else present + (seconds - present) / 8
