"""[trio] Clients whose messages take far longer than others' share half of the time.

What a message takes depends on what is stored: to load a group of 4000 members takes 2 ms where
most loads take 50 us, and a client that asked for it again and again had nearly all of the time. It
is found out by looking at the clock of our own thread, on which other jobs on the machine do not
count.
"""

from __future__ import annotations

import trio

MESSAGE_SECONDS = 0.002
"""What a message may take; on a slow machine most take 1 ms at most."""

BYTE_SECONDS = 1e-7
"""And in addition for each byte of content: checking that takes a fifth of it."""


class SlowLane:
    """All slow clients of one node."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def rest(self, seconds: float) -> None:
        """A client has just had so much time: let it be the others' turn.

        Cancel: nothing is changed.
        """
        self._free_at = max(self._free_at, trio.current_time()) + 2 * seconds
        await trio.sleep_until(self._free_at)


def is_slow(seconds: float, messages: int, content_bytes: int) -> bool:
    """Whether these took far more time than what they are explains."""
    return seconds > MESSAGE_SECONDS * messages + BYTE_SECONDS * content_bytes
