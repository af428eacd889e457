from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import encode_buffer, encode_string, encode_uint
from swarm.errors import MalformedPacket
from swarm.mux import (
    CONTROL,
    MAX_BATCH_BYTES,
    MAX_UNCLAIMED_BYTES,
    ChannelClosed,
    ChannelOpened,
    Control,
    Message,
    MessagesReceived,
    Mux,
    Output,
    RemoteOpened,
    RemoteWithdrew,
    Transmit,
    encode_frames,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors/hypercore/protomux.json").read_text()
)
FRAMES = {
    side: [bytes.fromhex(frame) for frame in frames] for side, frames in VECTORS["frames"].items()
}
PROTOCOL = "test/proto"
ID = b"\x01" * 32


def frames(outputs: list[Output]) -> list[bytes]:
    """What is to be written, each message a frame of its own."""
    return [
        frame
        for output in outputs
        if isinstance(output, Transmit)
        for frame in encode_frames([(output.channel, output.message_type, output.payload)])
    ]


def open_frame(number: int, protocol: str = PROTOCOL, handshake: bytes = b"") -> bytes:
    return b"\x00\x01" + encode_uint(number) + encode_string(protocol) + b"\x00" + handshake


def offers(outputs: list[Output]) -> list[int]:
    return [output.offer for output in outputs if isinstance(output, RemoteOpened)]


def test_the_worked_example() -> None:
    frame = bytes.fromhex("000001 04 00 6f6e65 02 01 05")
    assert encode_frames([(1, 0, b"one"), (1, 1, b"\x05")]) == [frame]


def test_a_conversation_with_the_original_byte_for_byte() -> None:
    mux = Mux()
    number, outputs = mux.open(PROTOCOL, ID, encode_uint(7))
    unknown, more = mux.open("unknown", None)
    assert frames(outputs + more) == FRAMES["a"][:2]
    events: list[Output] = []
    for frame in FRAMES["b"][:2]:
        events += mux.receive(frame)
    assert events == [
        ChannelOpened(number, encode_uint(300)),
        ChannelClosed(unknown, was_rejected=True),
    ]
    assert encode_frames([(number, 0, b"\x02hi")]) == [FRAMES["a"][2]]
    third, (opening,) = mux.open("third", None)
    assert third == unknown
    assert isinstance(opening, Transmit)
    batch = [
        (number, 0, b"\x03one"),
        (number, 1, b"\x02"),
        (opening.channel, opening.message_type, opening.payload),
        (third, 0, b"\x09"),
        (number, 1, b"\xfe\x70\x11\x01\x00"),
    ]
    assert encode_frames(batch) == [FRAMES["a"][3]]
    assert mux.receive(FRAMES["b"][2]) == [ChannelClosed(third, was_rejected=True)]
    assert frames(mux.close(number)) == [FRAMES["a"][4]]


def test_the_other_side_of_that_conversation() -> None:
    mux = Mux()
    number, outputs = mux.open(PROTOCOL, ID, encode_uint(300))
    assert frames(outputs) == [FRAMES["b"][0]]
    events: list[Output] = []
    for frame in FRAMES["a"]:
        events += mux.receive(frame)
    received = [event for event in events if isinstance(event, MessagesReceived)]
    assert [message for event in received for message in event.messages] == [
        (0, b"\x02hi"),
        (0, b"\x03one"),
        (1, b"\x02"),
        (1, b"\xfe\x70\x11\x01\x00"),
    ]
    assert events[0] == ChannelOpened(number, encode_uint(7))
    assert events[-1] == ChannelClosed(number, was_rejected=False)
    assert frames(events)[0] == FRAMES["b"][1]


def test_runs_of_one_channel_are_not_repeated_in_a_batch() -> None:
    batch = [(1, 0, b"a"), (1, 0, b"b"), (2, 5, b"c"), (0, Control.CLOSE, b"\x03")]
    (frame,) = encode_frames(batch)
    assert frame == bytes.fromhex("0000 01 020061 020062 00 02 020563 00 00 020303")


