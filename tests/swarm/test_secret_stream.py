from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from swarm.errors import HandshakeFailed, MalformedPacket
from swarm.frames import encode_frame
from swarm.secret_stream import (
    HANDSHAKE_SECONDS,
    KEEP_ALIVE_SECONDS,
    MessagesReceived,
    Opened,
    Output,
    SecretStream,
    Transmit,
)
from swarm.stream_cipher import MAX_MESSAGE_BYTES

INITIATOR = KeyPair.from_seed(b"\x01" * 32)
RESPONDER = KeyPair.from_seed(b"\x02" * 32)


def create_pair(now: float = 0.0) -> tuple[SecretStream, SecretStream]:
    return (
        SecretStream(INITIATOR, is_initiator=True, now=now),
        SecretStream(RESPONDER, is_initiator=False, now=now),
    )


def wire(outputs: list[Output]) -> bytes:
    return b"".join(output.data for output in outputs if isinstance(output, Transmit))


def messages(outputs: list[Output]) -> list[bytes]:
    return [
        message
        for output in outputs
        if isinstance(output, MessagesReceived)
        for message in output.messages
    ]


def handshake_flights(left: SecretStream, right: SecretStream) -> list[bytes]:
    """The four flights of a handshake; both are open afterwards."""
    first = wire(left.start())
    second = wire(right.receive(first, 0.0))
    outputs = left.receive(second, 0.0)
    third = wire(outputs)
    assert isinstance(outputs[-1], Opened)
    outputs = right.receive(third, 0.0)
    fourth = wire(outputs)
    assert isinstance(outputs[-1], Opened)
    assert left.receive(fourth, 0.0) == []
    return [first, second, third, fourth]


def open_pair() -> tuple[SecretStream, SecretStream]:
    left, right = create_pair()
    handshake_flights(left, right)
    return left, right


def test_both_ends_learn_the_same_hash_and_the_other_key() -> None:
    left, right = create_pair()
    second = right.receive(wire(left.start()), 0.0)
    third = left.receive(wire(second), 0.0)
    *_, right_opened = right.receive(wire(third), 0.0)
    fourth = right_opened
    assert isinstance(fourth, Opened)
    assert fourth.remote_public_key == INITIATOR.public_key
    assert len(fourth.handshake_hash) == 64


def test_flights_have_the_documented_sizes() -> None:
    assert [len(flight) for flight in handshake_flights(*create_pair())] == [35, 99, 67 + 59, 59]


def test_messages_in_both_directions_keep_alives_are_dropped() -> None:
    left, right = open_pair()
    sent = wire(left.send([b"one", b"", b"two" * 1000], 1.0))
    assert messages(right.receive(sent, 1.0)) == [b"one", b"two" * 1000]
    assert right.receive(wire(left.send([b""], 1.0)), 1.0) == []
    assert right.messages_received == left.messages_sent == 4
    assert messages(left.receive(wire(right.send([b"reply"], 1.0)), 1.0)) == [b"reply"]


def test_every_split_point_of_the_whole_conversation() -> None:
    # The same bytes for every cut: the initiator is replayed, so its randomness must not vary.
    def entropy(size: int) -> bytes:
        return b"\x05" * size

    def conversation(cut: int) -> tuple[int, list[bytes]]:
        left = SecretStream(INITIATOR, is_initiator=True, now=0.0, entropy=entropy)
        right = SecretStream(RESPONDER, is_initiator=False, now=0.0, entropy=entropy)
        received: list[bytes] = []
        total = 0
        to_right = wire(left.start())
        for payloads in ([], [], [b"a", b"bb" * 30], [b"c"]):
            total += len(to_right)
            position = min(max(cut - (total - len(to_right)), 0), len(to_right))
            reply: list[Output] = []
            for part in (to_right[:position], to_right[position:]):
                outputs = right.receive(part, 0.0)
                received += messages(outputs)
                reply += outputs
            to_right = wire(left.receive(wire(reply), 0.0))
            if payloads:
                to_right += wire(left.send(payloads, 0.0))
        received += messages(right.receive(to_right, 0.0))
        return total, received

    total, expected = conversation(0)
    assert expected == [b"a", b"bb" * 30, b"c"]
    for cut in range(total + 1):
        assert conversation(cut) == (total, expected)


def test_messages_right_behind_the_header_arrive() -> None:
    left, right = create_pair()
    second = wire(right.receive(wire(left.start()), 0.0))
    third = wire(left.receive(second, 0.0))
    fourth = wire(right.receive(third, 0.0)) + wire(right.send([b"early"], 0.0))
    assert left.receive(fourth, 0.0) == [MessagesReceived([b"early"])]


def test_an_initiator_speaks_a_round_trip_early() -> None:
    left, right = create_pair()
    second = wire(right.receive(wire(left.start()), 0.0))
    third = wire(left.receive(second, 0.0)) + wire(left.send([b"early"], 0.0))
    *_, opened, received = right.receive(third, 0.0)
    assert isinstance(opened, Opened)
    assert received == MessagesReceived([b"early"])


