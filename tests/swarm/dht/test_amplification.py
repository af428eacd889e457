"""How many bytes a stranger gets out of us, for how many of its own: the table of `allowance`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from hypercore.crypto import KeyPair
from hypercore.encoding import encode_uint
from swarm.announcement import Address
from swarm.dht import allowance
from swarm.dht.allowance import (
    HOST_BURST_BYTES,
    HOST_BYTES_PER_SECOND,
    TOTAL_BURST_BYTES,
    Allowance,
)
from swarm.dht.messages import Command, Internal, Request, node_id
from swarm.dht.payloads import (
    MAX_VALUE_BYTES,
    Announcement,
    MutableValue,
    PeerRecord,
    immutable_target,
    peer_target,
)
from swarm.dht.requests import Transmit, Via
from swarm.dht.responder import Responder
from swarm.dht.router import Asked
from swarm.dht.routing_table import DhtNode, RoutingTable
from tests.support.dht_network import public_host

US: Address = ("203.0.113.5", 49737)
PAIR = KeyPair.from_seed(b"\x02" * 32)
KEY_TARGET = peer_target(PAIR.public_key)
VALUE = bytes(MAX_VALUE_BYTES)
RELAYS = tuple((f"192.0.2.{i}", 49737) for i in range(1, 4))
HERE: Address = ("198.51.100.1", 1)


def create_stuffed() -> Responder:
    """A member that has as much to say as it can."""
    table = RoutingTable(node_id(US))
    for index in range(500):
        table.add(DhtNode.create((public_host(index), 4000), 0.0))
    responder = Responder(table, random.Random(1).randbytes, 0.0, 2**43)
    responder.own_id = table.own_id
    records = responder.records
    for index in range(20):
        record = PeerRecord(index.to_bytes(32, "big"), RELAYS)
        records.announce(VALUE[:32], Announcement(record, bump_unix_ms=2**40), HERE, 0.0, 2**43)
    records.announce(KEY_TARGET, Announcement(PeerRecord(PAIR.public_key, RELAYS)), HERE, 0.0, 0)
    records.put_mutable(KEY_TARGET, MutableValue.create(PAIR, VALUE, 2**40), HERE, 0.0)
    records.put_immutable(immutable_target(VALUE), VALUE, HERE, 0.0)
    return responder


def internal(command: Internal, target: bytes | None = None, value: bytes | None = None) -> Request:
    return Request(9, US, command, True, None, None, target, value)


def external(command: int, target: bytes, value: bytes | None = None) -> Request:
    return Request(9, US, command, False, None, None, target, value)


REQUESTS: dict[str, Request] = {
    "PING": internal(Internal.PING),
    "PING_NAT": internal(Internal.PING_NAT, None, b"\x07\x07"),
    "DELAYED_PING": internal(Internal.DELAYED_PING, None, bytes(4)),
    "DOWN_HINT": internal(Internal.DOWN_HINT, None, bytes(6)),
    "FIND_NODE": internal(Internal.FIND_NODE, VALUE[:32]),
    "FIND_PEER": external(Command.FIND_PEER, KEY_TARGET),
    "LOOKUP": external(Command.LOOKUP, VALUE[:32]),
    "MUTABLE_GET": external(Command.MUTABLE_GET, KEY_TARGET, encode_uint(0)),
    "IMMUTABLE_GET": external(Command.IMMUTABLE_GET, immutable_target(VALUE)),
    "anything with a target": external(99, VALUE[:32]),
}


def measure(request: Request) -> tuple[int, int]:
    responder = create_stuffed()
    size = len(request.encode())
    outputs = responder.receive(Asked(request, ("192.0.2.200", 1), Via.SERVER, size, 0.0))
    (transmit,) = outputs or responder.advance(0.0)
    assert isinstance(transmit, Transmit)
    return size, len(transmit.data)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_table_is_right(name: str) -> None:
    size, answer = measure(REQUESTS[name])
    row = next(line for line in (allowance.__doc__ or "").splitlines() if f"| {name}" in line)
    told = [cell.strip() for cell in row.split("|")[2:5]]
    assert told == [str(size), str(answer), f"{answer / size:.1f}"]


def flood(ask: Callable[[float], int], seconds: float) -> int:
    """Bytes that come out when fifty requests a second go in."""
    return sum(ask(step / 50) for step in range(int(seconds * 50)))


def test_a_victim_gets_no_more_than_its_allowance() -> None:
    responder = create_stuffed()
    request = REQUESTS["LOOKUP"]
    size = len(request.encode())

    def ask(now: float) -> int:
        asked = Asked(request, ("192.0.2.200", 1), Via.SERVER, size, now)
        outputs = responder.receive(asked)
        return sum(len(output.data) for output in outputs if isinstance(output, Transmit))

    seconds = 20.0
    received = flood(ask, seconds)
    most = HOST_BURST_BYTES + seconds * HOST_BYTES_PER_SECOND
    answers = received / measure(request)[1]
    assert most * 0.9 < received - answers * size <= most
    assert responder.refused_by_allowance > 900


def test_many_victims_share_one_allowance() -> None:
    allowance_of_all = Allowance(0.0)
    sent = 0
    for index in range(20_000):
        host = f"{60 + (index >> 16)}.{(index >> 8) & 255}.{index & 255}.1"
        sent += 1000 * allowance_of_all.admit(host, 0, 1000, 0.0)
    assert TOTAL_BURST_BYTES - 1000 < sent <= TOTAL_BURST_BYTES
    assert allowance_of_all.admit("192.0.2.1", 0, 1000, 1.0), "time heals"


def test_pings_are_answered_when_the_allowance_of_all_is_used_up() -> None:
    """Some 200 look-ups a second, under faked addresses, took a node out of the network."""
    limited = Allowance(0.0)
    hosts = (f"60.{index >> 8}.{index & 255}.1" for index in itertools.count())
    while limited.admit(next(hosts), 0, 1000, 0.0):
        pass
    for name in ("PING", "PING_NAT", "DELAYED_PING", "DOWN_HINT", "FIND_NODE"):
        assert limited.admit("192.0.2.1", *measure(REQUESTS[name]), 0.0)
    for name in ("LOOKUP", "MUTABLE_GET", "IMMUTABLE_GET"):
        assert not limited.admit("192.0.2.1", *measure(REQUESTS[name]), 0.0)
    while limited.admit("192.0.2.1", 11, 42, 0.0):
        pass
    assert limited.admit("192.0.3.1", 11, 42, 0.0), "each host has its own share still"


def test_answers_no_longer_than_their_requests_are_free() -> None:
    limited = Allowance(0.0)
    while limited.admit("192.0.2.1", 0, 1000, 0.0):
        pass
    assert limited.admit("192.0.2.1", 1000, 1000, 0.0)
    assert not limited.admit("192.0.2.1", 10, 1000, 0.0)
    assert limited.admit("192.0.3.1", 10, 1000, 0.0), "others are not to blame"


def test_private_networks_are_not_limited() -> None:
    limited = Allowance(0.0)
    assert all(limited.admit("127.0.0.1", 0, 1000, 0.0) for _ in range(10_000))
    assert limited.refused == 0
