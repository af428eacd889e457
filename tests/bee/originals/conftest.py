"""A store in memory, and a bee of text in it; what hyperbee's test/helpers/index.js makes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bee import UTF8, Bee
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
    return await store.get(name="bee")


@pytest.fixture
def bee(core: Core) -> Bee[str, str]:
    return Bee(core, key_encoding=UTF8, value_encoding=UTF8)
