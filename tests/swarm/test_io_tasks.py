from __future__ import annotations

import pytest
import trio
import trio.testing

from swarm.io.tasks import Wakeup, open_background_nursery


async def test_background_tasks_stop_with_the_body() -> None:
    async with open_background_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def test_the_bodys_exception_leaves_unwrapped_and_a_tasks_as_a_group() -> None:
    async def crash() -> None:
        raise LookupError

    with pytest.raises(KeyError):  # noqa: PT012 - leaves from the inner block
        async with open_background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with open_background_nursery() as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()
    assert caught.group_contains(LookupError)


async def test_a_wakeup_before_the_wait_is_not_lost_and_counts_once() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    with trio.testing.assert_no_checkpoints():
        await wakeup.wait()
    with trio.move_on_after(0) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


async def test_a_wakeup_wakes_the_one_who_waits() -> None:
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakeup.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wakeup.wait()
        wakeup.set()


async def test_a_cancelled_wait_leaves_room_for_the_next() -> None:
    wakeup = Wakeup()
    with trio.move_on_after(0):
        await wakeup.wait()
    wakeup.set()
    await wakeup.wait()
