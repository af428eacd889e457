"""A node as the sync server of `js/jazz/client.mjs`.

`node jazz/client.mjs --case sqlite --server "python -m tests.bench.cojson"` (run in `js`). The
case is the storage of both: `sqlite` and `hybrid` and `bee` are those of a node, which stores in
a bee when the case is `memory`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import trio

from node.config import Config, Endpoint
from node.daemon import open_node
from node.journal import configure_journal
from tests.bench import lib

_ANY_PORT = Endpoint("127.0.0.1", 0)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cojson")
    parser.add_argument("--storage", default="bee", help="bee, sqlite or hybrid")
    parser.add_argument("--db", default="", help="keep the data beside this path")
    parser.add_argument("--crypto", default="", help="ignored")
    parser.add_argument("--durability", default="os", help="os (as JS), commit or group(MS)")
    options = parser.parse_args()
    configure_journal("error", "json")
    path = Path(options.db + ".beemesh") if options.db else lib.temporary("cojson")
    config = Config(
        data=path,
        name="bench",
        ws=_ANY_PORT,
        mesh=_ANY_PORT,
        admin=_ANY_PORT,
        discovery=(),
        durability=options.durability,
        store=options.storage if options.storage in ("sqlite", "hybrid") else "bee",
    )
    async with open_node(config) as node:
        port = int(node.addresses.ws.rsplit(":", 1)[1])
        print(json.dumps({"ready": True, "port": port, "db": options.db}), flush=True)
        cpu = lib.cpu_seconds()
        async for chunk in trio.lowlevel.FdStream(sys.stdin.fileno()):
            if b"stats" not in chunk:
                continue
            used = lib.cpu_seconds()
            stats = {
                "stats": True,
                "rss_mb": lib.rss_mb(),
                "cpu_s": round(used - cpu, 2),
                "db_bytes": lib.disk_usage(path)[0],
            }
            print(json.dumps(stats), flush=True)
            cpu = used
    if not options.db:
        lib.remove(path)


if __name__ == "__main__":
    trio.run(main)