def test_a_long_queue_becomes_frames_of_a_bounded_size() -> None:
    payload = bytes(MAX_BATCH_BYTES // 3)
    encoded = encode_frames([(1, 0, payload)] * 7)
    assert len(encoded) == 3
    assert all(len(frame) < MAX_BATCH_BYTES + 100 for frame in encoded)
    large = bytes(3 * MAX_BATCH_BYTES)
    assert [len(frame) > len(large) for frame in encode_frames([(1, 0, b"x"), (1, 0, large)])] == [
        False,
        True,
    ]
    assert encode_frames([]) == []


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(0, 300), st.binary(max_size=300)), max_size=30
    )
)
def test_batches_round_trip(messages: list[tuple[int, int, bytes]]) -> None:
    mux = Mux([PROTOCOL])
    for number in range(1, 301):
        (offer,) = offers(mux.receive(open_frame(number)))
        mux.open(PROTOCOL, None)
        assert not mux.is_offered(offer)
    received: list[tuple[int, int, bytes]] = []
    for frame in encode_frames(messages):
        for output in mux.receive(frame):
            assert isinstance(output, MessagesReceived)
            received += [(output.number, *message) for message in output.messages]
    assert received == messages


def test_large_batches_are_unpacked_in_steps() -> None:
    mux = Mux()
    number, _ = mux.open(PROTOCOL, None)
    mux.receive(open_frame(1))
    (frame,) = encode_frames([(1, 0, b"")] * 10_000)
    steps = [mux.receive(frame)]
    while mux.has_more:
        steps.append(mux.resume())
    counts = [len(output.messages) for (output,) in steps if isinstance(output, MessagesReceived)]
    assert len(counts) == 3
    assert sum(counts) == 10_000
    assert mux.resume() == []
    assert number == 1


def test_an_open_waits_for_the_other_side_with_its_messages() -> None:
    mux = Mux([PROTOCOL])
    (opened,) = mux.receive(open_frame(1, handshake=b"hello"))
    assert isinstance(opened, RemoteOpened)
    assert (opened.protocol, opened.id, opened.handshake) == (PROTOCOL, None, b"hello")
    assert mux.receive(b"\x01\x00early") == []
    number, outputs = mux.open(PROTOCOL, None)
    assert outputs[1:] == [
        ChannelOpened(number, b"hello"),
        MessagesReceived(number, [(0, b"early")]),
    ]
    assert mux.receive(b"\x01\x02later") == [MessagesReceived(number, [(2, b"later")])]


def test_aliases_widen_the_lookup_on_our_side_whoever_comes_first() -> None:
    mux = Mux(["old"])
    number, _ = mux.open("new", ID, aliases=["old"])
    frame = b"\x00\x01\x01" + encode_string("old") + encode_buffer(ID) + b"hs"
    assert mux.receive(frame) == [ChannelOpened(number, b"hs")]
    mux = Mux(["old"])
    mux.receive(frame)
    number, outputs = mux.open("new", ID, aliases=["old"])
    assert outputs[1:] == [ChannelOpened(number, b"hs")]
    # An answered channel leaves no alias behind.
    assert frames(Mux().receive(frame)) == [b"\x00\x02\x01"]


def test_protocols_that_nobody_accepts_are_rejected_at_once() -> None:
    mux = Mux()
    assert frames(mux.receive(open_frame(1))) == [b"\x00\x02\x01"]
    assert frames(mux.receive(open_frame(1))) == [b"\x00\x02\x01"], "the number is free again"
    assert frames(mux.receive(open_frame(2))) == [b"\x00\x02\x02"]
    assert frames(mux.receive(open_frame(0))) == [b"\x00\x02\x00"]


