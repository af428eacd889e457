"""Who follows our log, and how far each has come: what pruning must leave for them.

Connected peers are looked at now and then, and told are those that left since the last look. Of a
peer that left it is known only that it had a length between the one it said last and ours when it
left: all of these are kept. It is forgotten MAX_AWAY_SECONDS after it was last seen; so is the one
that was away longest when there are more than MAX_FOLLOWERS. Then it may have to fetch the log
anew.

Any node that knows the log's key may follow it, under as many names as it likes, so one that was no
member of our mesh when it was seen is a stranger: strangers have MAX_STRANGERS places of their own,
and the lengths they may have count only as far as there is room beside those of members.

Stored form, a row beside the log: for each peer, in the order in which they were seen last,

    | public key | first length | last length, 0 if connected | seen at, unix seconds |
    | 32 bytes   | 8, big-endian| 8                           | 8, top bit: stranger  |
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from hypercore.encoding import DecodeError
from hypercore.replication.departures import Departure

MAX_AWAY_SECONDS = 30 * 86_400
MAX_FOLLOWERS = 4096
"""Members; as many as are remembered at all."""

MAX_STRANGERS = 256

MAX_LENGTHS = 65_536
"""Lengths kept for all peers that are away; each costs some 40 tree nodes to be thought of."""

_STRANGER = 1 << 63
_RECORD = struct.Struct(">32sQQQ")


@dataclass(slots=True)
class _Follower:
    first: int
    last: int
    """The peer has a length in [first, last]; last is 0 while it is connected."""
    seen: int
    is_member: bool


class Followers:
    """The peers of one log."""

    def __init__(self) -> None:
        self._all: dict[bytes, _Follower] = {}

    def __len__(self) -> int:
        return len(self._all)

    def look(
        self,
        peers: Iterable[tuple[bytes, int]],
        length: int,
        unix_seconds: int,
        is_member: Callable[[bytes], bool],
        departed: Iterable[Departure] = (),
    ) -> bool:
        """Take note of who is connected, with which length, while ours is `length`.

        `departed` are those who left since the last look, in that order. A peer that was a member
        once is one for good. Returns whether anything changed that has to be stored.
        """
        has_changed = False
        connected = dict(peers)
        for key, known in connected.items():
            before = self._all.pop(key, None)
            now = _Follower(known, 0, unix_seconds, is_member(key))
            now.is_member |= before is not None and before.is_member
            self._all[key] = now
            has_changed |= before is None or replace(before, seen=unix_seconds) != now
        for departure in departed:
            if departure.remote_public_key not in connected:
                self._note(departure, unix_seconds, is_member)
                has_changed = True
        for key, follower in self._all.items():
            if key not in connected and not follower.last:
                follower.last = max(length, follower.first)
                has_changed = True
        members = sum(follower.is_member for follower in self._all.values())
        excess = {True: members - MAX_FOLLOWERS, False: len(self._all) - members - MAX_STRANGERS}
        # Those seen longest ago come first.
        for key, follower in list(self._all.items()):
            is_old = follower.last and unix_seconds - follower.seen > MAX_AWAY_SECONDS
            if is_old or excess[follower.is_member] > 0:
                del self._all[key]
                excess[follower.is_member] -= 1
                has_changed = True
        return has_changed

    def _note(
        self, departure: Departure, unix_seconds: int, is_member: Callable[[bytes], bool]
    ) -> None:
        key, known, last = departure
        before = self._all.pop(key, None)
        first = min(known or (before.first if before else last), last)
        self._all[key] = _Follower(first, max(last, 1), unix_seconds, is_member(key))
        self._all[key].is_member |= before is not None and before.is_member

    def lengths(self) -> set[int] | None:
        """Lengths that peers that are away may have; None if members have more than MAX_LENGTHS.

        Of strangers, those that were here last count, as far as there is room.
        """
        away = [follower for follower in reversed(self._all.values()) if follower.last]
        found: set[int] = set()
        room = MAX_LENGTHS
        for follower in sorted(away, key=lambda follower: not follower.is_member):
            room -= follower.last - follower.first + 1
            if room < 0:
                return found if not follower.is_member else None
            found.update(range(follower.first, follower.last + 1))
        return found

    def encode(self) -> bytes:
        return b"".join(
            _RECORD.pack(
                *(key, follower.first, follower.last),
                follower.seen if follower.is_member else follower.seen | _STRANGER,
            )
            for key, follower in self._all.items()
        )

    @classmethod
    def decode(cls, record: bytes, length: int, unix_seconds: int) -> Followers:
        """As it was stored; peers that were connected then have gone, with our `length` at most.

        Raises: DecodeError.
        """
        followers = cls()
        try:
            for key, first, last, seen in _RECORD.iter_unpack(record):
                at = seen & ~_STRANGER
                last, at = (last, at) if last else (max(length, first), unix_seconds)
                followers._all[key] = _Follower(first, last, at, not seen & _STRANGER)
        except struct.error as error:
            raise DecodeError(f"followers: {error}", 0) from error
        return followers
