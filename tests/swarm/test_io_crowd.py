from __future__ import annotations

import trio
import trio.testing

from swarm.io.crowd import Crowd, Place


async def test_one_more_ends_the_oldest_of_the_host_that_has_most() -> None:
    crowd, places, ended = Crowd(4), list[Place](), list[int]()

    async def come(host: str) -> None:
        number = len(places)
        with crowd.place(host) as place:
            places.append(place)
            await trio.Event().wait()
        assert place.is_lost
        ended.append(number)

    async with trio.open_nursery() as nursery:

        async def all_come(hosts: str) -> None:
            for host in hosts:
                nursery.start_soon(come, host)
                await trio.testing.wait_all_tasks_blocked()

        await all_come("aaabcd")
        assert ended == [0, 1]
        places[2].leave()
        await all_come("e")
        assert ended == [0, 1], "who is known is not in the way"
        await all_come("b")
        assert ended == [0, 1, 3], "where no host has more than another, who came first"
        assert not places[2].is_lost
        nursery.cancel_scope.cancel()


async def test_who_comes_from_ever_other_addresses_of_its_network_is_in_its_own_way() -> None:
    """A flood from one machine ended all others' connections before they had said a word."""
    crowd = Crowd(3)
    with crowd.place("2001:db8:0:1::1") as honest:
        async with trio.open_nursery() as nursery:

            async def come(number: int) -> None:
                with crowd.place(f"2001:db8:0:2::{number:x}"):
                    await trio.Event().wait()

            for number in range(10):
                nursery.start_soon(come, number)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not honest.is_lost
