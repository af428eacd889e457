"""What becomes of the commits that the engine has asked for: durable, or lost to damage.

Several commits of one value may be out, and become durable together: its senders are answered once,
by the last of them, and everybody else is offered what all of them brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from node.cojson.deletion import only_deletions
from node.cojson.engine_state import EngineState
from node.cojson.intake import DAMAGED, Intake
from node.cojson.offers import Offers
from node.cojson.outputs import Changed, Output
from node.cojson.peer_view import PeerView
from node.cojson.rights import Rights
from node.cojson.value_table import Phase, ValueEntry
from node.cojson.waiting_room import Delivery
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts, merge_counts


class _Moved(NamedTuple):
    """A value that commits have made longer, and their senders: whether each is to be corrected."""

    entry: ValueEntry
    counts: dict[CoSessionId, int]
    listeners: dict[PeerView, bool]


class Commits:
    """Told what has become of each ticket."""

    def __init__(self, state: EngineState, rights: Rights, intake: Intake, offers: Offers) -> None:
        self._state = state
        self._rights = rights
        self._intake = intake
        self._offers = offers

    def stored(self, tickets: Sequence[int], out: list[Output]) -> None:
        """These are durable: acknowledge, offer and announce them."""
        changed, settled = self._take(tickets)
        for entry, counts, _ in changed.values():
            # Never less than before, so there is no need to compare.
            reached: SessionCounts = merge_counts(dict(entry.durable.sessions), counts)
            if entry.is_tombstone:
                reached = only_deletions(reached)
            entry.durable = KnownState(True, reached)
        # What came together may depend on one another: only what is durable is offered.
        for co_id, (entry, counts, listeners) in changed.items():
            self._offers.tell(entry, listeners, changed.keys(), out)
            out.append(Changed(co_id, counts))
        for co_id, delivery in settled:
            self._intake.settle(delivery, out)
            if delivery.sender is not None and delivery.sender.batches:
                self._intake.tick(delivery, co_id, out)
        for entry, _, _ in changed.values():
            self._rights.stored(entry, out)
            if entry.waiting or entry.phase is Phase.DAMAGED:
                self._state.resume(entry, out)

    def not_stored(self, tickets: Iterable[int], out: list[Output]) -> None:
        """These met damage: refuse what was in them."""
        for ticket in tickets:
            commit = self._state.commits.pop(ticket)
            entry = self._state.values.peek(commit.co_id)
            if entry is None:
                raise RuntimeError(f"{commit.co_id} was forgotten with a commit out")
            entry.tickets.remove(ticket)
            entry.phase = Phase.DAMAGED
            for delivery in commit.deliveries:
                self._intake.refuse(delivery, DAMAGED, out)
            self._rights.not_stored(entry, out)
            if not entry.tickets:
                self._state.resume(entry, out)

    def _take(
        self, tickets: Sequence[int]
    ) -> tuple[dict[RawCoId, _Moved], list[tuple[RawCoId, Delivery]]]:
        """The values that these commits moved, and what was in them."""
        changed: dict[RawCoId, _Moved] = {}
        settled: list[tuple[RawCoId, Delivery]] = []
        for ticket in tickets:
            commit = self._state.commits.pop(ticket)
            co_id = commit.co_id
            moved = changed.get(co_id)
            if moved is None:
                held = self._state.values.peek(co_id)
                if held is None:
                    raise RuntimeError(f"{co_id} was forgotten with a commit out")
                moved = changed[co_id] = _Moved(held, commit.counts, {})
            else:
                merge_counts(moved.counts, commit.counts)
            entry, _, listeners = moved
            entry.tickets.remove(ticket)
            if commit.is_deletion:
                entry.is_tombstone = True
            for delivery in commit.deliveries:
                settled.append((co_id, delivery))
                sender = delivery.sender
                if sender is not None:
                    listeners[sender] = sender in commit.corrected or listeners.get(sender, False)
        return changed, settled
