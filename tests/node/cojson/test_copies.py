from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.cojson.copies import CopyGate, CopyLedger
from node.cojson.host import SyncHost
from node.cojson.host_options import HostOptions
from node.cojson.messages import Done, Known, Load, Message, decode_line
from node.covalue.ids import CoSessionId
from node.covalue.known_state import NOTHING, KnownState
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import open_mesh_node, wait_until
from tests.node.mesh.samples import co_id, session_id

A = co_id(1)
S, T = session_id(1), session_id(2)
DELETION = CoSessionId(f"{co_id(9)}_session_dz9h5nwaYtTmHkp3Bc$")
FULL = KnownState(True, {S: 5, T: 2})


def test_with_one_copy_nothing_is_held_back() -> None:
    gate = CopyGate()
    assert gate.screen("c", Known(A, FULL), FULL, NOTHING) == Known(A, FULL)
    assert gate.held_back == 0


def test_a_client_is_told_as_much_as_enough_nodes_hold_and_then_the_rest() -> None:
    gate = CopyGate(3)
    assert gate.screen("c", Known(A, FULL), FULL, NOTHING) is None
    for member, held in ((b"1", {S: 5, T: 2}), (b"2", {S: 4})):
        assert gate.ledger.note(member, A, held)
        assert gate.due(A, FULL) == []
    assert gate.screen("c", Known(A, FULL), FULL, NOTHING) == Known(A, KnownState(True, {S: 4}))
    gate.ledger.note(b"2", A, {S: 5})
    assert gate.due(A, FULL) == []
    gate.ledger.note(b"3", A, {T: 2})
    assert gate.due(A, FULL) == [("c", Known(A, FULL))]
    assert gate.held_back == 0
    assert list(gate.ledger.watched) == []


def test_who_has_no_more_than_is_here_is_not_told_that_nothing_is() -> None:
    """It would send all of the value, each time it connects. Who has more is to send that."""
    gate = CopyGate(2)
    more = KnownState(True, {S: 5, T: 3})
    assert gate.screen("c", Known(A, FULL), FULL, FULL) is None
    assert gate.screen("d", Known(A, FULL), FULL, more) == Known(A, KnownState(True, {}))
    gate.ledger.note(b"1", A, {S: 5})
    assert gate.screen("c", Known(A, FULL), FULL, FULL) == Known(A, KnownState(True, {S: 5}))
    gate.ledger.note(b"1", A, {T: 2})
    assert gate.due(A, FULL) == [("c", Known(A, FULL)), ("d", Known(A, FULL))]


def test_what_one_member_says_that_it_holds_fills_no_memory() -> None:
    ledger = CopyLedger(max_noted=4)
    ledger.watch(A)
    ledger.watch(co_id(2))
    ledger.note(b"1", A, {S: 1, T: 2})
    ledger.note(b"1", A, {session_id(number): 1 for number in range(3, 8)})
    ledger.note(b"1", co_id(2), {S: 1, T: 2})
    assert ledger.held_by(A, 1).sessions == {S: 1, T: 2}
    ledger.note(b"1", co_id(2), {session_id(3): 1})
    ledger.note(b"1", A, {S: 5, session_id(3): 1})  # no more of them, but more of one
    assert ledger.held_by(A, 1).sessions == {S: 5, T: 2}
    ledger.note(b"2", A, {session_id(3): 1})
    assert ledger.held_by(A, 1).sessions == {S: 5, T: 2, session_id(3): 1}
    ledger.unwatch(co_id(2))
    ledger.note(b"1", A, {session_id(4): 1})
    assert session_id(4) in ledger.held_by(A, 1).sessions


