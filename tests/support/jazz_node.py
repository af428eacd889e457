"""A sync server and nothing else: the engine over a store, on a WebSocket.

`python -m tests.support.jazz_node` prints one JSON line with its port, and ends with its stdin.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from bee.bee import Bee
from node.cojson.gatekeeper import Gatekeeper
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.serve import serve_client
from node.covalue.bee_store import BeeStore
from node.covalue.store import CoValueStore
from node.web.jazz import JazzServer
from swarm.io.tasks import open_background_nursery
from tests.support.data_log import DataLog


@asynccontextmanager
async def open_jazz_node(
    store: CoValueStore | None = None,
    access: Gatekeeper | None = None,
    *,
    erases: bool = True,
) -> AsyncIterator[tuple[SyncHost, int]]:
    """A host over a store, one in memory if none is given, and the port where clients reach it."""
    options = HostOptions(erases=erases)
    if store is None:
        log = DataLog()
        store = BeeStore(Bee(log), log)
    async with (
        open_sync_host(store, options, access=access) as host,
        open_background_nursery() as nursery,
    ):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = JazzServer(partial(serve_client, host))
        await nursery.start(server.serve, listeners)
        yield host, listeners[0].socket.getsockname()[1]


async def _main() -> None:
    async with open_jazz_node() as (host, port):
        sys.stdout.write(json.dumps({"ready": True, "port": port}) + "\n")
        sys.stdout.flush()
        start = 0.0
        async for chunk in trio.lowlevel.FdStream(os.dup(0)):
            if b"stats" in chunk:
                usage = resource.getrusage(resource.RUSAGE_SELF)
                cpu = usage.ru_utime + usage.ru_stime
                figures = {
                    "stats": True,
                    "rss_mb": round(usage.ru_maxrss / 1024, 1),
                    "cpu_s": round(cpu - start, 2),
                    "bytes_read": 0,
                    "bytes_written": 0,
                    "db_bytes": 0,
                    "commits": host.statistics().commits,
                }
                start = cpu
                sys.stdout.write(json.dumps(figures) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_main)
