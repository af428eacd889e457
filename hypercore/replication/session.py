"""[trio] One core with all its peers: carries out what the replicator decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import inf

import trio

from hypercore.crypto import Entropy, system_entropy
from hypercore.errors import StorageError
from hypercore.fork_proof import ForkProof
from hypercore.replication.arrivals import Arrivals
from hypercore.replication.channel import MessageChannel, Multiplexer
from hypercore.replication.demand import Priority
from hypercore.replication.departures import Departure, Departures
from hypercore.replication.effort import Effort
from hypercore.replication.extensions import ExtensionHandlers
from hypercore.replication.forks import StuckFork
from hypercore.replication.greetings import Greeting, Greetings
from hypercore.replication.head_wait import HeadWait
from hypercore.replication.heads import patience_with
from hypercore.replication.log_channel import capability_fault, open_log_channel
from hypercore.replication.peer_handle import ExtensionHandler, ExtensionNote, PeerHandle
from hypercore.replication.prefetched import Prefetched
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.replicator import Replicator
from hypercore.replication.report import report_replication
from hypercore.replication.resting import Resting
from hypercore.replication.seeks import Seek
from hypercore.replication.served_peer import ServedPeer
from hypercore.replication.served_peers import ServedPeers
from hypercore.replication.settings import ReplicationSettings
from hypercore.replication.statistics import Counters, ReplicationStatistics

PIECE_MESSAGES = 128
"""Messages handled, and committed, in one go when more have arrived together. Between two pieces
the writer may send what the first one asks for: otherwise the two ends take turns at working,
and two processors do the work of one."""


class CoreReplication:
    """Replication of one core; has no tasks of its own, `serve` runs in its caller's.

    All methods but `serve` and `wait_update` are plain calls that never wait: what they
    cause is handed to the channels' writers.
    """

    def __init__(self, log: ReplicatedLog, entropy: Entropy = system_entropy) -> None:
        """`entropy` seeds downloads in random order, and gives early data its nonces."""
        self._log = log
        self._replicator = Replicator(log, int.from_bytes(entropy(8), "little"))
        self._handlers = ExtensionHandlers()
        self._greetings = Greetings(log, entropy)
        self._served = ServedPeers(self._replicator, self._handlers, self._greetings)
        self._prefetched = Prefetched(self, log.bitfield)
        self._resting = Resting()
        self.refusals = self._served.refusals
        self.departures = Departures()
        """Peers that have gone, for those that have to know."""
        self.activity = trio.lowlevel.ParkingLot()
        """Tasks that wait for anything to happen between this core and its peers."""
        self._arrivals = Arrivals(self.activity)

    # --- what the core asks for ----------------------------------------------------------------

    def want_blocks(
        self,
        indices: Iterable[int],
        priority: Priority = Priority.LINEAR,
        *,
        is_forced: bool = False,
    ) -> None:
        """Ask peers for blocks, now or when one comes that has them.

        A `range` costs the same whatever its length, and may reach beyond the present end.
        `priority` is for ranges and for lists given as a `BitMap64`; other blocks are urgent.
        `is_forced`: ask for these even where peers push and are asked for nothing.
        """
        now = trio.current_time()
        self._served.act(self._replicator.want(indices, now, priority, is_forced=is_forced))

    def unwant_blocks(self, indices: Iterable[int], priority: Priority = Priority.LINEAR) -> None:
        """Take back one `want_blocks` of the same blocks; cancels what nobody else wants."""
        self._served.act(self._replicator.unwant(indices, trio.current_time(), priority))

    def prefetch(self, indices: Iterable[int]) -> None:
        """Ask for blocks that nobody waits for yet, and that nobody takes back.

        Of ranges, the newest `prefetched.MAX_PREFETCHED` stay asked for.
        """
        if isinstance(indices, range) and indices.step == 1:
            self._prefetched.add(indices)
        else:
            self.want_blocks(indices)

    def push_blocks(self, indices: Sequence[int]) -> int:
        """Send blocks, as soon as they are durable, to peers that take what they lack unasked.

        Returns how many peers do. Like every answer, a push leaves when the connection can carry
        it; over `pushes.MAX_WAITING_PUSHES` to one peer, further ones are dropped.
        """
        outputs = self._replicator.push(indices)
        self._served.carry_out(outputs)
        return len(outputs)

    @property
    def settings(self) -> ReplicationSettings:
        return self._replicator.settings

    def configure(self, settings: ReplicationSettings) -> None:
        """Replicate like this from now on; peers are told what concerns them."""
        self._served.act(self._replicator.configure(settings, trio.current_time()))

    @property
    def is_active(self) -> bool:
        return self._replicator.is_active

    def set_active(self, is_active: bool) -> None:
        """Whether the core is in use, as it is from the start.

        While it is not, peers may not push, and after `linger_seconds` those channels are closed
        that the other end has no use for; they are opened again when either end wants something.
        """
        self._served.act(self._replicator.set_active(is_active, trio.current_time()))
        if is_active:
            self._resting.wake_all()

    def remote_opened(self, mux: Multiplexer) -> None:
        """The remote wants the channel that was closed as idle: open it again."""
        self._resting.wake(mux)

    @contextmanager
    def greeting(self, name: str, payload: bytes, pushes: int) -> Iterator[None]:
        """While in this block, each peer is sent this extension message, a new one when it comes.

        The message asks for blocks: each of these peers may send `pushes` of them unrequested.
        """
        greeting = Greeting(name, payload, pushes)
        with self._greetings.saying(greeting):
            for handle in self.peers:
                greeting.send(handle)
            yield

    def finding_peers(self) -> AbstractContextManager[None]:
        """While in this block somebody looks for peers: `wait_update` waits for the first one."""
        return self._arrivals.finding()

    def start_seek(self, seek: Seek) -> None:
        """Search for the block at a byte offset; `activity` is woken when it may be found."""
        self._served.act(self._replicator.start_seek(seek, trio.current_time()))

    def stop_seek(self, seek: Seek) -> None:
        self._served.act(self._replicator.stop_seek(seek, trio.current_time()))

    def truncating(self, length: int) -> None:
        """The log is about to be cut to that length."""
        for peer in self._replicator.peers:
            peer.truncating(length)

    def log_changed(self) -> None:
        """The log was appended to or truncated, or more of it became durable: announce it."""
        self._served.act(self._replicator.log_changed(trio.current_time()))
        self._notify()

    def announce(self) -> None:
        """Tell peers now what is held back by `ReplicationSettings.announce_delay_seconds`."""
        self._served.carry_out(self._replicator.announce(trio.current_time()))

    def blocks_dropped(self, start: int, stop: int) -> None:
        """Blocks [start, stop) were cleared from the storage."""
        self._served.carry_out(self._replicator.blocks_dropped(start, stop))
        if self.stuck_fork is not None:  # perhaps these were what kept us from following it
            self._served.act(self._replicator.advance_heads(trio.current_time()))

    def freeze(self, proof: ForkProof) -> None:
        """Freeze the log with verified evidence that did not come from a peer; tell the peers."""
        self._served.carry_out(self._replicator.freeze(proof))
        self._notify()

    async def wait_update(self, check_open: Callable[[], None] = lambda: None) -> bool:
        """Wait until the newer head that some peer has, if any, is here; False if there is none.

        Peers that are connecting at this moment are waited for, too, and so is the first peer
        as long as it is looked for (`finding_peers`). A peer that says nothing, or does not prove
        what it says, keeps nobody waiting for longer than `HeadWait` has patience with it.

        Raises: what `check_open` does, once the caller has closed the core.
        Cancel: undoes nothing.
        """
        length, fork = self._log.head.length, self._log.head.fork
        with ExitStack() as stack:
            is_expecting = False
            waiting = HeadWait(self._replicator, self._log)
            while (self._log.head.length, self._log.head.fork) == (length, fork):
                now = trio.current_time()
                ends = waiting.until(now), self._arrivals.until(now)
                if max(ends) == -inf:
                    return False
                if not is_expecting:
                    is_expecting = True
                    stack.enter_context(self.expecting_head(keeps_channels=True))
                with trio.move_on_at(min(end for end in ends if end > now)) as patience:
                    await self.activity.park()
                if patience.cancelled_caught:  # it is another peer's turn
                    self._served.act(self._replicator.advance_heads(trio.current_time()))
                check_open()
            return True

    @contextmanager
    def expecting_head(self, *, keeps_channels: bool = False) -> Iterator[None]:
        """While in this block somebody waits for a longer head: it is asked for at once.

        With `keeps_channels` the channels to peers that may have one stay for that.
        """
        expect = partial(self._replicator.expect_head, keeps_channels=keeps_channels)
        self._served.act(expect(1, trio.current_time()))
        try:
            yield
        finally:
            self._served.act(expect(-1, trio.current_time()))

    @property
    def stuck_fork(self) -> StuckFork | None:
        """The later history that cannot be followed without giving up blocks, if there is one."""
        return self._replicator.heads.forks.stuck

    def nobody_has(self, index: int) -> bool:
        """Whether no connected peer can have the block, as far as they have said."""
        return not self._arrivals.is_opening and self._replicator.nobody_has(index)

    def is_lost(self, index: int, keeper: bytes, since: float) -> bool:
        """Whether the remote that must have the block if anybody has it, and all others, lack it.

        `keeper` is its public key; False while it is not connected or has announced no length
        beyond the block. Others that say nothing count only for a while after `since`, when the
        wait began.
        """
        is_told = any(
            served.handle.remote_public_key == keeper
            and not served.peer.is_gone
            and served.peer.length > index
            for served in self._served
        )
        now = trio.current_time()
        is_opening = self._arrivals.is_opening_at(now)
        return is_told and not is_opening and self._replicator.nobody_brings(index, since, now)

    @property
    def has_reachable_peers(self) -> bool:
        return bool(self._served) or self._arrivals.is_opening

    @property
    def peers(self) -> tuple[PeerHandle, ...]:
        return tuple(served.handle for served in self._served)

    # --- extensions ------------------------------------------------------------------------------

    def set_extension(
        self,
        name: str,
        handler: ExtensionHandler | None,
        owner: object = None,
        note: ExtensionNote | None = None,
    ) -> None:
        """Handle this extension's messages, one at a time for each peer; None: no longer.

        `note` sees each message when it comes, before its turn. Of several owners, the last one's
        handler is asked, until `forget_extensions`.

        Raises: UsageError for the empty name, which means "the one before" on the wire.
        """
        self._handlers.set(name, handler, owner, note)

    def forget_extensions(self, owner: object) -> None:
        """Ask the handlers of this owner no more."""
        self._handlers.forget(owner)

    def send_extension(self, name: str, payload: bytes) -> int:
        """Send to all peers; returns how many there are. The bytes go out as they are.

        JavaScript extensions without an encoding of their own expect a length before them:
        `encode_buffer(payload)`.
        """
        self._served.carry_out(self._replicator.send_extension(name, payload, None))
        return len(self._served)

    # --- what one peer's handle asks for ---------------------------------------------------------

    def send_extension_to(self, peer: RemotePeer, name: str, payload: bytes) -> None:
        """See `PeerHandle.send_extension`."""
        self._served.carry_out(self._replicator.send_extension(name, payload, peer))

    def push_asked(self, peer: RemotePeer, indices: Iterable[int]) -> Sequence[int]:
        """See `PeerHandle.push_blocks`."""
        queued, outputs = self._replicator.push_asked(peer, indices)
        self._served.carry_out(outputs)
        return queued

    def expect(self, peer: RemotePeer, indices: Iterable[int], instead_of: Iterable[int]) -> None:
        """See `PeerHandle.expect_blocks`."""
        self._served.act(self._replicator.expect(peer, indices, trio.current_time(), instead_of))

    def expect_announced(self, peer: RemotePeer, indices: Iterable[int]) -> None:
        """See `PeerHandle.expect_announced`."""
        self._served.act(
            self._replicator.expect(peer, indices, trio.current_time(), is_announced=True)
        )

    # --- serving ---------------------------------------------------------------------------------

    async def serve(self, mux: Multiplexer, effort: Effort | None = None) -> None:
        """Replicate this core over one connection, until the channel or the connection ends.

        `effort` is what all cores of the connection have cost; without it there is this one only.

        Also returns when the remote does not have the core. A remote that does not know the core's
        key, or sends a malformed message, loses its connection; one that sends an invalid proof
        loses the channel, and nothing of the proof is kept.

        While the core is not active this waits, after the channel has ended, until the channel is
        wanted again; the caller must cancel it when the connection has ended.

        Raises: StorageError when this core cannot be read or written any more.
        Cancel: closes the channel.
        """
        effort = effort or Effort.of_connection(trio.current_time())
        while await self._serve_once(mux, effort) or await self._rest(mux):
            pass

    async def _rest(self, mux: Multiplexer) -> bool:
        """True when the channel is wanted again, by an inactive core or by its remote."""
        if self.is_active:
            return False
        await self._resting.wait(mux)
        return True

    async def _serve_once(self, mux: Multiplexer, effort: Effort) -> bool:
        """One life of the channel; True when it is to be opened again."""
        channel = await self._open(mux)
        if channel is None:
            return False
        try:
            if not self._is_capable(channel):
                return False
            peer, outputs = self._replicator.add_peer(
                channel.link.remote_public_key, channel.link.handshake_seconds
            )
            served = ServedPeer(peer, channel, PeerHandle(self, peer, channel.link), effort)
            self._served.add(served)
            self._arrivals.came()
            try:
                self._served.carry_out(outputs)
                self._greetings.greet(served.handle)
                channel.set_source(partial(self._take, served))
                return await self._converse(served)
            finally:
                self._served.remove(served)
                key, our_length = channel.link.remote_public_key, self._log.head.length
                self.departures.note(Departure(key, peer.length, our_length))
                self._served.act(self._replicator.remove_peer(peer, trio.current_time()))
                self._notify()
        finally:
            channel.close()

    async def _open(self, mux: Multiplexer) -> MessageChannel | None:
        patience = patience_with(mux.link.handshake_seconds)
        with self._arrivals.opening(trio.current_time() + patience):
            early = self._greetings.early_messages(mux.link)
            return await open_log_channel(mux, self._log.key, self._log.discovery_key, early)

    def _is_capable(self, channel: MessageChannel) -> bool:
        """Check the remote's capability; a wrong one ends the connection, as it does in JS."""
        error = capability_fault(channel, self._log.key)
        if error is None:
            return True
        self._replicator.peers_refused += 1
        channel.abort(error)
        return False

    async def _converse(self, served: ServedPeer) -> bool:
        """Receive until the channel ends; True when it is to be opened again."""
        peer, channel = served.peer, served.channel
        replicator = self._replicator
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    messages = None
                    with trio.move_on_at(replicator.deadline) as scope:
                        served.waiting = scope
                        messages = await channel.receive()
                    if messages is None:
                        self._served.carry_out(replicator.advance(trio.current_time()))
                        continue
                    for start in range(0, len(messages), PIECE_MESSAGES):
                        if start:
                            await trio.lowlevel.checkpoint()
                        self._receive(served, messages[start : start + PIECE_MESSAGES], nursery)
                    if peer.is_gone:
                        break
                    if pause := served.pause_seconds:
                        await trio.sleep(pause)
            except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
                pass
            except StorageError as error:
                served.error = error
            is_open = not peer.is_gone
            nursery.cancel_scope.cancel()
        if served.error is not None:
            raise served.error
        # The remote had nothing more to ask and took us for idle: it still serves us. Or our open
        # met one that it was about to take back, having closed the core: it may open it for us.
        sync = peer.sync
        serves_us = sync is None or (not sync.downloading and sync.uploading)
        return is_open and serves_us and replicator.is_downloading

    def _receive(
        self, served: ServedPeer, messages: list[tuple[int, bytes]], nursery: trio.Nursery
    ) -> None:
        head = self._log.head
        had_extensions = bool(served.extensions)
        started = served.clock()
        counters = served.peer.counters
        in_blocks = counters.bytes_received
        self._served.carry_out(self._replicator.receive(served.peer, messages, trio.current_time()))
        in_blocks = counters.bytes_received - in_blocks
        carried = sum(len(payload) for _, payload in messages)
        served.note_effort(started, max(0, carried - in_blocks))
        if self._log.head is not head or not self._replicator.is_behind:
            self._notify()
        if served.extensions and not had_extensions:
            nursery.start_soon(served.handle_extensions, self._handlers.current)
        if self.activity:
            self.activity.unpark_all()

    def _take(self, served: ServedPeer, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """Called by the channel's writer, which must not fail when our disk does."""
        try:
            started = served.clock()
            messages = self._replicator.take(served.peer, max_bytes)
            served.note_effort(started)
            if self.activity:
                self.activity.unpark_all()
            return messages
        except StorageError as error:
            served.fail(error)
            return ()

    def _notify(self) -> None:
        self.activity.unpark_all()

    # --- statistics ------------------------------------------------------------------------------

    def totals(self) -> Counters:
        """The counts of all peers, gone ones included."""
        total = replace(self._replicator.departed)
        for served in self._served:
            if not served.peer.is_gone:
                total.add(served.peer.counters)
        return total

    def statistics(self) -> ReplicationStatistics:
        peers = [(served.peer, served.channel.link) for served in self._served]
        return report_replication(self._replicator, self._log.head, peers)
