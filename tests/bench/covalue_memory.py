"""What a node's memory does when it touches many more values than it may keep.

`python -m tests.bench.covalue_memory [--values 200000] [--memory 64MiB] [--case load,reconcile]`
puts the values on the disk, starts a node over them, and then

* `load`: clients, one after the other, each load `--per-client` values and leave;
* `reconcile`: one client compares all values, a hundred at a time, waiting for each batch as a
  cojson client does; a tenth of its hashes differ, and are settled with a `known`.

A line says how much memory the node has before and after, its CPU, and how long it took.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio

from bee.bee import Bee
from hypercore.corestore import open_corestore
from hypercore.storage import Durability
from node.covalue.bee_store import BeeStore
from node.covalue.content import Transaction
from node.covalue.header import parse_header
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import sessions_hash
from node.covalue.store import SessionAppend, ValueAppend
from node.logs import DATA_CORE
from tests.bench import lib
from tests.bench.cojson_replay import IN_FLIGHT, PYTHON, RawClient, frame
from tests.bench.processes import LineProcess, spawn

BATCH = 100
"""Values in a reconcile batch of a cojson client."""

_STORED_TOGETHER = 1000
_SESSION = CoSessionId("co_zEEeUFGE9DRfoTYmi2gTdy9EvZa_session_z85KKiVWz57C")
_SIGNATURE = bytes(range(64))
"""Nobody checks what is stored: it was checked when it came."""

_HASHES = (sessions_hash({_SESSION: 1}), "shortHash_zOther")


def appends(values: int) -> Iterator[ValueAppend]:
    for number in range(values):
        header = parse_header(
            {
                "type": "comap",
                "ruleset": {"type": "unsafeAllowAll"},
                "meta": None,
                "createdAt": "2026-01-01T00:00:00.000Z",
                "uniqueness": f"z{number:012}",
            }
        )
        change = Transaction(1767225600000 + number, "encrypted_U" + "A" * 140, "key_z4kkC6hFY8kq")
        part = SessionAppend(0, [change], _SIGNATURE, 151, False)
        yield ValueAppend(header.id, header, {_SESSION: part})


async def fill(path: Path, values: int) -> list[RawCoId]:
    ids: list[RawCoId] = []
    async with open_corestore(path / "corestore", durability=Durability.parse("os")) as store:
        core = await store.get(name=DATA_CORE)
        target = BeeStore(Bee(core), core)
        batch: list[ValueAppend] = []
        for append in appends(values):
            batch.append(append)
            ids.append(append.co_id)
            if len(batch) == _STORED_TOGETHER or len(ids) == values:
                await target.store(batch)
                batch = []
        await core.close()
    return ids


def load(port: int, ids: list[RawCoId], per_client: int) -> None:
    for start in range(0, len(ids), per_client):
        client = RawClient(port)
        waiting = set(ids[start : start + per_client])
        pending = iter(ids[start : start + per_client])
        unsent = memoryview(loads(pending, IN_FLIGHT))
        while waiting:
            unsent, lines = client.exchange(unsent)
            came = {line.id for line in lines if line.action == "content"} & waiting
            waiting -= came
            unsent = memoryview(bytes(unsent) + loads(pending, len(came)))
        client.close()


def loads(ids: Iterator[RawCoId], count: int) -> bytes:
    lines = [
        f'{{"action":"load","id":"{co_id}","header":false,"sessions":{{}}}}'
        for _, co_id in zip(range(count), ids, strict=False)
    ]
    return frame("\n".join(lines)) if lines else b""


def reconcile(port: int, ids: list[RawCoId]) -> None:
    client = RawClient(port)
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        pairs = ",".join(f'["{co_id}","{_HASHES[n % 10 == 0]}"]' for n, co_id in enumerate(batch))
        unsent = memoryview(frame(f'{{"action":"reconcile","id":"{start}","values":[{pairs}]}}'))
        is_settled = False
        while not is_settled:
            unsent, lines = client.exchange(unsent)
            for line in lines:
                is_settled = is_settled or line.action == "reconcile-ack"
                if line.action == "load":
                    known = f'"header":true,"sessions":{{"{_SESSION}":1}}'
                    answer = frame(f'{{"action":"known","id":"{line.id}",{known}}}')
                    unsent = memoryview(bytes(unsent) + answer)
    client.close()


async def measure(case: str, child: LineProcess, ids: list[RawCoId], per_client: int) -> None:
    port = child.info["port"]
    work = {
        "load": partial(load, port, ids, per_client),
        "reconcile": partial(reconcile, port, ids),
    }[case]
    before = await child.stats()
    started = lib.now()
    await trio.to_thread.run_sync(work)
    seconds = lib.now() - started
    after = await child.stats()
    lib.emit(
        {
            "case": f"covalue_memory_{case}",
            "values": len(ids),
            "seconds": round(seconds, 2),
            "values_per_s": round(len(ids) / seconds),
            "server_cpu_s": after["cpu_s"],
            "rss_before_mb": before["rss_mb"],
            "rss_after_mb": after["rss_mb"],
        }
    )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.covalue_memory")
    parser.add_argument("--values", type=int, default=200_000)
    parser.add_argument("--memory", default="64MiB")
    parser.add_argument("--per-client", type=int, default=10_000)
    parser.add_argument("--case", default="load,reconcile")
    options = parser.parse_args()
    directory = lib.temporary("memory")
    database = directory / "db"
    ids = await fill(Path(f"{database}.beemesh"), options.values)
    command = [*shlex.split(PYTHON), "--db", str(database), "--memory", options.memory]
    for case in options.case.split(","):
        async with spawn(command) as child:
            await measure(case, child, ids, options.per_client)
    lib.remove(directory)


if __name__ == "__main__":
    trio.run(main)
