"""The scheduler of one core: who is asked for what, who is told what. A machine.

Peers' messages go in, messages for peers come out. What is verified is committed to the log
once for all messages that arrived together, before anything is announced or asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hypercore.fork_proof import ForkProof
from hypercore.replication.activity import Activity
from hypercore.replication.announcements import Announcer, runs_of
from hypercore.replication.conflicts import Conflicts
from hypercore.replication.demand import Priority
from hypercore.replication.downloads import Downloads
from hypercore.replication.heads import HeadRequests, patience_with
from hypercore.replication.hotswap import MAX_SILENT_SECONDS, Recheck
from hypercore.replication.intake import Intake
from hypercore.replication.messages import Extension, MessageType
from hypercore.replication.outputs import (
    AbortConnection,
    Answerable,
    EndChannel,
    Output,
    Transmit,
)
from hypercore.replication.pushes import PushQueues
from hypercore.replication.reception import Reception
from hypercore.replication.remote import RemotePeer, soonest_first
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.seeks import Seek
from hypercore.replication.settings import ReplicationSettings
from hypercore.replication.statistics import Counters, WireCounts
from hypercore.replication.uploads import Uploads


class Replicator:
    """One core and all its peers."""

    def __init__(self, log: ReplicatedLog, seed: int = 0) -> None:
        """`seed` determines the order of downloads in random order."""
        self._log = log
        self._fork = log.head.fork
        """The fork of the history that requests are about."""

        self._announcer = Announcer(log)
        self._conflicts = Conflicts(log)
        self._downloads = Downloads(log, self._conflicts, seed)
        self._reception = Reception(log, self._downloads, self._conflicts, self)
        self._activity = Activity()
        self._pushes = PushQueues(log)
        self._recheck = Recheck()
        self.peers: list[RemotePeer] = []
        self.departed = Counters()
        """The counts of all peers that are gone."""

        self.departed_wire = WireCounts()
        self.peers_refused = 0

    # --- peers -------------------------------------------------------------------------------

    def add_peer(
        self, public_key: bytes = b"", handshake_seconds: float = 0.0
    ) -> tuple[RemotePeer, list[Output]]:
        """A peer whose capability is verified; it is told where we stand."""
        counters = Counters()
        peer = RemotePeer(Uploads(self._log, counters), counters, public_key)
        peer.inflight.round_trip_guess = handshake_seconds
        peer.inflight.resize(self.settings.first_window, self.settings.max_window)
        self.peers.append(peer)
        self._announcer.advance()
        self._sync(peer, is_downloading=self.is_downloading)
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
        self._pushes.forget(peer)
        self.departed.add(peer.counters)
        self.departed_wire.add(peer.wire)

    @property
    def is_downloading(self) -> bool:
        """Whether peers should keep the channel for us: readers wait for what is appended."""
        return (
            bool(self._downloads.demand)
            or self._downloads.heads.updates > 0
            or not (self._log.is_writable or self._activity.is_quiet)
        )

    @property
    def is_behind(self) -> bool:
        """Whether some peer has, or may have, a later head than ours for us."""
        return any(True for _ in self.peers_ahead())

    def peers_ahead(self) -> Iterator[RemotePeer]:
        """Peers that have, or may have, a later head than ours."""
        head = self._log.head
        if self._log.takes_more:
            for peer in self.peers:
                is_longer = peer.may_upgrade_us(head.fork, head.length)
                if is_longer or self._downloads.heads.forks.is_ahead(peer):
                    yield peer

    @property
    def heads(self) -> HeadRequests:
        """Which peers are asked for a later head, and since when."""
        return self._downloads.heads

    # --- local input -------------------------------------------------------------------------

    @property
    def settings(self) -> ReplicationSettings:
        return self._downloads.settings

    def configure(self, settings: ReplicationSettings, now: float) -> list[Output]:
        self._downloads.settings = settings
        for peer in self.peers:
            peer.inflight.resize(settings.first_window, settings.max_window)
        self._sync_all()
        self._fill_all(now)
        return self._flush([])

    @property
    def is_active(self) -> bool:
        return self._activity.is_active

    def set_active(self, is_active: bool, now: float) -> list[Output]:
        """Note whether the core is in use: while not, channels end that the remote does not use."""
        self._activity.set(is_active, now + self.settings.linger_seconds)
        if not is_active and now >= self._activity.deadline:
            return self.advance(now)
        self._sync_all()
        return self._flush([])

    def expect_head(self, more: int, now: float, *, keeps_channels: bool) -> list[Output]:
        """More callers (or fewer) wait for a longer head; channels to peers with one may stay."""
        self._downloads.heads.expect(more, keeps_channels=keeps_channels)
        self._sync_all()
        self._fill_all(now)
        return self._flush([])

    def advance_heads(self, now: float) -> list[Output]:
        """Somebody has waited for a head for long enough: another peer may be asked for its own."""
        self._fill_all(now)
        return self._flush([])

    def want(
        self,
        indices: Iterable[int],
        now: float,
        priority: Priority = Priority.LINEAR,
        *,
        is_forced: bool = False,
    ) -> list[Output]:
        """Ask for blocks, now or when a peer has them; taken back by `unwant` of the same blocks.

        `priority` is for ranges and bitmaps; other blocks are urgent. `is_forced`: ask for these
        even where nothing else is asked for because peers push.
        """
        was_downloading = self.is_downloading
        self._downloads.demand.want(indices, priority)
        self._recheck.wanted(now)
        if is_forced:
            self._downloads.demand.force(indices)
        self._fill_all(now)
        if not was_downloading:
            self._sync_all()
        return self._flush([])

    def unwant(
        self, indices: Iterable[int], now: float, priority: Priority = Priority.LINEAR
    ) -> list[Output]:
        self._downloads.cancel(self.peers, self._downloads.demand.unwant(indices, priority))
        self._fill_all(now)
        return self._flush([])

    def start_seek(self, seek: Seek, now: float) -> list[Output]:
        """Search for the block at a byte offset, until `stop_seek`."""
        self._downloads.seeks.add(seek)
        self._fill_all(now)
        return self._flush([])

    def stop_seek(self, seek: Seek, now: float) -> list[Output]:
        self._downloads.stop_seek(seek)
        self._fill_all(now)
        return self._flush([])

    def push(self, indices: Sequence[int]) -> list[Output]:
        """Send blocks to the peers that take what they did not ask for, and lack these."""
        return [Answerable(peer) for peer in self._pushes.add(self.peers, indices)]

    def push_asked(
        self, peer: RemotePeer, indices: Iterable[int]
    ) -> tuple[list[int], list[Output]]:
        """Send the peer what it asked an extension for; also returns which blocks will be sent."""
        if peer.is_gone:
            return [], []
        queued = self._pushes.add_asked(peer, indices, self._announcer.served)
        return queued, [Answerable(peer)] if queued else []

    def expect(
        self,
        peer: RemotePeer,
        indices: Iterable[int],
        now: float,
        instead_of: Iterable[int] = (),
        *,
        is_announced: bool = False,
    ) -> list[Output]:
        """The peer is to push these blocks: nobody is asked for them meanwhile.

        What it has announced itself, it sends in that order. A block that is no longer expected
        may be on its way for another reader: it is requested a little later.
        """
        if peer.is_gone:
            return []
        self._downloads.expect(peer, tuple(indices), now, instead_of, is_announced)
        if is_announced and self._downloads.is_reassigning:
            self._fill_all(now)
        self._recheck.wanted(now)
        return self._flush([])

    def log_changed(self, now: float) -> list[Output]:
        """The log was appended to, truncated, or became durable: announce it, now or soon."""
        fork = self._announcer.served.fork
        run = self._announcer.advance()
        is_same = self._announcer.served.fork == fork
        if self._log.head.fork != self._fork:
            self._history_changed()
        delay_seconds = self.settings.announce_delay_seconds if is_same else 0.0
        if self._announcer.hold_back(run, delay_seconds, now):
            return []
        outputs = self.announce(now)
        # What was asked of the old history waited until it was sure to be gone.
        waiting = () if is_same else [peer for peer in self.peers if len(peer.uploads)]
        return outputs + [Answerable(peer) for peer in waiting]

    def announce(self, now: float) -> list[Output]:
        """Tell peers what they have not heard of yet."""
        if not self._announcer.is_holding_back:
            return []
        runs = self._announcer.take_held_back()
        self._sync_all()
        for peer in self.peers:
            self._announcer.have(peer, runs)
        self._fill_all(now)
        return self._flush([Answerable(peer) for peer in self._pushes.waiting()])

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
        """Send a message to one peer, or to all of them."""
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
        blocks_before, owes = peer.counters.blocks_received, len(peer.inflight) > 0
        contiguous_before = peer.contiguous_length
        is_stored = False
        try:
            outputs = self._reception.take_in(peer, messages, intake, now)
            blocks = peer.counters.blocks_received - blocks_before
            in_time = blocks - self._downloads.accepted.late
            if owes and in_time:
                peer.speed.answered(in_time, now)
                self._downloads.is_reassigning |= self._recheck.arrived(now)
            self._commit(intake, has_blocks=blocks > 0)
            is_stored = True
        finally:
            self._downloads.settle(is_stored=is_stored)
        if peer.contiguous_length > contiguous_before:
            self._note_contiguous(peer)
        if unrequested := self._downloads.accepted.take_unrequested():
            self._downloads.cancel(self.peers, unrequested)
        if self._conflicts.evidence is not None:
            self._take_evidence(self._conflicts.evidence)
            is_over = bool(outputs) and isinstance(outputs[-1], EndChannel | AbortConnection)
            if peer.suspicion is not None and not is_over:
                # Its history does not fit ours, nor ours its: tell it, and part.
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
            self._sync(peer, is_downloading=self.is_downloading)
        return self._flush(outputs)

    def _note_contiguous(self, peer: RemotePeer) -> None:
        sync = peer.sync
        if sync is not None and sync.fork == self._log.head.fork:
            self._log.note_remote_contiguous(peer.contiguous_length)

    def _commit(self, intake: Intake, *, has_blocks: bool) -> None:
        changesets = intake.changesets()
        if not changesets:
            return
        before = self._announcer.served
        self._log.commit(changesets)
        self._announcer.advance()
        is_same_fork = self._announcer.served.fork == before.fork
        if not is_same_fork or any(changes.truncated_to is not None for changes in changesets):
            self._history_changed()
            for peer in self.peers if is_same_fork else ():
                self._announcer.dropped(peer, 0, before.length)
        if any(changes.head is not None or changes.manifest for changes in changesets):
            for peer in self.peers:
                peer.reached(self._log.head.length)
            self._sync_all()
        if has_blocks:
            runs = runs_of(index for changes in changesets for index, _ in changes.blocks)
            for peer in self.peers:
                self._announcer.have(peer, runs)

    # --- output ------------------------------------------------------------------------------

    def take(self, peer: RemotePeer, max_bytes: int) -> list[tuple[int, bytes]]:
        """Answers of about `max_bytes` to the peer's requests.

        Raises: what the log's `read_blocks` and `read_node` raise.
        """
        served = self._announcer.served
        if peer.is_gone or served.fork != self._log.head.fork:
            return []  # proofs of what was cut off are missing; what took its place may go again
        answers = peer.uploads.take(max_bytes, served)
        if peer.uploads.proven_length > peer.told_length:
            # This gives it a head it has not heard of: first it is told which blocks go with it.
            self._sync(peer, is_downloading=self.is_downloading)
            answers = [*peer.outbox, *answers]
            peer.outbox = []
        pushes = self._pushes.of(peer)
        if pushes:
            left = max_bytes - sum(len(payload) for _, payload in answers)
            answers += pushes.take(peer, left, served)
        peer.wire.count_sent(answers)
        return answers

    @property
    def deadline(self) -> float:
        """When to call `advance`: another peer may be the better one to ask by then."""
        own = self._activity.deadline, self._conflicts.deadline, self.heads.deadline
        deadline = min(*own, self._announcer.due_at)
        is_shared = len(self.peers) > 1 and any(len(peer.inflight) for peer in self.peers)
        if is_shared or self._downloads.is_reassigning:
            deadline = min(deadline, self._recheck.at)
        return min([deadline, *(peer.deadline for peer in self.peers)])

    def advance(self, now: float) -> list[Output]:
        """Do what is due; nothing happens before the deadline."""
        if now < self.deadline:
            return []
        outputs: list[Output] = []
        for peer in self._conflicts.overdue(now):
            assert peer.suspicion is not None
            self.peers_refused += 1
            self._forget(peer)
            outputs.append(EndChannel(peer, peer.suspicion.error))
        if self._activity.advance(now):
            self._sync_all()
            for peer in list(self.peers):
                outputs += self._end_idle(peer)
        for peer in self.peers:
            if peer.expected.deadline <= now:
                self._downloads.give_up_expected(peer)
            if peer.uploads.advance(now):
                outputs.append(Answerable(peer))
        self._recheck.looked(now)
        self._fill_all(now)
        self._downloads.heads.passed(now)
        if self._announcer.due_at <= now:
            outputs += self.announce(now)
        return self._flush(outputs)

    def _end_idle(self, peer: RemotePeer) -> list[Output]:
        """End a channel that neither side has any use for."""
        sync = peer.sync
        if sync is None or sync.downloading or self.is_downloading:
            return []
        said = self._transmit(peer)
        self._forget(peer)
        return [*said, EndChannel(peer, None)]

    def nobody_has(self, index: int) -> bool:
        """Whether no connected peer can have the block, as far as they have said."""
        return not any(peer.may_have(index) for peer in self.peers)

    def nobody_brings(self, index: int, since: float, now: float) -> bool:
        """As `nobody_has`, but for peers silent for too long; the wait began at `since`."""
        return not any(
            peer.speed.stalled_seconds(peer.inflight, now) < MAX_SILENT_SECONDS
            if peer.offers(index)
            else now < since + patience_with(peer.inflight.best_guess)
            for peer in self.peers
            if peer.may_have(index)
        )

    def _history_changed(self) -> None:
        self._fork = self._log.head.fork
        self._downloads.demand.rewind()
        self._downloads.seeks.rewind()
        for peer in self.peers:
            self._downloads.cancel_all(peer)
            peer.uploads.history_changed()
            self._note_contiguous(peer)

    def _sync_all(self) -> None:
        is_downloading = self.is_downloading
        for peer in self.peers:
            self._sync(peer, is_downloading=is_downloading)

    def _sync(self, peer: RemotePeer, *, is_downloading: bool) -> None:
        allows_push = (
            is_downloading and self._activity.is_active and self._downloads.allows_push_of(peer)
        )
        peer.was_allowed_push |= allows_push
        told_length = peer.told_length
        self._announcer.sync(peer, is_downloading=is_downloading, allows_push=allows_push)
        if self._announcer.is_holding_back and peer.told_length > told_length:
            # With the length go the blocks: else they would seem to be lost.
            self._announcer.have(peer, self._announcer.held_back)

    def _fill_all(self, now: float) -> None:
        self._downloads.is_reassigning = False
        ordered = soonest_first(self.peers, now)
        self._downloads.has_shared = False
        for peer in ordered:
            self._downloads.fill(peer, self.peers, now)
        if self._downloads.has_shared:
            for peer in ordered:
                self._downloads.fill(peer, self.peers, now)

    def _flush(self, outputs: list[Output]) -> list[Output]:
        for peer in self.peers:
            if peer.outbox:
                outputs += self._transmit(peer)
        return outputs

    def _transmit(self, peer: RemotePeer) -> list[Output]:
        messages, peer.outbox = peer.outbox, []
        if not messages:
            return []
        peer.wire.count_sent(messages)
        return [Transmit(peer, messages)]