def test_an_initiator_waits_for_the_header_no_longer_than_for_the_handshake() -> None:
    left, right = create_pair()
    left.receive(wire(right.receive(wire(left.start()), 0.0)), 0.0)
    left.send([b"x"], 9.0)
    assert left.deadline == HANDSHAKE_SECONDS
    with pytest.raises(MalformedPacket, match="handshake"):
        left.advance(HANDSHAKE_SECONDS)


def test_the_handshake_is_given_up_in_time() -> None:
    left, _ = create_pair(now=100.0)
    left.start()
    assert left.deadline == 100.0 + HANDSHAKE_SECONDS
    assert left.advance(109.0) == []
    with pytest.raises(HandshakeFailed):
        left.advance(110.0)
    assert left.deadline is None


def test_silence_is_broken_by_keep_alives() -> None:
    left, _ = open_pair()
    left.send([b"x"], 7.0)
    assert left.deadline == 7.0 + KEEP_ALIVE_SECONDS
    assert left.advance(11.0) == []
    assert len(wire(left.advance(12.0))) == 3 + 17
    assert left.deadline == 12.0 + KEEP_ALIVE_SECONDS


def test_strangers_cannot_announce_large_frames() -> None:
    _, right = create_pair()
    with pytest.raises(HandshakeFailed, match="129"):
        right.receive((129).to_bytes(3, "little"), 0.0)


def test_a_configured_limit_holds_for_messages() -> None:
    left = SecretStream(INITIATOR, is_initiator=True, now=0.0)
    right = SecretStream(RESPONDER, is_initiator=False, now=0.0, max_message_bytes=1000)
    handshake_flights(left, right)
    right.receive(wire(left.send([bytes(1000)], 0.0)), 0.0)
    with pytest.raises(MalformedPacket):
        right.receive(wire(left.send([bytes(1001)], 0.0))[:3], 0.0)


def test_a_header_for_another_stream_is_refused() -> None:
    left, right = create_pair()
    second = wire(right.receive(wire(left.start()), 0.0))
    third = wire(left.receive(second, 0.0))
    noise, header = third[:67], third[67:]
    damaged = header[:3] + bytes((header[3] ^ 1,)) + header[4:]
    with pytest.raises(HandshakeFailed, match="header"):
        right.receive(noise + damaged, 0.0)
    with pytest.raises(MalformedPacket):
        right.receive(header, 0.0)


def test_a_header_of_another_size_is_refused() -> None:
    left, right = create_pair()
    second = wire(right.receive(wire(left.start()), 0.0))
    third = wire(left.receive(second, 0.0))
    with pytest.raises(HandshakeFailed, match="header of 55"):
        right.receive(third[:67] + encode_frame(bytes(55)), 0.0)


def test_a_hang_up_during_the_handshake_fails_it() -> None:
    left, right = create_pair()
    first = wire(left.start())
    with pytest.raises(HandshakeFailed):
        left.receive_end()
    _, right = create_pair()
    right.receive(first[:10], 0.0)
    with pytest.raises(HandshakeFailed):
        right.receive_end()


def test_a_hang_up_between_messages_is_fine_and_within_one_is_not() -> None:
    left, right = open_pair()
    right.receive_end()
    right.receive(wire(left.send([b"x"], 0.0))[:-1], 0.0)
    with pytest.raises(MalformedPacket):
        right.receive_end()


def test_a_message_that_is_too_long_takes_nothing_from_the_others() -> None:
    left, right = open_pair()
    with pytest.raises(ValueError, match="at most 16777198"):
        left.send([b"one", bytes(MAX_MESSAGE_BYTES + 1)], 0.0)
    whole = bytes(MAX_MESSAGE_BYTES)
    assert messages(right.receive(wire(left.send([b"two", whole], 0.0)), 0.0)) == [b"two", whole]


def test_nothing_is_sent_before_it_is_open() -> None:
    left, _ = create_pair()
    with pytest.raises(MalformedPacket):
        left.send([b"x"], 0.0)


@given(
    stage=st.integers(0, 3),
    is_initiator=st.booleans(),
    chunks=st.lists(st.binary(max_size=300), max_size=5),
)
def test_any_bytes_in_any_state_give_outputs_or_the_documented_error(
    stage: int, is_initiator: bool, chunks: list[bytes]
) -> None:
    left, right = create_pair()
    to_right = wire(left.start())
    for _ in range(stage):
        to_right = wire(left.receive(wire(right.receive(to_right, 0.0)), 0.0))
    machine = left if is_initiator else right
    try:
        for chunk in chunks:
            outputs = machine.receive(chunk, 0.0)
            assert not any(isinstance(output, Opened) for output in outputs)
            assert not messages(outputs)
    except (HandshakeFailed, MalformedPacket):
        with pytest.raises(MalformedPacket):
            machine.receive(b"", 0.0)
