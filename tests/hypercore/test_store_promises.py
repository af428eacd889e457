"""The judge of the kill and power cut campaigns sees what is lost and what is back."""

from __future__ import annotations

import pytest

from hypercore import open_corestore
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import DataKeys
from tests.support.store_promises import (
    Promises,
    broken_promises,
    open_cores,
    verify_store,
    what_is_there,
)


def promised(*lines: str) -> Promises:
    promises = Promises()
    promises.take(line.encode() for line in lines)
    return promises


def there(name: str, fork: int, length: int, held: set[int], number: int = 0) -> Promises:
    promises = Promises()
    promise = promises.of[name]
    promise.fork, promise.length, promise.held, promise.number = fork, length, held, number
    return promises


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["log = 5 0"], there("log", 0, 5, set())),
        (["log = 5 0"], there("log", 0, 7, set())),
        (["log = 5 0"], there("log", 1, 2, set())),
        (["log row 3"], there("log", 0, 0, set(), 4)),
        (["cleared + 0 3", "cleared ?- 0 2"], there("cleared", 0, 3, {0, 1, 2})),
        (["cleared + 0 3", "cleared ?- 0 2"], there("cleared", 0, 3, {2})),
        (["cleared + 0 3", "cleared ?-- 0 2", "cleared -- 0 2"], there("cleared", 0, 4, {1, 3})),
        (["replica ?+ 0 3"], there("replica", 0, 3, {1})),
        (["replica ?+ 0 3", "replica + 0 3", "replica ?fork 2"], there("replica", 1, 2, {0, 1})),
    ],
)
def test_what_was_promised_or_had_begun(lines: list[str], found: Promises) -> None:
    assert broken_promises(promised(*lines), found) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["log = 5 0"], there("log", 0, 4, set())),
        (["log = 5 1"], there("log", 0, 9, set())),
        (["log row 3"], there("log", 0, 0, set(), 2)),
        (["cleared + 0 3"], there("cleared", 0, 3, {0, 2})),
        (["cleared + 0 3", "cleared ?- 0 2"], there("cleared", 0, 3, {1, 2})),
        (["cleared + 0 3", "cleared ?- 0 2", "cleared - 0 2"], there("cleared", 0, 3, {1, 2})),
        (["replica ?+ 0 3", "replica + 0 3"], there("replica", 0, 3, {0, 1})),
        (["replica ?+ 0 3", "replica + 0 3"], there("replica", 0, 5, {0, 1, 2, 4})),
        (["replica = 9 2"], there("replica", 1, 9, set())),
    ],
)
def test_what_was_not(lines: list[str], found: Promises) -> None:
    assert len(broken_promises(promised(*lines), found)) == 1


@pytest.mark.parametrize("row", ["block", "leaf", "page"])
async def test_a_missing_row_is_seen(row: str) -> None:
    async with open_corestore(None) as store:
        cores = await open_cores(store)
        await cores["log"].append([b"%d" % index for index in range(9)])
        assert verify_store(store, cores) == 9
        assert what_is_there(cores).of["log"].length == 9
        record = Catalog(store.storage).find(cores["log"].discovery_key)
        assert record is not None
        keys = DataKeys(record.data_pointer)
        batch = store.storage.batch()
        batch.delete({"block": keys.block(4), "leaf": keys.node(8), "page": keys.page(0)}[row])
        store.storage.commit(batch)
        with pytest.raises(AssertionError):
            verify_store(store, cores)
