"""Codecs of keys and values."""

from __future__ import annotations

import pytest

from bee import JSON, Bee
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
