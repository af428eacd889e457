"""Want windows: a sparse peer announces only its contiguous prefix, the rest must be asked for.

A want names a window of 2**21 blocks. It is answered with what the other has of it, and from
then on the other tells when it gets more.
"""

from __future__ import annotations

from pyroaring import BitMap64

from hypercore.replication.messages import MessageType, Want

WINDOW_BLOCKS = 1 << 21
"""The window that JavaScript peers use; a longer want is ignored."""

MIN_WINDOW_BLOCKS = 32

MAX_WINDOWS = 512
"""Windows wanted of one peer, or by one peer."""

MAX_WINDOW_SIZES = 4

MAX_ANY = 16
"""Ranges of which one peer wants any block; JavaScript peers remember 16, too."""


class SentWants:
    """The windows that we have asked one peer about; the oldest is given up for a new one."""

    def __init__(self) -> None:
        self._windows: dict[int, None] = {}
        self._told = BitMap64()

    def want(self, index: int) -> list[tuple[int, bytes]]:
        """The messages that ask about the window of block `index`; none if it was asked before."""
        window = index // WINDOW_BLOCKS
        if window in self._windows:
            return []
        messages: list[tuple[int, bytes]] = []
        if len(self._windows) == MAX_WINDOWS:
            oldest = next(iter(self._windows))
            del self._windows[oldest]
            self._told.remove_range(oldest * WINDOW_BLOCKS, (oldest + 1) * WINDOW_BLOCKS)
            messages.append((MessageType.UNWANT, _window(oldest)))
        self._windows[window] = None
        messages.append((MessageType.WANT, _window(window)))
        return messages

    @property
    def is_full(self) -> bool:
        """Whether a new window takes the place of another."""
        return len(self._windows) == MAX_WINDOWS

    def forget(self, index: int) -> None:
        """Ask about the window of this block again when it is needed again."""
        self._windows.pop(index // WINDOW_BLOCKS, None)

    def windows(self, start: int, stop: int) -> list[int]:
        """The first blocks of the windows asked about in which some of [start, stop) are."""
        if start >= stop:
            return []
        first, end = start // WINDOW_BLOCKS, -(-stop // WINDOW_BLOCKS)
        return [window * WINDOW_BLOCKS for window in self._windows if first <= window < end]

    def note_told(self, start: int, stop: int) -> None:
        """The peer has said which of blocks [start, stop) it has."""
        for window in range(start // WINDOW_BLOCKS, -(-stop // WINDOW_BLOCKS)):
            if window in self._windows:
                first = window * WINDOW_BLOCKS
                self._told.add_range(max(start, first), min(stop, first + WINDOW_BLOCKS))

    def is_told(self, index: int) -> bool:
        """Whether the peer has said if it has the block, and says so when that changes."""
        return index in self._told and index // WINDOW_BLOCKS in self._windows


def _window(number: int) -> bytes:
    return Want(number * WINDOW_BLOCKS, WINDOW_BLOCKS).encode()


class ReceivedWants:
    """The windows that one peer wants to be told about.

    What does not fit the scheme (odd lengths, more than `MAX_WINDOWS`) counts as wanting all.
    A want for any block of a range may be of any length: it is answered with one block, and
    what comes later within it is told, too.
    """

    def __init__(self) -> None:
        self._windows: dict[int, set[int]] = {}
        self._any: list[Want] = []
        self._count = 0
        self._wants_all = False
        self._met_fork = -1
        """The last history of ours that the peer came to."""

    def add(self, want: Want) -> bool:
        """Whether the want is to be answered; one that is too long is not."""
        if want.any:
            if len(self._any) < MAX_ANY:
                self._any.append(want)
            else:
                self._wants_all = True
            return True
        if want.length > WINDOW_BLOCKS:
            return False
        if (
            not _is_window(want)
            or self._count >= MAX_WINDOWS
            or (want.length not in self._windows and len(self._windows) == MAX_WINDOW_SIZES)
        ):
            self._wants_all = True
            return True
        starts = self._windows.setdefault(want.length, set())
        if want.start not in starts:
            starts.add(want.start)
            self._count += 1
        return True

    def remove(self, want: Want) -> None:
        if want.any:
            if want in self._any:
                self._any.remove(want)
            return
        starts = self._windows.get(want.length)
        if starts is None or want.start not in starts:
            return
        starts.discard(want.start)
        self._count -= 1
        if not starts:
            del self._windows[want.length]

    def of_history(self, fork: int) -> list[Want]:
        """Those that it wants all of, when it has come to this history of ours; once for each."""
        if fork <= self._met_fork:
            return []
        self._met_fork = fork
        return [Want(start, length) for length, starts in self._windows.items() for start in starts]

    def covers(self, start: int, stop: int) -> bool:
        """Whether the peer wants to hear of some block of [start, stop)."""
        if self._wants_all:
            return True
        return any(
            start < want.start + want.length and want.start < stop for want in self._any
        ) or any(
            start < window + length and window < stop
            for length, windows in self._windows.items()
            for window in windows
        )


def _is_window(want: Want) -> bool:
    return (
        want.length >= MIN_WINDOW_BLOCKS
        and want.length & (want.length - 1) == 0
        and want.start % want.length == 0
    )
