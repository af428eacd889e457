"""[trio] Sending a member the blocks of values along with the answer to its query.

    a client asks B for a value -> B's query, which wants blocks -> A's answer, and right behind it
    the blocks of the value and of what it cannot be verified without, as far as A has not sent
    them on this connection -> B reads them from its own disk

So a value at the other end of a long line costs one round trip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

from bee.bee import Bee
from bee.errors import BeeError
from bee.log import LogPeer
from hypercore.encoding import DecodeError
from hypercore.errors import HypercoreError
from node.covalue.ids import RawCoId
from node.covalue.keys import run_key, session_runs_range, summary_range, value_range
from node.covalue.reading import read_value
from node.mesh.messages import Sessions

MAX_PUSHED_VALUES = 64
"""Values pushed with one answer, dependencies included; the others the member reads by itself."""

MAX_PUSHED_DEPTH = 4
"""Levels of dependencies that are followed: a value, its group, that group's parent, accounts."""

_UNREADABLE = (BeeError, HypercoreError, DecodeError)


class Reader(LogPeer, Protocol):
    """A peer of our data core."""

    @property
    def remote_public_key(self) -> bytes: ...


class PushedLog(Protocol):
    """Our data core."""

    @property
    def peers(self) -> Sequence[Reader]: ...


class ValuePusher:
    """Pushes from the bee of our own data core."""

    def __init__(self, bee: Bee[bytes, bytes], log: PushedLog) -> None:
        self._bee = bee
        self._log = log

    def push(self, member_id: bytes, values: Mapping[RawCoId, Sessions | None]) -> int:
        """Push what the member lacks of these, by what it holds of each; returns how many blocks.

        What is not here is left out.
        """
        reader = self._reader(member_id)
        if reader is None:
            return 0
        few = islice(values.items(), MAX_PUSHED_VALUES)
        return self._bee.push(reader, [each for item in few for each in _ranges(*item)])

    async def push_dependencies(
        self, member_id: bytes, values: Mapping[RawCoId, Sessions | None]
    ) -> int:
        """Push what values depend on of which the member holds nothing.

        What cannot be read here is left out. Cancel: what was handed over is sent.
        """
        pushed = 0
        seen = set(islice(values, MAX_PUSHED_VALUES))
        level = {co_id for co_id in seen if values[co_id] is None}
        for _ in range(MAX_PUSHED_DEPTH):
            following: set[RawCoId] = set()
            for co_id in sorted(level):
                following |= await self._dependencies(co_id) - seen
            level = set(islice(sorted(following), MAX_PUSHED_VALUES - len(seen)))
            seen |= level
            reader = self._reader(member_id)
            if not level or reader is None:
                break
            pushed += self._bee.push(reader, [value_range(co_id) for co_id in sorted(level)])
        return pushed

    async def _dependencies(self, co_id: RawCoId) -> frozenset[RawCoId]:
        try:
            value = await read_value(self._bee.snapshot(), co_id)
        except _UNREADABLE:
            return frozenset()
        return frozenset() if value is None else value.dependencies

    def _reader(self, member_id: bytes) -> Reader | None:
        for peer in self._log.peers:
            if peer.remote_public_key == member_id:
                return peer
        return None


def _ranges(co_id: RawCoId, known: Sessions | None) -> list[tuple[bytes, bytes]]:
    """The keys that are read by a member that knows this much of a value."""
    if known is None:
        return [value_range(co_id)]
    ranges = [summary_range(co_id)]
    for session_id, count in known.items():
        ranges.append((run_key(co_id, session_id, count), session_runs_range(co_id, session_id)[1]))
    return ranges