def test_what_all_members_say_together_fills_no_memory_either() -> None:
    """Found in review: each of them had 200 MB, also those that had gone."""
    ledger = CopyLedger(max_in_all=12)
    values = [co_id(number) for number in range(1, 5)]
    for value in values:
        ledger.watch(value)
        ledger.note(b"much", value, sessions(range(1, 3)))
    assert [len(ledger.held_by(value, 1).sessions) for value in values] == [2, 2, 2, 2]
    for member in (b"a", b"b", b"c"):
        ledger.note(member, A, {S: 4})
    # What the member with most said last has given way to those that say little.
    assert [len(ledger.held_by(value, 1).sessions) for value in values] == [2, 2, 0, 0]
    assert (ledger.holders(A, KnownState(True, {S: 4})), ledger.held_by(A, 4).header) == (3, True)
    # It may have what others leave, and no more.
    ledger.note(b"much", values[3], sessions(range(1, 3)))
    assert not ledger.held_by(values[3], 1).header
    ledger.unwatch(values[1])
    ledger.note(b"much", values[3], sessions(range(1, 3)))
    assert ledger.held_by(values[3], 1).sessions == sessions(range(1, 3))


def test_who_has_as_much_as_all_others_displaces_nobody() -> None:
    ledger = CopyLedger(max_in_all=6)
    ledger.watch(A)
    for member in (b"1", b"2", b"3", b"4"):
        ledger.note(member, A, {S: 1})
    assert ledger.holders(A, KnownState(True, {S: 1})) == 3
    ledger.note(b"1", A, {S: 7, T: 7})
    assert ledger.held_by(A, 1).sessions == {S: 7}, "more of what it said, and nothing new"
    ledger.unwatch(A)
    ledger.watch(A)
    ledger.note(b"4", A, sessions(range(1, 6)))
    assert ledger.held_by(A, 1).sessions == sessions(range(1, 6))


def sessions(numbers: range) -> dict[CoSessionId, int]:
    return {session_id(number): 1 for number in numbers}


class Looks(dict[CoSessionId, int]):
    """Counts how often it is looked at."""

    count = 0

    def __getitem__(self, session_id: CoSessionId) -> int:
        self.count += 1
        return super().__getitem__(session_id)


