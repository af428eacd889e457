"""The clocks of hosts, which people and batteries set; what nodes wait for is another time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import trio

from tests.simulation.network import CURRENT_HOST, Host

START_UNIX_SECONDS = 1_800_000_000

DAY_SECONDS = 86_400.0
_MINUTE, _HOUR = 60.0, 3600.0

_real_time = time.time


def unix_time(host: Host | None = None) -> float:
    """What the clock of a host says, of the one on which this task runs; else the real one."""
    host = host or CURRENT_HOST.get(None)
    if host is None:
        return _real_time()
    return START_UNIX_SECONDS + trio.current_time() + host.clock_error_seconds


def draw_error(chance: random.Random) -> float:
    """How far a clock is off: from minutes to weeks, or in 1970, as without a battery."""
    if chance.random() < 0.15:
        return -float(START_UNIX_SECONDS)
    size = chance.choice((5 * _MINUTE, 2 * _HOUR, 1.5 * DAY_SECONDS, 40 * DAY_SECONDS))
    return size if chance.random() < 0.5 else -size


@contextmanager
def clocks_of_hosts() -> Iterator[None]:
    """Until the block ends, whoever asks for the time is told what the clock of its host says."""
    with mock.patch.object(time, "time", unix_time):
        yield


@contextmanager
def on_host(host: Host) -> Iterator[None]:
    """Until the block ends, what is asked for the time is asked there."""
    before = CURRENT_HOST.set(host)
    try:
        yield
    finally:
        CURRENT_HOST.reset(before)
