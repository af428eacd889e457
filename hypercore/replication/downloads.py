"""Asking peers for what is wanted, and taking in what they answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from hypercore.encoding import uint_at
from hypercore.errors import InvalidProof
from hypercore.proof import Proof
from hypercore.proof_request import UpgradeRequest
from hypercore.replication.accepted import Accepted
from hypercore.replication.block_requests import BlockRequests
from hypercore.replication.conflicts import REPORT, Conflicts
from hypercore.replication.demand import Demand
from hypercore.replication.heads import HeadRequests
from hypercore.replication.hotswap import overdue
from hypercore.replication.inflight import InflightRequest
from hypercore.replication.intake import Intake, verifier_of
from hypercore.replication.messages import (
    ONLY_A_BLOCK,
    Cancel,
    Data,
    MessageType,
    NoData,
    first_part_offset,
)
from hypercore.replication.newcomers import most_to_try, sharers
from hypercore.replication.received_push import ReceivedPush, leads_to_known
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.seeks import Seek, Seeks
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.replication.wants import WINDOW_BLOCKS

MAX_NEW_WINDOWS = 8
"""Windows asked about at once; more as blocks of these arrive."""

MAX_READS_FIRST = 32
"""With more single blocks to ask for at once, these are a download of their own and wait."""

_MANIFEST_ONLY = 16


class Downloads:
    """The requests of one core to all its peers."""

    def __init__(self, log: ReplicatedLog, conflicts: Conflicts, seed: int = 0) -> None:
        self._log = log
        self._conflicts = conflicts
        self._settings = ReplicationSettings()
        self.demand = Demand(log, seed)
        self.heads = HeadRequests(log, self.demand)
        self.seeks = Seeks(log)
        self.accepted = Accepted(self.demand)
        self._requests = BlockRequests(log)
        self.is_reassigning = False
        """Something was put back that other peers may have, or it is time to look whether others
        are quicker; the replicator clears it."""

        self.has_shared = False
        """A peer was given its share only; a second round asks it for what others have left."""

    @property
    def settings(self) -> ReplicationSettings:
        return self._settings

    @settings.setter
    def settings(self, settings: ReplicationSettings) -> None:
        self._settings = settings
        self.heads.forks.is_allowed = settings.follows_forks
        self.heads.forks.writer = settings.writer
        self.heads.delay_seconds = settings.head_delay_seconds
        self._conflicts.compare_seconds = settings.compare_seconds

    def allows_push_of(self, peer: RemotePeer) -> bool:
        """Whether this peer may send what nobody asked for.

        A JavaScript pusher answers upgrades as if our log were empty until it has proven a
        length to us on the same channel: until then it is not told that it may push.
        """
        match self._settings.push:
            case PushMode.OFF:
                return False
            case PushMode.ONLY:
                return True
            case PushMode.ALLOWED:
                return peer.claims.has_proven or self._log.head.length == 0
            case _ as other:
                assert_never(other)

    # --- asking ------------------------------------------------------------------------------

    def fill(self, peer: RemotePeer, peers: Sequence[RemotePeer], now: float) -> None:
        """Ask the peer for as much as it can serve and its window allows."""
        sync = peer.sync
        head = self._log.head
        if sync is None or peer.suspicion is not None or not self._log.takes_more:
            return
        if self._settings.push is PushMode.ONLY:
            if self.demand.has_forced:
                self._fill_forced(peer, now)
            return
        self.is_reassigning |= self.heads.fill(peer, sync, now)
        room = peer.inflight.room(head.byte_length // max(head.length, 1))
        if room[0] <= 0 or not peer.proves_blocks(head.fork, head.length):
            return
        self.seeks.fill(peer, now)
        length = min(head.length, sync.length)
        is_shared = len(peers) > 1 and self.demand.has_downloads
        among = sharers(peer, peers, head) if is_shared else 1
        limit = room[1] if among == 1 else self.demand.share(peer, room[1], length, among)
        self.has_shared |= limit < room[1]
        indices = self.demand.take(peer, (room[0], limit), length)
        if self.demand.has_reads_beside_downloads and len(peer.inflight):
            self._ask_reads_first(peer, indices, now)
        else:
            self._requests.ask(peer, indices, now)
        left = room[1] - len(indices)
        if left <= 0:
            return
        if peer.contiguous_length < length:
            for index in self.demand.missing(peer, length, WINDOW_BLOCKS, MAX_NEW_WINDOWS):
                peer.outbox += peer.sent_wants.want(index)
        if len(peers) > 1:
            self._take_over(peer, peers, left, now, among)

    def _fill_forced(self, peer: RemotePeer, now: float) -> None:
        """Ask for blocks that are forced, and nothing else."""
        sync = peer.sync
        head = self._log.head
        demand = self.demand
        if demand.forced_beyond(head.length):
            self.heads.fill_upgrade(peer, now)
        if sync is not None and peer.proves_blocks(head.fork, head.length):
            limit = peer.inflight.room(head.byte_length // max(head.length, 1))[0]
            length = min(head.length, sync.length)
            if limit > 0:
                self._requests.ask(peer, demand.take_forced(peer, limit, length), now)

    def _ask_reads_first(self, peer: RemotePeer, indices: Sequence[int], now: float) -> None:
        """Blocks that somebody waits for overtake those that downloads have asked for already."""
        reads = [index for index in indices if self.demand.is_urgent(index)]
        if len(reads) > MAX_READS_FIRST:
            reads = []
        self._requests.ask_first(peer, reads, now)
        overtaken = set(reads)
        self._requests.ask(peer, [index for index in indices if index not in overtaken], now)

    def expect(
        self,
        peer: RemotePeer,
        indices: Sequence[int],
        now: float,
        instead_of: Iterable[int],
        is_announced: bool,
    ) -> None:
        """The peer is to send these unasked: nobody is asked for them meanwhile."""
        expected = peer.expected
        self._take_back(expected.drop(instead_of))
        if is_announced:
            self._take_back(expected.left_out_before(indices))
        coming = [
            index
            for index in expected.still_to_come(indices)
            if not self._log.bitfield.get(index)
            and (index in expected or not self.demand.is_asked(index))
        ]
        deadline = now + peer.push_patience_seconds
        expected.expect(coming, deadline, is_announced=is_announced)
        for index in coming:
            self.demand.ask(index)

    def give_up_expected(self, peer: RemotePeer) -> None:
        """What the peer announced did not come: it is requested, as far as it is wanted."""
        self._take_back(peer.expected.give_up())

    def _take_back(self, indices: Iterable[int]) -> None:
        """These blocks do not come unasked after all."""
        for index in indices:
            self.demand.put_back(index)
            self.is_reassigning = True

    def _take_over(
        self, peer: RemotePeer, peers: Sequence[RemotePeer], room: int, now: float, among: int
    ) -> None:
        """Ask an idle peer for what others would answer much later, and withdraw it from those.

        It is one of `among` peers that share the ranges.
        """
        for other in peers:
            if other is peer or not len(other.inflight):
                continue
            moved = overdue(
                peer.speed, peer.inflight, other.speed, other.inflight, peer.offers, room, now
            )
            if moved and peer.speed.is_unknown:
                del moved[most_to_try(peer, other, among) :]
            if moved:
                other.speed.lost(other.inflight, now)
                for request in moved:
                    self._cancel(other, request)
                    self.demand.ask(request.index)
                # What was to be answered first is asked for first.
                self._requests.ask(peer, [request.index for request in reversed(moved)], now)
                peer.counters.hotswaps += len(moved)
                room -= len(moved)

    def cancel(self, peers: Iterable[RemotePeer], indices: Iterable[int]) -> None:
        """Withdraw the requests for these blocks."""
        wanted = set(indices)
        for peer in peers:
            for request in [item for item in peer.inflight if item.index in wanted]:
                if request.upgrade is None:
                    self._cancel(peer, request)

    def cancel_all(self, peer: RemotePeer) -> None:
        """Withdraw everything asked of this peer; what is wanted waits for the next one."""
        self.heads.forks.stop(peer)
        self.give_up_expected(peer)
        for request in list(peer.inflight):
            self._cancel(peer, request)

    def _cancel(self, peer: RemotePeer, request: InflightRequest) -> None:
        if peer.inflight.cancel(request):
            peer.outbox.append((MessageType.CANCEL, Cancel(request.id).encode()))
        self._put_back(peer, request)

    def stop_seek(self, seek: Seek) -> None:
        """The search is given up: its requests are withdrawn."""
        for peer, request in self.seeks.discard(seek):
            self._cancel(peer, request)

    def forget(self, peer: RemotePeer) -> None:
        """The peer is gone: what it owed is wanted of others."""
        self.heads.forks.stop(peer)
        self.give_up_expected(peer)
        for request in list(peer.inflight):
            peer.inflight.finish(request)
            self._put_back(peer, request)

    def _put_back(self, peer: RemotePeer, request: InflightRequest) -> None:
        self.heads.closed(peer, request)
        if self.seeks.owns(request):
            self.seeks.put_back(request)
        if request.index >= 0:
            self.demand.put_back(request.index)
        if request.parked is not None:
            peer.parked.remove(request)
        self.is_reassigning = True

    # --- taking in ---------------------------------------------------------------------------

    def receive_data(self, peer: RemotePeer, payload: bytes, intake: Intake, now: float) -> None:
        """Verify one answer into `intake`.

        Raises: InvalidProof, InvalidSignature, DecodeError.
        """
        flags, offset = uint_at(payload, 0)
        request_id, offset = uint_at(payload, offset)
        fork, offset = uint_at(payload, offset)
        request = peer.inflight.get(request_id)
        if request is None or request.parked is not None:
            self._receive_unasked(peer, request_id, payload, intake, now)
            return
        if flags == _MANIFEST_ONLY:
            # Whatever the fork: the peer has nothing else of what was asked for.
            self._receive_manifest(peer, request, Data.decode(payload).proof, intake)
        elif fork != request.fork:
            raise InvalidProof(f"an answer of fork {fork}, asked for {request.fork}")
        elif self.heads.forks.owns(peer, request):
            self._receive_fork(peer, request, Data.decode(payload).proof, intake)
        elif fork != intake.head.fork and intake.head.length:
            peer.counters.answers_ignored += 1  # of a history that we have left since
            self._finish(peer, request)
        elif self.seeks.owns(request):
            self.seeks.receive(request, Data.decode(payload).proof)
            self._finish(peer, request)
        elif flags != ONLY_A_BLOCK or request.upgrade is not None:
            self._receive_proof(peer, request, Data.decode(payload), intake)
        elif self._log.bitfield.get(request.index):
            peer.counters.answers_ignored += 1
            self._answered(peer, request)
        else:
            size = intake.accept_block(request.index, payload, offset)
            if size is None:
                if not request.is_shared:
                    raise InvalidProof("a path that ends beside our tree", 2 * request.index)
                request.parked = payload
                peer.parked.append(request)
                return
            self._accepted(peer, request, size)
        if now > request.sent_at:
            peer.inflight.measure_round_trip(now - request.sent_at)

    def _receive_unasked(
        self, peer: RemotePeer, request_id: int, payload: bytes, intake: Intake, now: float
    ) -> None:
        if request_id == REPORT and self._log.takes_more:
            push = ReceivedPush.decode(payload)
            if push is not None:
                expected = peer.expected
                is_asked = expected.admit()
                was_expected = push.index in expected
                if was_expected:
                    patience_until = now + peer.push_patience_seconds
                    self._take_back(expected.came(push.index, patience_until))
                elif is_asked:
                    expected.note_early(push.index)
                is_pushing = self._settings.push is not PushMode.OFF
                if (is_asked or is_pushing) and self._receive_push(peer, push, intake):
                    return
                if is_pushing or (is_asked and not push.has_upgrade):
                    peer.counters.answers_ignored += 1
                    if was_expected:  # it builds on what the peer thought we have: request it
                        self._take_back((push.index,))
                    return
            self._conflicts.receive(peer, payload)
        index = peer.inflight.receive_late(request_id)
        if not self._receive_withdrawn(peer, index, payload, intake):
            peer.counters.answers_ignored += 1

    def _receive_withdrawn(
        self, peer: RemotePeer, index: int, payload: bytes, intake: Intake
    ) -> bool:
        """Verify the answer to a withdrawn request for block `index`.

        False if it is of no use: nobody wants the block again, or it fits nothing that is here.
        """
        if (
            index < 0
            or not self.demand.is_wanted(index)
            or not self._log.takes_more
            or peer.suspicion is not None  # what else it holds is of another history
            or uint_at(payload, 0)[0] != ONLY_A_BLOCK
        ):
            return False
        late = ReceivedPush.decode(payload)
        accepted = None
        if late is not None and late.index == index:
            accepted = late.accept(intake, self._log.bitfield)
        if accepted is None:
            return False
        peer.expected.drop((index,))
        self.accepted.add_unrequested(peer, index, accepted[0])
        self.accepted.late += 1
        return True

    def _receive_push(self, peer: RemotePeer, push: ReceivedPush, intake: Intake) -> bool:
        """Verify a block that nobody requested; False if it fits nothing that is here."""
        accepted = push.accept(intake, self._log.bitfield)
        if accepted is None:
            return False
        size, has_grown = accepted
        if has_grown:
            peer.counters.upgrades_received += 1
            peer.claims.proven(intake.head)
            self.is_reassigning = True
        peer.counters.pushes_received += 1
        self.accepted.add_unrequested(peer, push.index, size)
        return True

    def _receive_fork(
        self, peer: RemotePeer, request: InflightRequest, proof: Proof, intake: Intake
    ) -> None:
        peer.inflight.finish(request)
        changes = self.heads.forks.receive(peer, proof, verifier_of(self._log, proof))
        if changes is not None:
            intake.replace_history(changes)
            peer.counters.upgrades_received += 1
            peer.claims.shown, peer.claims.asked = intake.head, 0
            self.is_reassigning = True

    def _accepted(self, peer: RemotePeer, request: InflightRequest, size: int) -> None:
        peer.inflight.finish(request)
        self.accepted.add(peer, request.index, size)

    def settle(self, *, is_stored: bool) -> None:
        """What was accepted is in the storage; or it is not, and is asked for again."""
        self.accepted.settle(is_stored=is_stored)
        self.is_reassigning |= not is_stored

    def _answered(self, peer: RemotePeer, request: InflightRequest) -> None:
        peer.inflight.finish(request)
        self.demand.settle(request.index)

    def _receive_proof(
        self, peer: RemotePeer, request: InflightRequest, data: Data, intake: Intake
    ) -> None:
        proof = data.proof
        if (
            proof.hash is not None
            or proof.seek is not None
            or (proof.block is not None and proof.block.index != request.index)
            or (request.upgrade is None and (proof.upgrade is not None or proof.block is None))
        ):
            raise InvalidProof("an answer to something else than was asked")
        if request.upgrade is not None and (
            self._conflicts.evidence is not None  # the log is about to be frozen
            or self._is_late(peer, request.upgrade, proof, intake)
        ):
            peer.counters.answers_ignored += 1
            self._finish(peer, request)
            return
        changes = intake.accept_proof(proof)
        if request.upgrade is not None and changes.head is not None:
            peer.counters.upgrades_received += 1
            peer.claims.proven(changes.head)
            self.heads.upgraded()
            self.is_reassigning = True
            if not peer.has_range(request.upgrade.start, changes.head.length):
                peer.sent_wants.forget(request.upgrade.start)  # ask which of these it has
        if proof.upgrade is None and request.upgrade is not None:
            peer.refused_length = peer.length
        if changes.blocks:
            self.heads.closed(peer, request)  # also where only the block came
            self._accepted(peer, request, len(changes.blocks[0][1]))
        else:
            self._finish(peer, request)

    def _is_late(
        self, peer: RemotePeer, asked: UpgradeRequest, proof: Proof, intake: Intake
    ) -> bool:
        """Whether an answer is honest, but the log has changed since it was asked for.

        A peer that may push answers from where its pushes have taken us.
        """
        length = intake.head.length
        if not peer.was_allowed_push:
            return asked.start != length
        if proof.upgrade is not None:
            return proof.upgrade.start != length
        return proof.block is not None and not leads_to_known(proof.block, intake)

    def _receive_manifest(
        self, peer: RemotePeer, request: InflightRequest, proof: Proof, intake: Intake
    ) -> None:
        if request.index >= 0 and request.upgrade is None:
            raise InvalidProof("an answer to something else than was asked")
        if self.heads.forks.owns(peer, request):
            peer.refused_fork = request.fork
        elif request.upgrade is not None and self._log.manifest is not None:
            peer.refused_length = peer.length
        self._finish(peer, request)
        if proof.manifest is not None and self._log.manifest is None:
            intake.accept_proof(Proof(intake.head.fork, manifest=proof.manifest))

    def _finish(self, peer: RemotePeer, request: InflightRequest) -> None:
        peer.inflight.finish(request)
        self._put_back(peer, request)

    def receive_parked(self, peer: RemotePeer, intake: Intake) -> None:
        """Try the answers again that came before what they build on.

        Those whose earlier requests are all answered by now are asked for again, alone.

        Raises: InvalidProof, DecodeError.
        """
        waiting = peer.parked
        is_progress = True
        while is_progress and waiting:
            is_progress = False
            for request in list(waiting):
                payload = request.parked
                assert payload is not None
                size = intake.accept_block(request.index, payload, first_part_offset(payload))
                if size is not None:
                    waiting.remove(request)
                    self._accepted(peer, request, size)
                    is_progress = True
        oldest = next((item.sequence for item in peer.inflight if item.parked is None), None)
        for request in list(waiting):
            if oldest is None or oldest > request.sequence:
                peer.counters.answers_retried += 1
                self._finish(peer, request)
                peer.inflight.retry_alone(request.index)

    def receive_no_data(self, peer: RemotePeer, message: NoData) -> None:
        """The peer has nothing for this request; it is not asked again for the same."""
        request = peer.inflight.get(message.request)
        if request is None or request.parked is not None:
            peer.inflight.receive_late(message.request)
            return
        peer.counters.no_data_received += 1
        if request.index >= 0:
            peer.lacks(request.index)
        if request.upgrade is not None and (request.index < 0 or peer.offers(request.index)):
            # Otherwise the peer may lack only that block: then its head is asked for alone.
            peer.refused_length = peer.length
        if self.heads.forks.owns(peer, request):
            peer.refused_fork = request.fork
        if self.seeks.owns(request):
            self.seeks.refused(peer, request)
        self._finish(peer, request)
