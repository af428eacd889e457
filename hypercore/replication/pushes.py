"""Blocks sent to one peer without a request, as it takes pushes or asked by an extension.

Each leaves with what proves it to the length that the peer has by then: the one it told us, or
the one that earlier pushes and answers on this channel brought it to. As with answers, nothing
is read before the connection can carry it.

An extension asks for many blocks of one tree: of their proofs only those nodes are sent that no
earlier block on this channel has brought.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NamedTuple

from hypercore.log import Head
from hypercore.proof import Proof, build_proof
from hypercore.proof_request import (
    BlockRequest,
    InvalidRequest,
    ProofRequest,
    UpgradeRequest,
)
from hypercore.replication.block_messages import BlockMessage, encode_block_messages
from hypercore.replication.messages import Data, MessageType
from hypercore.replication.remote import MAX_TRACKED, RemotePeer
from hypercore.replication.uploads import MAX_READ_BLOCKS, UploadSource, levels_below_root

MAX_WAITING_PUSHES = 2048
"""Pushes to one peer that may wait; further ones are dropped, since the peer can still ask."""

MAX_ASKED_BYTES = 8 << 20
"""The most to push of what an extension asked for, by the average size of the log's blocks; the
peer requests the rest, as fast as it can take it."""

_PROOF_BYTES = 400
"""About the size of a scattered block's proof: ten nodes."""


class _Waiting(NamedTuple):
    """A block that was read, to be pushed."""

    index: int  # type: ignore[assignment]  # the field's word wins over tuple.index
    is_asked: bool
    block: bytes


