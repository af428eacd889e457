"""Asking for what content waits for: the client that sent it, or the mesh where a member did.

All that content waits for is asked for when it is set aside: in turn, each would cost a round
trip. Each value is asked for once, and again when the client has said that it does not have it
and more content comes that needs it. What a client sends may be refused, for reasons that pass
(damage on our disk, a quota, a right that others give) or not: the value is *put off*, and asked
for again after some rounds of a few seconds, each time after twice as many. So what can come does
in the end, and a client that always sends the same bad content is soon hardly ever asked for it.

What was lost because of damage on our disk is put off, too, though nothing waits for it: the client
takes it for sent, and will not send it again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice

from node.cojson.engine_state import EngineState
from node.cojson.messages import Load
from node.cojson.outputs import Output, Send
from node.cojson.peer_view import PeerView, PutOff
from node.cojson.value_table import Phase
from node.cojson.waiting_room import Delivery
from node.covalue.dependencies import session_dependencies
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING

ROUND_SECONDS = 5.0
"""The length of a round; what was put off is first asked for after one or two of them."""

MAX_ASKED_AHEAD = 1024
"""Values that one client is asked for at a time before anything waits for them.

Also those that are looked for in the mesh for one content.
"""

MAX_PUT_OFF = 1024
"""Values that are remembered for one client; others come up when it connects again."""

MAX_ASKED_AGAIN = 64
"""Values that one client is asked for again in one round."""

MAX_LOOKED_AT = 8192
"""Values put off by all clients looked at in one round; other clients come first in the next."""

MAX_ROUNDS = 1024
"""Rounds between two questions at most: more than an hour."""


class Asking:
    """Told of what is needed, what is refused, and when a round is over."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self.round = 0
        """Rounds that have begun."""
        self._clients: dict[PeerView, None] = {}
        """Those with values put off, the one looked at longest ago first."""

    def ask(self, co_id: RawCoId, sender: PeerView, out: list[Output]) -> None:
        """Ask for a value that is not here, unless that was done or is put off."""
        if not sender.was_asked(co_id) and not sender.is_gone:
            sender.asked.add(co_id)
            out.append(Send(sender.peer_id, Load(co_id, NOTHING)))

    def ask_ahead(self, delivery: Delivery, out: list[Output]) -> None:
        """Ask at once for all that this content will wait for and that is not here.

        A client must have what its content needs; for content of a member, the mesh is asked.
        """
        if delivery.sender is None and not self._state.has_mesh:
            return
        needed = delivery.needed
        if needed is None:  # a further piece, which shows nothing but the accounts
            self._ask_some(session_dependencies(delivery.content.new), delivery, out)
        elif len(needed) <= delivery.next_ahead:
            left = len(needed) - self._ask_some(needed, delivery, out)
            delivery.next_ahead = left or -1

    def _ask_some(self, needed: Iterable[RawCoId], delivery: Delivery, out: list[Output]) -> int:
        """Ask for the first of these, as far as there is room; returns how many were seen to."""
        sender = delivery.sender
        seen = 0
        for co_id in islice(needed, MAX_ASKED_AHEAD):
            if sender is not None and len(sender.asked) >= MAX_ASKED_AHEAD:
                break
            seen += 1
            if self._has_come(co_id, delivery):
                continue
            if sender is None:
                self._state.when_read(co_id, partial(self._find_if_absent, co_id), out)
            elif not sender.was_asked(co_id):
                sender.asked.add(co_id)
                self._state.when_read(co_id, partial(self._ask_if_absent, co_id, sender), out)
        return seen

    def _has_come(self, co_id: RawCoId, delivery: Delivery) -> bool:
        """Whether it is here, or waits for something itself."""
        if co_id in delivery.cleared:
            return True
        entry = self._state.values.peek(co_id)
        is_here = entry is not None and entry.phase is Phase.HELD
        return is_here or self._state.room.awaited_by(co_id, delivery.sender) is not None

    def _ask_if_absent(self, co_id: RawCoId, sender: PeerView, out: list[Output]) -> None:
        entry = self._state.values.peek(co_id)
        if entry is None or entry.phase is not Phase.ABSENT:
            sender.asked.discard(co_id)
        elif co_id in sender.asked and not sender.is_gone:
            out.append(Send(sender.peer_id, Load(co_id, NOTHING)))

    def _find_if_absent(self, co_id: RawCoId, out: list[Output]) -> None:
        entry = self._state.values.peek(co_id)
        if entry is not None and entry.phase is Phase.ABSENT:
            self._state.find(co_id, out)

    def told(self, co_id: RawCoId, peer: PeerView) -> None:
        """The client has said what it holds of this, perhaps nothing."""
        peer.asked.discard(co_id)
        put_off = peer.put_off.get(co_id)
        if put_off is not None and not put_off.is_lost:  # a lost one is not sent by itself
            del peer.put_off[co_id]

    def refused(self, co_id: RawCoId, peer: PeerView, *, is_damaged: bool) -> None:
        """What the client sent of this was refused, or lost: what is stored `is_damaged`."""
        if co_id in peer.asked or is_damaged:
            peer.asked.discard(co_id)
            self.put_off(co_id, peer, is_lost=is_damaged)

    def put_off(self, co_id: RawCoId, peer: PeerView, *, is_lost: bool = False) -> None:
        """Ask for this later; if it `is_lost`, whether anything waits for it or not."""
        if peer.is_gone:
            return
        put_off = peer.put_off.get(co_id)
        if put_off is None and len(peer.put_off) < MAX_PUT_OFF:
            put_off = peer.put_off[co_id] = PutOff()
        if put_off is not None:
            put_off.due = self.round + 1 + put_off.patience
            put_off.is_lost |= is_lost
            self._clients[peer] = None

    def forget(self, peer: PeerView) -> None:
        """The client has gone."""
        self._clients.pop(peer, None)

    def begin_round(self, out: list[Output]) -> None:
        """Some seconds have passed: ask for what was put off until now."""
        self.round += 1
        looked_at = 0
        for peer in list(self._clients):
            if looked_at >= MAX_LOOKED_AT:
                return
            del self._clients[peer]
            if peer.put_off:
                self._clients[peer] = None
                looked_at += len(peer.put_off)
                self._ask_due(peer, out)

    def _ask_due(self, peer: PeerView, out: list[Output]) -> None:
        if peer.unsettled_bytes:
            return  # what is asked for may be on its way
        due = (
            co_id
            for co_id, put_off in peer.put_off.items()
            if put_off.due <= self.round and co_id not in peer.asked
        )
        for co_id in list(islice(due, MAX_ASKED_AGAIN)):
            put_off = peer.put_off[co_id]
            put_off.patience = min(2 * put_off.patience, MAX_ROUNDS)
            put_off.due = self.round + 1 + put_off.patience
            self._state.when_read(co_id, partial(self._ask_again, peer, co_id), out)

    def _ask_again(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        entry = self._state.values.peek(co_id)
        put_off = peer.put_off.get(co_id)
        if entry is None or put_off is None or peer.is_gone or entry.phase is Phase.DAMAGED:
            return
        view = peer.values.get(co_id)
        is_missing = entry.phase is Phase.ABSENT and self._state.room.keeps_waiting(peer, co_id)
        is_lost = put_off.is_lost and view is not None and not entry.durable.covers(view.real)
        if is_missing or (is_lost and not entry.is_deleted):
            peer.asked.add(co_id)
            out.append(Send(peer.peer_id, Load(co_id, entry.durable)))
        else:
            del peer.put_off[co_id]
