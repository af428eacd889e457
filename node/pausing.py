"""[trio] Asking other nodes for nothing while there is no room for what they would send."""

from __future__ import annotations

from node.cojson.room import Room
from node.mesh.mesh import Mesh
from node.mirrors import Mirrors


async def pause_without_room(room: Room, mesh: Mesh | None, mirrors: Mirrors | None) -> None:
    """Pause both while the room is closed, until cancelled. Cancel: they stay as they are."""
    is_paused = False
    while True:
        if room.is_open and is_paused:
            if mesh is not None:
                mesh.resume()
            if mirrors is not None:
                mirrors.resume()
        elif not room.is_open:
            if mesh is not None:
                mesh.pause(room.reason)
            if mirrors is not None:
                mirrors.pause()
        is_paused = not room.is_open
        await room.wait_changed()
