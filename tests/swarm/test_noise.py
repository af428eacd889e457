from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from swarm.errors import HandshakeFailed
from swarm.noise.handshake import Handshake, Pattern

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors/hypercore/noise.json").read_text()
)
INITIATOR = KeyPair.from_seed(b"\x01" * 32)
RESPONDER = KeyPair.from_seed(b"\x02" * 32)


def fixed(seed: str) -> Callable[[int], bytes]:
    return lambda _: bytes.fromhex(seed)


def create_pair(pattern: Pattern, prologue: bytes = b"") -> tuple[Handshake, Handshake]:
    known = RESPONDER.public_key if pattern is Pattern.IK else None
    return (
        Handshake(
            pattern, INITIATOR, is_initiator=True, prologue=prologue, remote_public_key=known
        ),
        Handshake(pattern, RESPONDER, is_initiator=False, prologue=prologue),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["protocol"]))
def test_messages_and_keys_are_those_of_the_original(vector: dict[str, Any]) -> None:
    pattern = Pattern[vector["protocol"].split("_")[1]]
    seeds = vector["seeds"]
    responder_static = KeyPair.from_seed(bytes.fromhex(seeds["staticResponder"]))
    prologue = bytes.fromhex(vector["prologue"])
    initiator = Handshake(
        pattern,
        KeyPair.from_seed(bytes.fromhex(seeds["staticInitiator"])),
        is_initiator=True,
        prologue=prologue,
        remote_public_key=responder_static.public_key if pattern is Pattern.IK else None,
        entropy=fixed(seeds["ephemeralInitiator"]),
    )
    responder = Handshake(
        pattern,
        responder_static,
        is_initiator=False,
        prologue=prologue,
        entropy=fixed(seeds["ephemeralResponder"]),
    )
    sender, receiver = initiator, responder
    for message in vector["messages"]:
        payload = bytes.fromhex(message["payload"])
        sent = sender.send(payload)
        assert sent.hex() == message["hex"]
        assert receiver.receive(sent) == payload
        sender, receiver = receiver, sender
    assert initiator.result is not None
    assert responder.result is not None
    assert initiator.result.handshake_hash.hex() == vector["hash"]
    assert responder.result.handshake_hash.hex() == vector["hash"]
    assert initiator.result.send_key.hex() == vector["initiatorTx"]
    assert initiator.result.receive_key.hex() == vector["initiatorRx"]
    assert responder.result.send_key.hex() == vector["initiatorRx"]
    assert responder.result.receive_key.hex() == vector["initiatorTx"]
    assert initiator.result.remote_public_key == responder_static.public_key


def test_message_sizes_of_xx_are_the_documented_ones() -> None:
    initiator, responder = create_pair(Pattern.XX)
    first = initiator.send()
    responder.receive(first)
    second = responder.send()
    initiator.receive(second)
    third = initiator.send()
    assert [len(first), len(second), len(third)] == [32, 96, 64]


def test_ik_with_the_wrong_key_of_the_responder_fails_at_the_responder() -> None:
    initiator = Handshake(
        Pattern.IK, INITIATOR, is_initiator=True, remote_public_key=INITIATOR.public_key
    )
    responder = Handshake(Pattern.IK, RESPONDER, is_initiator=False)
    with pytest.raises(HandshakeFailed):
        responder.receive(initiator.send())


def test_different_prologues_do_not_agree() -> None:
    initiator = Handshake(Pattern.XX, INITIATOR, is_initiator=True, prologue=b"one")
    responder = Handshake(Pattern.XX, RESPONDER, is_initiator=False, prologue=b"two")
    responder.receive(initiator.send())
    with pytest.raises(HandshakeFailed):
        initiator.receive(responder.send())


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_an_unusable_public_key_fails_the_handshake(point: bytes) -> None:
    responder = Handshake(Pattern.XX, RESPONDER, is_initiator=False)
    responder.receive(point)
    with pytest.raises(HandshakeFailed):
        responder.send()


def test_out_of_turn_calls_fail_and_leave_it_failed() -> None:
    initiator, responder = create_pair(Pattern.XX)
    with pytest.raises(HandshakeFailed):
        responder.send()
    with pytest.raises(HandshakeFailed):
        initiator.receive(bytes(96))
    initiator, responder = create_pair(Pattern.XX)
    responder.receive(initiator.send())
    damaged = bytearray(responder.send())
    damaged[-1] ^= 1
    for _ in range(2):
        with pytest.raises(HandshakeFailed):
            initiator.receive(bytes(damaged))
    with pytest.raises(HandshakeFailed):
        initiator.send()


def test_only_iks_initiator_is_given_the_remote_key() -> None:
    with pytest.raises(ValueError, match="beforehand"):
        Handshake(Pattern.IK, INITIATOR, is_initiator=True)
    with pytest.raises(ValueError, match="beforehand"):
        Handshake(Pattern.XX, INITIATOR, is_initiator=True, remote_public_key=RESPONDER.public_key)


@given(
    pattern=st.sampled_from(Pattern),
    is_initiator=st.booleans(),
    messages=st.lists(st.binary(max_size=120), min_size=1, max_size=3),
)
def test_any_bytes_give_a_payload_or_the_documented_error(
    pattern: Pattern, is_initiator: bool, messages: list[bytes]
) -> None:
    pair = create_pair(pattern)
    machine = pair[0] if is_initiator else pair[1]
    try:
        for message in messages:
            if is_initiator:
                machine.send()
            machine.receive(message)
            if not is_initiator:
                machine.send()
    except HandshakeFailed:
        pass
    else:
        assert machine.result is None or pattern is Pattern.XX
