"""What nodes may have of our time, kept while they are away. A machine.

Who went and comes again finds its allowance as it left it: a new connection costs next to nothing,
and what is free once, to compare all that one keeps, is not free with each. Some that come for the
first time find theirs full, since all nodes do so when one is started; of the others, who may be
one with many keys, each has to earn its own.
"""

from __future__ import annotations

from collections import OrderedDict

from node.mesh.conduct import Allowance
from node.mesh.effort import Quota

MAX_ALLOWANCES = 1024
"""Nodes remembered (about 1 MB); who was admitted longest ago is forgotten first."""

MAX_NEW = 64
NEW_PER_SECOND = 1 / 10
"""Nodes that find their allowance full when they come for the first time."""


class Allowances:
    """Those of all nodes that were admitted lately, by id."""

    def __init__(self) -> None:
        self._allowances: OrderedDict[bytes, Allowance] = OrderedDict()
        self._new = Quota(MAX_NEW, NEW_PER_SECOND, 0.0)

    def admit(self, node_id: bytes, now: float) -> Allowance:
        """The allowance of a node that was let in now."""
        allowance = self._allowances.pop(node_id, None)
        if allowance is None:
            allowance = Allowance(now)
            if not self._new.take(1, now):
                allowance.use_up(now)
        self._allowances[node_id] = allowance
        if len(self._allowances) > MAX_ALLOWANCES:
            self._allowances.popitem(last=False)
        return allowance
