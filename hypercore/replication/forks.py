"""Following a writer that replaced its history: a peer has a later fork of the log than we.

The peer proves its head from nothing. Then a hash request for each step finds how much of our
log is common to both; the rest is cut off, and the new head takes its place, in one commit.
Nothing of ours is touched before the whole way is proven. A writer never follows: its history
is the one in its hands.

The same way a reader goes on that its writer cannot lead on from where it is: the writer has pruned
its tree, and proves its head from nothing. Then all that was here is given up. That both heads are
of one history cannot be told then, but for subtrees that both have.
"""

from __future__ import annotations

from dataclasses import replace

from hypercore import flat_tree
from hypercore.errors import InvalidProof
from hypercore.fork_search import ForkSearch
from hypercore.log import EMPTY_HEAD, Changeset, Head
from hypercore.merkle import MerkleNode
from hypercore.proof import Proof, verify_proof
from hypercore.proof_request import ProofRequest, UpgradeRequest
from hypercore.replication.inflight import InflightRequest
from hypercore.replication.messages import MessageType, Request
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.verifier import Verifier


class ForkFollower:
    """At most one search at a time, with one peer."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self.is_allowed = True
        self.writer: bytes | None = None
        """Who is believed that it cannot prove the way from our length any more."""
        self._peer: RemotePeer | None = None
        self._request: InflightRequest | None = None
        self._search: ForkSearch | None = None
        self._ours: Head = EMPTY_HEAD

    def owns(self, request: InflightRequest) -> bool:
        return request is self._request

    def asked(self, peer: RemotePeer) -> InflightRequest | None:
        """The open request of the search, if it is this peer's to answer."""
        return self._request if self._peer is peer else None

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

    def pursue(self, peer: RemotePeer, now: float, patience_seconds: float) -> None:
        """Ask the peer for the next step, when it is its turn."""
        if self._request is not None and (
            self._peer is peer or self._request.sent_at > now - patience_seconds
        ):
            return
        sync = peer.sync
        assert sync is not None
        if self._peer is not peer or self._search is None or self._ours is not self._log.head:
            self._search = None
            peer.claims.asked += 1
            asked = ProofRequest(sync.fork, upgrade=UpgradeRequest(0, sync.length))
        else:
            wanted = self._search.wanted
            block = peer.next_offered(wanted.start)
            if block is None or block not in wanted:
                peer.outbox += peer.sent_wants.want(wanted.start)
                return
            asked = ProofRequest(sync.fork, hash=self._search.request(block))
        self._peer = peer
        self._ours = self._log.head
        if not len(peer.inflight):
            peer.speed.started(now)
        self._request = peer.inflight.add(-1, 0, False, None, sync.fork, now)
        request = Request(self._request.id, asked, manifest=self._log.manifest is None)
        peer.counters.requests_sent += 1
        peer.outbox.append((MessageType.REQUEST, request.encode()))

    def receive(self, proof: Proof, verifier: Verifier) -> Changeset | None:
        """Take the answer to the open request; the change to commit, when the search has ended.

        Raises: InvalidProof, InvalidSignature.
        """
        self._request = None
        if self._ours is not self._log.head:
            self._search = None  # honest, but our log has changed: start again
            return None
        if self._search is None:
            if proof.upgrade is None or proof.block or proof.hash or proof.seek:
                raise InvalidProof("an answer to something else than was asked")
            proven = verify_proof(proof, EMPTY_HEAD, _no_node, verifier)
            if proven.head is not None and proven.head.fork == self._ours.fork:
                return self._begin_anew(proven)
            self._search = ForkSearch(proven, self._ours, self._log.read_node)
        else:
            if proof.hash is None or proof.block or proof.seek or proof.upgrade:
                raise InvalidProof("an answer to something else than was asked")
            self._search.receive(proof.hash)
        if not self._search.is_finished:
            return None
        changes = self._search.changeset()
        self.stop()
        return changes

    def _begin_anew(self, proven: Changeset) -> Changeset | None:
        """Give up what is here for a longer head of the same history.

        Raises: InvalidProof when it is another one, as far as can be told.
        """
        self.stop()
        head = proven.head
        if head is None or head.length <= self._ours.length:
            return None
        for root in head.roots:
            stored = self._log.read_node(root.index)
            is_whole = flat_tree.right_span(root.index) < 2 * self._ours.length
            if is_whole and stored is not None and stored.hash != root.hash:
                raise InvalidProof("a head of another history", root.index)
        return replace(proven, truncated_to=0)

    def stop(self) -> None:
        """Give the search up; a later one starts from the beginning."""
        self._peer = self._request = self._search = None


def _no_node(index: int) -> MerkleNode | None:
    return None
