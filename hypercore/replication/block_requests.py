"""Writing requests for blocks of our tree: each asks for that part of its path which no other does.

Of blocks that one peer is asked for, each counts on the nodes that those before it bring
(`inflight`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypercore.proof_request import BlockRequest, ProofRequest
from hypercore.replication.messages import MessageType, Request, encode_block_request
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog

READ_PRIORITY = 1


class BlockRequests:
    """The requests of one core to its peers."""

    __slots__ = ("_log",)

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log

    def ask(self, peer: RemotePeer, indices: Iterable[int], now: float) -> None:
        """Ask for these blocks, in this order, after what was asked for before."""
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
        """Ask for these blocks, to be answered before all that is asked for with `ask`."""
        inflight = peer.inflight
        fork = self._log.head.fork
        for index in indices:
            # Answered before the requests that are open now, it must not count on their nodes.
            inflight.retry_alone(index)
            levels, _ = inflight.plan_path(index, self._log.read_node)
            asked = inflight.add(index, levels, False, None, fork, now)
            proof = ProofRequest(fork, block=BlockRequest(index, levels))
            request = Request(asked.id, proof, priority=READ_PRIORITY)
            peer.outbox.append((MessageType.REQUEST, request.encode()))
        peer.counters.requests_sent += len(indices)
