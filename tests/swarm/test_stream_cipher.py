from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import MalformedPacket
from swarm.frames import FrameDecoder
from swarm.stream_cipher import (
    NativePull,
    NativePush,
    PortablePull,
    PortablePush,
    create_pull,
    create_push,
)

VECTOR: dict[str, Any] = next(
    vector
    for vector in json.loads(
        (Path(__file__).parents[1] / "vectors/hypercore/noise.json").read_text()
    )
    if "stream" in vector
)
KEY = b"\x07" * 32
HEADER = b"\x08" * 24
PUSHES = [NativePush, PortablePush]
PULLS = [NativePull, PortablePull]


def split(stream: bytes) -> list[bytes]:
    decoder = FrameDecoder(2**24 - 1)
    decoder.add(stream)
    return decoder.take_all()


@pytest.mark.parametrize("push_class", PUSHES)
@pytest.mark.parametrize("pull_class", PULLS)
def test_sealed_messages_are_those_of_the_original(
    push_class: type[NativePush | PortablePush], pull_class: type[NativePull | PortablePull]
) -> None:
    key, header = bytes.fromhex(VECTOR["initiatorTx"]), bytes.fromhex(VECTOR["header"])
    messages = [bytes.fromhex(message["plain"]) for message in VECTOR["stream"]]
    frames = split(push_class(key, header).encrypt_frames(messages))
    assert [frame.hex() for frame in frames] == [message["cipher"] for message in VECTOR["stream"]]
    assert pull_class(key, header).decrypt(frames) == [message for message in messages if message]


@pytest.mark.parametrize("push_class", PUSHES)
@pytest.mark.parametrize("pull_class", PULLS)
def test_both_ways_of_calling_libsodium_agree_on_small_and_large_messages(
    push_class: type[NativePush | PortablePush], pull_class: type[NativePull | PortablePull]
) -> None:
    push, pull = push_class(KEY, HEADER), pull_class(KEY, HEADER)
    for size in (1, 100, 4096, 70_000, 1_000_000, 5, 300_000, 0, 17):
        messages = [bytes((size % 251,)) * size, b"next"]
        received = pull.decrypt(split(push.encrypt_frames(messages)))
        assert received == [message for message in messages if message]


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_round_trip_leaves_out_keep_alives(messages: list[bytes]) -> None:
    push, pull = create_push(KEY, HEADER), create_pull(KEY, HEADER)
    received = pull.decrypt(split(push.encrypt_frames(messages)))
    assert received == [message for message in messages if message]


@pytest.mark.parametrize("pull_class", PULLS)
@pytest.mark.parametrize("frame", [b"", bytes(16), bytes(17), bytes(100)])
def test_what_was_not_sealed_is_refused(
    pull_class: type[NativePull | PortablePull], frame: bytes
) -> None:
    with pytest.raises(MalformedPacket):
        pull_class(KEY, HEADER).decrypt([frame])


@pytest.mark.parametrize("pull_class", PULLS)
def test_a_message_left_out_breaks_the_stream(
    pull_class: type[NativePull | PortablePull],
) -> None:
    _, second = split(create_push(KEY, HEADER).encrypt_frames([b"one", b"two"]))
    with pytest.raises(MalformedPacket):
        pull_class(KEY, HEADER).decrypt([second])


@pytest.mark.parametrize("pull_class", PULLS)
@given(frames=st.lists(st.binary(max_size=64), max_size=4))
def test_any_bytes_give_the_documented_error(
    pull_class: type[NativePull | PortablePull], frames: list[bytes]
) -> None:
    pull = pull_class(KEY, HEADER)
    if frames:
        with pytest.raises(MalformedPacket):
            pull.decrypt(frames)
    else:
        assert pull.decrypt(frames) == []
