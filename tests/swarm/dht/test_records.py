from __future__ import annotations

import random

import pytest

from hypercore.crypto import KeyPair, blake2b
from swarm.announcement import Address
from swarm.dht.messages import ErrorCode
from swarm.dht.payloads import Announcement, LookupAnswer, MutableValue, PeerRecord, peer_target
from swarm.dht.records import (
    MAX_ANSWER_RECORDS,
    MAX_BUMP_DRIFT_MS,
    MAX_PER_HOST,
    MAX_PER_TOPIC,
    RECORD_SECONDS,
    VALUE_SECONDS,
    RecordStore,
)

TOPIC = b"\x01" * 32
PAIR = KeyPair.from_seed(b"\x02" * 32)
RELAYS = tuple((f"192.0.2.{i}", i) for i in range(1, 6))
SOURCE: Address = ("198.51.100.1", 4000)
UNIX_MS = 1_800_000_000_000


def create_store(seed: int = 1) -> RecordStore:
    return RecordStore(random.Random(seed).randbytes)


def announce(
    store: RecordStore,
    record: PeerRecord,
    now: float = 0.0,
    *,
    topic: bytes = TOPIC,
    source: Address = SOURCE,
    refresh: bytes | None = None,
    bump: int = 0,
) -> bool:
    announcement = Announcement(record, refresh, None, bump)
    return store.announce(topic, announcement, source, now, UNIX_MS)


def found(store: RecordStore, now: float, topic: bytes = TOPIC) -> tuple[PeerRecord, ...]:
    answer = store.lookup(topic, now)
    return () if answer is None else answer.records


def a_key(index: int) -> bytes:
    return index.to_bytes(32, "big")


def a_host(index: int) -> Address:
    return (f"60.{index >> 8}.{index & 255}.1", 1)


def test_a_record_is_found_until_it_is_too_old() -> None:
    store = create_store()
    record = PeerRecord(PAIR.public_key, RELAYS[:2])
    assert announce(store, record)
    assert found(store, RECORD_SECONDS - 1) == (record,)
    assert found(store, 0.0, bytes(32)) == ()
    assert found(store, RECORD_SECONDS) == ()
    assert store.statistics.topics == 0


def test_announcing_again_renews_and_replaces() -> None:
    store = create_store()
    announce(store, PeerRecord(PAIR.public_key, RELAYS[:1]))
    announce(store, PeerRecord(PAIR.public_key, RELAYS[1:2]), 600.0)
    assert found(store, RECORD_SECONDS + 1) == (PeerRecord(PAIR.public_key, RELAYS[1:2]),)


def test_only_three_relays_are_kept() -> None:
    store = create_store()
    announce(store, PeerRecord(PAIR.public_key, RELAYS))
    assert found(store, 1.0) == (PeerRecord(PAIR.public_key, RELAYS[:3]),)


def test_a_record_is_taken_back() -> None:
    store = create_store()
    announce(store, PeerRecord(PAIR.public_key))
    announce(store, PeerRecord(a_key(7)))
    store.unannounce(TOPIC, PAIR.public_key)
    store.unannounce(TOPIC, PAIR.public_key)
    assert found(store, 1.0) == (PeerRecord(a_key(7)),)


def test_of_many_a_random_choice_is_told() -> None:
    store = create_store()
    for index in range(60):
        announce(store, PeerRecord(a_key(index)), source=a_host(index))
    choices = [found(store, 1.0) for _ in range(40)]
    assert all(len(set(choice)) == MAX_ANSWER_RECORDS for choice in choices)
    assert len({record for choice in choices for record in choice}) == 60, "everybody has a chance"


def test_a_topic_and_a_host_have_limits() -> None:
    store = create_store()
    for index in range(MAX_PER_TOPIC):
        assert announce(store, PeerRecord(a_key(index)), source=a_host(index))
    assert not announce(store, PeerRecord(a_key(9999)), source=a_host(9999))
    assert announce(store, PeerRecord(a_key(3)), source=a_host(3)), "who is in may renew"
    assert announce(store, PeerRecord(a_key(9999)), RECORD_SECONDS, source=a_host(9999))

    flood = [announce(store, PeerRecord(a_key(i)), topic=a_key(i)) for i in range(MAX_PER_HOST + 5)]
    assert flood == [True] * MAX_PER_HOST + [False] * 5


def test_two_hosts_do_not_hide_a_topic() -> None:
    """Each could have 256 of the 512 records, and nobody else was let in."""
    store = create_store()
    for index in range(MAX_PER_TOPIC):
        flooder = (f"60.0.{index % 2}.{index % 4}", 1 + index)
        announce(store, PeerRecord(a_key(index)), source=flooder)
    record = PeerRecord(PAIR.public_key)
    assert announce(store, record, 1.0)
    assert all(record in found(store, 2.0) for _ in range(20)), "each party has a say"
    store.unannounce(TOPIC, PAIR.public_key)
    assert announce(store, PeerRecord(a_key(9000)), 3.0, source=("60.0.0.1", 1))
    assert not announce(store, PeerRecord(a_key(9001)), 3.0, source=("60.0.0.1", 1))
    assert len(set(found(store, 4.0))) == MAX_ANSWER_RECORDS


def test_a_host_with_its_share_of_records_displaces_nobody() -> None:
    store = create_store()
    for index in range(MAX_PER_TOPIC):
        announce(store, PeerRecord(a_key(index)), source=(f"60.0.{index % 2}.1", 1 + index))
    for index in range(MAX_PER_HOST):
        announce(store, PeerRecord(a_key(index)), topic=a_key(index))
    assert not announce(store, PeerRecord(PAIR.public_key), 1.0)
    assert store.statistics.records == MAX_PER_TOPIC + MAX_PER_HOST


