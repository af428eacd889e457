"""Answering one peer: its requests wait here until its connection can carry the answers.

Nothing is read or built before the writer asks for it (`take`), so a peer that reads slowly
costs its queue of small requests and one buffer, and is not cut off for being slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Protocol

from pyroaring import BitMap64

from hypercore.bitfield import Bitfield
from hypercore.encoding import MAX_UINT, uint_at
from hypercore.errors import RemoteProtocolError
from hypercore.log import Head
from hypercore.manifest import Manifest, Prologue
from hypercore.merkle import MerkleNode
from hypercore.proof import Proof, build_proof
from hypercore.proof_request import (
    BlockRequest,
    InvalidRequest,
    ProofRequest,
    UpgradeRequest,
)
from hypercore.replication.block_messages import BlockMessage, encode_block_messages
from hypercore.replication.messages import (
    Data,
    HaveBits,
    MessageType,
    NoData,
    NoDataReason,
    Range,
    Request,
    Want,
)
from hypercore.replication.paced_wants import PacedWants
from hypercore.replication.statistics import Counters
from hypercore.replication.wants import WINDOW_BLOCKS
from hypercore.verifier import Verifier

MAX_WAITING = 2048
"""Requests of one peer that may wait; JavaScript peers send 512, ours too."""

MAX_INVALID_REQUESTS = 64
"""Requests that cannot be answered, from one peer, before it is taken for hostile."""

MAX_READ_BLOCKS = 256
"""Blocks read in one go while answering."""

MAX_PREMATURE = 8
"""Requests of one peer for blocks of a history that it has yet to come to, which wait until it has.

