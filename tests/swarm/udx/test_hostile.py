"""Any packets, in any state: outputs come out, and nothing grows beyond its bounds."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from swarm.udx.outputs import Closed, Gone, Output
from swarm.udx.packet import Packet, decode_packet
from swarm.udx.path import Path
from swarm.udx.receiver import WINDOW_BYTES
from swarm.udx.stream import State, UdxStream
from tests.support.udx_stranger import hostile_datagram

PATH = Path(7, ("peer", 1))
u32 = st.integers(0, 2**32 - 1)
near = st.integers(0, 30) | u32
packets = st.builds(
    Packet,
    flags=st.integers(0, 255),
    stream_id=st.just(1),
    window=st.sampled_from([0, 1, 1000, 2**22, 2**32 - 1]),
    seq=near,
    ack=near,
    sacks=st.lists(st.tuples(near, near), max_size=4),
    payload=st.binary(max_size=3),
)
actions = st.one_of(
    st.lists(packets, max_size=4),
    st.sampled_from(["connect", "send", "end", "message", "read", "change", "destroy"]),
    st.floats(0, 40),
)


def act(stream: UdxStream, action: str, now: float) -> list[Output]:
    match action:
        case "connect":
            return stream.connect(PATH, now)
        case "send":
            return stream.send(bytes(5000), now)
        case "end":
            return stream.send_end(now)
        case "message":
            return stream.send_message(b"hi")
        case "read":
            stream.read(1000)
            return stream.update_window()
        case "change":
            return stream.change_remote(Path(8, ("peer", 2)), now)
        case _:
            return stream.destroy(now)


@given(st.lists(actions, max_size=40), st.booleans())
def test_every_input_in_every_state(
    inputs: list[list[Packet] | str | float], connect: bool
) -> None:
    now = 0.0
    stream = UdxStream(1, now=now, entropy=bytes)
    outputs: list[Output] = stream.connect(PATH, now) if connect else []
    for given_input in inputs:
        match given_input:
            case str():
                try:
                    outputs += act(stream, given_input, now)
                except RuntimeError:
                    assert stream.state is not State.CONNECTED or given_input in ("connect", "send")
            case float():
                now += given_input
                outputs += stream.advance(now)
            case _:
                outputs += stream.receive(given_input, now)
        deadline = stream.deadline
        assert (deadline is None) or (stream.state in (State.CONNECTED, State.LINGERING))
        statistics = stream.statistics()
        assert statistics.queued_bytes >= 0
        assert 0 <= statistics.buffered_bytes <= 4 * WINDOW_BYTES
        assert statistics.in_flight >= 0
    closed = [output for output in outputs if isinstance(output, Closed)]
    gone = [output for output in outputs if isinstance(output, Gone)]
    assert len(closed) == (stream.state in (State.LINGERING, State.GONE))
    assert len(gone) == (stream.state is State.GONE)


@given(st.integers(0, 2**32))
def test_a_flood_from_a_stranger_who_knows_the_id(seed: int) -> None:
    rng = Random(seed)
    stream = UdxStream(1, now=0, window_bytes=20_000, entropy=bytes)
    stream.connect(PATH, 0)
    stream.send(bytes(30_000), 0)
    now = 0.0
    for _ in range(100):
        now += rng.random() / 10
        try:
            packet = decode_packet(hostile_datagram(rng, 1, rng.randrange(20), 0))
        except DecodeError:
            continue
        stream.receive([packet], now)
        assert stream.statistics().buffered_bytes <= 4 * 20_000
        if stream.state is State.CONNECTED:
            assert stream.deadline is not None or stream.has_sent_all
