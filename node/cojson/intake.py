"""The way of one content message from its arrival to its commit.

It may have to wait twice: for the store (verified state, a running hash) and for a value that
it depends on, for which the sender and the mesh are asked. What is refused leaves nothing.

Source: cojson 0.20.19 sync.ts handleNewContent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from hypercore.encoding import DecodeError
from node.cojson.admission import summary
from node.cojson.asking import Asking
from node.cojson.deletion import only_deletions
from node.cojson.engine_state import Commit, EngineState
from node.cojson.judgment import Verified, others_follow, signer_key, sort_parts, verify_parts
from node.cojson.messages import Known
from node.cojson.offers import Offers
from node.cojson.outputs import CheckFork, Output, Refused, Rehash, Send, Settled, Store
from node.cojson.peer_view import PeerView
from node.cojson.reconcile import tick_batches
from node.cojson.rights import Rights
from node.cojson.value_table import Phase, ValueEntry
from node.cojson.waiting_room import Delivery
from node.covalue.content import Content, SessionContent
from node.covalue.dependencies import (
    header_dependencies,
    member_dependencies,
    part_dependencies,
    session_dependencies,
)
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState, SessionCounts
from node.covalue.session_log import SessionLog
from node.covalue.store import ValueAppend

DAMAGED = "what is stored of this value is damaged"


class Intake:
    """The receiving half of the engine."""

    def __init__(self, state: EngineState, rights: Rights, asking: Asking, offers: Offers) -> None:
        self._state = state
        self._rights = rights
        self._asking = asking
        self._offers = offers

    def accept(self, delivery: Delivery, out: list[Output]) -> None:
        """Take content from a client or the mesh."""
        if delivery.sender is not None:
            view = self._state.subscribe(delivery.sender, delivery.content.co_id)
            delivery.statements = view.statements
            delivery.send_off()
        self._judge(delivery, out)
        self.release_arrived(out)

    def _judge(self, delivery: Delivery, out: list[Output]) -> None:
        """Store it, set it aside, put it off until the store has answered, or refuse it."""
        content = delivery.content
        co_id = content.co_id
        entry = self._state.use(co_id, out)
        if entry.phase is Phase.DAMAGED:
            self.refuse(delivery, DAMAGED, out)
            return
        if entry.is_busy:
            delivery.note_had()
            entry.waiting.append(partial(self._judge, delivery))
            return
        delivery, refusal = self._state.admission.screen(delivery, entry, out)
        if refusal is not None:
            self.refuse(delivery, refusal, out)
            return
        content = delivery.content
        header = entry.header
        if header is None:
            header = content.header
            if header is None and self._state.room.awaited_by(co_id, delivery.sender) is None:
                self._look_for_value(delivery, out)
                return
            fault = None if header is None else self._fault(header, delivery)
            if fault is not None:
                self.refuse(delivery, fault, out)
                return
        missing = self._missing_dependency(entry, header, delivery, out)
        if missing is not None or header is None:
            self._set_aside(delivery, missing, out)
            return
        self._judge_parts(entry, header, delivery, out)

    def _fault(self, header: CoValueHeader, delivery: Delivery) -> str | None:
        """Why the value cannot begin so, or must not; only the first is held against its sender."""
        co_id = delivery.content.co_id
        if not header.has_id(co_id):
            delivery.doubtful = frozenset()
            return "the header does not hash to the id"
        fault = self._state.hazardous.refusal(co_id, header)
        if fault is not None:
            self._state.arrived.append(co_id)  # nothing is to wait for it
        return fault

    def _judge_parts(
        self, entry: ValueEntry, header: CoValueHeader, delivery: Delivery, out: list[Output]
    ) -> None:
        """All that this depends on is here: verify the parts that continue what is stored."""
        co_id = entry.co_id
        if header.is_account:  # it may have sessions of its own, beside those of its agent
            delivery.cleared[co_id] = header.account_public_key
        parts = sort_parts(_takeable(delivery.content.new, entry), entry.logs)
        if parts.unhashed:
            delivery.note_had()
            for session_id in parts.unhashed:
                count = entry.rehashing[session_id] = entry.logs[session_id].count
                out.append(Rehash(co_id, session_id, count))
            # In front: what waits already came later.
            entry.waiting.appendleft(partial(self._judge, delivery))
            return
        questions = self._rights.questions(entry, header, parts.fresh)
        if questions:
            delivery.note_had()
            entry.waiting.appendleft(partial(self._judge, delivery))
            self._rights.ask(entry, questions, out)
            return
        verified = verify_parts(parts.fresh, delivery.cleared, delivery.foreseen)
        delivery.foreseen = None
        wrong = parts.fresh.keys() - verified.logs.keys()
        doubtful = frozenset(key for key in wrong if not self._state.hazardous.signed(key))
        delivery.doubtful = doubtful or None
        has_hazards = verified.refuse_hazards(
            self._state.hazardous, co_id, is_group=header.is_group
        )
        is_denied = self._rights.judge(entry, header, verified, delivery, out)
        has_left_out = has_hazards or is_denied or len(doubtful) < len(wrong)
        begins = entry.header is None and others_follow(delivery.content)
        verified.keeps_header = begins and has_left_out
        if verified.unproven or parts.differing:
            self._suspect_forks(entry, delivery, [*verified.unproven, *parts.differing], out)
        if verified.refusals and not verified.is_refused:
            delivery.partly = summary(verified.refusals)
            if delivery.sender is not None:
                delivery.sender.note_refused(co_id)
                out.append(Refused(delivery.sender.peer_id, co_id, delivery.partly))
        self._state.admission.judge(delivery, entry, header, verified, out)
        if verified.is_refused:
            self.refuse(delivery, summary(verified.refusals), out)
        elif verified.logs or entry.header is None:
            self._commit(entry, header, delivery, verified, parts.has_gap, out)
        else:
            self._nothing_new(entry, delivery, parts.has_gap, out)

    def _suspect_forks(
        self,
        entry: ValueEntry,
        delivery: Delivery,
        session_ids: Sequence[CoSessionId],
        out: list[Output],
    ) -> None:
        """What does not fit may be signed all the same: have it looked at."""
        peer = delivery.sender
        for session_id in session_ids:
            try:
                log = entry.logs.get(session_id)
                key = (log and log.public_key) or signer_key(session_id, delivery.cleared)
            except DecodeError:
                continue  # nobody could have signed it
            part = delivery.content.new[session_id]
            peer_id = None if peer is None or peer.is_gone else peer.peer_id
            out.append(CheckFork(delivery.content.co_id, session_id, part, key, peer_id))

    def _look_for_value(self, delivery: Delivery, out: list[Output]) -> None:
        """Content that continues a value which is not here: another node may hold it."""
        sender = delivery.sender
        if (
            sender is not None
            and not sender.is_gone
            and self._state.has_mesh
            and self._state.room.add_headless(delivery, sender)
        ):
            self.settle(delivery, out, is_waiting=True)
            self._state.find(delivery.content.co_id, out)
        else:
            self._ask_for_all(delivery, out)

    def value_is_nowhere(self, co_id: RawCoId, out: list[Output]) -> None:
        """The mesh does not hold it either: whoever continues it has to send all of it."""
        for delivery in self._state.room.take_headless(co_id):
            delivery.send_off()
            self._ask_for_all(delivery, out)

    def _ask_for_all(self, delivery: Delivery, out: list[Output]) -> None:
        self._reply(delivery, NOTHING, True, out)
        self.settle(delivery, out, "content of an unknown value without its header")

    def _missing_dependency(
        self,
        entry: ValueEntry,
        header: CoValueHeader | None,
        delivery: Delivery,
        out: list[Output],
    ) -> RawCoId | None:
        """The first dependency that is not here, or what content of the value waits for already."""
        content = delivery.content
        co_id = content.co_id
        first = self._state.room.awaited_by(co_id, delivery.sender)
        if first is not None or header is None:
            return first
        if _needs_nothing_new(entry, content):
            return None
        left = delivery.needed
        if left is None:
            left = delivery.needed = deque(_needed(header, content))
        circling: list[RawCoId] = []
        missing = None
        while left:
            dependency = left[0]
            if dependency not in delivery.cleared and dependency not in self._state.hazardous:
                found = self._state.use(dependency, out)
                if found.phase is Phase.HELD and found.header is not None:
                    delivery.cleared[dependency] = found.header.account_public_key
                elif self._state.room.would_circle(co_id, dependency, delivery.sender):
                    circling.append(dependency)
                else:
                    missing = dependency
                    break
            left.popleft()
        left.extend(circling)
        return missing

    def _set_aside(self, delivery: Delivery, dependency: RawCoId | None, out: list[Output]) -> None:
        if dependency is None:
            delivery.doubtful = frozenset()
            self.refuse(delivery, "it depends on nothing that could come", out)
            return
        if delivery.sender is not None and delivery.sender.is_gone:
            self.settle(delivery, out, "what it depends on was not here, and its sender has gone")
            return
        delivery.note_had()
        is_kept = self._state.room.add(delivery, dependency)
        phase = self._state.use(dependency, out).phase
        if is_kept:
            self._asking.ask_ahead(delivery, out)
        if phase is Phase.LOADING and is_kept and delivery.receipt is not None:
            return  # it may be on our disk: the receipt is told once that is known
        self.settle(delivery, out, is_waiting=True)
        sender = delivery.sender
        if phase is Phase.ABSENT:
            self.ask_for(dependency, sender, out)
        elif phase is Phase.DAMAGED and sender is not None:
            self._asking.put_off(dependency, sender)

    def is_absent(self, co_id: RawCoId, out: list[Output]) -> None:
        """The store does not have this value: ask whoever sent what waits for it."""
        if not self._state.room.is_awaited(co_id):  # true of nearly all that clients bring
            return
        for sender in self._state.room.senders(co_id):
            self.ask_for(co_id, sender, out)
        self._wait_for_others(co_id, out)

    def is_damaged(self, co_id: RawCoId, out: list[Output]) -> None:
        """The store cannot read this value: ask it again later, and then the senders perhaps."""
        for sender in self._state.room.senders(co_id):
            if sender is not None:
                self._asking.put_off(co_id, sender)
        self._wait_for_others(co_id, out)

    def _wait_for_others(self, co_id: RawCoId, out: list[Output]) -> None:
        for delivery in self._state.room.waiting_for(co_id):
            if delivery.receipt is not None:
                self.settle(delivery, out, is_waiting=True)

    def ask_for(self, co_id: RawCoId, sender: PeerView | None, out: list[Output]) -> None:
        """Ask whoever sent what needs this value, and must have it, and the mesh, which may."""
        self._state.await_absent(co_id)
        if sender is not None:
            self._asking.ask(co_id, sender, out)
        self._state.find(co_id, out)

    def _commit(
        self,
        entry: ValueEntry,
        header: CoValueHeader,
        delivery: Delivery,
        verified: Verified,
        has_gap: bool,
        out: list[Output],
    ) -> None:
        is_first = entry.header is None
        is_deletion = verified.is_deletion and not entry.is_deleted
        entry.phase = Phase.HELD
        entry.header = header
        if is_deletion:
            entry.is_deleted = True
            entry.keep_only(only_deletions(_counts(entry.logs)))
        new_sessions = entry.extend(verified.logs)
        if is_first or is_deletion or new_sessions or header.is_group:
            if is_first or is_deletion:
                entry.dependencies.update(dict.fromkeys(header_dependencies(header)))
            self._add_dependencies(entry, header, new_sessions, verified)
        counts = _counts(verified.logs)
        ticket = self._state.next_ticket
        self._state.next_ticket += 1
        commit = self._state.commits[ticket] = Commit(
            entry.co_id, counts, [delivery], is_deletion=is_deletion
        )
        entry.tickets.append(ticket)
        if delivery.sender is not None:
            delivery.sender.is_doubted = False
            if has_gap:
                commit.corrected.add(delivery.sender)
        self._note_received(delivery, delivery.stops if entry.is_deleted else counts)
        new_header = header if is_first else None
        origin = None if delivery.sender is None else delivery.sender.origin
        wanted = ValueAppend(entry.co_id, new_header, verified.appends, is_deletion)
        out.append(Store(wanted, ticket, origin, verified.rests_on))
        self._state.appealed.extend(self._rights.committed(wanted, header))
        if is_first:
            self._state.searching.pop(entry.co_id, None)
            self._state.arrived.append(entry.co_id)

    def _add_dependencies(
        self,
        entry: ValueEntry,
        header: CoValueHeader,
        new_sessions: Sequence[CoSessionId],
        verified: Verified,
    ) -> None:
        """Those of new sessions, and of a group's new transactions."""
        entry.dependencies.update(dict.fromkeys(session_dependencies(new_sessions)))
        if header.is_group:
            for append in verified.appends.values():
                members = member_dependencies(append.transactions)
                entry.dependencies.update(dict.fromkeys(members))
        entry.dependencies.pop(entry.co_id, None)
        self._state.values.resize(entry)

    def _nothing_new(
        self, entry: ValueEntry, delivery: Delivery, has_gap: bool, out: list[Output]
    ) -> None:
        """Everything is here already, or all of it is beyond a gap."""
        if not has_gap:
            self._note_received(delivery, delivery.stops)
        if entry.tickets:
            # What it repeats may not be durable yet: answer with the last commit that is out.
            commit = self._state.commits[entry.tickets[-1]]
            commit.deliveries.append(delivery)
            if has_gap and delivery.sender is not None:
                commit.corrected.add(delivery.sender)
            return
        peer = delivery.sender
        view = None if peer is None else peer.values.get(entry.co_id)
        known = entry.durable if view is None else self._state.claimed(entry, view)
        self._reply(delivery, known, has_gap, out)
        self.settle(delivery, out)
        self.tick(delivery, entry.co_id, out)
        if peer is not None and view is not None and view.lacks(entry.durable):
            self._offers.offer(peer, entry.co_id, out)  # it has not asked: nothing else offers it

    @staticmethod
    def _note_received(delivery: Delivery, counts: SessionCounts) -> None:
        """The sender has what it sent, and all that came before it."""
        if delivery.sender is not None:
            delivery.sender.asked.discard(delivery.content.co_id)
            delivery.note_had(counts)

    def release_arrived(self, out: list[Output]) -> None:
        """Judge again what waited for values that are here now, and what waited for those."""
        while self._state.appealed:
            self._judge_again(self._state.appealed.popleft(), out)
        while self._state.arrived:
            co_id = self._state.arrived.popleft()
            arrived = self._state.values.peek(co_id)
            self._state.stop_awaiting(co_id)
            deliveries, owed = self._state.room.release(co_id)
            for delivery in self._state.room.take_headless(co_id):
                self._judge_again(delivery, out)
            for delivery in deliveries:
                if arrived is not None and arrived.header is not None:
                    delivery.cleared[co_id] = arrived.header.account_public_key
                self._judge_again(delivery, out)
                while (follower := self._state.room.follower(delivery)) is not None:
                    self._judge_again(follower, out)
            for item in owed:
                entry = self._state.values.peek(item.co_id)
                durable = NOTHING if entry is None else entry.durable
                if not item.sender.is_gone:
                    out.append(Send(item.sender.peer_id, Known(item.co_id, durable, True)))

    def _judge_again(self, delivery: Delivery, out: list[Output]) -> None:
        delivery.send_off()
        self._judge(delivery, out)

    def _reply(
        self, delivery: Delivery, known: KnownState, is_correction: bool, out: list[Output]
    ) -> None:
        peer = delivery.sender
        if peer is None or peer.is_gone:
            return
        co_id = delivery.content.co_id
        view = peer.values[co_id]
        if is_correction:
            if view.corrected is known and self._asking.round <= view.corrected_at + 1:
                return  # the last correction brings all from there on, this gap included
            view.corrected, view.corrected_at = known, self._asking.round
        view.is_told = True
        out.append(Send(peer.peer_id, Known(co_id, known, is_correction)))

    def refuse(self, delivery: Delivery, reason: str, out: list[Output]) -> None:
        self._state.refused += 1
        sender, co_id = delivery.sender, delivery.content.co_id
        if sender is not None:
            is_damaged = reason == DAMAGED
            if is_damaged:
                delivery.note_had()
            self._asking.refused(co_id, sender, is_damaged=is_damaged)
            sender.is_doubted = True
            sender.note_refused(co_id)
            out.append(Refused(sender.peer_id, co_id, reason))
            # A refusal is an answer, too: else the client never gets to its next batch.
            tick_batches(sender, co_id, out)
        self.settle(delivery, out, reason)

    def settle(
        self,
        delivery: Delivery,
        out: list[Output],
        refusal: str | None = None,
        is_waiting: bool = False,
    ) -> None:
        """The delivery is no longer on its way to the disk."""
        delivery.foreseen = None
        sender, co_id = delivery.sender, delivery.content.co_id
        if sender is not None:
            sender.unsettled_bytes -= delivery.size
            view = sender.values[co_id]
            view.unsettled -= 1
            if view.is_owed and not view.unsettled:
                self._offers.answer_late(sender, view, co_id, out)
        was_waiting = delivery.is_told_waiting
        if delivery.receipt is not None and not (is_waiting and was_waiting):
            about = co_id, refusal, is_waiting, was_waiting
            out.append(Settled(delivery.receipt, *about, delivery.partly, delivery.doubtful))
            delivery.is_told_waiting = is_waiting

    def tick(self, delivery: Delivery, co_id: RawCoId, out: list[Output]) -> None:
        """Content of a value was stored: a reconcile batch may wait for it."""
        peer = delivery.sender
        if peer is None or not peer.batches:
            return
        until = delivery.content.expect_until
        entry = self._state.values.peek(co_id)
        if entry is None or until is None or entry.durable.covers(KnownState(True, until)):
            tick_batches(peer, co_id, out)


def _takeable(
    new: Mapping[CoSessionId, SessionContent], entry: ValueEntry
) -> Mapping[CoSessionId, SessionContent]:
    """The parts that may be taken: of a deleted value only delete sessions."""
    if not entry.is_deleted:
        return new
    return {key: part for key, part in new.items() if is_delete_session(key)}


def _counts(logs: Mapping[CoSessionId, SessionLog]) -> dict[CoSessionId, int]:
    return {key: log.count for key, log in logs.items()}


def _needs_nothing_new(entry: ValueEntry, content: Content) -> bool:
    """Whether all that this depends on was here when its sessions were verified the last time.

    Never of a group: what it depends on is in its transactions.
    """
    if entry.header is None or entry.header.is_group:
        return False
    for session_id in content.new:
        log = entry.logs.get(session_id)
        if log is None or log.public_key is None:
            return False
    return True


def _needed(header: CoValueHeader, content: Content) -> list[RawCoId]:
    """What must be here before this content can be judged, each once."""
    needed = dict.fromkeys(header_dependencies(header))
    needed.update(dict.fromkeys(part_dependencies(content.new, is_group=header.is_group)))
    needed.pop(content.co_id, None)
    return list(needed)