def test_each_word_about_a_value_of_very_many_sessions_costs_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found in review: all sessions were gone through, for tens of milliseconds each time."""
    sessions = [session_id(number) for number in range(500)]
    known = KnownState(True, Looks(dict.fromkeys(sessions, 2)))
    gate = CopyGate(2)
    gate.screen("c", Known(A, known), None, NOTHING)
    gate.ledger.note(b"1", A, dict.fromkeys(sessions[:-1], 2))
    monkeypatch.delattr(CopyLedger, "held_by")
    for each in sessions:
        gate.ledger.note(b"1", A, {each: 1})
        assert gate.due(A, None) == []
    assert isinstance(known.sessions, Looks)
    assert known.sessions.count <= 3 * len(sessions)
    gate.ledger.note(b"1", A, {sessions[-1]: 2})
    assert gate.due(A, None) == [("c", Known(A, known))]


few = st.dictionaries(st.integers(0, 3).map(session_id), st.integers(0, 3))


@given(st.lists(st.tuples(st.sampled_from([b"1", b"2", b"3"]), few)), st.lists(few, max_size=4))
def test_what_enough_members_hold_is_one_thing_however_one_asks(
    words: list[tuple[bytes, dict[CoSessionId, int]]], questions: list[dict[CoSessionId, int]]
) -> None:
    ledger = CopyLedger()
    ledger.watch(A)
    for member, said in words:
        ledger.note(member, A, said)
        for sessions in questions:
            for members in (1, 2, 3):
                wanted = KnownState(True, sessions)
                held = ledger.held_by(A, members)
                assert ledger.are_held(A, members, wanted) == held.covers(wanted)


def test_one_member_counts_once_however_often_it_speaks() -> None:
    gate = CopyGate(3)
    gate.screen("c", Known(A, FULL), FULL, NOTHING)
    for _ in range(5):
        gate.ledger.note(b"1", A, FULL.sessions)
    assert gate.due(A, FULL) == []


def test_what_is_no_acknowledgement_passes() -> None:
    gate = CopyGate(2)
    for message in (Known(A, NOTHING), Load(A, NOTHING), Done(A)):
        assert gate.screen("c", message, NOTHING, NOTHING) == message
    assert gate.held_back == 0


def test_a_correction_is_sent_even_if_there_is_nothing_to_acknowledge() -> None:
    gate = CopyGate(2)
    header = KnownState(True)
    assert gate.screen("c", Known(A, header), header, NOTHING) is None
    # Else a gap behind the header would never be filled.
    assert gate.screen("c", Known(A, header, True), header, NOTHING) == Known(A, header, True)


def test_questions_and_corrections_acknowledge_no_more_than_the_rest() -> None:
    gate = CopyGate(2)
    assert gate.screen("c", Load(A, FULL), FULL, NOTHING) == Load(A, KnownState(True, {}))
    assert gate.held_back == 0
    said = gate.screen("c", Known(A, FULL, True), FULL, NOTHING)
    assert said == Known(A, KnownState(True, {}), True)
    gate.ledger.note(b"1", A, FULL.sessions)
    assert gate.due(A, FULL) == [("c", Known(A, FULL))]


def test_of_a_header_alone_nothing_is_said_before_it_is_copied() -> None:
    gate = CopyGate(2)
    header = KnownState(True, {})
    assert gate.screen("c", Known(A, header), header, NOTHING) is None
    gate.ledger.note(b"1", A, {})
    assert gate.due(A, header) == [("c", Known(A, header))]


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_of_a_deleted_value_the_tombstone_is_what_others_must_hold(is_in_memory: bool) -> None:
    gate = CopyGate(2)
    quenching = KnownState(True, {S: 5, DELETION: 1})
    durable = KnownState(True, {DELETION: 1}) if is_in_memory else None
    gate.screen("c", Known(A, quenching), durable, NOTHING)
    gate.ledger.note(b"1", A, {S: 5})
    assert gate.due(A, durable) == []
    gate.ledger.note(b"1", A, {DELETION: 1})
    assert gate.due(A, durable) == [("c", Known(A, quenching))]


def test_clients_that_went_are_forgotten() -> None:
    gate = CopyGate(2)
    gate.screen("c", Known(A, FULL), FULL, NOTHING)
    gate.screen("d", Known(A, FULL), FULL, NOTHING)
    gate.forget("c")
    assert gate.held_back == 1
    gate.ledger.note(b"1", A, FULL.sessions)
    assert gate.due(A, FULL) == [("d", Known(A, FULL))]
    assert list(gate.ledger.watched) == []


async def told(host: SyncHost, *messages: Message, until: int = 1) -> list[Known]:
    with host.client("test") as link:
        await link.receive(list(messages))
        known: list[Known] = []
        with trio.move_on_after(5):
            while len(known) < until:
                for line in await link.next_lines(10_000):
                    message = decode_line(line)
                    if isinstance(message, Known):
                        known.append(message)
                if len(known) < until:
                    await link.outbox.wake.wait()
        return known


@pytest.mark.parametrize("min_copies", [1, 2])
async def test_a_client_of_a_host_hears_when_others_hold_it(min_copies: int) -> None:
    value = Author(1).value("precious")
    async with open_mesh_node(1, options=HostOptions(min_copies=min_copies)) as node:
        host = node.host
        full = Known(value.id, KnownState(True, {value.session_id: 1}))
        if min_copies == 1:
            assert await told(host, value.edit("[]", with_header=True)) == [full]
            return

        async def acknowledge() -> None:
            await wait_until(lambda: host.copies.held_back == 1)
            host.note_copies(b"member", [(value.id, None)])
            host.note_copies(b"member", [(value.id, {value.session_id: 1})])

        # Who holds it is remembered only while somebody waits: the next one has it asked again.
        again = Load(value.id, KnownState(True, {value.session_id: 1}))
        for message in (value.edit("[]", with_header=True), again):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acknowledge)
                assert await told(host, message) == [full]
        assert host.copies.held_back == 0
