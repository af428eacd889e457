"""[trio] One core with all its peers: carries out what the replicator decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

import trio

from hypercore.encoding import DecodeError
from hypercore.errors import (
    InvalidCapability,
    MalformedMessage,
    RemoteProtocolError,
    StorageError,
    UsageError,
)
from hypercore.replication.capability import is_capable, replicate_capability
from hypercore.replication.channel import Link, MessageChannel, Multiplexer
from hypercore.replication.effort import Effort
from hypercore.replication.messages import PROTOCOL, PROTOCOL_ALIASES, Handshake
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.replicator import (
    AbortConnection,
    Answerable,
    EndChannel,
    ExtensionReceived,
    Output,
    Replicator,
    Transmit,
)
from hypercore.replication.statistics import PeerStatistics, ReplicationStatistics

MAX_WAITING_EXTENSIONS = 64
"""Extension messages of one peer that wait for their handler; more are dropped: they are hints."""

PIECE_MESSAGES = 128
"""Messages handled, and committed, in one go when more have arrived together. Between two pieces
the writer may send what the first one asks for: otherwise the two ends take turns at working,
and two processors do the work of one."""


class PeerHandle:
    """One connected peer of one core, as an extension's handler sees it."""

    def __init__(self, replication: CoreReplication, peer: RemotePeer, link: Link) -> None:
        self._replication = replication
        self._peer = peer
        self.link = link

    @property
    def remote_public_key(self) -> bytes:
        return self.link.remote_public_key

    @property
    def length(self) -> int:
        """The length that the peer said it has."""
        return self._peer.length

    @property
    def is_connected(self) -> bool:
        return not self._peer.is_gone

    def send_extension(self, name: str, payload: bytes) -> None:
        """Send to this peer; nothing happens when it is gone."""
        self._replication._send_extension(name, payload, self._peer)


ExtensionHandler = Callable[[bytes, PeerHandle], Awaitable[Sequence[bytes]]]
"""Gets a peer's payload; what it returns is sent back to that peer under the same name."""


class _Served:
    """A peer with its channel."""

    __slots__ = ("channel", "effort", "error", "extensions", "handle", "peer")

    def __init__(self, peer: RemotePeer, channel: MessageChannel, handle: PeerHandle) -> None:
        self.peer = peer
        self.channel = channel
        self.handle = handle
        self.error: StorageError | None = None
        self.extensions: list[tuple[str, bytes]] = []
        self.effort = Effort(trio.current_time())

    def note_effort(self, started: float) -> None:
        """Something was done for the peer, beginning then."""
        now = trio.current_time()
        counters = self.peer.counters
        self.effort.spent(now - started, counters.blocks_received + counters.blocks_sent, now)