def test_rejecting_an_offer() -> None:
    mux = Mux([PROTOCOL])
    (offer,) = offers(mux.receive(open_frame(1)))
    assert frames(mux.reject(offer)) == [b"\x00\x02\x01"]
    assert mux.reject(offer) == []
    assert mux.receive(b"\x01\x00late") == []
    (again,) = offers(mux.receive(open_frame(1)))
    assert again != offer
    assert frames(mux.reject_all(PROTOCOL)) == [b"\x00\x02\x01"]
    assert frames(mux.receive(open_frame(1))) == [b"\x00\x02\x01"]


def test_an_offer_that_the_remote_takes_back_is_answered_so_that_its_number_is_free() -> None:
    mux = Mux([PROTOCOL])
    (offer,) = offers(mux.receive(open_frame(1)))
    outputs = mux.receive(b"\x00\x03\x01")
    assert frames(outputs) == [b"\x00\x02\x01"]
    assert outputs[-1] == RemoteWithdrew(offer)
    assert not mux.is_offered(offer)


def test_remote_numbers_grow_by_one_and_are_used_once_at_a_time() -> None:
    with pytest.raises(MalformedPacket, match="opened after"):
        Mux([PROTOCOL]).receive(open_frame(2))
    mux = Mux([PROTOCOL])
    mux.receive(open_frame(1))
    with pytest.raises(MalformedPacket, match="twice"):
        mux.receive(open_frame(1))
    with pytest.raises(MalformedPacket, match="before"):
        mux.receive(open_frame(2))


def test_our_numbers_are_reused_last_first_and_only_when_the_remote_answered() -> None:
    mux = Mux()
    numbers = [mux.open(f"p{i}", None)[0] for i in range(3)]
    assert numbers == [1, 2, 3]
    mux.close(2)
    assert mux.close(2) == []
    assert mux.open("another", None)[0] == 4, "the remote has not answered number 2"
    assert mux.receive(b"\x00\x02\x02") == []
    assert mux.receive(b"\x00\x02\x01") == [ChannelClosed(1, was_rejected=True)]
    assert [mux.open("more", None)[0] for _ in range(2)] == [1, 2]


def test_an_open_that_crosses_our_close_is_ignored() -> None:
    mux = Mux([PROTOCOL])
    number, _ = mux.open(PROTOCOL, None)
    mux.close(number)
    assert mux.receive(open_frame(1)) == []
    assert mux.receive(b"\x01\x00ignored") == []
    assert mux.receive(b"\x00\x03\x01") == []
    assert mux.open(PROTOCOL, None)[0] == number


def test_messages_that_cross_our_close_are_ignored() -> None:
    mux = Mux()
    number, _ = mux.open(PROTOCOL, None)
    mux.receive(open_frame(1))
    mux.close(number)
    assert mux.receive(b"\x01\x00ignored") == []
    assert mux.receive(b"\x00\x03\x01") == []


def test_unknown_channels_and_control_types_are_ignored() -> None:
    mux = Mux()
    assert mux.receive(b"\x09\x00hello") == []
    assert mux.receive(b"\x00\x09hello") == []
    assert mux.receive(b"\x00\x03\x09") == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x00\x00",  # a batch without a channel
        b"\x00\x00\x01\x05\x00",  # a message longer than its frame
        b"\x00\x00\x01\x00",  # a change to no channel
        b"\x00\x00\x00\x04\x00\x01\x01\x00",  # a batch in a batch
        b"\x00\x02\x01",  # a reject of what was not offered
        b"\x00\x01\x01\x02\xff\xfe",  # a protocol that is no text
        b"\x00\x01\x01\x40abc",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
    ],
)
def test_malformed_frames_fail_it_for_good(frame: bytes) -> None:
    mux = Mux([PROTOCOL])
    with pytest.raises(MalformedPacket):
        mux.receive(frame)
    with pytest.raises(MalformedPacket):
        mux.receive(b"\x09\x00fine")


