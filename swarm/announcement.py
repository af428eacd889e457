"""What a node says about itself on the local network: topics that only their holders recognize.

TXT record of a `_beemesh._tcp.local.` service:

| key | bytes    | meaning                                                      |
|-----|----------|--------------------------------------------------------------|
| `v` | `1`      | version                                                      |
| `s` | 8        | salt, new at every start and every hour                      |
| `t` | 8 a tag  | tags: BLAKE2b-64(key = topic; "lan-topic" then the salt)     |

A listener that does not know a topic cannot link its tags across salts; one that does can test for
it. The node's public key is never in here: it would identify a device to every network that it
joins.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hypercore.crypto import Entropy, blake2b, system_entropy

SALT_BYTES = 8
TAG_BYTES = 8
MAX_TOPICS = 24
"""Announced at most: 24 tags keep the record well below the 400 bytes that any network carries."""

MAX_STEADY_TOPICS = 12
"""Of more than `MAX_TOPICS` the first ones are always announced, the others in turns."""

Address = tuple[str, int]

_VERSION = b"1"


def create_instance_name(entropy: Entropy = system_entropy) -> str:
    """A name for one start of one node, that tells nothing about either."""
    return "n" + entropy(8).hex()


def topic_tag(topic: bytes, salt: bytes) -> bytes:
    """Requires a topic of 1 to 64 bytes."""
    return blake2b(b"lan-topic", salt, key=topic, size=TAG_BYTES)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A salt, and a tag for each topic."""

    salt: bytes
    tags: frozenset[bytes]

    @classmethod
    def of(cls, topics: Collection[bytes], salt: bytes, turn: int = 0) -> Announcement:
        """Announce as many topics as fit, different ones each turn, so that all have theirs.

        Neighbors that hold the others remember the announcer meanwhile.
        """
        announced = list(topics)
        if len(announced) > MAX_TOPICS:
            steady, others = announced[:MAX_STEADY_TOPICS], announced[MAX_STEADY_TOPICS:]
            room = MAX_TOPICS - MAX_STEADY_TOPICS
            start = turn * room % len(others)
            announced = [*steady, *(others * 2)[start : start + room]]
        return cls(salt, frozenset(topic_tag(topic, salt) for topic in announced))

    @property
    def is_full(self) -> bool:
        """Whether there may be topics beside these, which are announced in other turns."""
        return len(self.tags) >= MAX_TOPICS

    def common_topics(self, topics: Collection[bytes]) -> frozenset[bytes]:
        """Those of our topics that are announced here."""
        return frozenset(topic for topic in topics if topic_tag(topic, self.salt) in self.tags)

    def encode(self) -> dict[str | bytes, str | bytes | None]:
        return {b"v": _VERSION, b"s": self.salt, b"t": b"".join(sorted(self.tags))}

    @classmethod
    def decode(cls, properties: Mapping[bytes, bytes | None]) -> Announcement | None:
        """Read a record; None when it is not ours, or not of this version."""
        salt = properties.get(b"s") or b""
        tags = properties.get(b"t") or b""
        if properties.get(b"v") != _VERSION or len(salt) != SALT_BYTES or len(tags) % TAG_BYTES:
            return None
        return cls(salt, frozenset(tags[i : i + TAG_BYTES] for i in range(0, len(tags), TAG_BYTES)))


@dataclass(frozen=True, slots=True)
class NeighborSeen:
    """A service that announces itself, or has changed."""

    name: str
    addresses: tuple[Address, ...]
    announcement: Announcement


@dataclass(frozen=True, slots=True)
class NeighborLeft:
    """A service that said goodbye, or whose records expired."""

    name: str


Neighbor = NeighborSeen | NeighborLeft
