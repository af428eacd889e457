"""After a failed write memory says what the disk says; when the disk works again, all goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hypercore.errors import StorageFailed
from hypercore.log import Changeset
from hypercore.stored_log import StoredLog
from tests.support.stored_logs import FaultyStorage, open_log

BLOCKS = [b"one", b"two", b"three", b"four"]


def append(log: StoredLog) -> None:
    log.append([b"five", b"six"])


def ingest(log: StoredLog) -> None:
    log.clear([(3, 4)])
    log.commit([Changeset(blocks=[(3, b"four")])])


def clear(log: StoredLog) -> None:
    log.clear([(1, 3)])


def truncate(log: StoredLog) -> None:
    log.truncate(2)


def prune(log: StoredLog) -> None:
    log.prune([1])


CHANGES = [append, clear, truncate, prune]


def state(log: StoredLog) -> tuple[object, ...]:
    held = [index for index in range(8) if log.bitfield.get(index)]
    blocks = [log.rows.read_block(index) for index in range(8)]
    nodes = [log.read_node(index) for index in range(8)]
    return log.head, held, log.contiguous_length, blocks, nodes


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_stored", [False, True])
def test_a_failed_write_leaves_in_memory_what_is_on_the_disk(
    change: Callable[[StoredLog], None], is_stored: bool
) -> None:
    """Otherwise a download is taken for done when its blocks were not written."""
    storage = FaultyStorage()
    log = open_log(storage)
    log.append(BLOCKS)
    before = state(log)
    storage.fails_before, storage.fails_after = not is_stored, is_stored
    with pytest.raises(OSError, match=r"device|error"):
        change(log)
    with pytest.raises(StorageFailed):
        change(log)
    held = [index for index in range(8) if log.bitfield.get(index)]
    assert held == [index for index in range(8) if log.rows.read_block(index) is not None]
    if not is_stored:
        assert state(log) == before
    storage.fails_before = storage.fails_after = False
    with pytest.raises(StorageFailed):  # a later success hides nothing
        change(log)
    log.reload()
    assert state(log) == state(open_log(storage))
    log.append([b"goes on"])
    assert state(log) == state(open_log(storage))


@pytest.mark.parametrize("is_stored", [False, True])
def test_blocks_of_a_peer_that_were_not_written_are_not_here(is_stored: bool) -> None:
    storage = FaultyStorage()
    log = open_log(storage)
    log.append(BLOCKS)
    log.clear([(2, 4)])
    storage.fails_before, storage.fails_after = not is_stored, is_stored
    with pytest.raises(OSError, match=r"device|error"):
        log.commit([Changeset(blocks=[(3, b"four")])])
    assert log.bitfield.get(3) is is_stored
    assert log.contiguous_length == 2
