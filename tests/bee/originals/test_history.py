"""What hyperbee 2.27.3's test/history.js covers.

A live history is left like any loop: "live history can be destroyed" is a `break`. "no session
leak after history stream closes" has no counterpart, as nothing is opened.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from bee import Bee
from tests.bee.originals.filling import put_range

BOUNDS: list[tuple[dict[str, Any], range]] = [
    ({}, range(1, 11)),
    ({"gte": 3}, range(3, 11)),
    ({"gte": 3, "lte": 5}, range(3, 6)),
    ({"gte": 3, "lt": 5}, range(3, 5)),
    ({"gt": 3, "lt": 5}, range(4, 5)),
    ({"gte": -2}, range(9, 11)),
    ({"limit": 4}, range(1, 5)),
]


@pytest.mark.parametrize(("bounds", "seqs"), BOUNDS)
async def test_a_history(bee: Bee[str, str], bounds: dict[str, Any], seqs: range) -> None:
    """basic history; reverse history; negative indexes is implicit + version."""
    await put_range(bee, 0, 10)
    found = [(change.seq, change.key) async for change in bee.history(**bounds)]
    assert found == [(seq, f"{seq - 1:02}") for seq in seqs]
    if "limit" not in bounds:
        found = [(change.seq, change.key) async for change in bee.history(reverse=True, **bounds)]
        assert found == [(seq, f"{seq - 1:02}") for seq in reversed(seqs)]


async def test_a_live_history(bee: Bee[str, str]) -> None:
    """live history; can be destroyed."""
    await put_range(bee, 0, 10)
    seen: list[int] = []
    with trio.fail_after(20):
        async for change in bee.live_history(gte=10):
            seen.append(change.seq)
            if len(seen) == 2:
                break
            await bee.put("foo", None)
    assert seen == [10, 11]
