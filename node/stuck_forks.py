"""[trio] Cores that do not follow their writer to a later history before their owner says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
import trio

from hypercore.core import Core
from hypercore.crypto import encode_id
from hypercore.replication.forks import StuckFork

LOOK_SECONDS = 10.0
"""What holds at two looks in a row is told: at first a peer may have yet to say what it has."""

_log = structlog.get_logger(__name__)


def explain_stuck(key: bytes, stuck: StuckFork) -> str:
    """What the matter is with the core of that key, and what its owner can do."""
    return (
        f"stuck: fork {stuck.fork} parts from what is here in blocks {stuck.start} to "
        f"{stuck.stop - 1}, of which no peer has any, and the last copies may be here; to give "
        f"them up and follow: beemesh core clear {encode_id(key)} {stuck.start} {stuck.stop}"
    )


async def report_stuck_forks(
    open_cores: Callable[[], Iterable[Core]], look_seconds: float = LOOK_SECONDS
) -> None:
    """Log every core that is stuck at a fork, once for each fork, until cancelled."""
    before: dict[bytes, StuckFork] = {}
    told: dict[bytes, StuckFork] = {}
    while True:
        await trio.sleep(look_seconds)
        states = {core.key: core.stuck_fork for core in open_cores()}
        found = {key: stuck for key, stuck in states.items() if stuck is not None}
        for key, stuck in found.items():
            if before.get(key) == stuck and told.get(key) != stuck:
                told[key] = stuck
                _log.warning("core stuck", core=key.hex(), reason=explain_stuck(key, stuck))
        told = {key: stuck for key, stuck in told.items() if key in states}
        before = found
