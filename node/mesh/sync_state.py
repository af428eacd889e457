"""How far this node and the members of its mesh are in step: one definition of done.

A node is done with a member when what the member holds was compared with all that we want, it has
told all of what we follow, nothing that it announced is missing here, and all that we announced to
it is durable there, as it said itself. A node is done when it is done with every member that is
connected, at least one, and they are enough to hold the copies that are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

KEEP_MORE = "run them with --replicate all, or have them `beemesh follow` what is to be copied"
"""What makes members keep values that none of their clients has asked for."""


class Obstacle(StrEnum):
    """Why comparing takes long; the text is for people."""

    NONE = ""
    RECOVERING = "waits until our own log is whole"
    PAUSED = "paused, there is no room"
    NOT_LISTED = "waits for its list of what we follow"


@dataclass(frozen=True, slots=True)
class MemberSync:
    """One member that is connected; its log `is_frozen` if two histories of it were signed.

    It announced `missing` values that are not (wholly) here, and `undelivered` ones that it did not
    have when asked. It heard of `unacknowledged` values from us and has not confirmed them;
    `declined` are those that it does not take. Of its `length` blocks `merged` are merged here,
    if this node keeps everything, or kept, if it is blind; of our `ours` blocks `merged_there` are
    merged there, if it keeps everything. While it is not compared, `obstacle` says why, apart from
    the time that comparing takes.
    """

    id: str
    name: str
    is_frozen: bool
    is_compared: bool
    missing: int
    undelivered: int
    acknowledges: bool
    unacknowledged: int
    is_partial: bool
    declined: int
    length: int
    merged: int | None
    ours: int
    merged_there: int | None
    blocks_fetched: int
    bytes_fetched: int
    obstacle: Obstacle = Obstacle.NONE

    @property
    def behind(self) -> int:
        """Blocks of ours that it keeps and that were there when it came, and are not merged yet."""
        return 0 if self.merged_there is None else max(self.ours - self.merged_there, 0)

    @property
    def left(self) -> int:
        """What is still to be done with it: values and blocks."""
        merging = 0 if self.merged is None else max(self.length - self.merged, 0)
        return self.missing + self.unacknowledged + self.behind + merging

    @property
    def is_done(self) -> bool:
        is_here = self.is_compared and self.acknowledges and not self.is_frozen
        return is_here and self.left == 0

    @property
    def state(self) -> str:
        """For people."""
        if self.is_frozen:
            return "forked"
        if not self.is_compared:
            return self.obstacle or "comparing"
        if self.missing or (self.merged is not None and self.merged < self.length):
            return "fetching"
        if not self.acknowledges:
            return "does not acknowledge"
        if self.unacknowledged or self.behind:
            return "sending"
        return "in step"


@dataclass(frozen=True, slots=True)
class SyncState:
    """The node at one moment.

    `held` of the `wanted` values are here as far as any member is known to hold them, `missing`
    are not. `waiting` acknowledgements to clients are held back until `min_copies` nodes hold
    what they are about; they are about `unkept` values, if not more, that too few of the connected
    members want. A blind node keeps `logs_kept` logs, and knows none of their values.
    """

    held: int
    missing: int
    min_copies: int
    waiting: int
    members: tuple[MemberSync, ...]
    logs_kept: int | None = None
    unkept: int = 0

    @property
    def wanted(self) -> int:
        return self.held + self.missing

    @property
    def left(self) -> int:
        """What is still to be done: values and blocks."""
        return self.waiting + sum(member.left for member in self._sound)

    @property
    def _sound(self) -> Sequence[MemberSync]:
        """Members that can be in step at all: those whose log is not forked."""
        return [member for member in self.members if not member.is_frozen]

    @property
    def is_done(self) -> bool:
        is_enough = len(self._sound) + 1 >= max(self.min_copies, 2)
        return is_enough and not self.left and all(member.is_done for member in self._sound)

    @property
    def why(self) -> str:
        """What is waited for, for people; empty when nothing is."""
        if self.is_done:
            return ""
        if not self.members:
            held_back = f", {self.waiting:,} acknowledgements wait for copies"
            return "no member is connected" + (held_back if self.waiting else "")
        parts = [
            f"{member.name or member.id[:12]}: {member.state}"
            for member in self.members
            if not member.is_done
        ]
        nodes = len(self._sound) + 1
        if nodes < self.min_copies:
            parts.append(f"{self.min_copies} copies wanted, {nodes} nodes can hold them")
        if self.waiting:
            parts.append(f"{self.waiting:,} acknowledgements to clients wait for copies")
        if self.unkept:
            parts.append(f"members keep too few of these values: {KEEP_MORE}")
        return "; ".join(parts)
