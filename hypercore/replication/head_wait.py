"""Which peers an update waits for: all that may have a newer head, none for long. A machine."""

from __future__ import annotations

from math import inf

from hypercore.replication.heads import patience_with
from hypercore.replication.hotswap import MAX_SILENT_SECONDS
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.replicator import Replicator


class HeadWait:
    """The patience of one update, during which our head stays the same.

    A peer may be silent for a while before it has said how far it is, before it has heard how far
    we are, and before it answers; for all that together it has `MAX_SILENT_SECONDS`. Nothing is
    wrong with a peer that has used that up: its head is still welcome, but nobody waits for it.
    """

    def __init__(self, replicator: Replicator, log: ReplicatedLog) -> None:
        self._replicator = replicator
        self._log = log
        self._since: dict[RemotePeer, float] = {}

    def until(self, now: float) -> float:
        """When to look again though nothing has come; -inf when there is nobody to wait for."""
        ends = [self._until(peer, now) for peer in self._replicator.peers_ahead()]
        return min((end for end in ends if end > now), default=-inf)

    def _until(self, peer: RemotePeer, now: float) -> float:
        heads, head = self._replicator.heads, self._log.head
        since = self._since.setdefault(peer, now)
        end = since + MAX_SILENT_SECONDS
        asked_at = heads.asked_at(peer)
        if asked_at is not None:
            # A peer that claims ever more, and was asked for it in vain, gains no time by that.
            return min(end, (since if peer.claims.asked > 1 else asked_at) + _patience(peer))
        if peer.claims.waited_in_vain == (head, peer.sync):
            return -inf
        if heads.is_another_asked(peer) and peer.can_upgrade_us(head.fork, head.length):
            return end
        if since + _patience(peer) <= now:
            peer.claims.waited_in_vain = head, peer.sync
        return since + _patience(peer)


def _patience(peer: RemotePeer) -> float:
    return patience_with(peer.inflight.best_guess)
