"""The clients of a node: what each is told, and what it is told once other nodes have it, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import assert_never

import structlog

from node.cojson.copies import CopyGate, CopyLedger, Overdue
from node.cojson.gatekeeper import Origin
from node.cojson.messages import Known, Load, Message, encode_message
from node.cojson.outbox import Outbox
from node.cojson.outputs import EndPeer, Refused, Send, Serve
from node.cojson.sync import SyncEngine
from node.covalue.ids import RawCoId
from node.covalue.known_state import SessionCounts
from swarm.io.tasks import Wakeup

MAX_LOGGED_REFUSALS = 10
"""Per client: one that forges much does not fill the log; all are counted."""

_log = structlog.get_logger(__name__)


class ClientTable:
    """Each connected client's outbox by its peer id."""

    def __init__(self, engine: SyncEngine, min_copies: int) -> None:
        self._engine = engine
        self._outboxes: dict[str, Outbox] = {}
        self._next_peer = 1
        self.copies = CopyGate(min_copies)
        """Who else holds what clients wait for, and what clients are not told before that."""
        self._copies_wanted = Wakeup()

    def __len__(self) -> int:
        return len(self._outboxes)

    def add(self, remote: str, origin: Origin) -> tuple[str, Outbox]:
        """A client came; its peer id is its own for as long as the node runs."""
        peer_id = f"{self._next_peer}@{remote}"
        self._next_peer += 1
        outbox = self._outboxes[peer_id] = Outbox()
        self._engine.add_peer(peer_id, origin)
        return peer_id, outbox

    def remove(self, peer_id: str) -> None:
        del self._outboxes[peer_id]
        self.copies.forget(peer_id)
        self._engine.remove_peer(peer_id)

    def tell(self, output: Send | Serve | EndPeer | Refused) -> None:
        """Say it to its client, if that is still connected."""
        outbox = self._outboxes.get(output.peer_id)
        if outbox is None:
            return
        match output:
            case Send(peer_id, message):
                said = self.screen(peer_id, message)
                if isinstance(said, Known | Load):
                    outbox.say(said)
                elif said is not None:
                    outbox.push(encode_message(said))
            case Serve(_, co_id, priority):
                outbox.want(co_id, priority)
            case EndPeer(_, reason):
                outbox.end(reason)
            case Refused(peer_id, co_id, reason):
                outbox.refusals += 1
                if outbox.refusals <= MAX_LOGGED_REFUSALS:
                    _log.warning("content refused", client=peer_id, co_id=co_id, reason=reason)
            case _:
                assert_never(output)

    def screen(self, peer_id: str, message: Message) -> Message | None:
        """What the client is told now: of `known`s, what is on enough nodes."""
        copies = self.copies
        if copies.min_copies == 1 or not isinstance(message, Known | Load):
            return message
        co_id, engine = message.co_id, self._engine
        claimed = engine.claimed_by(peer_id, co_id)
        said = copies.screen(peer_id, message, engine.durable_state(co_id), claimed)
        if copies.held_back:
            self._copies_wanted.set()
        if isinstance(said, Overdue):
            outbox = self._outboxes.get(peer_id)
            if outbox is not None:
                outbox.end("too many acknowledgements wait for copies on other nodes")
            return None
        return said

    # When there is no room.

    def owe_room(self, peer_id: str) -> None:
        """There was no room for what this client sent: it is to connect again once there is."""
        self._outboxes[peer_id].is_owed_room = True

    def end_owed(self) -> None:
        """There is room again: clients that sent something meanwhile are to connect again."""
        for outbox in self._outboxes.values():
            if outbox.is_owed_room:
                outbox.end("there was no room for what it sent, and now there is")

    def end_refused(self, reason: str) -> None:
        """What was refused may be taken now: the clients that sent it are to connect again."""
        for outbox in self._outboxes.values():
            if outbox.refusals:
                outbox.end(reason)

    # Copies on other nodes.

    def note_copies(
        self, member_id: bytes, holdings: Sequence[tuple[RawCoId, SessionCounts | None]]
    ) -> None:
        """A member says that so much of these is durable there; None: nothing is."""
        ledger = self.copies.ledger
        for co_id, sessions in holdings:
            if sessions is None or not ledger.note(member_id, co_id, sessions):
                continue
            for peer_id, known in self.copies.due(co_id, self._engine.durable_state(co_id)):
                outbox = self._outboxes.get(peer_id)
                if outbox is not None:
                    outbox.say(known)

    async def wait_copies_wanted(self) -> Sequence[RawCoId]:
        """Values that somebody waits for others to hold, once there are any; for one task.

        Cancel: nothing is changed.
        """
        while not (wanted := list(self.copies.ledger.watched)):
            await self._copies_wanted.wait()
        return wanted

    @contextmanager
    def watching_copies(self, co_ids: Sequence[RawCoId]) -> Iterator[CopyLedger]:
        """Have members asked, while the block lasts, how much of these they hold."""
        ledger = self.copies.ledger
        for co_id in co_ids:
            ledger.watch(co_id)
        self._copies_wanted.set()
        try:
            yield ledger
        finally:
            for co_id in co_ids:
                ledger.unwatch(co_id)
