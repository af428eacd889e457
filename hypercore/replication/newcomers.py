"""Peers that have shown nothing of themselves yet: they are tried side by side, with equal shares.

Else the first of them would get all that its window takes. When that is the slowest of them, the
others stand idle until it has been silent for long enough that its requests move, and then the
next one gets it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from hypercore.log import Head
from hypercore.replication.remote import RemotePeer


def sharers(peer: RemotePeer, peers: Iterable[RemotePeer], head: Head) -> int:
    """How many newcomers share what waits with this one, itself included; 1 if it is none."""
    return sum(_is_new(other, head) for other in peers) if _is_new(peer, head) else 1


def most_to_move(peer: RemotePeer, other: RemotePeer, room: int, among: int) -> int:
    """How many open requests of another peer this one may take over, `room` at most."""
    if not peer.speed.is_unknown:
        return room
    return min(room, ceil(len(other.inflight) / among))


def _is_new(peer: RemotePeer, head: Head) -> bool:
    """Whether it could be asked for blocks, and was never seen to answer, or not to answer, any."""
    return (
        peer.speed.is_unknown
        and not len(peer.inflight)
        and peer.suspicion is None
        and peer.proves_blocks(head.fork, head.length)
    )
