"""What the table is for, as queries: find who announces, announce, keep and get small values.

A plan is given to `DhtEngine.query`; the `read_*` functions make sense of the replies. Replies are
strangers' words: a record says who announced according to the node that tells it, and only a
handshake with that key proves it. Values are proved here.

Source: hyperdht 6.34.0 index.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypercore.crypto import KEY_BYTES, KeyPair
from hypercore.encoding import DecodeError, encode_uint
from swarm.announcement import Address
from swarm.dht.messages import Command, Response, node_id
from swarm.dht.payloads import (
    MAX_RECORD_RELAYS,
    MAX_VALUE_BYTES,
    Announcement,
    LookupAnswer,
    MutablePut,
    MutableValue,
    PeerRecord,
    immutable_target,
    peer_target,
    sign_announcement,
)
from swarm.dht.query import Commit, QueryPlan, Reply
from swarm.dht.records import MAX_ANSWER_RECORDS
from swarm.dht.requests import Call


@dataclass(frozen=True, slots=True)
class PeersFound:
    """Who announces a topic, as one node tells. It saw us at `seen_as`."""

    source: Address
    records: tuple[PeerRecord, ...]
    bump_unix_ms: int
    seen_as: Address


@dataclass(frozen=True, slots=True)
class PeerFound:
    """A key's own record, from a node that passes handshakes on to it."""

    source: Address
    record: PeerRecord
    seen_as: Address


def plan_lookup(topic: bytes) -> QueryPlan:
    return QueryPlan(_checked(topic), Command.LOOKUP)


def read_lookup(reply: Reply) -> PeersFound | None:
    """None when the node knows nobody.

    Takes of each record as many relays as a node may keep: else one datagram could have us ask
    thousands of strangers for a peer.
    """
    value = reply.response.value
    if not value:
        return None
    try:
        answer = LookupAnswer.decode(value)
    except DecodeError:
        return None
    if not answer.records:
        return None
    records = tuple(
        PeerRecord(record.public_key, record.relay_addresses[:MAX_RECORD_RELAYS])
        for record in answer.records
    )
    return PeersFound(reply.source, records, answer.bump_unix_ms, reply.response.to)


def plan_find_peer(public_key: bytes) -> QueryPlan:
    return QueryPlan(peer_target(_checked(public_key)), Command.FIND_PEER)


def read_peer(reply: Reply, public_key: bytes) -> PeerFound | None:
    """None when the node has no record of this key."""
    value = reply.response.value
    if not value:
        return None
    try:
        record = PeerRecord.decode(value)
    except DecodeError:
        return None
    if record.public_key != public_key:
        return None
    return PeerFound(reply.source, record, reply.response.to)


def plan_announce(
    target: bytes,
    key_pair: KeyPair,
    relay_addresses: Sequence[Address] = (),
    *,
    bump_unix_ms: int = 0,
    clear: bool = False,
) -> QueryPlan:
    """Store a record at the nodes closest to a topic, or to the hash of the key itself.

    With `clear` all nodes on the way that have an old record of this key forget it first. The
    originals need that when the relays have changed: they keep the first record that they get.

    Raises: ValueError for a target that is not 32 bytes, or too many relays.
    """
    if len(relay_addresses) > MAX_RECORD_RELAYS:
        raise ValueError(f"{len(relay_addresses)} relay addresses, at most {MAX_RECORD_RELAYS}")
    record = PeerRecord(key_pair.public_key, tuple(relay_addresses))
    announcement = Announcement(record, bump_unix_ms=bump_unix_ms)

    def commit(closest: Sequence[Reply], _: Sequence[Reply]) -> Sequence[Call]:
        return _signed_calls(Command.ANNOUNCE, target, announcement, key_pair, closest)

    commits = (_forget(target, key_pair), commit) if clear else (commit,)
    return QueryPlan(_checked(target), Command.LOOKUP, commits=commits)


def plan_unannounce(target: bytes, key_pair: KeyPair) -> QueryPlan:
    """Have every node on the way that has a record of this key forget it."""
    return QueryPlan(_checked(target), Command.LOOKUP, commits=(_forget(target, key_pair),))


def plan_mutable_get(public_key: bytes, min_seq: int = 0) -> QueryPlan:
    target = peer_target(_checked(public_key))
    return QueryPlan(target, Command.MUTABLE_GET, value=encode_uint(min_seq))


