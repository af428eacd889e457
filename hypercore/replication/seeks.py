"""Finding the block at a byte offset where our tree has no nodes: peers are asked for the way.

A request names a block below the lowest subtree that is known to hold the offset (its leaf, not
its value) and the offset. The answer brings the nodes from the leaf up to that subtree, and
those down to where the offset falls, as far as the peer has them; every answer leads further
down. They all hash up to what we have, but the sizes of the lowest two are only the peer's word
(see `proof`): so they stay with the search, and nothing of them is stored. The searcher fetches
the block that was found, which proves its place.

Source: hypercore 11.37.1 lib/replicator.js _requestSeek.
"""

from __future__ import annotations

from typing import NamedTuple

from hypercore import flat_tree
from hypercore.errors import InvalidProof
from hypercore.flat_tree import TreeIndex
from hypercore.merkle import MerkleNode
from hypercore.proof import Proof, verify_proof
from hypercore.proof_request import HashRequest, ProofRequest, SeekRequest
from hypercore.replication.inflight import InflightRequest
from hypercore.replication.messages import MessageType, Request
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.seek import BytePosition, locate

TURN_SECONDS = 2.0
"""For so long one peer alone is asked in a search. Then all others are, too, each for the next step
that is not known by then: one after another, silent peers could keep it from an honest one."""


class Seek:
    """One search; `found` is the block, as far as the peers asked can be believed."""

    def __init__(self, offset: int, padding: int) -> None:
        self.offset = offset
        self.padding = padding
        self.found: int | None = None
        self.known: dict[int, MerkleNode] = {}
        self.asked: dict[RemotePeer, InflightRequest] = {}
        self.refused_by: set[RemotePeer] = set()
        self.since: float | None = None
        """When the first peer was asked."""

    def may_ask(self, peer: RemotePeer, now: float) -> bool:
        if self.found is not None or peer in self.refused_by or peer in self.asked:
            return False
        return not self.asked or (self.since is not None and now - self.since >= TURN_SECONDS)


class _Step(NamedTuple):
    """What a peer was asked for."""

    seek: Seek
    peer: RemotePeer
    subtree: TreeIndex
    asked: ProofRequest


class Seeks:
    """The searches of one core."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self._open: list[Seek] = []
        self._steps: dict[int, _Step] = {}  # by the id of the request

    def add(self, seek: Seek) -> None:
        self._open.append(seek)

    def discard(self, seek: Seek) -> list[tuple[RemotePeer, InflightRequest]]:
        """The search is given up; returns the requests that are to be withdrawn."""
        self._open.remove(seek)
        return list(seek.asked.items())

    def owns(self, request: InflightRequest) -> bool:
        return id(request) in self._steps

    def fill(self, peer: RemotePeer, now: float) -> None:
        """Ask the peer, which proves blocks of our tree, for the next step of each search."""
        for seek in self._open:
            if seek.may_ask(peer, now):
                subtree = self._advance(seek)
                if subtree is not None:
                    self._ask(seek, subtree, peer, now)

    def _advance(self, seek: Seek) -> TreeIndex | None:
        """The subtree to look into next; None when the search ends here, or beyond our log."""

        def read_node(index: int) -> MerkleNode | None:
            return self._log.read_node(index) or seek.known.get(index)

        place = locate(self._log.head.roots, seek.offset, seek.padding, read_node)
        if isinstance(place, BytePosition):
            seek.found = place.block
            return None
        return place

    def _ask(self, seek: Seek, subtree: TreeIndex, peer: RemotePeer, now: float) -> None:
        first, last = flat_tree.left_span(subtree) // 2, flat_tree.right_span(subtree) // 2
        if last >= peer.length:
            return
        block = peer.next_offered(first)
        if block is None or block > last:
            peer.outbox += peer.sent_wants.want(first)
            return
        fork = self._log.head.fork
        asked = ProofRequest(
            fork,
            hash=HashRequest(2 * block, flat_tree.depth(subtree)),
            seek=SeekRequest(seek.offset, seek.padding),
        )
        request = peer.inflight.add(-1, 0, False, None, fork, now)
        seek.asked[peer] = request
        if seek.since is None:
            seek.since = now
        self._steps[id(request)] = _Step(seek, peer, subtree, asked)
        peer.counters.requests_sent += 1
        peer.outbox.append((MessageType.REQUEST, Request(request.id, asked).encode()))

    def receive(self, request: InflightRequest, proof: Proof) -> None:
        """Take the answer to an open request. Raises: InvalidProof."""
        seek, _, subtree, asked = self._steps[id(request)]
        assert asked.hash is not None
        if (
            proof.block is not None
            or proof.upgrade is not None
            or proof.hash is None
            or proof.hash.index != asked.hash.index
            or (proof.seek is not None and proof.seek.bytes != seek.offset)
        ):
            raise InvalidProof("an answer to something else than was asked")
        is_news = self._advance(seek) == subtree  # else another peer has led us on by now

        def read_node(index: int) -> MerkleNode | None:
            return self._log.read_node(index) or seek.known.get(index)

        changes = verify_proof(proof, self._log.head, read_node, None)
        seek.known.update((node.index, node) for node in changes.nodes)
        if is_news and self._advance(seek) == subtree:
            # Every answer leads down, so that a peer cannot keep us searching.
            raise InvalidProof("a path that starts too high", asked.hash.index)

    def refused(self, peer: RemotePeer, request: InflightRequest) -> None:
        """The peer cannot answer: it is not asked again in this search."""
        self._steps[id(request)].seek.refused_by.add(peer)

    def put_back(self, request: InflightRequest) -> None:
        """The request is no longer open."""
        step = self._steps.pop(id(request))
        del step.seek.asked[step.peer]

    def rewind(self) -> None:
        """The log was cut: what was found out may be wrong."""
        for seek in self._open:
            seek.known.clear()
            seek.refused_by.clear()
            seek.found = None
