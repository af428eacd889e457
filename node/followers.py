"""Who follows our log, and how far each has come: what pruning must leave for them.

Who is connected is looked at now and then. Of a peer that left between two looks it is known only
that it had a length between the one it was last seen with and ours at the look that missed it:
all of these are kept. It is forgotten MAX_AWAY_SECONDS after it was last seen; so is the one that
was away longest when there are more than MAX_FOLLOWERS. Then it may have to fetch the log anew.

Stored form, a row beside the log: for each peer, in the order in which they were seen last,

    | public key | first length | last length, 0 if connected | seen at, unix seconds |
    | 32 bytes   | 8, big-endian| 8                           | 8                     |
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from hypercore.encoding import DecodeError

MAX_AWAY_SECONDS = 30 * 86_400
MAX_FOLLOWERS = 1024

MAX_LENGTHS = 65_536
"""Lengths kept for all peers that are away; each costs some 40 tree nodes to be thought of."""

_RECORD = struct.Struct(">32sQQQ")


@dataclass(slots=True)
class _Follower:
    first: int
    last: int
    """It has a length in [first, last]; last is 0 while it is connected."""
    seen: int


class Followers:
    """The peers of one log."""

    def __init__(self) -> None:
        self._all: dict[bytes, _Follower] = {}

    def __len__(self) -> int:
        return len(self._all)

    def look(self, peers: Iterable[tuple[bytes, int]], length: int, unix_seconds: int) -> bool:
        """Take note of who is connected, with which length, while ours is `length`.

        Returns whether anything changed that has to be stored.
        """
        has_changed = False
        connected = dict(peers)
        for key, known in connected.items():
            before = self._all.pop(key, None)
            self._all[key] = _Follower(known, 0, unix_seconds)
            has_changed |= before is None or (before.first, before.last) != (known, 0)
        for key, follower in self._all.items():
            if key not in connected and not follower.last:
                follower.last = max(length, follower.first)
                has_changed = True
        # Whoever was seen longest ago comes first.
        for key, follower in list(self._all.items()):
            is_old = follower.last and unix_seconds - follower.seen > MAX_AWAY_SECONDS
            if not is_old and len(self._all) <= MAX_FOLLOWERS:
                break
            del self._all[key]
            has_changed = True
        return has_changed

    def lengths(self) -> set[int] | None:
        """Lengths that those who are away may have; None if there are more than MAX_LENGTHS."""
        away = [follower for follower in self._all.values() if follower.last]
        if sum(follower.last - follower.first + 1 for follower in away) > MAX_LENGTHS:
            return None
        found: set[int] = set()
        for follower in away:
            found.update(range(follower.first, follower.last + 1))
        return found

    def encode(self) -> bytes:
        return b"".join(
            _RECORD.pack(key, follower.first, follower.last, follower.seen)
            for key, follower in self._all.items()
        )

    @classmethod
    def decode(cls, record: bytes, length: int, unix_seconds: int) -> Followers:
        """As it was stored; whoever was connected then has gone, with at most our `length` of now.

        Raises: DecodeError.
        """
        followers = cls()
        try:
            for key, first, last, seen in _RECORD.iter_unpack(record):
                gone = (last, seen) if last else (max(length, first), unix_seconds)
                followers._all[key] = _Follower(first, *gone)
        except struct.error as error:
            raise DecodeError(f"followers: {error}", 0) from error
        return followers
