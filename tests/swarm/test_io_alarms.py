from __future__ import annotations

import math
from random import Random

import trio
import trio.testing

from swarm.io.alarms import Alarms


async def test_what_is_due_comes_in_order(autojump_clock: trio.testing.MockClock) -> None:
    alarms = Alarms()
    start = trio.current_time()
    for number, seconds in ((1, 5.0), (2, 3.0), (3, 3.0), (4, math.inf)):
        alarms.set(number, start + seconds)
    assert sorted(await alarms.wait_due()) == [2, 3]
    assert trio.current_time() == start + 3
    assert await alarms.wait_due() == [1]
    assert trio.current_time() == start + 5


async def test_alarms_move_both_ways_and_are_removed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    alarms = Alarms()
    start = trio.current_time()
    for number in (1, 2, 3):
        alarms.set(number, start + 10)
    alarms.set(1, start + 20)
    alarms.set(2, start + 1)
    alarms.remove(3)
    assert await alarms.wait_due() == [2]
    assert trio.current_time() == start + 1
    assert await alarms.wait_due() == [1]
    assert trio.current_time() == start + 20


async def test_an_alarm_set_while_somebody_waits(autojump_clock: trio.testing.MockClock) -> None:
    alarms = Alarms()
    start = trio.current_time()
    alarms.set(1, start + 10)

    async def set_another() -> None:
        await trio.sleep(2)
        alarms.set(2, start + 4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_another)
        assert await alarms.wait_due() == [2]
        assert trio.current_time() == start + 4


async def test_a_cancelled_waiter_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    alarms = Alarms()
    start = trio.current_time()
    alarms.set(1, start + 5)
    with trio.move_on_after(2):
        await alarms.wait_due()
    assert await alarms.wait_due() == [1]
    with trio.move_on_after(100) as patience:
        await alarms.wait_due()
    assert patience.cancelled_caught


async def test_any_sequence_is_like_a_table(autojump_clock: trio.testing.MockClock) -> None:
    rng = Random(1)
    alarms, table = Alarms(), dict[int, float]()
    for _ in range(2000):
        number = rng.randrange(20)
        if rng.random() < 0.2:
            alarms.remove(number)
            table.pop(number, None)
        else:
            at = trio.current_time() + rng.choice((0.0, 0.5, 1.0, 7.0, math.inf))
            alarms.set(number, at)
            table[number] = at
        if rng.random() < 0.3 and min(table.values(), default=math.inf) < math.inf:
            first = min(table.values())
            due = await alarms.wait_due()
            now = trio.current_time()
            assert now == max(now, first)
            assert sorted(due) == sorted(n for n, at in table.items() if at <= now)
            for number in due:
                del table[number]
