"""Writing requests for blocks of our tree: each asks for as much of its path as is on nobody's way.

What is asked of a peer together counts on the nodes that the blocks before it bring (`inflight`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypercore.proof_request import BlockRequest, ProofRequest
from hypercore.replication.messages import MessageType, Request, encode_block_request
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog

READ_PRIORITY = 1


class BlockRequests:
    """Of one core to its peers."""

    __slots__ = ("_log",)

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log

    def ask(self, peer: RemotePeer, indices: Iterable[int], now: float) -> None:
        """Ask for these, in this order, after what was asked for before."""
        inflight = peer.inflight
        outbox = peer.outbox
        read_node = self._log.read_node
        fork = self._log.head.fork
        if not len(inflight):
            peer.speed.started(now)
        count = 0
        for index in indices:
            levels, is_shared = inflight.plan_path(index, read_node)
            request_id = inflight.add(index, levels, is_shared, None, fork, now).id
            outbox.append(
                (MessageType.REQUEST, encode_block_request(request_id, fork, index, levels))
            )
            count += 1
        peer.counters.requests_sent += count

    def ask_first(self, peer: RemotePeer, indices: Sequence[int], now: float) -> None:
        """Ask for these, to be answered before all that is asked for with `ask`."""
        inflight = peer.inflight
        fork = self._log.head.fork
        for index in indices:
            # It is answered before what is open now: it must not count on nodes of that.
            inflight.retry_alone(index)
            levels, _ = inflight.plan_path(index, self._log.read_node)
            asked = inflight.add(index, levels, False, None, fork, now)
            proof = ProofRequest(fork, block=BlockRequest(index, levels))
            request = Request(asked.id, proof, priority=READ_PRIORITY)
            peer.outbox.append((MessageType.REQUEST, request.encode()))
        peer.counters.requests_sent += len(indices)
