"""A store in memory, and one core in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hypercore import Core, Corestore, open_corestore


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


@pytest.fixture
async def other_store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


@pytest.fixture
async def core(store: Corestore) -> Core:
    return await store.get(name="log")
