"""The scheduler of one core: who is asked for what, who is told what. A machine.

Peers' messages go in, messages for peers come out. What is verified is committed to the log
once for all messages that arrived together, before anything is announced or asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from hypercore.encoding import DecodeError
from hypercore.errors import InvalidProof, InvalidSignature, MalformedMessage, RemoteProtocolError
from hypercore.fork_proof import ForkProof
from hypercore.replication.announcements import Announcer, runs_of
from hypercore.replication.conflicts import REPORT, Conflicts
from hypercore.replication.downloads import PATIENCE_SECONDS, Downloads, patience
from hypercore.replication.intake import Intake
from hypercore.replication.messages import (
    Cancel,
    Extension,
    HaveBits,
    MessageType,
    NoData,
    Range,
    Sync,
    Want,
)
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.statistics import Counters
from hypercore.replication.uploads import TooManyRequests, Uploads

_DATA = int(MessageType.DATA)
_REQUEST = int(MessageType.REQUEST)


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send these messages to the peer, in order."""

    peer: RemotePeer
    messages: list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Answerable:
    """The peer's requests wait: `take` from them when its connection can carry more."""

    peer: RemotePeer


@dataclass(frozen=True, slots=True)
class ExtensionReceived:
    """A message of a protocol on top."""

    peer: RemotePeer
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class EndChannel:
    """End this peer's channel: idle when `error` is None, else for what the peer sent."""

    peer: RemotePeer
    error: RemoteProtocolError | None


@dataclass(frozen=True, slots=True)
class AbortConnection:
    """The peer does not speak the protocol: end its whole connection."""

    peer: RemotePeer
    error: RemoteProtocolError


Output = Transmit | Answerable | ExtensionReceived | EndChannel | AbortConnection


