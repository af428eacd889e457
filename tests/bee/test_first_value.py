"""How long the first value of a bee takes of which nothing is here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bee import Bee
from hypercore import Core, open_corestore
from hypercore.crypto import KeyPair
from swarm import open_connection, open_mux
from tests.support.late_streams import late_stream_pair

ROUND_TRIP_SECONDS = 1.0
COUNT = 2_000


@asynccontextmanager
async def connecting(*, has_answers: bool = True) -> AsyncIterator[Core]:
    """A copy of a bee of which nothing is here, while it connects to one that has it all."""
    near, far = late_stream_pair(ROUND_TRIP_SECONDS / 2)
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        writer = Bee(core, extension=has_answers)
        async with writer.batch() as batch:
            for number in range(COUNT):
                await batch.put(b"%05d" % number, b"value %d" % number)
        copy = await other.get(key=core.key)

        async def serve() -> None:
            async with (
                open_connection(far, KeyPair.generate(), is_initiator=False) as connection,
                open_mux(connection) as mux,
            ):
                await store.replicate(mux)

        async def connect() -> None:
            async with (
                open_connection(near, KeyPair.generate(), is_initiator=True) as connection,
                open_mux(connection) as mux,
            ):
                await other.replicate(mux)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(connect)
            with copy.finding_peers():
                yield copy
            nursery.cancel_scope.cancel()


async def test_it_takes_two_round_trips_of_which_one_is_the_handshake(
    autojump_clock: trio.testing.MockClock,
) -> None:
    started = trio.current_time()
    async with connecting() as copy:
        bee = Bee(copy)
        entry = await bee.get_newest(b"01234")
        assert entry is not None
        assert entry.value == b"value 1234"
        assert trio.current_time() - started == pytest.approx(2 * ROUND_TRIP_SECONDS)
        assert bee.version == copy.length == COUNT + 1
        started = trio.current_time()
        assert await bee.get(b"00077") is not None
        assert trio.current_time() - started == pytest.approx(ROUND_TRIP_SECONDS)


async def test_two_are_asked_for_in_the_same_round_trip(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connecting() as copy:
        bee = Bee(copy)

        async def read(key: bytes) -> None:
            assert await bee.get_newest(key) is not None

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for key in (b"00001", b"01500"):
                nursery.start_soon(read, key)
        assert trio.current_time() - started == pytest.approx(2 * ROUND_TRIP_SECONDS)


async def test_who_does_not_answer_early_answers_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connecting(has_answers=False) as copy:
        assert await Bee(copy).get_newest(b"01234") is not None
