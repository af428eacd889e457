"""Asking peers for what they have ahead of us besides blocks: heads, other histories, manifests."""

from __future__ import annotations

from math import inf

from hypercore.log import Head
from hypercore.proof_request import BlockRequest, ProofRequest, UpgradeRequest
from hypercore.replication.demand import Demand
from hypercore.replication.forks import ForkFollower
from hypercore.replication.hotswap import MAX_SILENT_SECONDS
from hypercore.replication.inflight import InflightRequest
from hypercore.replication.messages import MessageType, Request, Sync
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog

PATIENCE_SECONDS = 2.0
"""Without an answer for this long (or four round trips), another peer is asked for its head."""


class HeadRequests:
    """Which peers are asked for a head, fork or manifest; `demand` gives a block to go with it."""

    def __init__(self, log: ReplicatedLog, demand: Demand) -> None:
        self._log = log
        self._demand = demand
        self._upgrading: RemotePeer | None = None
        """The peer whose turn it is."""

        self._is_late = False
        """The time of that peer is up: others are asked as well."""

        self._from: Head | None = None
        self._since = -inf
        """When the first peer was asked for a way on from that head, which none has proven yet."""

        self._blocks: dict[RemotePeer, InflightRequest] = {}
        """Open requests for a head and a block, where nobody else is asked for the block."""

        self.forks = ForkFollower(log)
        self.delay_seconds = 0.0
        """How long a head may stay with the peers that have it while nobody waits for it."""

        self.deadline = inf
        """When a head that stays where it is has to be asked for."""

        self.awaited = 0
        """How many callers wait for a longer head."""

        self.updates = 0
        """How many of these wait for what peers have now, if anything: channels stay for them."""

    def fill(self, peer: RemotePeer, sync: Sync, now: float) -> bool:
        """Ask the peer for whatever it is ahead in; True when it is time to ask others, too."""
        is_stuck = self.forks.is_ahead(peer) and self.forks.pursue(peer, now)
        self.fill_upgrade(peer, now)
        if self._log.manifest is None and sync.has_manifest and not sync.length:
            self._ask_manifest(peer, sync, now)
        return is_stuck

    def fill_upgrade(self, peer: RemotePeer, now: float) -> None:
        """Ask for the peer's head, if it is its turn, and the first block wanted beyond our end."""
        if self._blocks:
            self._put_back_late(now)
        head = self._log.head
        sync = peer.sync
        if (
            sync is None
            or not peer.can_upgrade_us(head.fork, head.length)
            or not self._may_ask(peer, now)
        ):
            return
        wanted = self._demand.first_beyond(head.length, sync.length)
        # Of what a peer with gaps has beyond our end only the last run is remembered: with the
        # head here it can be asked which of the blocks before that it has.
        may_come = wanted is not None and peer.may_have(wanted)
        if not may_come and self._may_stay(peer, now):
            return
        index = wanted if wanted is not None and peer.offers(wanted) else None
        self.deadline = inf
        upgrade = UpgradeRequest(head.length, sync.length - head.length)
        block = None
        if index is not None:
            self._demand.ask(index)
            block = BlockRequest(index, 0)
        asked = peer.inflight.add(-1 if index is None else index, 0, False, upgrade, sync.fork, now)
        if index is not None:
            self._blocks[peer] = asked
        if not self._is_late:
            self._begin_turn(peer, now)
        peer.claims.asked += 1
        proof = ProofRequest(sync.fork, block=block, upgrade=upgrade)
        needs_manifest = self._log.manifest is None and sync.has_manifest
        self._send(peer, Request(asked.id, proof, manifest=needs_manifest), now)

    def expect(self, more: int, *, keeps_channels: bool) -> None:
        """So many more callers, or fewer, wait for a longer head."""
        self.awaited += more
        self.updates += more if keeps_channels else 0

    def passed(self, now: float) -> None:
        """Peers were asked: a head that could not be asked for in time gets a new deadline."""
        if now >= self.deadline:
            self.deadline = inf

    def _may_stay(self, peer: RemotePeer, now: float) -> bool:
        """Whether the peer's head can wait for others to come; then `deadline` is set.

        The first head of a channel cannot: until it has come, the peer may push nothing.
        """
        if not self.delay_seconds or self.awaited or not peer.claims.has_proven:
            return False
        self.deadline = min(self.deadline, now + self.delay_seconds)
        return now < self.deadline

    def _may_ask(self, peer: RemotePeer, now: float) -> bool:
        """One peer at a time is asked for an upgrade; when its time is up, all others are at once.

        One after another, each could be silent for as long, and callers that wait for a head would
        wait for all of them. The first request is not withdrawn: slow peers would lose their turn
        before they answer.
        """
        if _open_upgrade(peer) is not None:
            return False
        first = self._upgrading
        if first is not None and not self._is_late:
            asked = _open_upgrade(first)
            if asked is None or min(asked.sent_at, self._since) > now - patience(first):
                return False
            self._is_late = True
            self._put_back(first)
        return True

    def _put_back(self, peer: RemotePeer) -> None:
        """Let others bring the block, too: the head that it waits for may never come."""
        asked = self._blocks.pop(peer, None)
        if asked is not None:
            self._demand.put_back(asked.index)

    def _put_back_late(self, now: float) -> None:
        """Put back the blocks of all late peers, whoever was asked first or has sent a head."""
        for peer, asked in list(self._blocks.items()):
            if asked.sent_at <= now - patience(peer):
                self._put_back(peer)

    def _begin_turn(self, peer: RemotePeer, now: float) -> None:
        """The turn is the peer's; its time goes on from that of the peer asked before.

        Else peers that leave just before it is up, one after another, would keep everybody waiting
        without end.
        """
        head = self._log.head
        if self._from is not head or now - self._since > MAX_SILENT_SECONDS:
            self._from, self._since = head, now
        self._upgrading = peer

    def _ask_manifest(self, peer: RemotePeer, sync: Sync, now: float) -> None:
        """Ask a peer that has nothing else, once."""
        if not peer.was_asked_manifest:
            peer.was_asked_manifest = True
            asked = peer.inflight.add(-1, 0, False, None, sync.fork, now)
            self._send(peer, Request(asked.id, ProofRequest(sync.fork), manifest=True), now)

    def _send(self, peer: RemotePeer, request: Request, now: float) -> None:
        if len(peer.inflight) == 1:
            peer.speed.started(now)
        peer.counters.requests_sent += 1
        peer.outbox.append((MessageType.REQUEST, request.encode()))

    def asked_at(self, peer: RemotePeer) -> float | None:
        """When the peer was asked for what it is ahead in, if it has not answered."""
        asked = self.forks.asked(peer) or _open_upgrade(peer)
        return None if asked is None else asked.sent_at

    def is_another_asked(self, peer: RemotePeer) -> bool:
        """Whether it is not the turn of this peer, but of another."""
        return self._upgrading is not None and self._upgrading is not peer

    def upgraded(self) -> None:
        """A head has come."""
        self._end_turn()

    def _end_turn(self) -> None:
        self._upgrading, self._is_late = None, False

    def closed(self, peer: RemotePeer, request: InflightRequest) -> None:
        """A request of any kind was answered without a head, or withdrawn."""
        if self._blocks.get(peer) is request:
            del self._blocks[peer]
        if request.upgrade is not None and self._upgrading is peer:
            self._end_turn()
        if self.forks.owns(peer, request):
            self.forks.stop(peer)


def _open_upgrade(peer: RemotePeer) -> InflightRequest | None:
    """The request for its head that the peer has not answered."""
    return next((request for request in peer.inflight if request.upgrade is not None), None)


def patience(peer: RemotePeer) -> float:
    """How many seconds a peer may take to answer while others could."""
    return patience_with(peer.inflight.round_trip_seconds)


def patience_with(round_trip_seconds: float) -> float:
    """A peer that answers very late on purpose does not gain hours by it."""
    return min(max(PATIENCE_SECONDS, 4 * round_trip_seconds), MAX_SILENT_SECONDS)
