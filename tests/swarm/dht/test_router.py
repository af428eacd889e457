"""Passing on what peers say to one another, without becoming anybody's cannon."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from hypercore.crypto import KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.allowance import HOST_BURST_BYTES, Allowance
from swarm.dht.messages import Command, Request, Response, decode_datagram, node_id
from swarm.dht.payloads import Announcement, PeerRecord, peer_target
from swarm.dht.peer_messages import Mode, PeerHandshake, PeerHolepunch
from swarm.dht.records import RecordStore
from swarm.dht.requests import Transmit, Via
from swarm.dht.responder import Responder
from swarm.dht.router import FORWARD_SECONDS, MAX_FORWARDS_PER_HOST, Asked, PeerAsked, Router
from swarm.dht.routing_table import DhtNode, RoutingTable
from tests.support.dht_network import public_host

PAIR = KeyPair.from_seed(b"\x01" * 32)
TARGET = peer_target(PAIR.public_key)
RELAY: Address = ("203.0.113.5", 49737)
RELAY_2: Address = ("203.0.114.6", 49737)
SERVER: Address = ("198.51.100.7", 4000)
SERVER_PUNCH: Address = ("198.51.100.7", 4444)
CLIENT: Address = ("192.0.2.8", 5000)
NOISE = b"\x09" * 200


def create_router(*, knows: Address | None = SERVER) -> Router:
    records = RecordStore(random.Random(1).randbytes)
    if knows is not None:
        records.announce(TARGET, Announcement(PeerRecord(PAIR.public_key)), knows, 0.0, 0)
    return Router(records, Allowance(0.0))


def asked(
    message: PeerHandshake | PeerHolepunch,
    source: Address = CLIENT,
    *,
    tid: int = 77,
    now: float = 0.0,
    target: bytes = TARGET,
) -> Asked:
    is_handshake = isinstance(message, PeerHandshake)
    command = Command.PEER_HANDSHAKE if is_handshake else Command.PEER_HOLEPUNCH
    request = Request(tid, RELAY, command, False, None, None, target, message.encode())
    return Asked(request, source, Via.SERVER, len(request.encode()), now)


def pass_on(router: Router, question: Asked) -> Transmit:
    outputs = router.receive(question, node_id(RELAY))
    assert outputs is not None
    (transmit,) = outputs
    assert isinstance(transmit, Transmit)
    return transmit


def take(server: Router, question: Asked) -> PeerAsked:
    outputs = server.receive(question, None)
    assert outputs is not None
    (taken,) = outputs
    assert isinstance(taken, PeerAsked)
    return taken


def test_a_handshake_goes_to_the_server_and_its_answer_back() -> None:
    router = create_router()
    forward = pass_on(router, asked(PeerHandshake(Mode.FROM_CLIENT, NOISE)))
    assert (forward.to, forward.via) == (SERVER, Via.SERVER)
    request = decode_datagram(forward.data)
    assert isinstance(request, Request)
    assert (request.transaction, request.target, request.to) == (77, TARGET, SERVER)
    assert request.id == node_id(RELAY)
    assert request.value is not None
    assert PeerHandshake.decode(request.value) == PeerHandshake(Mode.FROM_RELAY, NOISE, CLIENT)

    answer = PeerHandshake(Mode.FROM_SERVER, b"answer", CLIENT)
    back = pass_on(router, asked(answer, SERVER_PUNCH))
    assert back.to == CLIENT
    response = decode_datagram(back.data)
    assert isinstance(response, Response)
    assert (response.transaction, response.to) == (77, CLIENT)
    assert response.value is not None
    reply = PeerHandshake(Mode.REPLY, b"answer", SERVER_PUNCH)
    assert PeerHandshake.decode(response.value) == reply
    assert router.passed_on == 2


def test_who_does_not_know_the_server_names_closer_nodes() -> None:
    router = create_router(knows=None)
    assert router.receive(asked(PeerHandshake(Mode.FROM_CLIENT, NOISE)), None) is None
    table = RoutingTable(node_id(RELAY))
    table.add(DhtNode.create((public_host(1), 4000), 0.0))
    responder = Responder(table, random.Random(1).randbytes, 0.0, 0)
    (answer,) = responder.receive(asked(PeerHandshake(Mode.FROM_CLIENT, NOISE)))
    assert isinstance(answer, Transmit)
    response = decode_datagram(answer.data)
    assert isinstance(response, Response)
    assert len(response.closer_nodes) == 1


def test_a_second_relay_is_asked_by_the_first_and_answered_to_it() -> None:
    second = create_router()
    message = PeerHandshake(Mode.FROM_RELAY, NOISE, CLIENT)
    forward = pass_on(second, asked(message, RELAY))
    request = decode_datagram(forward.data)
    assert isinstance(request, Request)
    assert request.value is not None
    arrived = PeerHandshake.decode(request.value)
    assert arrived == PeerHandshake(Mode.FROM_SECOND_RELAY, NOISE, CLIENT, RELAY)

    server = create_router(knows=None)
    server.serve(TARGET, PeerRecord(PAIR.public_key))
    question = take(server, asked(arrived, RELAY_2))
    assert (question.client, question.came_from, question.is_direct) == (CLIENT, RELAY_2, False)
    (back,) = server.answer(question, b"answer", Via.CLIENT, None, 0.0)
    assert (back.to, back.via) == (RELAY, Via.CLIENT), "past the second relay"


@pytest.mark.parametrize("mode", [Mode.FROM_CLIENT, Mode.FROM_RELAY])
def test_a_server_takes_what_is_for_its_key(mode: Mode) -> None:
    server = create_router(knows=None)
    server.serve(TARGET, PeerRecord(PAIR.public_key))
    with pytest.raises(ValueError, match="already"):
        server.serve(TARGET, PeerRecord(PAIR.public_key))
    is_direct = mode is Mode.FROM_CLIENT
    message = PeerHandshake(mode, NOISE, None if is_direct else CLIENT)
    source = CLIENT if is_direct else RELAY
    question = take(server, asked(message, source))
    assert (question.client, question.is_direct, question.seen_as) == (CLIENT, is_direct, RELAY)
    (answer,) = server.answer(question, b"answer", Via.SERVER, None, 0.0)
    assert answer.to == source
    decoded = decode_datagram(answer.data)
    assert isinstance(decoded, Response if is_direct else Request)
    assert decoded.transaction == 77
    expected = (
        PeerHandshake(Mode.REPLY, b"answer")
        if is_direct
        else PeerHandshake(Mode.FROM_SERVER, b"answer", CLIENT)
    )
    assert PeerHandshake.decode(decoded.value or b"") == expected
    server.stop_serving(TARGET)
    assert server.receive(asked(PeerHandshake(Mode.FROM_CLIENT, NOISE)), None) is None


def test_a_punch_goes_to_the_address_that_the_client_names() -> None:
    router = create_router()
    punch = PeerHolepunch(Mode.FROM_CLIENT, 5, b"sealed", SERVER_PUNCH)
    forward = pass_on(router, asked(punch))
    assert forward.to == SERVER_PUNCH
    request = decode_datagram(forward.data)
    assert isinstance(request, Request)
    arrived = PeerHolepunch.decode(request.value or b"")
    assert arrived == PeerHolepunch(Mode.FROM_RELAY, 5, b"sealed", CLIENT)
    back = pass_on(
        router, asked(PeerHolepunch(Mode.FROM_SERVER, 0, b"answer", CLIENT), SERVER_PUNCH)
    )
    response = decode_datagram(back.data)
    assert isinstance(response, Response)
    reply = PeerHolepunch(Mode.REPLY, 0, b"answer", SERVER_PUNCH)
    assert PeerHolepunch.decode(response.value or b"") == reply


def test_no_punch_is_passed_on_for_a_key_that_never_announced_itself_here() -> None:
    router = create_router(knows=None)
    assert router.receive(asked(PeerHolepunch(Mode.FROM_CLIENT, 5, b"s", SERVER)), None) == []


def test_an_answer_without_a_question_goes_nowhere() -> None:
    router = create_router()
    answer = PeerHandshake(Mode.FROM_SERVER, b"answer", CLIENT)
    assert router.receive(asked(answer, SERVER), None) == [], "nobody asked"
    pass_on(router, asked(PeerHandshake(Mode.FROM_CLIENT, NOISE)))
    victim = replace(answer, peer_address=("192.0.2.9", 5000))
    assert router.receive(asked(victim, SERVER), None) == [], "somebody else asked"
    assert router.receive(asked(answer, SERVER, tid=78), None) == [], "something else was asked"
    assert router.receive(asked(answer, SERVER, target=bytes(32)), None) == []
    assert pass_on(router, asked(answer, SERVER)).to == CLIENT
    assert router.receive(asked(answer, SERVER), None) == [], "it was answered already"
    pass_on(router, asked(PeerHandshake(Mode.FROM_CLIENT, NOISE)))
    late = asked(answer, SERVER, now=FORWARD_SECONDS)
    assert router.receive(late, None) == [], "it is too late"


def test_strangers_do_not_have_us_write_into_our_own_network() -> None:
    router = create_router()
    punch = PeerHolepunch(Mode.FROM_CLIENT, 5, b"sealed", ("192.168.1.1", 53))
    assert router.receive(asked(punch), None) == []
    router.serve(TARGET, PeerRecord(PAIR.public_key))
    for client in (("10.0.0.1", 80), ("0.0.0.0", 80), ("192.0.2.1", 0)):
        forwarded = PeerHandshake(Mode.FROM_RELAY, NOISE, client)
        assert router.receive(asked(forwarded, RELAY), None) == []
    punch = PeerHolepunch(Mode.FROM_RELAY, 5, b"sealed", ("127.0.0.1", 80))
    assert router.receive(asked(punch, RELAY), None) == []


def test_one_host_fills_only_its_share_of_what_is_under_way() -> None:
    router = create_router()
    message = PeerHandshake(Mode.FROM_CLIENT, NOISE)
    for tid in range(MAX_FORWARDS_PER_HOST):
        pass_on(router, asked(message, tid=tid))
    assert router.receive(asked(message, tid=9999), None) == []
    pass_on(router, asked(message, ("192.0.3.1", 1), tid=9999))


def test_what_a_stranger_gets_sent_is_paid_by_it_or_by_the_allowance() -> None:
    """Forwarding adds 6 bytes; a longer answer counts against the host that it goes to."""
    router = create_router()
    question = asked(PeerHandshake(Mode.FROM_CLIENT, NOISE))
    assert len(pass_on(router, question).data) <= question.size_bytes + 6 + 32
    received = 0
    for tid in range(400):
        if tid % MAX_FORWARDS_PER_HOST == 0:
            router = create_router()
        spoofed = asked(PeerHandshake(Mode.FROM_CLIENT, b"x"), tid=tid)
        if not router.receive(spoofed, None):
            continue
        answer = asked(PeerHandshake(Mode.FROM_SERVER, bytes(1000), CLIENT), SERVER, tid=tid)
        for output in router.receive(answer, None) or ():
            assert isinstance(output, Transmit)
            received += len(output.data) - answer.size_bytes
    assert received <= HOST_BURST_BYTES


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"\xff" * 40, b"\x00\x00\x00"])
def test_garbage_is_met_with_silence(value: bytes | None) -> None:
    responder = Responder(RoutingTable(node_id(RELAY)), system_entropy, 0.0, 0)
    for command in (Command.PEER_HANDSHAKE, Command.PEER_HOLEPUNCH):
        request = Request(1, RELAY, command, False, None, None, TARGET, value)
        assert responder.receive(Asked(request, CLIENT, Via.SERVER, 50, 0.0)) == []
    assert responder.ignored == 2
