"""[trio] Taking turns among the members for which something is to be done."""

from __future__ import annotations

import trio

from node.mesh.member import Member


async def wait_turn(member: Member) -> None:
    """Let others have their turn, and wait until the member owes nothing for what was done."""
    await trio.lowlevel.checkpoint()
    pause = member.conduct.effort.pause_seconds(trio.current_time())
    if pause and member.close_reason is None:
        await trio.sleep(pause)
