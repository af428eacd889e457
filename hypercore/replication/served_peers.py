"""[trio] The connected peers of one core, each with its channel: outputs are carried out here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

import trio

from hypercore.replication.early_data import NAME as EARLY_DATA
from hypercore.replication.early_data import NOTHING_HERE
from hypercore.replication.extensions import ExtensionHandlers
from hypercore.replication.greetings import Greetings
from hypercore.replication.messages import MessageType
from hypercore.replication.outputs import (
    AbortConnection,
    Answerable,
    EndChannel,
    ExtensionReceived,
    Output,
    Transmit,
)
from hypercore.replication.refusals import Refusals
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicator import Replicator
from hypercore.replication.served_peer import ServedPeer


class ServedPeers:
    """Carries out what the replicator decides about its peers. Nothing here waits."""

    def __init__(
        self, replicator: Replicator, handlers: ExtensionHandlers, greetings: Greetings
    ) -> None:
        self._replicator = replicator
        self._handlers = handlers
        self._greetings = greetings
        self._by_peer: dict[RemotePeer, ServedPeer] = {}
        self.refusals = Refusals()
        """Why channels with these remotes were ended, the last time that they broke a rule."""

    def __len__(self) -> int:
        return len(self._by_peer)

    def __iter__(self) -> Iterator[ServedPeer]:
        return iter(self._by_peer.values())

    def add(self, served: ServedPeer) -> None:
        self._by_peer[served.peer] = served

    def remove(self, served: ServedPeer) -> None:
        """Outputs for it are dropped from now on. One that is not here is no error."""
        self._by_peer.pop(served.peer, None)

    def act(self, outputs: Iterable[Output]) -> None:
        """Carry out what a call from outside has caused, or the end of a channel.

        What one peer was asked for by that may be asked of another when it is late.
        """
        self.carry_out(outputs)
        self._poke()

    def carry_out(self, outputs: Iterable[Output]) -> None:
        """Carry out these outputs, in order."""
        for output in outputs:
            served = self._by_peer.get(output.peer)
            if served is None:
                continue
            match output:
                case Transmit(_, messages):
                    served.send(messages)
                case Answerable():
                    served.answer()
                case ExtensionReceived(_, name, payload):
                    self._receive_extension(served, name, payload)
                case EndChannel(_, fault):
                    if fault is not None:
                        self.refusals.note(served.handle.remote_public_key, fault)
                    served.channel.close()
                case AbortConnection(_, error):
                    self.refusals.note(served.handle.remote_public_key, error)
                    served.channel.abort(error)
                case _:
                    assert_never(output)

    def _receive_extension(self, served: ServedPeer, name: str, payload: bytes) -> None:
        if name == EARLY_DATA:
            early = self._greetings.heard_early(payload, served.peer, served.handle.link)
            if early is None:
                return
            name, payload = early
            sync = (MessageType.SYNC, NOTHING_HERE.encode())
            self.carry_out(self._replicator.receive(served.peer, [sync], trio.current_time()))
        note = self._handlers.notes.get(name)
        if name in self._handlers.current and not (note and note(payload, served.handle)):
            served.add_extension(name, payload)

    def _poke(self) -> None:
        """The deadline may have come nearer: tasks that wait for messages are to heed it."""
        deadline = self._replicator.deadline
        for served in self:
            if served.waiting is not None and served.waiting.deadline > deadline:
                served.waiting.deadline = deadline
