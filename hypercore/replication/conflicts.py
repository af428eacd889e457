"""Two histories under one key: noticing them, proving them, and telling the others.

A peer whose answer does not fit what we hold is either damaged, or it holds another history that
the same writer signed. To tell which, we ask it for its head from nothing (the request with id
0, as JavaScript does) and compare: that is a *probe*. Its answer contradicts what we hold, or
costs its sender the channel, as may any such proof that nobody asked for. The evidence needs two
signatures of the writer's (`fork_proof`), so that no peer can make it up.

Nothing is ever asked of a peer whose log is as long as ours, so two histories of one length would
not meet: such a peer is asked for its head, too, where that is wanted (`compare_seconds`).

Once there is evidence the core is frozen: it is served as before, and nothing more is asked for.
Every peer of that fork is sent both halves, each as a `data` message with request 0; JavaScript
compares either with its own history and freezes, too.

Source: hypercore 11.37.1 lib/replicator.js _checkIfConflict, _onconflict; lib/core.js
checkConflict.
"""

from __future__ import annotations

from math import inf

from hypercore import flat_tree
from hypercore.encoding import uint_at
from hypercore.errors import InvalidProof, InvalidSignature, RemoteProtocolError
from hypercore.fork_proof import MAX_PROOF_BYTES, ForkProof, make_fork_proof
from hypercore.log import Head
from hypercore.proof import Proof, build_proof
from hypercore.proof_request import InvalidRequest, ProofRequest, UpgradeRequest
from hypercore.replication.messages import Data, MessageType, Request, first_part_offset
from hypercore.replication.remote import RemotePeer, Suspicion
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.verifier import Verifier

PROBE_SECONDS = 3.0
"""How long a peer may take to answer a probe; then it is dropped for what it sent before."""

MAX_IDLE_REPORTS = 8
"""How many useless proofs that nobody asked for one peer may send. JavaScript sends one."""

REPORT = 0
"""The request id of probes and their answers."""


_UPGRADE, _MANIFEST = 8, 16


class FalseReport(InvalidProof):
    """A peer reported a conflict where there is none."""


