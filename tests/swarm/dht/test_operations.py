"""What the table is for, on a simulated network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hypercore.crypto import KeyPair
from swarm.announcement import Address
from swarm.dht.messages import ErrorCode, Response
from swarm.dht.operations import (
    plan_announce,
    plan_find_peer,
    plan_immutable_get,
    plan_immutable_put,
    plan_lookup,
    plan_mutable_get,
    plan_mutable_put,
    plan_unannounce,
    read_immutable,
    read_lookup,
    read_mutable,
    read_peer,
)
from swarm.dht.payloads import (
    MAX_RECORD_RELAYS,
    MAX_VALUE_BYTES,
    LookupAnswer,
    MutableValue,
    PeerRecord,
    immutable_target,
    peer_target,
)
from swarm.dht.query import QueryPlan, QueryResult, Reply
from swarm.dht.records import RECORD_SECONDS
from tests.support.dht_network import SimulatedNode, build_network

TOPIC = b"\x01" * 32
PAIR = KeyPair.from_seed(b"\x02" * 32)
OTHER = KeyPair.from_seed(b"\x03" * 32)
RELAYS: tuple[Address, ...] = (("192.0.2.1", 5), ("192.0.2.2", 5))
SOURCE: Address = ("192.0.2.9", 5)


def run(node: SimulatedNode, plan: QueryPlan) -> QueryResult:
    result = node.query(plan).result
    assert result is not None
    return result


def found(node: SimulatedNode, topic: bytes = TOPIC) -> set[PeerRecord]:
    answers = [read_lookup(reply) for reply in node.query(plan_lookup(topic)).replies]
    return {record for answer in answers if answer is not None for record in answer.records}


def test_who_announces_is_found_until_the_time_is_over() -> None:
    network, nodes = build_network(1, 24)
    ours, theirs = PeerRecord(PAIR.public_key, RELAYS), PeerRecord(OTHER.public_key)
    assert run(nodes[1], plan_announce(TOPIC, PAIR, RELAYS)).stored == 20
    assert run(nodes[2], plan_announce(TOPIC, OTHER)).stored == 20
    assert found(nodes[20]) == {ours, theirs}
    assert found(nodes[20], bytes(32)) == set()
    assert run(nodes[1], plan_unannounce(TOPIC, PAIR)).stored == 20
    assert found(nodes[21]) == {theirs}
    assert run(nodes[1], plan_unannounce(TOPIC, PAIR)).stored == 0
    network.run_for(RECORD_SECONDS + 10)
    assert found(nodes[22]) == set()
    assert all(node.engine.statistics.records.records == 0 for node in nodes)


def test_new_relays_replace_the_old_ones() -> None:
    _, nodes = build_network(2, 40)
    run(nodes[1], plan_announce(TOPIC, PAIR, RELAYS))
    result = run(nodes[1], plan_announce(TOPIC, PAIR, RELAYS[1:], clear=True))
    assert (result.stored, result.refusals) == (20, ())
    assert found(nodes[30]) == {PeerRecord(PAIR.public_key, RELAYS[1:])}


def test_a_key_that_announces_itself_is_found_where_it_stored_its_record() -> None:
    _, nodes = build_network(3, 40)
    plan = plan_announce(peer_target(PAIR.public_key), PAIR)
    stored = {reply.source for reply in run(nodes[1], plan).closest}
    replies = nodes[30].query(plan_find_peer(PAIR.public_key)).replies
    peers = [read_peer(reply, PAIR.public_key) for reply in replies]
    sources = {peer.source for peer in peers if peer is not None}
    assert sources
    assert sources <= stored
    assert {peer.record for peer in peers if peer is not None} == {PeerRecord(PAIR.public_key)}


def test_values_are_stored_and_got() -> None:
    _, nodes = build_network(4, 40)
    value = bytes(range(256)) * 3
    assert run(nodes[1], plan_immutable_put(value)).stored == 20
    target = immutable_target(value)
    replies = nodes[30].query(plan_immutable_get(target)).replies
    assert {read_immutable(reply, target) for reply in replies} >= {value}

    first, second = (MutableValue.create(PAIR, text, i) for i, text in enumerate((b"a", b"b")))
    assert run(nodes[1], plan_mutable_put(PAIR.public_key, second)).stored == 20
    too_low = run(nodes[1], plan_mutable_put(PAIR.public_key, first))
    assert (too_low.stored, set(too_low.refusals)) == (0, {ErrorCode.SEQUENCE_TOO_LOW})
    replies = nodes[30].query(plan_mutable_get(PAIR.public_key)).replies
    assert {read_mutable(reply, PAIR.public_key) for reply in replies} >= {second}


def reply_with(value: bytes | None) -> Reply:
    return Reply(SOURCE, None, Response(0, ("203.0.113.1", 7), None, None, (), 0, value), 0.1)


def test_what_liars_answer_is_not_read() -> None:
    key = PAIR.public_key
    for value in (None, b"", b"\xff" * 50):
        reply = reply_with(value)
        assert read_lookup(reply) is None
        assert read_peer(reply, key) is None
        assert read_mutable(reply, key) is None
        assert read_immutable(reply, TOPIC) is None
    assert read_lookup(reply_with(LookupAnswer(()).encode())) is None
    assert read_peer(reply_with(PeerRecord(OTHER.public_key).encode()), key) is None
    content = MutableValue.create(PAIR, b"v", 5)
    for forged in (
        replace(content, value=b"w"),
        replace(content, seq=6),
        MutableValue.create(OTHER, b"v", 5),
    ):
        assert read_mutable(reply_with(forged.encode()), key) is None
    assert read_mutable(reply_with(content.encode()), key, min_seq=6) is None
    assert read_mutable(reply_with(content.encode()), key, min_seq=5) == content
    assert read_immutable(reply_with(b"w"), immutable_target(b"v")) is None


def test_what_cannot_be_stored_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(ValueError, match="4 relay addresses, at most 3"):
        plan_announce(TOPIC, PAIR, RELAYS * 2)
    for value in (b"", bytes(MAX_VALUE_BYTES + 1)):
        with pytest.raises(ValueError, match="1 to 1000 bytes"):
            plan_immutable_put(value)
        with pytest.raises(ValueError, match="1 to 1000 bytes"):
            plan_mutable_put(PAIR.public_key, MutableValue.create(PAIR, value, 1))
    for plan in (plan_lookup, plan_find_peer, plan_mutable_get, plan_immutable_get):
        with pytest.raises(ValueError, match="has 32 bytes, not 31"):
            plan(bytes(31))
    with pytest.raises(ValueError, match="has 32 bytes, not 33"):
        plan_announce(bytes(33), PAIR)


def test_an_announcement_does_not_go_to_nodes_without_a_token() -> None:
    (commit,) = plan_announce(TOPIC, PAIR).commits
    assert commit([reply_with(None)], []) == []


def test_a_record_names_few_relays_to_ask_however_many_it_has() -> None:
    """Found in review: each would have been sent a handshake, four times."""
    many = tuple(("192.0.2.1", port) for port in range(1, 2000))
    value = LookupAnswer((PeerRecord(PAIR.public_key, many),)).encode()
    answer = read_lookup(Reply(SOURCE, None, Response(1, SOURCE, value=value), 0.0))
    assert answer is not None
    assert answer.records == (PeerRecord(PAIR.public_key, many[:MAX_RECORD_RELAYS]),)
