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
    """How many idle peers share what waits, if `peer` is a newcomer and among them; else 1."""
    if not (peer.speed.is_unknown and _is_idle(peer, head)):
        return 1
    return sum(_is_idle(other, head) for other in peers)


def most_to_try(newcomer: RemotePeer, other: RemotePeer, among: int) -> int:
    """How many open requests of another peer a newcomer may take over.

    One that was given its share is tried with that first.
    """
    return 0 if len(newcomer.inflight) else ceil(len(other.inflight) / among)


def _is_idle(peer: RemotePeer, head: Head) -> bool:
    """Whether the peer could be asked for blocks, owes none, and is not known to be silent."""
    return (
        not len(peer.inflight)
        and not peer.speed.is_silent
        and peer.suspicion is None
        and peer.proves_blocks(head.fork, head.length)
    )