def read_mutable(reply: Reply, public_key: bytes, min_seq: int = 0) -> MutableValue | None:
    """The value, if the key signed it and it is new enough."""
    value = reply.response.value
    if not value:
        return None
    try:
        content = MutableValue.decode(value)
    except DecodeError:
        return None
    return content if content.seq >= min_seq and content.is_signed_by(public_key) else None


def plan_mutable_put(public_key: bytes, content: MutableValue) -> QueryPlan:
    """Raises: ValueError for an empty value, or a large one."""
    _check_value(content.value)
    put = MutablePut(public_key, content).encode()
    commit = _commit_value(Command.MUTABLE_PUT, peer_target(public_key), put)
    return replace(plan_mutable_get(public_key), commits=(commit,))


def plan_immutable_get(target: bytes) -> QueryPlan:
    return QueryPlan(_checked(target), Command.IMMUTABLE_GET)


def read_immutable(reply: Reply, target: bytes) -> bytes | None:
    """The value, if that is its hash."""
    value = reply.response.value
    return value if value and immutable_target(value) == target else None


def plan_immutable_put(value: bytes) -> QueryPlan:
    """Raises: ValueError for an empty value, or a large one."""
    _check_value(value)
    target = immutable_target(value)
    commit = _commit_value(Command.IMMUTABLE_PUT, target, value)
    return replace(plan_immutable_get(target), commits=(commit,))


def _checked(target: bytes) -> bytes:
    if len(target) != KEY_BYTES:
        raise ValueError(f"a target or key has {KEY_BYTES} bytes, not {len(target)}")
    return target


def _check_value(value: bytes) -> None:
    if not 0 < len(value) <= MAX_VALUE_BYTES:
        raise ValueError(f"a value has 1 to {MAX_VALUE_BYTES} bytes, not {len(value)}")


def _signed_calls(
    command: Command,
    target: bytes,
    announcement: Announcement,
    key_pair: KeyPair,
    replies: Sequence[Reply],
) -> list[Call]:
    """One request for each node, signed for its id and token."""
    calls: list[Call] = []
    for reply in replies:
        token = reply.response.token
        if reply.id is None or token is None:
            continue
        signature = sign_announcement(command, target, reply.id, token, announcement, key_pair)
        value = replace(announcement, signature=signature).encode()
        calls.append(Call(reply.source, command, target=target, value=value, token=token))
    return calls


def _forget(target: bytes, key_pair: KeyPair) -> Commit:
    announcement = Announcement(PeerRecord(key_pair.public_key))

    def commit(_: Sequence[Reply], everybody: Sequence[Reply]) -> Sequence[Call]:
        holders = [reply for reply in everybody if _may_hold(reply, key_pair.public_key)]
        return _signed_calls(Command.UNANNOUNCE, target, announcement, key_pair, holders)

    return commit


def _may_hold(reply: Reply, public_key: bytes) -> bool:
    """Whether a node named this key, or named so many that it may have left it out."""
    found = read_lookup(reply)
    if found is None:
        return False
    is_named = any(record.public_key == public_key for record in found.records)
    return is_named or len(found.records) >= MAX_ANSWER_RECORDS


def _commit_value(command: Command, target: bytes, value: bytes) -> Commit:
    def commit(closest: Sequence[Reply], _: Sequence[Reply]) -> Sequence[Call]:
        return [
            Call(reply.source, command, target=target, value=value, token=reply.response.token)
            for reply in closest
            if reply.response.token is not None
        ]

    return commit


def sign_own_announcement(key_pair: KeyPair, reply: Reply) -> Call | None:
    """Announce a key at one node that was asked for it; None when that node keeps no records.

    Without relay addresses: the node passes on to where the announcement comes from.
    """
    announcement = Announcement(PeerRecord(key_pair.public_key))
    target = peer_target(key_pair.public_key)
    calls = _signed_calls(Command.ANNOUNCE, target, announcement, key_pair, [reply])
    return calls[0] if calls else None


def sign_own_unannouncement(key_pair: KeyPair, node: Address, response: Response) -> Call | None:
    """Take that back at one node, which answered FIND_PEER; None when it keeps no records."""
    announcement = Announcement(PeerRecord(key_pair.public_key))
    target = peer_target(key_pair.public_key)
    node_name = response.id if response.id == node_id(node) else None
    replies = [Reply(node, node_name, response, 0.0)]
    calls = _signed_calls(Command.UNANNOUNCE, target, announcement, key_pair, replies)
    return calls[0] if calls else None