def test_a_bump_goes_up_and_not_beyond_now() -> None:
    store = create_store()
    record = PeerRecord(PAIR.public_key)

    def bumped(value: int) -> int:
        announce(store, record, bump=value)
        answer = store.lookup(TOPIC, 1.0)
        assert answer is not None
        return answer.bump_unix_ms

    assert [bumped(value) for value in (5, 3, 9)] == [5, 5, 9]
    assert bumped(UNIX_MS + MAX_BUMP_DRIFT_MS + 1) == 9
    assert bumped(UNIX_MS + MAX_BUMP_DRIFT_MS) == UNIX_MS + MAX_BUMP_DRIFT_MS
    store.unannounce(TOPIC, PAIR.public_key)
    assert bumped(1) == 1, "forgotten with the topic"


def test_a_key_that_announces_itself_becomes_a_route() -> None:
    store = create_store()
    target = peer_target(PAIR.public_key)
    record = PeerRecord(PAIR.public_key)
    announce(store, record, topic=target)
    route = store.route(target, 1.0)
    assert route is not None
    assert (route.address, route.record) == (SOURCE, record)
    assert store.lookup(target, 1.0) == LookupAnswer((record,))
    assert store.statistics.routes == 1
    announce(store, record, 5.0, topic=target, source=a_host(1))
    route = store.route(target, 6.0)
    assert route is not None
    assert route.address == a_host(1), "it has moved"
    store.unannounce(target, PAIR.public_key)
    assert store.route(target, 6.0) is None


def test_others_may_announce_a_topic_that_is_somebodys_hash() -> None:
    store = create_store()
    target = peer_target(PAIR.public_key)
    announce(store, PeerRecord(a_key(1)), topic=target)
    announce(store, PeerRecord(PAIR.public_key), topic=target)
    assert set(found(store, 1.0, target)) == {PeerRecord(a_key(1)), PeerRecord(PAIR.public_key)}
    store.unannounce(target, a_key(1))
    assert store.route(target, 1.0) is not None


def test_a_chain_of_secrets_renews_a_record() -> None:
    store = create_store()
    record = PeerRecord(PAIR.public_key)
    chain = [b"\x09" * 32]
    for _ in range(3):
        chain.append(blake2b(chain[-1]))
    announce(store, record, refresh=chain[3])
    assert not store.refresh(chain[3], SOURCE, 500.0), "the commitment itself is no secret"
    assert not store.refresh(chain[1], SOURCE, 500.0), "nor is a later one valid yet"
    assert store.refresh(chain[2], SOURCE, 1000.0)
    assert not store.refresh(chain[2], SOURCE, 1000.0), "once"
    assert found(store, 2000.0) == (record,)
    assert store.refresh(chain[1], SOURCE, 2000.0)
    assert found(store, 3100.0) == (record,)
    assert not store.refresh(chain[0], SOURCE, 4000.0), "too late"


def test_a_refreshed_route_follows_its_owner() -> None:
    store = create_store()
    target = peer_target(PAIR.public_key)
    secret = b"\x09" * 32
    announce(store, PeerRecord(PAIR.public_key), topic=target, refresh=blake2b(secret))
    assert store.refresh(secret, a_host(5), 1.0)
    route = store.route(target, 1.0)
    assert route is not None
    assert route.address == a_host(5)


def test_a_mutable_value_gives_way_to_newer_ones_only() -> None:
    store = create_store()
    target = peer_target(PAIR.public_key)

    def put(value: bytes, seq: int, now: float = 0.0) -> ErrorCode | None:
        return store.put_mutable(target, MutableValue.create(PAIR, value, seq), SOURCE, now)

    assert put(b"five", 5) is ErrorCode.NONE
    assert put(b"five", 5) is ErrorCode.NONE
    assert put(b"other", 5) is ErrorCode.SEQUENCE_REUSED
    assert put(b"four", 4) is ErrorCode.SEQUENCE_TOO_LOW
    assert put(b"six", 6) is ErrorCode.NONE
    content = store.mutable(target, 6, 1.0)
    assert content is not None
    assert content.value == b"six"
    assert store.mutable(target, 7, 1.0) is None
    assert store.mutable(target, 0, VALUE_SECONDS) is None
    assert put(b"four", 4, VALUE_SECONDS) is ErrorCode.NONE, "forgotten by now"


def test_values_have_limits() -> None:
    store = create_store()
    value = bytes(1000)
    kept = [store.put_immutable(a_key(i), value, SOURCE, 0.0) for i in range(MAX_PER_HOST + 1)]
    assert kept == [True] * MAX_PER_HOST + [False]
    for index in range(20_000):
        store.put_immutable(a_key(index), value, a_host(index), 1.0)
    assert store.statistics.value_bytes <= 2**24
    assert store.statistics.immutable_values < 20_000
    assert store.immutable(a_key(19_999), 1.0) == value
    assert store.immutable(a_key(1000), 1.0) is None, "the oldest made room"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_flood_from_few_hosts_leaves_the_others_alone(seed: int) -> None:
    store = create_store(seed)
    honest = PeerRecord(PAIR.public_key)
    announce(store, honest, source=a_host(0))
    for index in range(20_000):
        attacker = (f"203.0.113.{index % 20}", 1)
        announce(store, PeerRecord(a_key(index)), topic=a_key(index), source=attacker)
    assert found(store, 1.0) == (honest,)
    assert store.statistics.records == 1 + 20 * MAX_PER_HOST
