from __future__ import annotations

from node.covalue.local.sync_notes import ANY_PEER, BATCH_SECONDS, MAX_NOTES, SyncNotes
from tests.support.authors import map_header

IDS = [map_header(str(n)).id for n in range(3)]


def test_notes_wait_for_others_but_not_for_ever() -> None:
    assert SyncNotes().deadline is None
    notes = SyncNotes()
    notes.add(IDS[0], "p", 10.0, is_synced=False)
    notes.add(IDS[1], "p", 10.1, is_synced=False)
    assert notes.deadline == 10.0 + BATCH_SECONDS
    assert notes.take() == {(IDS[0], "p"): False, (IDS[1], "p"): False}
    assert len(notes) == 0
    assert notes.take() == {}


def test_of_one_value_and_peer_the_last_note_counts() -> None:
    notes = SyncNotes()
    notes.add(IDS[0], "p", 0.0, is_synced=False)
    notes.add(IDS[0], ANY_PEER, 0.0, is_synced=False)
    notes.add(IDS[0], "p", 0.1, is_synced=True)
    assert notes.take() == {(IDS[0], "p"): True, (IDS[0], ANY_PEER): False}


def test_notes_that_were_not_written_wait_again_unless_there_are_newer_ones() -> None:
    notes = SyncNotes()
    notes.add(IDS[0], "p", 0.0, is_synced=False)
    notes.add(IDS[1], "p", 0.0, is_synced=False)
    taken = notes.take()
    notes.add(IDS[0], "p", 0.1, is_synced=True)
    notes.put_back(taken, 0.2)
    assert notes.deadline == 0.2 + BATCH_SECONDS
    assert notes.take() == {(IDS[0], "p"): True, (IDS[1], "p"): False}


def test_forgetting_a_value_drops_its_notes() -> None:
    notes = SyncNotes()
    notes.add(IDS[0], "p", 0.0, is_synced=False)
    notes.add(IDS[1], "p", 0.0, is_synced=False)
    notes.forget(IDS[0])
    assert notes.deadline is not None
    notes.forget(IDS[1])
    assert len(notes) == 0
    notes.add(IDS[2], "p", 7.0, is_synced=False)
    assert notes.deadline == 7.0 + BATCH_SECONDS


def test_too_many_notes_are_due_at_once() -> None:
    notes = SyncNotes()
    for number in range(MAX_NOTES + 1):
        notes.add(IDS[0], f"peer {number}", 5.0, is_synced=False)
    assert notes.deadline == 5.0
