from __future__ import annotations

import trio
import trio.testing

from node.cojson.room import Room
from node.pausing import pause_without_room


class Reads:
    """A mesh, or mirrors: what it was told to do."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self, reason: str = "no reason") -> None:
        self.told.append(f"pause: {reason}")

    def resume(self) -> None:
        self.told.append("resume")

    def take(self) -> list[str]:
        told, self.told = self.told, []
        return told


async def test_nothing_is_asked_for_while_there_is_no_room(nursery: trio.Nursery) -> None:
    room, mesh, mirrors = Room(), Reads(), Reads()
    room.close("full")
    nursery.start_soon(pause_without_room, room, mesh, mirrors)
    await trio.testing.wait_all_tasks_blocked()
    assert (mesh.take(), mirrors.take()) == (["pause: full"], ["pause: no reason"])
    for _ in range(2):
        room.open()
        await trio.testing.wait_all_tasks_blocked()
        assert (mesh.take(), mirrors.take()) == (["resume"], ["resume"])
        room.close("full again")
        await trio.testing.wait_all_tasks_blocked()
        assert (mesh.take(), mirrors.take()) == (["pause: full again"], ["pause: no reason"])


async def test_what_failed_is_asked_for_again_when_the_room_was_closed_for_a_moment(
    nursery: trio.Nursery,
) -> None:
    """Whoever waits for the room runs when it is open again, with what failed not asked for."""
    room, mesh, mirrors = Room(), Reads(), Reads()
    nursery.start_soon(pause_without_room, room, mesh, mirrors)
    await trio.testing.wait_all_tasks_blocked()
    assert not mesh.take()
    for _ in range(2):
        room.close("the disk cannot be written")
        room.open()
        await trio.testing.wait_all_tasks_blocked()
        assert (mesh.take(), mirrors.take()) == (["resume"], ["resume"])
