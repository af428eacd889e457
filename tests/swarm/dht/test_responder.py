from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair, blake2b
from hypercore.encoding import encode_buffer, encode_uint
from swarm.announcement import Address
from swarm.dht.messages import (
    Command,
    ErrorCode,
    Internal,
    Request,
    Response,
    decode_datagram,
    node_id,
)
from swarm.dht.payloads import (
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
from swarm.dht.requests import Transmit, Via
from swarm.dht.responder import (
    MAX_DELAYED_PINGS,
    MAX_DELAYED_PINGS_PER_HOST,
    Responder,
)
from swarm.dht.router import Asked
from swarm.dht.routing_table import DhtNode, RoutingTable
from swarm.dht.tokens import ROTATION_SECONDS
from tests.support.dht_network import public_host

US: Address = ("203.0.113.5", 49737)
ASKER: Address = ("198.51.100.7", 4000)
OTHER: Address = ("198.51.100.8", 4000)
TOPIC = b"\x01" * 32
PAIR = KeyPair.from_seed(b"\x02" * 32)


class Node:
    """A responder with a full table, and requests made short."""

    def __init__(self, *, is_ephemeral: bool = False) -> None:
        table = RoutingTable(node_id(US))
        for index in range(200):
            table.add(DhtNode.create((public_host(index), 4000), 0.0))
        self.responder = Responder(table, random.Random(1).randbytes, 0.0, 1_800_000_000_000)
        self.responder.own_id = None if is_ephemeral else table.own_id
        self.now = 0.0

    def send(
        self, request: Request, source: Address = ASKER, via: Via = Via.SERVER
    ) -> list[Transmit]:
        size = len(request.encode())
        outputs = self.responder.receive(Asked(request, source, via, size, self.now))
        return [output for output in outputs if isinstance(output, Transmit)]

    def ask(
        self,
        command: int,
        target: bytes | None = TOPIC,
        value: bytes | None = None,
        *,
        token: bytes | None = None,
        internal: bool = False,
        source: Address = ASKER,
    ) -> Response | None:
        request = Request(9, US, command, internal, None, token, target, value)
        outputs = self.send(request, source)
        if not outputs:
            return None
        (transmit,) = outputs
        response = decode_datagram(transmit.data)
        assert isinstance(response, Response)
        assert response.transaction == 9
        return response

    def token(self, source: Address = ASKER) -> bytes:
        response = self.ask(Command.LOOKUP, source=source)
        assert response is not None
        assert response.token is not None
        return response.token

    def announce(
        self,
        command: Command = Command.ANNOUNCE,
        *,
        token: bytes | None = None,
        source: Address = ASKER,
        target: bytes = TOPIC,
        storing_id: bytes | None = None,
        refresh: bytes | None = None,
    ) -> Response | None:
        token = token or self.token(source)
        bare = Announcement(PeerRecord(PAIR.public_key), refresh)
        signature = sign_announcement(command, target, storing_id or node_id(US), token, bare, PAIR)
        value = replace(bare, signature=signature).encode()
        return self.ask(command, target, value, token=token, source=source)

    def found(self, target: bytes = TOPIC) -> tuple[PeerRecord, ...]:
        response = self.ask(Command.LOOKUP, target)
        assert response is not None
        return () if response.value is None else LookupAnswer.decode(response.value).records


def test_a_ping_is_answered_with_what_we_see() -> None:
    pong = Node().ask(Internal.PING, None, internal=True)
    assert pong == Response(9, ASKER, node_id(US))
    assert Node(is_ephemeral=True).ask(Internal.PING, None, internal=True) == Response(9, ASKER)


def test_our_id_is_shown_on_the_servers_socket_only() -> None:
    (transmit,) = Node().send(Request(9, US, Internal.PING, True), via=Via.CLIENT)
    assert transmit.via is Via.CLIENT
    assert decode_datagram(transmit.data) == Response(9, ASKER)


def test_a_nat_ping_is_answered_at_the_other_port() -> None:
    value = (777).to_bytes(2, "little")
    (transmit,) = Node().send(Request(9, US, Internal.PING_NAT, True, value=value))
    assert transmit.to == (ASKER[0], 777)
    assert decode_datagram(transmit.data) == Response(9, (ASKER[0], 777), node_id(US))
    for bad in (None, b"", b"\x01", b"\x00\x00"):
        assert Node().send(Request(9, US, Internal.PING_NAT, True, value=bad)) == []


def test_find_node_tells_twenty_and_no_token() -> None:
    response = Node().ask(Internal.FIND_NODE, internal=True)
    assert response is not None
    assert len(response.closer_nodes) == 20
    assert response.token is None
    assert Node().ask(Internal.FIND_NODE, None, internal=True) is None


def test_the_world_is_not_told_of_private_nodes() -> None:
    node = Node()
    private: Address = ("192.168.1.9", 4000)
    node.responder.table = RoutingTable(node_id(US))
    assert node.responder.table.add(DhtNode.create(private, 0.0))
    target = node_id(private)
    told = node.ask(Internal.FIND_NODE, target, internal=True)
    assert told is not None
    assert private not in told.closer_nodes
    told = node.ask(Internal.FIND_NODE, target, internal=True, source=("192.168.1.8", 1))
    assert told is not None
    assert private in told.closer_nodes


def test_a_delayed_ping_waits_and_long_ones_are_ignored() -> None:
    node = Node()

    def delay(ms: int, source: Address = ASKER) -> list[Transmit]:
        value = ms.to_bytes(4, "little")
        request = Request(9, US, Internal.DELAYED_PING, True, value=value)
        return node.send(request, source)

    assert delay(1500) == delay(500) == []
    deadlines = [node.responder.deadline]
    assert node.responder.advance(0.4) == []
    (pong,) = node.responder.advance(0.5)
    assert decode_datagram(pong.data) == Response(9, ASKER, node_id(US))
    deadlines.append(node.responder.deadline)
    assert len(node.responder.advance(9.0)) == 1
    assert delay(10_001) == []
    assert node.send(Request(9, US, Internal.DELAYED_PING, True, value=b"\x01")) == []
    deadlines.append(node.responder.deadline)
    assert deadlines == [0.5, 1.5, None]
    for _ in range(MAX_DELAYED_PINGS_PER_HOST + 9):
        delay(10)
    for index in range(2 * MAX_DELAYED_PINGS):
        delay(10, (f"10.0.{index >> 8}.{index & 255}", 1))
    assert len(node.responder.advance(20.0)) == MAX_DELAYED_PINGS


def test_an_unknown_command_points_on() -> None:
    for node, internal, command in (
        (Node(), True, 77),
        (Node(), False, 77),
        (Node(is_ephemeral=True), False, Command.LOOKUP),
        (Node(is_ephemeral=True), False, Command.IMMUTABLE_PUT),
    ):
        response = node.ask(command, internal=internal)
        assert response is not None
        assert response.error == ErrorCode.UNKNOWN_COMMAND
        assert len(response.closer_nodes) == 20
        assert response.token is None


def test_a_handshake_for_somebody_we_do_not_know_is_pointed_on() -> None:
    value = encode_uint(0) + encode_uint(0) + encode_buffer(b"noise")
    for node in (Node(), Node(is_ephemeral=True)):
        response = node.ask(Command.PEER_HANDSHAKE, value=value)
        assert response is not None
        assert (response.error, response.value, response.token) == (0, None, None)
        assert len(response.closer_nodes) == 20
        from_relay = encode_uint(0) + encode_uint(2) + encode_buffer(b"noise")
        assert node.ask(Command.PEER_HANDSHAKE, value=from_relay) is None
        assert node.ask(Command.PEER_HANDSHAKE, value=None) is None


def test_an_announcement_is_kept_and_found_and_taken_back() -> None:
    node = Node()
    assert node.announce() == Response(9, ASKER, node_id(US))
    assert node.found() == (PeerRecord(PAIR.public_key),)
    assert node.announce(Command.UNANNOUNCE) == Response(9, ASKER, node_id(US))
    assert node.found() == ()


def test_an_announcement_must_be_signed_for_us_and_this_token() -> None:
    node = Node()
    token = node.token()
    assert node.announce(storing_id=bytes(32)) is None
    bare = Announcement(PeerRecord(PAIR.public_key))
    other = sign_announcement(Command.ANNOUNCE, TOPIC, node_id(US), bytes(32), bare, PAIR)
    for announcement in (
        bare,
        replace(bare, signature=bytes(64)),
        replace(bare, signature=other),
        Announcement(refresh=bytes(32)),
        Announcement(),
    ):
        assert node.ask(Command.ANNOUNCE, value=announcement.encode(), token=token) is None
    for value in (None, b"", b"\xff" * 300):
        assert node.ask(Command.ANNOUNCE, value=value, token=token) is None
    assert node.announce(Command.UNANNOUNCE) is not None, "a valid one of nothing"
    assert node.found() == ()


def test_an_unannouncement_of_somebody_else_changes_nothing() -> None:
    node = Node()
    node.announce()
    token = node.token()
    mallory = KeyPair.from_seed(b"\x66" * 32)
    bare = Announcement(PeerRecord(PAIR.public_key))
    forged = sign_announcement(Command.UNANNOUNCE, TOPIC, node_id(US), token, bare, mallory)
    value = replace(bare, signature=forged).encode()
    assert node.ask(Command.UNANNOUNCE, value=value, token=token) is None
    announced = sign_announcement(Command.ANNOUNCE, TOPIC, node_id(US), token, bare, PAIR)
    value = replace(bare, signature=announced).encode()
    assert node.ask(Command.UNANNOUNCE, value=value, token=token) is None, "signed to stay"
    assert node.found() == (PeerRecord(PAIR.public_key),)


def test_what_was_recorded_cannot_be_played_again() -> None:
    node = Node()
    token = node.token()
    assert node.announce(token=token) is not None
    assert node.announce(Command.UNANNOUNCE) is not None

    elsewhere = node.announce(token=token, source=OTHER)
    assert elsewhere is not None
    assert elsewhere.error == ErrorCode.INVALID_TOKEN, "from another host"
    node.now += 2 * ROTATION_SECONDS
    later = node.announce(token=token)
    assert later is not None
    assert later.error == ErrorCode.INVALID_TOKEN, "later"
    assert later.token not in (None, token)
    assert node.found() == ()


def test_a_fresh_token_comes_with_the_refusal() -> None:
    node = Node()
    refused = node.ask(Command.IMMUTABLE_PUT, immutable_target(b"v"), b"v", token=bytes(32))
    assert refused is not None
    assert refused.error == ErrorCode.INVALID_TOKEN
    assert len(refused.closer_nodes) == 20
    stored = node.ask(Command.IMMUTABLE_PUT, immutable_target(b"v"), b"v", token=refused.token)
    assert stored is not None
    assert stored.error == 0


@pytest.mark.parametrize("command", list(Internal))
def test_a_wrong_token_is_refused_whatever_else_is_wrong(command: Internal) -> None:
    for value in (None, b"", b"\x01", bytes(6)):
        request = Request(9, US, command, True, None, bytes(32), TOPIC, value)
        (transmit,) = Node().send(request)
        response = decode_datagram(transmit.data)
        assert isinstance(response, Response)
        assert response.error == ErrorCode.INVALID_TOKEN
        assert transmit.to == ASKER


@pytest.mark.parametrize(
    "command",
    [Command.ANNOUNCE, Command.UNANNOUNCE, Command.MUTABLE_PUT, Command.IMMUTABLE_PUT],
)
def test_nothing_is_stored_without_token_target_and_value(command: Command) -> None:
    node = Node()
    assert node.ask(command, value=b"v") is None
    assert node.ask(command, None, b"v", token=node.token()) is None
    assert node.ask(command, token=node.token()) is None


def test_a_key_that_announces_itself_is_found() -> None:
    node = Node()
    target = peer_target(PAIR.public_key)
    nobody = node.ask(Command.FIND_PEER, target)
    assert nobody is not None
    assert (nobody.value, nobody.token is None) == (None, False)
    node.announce(target=target)
    found = node.ask(Command.FIND_PEER, target)
    assert found is not None
    assert found.value == PeerRecord(PAIR.public_key).encode()
    assert node.found(target) == (PeerRecord(PAIR.public_key),)
    assert node.ask(Command.FIND_PEER, None) is None
    assert node.ask(Command.LOOKUP, None) is None


def test_a_record_is_renewed_by_its_secret() -> None:
    node = Node()
    secret = b"\x09" * 32
    node.announce(refresh=blake2b(secret))
    node.now = 1000.0
    renewal = Announcement(refresh=secret).encode()
    assert node.ask(Command.ANNOUNCE, value=renewal) is None, "a token is needed here, too"
    assert node.ask(Command.ANNOUNCE, value=renewal, token=node.token()) is not None
    node.now = 2000.0
    assert node.found() == (PeerRecord(PAIR.public_key),)


def test_mutable_values() -> None:
    node = Node()
    target = peer_target(PAIR.public_key)

    def put(content: MutableValue, key: bytes = PAIR.public_key) -> Response | None:
        value = MutablePut(key, content).encode()
        return node.ask(Command.MUTABLE_PUT, target, value, token=node.token())

    def error(content: MutableValue) -> int | None:
        response = put(content)
        return None if response is None else response.error

    five = MutableValue.create(PAIR, b"five", 5)
    assert error(five) == 0
    assert error(MutableValue.create(PAIR, b"other", 5)) == ErrorCode.SEQUENCE_REUSED
    assert error(MutableValue.create(PAIR, b"four", 4)) == ErrorCode.SEQUENCE_TOO_LOW
    assert error(replace(five, seq=6)) is None, "not signed"
    assert error(MutableValue.create(PAIR, b"", 7)) is None
    assert error(MutableValue.create(PAIR, bytes(MAX_VALUE_BYTES + 1), 7)) is None
    assert put(five, bytes(32)) is None, "not the key of this target"

    for min_seq, expected in ((0, five.encode()), (5, five.encode()), (6, None)):
        response = node.ask(Command.MUTABLE_GET, target, encode_uint(min_seq))
        assert response is not None
        assert response.value == expected
        assert response.token is not None
    assert node.ask(Command.MUTABLE_GET, target) is None
    assert node.ask(Command.MUTABLE_GET, target, b"\xff") is None


def test_immutable_values() -> None:
    node = Node()
    value = bytes(MAX_VALUE_BYTES)
    target = immutable_target(value)
    put, get = Command.IMMUTABLE_PUT, Command.IMMUTABLE_GET
    assert node.ask(put, TOPIC, value, token=node.token()) is None, "not its hash"
    large = bytes(MAX_VALUE_BYTES + 1)
    assert node.ask(put, immutable_target(large), large, token=node.token()) is None
    assert node.ask(put, target, value, token=node.token()) is not None
    response = node.ask(get, target)
    assert response is not None
    assert response.value == value
    assert node.ask(get, None) is None


def test_plugins_are_not_there() -> None:
    assert Node().ask(Command.PLUGIN, value=b"\x01a\x01\x00\x00") is None


optional_32 = st.none() | st.binary(min_size=32, max_size=32)


@given(
    st.integers(0, 12), st.booleans(), st.booleans(), optional_32, st.booleans(),
    st.none() | st.binary(max_size=200),
)  # fmt: skip
def test_whatever_is_asked_costs_at_most_one_datagram(
    command: int,
    is_internal: bool,
    has_token: bool,
    target: bytes | None,
    is_ephemeral: bool,
    value: bytes | None,
) -> None:
    node = Node(is_ephemeral=is_ephemeral)
    token = node.token() if has_token and not is_ephemeral else None
    request = Request(9, US, command, is_internal, None, token, target, value)
    outputs = node.send(request)
    assert len(outputs) <= 1
    for transmit in outputs:
        assert isinstance(decode_datagram(transmit.data), Response)
        assert transmit.to[0] == ASKER[0]
