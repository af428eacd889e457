from __future__ import annotations

from hypercore.crypto import KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.messages import Command, Request
from swarm.dht.payloads import peer_target
from swarm.dht.peer_messages import Mode, PeerHandshake, PeerHolepunch, PeerOffer, StreamOffer
from swarm.dht.peer_noise import CallerNoise
from swarm.dht.reception import (
    MAX_PER_SECOND,
    MAX_VISITORS_PER_HOST,
    REMEMBERED_SECONDS,
    Arrived,
    Reception,
    Repeated,
)
from swarm.dht.requests import Via
from swarm.dht.router import Asked, PeerAsked

SERVER = KeyPair.from_seed(b"\x01" * 32)
CALLER = KeyPair.from_seed(b"\x02" * 32)
CLIENT: Address = ("192.0.2.8", 5000)
RELAY: Address = ("203.0.113.5", 49737)


def call() -> CallerNoise:
    offer = PeerOffer(stream=StreamOffer(9))
    return CallerNoise(CALLER, SERVER.public_key, offer, system_entropy)


def knock(
    message: PeerHandshake | PeerHolepunch, client: Address = CLIENT, relay: Address = RELAY
) -> PeerAsked:
    request = Request(
        1, RELAY, Command.PEER_HANDSHAKE, False, None, None, peer_target(SERVER.public_key), b""
    )
    return PeerAsked(Asked(request, relay, Via.CLIENT, 200, 0.0), message, client, False)


def handshake(noise: bytes) -> PeerHandshake:
    return PeerHandshake(Mode.FROM_RELAY, noise, CLIENT)


def test_a_visitor_is_known_by_its_message_whichever_relay_brings_it() -> None:
    reception = Reception(SERVER, system_entropy, 0.0)
    calling = call()
    arrived = reception.receive(knock(handshake(calling.message)), 0.0)
    assert isinstance(arrived, Arrived)
    visitor = arrived.visitor
    assert visitor.remote_public_key == CALLER.public_key
    assert visitor.offer.stream == StreamOffer(9)
    result = visitor.let_in(PeerOffer(stream=StreamOffer(5)), system_entropy)
    assert visitor.answer is not None
    offer, theirs = calling.receive(visitor.answer)
    assert offer.stream == StreamOffer(5)
    assert theirs.handshake_hash == result.handshake_hash

    other_way = knock(handshake(calling.message), relay=("203.0.114.1", 1))
    again = reception.receive(other_way, 1.0)
    assert isinstance(again, Repeated)
    assert again.visitor is visitor
    punch = knock(PeerHolepunch(Mode.FROM_RELAY, visitor.id, b"x", CLIENT))
    assert reception.find(punch, 1.0) is visitor
    assert reception.find(knock(PeerHolepunch(Mode.FROM_RELAY, 99, b"x", CLIENT)), 1.0) is None
    assert reception.find(punch, REMEMBERED_SECONDS) is None
    assert len(reception) == 0


def test_garbage_is_no_visitor() -> None:
    reception = Reception(SERVER, system_entropy, 0.0)
    for noise in (b"x", bytes(96), call().message[:-1], call().message + b"x"):
        assert reception.receive(knock(handshake(noise)), 0.0) is None
    assert reception.malformed == 4
    assert len(reception) == 0


def test_a_flood_is_not_worth_its_mathematics() -> None:
    reception = Reception(SERVER, system_entropy, 0.0)
    for index in range(int(2 * MAX_PER_SECOND) + 10):
        reception.receive(knock(handshake(index.to_bytes(100, "big"))), 0.0)
    assert (reception.malformed, reception.refused) == (2 * MAX_PER_SECOND, 10)
    assert isinstance(reception.receive(knock(handshake(call().message)), 1.0), Arrived)


def test_one_host_is_only_so_many_visitors() -> None:
    reception = Reception(SERVER, system_entropy, 0.0)
    for index in range(MAX_VISITORS_PER_HOST + 1):
        reception.receive(knock(handshake(call().message)), index / MAX_PER_SECOND)
    assert (len(reception), reception.refused) == (MAX_VISITORS_PER_HOST, 1)
    other = knock(handshake(call().message), ("192.0.3.1", 1))
    assert isinstance(reception.receive(other, 2.1), Arrived)


def test_a_host_that_floods_leaves_room_for_others() -> None:
    reception = Reception(SERVER, system_entropy, 0.0)
    for index in range(3000):
        now = index / 1000
        reception.receive(knock(handshake(index.to_bytes(100, "big"))), now)
        if index % 100 == 99:
            other = knock(handshake(call().message), (f"192.0.3.{index // 100}", 1))
            assert isinstance(reception.receive(other, now), Arrived), f"at {now} s"
    assert reception.malformed <= (2 + 3 + 1) * MAX_PER_SECOND, "and costs us no more than before"


def test_a_relay_that_we_did_not_choose_is_one_host_whatever_it_says() -> None:
    reception = Reception(SERVER, system_entropy, 0.0, lambda relay: relay == RELAY)
    stranger = ("203.0.114.1", 49737)
    for index in range(MAX_VISITORS_PER_HOST + 9):
        client = (f"192.0.3.{index}", 1)
        reception.receive(knock(handshake(call().message), client, stranger), index / 64)
    assert (len(reception), reception.refused) == (MAX_VISITORS_PER_HOST, 9)
    chosen = knock(handshake(call().message), ("192.0.3.1", 1))
    assert isinstance(reception.receive(chosen, 2.2), Arrived)
