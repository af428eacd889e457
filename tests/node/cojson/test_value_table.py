"""What the engine keeps of a value in memory."""

from __future__ import annotations

from node.cojson.value_table import ValueEntry
from node.covalue.known_state import KnownState, sessions_hash
from tests.support.authors import Author, map_header

SESSION = Author("ann").session_id()


def test_the_hash_of_what_is_durable_is_made_once_and_again_when_that_changes() -> None:
    """A batch of 60 KB that names one value a thousand times had 5000 sessions hashed as often."""
    entry = ValueEntry(map_header("m").id)
    for count in (1, 2):
        entry.durable = KnownState(True, {SESSION: count})
        assert entry.durable_hash == sessions_hash({SESSION: count})
        assert entry.durable_hash is entry.durable_hash
