"""Two connections with one remote key: which of them stays.

The end that dialed the second decides, since it knows whether it still has the first: it hangs
up, or confirms by a first message, and only then the other end lets the first go. When two nodes
dial each other at once, the connection that the one with the larger key dialed wins.

Source: hyperswarm 4.17.2 index.js _handleServerConnection, which replaces a live connection by a
second one in any case; waiting for the first message is compatible with it and costs no transfer.
"""

from __future__ import annotations

import time

import trio

from swarm.io.connection import Connection
from swarm.peer_book import Source

DECISION_SECONDS = 8.0
"""For the end that dialed to confirm a second connection, or hang up."""


class Session:
    """A connection that has its handler running."""

    def __init__(self, connection: Connection, source: Source) -> None:
        self.connection = connection
        self.source = source
        self.since_unix_ms = time.time_ns() // 1_000_000
        self.is_replaced = False
        self.scope = trio.CancelScope()
        self.done = trio.Event()

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
