"""Hosts and stores over a log in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bee.bee import Bee
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import MEMORY_BYTES, HostOptions
from node.covalue.bee_store import BeeStore
from tests.support.data_log import DataLog


def bee_store_over(log: DataLog) -> BeeStore:
    return BeeStore(Bee(log), log)


@asynccontextmanager
async def open_bee_host(memory_bytes: int = MEMORY_BYTES) -> AsyncIterator[SyncHost]:
    options = HostOptions(memory_bytes=memory_bytes)
    async with open_sync_host(bee_store_over(DataLog()), options) as host:
        yield host
