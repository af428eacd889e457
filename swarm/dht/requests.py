"""Requests on their way: matched with answers, repeated, given up; a machine.

An answer counts only if it comes from where the request went and carries its transaction, which is
drawn at random: to fake one takes the right address and a guess among 65,536. The originals look
at the transaction alone, and count it up.

Requests beyond the congestion window wait in line, at most MAX_REQUESTS with those on their way.

Source: dht-rpc 6.27.0 lib/io.js.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import ClassVar

from hypercore.crypto import Entropy
from swarm.announcement import Address
from swarm.dht.messages import BETWEEN_PEERS, NodeId, Request, Response
from swarm.dht.pacing import CongestionWindow, RoundTrips
from swarm.errors import SwarmError

MAX_REQUESTS = 4096
RETRIES = 3

_TRANSACTIONS = 2**16


@dataclass(frozen=True, slots=True)
class Via:
    """Which of a node's sockets, as its shell counts them.

    Two are always there: the server's, which others know, and the client's, which they do not.
    The sockets that holes are punched with come and go.
    """

    number: int

    SERVER: ClassVar[Via]
    CLIENT: ClassVar[Via]


Via.SERVER = Via(0)
Via.CLIENT = Via(1)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of whom.

    `timeout_seconds` is per attempt, None means as the node's round-trip time suggests. An urgent
    call is sent even if the window is full. `via` None means the socket that the node asks from.
    """

    to: Address
    command: int
    is_internal: bool = False
    target: bytes | None = None
    value: bytes | None = None
    token: bytes | None = None
    retries: int = RETRIES
    timeout_seconds: float | None = None
    is_urgent: bool = False
    via: Via | None = None

    @property
    def shows_who_is_down(self) -> bool:
        """Whether silence means that the node is down, and not a lost packet or another node."""
        is_passed_on = not self.is_internal and self.command in BETWEEN_PEERS
        return self.retries > 0 and not is_passed_on


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a datagram; nobody minds if it gets lost."""

    data: bytes
    to: Address
    via: Via


@dataclass(frozen=True, slots=True)
class Answered:
    """A request got its answer, `seconds` after it was sent first. It arrived through `via`."""

    handle: int
    call: Call
    response: Response
    seconds: float
    via: Via


@dataclass(frozen=True, slots=True)
class Delayed:
    """A request was not answered in the time that its node usually takes; it is sent again."""

    handle: int
    call: Call


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A request was repeated often enough, and not answered."""

    handle: int
    call: Call


RequestOutput = Transmit | Answered | Delayed | TimedOut


