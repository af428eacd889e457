"""One seed decides everything: the order of tasks, the clock, and what is logged.

What the order of tasks depends on besides is how Python hashes strings: run with
`PYTHONHASHSEED=0`, as `python -m tests.simulation` does.
"""

from __future__ import annotations

import gc
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

import structlog
import trio
import trio.testing

T = TypeVar("T")

Note = Callable[[str], None]

HASH_SEED = "0"

TIMES_THAT_VARY = frozenset({"timestamp", "seconds"})


def require_fixed_hashes() -> None:
    """Sets of bytes are iterated in another order in every process unless that is fixed."""
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        raise RuntimeError(f"set PYTHONHASHSEED={HASH_SEED}: a seed would not replay")


def run_deterministic(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run on virtual time, tasks in an order that `seed` decides.

    Trio shuffles the tasks that are ready with a generator of its own, and sorts them before if
    it is told to be deterministic, as it is for Hypothesis. Both are private names of trio;
    `test_simulation` fails if they stop working.
    """
    core: Any = trio._core._run
    before = core._ALLOW_DETERMINISTIC_SCHEDULING
    core._ALLOW_DETERMINISTIC_SCHEDULING = True
    core._r.seed(seed)
    gc.collect()
    if not gc.get_freeze_count():  # once: what a seed leaves is to be collected before the next
        gc.freeze()  # what is here now, modules above all, need not be looked at again
    gc.disable()  # finalizers would run at moments that depend on what ran before in this process
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        gc.enable()
        core._ALLOW_DETERMINISTIC_SCHEDULING = before


class LogWatch(logging.Handler):
    """Every log line goes into the trace; warnings and errors are remembered as well."""

    def __init__(self, note: Note, seen: Counter[str]) -> None:
        """Counts events by name in `seen`."""
        super().__init__(logging.WARNING)
        self._note = note
        self._seen = seen
        self.complaints: list[str] = []

    def install(self) -> None:
        structlog.reset_defaults()
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, self._take],
            cache_logger_on_first_use=False,
        )
        logging.getLogger().addHandler(self)

    def uninstall(self) -> None:
        logging.getLogger().removeHandler(self)
        structlog.reset_defaults()

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.levelname.lower(), record.getMessage())

    def _take(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        fields = " ".join(
            f"{key}={value}" for key, value in event.items() if key not in {"event", "node"}
        )
        self._seen[f"log {event['event']}"] += 1
        self._hear(method, f"node {event.get('node', '-')}: {event['event']} {fields}")
        raise structlog.DropEvent

    def _hear(self, level: str, text: str) -> None:
        self._note(f"{level} {text}")
        if level not in {"debug", "info"}:
            self.complaints.append(text)


def derive(seed: int, *names: object) -> random.Random:
    """A generator of its own for each purpose, so that one more draw here moves nothing there."""
    return random.Random(f"{seed}/{'/'.join(map(str, names))}")