class Conflicts:
    """The conflicts of one core with any of its peers."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self._suspects: set[RemotePeer] = set()
        self.compare_seconds = inf
        """As in `ReplicationSettings`."""
        self.evidence: ForkProof | None = None
        """Found, but not taken by the log yet."""

    @property
    def deadline(self) -> float:
        """When the next probe is overdue."""
        if not self._suspects:
            return inf
        return min(peer.suspicion.deadline for peer in self._suspects if peer.suspicion)

    def probe(self, peer: RemotePeer, error: RemoteProtocolError, now: float) -> bool:
        """Whether `error` may come from another history of the writer's; then the peer is asked.

        Each peer is asked once. Until it answers, nothing else is asked of it.
        """
        head = self._log.head
        sync = peer.sync
        is_mismatch = isinstance(error, InvalidSignature) or (
            isinstance(error, InvalidProof) and bool(error.expected)
        )
        if (
            not is_mismatch
            or peer.suspicion is not None
            or self._log.fork_proof is not None
            or sync is None
            or sync.fork != head.fork
        ):
            return False
        length = min(head.length, sync.length)
        if not length:
            return False
        peer.suspicion = Suspicion(error, now + PROBE_SECONDS)
        self._suspects.add(peer)
        request = Request(REPORT, ProofRequest(head.fork, upgrade=UpgradeRequest(0, length)))
        peer.outbox.append((MessageType.REQUEST, request.encode()))
        return True

    def compare(self, peer: RemotePeer, now: float) -> None:
        """Ask a peer whose log is as long as ours for its head, now and then.

        Peers with two histories of one length would never ask each other for anything else.
        """
        sync, head = peer.sync, self._log.head
        if (
            sync is None
            or (sync.fork, sync.length) != (head.fork, head.length)
            or not (sync.uploading and head.length)
            or peer.suspicion is not None
            or self._log.fork_proof is not None
            or self.compare_seconds == inf
            or now - peer.reports.compared_at < self.compare_seconds
        ):
            return
        is_first = peer.reports.compared_at == -inf
        peer.reports.compared_at = now
        if is_first and peer.claims.has_proven:
            return  # it has just proven its head
        peer.reports.awaited += 1
        request = Request(REPORT, ProofRequest(head.fork, upgrade=UpgradeRequest(0, head.length)))
        peer.outbox.append((MessageType.REQUEST, request.encode()))

    def forget(self, peer: RemotePeer) -> None:
        self._suspects.discard(peer)

    def overdue(self, now: float) -> list[RemotePeer]:
        """Peers that did not answer their probe."""
        return [
            peer for peer in self._suspects if peer.suspicion and peer.suspicion.deadline <= now
        ]

    def receive(self, peer: RemotePeer, payload: bytes) -> None:
        """Take a proof with request 0: sets `evidence` if it contradicts what we hold.

        Raises: FalseReport, DecodeError.
        """
        log = self._log
        if log.fork_proof is not None or self.evidence is not None or log.verifier is None:
            return
        if not _is_report(payload):
            return  # pushed data, which we do not take, and do not spend time on
        proof = Data.decode(payload).proof
        if proof.fork == log.head.fork and not _is_ours(proof, log.head):
            self.evidence = self._compare(proof, log.verifier)
        if self.evidence is not None:
            return
        if peer.suspicion is not None:
            peer.has_answered_probe = True
            return
        if peer.reports.awaited:
            peer.reports.awaited -= 1
            return
        peer.reports.idle += 1
        if peer.reports.idle > MAX_IDLE_REPORTS:
            raise FalseReport(f"{peer.reports.idle} reports of a conflict where there is none")

    def _compare(self, proof: Proof, verifier: Verifier) -> ForkProof | None:
        """Raises: FalseReport."""
        theirs = Proof(proof.fork, upgrade=proof.upgrade)
        try:
            for ours in _statements(self._log, theirs):
                evidence = make_fork_proof(verifier, ours, theirs)
                if evidence is not None:
                    return evidence
        except InvalidProof as error:
            raise FalseReport(f"a report of a conflict: {error}") from error
        return None

    def settle(self, peer: RemotePeer) -> None:
        """All that came together is handled: a probe may have been answered without evidence.

        Not before, because a peer that saw the conflict itself sends both halves.
        Raises: what the peer was probed for, since it holds the same history after all.
        """
        if peer.suspicion is not None and peer.has_answered_probe and self.evidence is None:
            raise peer.suspicion.error

    def receive_no_data(self, peer: RemotePeer) -> None:
        """The peer cannot answer its probe. Raises: what it was probed for."""
        if peer.suspicion is not None:
            raise peer.suspicion.error

    def tell(self, peer: RemotePeer) -> None:
        """Send the evidence, once, to a peer that may hold one of the two histories."""
        evidence = self._log.fork_proof
        sync = peer.sync
        if evidence is None or peer.knows_conflict or sync is None or not sync.length:
            return
        if sync.fork == evidence.fork:
            peer.knows_conflict = True
            # First what the peer does not hold, so that it need not wait for the second.
            halves = sorted(
                evidence.statements, key=lambda half: _signed_length(half) == sync.length
            )
            peer.outbox += [(MessageType.DATA, Data(REPORT, half).encode()) for half in halves]


def _is_ours(proof: Proof, head: Head) -> bool:
    """Whether the proof shows the very head that we hold: nothing has to be proven then."""
    upgrade = proof.upgrade
    return (
        upgrade is not None
        and (upgrade.length, upgrade.signature) == (head.length, head.signature)
        and tuple(upgrade.nodes) == head.roots
        and not upgrade.additional_nodes
    )


def _is_report(payload: bytes) -> bool:
    """Whether a data message is an upgrade from nothing and no more. Raises: DecodeError."""
    return (
        uint_at(payload, 0)[0] in (_UPGRADE, _UPGRADE | _MANIFEST)
        and uint_at(payload, first_part_offset(payload))[0] == 0
        and len(payload) <= MAX_PROOF_BYTES
    )


def _statements(log: ReplicatedLog, theirs: Proof) -> list[Proof]:
    """Our head as upgrades from nothing, split where both trees may have nodes in common."""
    head = log.head
    upgrade = theirs.upgrade
    assert upgrade is not None
    lengths = [upgrade.length, _signed_length(theirs), head.length]
    statements = []
    for length in dict.fromkeys(lengths):
        statement = _statement(head, log, length) if 0 < length <= head.length else None
        if statement is not None:
            statements.append(statement)
    return statements


def _signed_length(proof: Proof) -> int:
    """Where the additional nodes lead, if they are what they should be."""
    upgrade = proof.upgrade
    assert upgrade is not None
    if not upgrade.additional_nodes:
        return upgrade.length
    last = upgrade.additional_nodes[-1].index
    return flat_tree.right_span(last) // 2 + 1


def _statement(head: Head, log: ReplicatedLog, length: int) -> Proof | None:
    request = ProofRequest(head.fork, upgrade=UpgradeRequest(0, length))
    try:
        return build_proof(request, head, log.read_node)
    except InvalidRequest:
        return None  # a sparse log does not have the roots of every length
