"""Two connections with one remote key: which of them stays.

The end that dialed the second decides, since it knows whether it still has the first: it hangs
up, or confirms by a first message, and only then the other end lets the first go. When two nodes
dial each other at once, the connection that the one with the larger key dialed wins. A second one
that was dialed because the first is stuck takes its place.

Source: hyperswarm 4.17.2 index.js _handleServerConnection, which replaces a live connection with a
second one in any case; waiting for the first message is compatible with it and costs no transfer.
"""

from __future__ import annotations

import time

import trio

from swarm.io.connection import Connection
from swarm.known_peer import Source

DECISION_SECONDS = 8.0
"""For the end that dialed to confirm a second connection, or hang up."""


LOOKS = 5
"""How often a connection is looked at after something was sent on it."""


class Session:
    """A connection that has its handler running."""

    def __init__(self, connection: Connection, source: Source) -> None:
        self.connection = connection
        self.source = source
        self.since_unix_ms = time.time_ns() // 1_000_000
        self.is_replaced = False
        self.is_stuck = False
        """Nothing got through when it was looked at last."""
        self._bytes_sent = self._looks_left = 0
        self.scope = trio.CancelScope()
        self.done = trio.Event()

    @property
    def host(self) -> str:
        """Where its first hop is."""
        return self.connection.remote_address.rpartition(":")[0]

    def look(self) -> bool | None:
        """Whether it is stuck; None when nothing was sent of late, and it was not stuck."""
        sent = self.connection.statistics().bytes_sent
        if sent != self._bytes_sent:
            self._bytes_sent, self._looks_left = sent, LOOKS
        elif not self.is_stuck:
            if not self._looks_left:
                return None
            self._looks_left -= 1
        self.is_stuck = self.connection.is_stuck
        return self.is_stuck

    @property
    def is_confirmed(self) -> bool:
        """Whether the other end is known to have it, too: something went both ways."""
        statistics = self.connection.statistics()
        return bool(statistics.messages_received and statistics.messages_sent)


class Duplicates:
    """Decides for one key of ours."""

    def __init__(self, own_key: bytes) -> None:
        self._own_key = own_key
        self._challenged: set[bytes] = set()  # keys with a second connection under decision

    async def is_better(self, connection: Connection, existing: Session) -> bool:
        """Whether to replace the existing connection with the same remote key by this one."""
        we_win = self._own_key > connection.link.remote_public_key
        link = connection.link
        is_crossing = link.is_initiator != existing.connection.link.is_initiator
        if link.is_initiator:
            if existing.connection.is_stuck:
                return True  # that is what this one was dialed for
            return is_crossing and not existing.is_confirmed and we_win
        if is_crossing and not existing.is_confirmed and we_win:
            return False
        if link.remote_public_key in self._challenged:
            return False  # one at a time: else a single key could have any number waiting here
        self._challenged.add(link.remote_public_key)
        try:
            with trio.move_on_after(DECISION_SECONDS):
                return await connection.wait_confirmed()
            return False
        finally:
            self._challenged.discard(link.remote_public_key)
