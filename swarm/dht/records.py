"""What others stored with us: who announces what, and small values.

| what             | found under      | kept   | at most                            |
|------------------|------------------|--------|------------------------------------|
| topic records    | topic, key       | 20 min | 65,536; 512 of a topic             |
| routes           | hash of a key    | 20 min | 65,536                             |
| refresh promises | hash of a secret | 20 min | 65,536                             |
| mutable values   | hash of a key    | 48 h   | 32,768, 16 MiB, 1000 bytes a value |
| immutable values | hash of a value  | 48 h   | 32,768, 16 MiB, 1000 bytes a value |

One host has at most 256 of each: to flush out the others takes hundreds of hosts, or some fifty of
them with large values. Of a full topic those that have most make room for others (`topic_keys`).
The originals bound the first column of figures only.

A *route* is made by a key that announces itself, under its own hash: it remembers where the
announcement came from, which is where handshakes for that key are passed on to.

Nothing is verified here; `responder` does that before.

Source: hyperdht 6.34.0 lib/persistent.js.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.crypto import Entropy, blake2b
from swarm.announcement import Address
from swarm.dht.expiring import ExpiringMap
from swarm.dht.messages import ErrorCode
from swarm.dht.payloads import (
    MAX_RECORD_RELAYS,
    Announcement,
    LookupAnswer,
    MutableValue,
    PeerRecord,
    peer_target,
)
from swarm.dht.topic_keys import TopicKeys

RECORD_SECONDS = 20 * 60.0
VALUE_SECONDS = 48 * 3600.0
MAX_RECORDS = 65_536
MAX_VALUES = 32_768
MAX_RECORD_BYTES = 2**25
MAX_VALUE_STORE_BYTES = 2**24
MAX_PER_TOPIC = 512
MAX_PER_HOST = 256
MAX_ANSWER_RECORDS = 20
"""Records in one answer; of more, a random choice."""

MAX_BUMP_DRIFT_MS = 60_000

_VALUE_OVERHEAD_BYTES = 256  # of the interpreter, about, for each


@dataclass(frozen=True, slots=True)
class Route:
    """Where a key announced itself from, and with which record."""

    address: Address
    record: PeerRecord


@dataclass(frozen=True, slots=True)
class _Promise:
    """An announcement that may be renewed by showing the secret."""

    target: bytes
    record: PeerRecord


@dataclass(frozen=True, slots=True)
class RecordStatistics:
    """What is kept now."""

    topics: int = 0
    records: int = 0
    routes: int = 0
    mutable_values: int = 0
    immutable_values: int = 0
    value_bytes: int = 0


class RecordStore:
    """All that this node keeps for others. `now` is monotonic, `unix_ms` the time of day."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._records: ExpiringMap[tuple[bytes, bytes], PeerRecord] = ExpiringMap(
            seconds=RECORD_SECONDS,
            max_items=MAX_RECORDS,
            max_per_host=MAX_PER_HOST,
            max_bytes=MAX_RECORD_BYTES,
            on_drop=self._record_dropped,
        )
        self._topics: dict[bytes, TopicKeys] = {}
        self._bumps: dict[bytes, int] = {}  # of topics that have records
        self._routes: ExpiringMap[bytes, Route] = ExpiringMap(
            seconds=RECORD_SECONDS,
            max_items=MAX_RECORDS,
            max_per_host=MAX_PER_HOST,
            max_bytes=MAX_RECORD_BYTES,
        )
        self._promises: ExpiringMap[bytes, _Promise] = ExpiringMap(
            seconds=RECORD_SECONDS,
            max_items=MAX_RECORDS,
            max_per_host=MAX_PER_HOST,
            max_bytes=MAX_RECORD_BYTES,
        )
        self._mutables: ExpiringMap[bytes, MutableValue] = ExpiringMap(
            seconds=VALUE_SECONDS,
            max_items=MAX_VALUES,
            max_per_host=MAX_PER_HOST,
            max_bytes=MAX_VALUE_STORE_BYTES,
        )
        self._immutables: ExpiringMap[bytes, bytes] = ExpiringMap(
            seconds=VALUE_SECONDS,
            max_items=MAX_VALUES,
            max_per_host=MAX_PER_HOST,
            max_bytes=MAX_VALUE_STORE_BYTES,
        )

    @property
    def statistics(self) -> RecordStatistics:
        return RecordStatistics(
            topics=len(self._topics),
            records=len(self._records),
            routes=len(self._routes),
            mutable_values=len(self._mutables),
            immutable_values=len(self._immutables),
            value_bytes=self._mutables.size_bytes + self._immutables.size_bytes,
        )

    def announce(
        self, target: bytes, announcement: Announcement, source: Address, now: float, unix_ms: int
    ) -> bool:
        """Keep a record whose signature was checked. False: it is one too many."""
        full = announcement.record
        if full is None:
            return False
        record = PeerRecord(full.public_key, full.relay_addresses[:MAX_RECORD_RELAYS])
        if not self._keep(target, record, source, now):
            return False
        is_topic = target in self._topics
        bump = announcement.bump_unix_ms
        if is_topic and self._bumps.get(target, 0) < bump <= unix_ms + MAX_BUMP_DRIFT_MS:
            self._bumps[target] = bump
        if announcement.refresh is not None:
            promise = _Promise(target, record)
            self._promises.set(announcement.refresh, promise, source[0], _size_of(record), now)
        return True

    def refresh(self, secret: bytes, source: Address, now: float) -> bool:
        """Renew the record whose announcer committed itself to this secret.

        The secret is the next commitment: an announcer that made a chain of hashes goes on along
        it.
        """
        promise = self._promises.get(blake2b(secret), now)
        if promise is None or not self._keep(promise.target, promise.record, source, now):
            return False
        self._promises.pop(blake2b(secret))
        self._promises.set(secret, promise, source[0], _size_of(promise.record), now)
        return True

    def unannounce(self, target: bytes, public_key: bytes) -> None:
        """Forget a key's record; its signature was checked."""
        if peer_target(public_key) == target:
            self._routes.pop(target)
        self._remove_record(target, public_key)

    def lookup(self, target: bytes, now: float) -> LookupAnswer | None:
        """Some of those who announce a topic, in random order; None when nobody does."""
        self._records.expire(now)
        keys = self._topics.get(target)
        chosen = [] if keys is None else keys.choose(MAX_ANSWER_RECORDS, self._entropy)
        found = [self._records.get((target, key), now) for key in chosen]
        records = [record for record in found if record is not None]
        route = self._routes.get(target, now)
        if route is not None and len(records) < MAX_ANSWER_RECORDS:
            records.append(route.record)
        return LookupAnswer(tuple(records), self._bumps.get(target, 0)) if records else None

    def route(self, target: bytes, now: float) -> Route | None:
        """How to reach the key whose hash this is."""
        return self._routes.get(target, now)

    def mutable(self, target: bytes, min_seq: int, now: float) -> MutableValue | None:
        """The value of the key whose hash this is, unless it is older than asked for."""
        content = self._mutables.get(target, now)
        return None if content is None or content.seq < min_seq else content

    def put_mutable(
        self, target: bytes, content: MutableValue, source: Address, now: float
    ) -> ErrorCode | None:
        """Keep a value whose signature was checked, if it is newer; None: one too many."""
        current = self._mutables.get(target, now)
        if current is not None:
            if content.seq == current.seq and content.value != current.value:
                return ErrorCode.SEQUENCE_REUSED
            if content.seq < current.seq:
                return ErrorCode.SEQUENCE_TOO_LOW
        size = len(content.value) + _VALUE_OVERHEAD_BYTES
        is_kept = self._mutables.set(target, content, source[0], size, now)
        return ErrorCode.NONE if is_kept else None

    def immutable(self, target: bytes, now: float) -> bytes | None:
        return self._immutables.get(target, now)

    def put_immutable(self, target: bytes, value: bytes, source: Address, now: float) -> bool:
        """Keep a value whose hash was checked. False: it is one too many."""
        size = len(value) + _VALUE_OVERHEAD_BYTES
        return self._immutables.set(target, value, source[0], size, now)

    def expire(self, now: float) -> None:
        """Give back the memory of what is too old."""
        for kept in (
            self._records,
            self._routes,
            self._promises,
            self._mutables,
            self._immutables,
        ):
            kept.expire(now)

    def _keep(self, target: bytes, record: PeerRecord, source: Address, now: float) -> bool:
        key = record.public_key
        size = _size_of(record)
        if peer_target(key) == target:
            if not self._routes.set(target, Route(source, record), source[0], size, now):
                return False
            self._remove_record(target, key)
            return True
        if not self._make_room(target, key, source[0], now):
            return False
        if not self._records.set((target, key), record, source[0], size, now):
            return False
        self._topics.setdefault(target, TopicKeys()).add(key, source[0])
        return True

    def _make_room(self, target: bytes, key: bytes, host: str, now: float) -> bool:
        """Whether a topic may have this key, if need be instead of another."""
        self._records.expire(now)
        keys = self._topics.get(target)
        if keys is None or key in keys or len(keys) < MAX_PER_TOPIC:
            return True
        surplus = keys.find_surplus(host)
        if surplus is None or not self._records.has_room(host):
            return False
        self._remove_record(target, surplus)
        return True

    def _remove_record(self, target: bytes, public_key: bytes) -> None:
        if self._records.pop((target, public_key)) is not None:
            self._record_dropped((target, public_key))

    def _record_dropped(self, name: tuple[bytes, bytes]) -> None:
        target, public_key = name
        keys = self._topics[target]
        keys.remove(public_key)
        if not keys:
            del self._topics[target]
            self._bumps.pop(target, None)


def _size_of(record: PeerRecord) -> int:
    return len(record.encode()) + _VALUE_OVERHEAD_BYTES
