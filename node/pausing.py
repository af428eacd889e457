"""[trio] Asking other nodes for nothing while there is no room for what they would send."""

from __future__ import annotations

from typing import Protocol

from node.cojson.room import Room


class MeshReads(Protocol):
    """What is needed of the mesh."""

    def pause(self, reason: str, /) -> None: ...
    def resume(self) -> None: ...


class MirrorReads(Protocol):
    """What is needed of the mirrors."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


async def pause_without_room(
    room: Room, mesh: MeshReads | None, mirrors: MirrorReads | None
) -> None:
    """Pause both while the room is closed, until cancelled. Cancel: they stay as they are."""
    resumed_after = room.closures if room.is_open else room.closures - 1
    while True:
        if not room.is_open:
            if mesh is not None:
                mesh.pause(room.reason)
            if mirrors is not None:
                mirrors.pause()
        elif room.closures > resumed_after:
            # Even if it was closed for a moment only: what failed before is to be asked for again.
            resumed_after = room.closures
            if mesh is not None:
                mesh.resume()
            if mirrors is not None:
                mirrors.resume()
        await room.wait_changed()
