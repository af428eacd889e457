"""One JavaScript process for a file of tests, and a fresh world in it for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.core_parties import World, open_world, run_javascript


@pytest.fixture(scope="module")
def javascript_port() -> Iterator[int]:
    with run_javascript() as port:
        yield port


@pytest.fixture
async def world(javascript_port: int) -> AsyncIterator[World]:
    async with open_world(javascript_port) as world:
        yield world
