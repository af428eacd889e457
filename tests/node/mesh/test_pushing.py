"""A value at the other end of a long line costs one round trip of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from node.covalue.ids import RawCoId
from node.mesh.inquiry import Inquiry
from node.mesh.pushing import MAX_PUSHED_VALUES
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, serve_end
from tests.node.mesh.test_mesh import recorded_contents, upload, upload_filler
from tests.support.late_streams import late_stream_pair

ROUND_TRIP = 0.1


@asynccontextmanager
async def far_apart(*pairs: tuple[MeshNode, MeshNode]) -> AsyncIterator[None]:
    """Connected over long lines, and past what is exchanged at first."""
    async with open_background_nursery() as nursery:
        for one, other in pairs:
            near, far = late_stream_pair(ROUND_TRIP / 2)
            for node, stream, is_initiator in ((one, near, True), (other, far, False)):
                nursery.start_soon(_serve, node, stream, is_initiator)
        for one, other in pairs:
            while other.identity.public_key not in one.mesh.members:
                await one.mesh.wait_members_changed()
        await trio.sleep(20 * ROUND_TRIP)
        yield
        nursery.cancel_scope.cancel()


async def _serve(node: MeshNode, stream: trio.abc.Stream, is_initiator: bool) -> None:
    await serve_end(node, stream, is_initiator=is_initiator)


async def round_trips(node: MeshNode, co_id: RawCoId) -> float:
    """Of the line, until the value with all it depends on is here."""
    started = trio.current_time()
    report = await node.host.load(co_id)
    assert report is not None
    assert report.source == "mesh"
    return (trio.current_time() - started) / ROUND_TRIP


async def test_a_cold_value_takes_one_round_trip(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload_filler(holder, 1000)
        values = [Author(1).value(f"wanted {number}") for number in range(3)]
        for value in values:
            await upload(holder, value.edit("[]", "[]", with_header=True))
        async with far_apart((holder, asker)):
            for value in values:
                assert await round_trips(asker, value.id) <= 1.3
                assert await asker.counts(value.id) == {value.session_id: 2}


async def test_a_value_that_is_newer_than_the_head_of_the_log_that_is_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload_filler(holder, 1000)
        async with far_apart((holder, asker)):
            for number in range(3):
                value = Author(1).value(f"wanted {number}")
                await upload(holder, value.edit("[]", "[]", with_header=True))
                await trio.sleep(ROUND_TRIP)
                assert await round_trips(asker, value.id) <= 1.3


async def test_what_it_depends_on_comes_along(autojump_clock: trio.testing.MockClock) -> None:
    contents = recorded_contents("01-create-upload.jsonl")
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload(holder, *contents)
        last = contents[-1].co_id
        async with far_apart((holder, asker)):
            assert await round_trips(asker, last) <= 1.3


async def test_several_members_and_one_that_holds_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_mesh_node(1) as holder,
        open_mesh_node(2) as asker,
        open_mesh_node(3) as empty,
    ):
        author = Author(1)
        first, second = author.value("first"), author.value("second")
        await upload(holder, first.edit("[]", with_header=True))
        await upload(holder, second.edit("[]", with_header=True))
        async with far_apart((empty, asker), (holder, asker)):
            assert await round_trips(asker, first.id) <= 3.3
            # It has shown that it has what is asked for.
            assert await round_trips(asker, second.id) <= 1.3


async def test_what_nobody_has_is_known_after_one_round_trip(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        await upload_filler(holder, 250)
        async with far_apart((holder, asker)):
            started = trio.current_time()
            assert await asker.host.load(Author(1).value("nowhere").id) is None
            assert trio.current_time() - started <= 1.3 * ROUND_TRIP


async def test_what_moved_of_a_value_that_is_here_in_part(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        value = Author(1).value("wanted")
        await upload(holder, *(value.edit("[]", with_header=not n) for n in range(50)))
        async with far_apart((holder, asker)):
            assert await round_trips(asker, value.id) <= 1.3
        await upload(holder, *(value.edit("[]") for _ in range(50)))
        async with far_apart((holder, asker)):
            started = trio.current_time()
            await asker.mesh.find([value.id], {value.id: await asker.host.known_state(value.id)})
            assert trio.current_time() - started <= 1.3 * ROUND_TRIP
        assert await asker.counts(value.id) == {value.session_id: 100}


async def test_who_has_the_same_pushed_over_and_over_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as holder, open_mesh_node(2) as asker:
        values = [Author(1).value(f"wanted {number}") for number in range(MAX_PUSHED_VALUES)]
        await upload(holder, *(value.edit("[]", with_header=True) for value in values))

        async def ask() -> float:
            started = trio.current_time()
            inquiry = Inquiry()
            inquiry.wanted.update((value.id, None) for value in values)
            member = asker.mesh.members[holder.identity.public_key]
            inquiry.sent(member.ask(inquiry, 60, wants_push=True))
            await inquiry.wait_complete()
            return trio.current_time() - started

        async with connected(holder, asker):
            assert await ask() < 0.1
            assert await ask() < 0.1
            with trio.fail_after(60):
                while await ask() < 0.1:
                    pass
