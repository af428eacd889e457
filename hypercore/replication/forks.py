"""Following a writer that replaced its history: a peer has a later fork of the log than ours.

The peer proves its head from nothing. Then a hash request for each step finds how much of our
log is common to both; the rest is cut off, and the new head takes its place, in one commit.
Nothing of ours is touched before the whole way is proven. A writer never follows: its history
is the one that it holds.

A reader goes on in the same way when its writer has pruned its tree and cannot lead it on from
where it is: the writer proves its head from nothing, and all that was here is given up. That both
heads are of one history then shows only in subtrees that both have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from hypercore import flat_tree
from hypercore.errors import InvalidProof
from hypercore.fork_search import ForkSearch
from hypercore.log import EMPTY_HEAD, Changeset, Head
from hypercore.proof import Proof, verify_proof
from hypercore.proof_request import ProofRequest, UpgradeRequest
from hypercore.replication.hotswap import MAX_SILENT_SECONDS
from hypercore.replication.inflight import InflightRequest
from hypercore.replication.intake import no_node
from hypercore.replication.messages import MessageType, Request
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.verifier import Verifier

TURN_SECONDS = 2.0
"""For so long one peer alone is asked; then all others are, too, since any may be silent, or lead
us on one step at a time. Slow peers lose nothing by it: a search that has begun goes on."""


@dataclass(frozen=True, slots=True)
class StuckFork:
    """A later history that we cannot follow, since no peer shows where it parts from ours.

    That is in blocks [start, stop). The peers have none of them, and we have some, which may be the
    last copies: the owner has to say (with `Core.clear`) that these may go. It seems so for a
    moment, too, while a peer has yet to say which blocks it has; not while a peer may yet lead us.
    """

    fork: int
    start: int
    stop: int


@dataclass(slots=True)
class _Pursuit:
    """How far one peer has led us."""

    ours: Head
    """The head of ours that the search is about."""

    search: ForkSearch | None = None
    """None until the peer has proven its head."""

    request: InflightRequest | None = None
    is_stuck: bool = False
    """The peer has none of the blocks by way of which it could be asked for the next step."""

    is_last: bool = False
    """It was asked which of these it has, and then for its head again: when that has come, it has
    said so. The search ends where neither side has a block."""


class ForkFollower:
    """One search with each peer that was asked; the first to end is followed."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self.is_allowed = True
        self.writer: bytes | None = None
        """The peer that is believed when it cannot prove the way from our length any more."""
        self._pursuits: dict[RemotePeer, _Pursuit] = {}
        self._since = -inf
        """When the first peer was asked of those whose forks nobody has proven yet."""

    @property
    def is_asking(self) -> bool:
        """Whether some peer is leading us on."""
        return not all(pursuit.is_stuck for pursuit in self._pursuits.values())

    @property
    def stuck(self) -> StuckFork | None:
        """What the first peer that cannot lead us on would lead us to, if no other leads us."""
        if self.is_asking:
            return None  # another may have what this one lacks: nothing has to be given up yet
        for pursuit in self._pursuits.values():
            search = pursuit.search
            if pursuit.is_stuck and search is not None and pursuit.ours is self._log.head:
                return StuckFork(search.fork, search.wanted.start, search.wanted.stop)
        return None

    def owns(self, peer: RemotePeer, request: InflightRequest) -> bool:
        pursuit = self._pursuits.get(peer)
        return pursuit is not None and pursuit.request is request

    def asked(self, peer: RemotePeer) -> InflightRequest | None:
        """The open request of the search with this peer."""
        pursuit = self._pursuits.get(peer)
        return None if pursuit is None else pursuit.request

    def is_ahead(self, peer: RemotePeer) -> bool:
        """Whether the peer has a later fork that we can follow, or has left us behind in ours."""
        sync, head = peer.sync, self._log.head
        if (
            sync is None
            or not sync.uploading
            or sync.length == 0
            or sync.fork == peer.refused_fork
            or head.length == 0
            or self._log.is_writable
        ):
            return False
        if sync.fork == head.fork:
            is_writer = peer.public_key == self.writer
            return is_writer and peer.has_left_behind(head.fork, head.length)
        return sync.fork > head.fork and self.is_allowed

    def pursue(self, peer: RemotePeer, now: float) -> bool:
        """Ask the peer for the next step, if it may be asked now.

        True when it turns out that this peer cannot lead us on: others are to be asked.
        """
        head = self._log.head
        pursuit = self._pursuits.get(peer)
        if pursuit is None:
            if not self._may_begin(now):
                return False
            pursuit = self._pursuits[peer] = _Pursuit(head)
        elif pursuit.request is not None:
            return False
        sync = peer.sync
        assert sync is not None
        if pursuit.ours is not head:
            pursuit.ours, pursuit.search = head, None
        asked = None
        if pursuit.search is not None:
            wanted = pursuit.search.wanted
            block = _first_offered(peer, wanted)
            if block is not None:
                asked = ProofRequest(sync.fork, hash=pursuit.search.request(block))
            else:
                peer.outbox += peer.sent_wants.want(wanted.start)
                is_held = self._holds_some(wanted)
                if is_held:
                    pursuit.is_last = False  # it is asked again when these have been given up
                if is_held or pursuit.is_last:
                    was_stuck, pursuit.is_stuck = pursuit.is_stuck, True
                    return not was_stuck
                pursuit.search, pursuit.is_last = None, True
        if asked is None:
            peer.claims.asked += 1
            asked = ProofRequest(sync.fork, upgrade=UpgradeRequest(0, sync.length))
        if not len(peer.inflight):
            peer.speed.started(now)
        pursuit.is_stuck = False
        pursuit.request = peer.inflight.add(-1, 0, False, None, sync.fork, now)
        request = Request(pursuit.request.id, asked, manifest=self._log.manifest is None)
        peer.counters.requests_sent += 1
        peer.outbox.append((MessageType.REQUEST, request.encode()))
        return False

    def _may_begin(self, now: float) -> bool:
        """Whether one more peer may be asked.

        The turn does not begin anew with the next peer: else peers that leave just before it is
        over, one after another, would keep everybody waiting without end.
        """
        if now - self._since > MAX_SILENT_SECONDS and not self._pursuits:
            self._since = now
        return not self.is_asking or now - self._since >= TURN_SECONDS

    def receive(self, peer: RemotePeer, proof: Proof, verifier: Verifier) -> Changeset | None:
        """Take the answer to the peer's open request; returns what to commit when the search ends.

        Raises: InvalidProof, InvalidSignature.
        """
        pursuit = self._pursuits[peer]
        pursuit.request = None
        if pursuit.ours is not self._log.head:
            return None  # honest, but our log has changed: start again
        if pursuit.search is None:
            if proof.upgrade is None or proof.block or proof.hash or proof.seek:
                raise InvalidProof("an answer to something else than was asked")
            proven = verify_proof(proof, EMPTY_HEAD, no_node, verifier)
            if proven.head is not None and proven.head.fork == pursuit.ours.fork:
                self.stop(peer)
                return self._begin_anew(proven, pursuit.ours)
            pursuit.search = ForkSearch(proven, pursuit.ours, self._log.read_node)
        else:
            if proof.hash is None or proof.block or proof.seek or proof.upgrade:
                raise InvalidProof("an answer to something else than was asked")
            pursuit.search.receive(proof.hash)
        if pursuit.is_last and self._is_dead_end(peer, pursuit.search.wanted):
            pursuit.search.end()
        if not pursuit.search.is_finished:
            return None
        self.stop(peer)
        self._since = -inf
        return pursuit.search.changeset()

    def _is_dead_end(self, peer: RemotePeer, blocks: range) -> bool:
        """Whether neither the peer nor we have a block of these."""
        return _first_offered(peer, blocks) is None and not self._holds_some(blocks)

    def _holds_some(self, blocks: range) -> bool:
        """Whether we have some of them, which may be the last copies."""
        return self._log.bitfield.first_set(blocks.start, blocks.stop) is not None

    def _begin_anew(self, proven: Changeset, ours: Head) -> Changeset | None:
        """Give up what is here for a longer head of the same history.

        Raises: InvalidProof when it is of another history, as far as can be told.
        """
        head = proven.head
        if head is None or head.length <= ours.length:
            return None
        for root in head.roots:
            stored = self._log.read_node(root.index)
            is_whole = flat_tree.right_span(root.index) < 2 * ours.length
            if is_whole and stored is not None and stored.hash != root.hash:
                raise InvalidProof("a head of another history", root.index)
        self._since = -inf
        return replace(proven, truncated_to=0)

    def stop(self, peer: RemotePeer) -> None:
        """Give the search with this peer up; a later one starts from the beginning."""
        self._pursuits.pop(peer, None)


def _first_offered(peer: RemotePeer, blocks: range) -> int | None:
    """The first of them that the peer has."""
    block = peer.next_offered(blocks.start)
    return block if block is not None and block in blocks else None
