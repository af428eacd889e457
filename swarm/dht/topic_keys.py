"""The keys that announce one topic, and whose they are.

An address announces as many keys as it likes. So a party (see `hosts`) that has most of a full
topic makes room for others, and in a choice of some keys all parties are as likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypercore.crypto import Entropy
from swarm.dht.hosts import party_of

T = TypeVar("T")


class TopicKeys:
    """Keys by party, those announced first in front."""

    def __init__(self) -> None:
        self._parties: dict[bytes, str] = {}
        self._keys: dict[str, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._parties)

    def __contains__(self, key: bytes) -> bool:
        return key in self._parties

    def add(self, key: bytes, host: str) -> None:
        """A key was announced from this host, perhaps again."""
        party = _party_of(host)
        if self._parties.get(key) != party:
            self.remove(key)
            self._parties[key] = party
            self._keys.setdefault(party, {})[key] = None

    def remove(self, key: bytes) -> None:
        """Forget a key, if it is here."""
        party = self._parties.pop(key, None)
        if party is not None:
            keys = self._keys[party]
            del keys[key]
            if not keys:
                del self._keys[party]

    def find_surplus(self, host: str) -> bytes | None:
        """Which key is to go for one of this host; None when no party has more than its own."""
        most = max(self._keys.values(), key=len)
        own = self._keys.get(_party_of(host), {})
        return next(iter(most)) if len(most) > len(own) + 1 else None

    def choose(self, count: int, entropy: Entropy) -> list[bytes]:
        """At most `count` keys in random order: one of each party, then another of each."""
        parties = _choose(list(self._keys), count, entropy)
        lines = [_choose(list(self._keys[party]), count, entropy) for party in parties]
        chosen = [line[turn] for turn in range(count) for line in lines if turn < len(line)]
        return chosen[:count]


def _party_of(host: str) -> str:
    return party_of(host) or host


def _choose(items: Sequence[T], count: int, entropy: Entropy) -> list[T]:
    """At most `count` of them, every choice and order as likely as any other."""
    chosen = list(items)
    count = min(count, len(chosen))
    noise = entropy(4 * count)
    for i in range(count):
        draw = int.from_bytes(noise[4 * i : 4 * i + 4], "little")
        j = i + draw % (len(chosen) - i)
        chosen[i], chosen[j] = chosen[j], chosen[i]
    return chosen[:count]
