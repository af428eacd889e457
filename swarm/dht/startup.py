"""From knowing nobody to being a node: one or two searches, and a test in between; a machine.

| phase         | is                                                              | left when     |
|---------------|-----------------------------------------------------------------|---------------|
| NEW           | not started                                                     | it starts     |
| BOOTSTRAPPING | searching for neighbors, then finding out whether they reach us | both are done |
| RUNNING       | a node like any other                                           |               |

A node that turns out to be reachable has another id, and so other neighbors: it searches once more.
"""

from __future__ import annotations

import enum

_ROUNDS = 2


class Phase(enum.Enum):
    """See the table above."""

    NEW = "new"
    BOOTSTRAPPING = "bootstrapping"
    RUNNING = "running"


class Startup:
    """How far a node has come."""

    def __init__(self, *, is_persistent: bool, is_firewalled: bool) -> None:
        self.phase = Phase.NEW
        self._rounds = 0
        self._query: int | None = None
        self._is_probe_due = is_firewalled and not is_persistent
        self._is_test_worthwhile = is_persistent

    def begin_round(self, query: int) -> None:
        """A search for neighbors begins, as this query."""
        self._rounds += 1
        self._query = query

    def takes_probe(self, query: int) -> bool:
        """Whether the node that answers this query is to be asked to reach our server; once."""
        if query != self._query or not self._is_probe_due:
            return False
        self._is_probe_due = False
        return True

    def probe_answered(self) -> None:
        """One node reaches our server socket: perhaps all do."""
        self._is_test_worthwhile = True

    def ends_round(self, query: int) -> bool:
        """Whether a query that is over was the search."""
        if query != self._query:
            return False
        self._query = None
        return True

    @property
    def is_test_worthwhile(self) -> bool:
        return self._is_test_worthwhile

    def takes_another_round(self, *, is_reachable: bool) -> bool:
        """After the test: whether to search once more."""
        if not is_reachable or self._rounds >= _ROUNDS:
            return False
        self._is_test_worthwhile = False
        return True
