"""Deciding what to send to whom: answers to loads, and values with all that they depend on.

Only durable state is offered. A value is served by `Serve`; its content is read when the
client's connection can take it.

Source: cojson 0.20.19 sync.ts sendNewContent, handleLoad.
"""

from __future__ import annotations

from functools import partial

from node.cojson.claims import Claims
from node.cojson.engine_state import EngineState
from node.cojson.messages import Known
from node.cojson.outputs import Output, Send, Serve
from node.cojson.peer_view import PeerView, ValueView
from node.cojson.value_table import Phase, ValueEntry
from node.covalue.header import VALUE_PRIORITY
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState

_LINE_BYTES = 100
_COUNTER_BYTES = 60
"""Of a `known` on the wire: the line, and each of its counters."""


class Offers:
    """The sending half of the engine."""

    def __init__(self, state: EngineState, claims: Claims) -> None:
        self._state = state
        self._claims = claims

    def load(self, peer: PeerView, co_id: RawCoId, known: KnownState, out: list[Output]) -> None:
        """A client wants a value, and has said what it holds of it."""
        view = self._state.subscribe(peer, co_id)
        peer.replace(view, self._state.cut_streams.doubt(co_id, known))
        entry = self._state.use(co_id, out, is_wanted=not known.header)
        # For the first subscriber the mesh is asked, and announces later changes to us. It is told
        # what is stored here, so that has to be read first.
        is_first = len(self._state.subscribers[co_id]) == 1
        if entry.phase is Phase.LOADING:
            self._claims.note(peer, entry, view)
            if is_first:
                entry.waiting.append(partial(self._state.find, co_id))
            # An answer is about as large as the claim: a client with many to come is not read from.
            size = _LINE_BYTES + _COUNTER_BYTES * len(known.sessions)
            peer.unsettled_bytes += size
            entry.waiting.append(partial(self._answer_read, peer, co_id, size))
            return
        if is_first:
            self._state.find(co_id, out)
        self.answer_load(peer, co_id, out)

    def compare(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        """A client has said what it holds of a value: offer what it lacks."""
        entry, view = self._state.use(co_id, out), peer.values[co_id]
        self._claims.note(peer, entry, view)
        if entry.phase is Phase.LOADING:
            entry.waiting.append(partial(self.compare, peer, co_id))
        elif not peer.is_gone:
            self.offer(peer, co_id, out)

    def _answer_read(self, peer: PeerView, co_id: RawCoId, size: int, out: list[Output]) -> None:
        peer.unsettled_bytes -= size
        self.answer_load(peer, co_id, out)

    def answer_load(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        """Every load gets an answer: content, what is held, or that there is nothing."""
        entry = self._state.values.peek(co_id)
        view = peer.values.get(co_id)
        if entry is None or view is None or peer.is_gone:
            return
        has_nothing_durable = entry.phase is Phase.HELD and not entry.durable.header
        if has_nothing_durable and not view.unsettled:
            entry.waiting.append(partial(self.answer_load, peer, co_id))
            return
        self._claims.note(peer, entry, view)
        if entry.phase is Phase.HELD and view.lacks(entry.durable):
            self.offer(peer, co_id, out)
        elif view.unsettled:
            # A client told what was here before would send again what it has sent.
            view.is_owed, view.is_told = True, False
        elif entry.phase is Phase.HELD:
            view.is_told = True
            out.append(Send(peer.peer_id, Known(co_id, self._state.claimed(entry, view))))
        elif co_id in self._state.searching and not view.real.header:
            self._state.searching[co_id][peer] = None
        else:
            self.say_absent(peer, co_id, out)

    def answer_late(
        self, peer: PeerView, view: ValueView, co_id: RawCoId, out: list[Output]
    ) -> None:
        """What the client sent is settled: answer its load, unless it was told meanwhile."""
        view.is_owed = False
        if not view.is_told:
            self.answer_load(peer, co_id, out)

    def say_absent(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        """Nothing is held; the client stays subscribed."""
        view = peer.values.get(co_id)
        if view is not None:
            view.is_told = True
            out.append(Send(peer.peer_id, Known(co_id, NOTHING)))

    def offer(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        """Serve what the client lacks of a value, and before it of all that it depends on."""
        self._walk(peer, [(co_id, False)], set(), out)

    def _walk(
        self,
        peer: PeerView,
        stack: list[tuple[RawCoId, bool]],
        seen: set[RawCoId],
        out: list[Output],
    ) -> None:
        """Go on with an offer: depth first, each value after those it depends on.

        A value that is not in memory interrupts the walk until the store has told about it.
        What was passed is not needed again, so any memory budget is enough.
        """
        while stack and not peer.is_gone:
            co_id, are_dependencies_offered = stack[-1]
            entry = self._state.use(co_id, out, is_wanted=True)
            if entry.phase is Phase.LOADING:
                entry.waiting.append(partial(self._walk, peer, stack, seen))
                return
            stack.pop()
            if are_dependencies_offered:
                self._serve(peer, entry, out)
                continue
            view = peer.values.get(co_id)
            if co_id in seen or not entry.durable.header:
                continue
            if view is not None and view.offered_version == entry.version:
                continue
            seen.add(co_id)
            keys: list[RawCoId] = []
            if view is None or view.lacks(entry.durable):
                keys = [key for key in entry.dependencies if not self._is_offered(peer, key)]
            if keys:
                stack.append((co_id, True))
                stack.extend((key, False) for key in reversed(keys))
            else:
                self._serve(peer, entry, out)

    def _is_offered(self, peer: PeerView, co_id: RawCoId) -> bool:
        """Whether all of a value in memory was offered already: most values share one group."""
        view = peer.values.get(co_id)
        entry = self._state.values.peek(co_id)
        return view is not None and entry is not None and view.offered_version == entry.version > 0

    def _serve(self, peer: PeerView, entry: ValueEntry, out: list[Output]) -> None:
        view = self._state.subscribe(peer, entry.co_id)
        view.offered_version = entry.version
        if self._state.hazardous.are_any and entry.header is not None:
            self._state.hazardous.note_stored(entry.co_id, entry.header)
        if view.lacks(entry.durable):
            header = entry.header
            priority = VALUE_PRIORITY if header is None else header.priority
            out.append(Serve(peer.peer_id, entry.co_id, priority))

    def tell(self, entry: ValueEntry, listeners: dict[PeerView, bool], out: list[Output]) -> None:
        """After a commit: answer its senders, offer it to everyone else who is subscribed."""
        for peer, is_gap in listeners.items():
            view = peer.values.get(entry.co_id)
            if view is not None and not peer.is_gone:
                view.is_told = True
                known = self._state.claimed(entry, view)
                out.append(Send(peer.peer_id, Known(entry.co_id, known, is_gap)))
        for peer in list(self._state.subscribers.get(entry.co_id, ())):
            view = peer.values[entry.co_id]
            if view.lacks(entry.durable):
                self.offer(peer, entry.co_id, out)
            elif entry.is_tombstone and not view.is_told:
                # What it asked for, and was to be sent, is deleted: it has all that is left.
                view.is_told = True
                out.append(Send(peer.peer_id, Known(entry.co_id, self._state.claimed(entry, view))))