class CoreReplication:
    """Replication of one core; has no tasks of its own, `serve` runs in its caller's.

    All methods but `serve` and `wait_update` are plain calls that never wait: what they
    cause is handed to the channels' writers.
    """

    def __init__(self, log: ReplicatedLog) -> None:
        self._log = log
        self._replicator = Replicator(log)
        self._served: dict[RemotePeer, _Served] = {}
        self._handlers: dict[str, ExtensionHandler] = {}
        self._opening = 0
        self._changed = trio.Event()

    # --- what the core asks for ----------------------------------------------------------------

    def want_blocks(self, indices: Iterable[int]) -> None:
        """Ask peers for blocks, now or when one comes that has them.

        A `range` costs the same whatever its length, and may reach beyond the present end.
        """
        self._carry_out(self._replicator.want(indices, trio.current_time()))

    def unwant_blocks(self, indices: Iterable[int]) -> None:
        """Take back one `want_blocks` of the same; cancels what nobody else wants."""
        self._carry_out(self._replicator.unwant(indices, trio.current_time()))

    def log_changed(self) -> None:
        """The log was appended to or truncated, or more of it became durable: announce it."""
        self._carry_out(self._replicator.log_changed(trio.current_time()))
        self._notify()

    def blocks_dropped(self, start: int, stop: int) -> None:
        """Blocks [start, stop) were cleared from the storage."""
        self._carry_out(self._replicator.blocks_dropped(start, stop))

    async def wait_update(self) -> bool:
        """Wait until the newer head that some peer has, if any, is here; False if there is none.

        Peers that are connecting at this moment are waited for, too.

        Cancel: undoes nothing.
        """
        length, fork = self._log.head.length, self._log.head.fork
        while (self._log.head.length, self._log.head.fork) == (length, fork):
            if not self._opening and not self._replicator.is_behind:
                return False
            await self._changed.wait()
        return True

    def nobody_has(self, index: int) -> bool:
        """Whether no connected peer can have the block, as far as they have said."""
        return not self._opening and self._replicator.nobody_has(index)

    @property
    def has_reachable_peers(self) -> bool:
        return bool(self._served) or self._opening > 0

    @property
    def peers(self) -> tuple[PeerHandle, ...]:
        return tuple(served.handle for served in self._served.values())

    # --- extensions ------------------------------------------------------------------------------

    def set_extension(self, name: str, handler: ExtensionHandler | None) -> None:
        """Handle this extension's messages, one at a time for each peer; None: no longer.

        Raises: UsageError for the empty name, which means "the one before" on the wire.
        """
        if not name:
            raise UsageError("an extension needs a name")
        if handler is None:
            self._handlers.pop(name, None)
        else:
            self._handlers[name] = handler

    def send_extension(self, name: str, payload: bytes) -> int:
        """Send to all peers; returns how many there are. The bytes go out as they are.

        JavaScript extensions without an encoding of their own expect a length before them:
        `encode_buffer(payload)`.
        """
        self._send_extension(name, payload, None)
        return len(self._served)

    def _send_extension(self, name: str, payload: bytes, peer: RemotePeer | None) -> None:
        self._carry_out(self._replicator.send_extension(name, payload, peer))

    # --- serving ---------------------------------------------------------------------------------

    async def serve(self, mux: Multiplexer) -> None:
        """Replicate this core over one connection, until the channel or the connection ends.

        Returns when the remote does not have the core, too. A remote that does not know the
        core's key, or sends what is no message, loses its connection; one that sends an invalid
        proof loses the channel, and nothing of it is kept.

        Raises: StorageError when this core cannot be read or written any more.
        Cancel: closes the channel.
        """
        is_reopened = True
        while is_reopened:
            is_reopened = await self._serve_once(mux)

    async def _serve_once(self, mux: Multiplexer) -> bool:
        """One life of the channel; True when it is to be opened again."""
        channel = await self._open(mux)
        if channel is None:
            return False
        try:
            if not self._is_capable(channel):
                return False
            peer, outputs = self._replicator.add_peer()
            served = _Served(peer, channel, PeerHandle(self, peer, channel.link))
            self._served[peer] = served
            try:
                self._carry_out(outputs)
                channel.set_source(partial(self._take, served))
                return await self._converse(served)
            finally:
                self._served.pop(peer, None)
                self._carry_out(self._replicator.remove_peer(peer, trio.current_time()))
                self._notify()
        finally:
            channel.close()

    async def _open(self, mux: Multiplexer) -> MessageChannel | None:
        link = mux.link
        capability = replicate_capability(
            is_initiator=link.is_initiator,
            key=self._log.key,
            handshake_hash=link.handshake_hash,
        )
        self._opening += 1
        try:
            return await mux.open_channel(
                PROTOCOL,
                self._log.discovery_key,
                Handshake(capability).encode(),
                aliases=PROTOCOL_ALIASES,
            )
        except (trio.BrokenResourceError, trio.EndOfChannel, trio.ClosedResourceError):
            return None
        finally:
            self._opening -= 1
            self._notify()

    def _is_capable(self, channel: MessageChannel) -> bool:
        """Check the remote's capability; a wrong one ends the connection, as it does in JS."""
        link = channel.link
        error: RemoteProtocolError
        try:
            handshake = Handshake.decode(channel.remote_handshake)
        except DecodeError as reason:
            error = MalformedMessage(f"replication handshake: {reason.reason}", reason.offset)
        else:
            if is_capable(
                handshake.capability,
                is_initiator=not link.is_initiator,
                key=self._log.key,
                handshake_hash=link.handshake_hash,
            ):
                return True
            error = InvalidCapability("the remote does not know the key of the core it opened")
        self._replicator.peers_refused += 1
        channel.abort(error)
        return False

    async def _converse(self, served: _Served) -> bool:
        """Receive until the channel ends; True when it is to be opened again."""
        peer, channel = served.peer, served.channel
        replicator = self._replicator
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    messages = None
                    with trio.move_on_at(replicator.deadline):
                        messages = await channel.receive()
                    if messages is None:
                        self._carry_out(replicator.advance(trio.current_time()))
                        continue
                    for start in range(0, len(messages), PIECE_MESSAGES):
                        if start:
                            await trio.lowlevel.checkpoint()
                        self._receive(served, messages[start : start + PIECE_MESSAGES], nursery)
                    if peer.is_gone:
                        break
                    if pause := served.effort.pause_seconds:
                        await trio.sleep(pause)
            except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
                pass
            except StorageError as error:
                served.error = error
            is_open = not peer.is_gone
            nursery.cancel_scope.cancel()
        if served.error is not None:
            raise served.error
        # The remote had nothing more to ask and took us for idle: it still serves us.
        sync = peer.sync
        return (
            is_open
            and sync is not None
            and not sync.downloading
            and sync.uploading
            and replicator.is_downloading
        )

    def _receive(
        self, served: _Served, messages: list[tuple[int, bytes]], nursery: trio.Nursery
    ) -> None:
        head = self._log.head
        had_extensions = bool(served.extensions)
        now = trio.current_time()
        self._carry_out(self._replicator.receive(served.peer, messages, now))
        served.note_effort(now)
        if self._log.head is not head or not self._replicator.is_behind:
            self._notify()
        if served.extensions and not had_extensions:
            nursery.start_soon(self._handle_extensions, served)

    async def _handle_extensions(self, served: _Served) -> None:
        while served.extensions:
            name, payload = served.extensions[0]
            handler = self._handlers.get(name)
            if handler is not None:
                try:
                    answers = await handler(payload, served.handle)
                except StorageError as error:  # of this core; not the end of the process
                    served.error = error
                    served.channel.close()
                    return
                for answer in answers:
                    self._send_extension(name, answer, served.peer)
            del served.extensions[0]

    def _take(self, served: _Served, max_bytes: int) -> Sequence[tuple[int, bytes]]:
        """Called by the channel's writer, which is not to suffer from our disk."""
        try:
            started = trio.current_time()
            answers = self._replicator.take(served.peer, max_bytes)
            served.note_effort(started)
            return answers
        except StorageError as error:
            served.error = error
            served.channel.close()
            return ()

    def _carry_out(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            served = self._served.get(output.peer)
            if served is None:
                continue
            match output:
                case Transmit(_, messages):
                    send = served.channel.send
                    try:
                        for message_type, payload in messages:
                            send(message_type, payload)
                    except trio.ClosedResourceError:
                        pass  # closed for a broken disk; `serve` is about to say so
                case Answerable():
                    served.channel.wake_source()
                case ExtensionReceived(_, name, payload):
                    if name in self._handlers and len(served.extensions) < MAX_WAITING_EXTENSIONS:
                        served.extensions.append((name, payload))
                case EndChannel():
                    served.channel.close()
                case AbortConnection(_, error):
                    served.channel.abort(error)
                case _:
                    assert_never(output)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- statistics ------------------------------------------------------------------------------

    def statistics(self) -> ReplicationStatistics:
        total = replace(self._replicator.departed)
        peers = []
        for served in self._served.values():
            peer = served.peer
            if peer.is_gone:
                continue
            total.add(peer.counters)
            peers.append(_peer_statistics(peer, served.channel.link))
        return ReplicationStatistics(tuple(peers), total, self._replicator.peers_refused)


def _peer_statistics(peer: RemotePeer, link: Link) -> PeerStatistics:
    return PeerStatistics(
        remote_public_key=link.remote_public_key,
        fork=peer.sync.fork if peer.sync is not None else 0,
        length=peer.length,
        contiguous_length=peer.contiguous_length,
        requests_in_flight=len(peer.inflight),
        requests_waiting=len(peer.uploads),
        round_trip_seconds=peer.inflight.round_trip_seconds,
        counters=replace(peer.counters),
    )
