"""What the engine keeps of a value in memory."""

from __future__ import annotations

from node.cojson.crypto import RunningHash
from node.cojson.value_table import ValueEntry
from node.covalue.known_state import KnownState, sessions_hash
from node.covalue.session_log import SessionLog
from node.covalue.store import StoredSession, StoredValue
from tests.support.authors import Author, map_header

ANN = Author("ann")
SESSION = ANN.session_id()


def test_the_hash_of_what_is_durable_is_made_once_and_again_when_that_changes() -> None:
    """A batch of 60 KB that names one value a thousand times had 5000 sessions hashed as often."""
    entry = ValueEntry(map_header("m").id)
    for count in (1, 2):
        entry.durable = KnownState(True, {SESSION: count})
        assert entry.durable_hash == sessions_hash({SESSION: count})
        assert entry.durable_hash is entry.durable_hash


def test_running_hashes_are_counted_as_they_come_and_go() -> None:
    header = map_header("m")
    stored = StoredValue(
        header, {SESSION: StoredSession(1, bytes(64), 0)}, frozenset({ANN.account_id})
    )
    entry = ValueEntry(header.id)
    entry.hold(stored)
    unhashed = entry.size
    for _ in range(2):
        entry.rehash(SESSION, RunningHash())
    other = ANN.session_id("other")
    hashed = entry.size - unhashed
    assert hashed > 0
    assert entry.extend({SESSION: SessionLog(2, running=RunningHash())}) == []
    assert entry.size - unhashed == hashed
    assert entry.extend({other: SessionLog(1, running=RunningHash())}) == [other]
    assert entry.size - unhashed > 2 * hashed
    order = entry.order
    entry.keep_only([other])
    assert entry.size - unhashed == hashed
    assert entry.order is not order
    entry.hold(stored)
    assert entry.size == unhashed
