"""What the messages of one peer do, one after the other, until one ends its channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hypercore.encoding import DecodeError
from hypercore.errors import InvalidProof, InvalidSignature, MalformedMessage
from hypercore.replication.conflicts import REPORT, Conflicts
from hypercore.replication.downloads import Downloads
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
from hypercore.replication.outputs import (
    AbortConnection,
    EndChannel,
    ExtensionReceived,
    Output,
)
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog
from hypercore.replication.uploads import TooManyRequests

_DATA = int(MessageType.DATA)
_REQUEST = int(MessageType.REQUEST)
_TYPES = len(MessageType)


class CoreUse(Protocol):
    """How the core is used; `replicator.Replicator` knows."""

    @property
    def is_downloading(self) -> bool: ...


class Reception:
    """Takes in what peers of one core say: requests, answers, and what they have and want."""

    def __init__(
        self, log: ReplicatedLog, downloads: Downloads, conflicts: Conflicts, use: CoreUse
    ) -> None:
        self._log = log
        self._downloads = downloads
        self._conflicts = conflicts
        self._use = use

    def take_in(
        self, peer: RemotePeer, messages: Iterable[tuple[int, bytes]], intake: Intake, now: float
    ) -> list[Output]:
        """Handle messages up to the first that ends the channel, whose output is the last."""
        outputs: list[Output] = []
        received = peer.wire.received
        try:
            for message_type, payload in messages:
                if message_type < _TYPES:
                    received[message_type] += 1
                if message_type == _DATA:
                    self._downloads.receive_data(peer, payload, intake, now)
                elif message_type == _REQUEST:
                    peer.uploads.add(payload)
                elif output := self._receive_other(peer, message_type, payload, now):
                    outputs.append(output)
                    if isinstance(output, EndChannel):
                        return outputs
            if peer.parked:
                self._downloads.receive_parked(peer, intake)
            if peer.suspicion is not None:
                self._conflicts.settle(peer)
        except DecodeError as malformed:
            what = f"replication message: {malformed.reason}"
            outputs.append(AbortConnection(peer, MalformedMessage(what, malformed.offset)))
        except (InvalidProof, InvalidSignature, TooManyRequests) as error:
            peer.counters.invalid_data += not isinstance(error, TooManyRequests)
            if self._conflicts.probe(peer, error, now):
                self._downloads.cancel_all(peer)
            else:
                outputs.append(EndChannel(peer, error))
        return outputs

    def _receive_other(
        self, peer: RemotePeer, message_type: int, payload: bytes, now: float
    ) -> Output | None:
        head = self._log.head
        match message_type:
            case MessageType.SYNC:
                return self._receive_sync(peer, Sync.decode(payload), now)
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
                    peer.uploads.add_want(want, head, now)
            case MessageType.UNWANT:
                peer.received_wants.remove(Want.decode(payload))
            case MessageType.BITFIELD:
                peer.receive_bits(HaveBits.decode(payload), head.length)
            case MessageType.RANGE:
                peer.receive_range(Range.decode(payload), head.length)
            case MessageType.EXTENSION:
                extension = Extension.decode(payload)
                name = extension.name or peer.last_extension_received
                peer.last_extension_received = name
                return ExtensionReceived(peer, name, extension.payload)
            case _:
                pass  # a later version's: ignored, as unknown types are everywhere
        return None

    def _receive_sync(self, peer: RemotePeer, sync: Sync, now: float) -> Output | None:
        before, peer.sync = peer.sync, sync
        peer.uploads.peer_came_to(sync.fork, sync.length)
        if not sync.allow_push:
            peer.uploads.forget_pushes()
        if before is not None and before.fork != sync.fork:
            self._downloads.cancel_all(peer)
            peer.uploads.wants.begin_anew()
            head = self._log.head
            if sync.fork == head.fork:
                # JavaScript has noted what we told it as if the blocks of its old history were
                # still there, and does not ask again.
                for want in peer.received_wants.of_history(sync.fork):
                    peer.uploads.add_want(want, head, now)
        self._conflicts.tell(peer)
        self._conflicts.compare(peer, now)
        return None if sync.downloading or self._use.is_downloading else EndChannel(peer, None)