JavaScript asks like that for a list of blocks. What comes before it has gone over it drops, and
waits for it for ever; what comes after that it takes for invalid, since it counted the path in its
old history, and it asks the sender for nothing more. Our readers ask a little before they say that
they have come over, which is when their disk has it. More are answered at once: with its whole
window (of 16 at least) taken by these a peer could not ask its way to the new history.
"""

_Message = tuple[int, bytes]
_BlockOnly = tuple[int, int, int]
"""fork, index, levels: a request for a block alone, as nearly all are, without its objects."""

_WHOLE_PATH = -1
"""For levels: up to the root that the peer has."""


class TooManyRequests(RemoteProtocolError):
    """A peer that asks faster than it could ever read, or for what nobody can answer."""


class UploadSource(Protocol):
    """Where answers are read from."""

    @property
    def manifest(self) -> Manifest | None: ...
    @property
    def verifier(self) -> Verifier | None: ...
    @property
    def bitfield(self) -> Bitfield: ...
    @property
    def contiguous_length(self) -> int: ...
    def read_node(self, index: int) -> MerkleNode | None: ...
    def encoded_nodes(self, indices: Sequence[int]) -> list[bytes | None]: ...
    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]: ...


class Uploads:
    """The requests and wants of one peer that are not answered yet."""

    def __init__(self, source: UploadSource, counters: Counters) -> None:
        self._source = source
        self._counters = counters
        self._requests: dict[int, Request | _BlockOnly] = {}
        self._urgent: dict[int, Request | _BlockOnly] = {}
        self._premature: dict[int, _BlockOnly] = {}
        self._was_released = False
        """What had waited is to be answered, though the peer has said nothing."""

        self._peer_fork = MAX_UINT
        self._peer_length = 0
        self.proven_length = 0
        """The length that answers (and pushes) on this channel have proven to the peer."""

        self.pushed_length = 0
        """The last length that a push has proven to the peer."""

        self.sent = BitMap64()
        """Blocks that went out on this channel, and that the peer has not reported as dropped."""

        self._passed_length = -1

        self.wants = PacedWants()
        self._invalid_requests = 0

    def __len__(self) -> int:
        return len(self._requests) + len(self._urgent) + len(self.wants)

    def add(self, payload: bytes) -> None:
        """Queue an encoded request; one with the id of a waiting one takes its place.

        Raises: TooManyRequests, DecodeError.
        """
        self._counters.requests_received += 1
        requests = self._requests
        if self._urgent:
            self._urgent.pop(uint_at(payload, 1)[0], None)
        if self._premature:
            self._premature.pop(uint_at(payload, 1)[0], None)
        if payload[:1] == b"\x01":
            request_id, offset = uint_at(payload, 1)
            fork, offset = uint_at(payload, offset)
            index, offset = uint_at(payload, offset)
            levels, _ = uint_at(payload, offset)
            requests.pop(request_id, None)
            if fork > self._peer_fork and len(self._premature) < MAX_PREMATURE:
                self._premature[request_id] = (fork, index, _WHOLE_PATH)
            else:
                requests[request_id] = (fork, index, levels)
        else:
            request = Request.decode(payload)
            requests.pop(request.id, None)
            block = self._premature_block(request)
            if block is not None and len(self._premature) < MAX_PREMATURE:
                self._premature[request.id] = (request.proof.fork, block.index, _WHOLE_PATH)
            else:
                queue = self._urgent if request.priority else requests
                queue[request.id] = request
        if len(requests) + len(self._urgent) > MAX_WAITING:
            raise TooManyRequests(f"more than {MAX_WAITING} requests wait for an answer")
        if self._invalid_requests > MAX_INVALID_REQUESTS:
            raise TooManyRequests(f"more than {MAX_INVALID_REQUESTS} requests without an answer")

    def _premature_block(self, request: Request) -> BlockRequest | None:
        """What it is for, if that is a block alone, of a later history than the peer has."""
        wanted = request.proof
        others = wanted.upgrade, wanted.hash, wanted.seek
        if wanted.fork <= self._peer_fork or any(others) or request.manifest:
            return None
        return wanted.block

    def peer_came_to(self, fork: int, length: int) -> None:
        """The peer says that it has so long a log, of that history."""
        self._peer_length = length
        if fork != self._peer_fork:
            self._peer_fork = fork
            self._release_premature()

    def _release_premature(self) -> None:
        """Have them answered, with whole paths: what the peer asked for may be too little now."""
        self._requests.update(self._premature)
        self._premature.clear()

    def cancel(self, request_id: int) -> None:
        self._premature.pop(request_id, None)
        self._requests.pop(request_id, None)
        self._urgent.pop(request_id, None)

    def add_want(self, want: Want, head: Head, now: float) -> None:
        """Queue a want for what is here up to `head`. Raises: TooManyRequests."""
        self.wants.add(want, head, now)
        if self.wants.waiting > MAX_WAITING:
            raise TooManyRequests(f"more than {MAX_WAITING} wants wait for an answer")

    @property
    def deadline(self) -> float:
        """When something that waits may be answered, even if the peer says nothing."""
        return -inf if self._was_released else self.wants.deadline

    def advance(self, now: float) -> bool:
        """Look at what has waited; True when something may be answered now."""
        was_released, self._was_released = self._was_released, False
        return self.wants.advance(now) or was_released

    def clear(self) -> None:
        self._requests.clear()
        self._urgent.clear()
        self._premature.clear()
        self._was_released = False
        self.wants.clear()

    def take(self, max_bytes: int, head: Head) -> list[_Message]:
        """Answers of about `max_bytes`, from the log as of `head`; empty when none are due."""
        answers: list[_Message] = []
        left = max_bytes
        average = head.byte_length // max(head.length, 1) + 64
        while left > 0 and self.wants:
            for answer in self._answer_want(self.wants.pop(), head):
                answers.append(answer)
                left -= len(answer[1])
        while left > 0 and (requests := self._urgent or self._requests):
            count = min(left // average + 1, MAX_READ_BLOCKS)
            for answer in self._answer_some(requests, count, head):
                answers.append(answer)
                left -= len(answer[1])
        return answers

    def _answer_some(
        self, requests: dict[int, Request | _BlockOnly], count: int, head: Head
    ) -> list[_Message]:
        """Answer the next `count` requests, oldest first, with one read of their blocks."""
        if count >= len(requests):
            batch = list(requests.items())
            requests.clear()
        else:
            batch = []
            for item in requests.items():
                if len(batch) == count:
                    break
                batch.append(item)
            for request_id, _ in batch:
                del requests[request_id]
        is_held = self._source.bitfield.get
        fork, length = head.fork, head.length
        indices = [
            request[1]
            for _, request in batch
            if isinstance(request, tuple)
            and request[0] == fork
            and request[1] < length
            and is_held(request[1])
        ]
        values = dict(zip(indices, self._source.read_blocks(indices), strict=True))
        self.sent.update(indices)
        plain = self._answer_blocks(batch, values, head)
        return [
            plain[request_id] if isinstance(request, tuple) else self._answer_request(request, head)
            for request_id, request in batch
        ]

    def _answer_blocks(
        self,
        batch: Sequence[tuple[int, Request | _BlockOnly]],
        values: Mapping[int, bytes | None],
        head: Head,
    ) -> dict[int, _Message]:
        """The answers to those that ask for a block and nothing else, by request id."""
        answers: dict[int, _Message] = {}
        messages: list[BlockMessage] = []
        for request_id, request in batch:
            if isinstance(request, tuple):
                fork, index, levels = request
                value = values.get(index)
                if value is None or fork != head.fork:
                    answers[request_id] = self._not_here(request_id, fork, head)
                else:
                    if levels == _WHOLE_PATH:
                        end = min(self._peer_length, head.length)
                        levels = levels_below_root(index, end if index < end else head.length)
                    messages.append(BlockMessage(request_id, index, levels, value))
        payloads = encode_block_messages(self._source, head, messages)
        counters = self._counters
        for (request_id, _, _, value), payload in zip(messages, payloads, strict=True):
            if payload is None:
                answers[request_id] = self._no_data(request_id, NoDataReason.INVALID_REQUEST)
                continue
            counters.blocks_sent += 1
            counters.bytes_sent += len(value)
            answers[request_id] = MessageType.DATA, payload
        return answers

    def _answer_request(self, request: Request, head: Head) -> _Message:
        source = self._source
        wanted = request.proof
        manifest = None
        if request.manifest and source.verifier is not None and not source.verifier.is_compat:
            manifest = source.manifest
        block = None
        is_available = wanted.fork == head.fork
        if is_available and wanted.block is not None:
            index = wanted.block.index
            if index < head.length and source.bitfield.get(index):
                block = source.read_blocks([index])[0]
            is_available = block is not None
        if not is_available:
            if manifest is None:
                return self._not_here(request.id, wanted.fork, head)
            return MessageType.DATA, Data(request.id, Proof(head.fork, manifest=manifest)).encode()
        prologue = source.verifier.prologue if source.verifier is not None else None
        if prologue is not None and _is_probe(request, prologue):
            prologue = None
        if wanted.upgrade is not None:
            wanted = self._after_pushes(wanted, wanted.upgrade, head)
        try:
            proof = build_proof(wanted, head, source.read_node, block, prologue)
        except InvalidRequest:
            return self._no_data(request.id, NoDataReason.INVALID_REQUEST)
        if proof.upgrade is not None:
            self.proven_length = head.length
        if block is not None:
            self._counters.blocks_sent += 1
            self._counters.bytes_sent += len(block)
            assert wanted.block is not None
            self.sent.add(wanted.block.index)
        if manifest is not None:
            proof = Proof(proof.fork, proof.block, proof.hash, proof.seek, proof.upgrade, manifest)
        return MessageType.DATA, Data(request.id, proof).encode()

    def _after_pushes(
        self, wanted: ProofRequest, upgrade: UpgradeRequest, head: Head
    ) -> ProofRequest:
        """If pushes have brought the peer further since it asked, answer from there.

        A peer that asks from below again has not taken the pushes, and is believed.
        """
        start = self.pushed_length
        left = head.length - start
        is_moot = left <= 0 and wanted.block is None
        if upgrade.start >= start or is_moot or wanted.seek or wanted.hash:
            return wanted
        if start == self._passed_length:
            self.forget_pushes()
            return wanted
        self._passed_length = start
        block = wanted.block
        if block is not None and block.index < start:
            block = BlockRequest(block.index, levels_below_root(block.index, start))
        return ProofRequest(
            wanted.fork, block=block, upgrade=UpgradeRequest(start, left) if left > 0 else None
        )

    def history_changed(self) -> None:
        """What went out on this channel was of another history, and proves nothing of this one."""
        self.sent.clear()
        self._was_released |= bool(self._premature)
        self._release_premature()
        self.wants.begin_anew()
        self._passed_length = -1
        self.forget_pushes()

    def forget_pushes(self) -> None:
        """Take the peer to be where it says it is."""
        self.pushed_length = self.proven_length = 0

    def _not_here(self, request_id: int, fork: int, head: Head) -> _Message:
        # JavaScript counts what is not available, and gives up whoever said it too often. Who asks
        # before hearing that the history has changed does so with all that it waits for at once.
        is_old = fork < head.fork
        return self._no_data(
            request_id, NoDataReason.NONE if is_old else NoDataReason.NOT_AVAILABLE
        )

    def _no_data(self, request_id: int, reason: NoDataReason) -> _Message:
        self._counters.no_data_sent += 1
        if reason is NoDataReason.INVALID_REQUEST:
            self._invalid_requests += 1
            self._counters.invalid_requests += 1
        return MessageType.NO_DATA, NoData(request_id, reason).encode()

    def _answer_want(self, want: Want, head: Head) -> list[_Message]:
        bitfield = self._source.bitfield
        contiguous = min(self._source.contiguous_length, head.length)
        stop = min(want.start + want.length, head.length)
        if (
            contiguous == head.length
            or want.start + want.length < contiguous
            or (want.any and want.start < contiguous)
        ):
            return [(MessageType.RANGE, Range(0, contiguous).encode())]
        if want.start >= stop:
            return []
        if want.any:
            first = bitfield.first_set(want.start, stop)
            return [] if first is None else [(MessageType.RANGE, Range(first, 1).encode())]
        start = want.start - want.start % 32
        answers: list[_Message] = []
        while start < stop:
            end = min(start + WINDOW_BLOCKS, stop)
            if bitfield.first_set(start, end) is not None:
                words = bitfield.to_words(start, end)
                answers.append((MessageType.BITFIELD, HaveBits(start, words).encode()))
            else:
                # JavaScript says nothing here, and the asker cannot know that nothing will come.
                nothing = Range(start, end - start, drop=True)
                answers.append((MessageType.RANGE, nothing.encode()))
            start = end
        return answers


def _is_probe(request: Request, prologue: Prologue) -> bool:
    """Whether the peer compares histories, at a length where they may differ.

    Other upgrades from nothing lead to the prologue's end first, where all histories are the same.
    """
    upgrade = request.proof.upgrade
    return (
        request.id == 0
        and upgrade is not None
        and upgrade.start == 0
        and upgrade.length >= prologue.length
    )


def levels_below_root(index: int, length: int) -> int:
    """How many levels a block's path has to climb to a root of a tree of `length` > index blocks.

    Each bit of `length` that is set stands for a root over as many blocks; the root over this
    block is that of the highest bit in which `index` differs.
    """
    return (index ^ length).bit_length() - 1