def test_a_flood_of_opens_congests_it_until_they_are_answered() -> None:
    mux = Mux([PROTOCOL])
    waiting: list[int] = []
    while not mux.is_congested:
        waiting += offers(mux.receive(open_frame(len(waiting) + 1)))
    assert len(waiting) <= MAX_UNCLAIMED_BYTES // 512 + 1
    assert frames(mux.reject(waiting[0]))
    assert mux.is_congested is False


def test_messages_behind_an_unanswered_open_congest_it() -> None:
    mux = Mux([PROTOCOL])
    mux.receive(open_frame(1))
    mux.receive(b"\x01\x00" + bytes(MAX_UNCLAIMED_BYTES))
    before = mux.is_congested
    number, outputs = mux.open(PROTOCOL, None)
    assert (before, mux.is_congested) == (True, False)
    assert outputs[-1] == MessagesReceived(number, [(0, bytes(MAX_UNCLAIMED_BYTES))])


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_give_outputs_or_the_documented_error(received: list[bytes]) -> None:
    mux = Mux(["a", PROTOCOL])
    mux.open(PROTOCOL, None)
    mux.open("b", ID, aliases=["a"])
    try:
        for frame in received:
            mux.receive(frame)
            while mux.has_more:
                mux.resume()
    except MalformedPacket:
        with pytest.raises(MalformedPacket):
            mux.receive(b"\x09\x00")


@dataclass
class Side:
    """A machine whose opens, closes and messages travel at the test's pace."""

    mux: Mux = field(default_factory=lambda: Mux(["p"]))
    wire: list[bytes] = field(default_factory=list)
    opening: set[int] = field(default_factory=set)
    open: dict[int, list[Message]] = field(default_factory=dict)
    offers: list[int] = field(default_factory=list)

    def handle(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case ChannelOpened(number, _):
                    self.opening.remove(number)
                    self.open[number] = []
                case ChannelClosed(number, was_rejected):
                    if was_rejected:
                        self.opening.remove(number)
                    else:
                        del self.open[number]
                case MessagesReceived(number, messages):
                    self.open[number] += messages
                case RemoteOpened(offer=offer):
                    self.offers.append(offer)
                case RemoteWithdrew(offer):
                    self.offers.remove(offer)
                case Transmit():
                    self.wire += frames([output])

    def step(self, action: str, other: Side) -> None:
        match action:
            case "open":
                number, outputs = self.mux.open("p", None)
                self.opening.add(number)
                self.handle(outputs)
            case "close open" if self.open:
                number = min(self.open)
                del self.open[number]
                self.handle(self.mux.close(number))
            case "close opening" if self.opening:
                number = min(self.opening)
                self.opening.remove(number)
                self.handle(self.mux.close(number))
            case "reject" if self.offers:
                self.handle(self.mux.reject(self.offers.pop(0)))
            case "send" if self.open:
                self.wire += encode_frames([(max(self.open), 0, b"m")])
            case "deliver" if self.wire:
                other.handle(other.mux.receive(self.wire.pop(0)))
            case _:
                pass
        self.offers = [offer for offer in self.offers if self.mux.is_offered(offer)]


ACTIONS = ["open", "close open", "close opening", "reject", "send", "deliver", "deliver", "deliver"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(ACTIONS)), max_size=80))
def test_two_machines_never_disagree_whatever_crosses(steps: list[tuple[bool, str]]) -> None:
    sides = (Side(), Side())
    for is_first, action in steps:
        here, there = sides if is_first else sides[::-1]
        here.step(action, there)
    while sides[0].wire or sides[1].wire:
        sides[0].step("deliver", sides[1])
        sides[1].step("deliver", sides[0])
    assert len(sides[0].open) == len(sides[1].open)
    for here, there in (sides, sides[::-1]):
        assert len(here.opening) == len(there.offers), "an open is offered, or else answered"
        for number in here.open:
            before = sum(map(len, there.open.values()))
            for frame in encode_frames([(number, 1, b"last")]):
                there.handle(there.mux.receive(frame))
            assert sum(map(len, there.open.values())) == before + 1
    assert CONTROL not in sides[0].open