class Replicator:
    """One core and all its peers."""

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self._announcer = Announcer(log)
        self._conflicts = Conflicts(log)
        self._downloads = Downloads(log, self._conflicts)
        self._advanced_at = 0.0
        self.peers: list[RemotePeer] = []
        self.departed = Counters()
        """The counts of all peers that are gone."""

        self.peers_refused = 0

    # --- peers -------------------------------------------------------------------------------

    def add_peer(self) -> tuple[RemotePeer, list[Output]]:
        """A peer whose capability is verified; it is told where we stand."""
        counters = Counters()
        peer = RemotePeer(Uploads(self._log, counters), counters)
        self.peers.append(peer)
        self._announcer.advance()
        self._announcer.sync(peer, is_downloading=self.is_downloading)
        self._announcer.have_all(peer)
        return peer, self._flush([])

    def remove_peer(self, peer: RemotePeer, now: float) -> list[Output]:
        """The channel ended: what the peer owed is asked of others."""
        if peer.is_gone:
            return []
        self._forget(peer)
        self._fill_all(now)
        return self._flush([])

    def _forget(self, peer: RemotePeer) -> None:
        peer.is_gone = True
        self.peers.remove(peer)
        self._downloads.forget(peer)
        self._conflicts.forget(peer)
        peer.uploads.clear()
        peer.outbox.clear()
        self.departed.add(peer.counters)

    @property
    def is_downloading(self) -> bool:
        """Whether peers should keep the channel for us: readers wait for what is appended."""
        return not self._log.is_writable or bool(self._downloads.demand)

    @property
    def is_behind(self) -> bool:
        """Whether some peer has, or may have, a later head than ours on the way to us."""
        head = self._log.head
        return self._log.fork_proof is None and any(
            peer.may_upgrade_us(head.fork, head.length) or self._downloads.may_follow(peer)
            for peer in self.peers
        )

    # --- local input -------------------------------------------------------------------------

    def want(self, indices: Iterable[int], now: float) -> list[Output]:
        """Ask for blocks, now or when a peer has them; taken back by `unwant` of the same."""
        was_downloading = self.is_downloading
        self._downloads.demand.want(indices)
        self._fill_all(now)
        if not was_downloading:
            self._sync_all()
        return self._flush([])

    def unwant(self, indices: Iterable[int], now: float) -> list[Output]:
        self._downloads.cancel(self.peers, self._downloads.demand.unwant(indices))
        self._fill_all(now)
        return self._flush([])

    def log_changed(self, now: float) -> list[Output]:
        """The log was appended to, truncated, or became durable: announce it."""
        fork = self._announcer.served.fork
        run = self._announcer.advance()
        if self._announcer.served.fork != fork:
            self._history_changed()
        self._sync_all()
        for peer in self.peers:
            self._announcer.have(peer, [run] if run else [])
        self._fill_all(now)
        return self._flush([])

    def blocks_dropped(self, start: int, stop: int) -> list[Output]:
        """Blocks [start, stop) were cleared: tell everybody."""
        for peer in self.peers:
            self._announcer.dropped(peer, start, stop)
        return self._flush([])

    def freeze(self, evidence: ForkProof) -> list[Output]:
        """The writer signed two histories: ask for nothing more, and tell everybody."""
        self._take_evidence(evidence)
        return self._flush([])

    def _take_evidence(self, evidence: ForkProof) -> None:
        self._conflicts.evidence = None
        if self._log.fork_proof is not None or evidence.fork != self._log.head.fork:
            return
        self._log.mark_frozen(evidence)
        for peer in self.peers:
            self._downloads.cancel_all(peer)
            self._conflicts.tell(peer)
        self._sync_all()

    def send_extension(self, name: str, payload: bytes, peer: RemotePeer | None) -> list[Output]:
        """To one peer, or to all of them."""
        for receiver in self.peers if peer is None else [peer]:
            if receiver.is_gone:
                continue
            said = "" if receiver.last_extension_sent == name else name
            receiver.last_extension_sent = name
            message = (int(MessageType.EXTENSION), Extension(said, payload).encode())
            receiver.outbox.append(message)
        return self._flush([])

    # --- input from peers --------------------------------------------------------------------

    def receive(
        self, peer: RemotePeer, messages: Iterable[tuple[int, bytes]], now: float
    ) -> list[Output]:
        """Handle all messages that waited; commits at most once.

        Raises: what the log's `commit` and `read_node` raise.
        """
        if peer.is_gone:
            return []
        intake = Intake(self._log)
        blocks_before = peer.counters.blocks_received
        outputs = self._receive_all(peer, messages, intake, now)
        self._commit(intake, has_blocks=peer.counters.blocks_received != blocks_before)
        if self._conflicts.evidence is not None:
            self._take_evidence(self._conflicts.evidence)
            is_over = bool(outputs) and isinstance(outputs[-1], EndChannel | AbortConnection)
            if peer.suspicion is not None and not is_over:
                # What it holds does not fit us, nor ours it: tell it, and part.
                outputs += [Transmit(peer, peer.outbox), EndChannel(peer, None)]
                peer.outbox = []
        if outputs and isinstance(outputs[-1], EndChannel | AbortConnection):
            self.peers_refused += outputs[-1].error is not None
            self._forget(peer)
        elif len(peer.uploads):
            outputs.append(Answerable(peer))
        if self._downloads.is_reassigning or peer.is_gone:
            self._fill_all(now)
        else:
            self._downloads.fill(peer, self.peers, now)
        if not peer.is_gone:
            self._announcer.sync(peer, is_downloading=self.is_downloading)
        return self._flush(outputs)

    def _receive_all(
        self, peer: RemotePeer, messages: Iterable[tuple[int, bytes]], intake: Intake, now: float
    ) -> list[Output]:
        """Take the messages in up to the first that ends the channel; its output is the last."""
        outputs: list[Output] = []
        try:
            for message_type, payload in messages:
                if message_type == _DATA:
                    self._downloads.receive_data(peer, payload, intake, now)
                elif message_type == _REQUEST:
                    peer.uploads.add(payload)
                elif output := self._receive_other(peer, message_type, payload):
                    outputs.append(output)
                    if isinstance(output, EndChannel):
                        return outputs
            if peer.parked:
                self._downloads.receive_parked(peer, intake)
            if peer.suspicion is not None:
                self._conflicts.settle(peer)
        except DecodeError as error:
            what = f"replication message: {error.reason}"
            outputs.append(AbortConnection(peer, MalformedMessage(what, error.offset)))
        except (InvalidProof, InvalidSignature, TooManyRequests) as error:
            if self._conflicts.probe(peer, error, now):
                self._downloads.cancel_all(peer)
            else:
                outputs.append(EndChannel(peer, error))
        return outputs

    def _commit(self, intake: Intake, *, has_blocks: bool) -> None:
        changesets = intake.changesets()
        if not changesets:
            return
        self._log.commit(changesets)
        fork = self._announcer.served.fork
        self._announcer.advance()
        if self._announcer.served.fork != fork:
            self._history_changed()
        if any(changes.head is not None for changes in changesets):
            self._sync_all()
        if has_blocks:
            runs = runs_of(index for changes in changesets for index, _ in changes.blocks)
            for peer in self.peers:
                self._announcer.have(peer, runs)

    def _receive_other(self, peer: RemotePeer, message_type: int, payload: bytes) -> Output | None:
        length = self._log.head.length
        match message_type:
            case MessageType.SYNC:
                return self._receive_sync(peer, Sync.decode(payload))
            case MessageType.CANCEL:
                peer.uploads.cancel(Cancel.decode(payload).request)
            case MessageType.NO_DATA:
                message = NoData.decode(payload)
                if message.request == REPORT:
                    self._conflicts.receive_no_data(peer)
                self._downloads.receive_no_data(peer, message)
            case MessageType.WANT:
                want = Want.decode(payload)
                if peer.received_wants.add(want):
                    peer.uploads.add_want(want)
            case MessageType.UNWANT:
                peer.received_wants.remove(Want.decode(payload))
            case MessageType.BITFIELD:
                peer.receive_bits(HaveBits.decode(payload), length)
            case MessageType.RANGE:
                peer.receive_range(Range.decode(payload), length)
            case MessageType.EXTENSION:
                extension = Extension.decode(payload)
                name = extension.name or peer.last_extension_received
                peer.last_extension_received = name
                return ExtensionReceived(peer, name, extension.payload)
            case _:
                pass  # a later version's: ignored, as unknown types are everywhere
        return None

    def _receive_sync(self, peer: RemotePeer, sync: Sync) -> Output | None:
        before = peer.sync
        peer.sync = sync
        if before is not None and before.fork != sync.fork:
            self._downloads.cancel_all(peer)
        if self._log.fork_proof is not None:
            self._conflicts.tell(peer)
        if not sync.downloading and not self.is_downloading:
            return EndChannel(peer, None)
        return None

    # --- output ------------------------------------------------------------------------------

    def take(self, peer: RemotePeer, max_bytes: int) -> list[tuple[int, bytes]]:
        """Answers of about `max_bytes` to the peer's requests.

        Raises: what the log's `read_blocks` and `read_node` raise.
        """
        if peer.is_gone:
            return []
        return peer.uploads.take(max_bytes, self._announcer.served)

    @property
    def deadline(self) -> float:
        """When to call `advance`: somebody may have owed us something for too long by then."""
        if len(self.peers) < 2:
            return self._conflicts.deadline
        overdue_at = min(
            (
                request.sent_at + patience(peer)
                for peer in self.peers
                for request in peer.inflight.oldest()
            ),
            default=inf,
        )
        # Where nobody else has it, look again, but not at once.
        return min(max(overdue_at, self._advanced_at + PATIENCE_SECONDS), self._conflicts.deadline)

    def advance(self, now: float) -> list[Output]:
        """The deadline passed."""
        self._advanced_at = now
        outputs: list[Output] = []
        for peer in self._conflicts.overdue(now):
            assert peer.suspicion is not None
            self.peers_refused += 1
            self._forget(peer)
            outputs.append(EndChannel(peer, peer.suspicion.error))
        self._fill_all(now)
        return self._flush(outputs)

    def nobody_has(self, index: int) -> bool:
        """Whether no connected peer can have the block, as far as they have said."""
        return not any(peer.may_have(index) for peer in self.peers)

    def _history_changed(self) -> None:
        self._downloads.demand.rewind()
        for peer in self.peers:
            self._downloads.cancel_all(peer)

    def _sync_all(self) -> None:
        is_downloading = self.is_downloading
        for peer in self.peers:
            self._announcer.sync(peer, is_downloading=is_downloading)

    def _fill_all(self, now: float) -> None:
        self._downloads.is_reassigning = False
        for peer in self.peers:
            self._downloads.fill(peer, self.peers, now)

    def _flush(self, outputs: list[Output]) -> list[Output]:
        for peer in self.peers:
            if peer.outbox:
                outputs.append(Transmit(peer, peer.outbox))
                peer.outbox = []
        return outputs
