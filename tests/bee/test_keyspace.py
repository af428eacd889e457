"""Codecs of keys and values, bounds and limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from bee import JSON, Bee
from hypercore.errors import UsageError
from tests.support.bee_log import BeeLog


async def test_json_is_what_javascript_can_read() -> None:
    log = BeeLog()
    bee = Bee(log, value_encoding=JSON)
    for number in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            await bee.put(b"key", {"number": number})
    half = "half of a pair: \ud83d"  # JSON.stringify writes just this
    await bee.put(b"key", half)
    entry = await Bee(log).get(b"key")
    assert entry is not None
    assert entry.value == b'"half of a pair: \\ud83d"'
    assert await bee.get(b"key") == (entry.seq, b"key", half)


async def test_limits_of_the_original_are_not_taken_for_ours() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"key", b"value")
    for read in (bee.range, bee.history, partial(bee.diff, 1), bee.snapshot().range):
        with pytest.raises(UsageError):
            read(limit=-1)
    async with bee.batch() as batch:
        with pytest.raises(UsageError):
            batch.range(limit=-1)


async def test_which_bound_wins_where_both_are_given() -> None:
    bee = Bee(BeeLog())
    for number in range(1, 7):
        await bee.put(b"%d" % number, b"value")
    found = [entry.seq async for entry in bee.range(gt=b"1", gte=b"3", lt=b"4", lte=b"5")]
    assert found == [2, 3]
    changes = [change.seq async for change in bee.history(gt=1, gte=3, lt=4, lte=5)]
    assert changes == [2, 3, 4, 5]


@pytest.mark.parametrize("mistake", [3, 10**12, [1, 2], "text", bytearray(1)])
async def test_what_is_no_bytes_is_no_key_and_no_value(mistake: Any) -> None:
    log = BeeLog()
    bee = Bee(log)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: bee.put(mistake, b"1"),
        lambda: bee.put(b"a", mistake),
        lambda: bee.get(mistake),
        lambda: bee.peek(gte=mistake),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=rf"of this bee: {type(mistake).__name__}"):
            await call()
    assert not log.length
