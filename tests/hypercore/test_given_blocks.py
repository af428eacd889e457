"""What is no block is refused before anything is changed, and says why."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest

from hypercore import open_corestore

WRONG = [
    ("text", "not str"),
    (bytearray(b"abc"), "not bytearray"),
    (memoryview(b"abc"), "not memoryview"),
    (7, "not int"),
    ((b"%d" % number for number in range(2)), "not generator"),
    ([b"good", "text"], "a block is bytes, not str"),
    ([b"good", bytearray(b"abc")], "a block is bytes, not bytearray"),
]


@pytest.mark.parametrize(("given", "reason"), WRONG)
async def test_a_mistake_costs_nothing_and_the_core_goes_on(
    tmp_path: Path, given: Any, reason: str
) -> None:
    """Found by trying: a text among blocks ended the core until it was opened again."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        with pytest.raises(TypeError, match=reason):
            await core.append(given)
        with pytest.raises(TypeError, match=reason):
            async with store.atom(core) as atom:
                atom[core].append(given)
        with pytest.raises(TypeError, match="a block is bytes"):
            await core.append_pieces([[b"good"], ["text"]])  # type: ignore[list-item]
        assert core.length == 0
        assert await core.append([b"one", b"two"]) == 0
        assert await core.append(deque([b"three"])) == 2
        assert [block async for block in core.blocks()] == [b"one", b"two", b"three"]
