from __future__ import annotations

from swarm.udx.outputs import Closed, CloseReason, Transmit
from swarm.udx.packet import DATA, DESTROY, decode_packet, encode_packet
from swarm.udx.path import Path
from swarm.udx.relay import UdxRelay

LEFT, RIGHT = Path(11, ("left", 1)), Path(0xFFFFFFFE, ("right", 2))


def test_only_the_id_changes() -> None:
    relay = UdxRelay((LEFT, RIGHT))
    datagram = encode_packet(DATA, 7, 1000, 5, 6, b"hello", padding_bytes=3)
    (transmit,) = relay.receive(0, [(decode_packet(datagram), datagram)])
    assert transmit == Transmit(
        RIGHT, [encode_packet(DATA, RIGHT.remote_id, 1000, 5, 6, b"hello", 3)]
    )
    (transmit,) = relay.receive(1, [(decode_packet(datagram), datagram)] * 2)
    assert isinstance(transmit, Transmit)
    assert transmit.path is LEFT
    assert len(transmit.datagrams) == 2
    assert (relay.packets, relay.bytes) == (3, 3 * len(datagram))


def test_a_destroyed_stream_ends_it_after_the_other_end_was_told() -> None:
    relay = UdxRelay((LEFT, RIGHT))
    datagram = encode_packet(DESTROY, 7, 0, 5, 6)
    transmit, closed = relay.receive(0, [(decode_packet(datagram), datagram)])
    assert isinstance(transmit, Transmit)
    assert closed == Closed(CloseReason.RESET)
    assert relay.receive(1, [(decode_packet(datagram), datagram)]) == []
