"""Deciding what to send to whom: answers to loads, and values with all that they depend on.

Only durable state is offered. A value is served by `Serve`; its content is read when the
client's connection can take it.

Source: cojson 0.20.19 sync.ts sendNewContent, handleLoad.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from node.cojson.claims import Claims
from node.cojson.engine_state import EngineState
from node.cojson.messages import Known
from node.cojson.outputs import GoOn, Output, Send, Serve
from node.cojson.peer_view import PeerView, ValueView
from node.cojson.value_table import DependencyOrder, Phase, ValueEntry
from node.covalue.header import VALUE_PRIORITY
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState

WALK_STEPS = 256
"""Values looked at in one go for one offer, or for several of one client: a millisecond or two."""

_LINE_BYTES = 100
_COUNTER_BYTES = 60
"""Of a `known` on the wire: the line, and each of its counters."""


class _Stop(NamedTuple):
    """A value on the way: of what it depends on, in that `order`, so many were looked at."""

    co_id: RawCoId
    passed: int = 0
    order: DependencyOrder | None = None


@dataclass(slots=True, eq=False)
class _Walk:
    """An offer of a value: what is still to be looked at, and what was."""

    root: RawCoId
    stack: list[_Stop]
    moved: Collection[RawCoId] = ()
    """What the commit that this comes of has made longer."""
    seen: set[RawCoId] = field(default_factory=set)
    steps: int = 0
    """Taken so far."""


class Offers:
    """The sending half of the engine."""

    def __init__(self, state: EngineState, claims: Claims) -> None:
        self._state = state
        self._claims = claims
        self._unfinished: dict[PeerView, dict[RawCoId, _Walk]] = {}
        """Of each client, the one whose turn it is first: offers that take long, in order."""
        self._is_to_go_on = False
        """Whether the shell was told to."""

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

    def offer(
        self,
        peer: PeerView,
        co_id: RawCoId,
        out: list[Output],
        moved: Collection[RawCoId] = (),
    ) -> None:
        """Serve what the client lacks of a value, and before it of all that it depends on.

        What has `moved` just now is looked at in any case.
        """
        self._pursue(peer, _Walk(co_id, [_Stop(co_id)], moved), out)

    def _pursue(self, peer: PeerView, walk: _Walk, out: list[Output]) -> None:
        """Begin with an offer, or go on after a read; in turn, if others of this client wait."""
        unfinished = self._unfinished.get(peer)
        if unfinished is None:
            if self._advance(peer, walk, WALK_STEPS, out):
                return
            unfinished = self._unfinished[peer] = {}
        unfinished.setdefault(walk.root, walk)
        if not self._is_to_go_on:
            self._is_to_go_on = True
            out.append(GoOn())

    def go_on(self, out: list[Output]) -> None:
        """Some steps further with the offers of one client; then it is the next one's turn."""
        self._is_to_go_on = False
        peer = next(iter(self._unfinished), None)
        if peer is None:
            return
        unfinished = self._unfinished.pop(peer)
        steps = WALK_STEPS
        while unfinished and steps > 0 and not peer.is_gone:
            root, walk = next(iter(unfinished.items()))
            before = walk.steps
            if self._advance(peer, walk, steps, out):
                del unfinished[root]
            steps -= walk.steps - before
        if unfinished and not peer.is_gone:
            self._unfinished[peer] = unfinished
        if self._unfinished:
            self._is_to_go_on = True
            out.append(GoOn())

    def _advance(self, peer: PeerView, walk: _Walk, max_steps: int, out: list[Output]) -> bool:
        """Go on with an offer: depth first, each value after those it depends on.

        A value that is not in memory interrupts the walk until the store has told about it.
        What was passed is not needed again, so any memory budget is enough.

        False when it has taken so many steps, and there is more to do.
        """
        stack, stop = walk.stack, walk.steps + max_steps
        while stack and not peer.is_gone:
            if walk.steps == stop:
                return False
            walk.steps += 1
            co_id, passed, order = stack[-1]
            entry = self._state.use(co_id, out, is_wanted=True)
            if entry.phase is Phase.LOADING:
                entry.waiting.append(partial(self._pursue, peer, walk))
                return True
            stack.pop()
            view = peer.values.get(co_id)
            if order is not None:
                # Others had their turn: it may depend on more by now, and is served as it is now.
                late = islice(entry.dependencies, passed if order is entry.order else 0, None)
                keys = [key for key in late if key not in walk.seen]
                self._descend(peer, entry, self._unoffered(peer, keys), walk, out)
                continue
            if co_id in walk.seen:
                continue
            walk.seen.add(co_id)
            if not entry.durable.header:
                continue
            if view is not None and view.offered_version == entry.version:
                continue
            if view is not None and not view.lacks(entry.durable):
                self._serve(peer, entry, out)
                continue
            keys = self._unoffered(peer, _to_look_at(view, entry, walk.moved))
            self._descend(peer, entry, keys, walk, out)
        return True

    def _descend(
        self,
        peer: PeerView,
        entry: ValueEntry,
        keys: list[RawCoId],
        walk: _Walk,
        out: list[Output],
    ) -> None:
        """Serve a value if nothing that it depends on is left to be offered; else that first."""
        if keys:
            walk.stack.append(_Stop(entry.co_id, len(entry.dependencies), entry.order))
            walk.stack.extend(map(_Stop, reversed(keys)))
        else:
            self._serve(peer, entry, out)
            self._note_passed(peer, entry)

    def _unoffered(self, peer: PeerView, keys: Iterable[RawCoId]) -> list[RawCoId]:
        return [key for key in keys if not self._is_offered(peer, key)]

    @staticmethod
    def _note_passed(peer: PeerView, entry: ValueEntry) -> None:
        """These need not be looked at again: of a group of 4000 members that took 2 ms a load."""
        view, count = peer.values[entry.co_id], len(entry.dependencies)
        if view.passed_of is entry.order and view.passed == count:
            return
        if entry.dependencies.keys() <= peer.values.keys():
            view.passed_of, view.passed = entry.order, count

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

    def tell(
        self,
        entry: ValueEntry,
        listeners: Mapping[PeerView, bool],
        moved: Collection[RawCoId],
        out: list[Output],
    ) -> None:
        """After a commit: answer its senders, offer it to everyone else who is subscribed.

        All that was `moved` with it is told of in a row.
        """
        for peer, is_gap in listeners.items():
            view = peer.values.get(entry.co_id)
            if view is not None and not peer.is_gone:
                view.is_told = True
                known = self._state.claimed(entry, view)
                out.append(Send(peer.peer_id, Known(entry.co_id, known, is_gap)))
        for peer in list(self._state.subscribers.get(entry.co_id, ())):
            view = peer.values[entry.co_id]
            if view.lacks(entry.durable):
                self.offer(peer, entry.co_id, out, moved)
            elif entry.is_tombstone and not view.is_told:
                # What it asked for, and was to be sent, is deleted: it has all that is left.
                view.is_told = True
                out.append(Send(peer.peer_id, Known(entry.co_id, self._state.claimed(entry, view))))


def _to_look_at(
    view: ValueView | None, entry: ValueEntry, moved: Collection[RawCoId]
) -> Iterable[RawCoId]:
    """What of that which the value depends on may not have been offered as it is now."""
    keys = entry.dependencies
    if view is None or view.passed_of is not entry.order:
        return keys
    # What grows is offered for itself, but before what has come together with it. The fewer of both
    # are gone through: a commit may have moved a thousand values, a group may have as many members.
    few, many = sorted((keys, moved), key=len)
    return chain([key for key in few if key in many], islice(keys, view.passed, None))
