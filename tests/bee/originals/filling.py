"""Keys 00, 01, ... as hyperbee's helpers put them, and reading all of something."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TypeVar

from bee import Bee

T = TypeVar("T")


async def put_range(bee: Bee[str, str], start: int, stop: int) -> None:
    """Keys of as many digits as `stop` has, without values, in one batch."""
    digits = len(str(stop))
    async with bee.batch() as batch:
        for number in range(start, stop):
            await batch.put(f"{number:0{digits}}", None)


async def collect(rows: AsyncIterable[T]) -> list[T]:
    return [row async for row in rows]
