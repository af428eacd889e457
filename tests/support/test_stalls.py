"""Whether what `unharmed` looks for is seen."""

from __future__ import annotations

import time

import pytest
import trio

from tests.support.stalls import unharmed

MIB = 1 << 20


async def test_growth_is_seen_below_what_was_once_used() -> None:
    before = bytearray(b"\xff" * MIB) * 300
    del before
    with unharmed(megabytes=150):
        little = bytearray(b"\xff" * MIB) * 50
        del little
    with pytest.raises(AssertionError, match="MB more"), unharmed(megabytes=150):
        len(bytearray(b"\xff" * MIB) * 250)  # a peak counts, also when it is over


async def test_a_task_that_does_not_pause_is_seen() -> None:
    with pytest.raises(AssertionError, match="ran for"), unharmed(seconds=0.1):
        await _spin(0.2)


async def _spin(seconds: float) -> None:
    await trio.lowlevel.checkpoint()
    started = time.thread_time()
    while time.thread_time() < started + seconds:
        pass
    await trio.lowlevel.checkpoint()
