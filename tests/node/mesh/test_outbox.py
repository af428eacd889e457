"""What waits to be said to a member: in which order, merged by value, and not to everybody."""

from __future__ import annotations

from collections.abc import Mapping

from hypercore.replication.channel import Take
from node.covalue.ids import RawCoId
from node.mesh.acknowledgements import Acknowledgements
from node.mesh.hearsay import Hearsay
from node.mesh.hearsay_messages import Brief, short_name
from node.mesh.messages import (
    Answer,
    Evidence,
    EvidenceKind,
    Message,
    MessageType,
    Sessions,
    Stored,
    Update,
    decode_message,
)
from node.mesh.outbox import MAX_PENDING_UPDATES, MemberOutbox
from node.mesh.outputs import Transmit
from node.mesh.replicas import ReplicaPolicy
from node.mesh.trust_messages import Records
from tests.node.mesh.samples import co_id, session_id
from tests.node.mesh.test_session import members

A, B, C = co_id(1), co_id(2), co_id(3)
S, T = session_id(1), session_id(2)
FORKED_CORE = Evidence(EvidenceKind.CORE, "ab" * 32, b"one", b"two")
FORKED_SESSION = Evidence(EvidenceKind.SESSION, f"{A}:{S}", b"one", b"two")


class Pulled:
    """A channel that carries what it is asked to."""

    def __init__(self) -> None:
        self.wakes = 0
        self._take: Take | None = None

    def set_source(self, take: Take) -> None:
        self._take = take

    def wake_source(self) -> None:
        self.wakes += 1

    def carry(self, max_bytes: int = 1 << 20) -> list[Message | None]:
        assert self._take is not None
        return [decode_message(number, payload) for number, payload in self._take(max_bytes)]


class Outbox:
    """One that belongs to a member that wants to hear of everything."""

    def __init__(self, *, may_read: bool = True) -> None:
        pair = members()
        pair.carry_out(1, pair.machines[1].tell_interest(ReplicaPolicy(everything=True), set()))
        self.channel = Pulled()
        self.acknowledgements = Acknowledgements()
        self.acknowledgements.take(0)  # that it acknowledges at all was said before
        self.hearsay = Hearsay()
        self.box = MemberOutbox(
            self.channel,
            pair.machines[0],
            self.acknowledgements,
            self.hearsay,
            lambda: may_read,
        )
        self.announced = 0
        self.box.serve(lambda: 17, self._announce)

    def _announce(self) -> None:
        self.announced += 1


def test_a_part_of_an_answer_waits_for_the_connection_behind_acknowledgements_alone() -> None:
    outbox = Outbox()
    outbox.box.queue_update({A: {S: 1}})
    parts = [Answer(1, 9, ((B, {S: 2}),), more) for more in (True, False)]
    transmits = [Transmit(MessageType.ANSWER, part.encode()) for part in parts]
    outbox.box.queue_answer(transmits)
    outbox.acknowledgements.owe(C, {S: 2})
    stored, first, update = outbox.channel.carry()
    assert isinstance(stored, Stored)
    assert first == parts[0]
    assert isinstance(update, Update)
    assert outbox.box.is_answering
    assert outbox.channel.carry() == [parts[1]]
    assert not outbox.box.is_answering


def test_what_is_told_in_full_is_read_at_once_so_our_log_is_announced_with_it() -> None:
    outbox = Outbox()
    outbox.box.queue_brief({B: {T: 4}}, due_at=5.0)
    outbox.box.tell_in_brief()
    outbox.acknowledgements.owe(C, {S: 2})
    assert len(outbox.channel.carry()) == 2
    assert outbox.announced == 0
    outbox.box.queue_update({A: {S: 1}})
    outbox.channel.carry()
    assert outbox.announced == 1


def test_changes_of_a_value_that_waits_are_announced_once() -> None:
    outbox = Outbox()
    box = outbox.box
    assert box.queue_update({A: {S: 1}})
    assert box.queue_update({A: {S: 3, T: 1}, B: {}})
    assert (box.updates, outbox.channel.wakes) == (2, 2)
    assert outbox.channel.carry() == [Update(17, ((A, {S: 3, T: 1}), (B, {})))]
    assert (box.updates, box.updates_sent) == (0, 1)
    assert outbox.acknowledgements.unacknowledged == 2
    assert outbox.channel.carry() == []


def test_what_the_member_said_to_hold_is_not_announced() -> None:
    outbox = Outbox()
    outbox.acknowledgements.note(A, {S: 3})
    outbox.box.queue_update({A: {S: 2}})
    assert (outbox.box.updates, outbox.channel.wakes) == (0, 0)


def test_a_slow_connection_gets_as_much_as_it_can_carry() -> None:
    outbox = Outbox()
    outbox.box.queue_update({co_id(number): {S: 1} for number in range(50)})
    sizes = []
    while updates := outbox.channel.carry(max_bytes=1280):
        sizes += [len(update.changes) for update in updates if isinstance(update, Update)]
    assert sizes == [10] * 5


def test_acknowledgements_go_first_and_testimony_when_nothing_else_waits() -> None:
    outbox = Outbox()
    box = outbox.box
    box.queue_evidence([FORKED_CORE])
    box.queue_brief({B: {T: 4}}, due_at=5.0)
    box.queue_update({A: {S: 1}})
    box.tell_in_brief()
    outbox.acknowledgements.owe(C, {S: 2})
    assert outbox.channel.carry() == [
        Stored(17, 0, ((C, {S: 2}),)),
        Update(17, ((A, {S: 1}),)),
        Brief(17, ((short_name(B, T), 4),)),
    ]
    assert outbox.channel.carry() == [FORKED_CORE]
    assert outbox.channel.carry() == []


def test_what_admins_signed_does_not_wait_for_the_end_of_a_listing() -> None:
    """Found in review: who was shut out was let in by a member that was still being told."""
    outbox = Outbox()
    records = [Records(bytes((number,)) * 32) for number in range(3)]
    outbox.box.queue_records(records)
    outbox.box.queue_update({co_id(number): {S: 1} for number in range(50)})
    outbox.acknowledgements.owe(C, {S: 2})
    told = []
    for _ in records:
        first, *others = outbox.channel.carry(max_bytes=1280)
        told += [message for message in (first, *others) if isinstance(message, Records)]
        assert sum(isinstance(message, Update) for message in others) == 1, "which goes on"
    assert told == records


def test_what_it_has_said_itself_by_then_is_not_told_in_brief() -> None:
    outbox = Outbox()
    outbox.box.queue_brief({B: {T: 4}}, due_at=5.0)
    outbox.acknowledgements.note(B, {T: 4})
    outbox.box.tell_in_brief()
    assert (outbox.channel.wakes, outbox.channel.carry()) == (0, [])


def test_who_may_not_read_hears_of_forked_cores_alone() -> None:
    outbox = Outbox(may_read=False)
    assert outbox.box.queue_update({A: {S: 1}})
    assert outbox.box.queue_brief({A: {S: 1}}, due_at=5.0)
    outbox.box.queue_evidence([FORKED_SESSION, FORKED_CORE])
    assert outbox.channel.carry() == [FORKED_CORE]
    assert outbox.channel.carry() == []


def test_too_many_updates_are_told_of() -> None:
    outbox = Outbox()
    changes: Mapping[RawCoId, Sessions] = {
        RawCoId(f"co_z{number}"): {} for number in range(MAX_PENDING_UPDATES)
    }
    assert outbox.box.queue_update(changes)
    assert not outbox.box.queue_update({A: {}})
