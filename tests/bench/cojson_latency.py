"""How long a small edit takes while somebody else uploads a large file, and when nobody does.

`python -m tests.bench.cojson_latency [--mb 100] [--reps 3] [--servers js,python,commit]`: real
cojson clients in processes of their own; one makes an edit, waits for its acknowledgement and
makes the next, the other uploads a binary stream. A line has the percentiles in milliseconds;
`turn_max_ms` is the longest that a node's task kept its processor meanwhile, in CPU time: what an
edit has to wait for, even when other programs use the machine.
"""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import trio

from tests.bench import lib
from tests.bench.__main__ import link_originals
from tests.bench.cojson_replay import SERVERS
from tests.bench.processes import spawn

ALONE_SECONDS = 3.0


async def measure(server: str, mb: int) -> None:
    directory = lib.temporary("latency")
    command = [*shlex.split(SERVERS[server]), "--db", str(directory / "db")]
    if server != "js":
        command.append("--turns")
    async with spawn(command) as child:
        client = ["node", "jazz/uploader.mjs", "--port", str(child.info["port"])]
        async with (
            spawn([*client, "--role", "edit"]) as editor,
            spawn([*client, "--role", "upload", "--mb", str(mb)]) as uploader,
        ):
            await editor.say("go")
            await trio.sleep(ALONE_SECONDS)
            await editor.say("stop")
            emit(server, "edit_alone", await editor.read("edits"))
            await child.stats()
            await editor.say("go")
            await uploader.say("go")
            upload = await uploader.read("uploaded")
            await editor.say("stop")
            edits = await editor.read("edits")
            stats = await child.stats()
            emit(
                server,
                "edit_while_uploading",
                edits
                | {
                    "upload_seconds": upload["seconds"],
                    "upload_mb_per_s": round(upload["uploaded"] / upload["seconds"], 1),
                    "server_cpu_s": stats["cpu_s"],
                    "server_rss_mb": stats["rss_mb"],
                    **{key: value for key, value in stats.items() if key.startswith("turn_")},
                },
            )
    lib.remove(directory)


def emit(server: str, case: str, fields: dict[str, Any]) -> None:
    lib.emit({"server": server, "case": case, **fields})


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cojson_latency")
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--reps", type=int, default=1)
    parser.add_argument("--servers", default="js,python,commit")
    options = parser.parse_args()
    link_originals()
    for repetition in range(options.reps):
        servers = options.servers.split(",")
        for server in servers if repetition % 2 == 0 else reversed(servers):
            await measure(server, options.mb)


if __name__ == "__main__":
    trio.run(main)
