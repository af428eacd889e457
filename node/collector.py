"""The cyclic garbage collector of a process that serves.

Nearly all that a node makes is freed by its reference count. What remains for the collector is
rare (exceptions with their frames, cancelled tasks), while its rounds grow with what is alive:
with Python's own thresholds they took an eighth of the intake of small edits, and a full round
over a large table of values stops everybody for a tenth of a second.
"""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 50_000
_YOUNG_ROUNDS = 20
_MIDDLE_ROUNDS = 100


def tame_collector() -> None:
    """Collect more rarely, and never look again at what the start has made; process-wide."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_ROUNDS, _MIDDLE_ROUNDS)