class TooManyRequests(SwarmError):
    """More requests wait than any honest use needs."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_REQUESTS} requests are waiting already")


@dataclass(slots=True)
class _Pending:
    handle: int
    call: Call
    transaction: int
    datagram: bytes
    via: Via
    attempts: int = 0
    first_sent_at: float = 0.0
    timeout_at: float | None = None


@dataclass(frozen=True, slots=True)
class RequestStatistics:
    """Counts since the start, `active` now."""

    active: int = 0
    sent: int = 0
    retries: int = 0
    answers: int = 0
    timeouts: int = 0


@dataclass(slots=True)
class _Counters:
    sent: int = 0
    retries: int = 0
    answers: int = 0
    timeouts: int = 0


@dataclass(slots=True)
class RequestTable:
    """All requests of one node that have no answer yet."""

    entropy: Entropy
    now: float
    round_trips: RoundTrips = field(default_factory=RoundTrips)
    _window: CongestionWindow = field(init=False)
    _by_transaction: dict[int, _Pending] = field(default_factory=dict)
    _by_handle: dict[int, _Pending] = field(default_factory=dict)
    _line: dict[int, _Pending] = field(default_factory=dict)  # waiting for room, first in front
    _timeouts: list[tuple[float, int]] = field(default_factory=list)  # heap of (when, handle)
    _last_handle: int = 0
    _counters: _Counters = field(default_factory=_Counters)

    def __post_init__(self) -> None:
        self._window = CongestionWindow(self.now)

    def __len__(self) -> int:
        return len(self._by_handle)

    @property
    def statistics(self) -> RequestStatistics:
        counters = self._counters
        return RequestStatistics(
            len(self), counters.sent, counters.retries, counters.answers, counters.timeouts
        )

    @property
    def deadline(self) -> float | None:
        """When `advance` has something to do."""
        self._drop_stale_timeouts()
        when = self._timeouts[0][0] if self._timeouts else None
        if self._line:
            room_at = self._window.next_interval
            return room_at if when is None else min(when, room_at)
        return when

    def open(
        self, call: Call, via: Via, own_id: NodeId | None, now: float
    ) -> tuple[int, list[RequestOutput]]:
        """Send a request, or line it up. The handle is in every output about it.

        Raises: TooManyRequests.
        """
        if len(self._by_handle) >= MAX_REQUESTS:
            raise TooManyRequests
        transaction = self._draw_transaction()
        request = Request(
            transaction, call.to, call.command, call.is_internal, own_id, call.token, call.target,
            call.value,
        )  # fmt: skip
        self._last_handle += 1
        pending = _Pending(self._last_handle, call, transaction, request.encode(), via)
        self._by_handle[pending.handle] = pending
        self._by_transaction[transaction] = pending
        return pending.handle, self._send(pending, now)

    def cancel(self, handle: int) -> None:
        """Forget a request; an answer that still comes is ignored."""
        pending = self._by_handle.get(handle)
        if pending is not None:
            self._close(pending)

    def receive(
        self, response: Response, source: Address, via: Via, now: float
    ) -> list[RequestOutput]:
        """Take an answer; one that nobody asked for is ignored."""
        pending = self._by_transaction.get(response.transaction)
        if pending is None or pending.call.to != source or not pending.attempts:
            return []
        seconds = now - pending.first_sent_at
        if pending.attempts == 1 and pending.call.timeout_seconds is None:
            self.round_trips.add(source, seconds)
        self._counters.answers += 1
        self._close(pending)
        answered = Answered(pending.handle, pending.call, response, seconds, via)
        return [answered, *self._send_waiting(now)]

    def advance(self, now: float) -> list[RequestOutput]:
        """Repeat what was not answered, give up what was repeated enough, send what waits."""
        outputs: list[RequestOutput] = []
        self._drop_stale_timeouts()
        while self._timeouts and self._timeouts[0][0] <= now:
            _, handle = heapq.heappop(self._timeouts)
            pending = self._by_handle[handle]
            pending.timeout_at = None
            if pending.attempts > pending.call.retries:
                self._close(pending)
                self._counters.timeouts += 1
                outputs.append(TimedOut(handle, pending.call))
            else:
                if pending.attempts == 1:
                    outputs.append(Delayed(handle, pending.call))
                self._counters.retries += 1
                outputs += self._send(pending, now)
            self._drop_stale_timeouts()
        outputs += self._send_waiting(now)
        return outputs

    def _draw_transaction(self) -> int:
        transaction = int.from_bytes(self.entropy(2), "little")
        while transaction in self._by_transaction:  # ends: at most a sixteenth is taken
            transaction = (transaction + 1) % _TRANSACTIONS
        return transaction

    def _send(self, pending: _Pending, now: float) -> list[RequestOutput]:
        self._window.advance(now)
        if self._window.is_full and not pending.call.is_urgent:
            self._line[pending.handle] = pending
            return []
        return [self._transmit(pending, now)]

    def _send_waiting(self, now: float) -> list[RequestOutput]:
        self._window.advance(now)
        outputs: list[RequestOutput] = []
        while self._line and not self._window.is_full:
            pending = self._line.pop(next(iter(self._line)))
            outputs.append(self._transmit(pending, now))
        return outputs

    def _transmit(self, pending: _Pending, now: float) -> Transmit:
        pending.attempts += 1
        if pending.attempts == 1:
            pending.first_sent_at = now
            self._counters.sent += 1
        self._window.sent()
        call = pending.call
        wait = call.timeout_seconds or self.round_trips.timeout(call.to, pending.attempts)
        pending.timeout_at = now + wait
        heapq.heappush(self._timeouts, (pending.timeout_at, pending.handle))
        return Transmit(pending.datagram, call.to, pending.via)

    def _close(self, pending: _Pending) -> None:
        del self._by_handle[pending.handle]
        del self._by_transaction[pending.transaction]
        self._line.pop(pending.handle, None)
        if pending.attempts:
            self._window.answered()

    def _drop_stale_timeouts(self) -> None:
        """Leave out of the heap what was answered or sent again in the meantime."""
        while self._timeouts:
            when, handle = self._timeouts[0]
            pending = self._by_handle.get(handle)
            if pending is not None and pending.timeout_at == when:
                return
            heapq.heappop(self._timeouts)
