"""The receiving half of a UDX stream: packets in any order in, bytes in order out."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from swarm.udx.packet import DATA, END, SackRange

WINDOW_BYTES = 4 * 2**20
"""How much we buffer for a reader that does not read; what the original advertises, too."""

NEWCOMER_WINDOW_BYTES = 2**16
"""For a remote that nobody knows yet, or that sends no long messages: there may be hundreds."""

CHUNK_OVERHEAD_BYTES = 64
"""What a buffered payload costs besides its bytes. Counted, so that a sender of tiny packets
cannot make us keep many times the window."""

MAX_AHEAD_PACKETS = 2**14
"""How far beyond the expected one a packet may be. The window divided by the smallest MTU is a
quarter of that; the original looks four times as far."""

_SLACK = 8
"""A sender counts payloads and we count overhead too, so an honest one may exceed the window by
a twentieth. Up to an eighth more is kept, and the rest is dropped."""


class Receiver:
    """What has arrived, and what has not.

    Bounds: unread bytes fill the window, unread and early ones together two of them, so that a path
    that is full need not stop for one lost packet. The packet that is next is taken however much is
    early, because early ones may never be dropped: their sender has forgotten them. So three and a
    half windows are the most that is ever held.
    """

    def __init__(self, window_bytes: int = WINDOW_BYTES) -> None:
        self.ack = 0
        """The next sequence number expected (unbounded, as all numbers in here)."""
        self.end_seq: int | None = None
        """Number of the packet that ends the stream, once it was seen."""
        self.dropped_packets = 0
        """Packets beyond the window, or beyond the end."""
        self._unread_bytes = 0
        self._early_bytes = 0
        self._window_bytes = window_bytes
        self._unread: deque[bytes] = deque()
        self._early: dict[int, bytes] = {}
        self._ranges: list[SackRange] = []  # of _early, ascending, never touching one another

    @property
    def buffered_bytes(self) -> int:
        return self._unread_bytes + self._early_bytes

    @property
    def window(self) -> int:
        """Bytes we have room for."""
        total = 2 * self._window_bytes - self._early_bytes
        return max(0, min(self._window_bytes, total) - self._unread_bytes)

    def widen(self, window_bytes: int) -> None:
        """Make the window larger, of a remote that one knows by now."""
        self._window_bytes = window_bytes

    @property
    def is_readable(self) -> bool:
        return bool(self._unread)

    @property
    def has_ended(self) -> bool:
        """Whether everything up to the end has arrived; it may still be unread."""
        return self.end_seq is not None and self.ack > self.end_seq

    @property
    def sack_ranges(self) -> list[SackRange]:
        """What has arrived beyond `ack`."""
        return self._ranges

    def start_at(self, seq: int) -> None:
        """The remote begins with this number; what came before that was known comes again."""
        self.clear()
        self.end_seq = None
        self.ack = seq

    def receive(self, seq: int, flags: int, payload: bytes) -> None:
        """A packet with data, an end, or both."""
        if seq < self.ack:
            return  # again
        if not self._is_welcome(seq, len(payload)):
            self.dropped_packets += 1
            return
        if flags & END and self.end_seq is None:
            if self._ranges and self._ranges[-1][1] > seq + 1:
                return  # no end: something beyond it has arrived already
            self.end_seq = seq
        if seq != self.ack:
            if seq not in self._early:
                self._keep_early(seq, payload if flags & DATA else b"")
            return
        self.ack = seq + 1
        if flags & DATA and payload:
            self._unread.append(payload)
            self._unread_bytes += len(payload) + CHUNK_OVERHEAD_BYTES
        if self._ranges and self._ranges[0][0] == seq + 1:
            self._join_early()

    def read(self, max_bytes: int) -> bytes:
        """Take up to `max_bytes` of what has arrived in order; empty when there is nothing."""
        chunks: list[bytes] = []
        left = max_bytes
        unread = self._unread
        while unread and left > 0:
            chunk = unread.popleft()
            if len(chunk) > left:
                unread.appendleft(chunk[left:])
                chunk = chunk[:left]
            else:
                self._unread_bytes -= CHUNK_OVERHEAD_BYTES
            self._unread_bytes -= len(chunk)
            left -= len(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def clear(self) -> None:
        """Forget everything, since nobody will read it."""
        self._unread.clear()
        self._early.clear()
        self._ranges.clear()
        self._unread_bytes = self._early_bytes = 0

    def _is_welcome(self, seq: int, size: int) -> bool:
        if seq - self.ack >= MAX_AHEAD_PACKETS:
            return False
        if self.end_seq is not None and seq > self.end_seq:
            return False
        limit = self._window_bytes + self._window_bytes // _SLACK
        held = self._unread_bytes
        if seq != self.ack:
            held += self._early_bytes
            limit *= 2
        return size == 0 or held + size + CHUNK_OVERHEAD_BYTES <= limit

    def _keep_early(self, seq: int, payload: bytes) -> None:
        self._early[seq] = payload
        self._early_bytes += len(payload) + CHUNK_OVERHEAD_BYTES
        ranges = self._ranges
        if not ranges or seq > ranges[-1][1]:
            ranges.append((seq, seq + 1))
            return
        start, stop = ranges[-1]
        if seq == stop:  # nearly always: what was sent next arrives next
            ranges[-1] = (start, seq + 1)
            return
        index = bisect_right(ranges, (seq, seq))
        start, stop = seq, seq + 1
        if index < len(ranges) and ranges[index][0] == stop:
            stop = ranges.pop(index)[1]
        if index and ranges[index - 1][1] == seq:
            index -= 1
            start = ranges.pop(index)[0]
        ranges.insert(index, (start, stop))

    def _join_early(self) -> None:
        """The gap before the first range is filled."""
        _, stop = self._ranges.pop(0)
        for seq in range(self.ack, stop):
            payload = self._early.pop(seq)
            size = len(payload) + CHUNK_OVERHEAD_BYTES
            self._early_bytes -= size
            if payload:
                self._unread.append(payload)
                self._unread_bytes += size
        self.ack = stop