class Pushes:
    """What is to be pushed to one peer."""

    def __init__(self, source: UploadSource) -> None:
        self._source = source
        self._waiting: dict[int, None] = {}
        self._asked: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._asked)

    def add(self, indices: Iterable[int]) -> None:
        for index in indices:
            if len(self._waiting) >= MAX_WAITING_PUSHES:
                return
            if 0 <= index < MAX_TRACKED:
                self._waiting[index] = None

    def add_asked(self, peer: RemotePeer, indices: Iterable[int], head: Head) -> list[int]:
        """Queue what an extension asked for; returns what of it will be sent, in that order.

        Left out is what the peer has or was sent, and what is not here or not durable.
        """
        queued = []
        average = head.byte_length // max(head.length, 1) + 64
        room = min(MAX_WAITING_PUSHES, MAX_ASKED_BYTES // average + 1)
        sent = peer.uploads.sent
        is_held = self._source.bitfield.get
        for index in indices:
            if len(self._asked) >= room:
                break
            if (
                0 <= index < min(head.length, MAX_TRACKED)
                and index not in sent
                and index not in self._asked
                and is_held(index)
                and not peer.offers(index)
            ):
                self._asked[index] = None
                queued.append(index)
        return queued

    def clear(self) -> None:
        """Forget what waits and was not asked for: the peer wants none of it."""
        self._waiting.clear()

    def take(self, peer: RemotePeer, max_bytes: int, head: Head) -> list[tuple[int, bytes]]:
        """About that many bytes of pushes, from the log as of `head`.

        Blocks beyond it are not durable yet: they wait.
        """
        sync = peer.sync
        if sync is None or sync.fork != head.fork:
            self._asked.clear()
            self.clear()
            peer.uploads.sent.clear()
            return []
        if not takes_pushes(peer):
            self.clear()
        messages: list[tuple[int, bytes]] = []
        left = max_bytes
        average = head.byte_length // max(head.length, 1) + _PROOF_BYTES
        while left > 0:
            part = self._next(peer, min(left // average + 1, MAX_READ_BLOCKS), head)
            if not part:
                break
            payloads = self._encode(peer, part, head)
            left -= sum(map(len, payloads))
            messages += [(MessageType.DATA, payload) for payload in payloads]
        return messages

    def _next(self, peer: RemotePeer, count: int, head: Head) -> list[tuple[int, bool]]:
        """Take up to `count` blocks to push off the queues, each with whether it was asked for."""
        part: list[tuple[int, bool]] = []
        for queue in (self._asked, self._waiting):
            for index in [index for index in queue if index < head.length]:
                if len(part) == count:
                    return part
                del queue[index]
                self._waiting.pop(index, None)
                if index not in peer.uploads.sent and not peer.offers(index):
                    part.append((index, queue is self._asked))
        return part

    def _encode(
        self, peer: RemotePeer, part: Sequence[tuple[int, bool]], head: Head
    ) -> list[bytes]:
        """Messages with blocks and their proofs; none where a node on the way is not here."""
        blocks = self._source.read_blocks([index for index, _ in part])
        waiting = deque(
            _Waiting(index, is_asked, block)
            for (index, is_asked), block in zip(part, blocks, strict=True)
            if block is not None
        )
        payloads: list[bytes] = []
        while waiting:
            theirs = max(peer.length, peer.uploads.proven_length)
            if waiting[0].index < theirs:
                payloads += self._encode_proven(peer, waiting, head, theirs)
                continue
            index, _, block = waiting.popleft()
            with suppress(InvalidRequest):  # a node on the way is not here
                payloads.append(self._upgrade(peer, index, block, head, theirs))
                _note_sent(peer, index, block)
        return payloads

    def _encode_proven(
        self, peer: RemotePeer, waiting: deque[_Waiting], head: Head, theirs: int
    ) -> list[bytes]:
        """Messages with the first blocks that the peer's head proves, up to one it cannot prove."""
        sent = peer.uploads.sent
        planned: list[BlockMessage] = []
        for index, is_asked, block in takewhile(lambda each: each.index < theirs, waiting):
            levels = levels_below_root(index, theirs)
            if is_asked:
                levels = _levels_to_known(peer, index, levels)
            planned.append(BlockMessage(0, index, levels, block))
            sent.add(index)  # what comes after it builds on it
        for message in planned:
            sent.discard(message.index)
        payloads: list[bytes] = []
        for message, payload in zip(
            planned, encode_block_messages(self._source, head, planned), strict=True
        ):
            waiting.popleft()
            if payload is None:
                break
            payloads.append(payload)
            _note_sent(peer, message.index, message.value)
        return payloads

    def _upgrade(
        self, peer: RemotePeer, index: int, block: bytes, head: Head, theirs: int
    ) -> bytes:
        """The message with a block, and what proves it together with a longer head."""
        source = self._source
        verifier = source.verifier
        prologue = None if verifier is None else verifier.prologue
        upgrade = UpgradeRequest(theirs, head.length - theirs)
        wanted = ProofRequest(head.fork, block=BlockRequest(index, 0), upgrade=upgrade)
        proof = build_proof(wanted, head, source.read_node, block, prologue)
        peer.uploads.proven_length = peer.uploads.pushed_length = head.length
        if theirs == 0 and verifier is not None and not verifier.is_compat:
            # A peer that has nothing of the log may not know who signs it either.
            manifest = source.manifest
            proof = Proof(proof.fork, proof.block, upgrade=proof.upgrade, manifest=manifest)
        return Data(0, proof).encode()


class PushQueues:
    """What is to be pushed to each peer of one core."""

    def __init__(self, source: UploadSource) -> None:
        self._source = source
        self._of: dict[RemotePeer, Pushes] = {}

    def add(self, peers: Iterable[RemotePeer], indices: Sequence[int]) -> list[RemotePeer]:
        """Queue blocks for those of the peers that take pushes; returns which these are."""
        takers = [peer for peer in peers if takes_pushes(peer)]
        for peer in takers:
            self._begun(peer).add(indices)
        return takers

    def add_asked(self, peer: RemotePeer, indices: Iterable[int], head: Head) -> list[int]:
        """As `Pushes.add_asked`."""
        return self._begun(peer).add_asked(peer, indices, head)

    def _begun(self, peer: RemotePeer) -> Pushes:
        pushes = self._of.get(peer)
        if pushes is None:
            pushes = self._of[peer] = Pushes(self._source)
        return pushes

    def of(self, peer: RemotePeer) -> Pushes | None:
        """The peer's queue; None for one to which nothing was ever pushed."""
        return self._of.get(peer)

    def waiting(self) -> Iterator[RemotePeer]:
        """Peers to which something is still to be pushed."""
        return (peer for peer, pushes in self._of.items() if pushes)

    def forget(self, peer: RemotePeer) -> None:
        """The peer is gone."""
        self._of.pop(peer, None)


def _note_sent(peer: RemotePeer, index: int, block: bytes) -> None:
    peer.uploads.sent.add(index)
    peer.counters.pushes_sent += 1
    peer.counters.blocks_sent += 1
    peer.counters.bytes_sent += len(block)


def _levels_to_known(peer: RemotePeer, index: int, most: int) -> int:
    """How many levels a block's path has to climb to a node that another block has brought.

    Each brings the nodes on its path and their siblings, and two blocks have in common what is
    above the first bit in which they differ.
    """
    for known in peer.nearest(index):
        most = min(most, (index ^ known).bit_length() - 1)
    return max(most, 0)


def takes_pushes(peer: RemotePeer) -> bool:
    """Whether the peer has said that it may be sent what it did not ask for."""
    sync = peer.sync
    return sync is not None and sync.allow_push and sync.downloading
