from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair, system_entropy
from hypercore.encoding import DecodeError
from swarm.dht.peer_messages import (
    MAX_ADDRESSES,
    MAX_SEALED_BYTES,
    Mode,
    NatKind,
    PeerHandshake,
    PeerHolepunch,
    PeerOffer,
    PunchOffer,
    PunchRound,
    RelayPair,
    RelayThrough,
    StreamOffer,
)
from swarm.dht.peer_noise import CallerNoise, PunchBox, ServerNoise
from swarm.errors import HandshakeFailed
from swarm.noise.sealed import seal, unseal
from tests.support.dht_vectors import PEER_VECTORS

A = ("192.0.2.1", 49737)
B = ("203.0.113.200", 1)
STREAM = StreamOffer(0xFEDCBA98, 5, True)

EXPECTED: dict[str, list[Any]] = {
    "handshakes": [
        PeerHandshake(Mode.FROM_CLIENT, b"\x01\x02"),
        PeerHandshake(Mode.FROM_RELAY, b"\x07" * 300, A),
        PeerHandshake(Mode.FROM_SECOND_RELAY, b"\x08" * 5, A, B),
        PeerHandshake(Mode.REPLY, b"\x09" * 9, B),
    ],
    "punches": [
        PeerHolepunch(Mode.FROM_CLIENT, 0, b"\x03" * 40, A),
        PeerHolepunch(Mode.FROM_SERVER, 70000, b"\x04" * 90, B),
        PeerHolepunch(Mode.REPLY, 3, b"\x05"),
    ],
    "offers": [
        PeerOffer(stream=STREAM),
        PeerOffer(
            NatKind.OPEN,
            punch=PunchOffer(9, (RelayPair(A, B),)),
            addresses=(A, B),
            stream=StreamOffer(1),
            relay_through=RelayThrough(b"\x01" * 32, b"\x02" * 32),
            relay_addresses=(B,),
        ),
        PeerOffer(NatKind.RANDOM, 2, has_secret_stream=False),
    ],
    "rounds": [
        PunchRound(),
        PunchRound(NatKind.CONSISTENT, 30, 0, True, True, (A, B), B, b"\x03" * 32, b"\x04" * 32),
        PunchRound(NatKind.RANDOM, 1, 3, False, True, (), None, None, b"\x05" * 32),
    ],
}
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "handshakes": PeerHandshake.decode,
    "punches": PeerHolepunch.decode,
    "offers": PeerOffer.decode,
    "rounds": PunchRound.decode,
}


@pytest.mark.parametrize("kind", DECODERS)
def test_the_bytes_are_those_of_the_originals(kind: str) -> None:
    encoded = [bytes.fromhex(text) for text in PEER_VECTORS[kind]]
    assert [DECODERS[kind](data) for data in encoded] == EXPECTED[kind]
    assert [value.encode() for value in EXPECTED[kind]] == encoded


@pytest.mark.parametrize("kind", DECODERS)
def test_every_part_of_a_message_is_less_than_the_message(kind: str) -> None:
    for text in PEER_VECTORS[kind]:
        data = bytes.fromhex(text)
        for stop in range(len(data)):
            with pytest.raises(DecodeError):
                DECODERS[kind](data[:stop])


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.binary(max_size=120))
def test_any_bytes_are_a_message_or_not(kind: str, data: bytes) -> None:
    try:
        value = DECODERS[kind](data)
    except DecodeError:
        return
    assert DECODERS[kind](value.encode()) == value


def test_the_worked_example() -> None:
    assert PeerHandshake(Mode.FROM_CLIENT, b"\x01\x02").encode().hex(" ") == "00 00 02 01 02"


def test_lists_and_sealed_bytes_are_bounded() -> None:
    crowd = PeerOffer(addresses=(A,) * 100, stream=STREAM)
    assert PeerOffer.decode(crowd.encode()).addresses == (A,) * MAX_ADDRESSES
    assert PeerOffer.decode(crowd.encode()).stream == STREAM, "what follows is read all the same"
    too_long = PeerHandshake(Mode.FROM_CLIENT, bytes(MAX_SEALED_BYTES + 1)).encode()
    with pytest.raises(DecodeError):
        PeerHandshake.decode(too_long)
    with pytest.raises(DecodeError):
        PeerHandshake.decode(PeerHandshake(Mode.FROM_CLIENT, b"").encode())
    with pytest.raises(DecodeError):
        PeerHandshake.decode(b"\x00\x05\x01\x01")  # mode 5


def test_a_version_that_is_not_known_is_told_and_not_read() -> None:
    assert PeerOffer.decode(b"\x02\xff\xff") == PeerOffer(has_secret_stream=False, version=2)
    worse = PeerOffer.decode(b"\x01\x00\x00\x09")
    assert worse.nat is NatKind.RANDOM


def test_a_message_of_the_original_is_answered() -> None:
    vector = PEER_VECTORS["noise"]
    server = KeyPair.from_seed(bytes.fromhex(vector["server"]))
    noise = ServerNoise(server, bytes.fromhex(vector["message"]), system_entropy)
    assert noise.remote_public_key.hex() == vector["caller"]
    assert noise.offer == PeerOffer(NatKind.CONSISTENT, addresses=(A,), stream=STREAM)


def test_both_ends_agree_and_a_forged_answer_spoils_nothing() -> None:
    server, caller = KeyPair.from_seed(b"\x01" * 32), KeyPair.from_seed(b"\x02" * 32)
    calling = CallerNoise(caller, server.public_key, PeerOffer(stream=STREAM), system_entropy)
    served = ServerNoise(server, calling.message, system_entropy)
    assert served.offer.stream == STREAM
    answer, theirs = served.answer(PeerOffer(stream=StreamOffer(7)))
    for forged in (b"", bytes(32), answer[:-1], bytes([answer[0] ^ 1]) + answer[1:], answer + b"x"):
        with pytest.raises(HandshakeFailed):
            calling.receive(forged)
    offer, ours = calling.receive(answer)
    assert offer.stream == StreamOffer(7)
    assert ours.handshake_hash == theirs.handshake_hash
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)

    box, other = PunchBox(ours, system_entropy), PunchBox(theirs, system_entropy)
    said = PunchRound(NatKind.RANDOM, 4, addresses=(A,))
    assert other.unseal(box.seal(said)) == said
    sealed = box.seal(said)
    assert other.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert other.unseal(b"short") is None
    assert box.is_token(box.token(A), (A[0], 5)), "it is bound to the host, not to the port"
    assert not box.is_token(box.token(A), B)
    assert not other.is_token(box.token(A), A)
    assert not box.is_token(None, A)


def test_what_the_original_sealed_is_unsealed() -> None:
    vector = PEER_VECTORS["sealed"]
    opened = unseal(bytes.fromhex(vector["message"]), bytes.fromhex(vector["secret"]))
    assert opened is not None
    assert PunchRound.decode(opened) == PunchRound(
        NatKind.OPEN, 2, is_punching=True, addresses=(B,), token=b"\x09" * 32
    )
    assert unseal(seal(b"x", bytes(32), system_entropy), b"\x01" * 32) is None
