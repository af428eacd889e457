"""A `LocalStorage` for JavaScript processes: requests on one FIFO, answers on another.

`python -m tests.interop.storage_rpc --store bee DIRECTORY` makes them there, says so, and serves
one process after the other until its standard input ends. Both are JSON lines. A request is
{"n": number, "op": name, "storage": number, ...}; what belongs to it comes back with its `n`:

    {"n", "piece": content, "state"}     load: one piece, and what is stored of its value
    {"n", "correct": known state}        store: a question; the answer is {"op": "corrected", "n"}
    {"n", "end": result, "state", "due"} done; "due": seconds until the storage wants the time
    {"n", "error": {"type", "text", ...}}
    {"stored": ticket, "state"}          of its own accord: what was waited for is stored

The clock stands still: it moves when JavaScript says so ("advance"), so that its fake timers work.
Requests are begun in the order of their lines and run side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.cojson.messages import decode_line, encode_message
from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from node.covalue.local.erasure_schedule import Phase
from node.covalue.local.storage import LocalStorage, NotCorrected, open_local_storage
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.store import CoValueStore
from node.errors import NodeError
from tests.support.storage_files import StorageFiles, StoreKind, open_storage_files

Request = dict[str, Any]
Operation = Callable[["StorageRpc", Request], Coroutine[Any, Any, object]]


@dataclass(slots=True)
class _OpenFile:
    """A store, and the turn that all storages on it share."""

    store: CoValueStore
    turn: trio.Lock = field(default_factory=trio.Lock)


@dataclass(slots=True)
class _OpenStorage:
    storage: LocalStorage
    closing: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event = field(default_factory=trio.Event)
    waits: dict[int, trio.CancelScope] = field(default_factory=dict)


class StorageRpc:
    """One JavaScript process: its files, its storages, and the requests under way."""

    def __init__(
        self,
        files: StorageFiles,
        answers: trio.abc.SendStream,
        nursery: trio.Nursery,
        clock: MockClock,
    ) -> None:
        self._storage_files = files
        self._answers = answers
        self._nursery = nursery
        self._clock = clock
        self._sending = trio.Lock()
        self._files: dict[str, _OpenFile] = {}
        self._storages: dict[int, _OpenStorage] = {}
        self._corrections: dict[int, trio.MemorySendChannel[list[str] | None]] = {}
        self._unix_ms = 0

    async def receive(self, line: bytes) -> None:
        """Begin a request; returns when it is done or waits for something."""
        request: Request = json.loads(line)
        if request["op"] == "corrected":
            self._corrections.pop(request["n"]).send_nowait(request["messages"])
        else:
            self._unix_ms = request["now"]
            self._nursery.start_soon(self.perform, request)
        await wait_all_tasks_blocked()

    async def _send(self, line: str) -> None:
        async with self._sending:
            await self._answers.send_all(line.encode() + b"\n")

    async def perform(self, request: Request) -> None:
        """Carry a request out and answer it."""
        n = request["n"]
        try:
            result = await self._operations[request["op"]](self, request)
        except (NodeError, trio.ClosedResourceError, ValueError) as error:
            failure: Request = {"type": type(error).__name__, "text": str(error)}
            if isinstance(error, NotCorrected):
                failure["known"] = _state(error.co_id, error.known)
                failure["isSecond"] = error.is_second
            answer: Request = {"n": n, "error": failure}
        else:
            answer = {"n": n, "end": result}
        await wait_all_tasks_blocked()
        opened = self._storages.get(request.get("storage", 0))
        if opened is not None:
            deadline = opened.storage.eraser.deadline
            answer["due"] = None if deadline is None else deadline - trio.current_time()
            if "id" in request:
                co_id = RawCoId(request["id"])
                answer["state"] = _state(co_id, opened.storage.known_state(co_id))
        await self._send(_line(answer))

    # Opening and closing.

    async def _reset(self, _: Request) -> None:
        """Another process begins: forget what the one before left open."""
        for sender in self._corrections.values():
            sender.send_nowait(None)
        self._corrections.clear()
        for storage in list(self._storages):
            await self._close({"storage": storage})
        for name in list(self._files):
            await self._drop({"file": name})

    async def _open(self, request: Request) -> None:
        name = request["file"]
        if name not in self._files:
            self._files[name] = _OpenFile(await self._storage_files.open(name))
        opened = await self._nursery.start(self._keep_storage, self._files[name])
        self._storages[request["storage"]] = opened

    async def _keep_storage(
        self, file: _OpenFile, task_status: trio.TaskStatus[_OpenStorage]
    ) -> None:
        async with open_local_storage(file.store, lambda: self._unix_ms, file.turn) as storage:
            opened = _OpenStorage(storage)
            task_status.started(opened)
            await opened.closing.wait()
        opened.closed.set()

    async def _close(self, request: Request) -> None:
        opened = self._storages.pop(request["storage"], None)
        if opened is not None:
            opened.closing.set()
            await opened.closed.wait()

    async def _drop(self, request: Request) -> None:
        file = self._files.pop(request["file"], None)
        if file is not None:
            async with file.turn:
                await self._storage_files.close(request["file"])

    async def _advance(self, request: Request) -> None:
        """Move the clock, and return when what was due is done."""
        self._clock.jump(request["seconds"])
        eraser = self._storage(request).eraser
        await wait_all_tasks_blocked()
        while eraser.phase is Phase.RUNNING:
            await trio.lowlevel.checkpoint()

    def _storage(self, request: Request) -> LocalStorage:
        return self._storages[request["storage"]].storage

    # Values.

    async def _load(self, request: Request) -> bool:
        storage = self._storage(request)
        found = False
        async for piece in storage.load(RawCoId(request["id"])):
            state = _state(piece.co_id, storage.known_state(piece.co_id))
            head = f'{{"n":{request["n"]},"state":{_line(state)},"piece":'
            await self._send(head + encode_message(piece) + "}")
            found = True
        return found

    async def _store(self, request: Request) -> None:
        async def correct(known: KnownState) -> list[Content] | None:
            sender, receiver = trio.open_memory_channel[list[str] | None](1)
            self._corrections[n] = sender
            await self._send(_line({"n": n, "correct": _state(content.co_id, known)}))
            messages = await receiver.receive()
            return None if messages is None else list(map(_content, messages))

        n = request["n"]
        content = _content(request["content"])
        storage = self._storage(request)
        storage.piece_bytes = request["pieceBytes"]
        await storage.store(content, correct)

    async def _known(self, request: Request) -> Request | None:
        co_id = RawCoId(request["id"])
        known = await self._storage(request).load_known_state(co_id)
        return None if known is None else _state(co_id, known)

    async def _wait(self, request: Request) -> None:
        """Wait in the background; a later request for the same ticket replaces what is wanted."""
        opened = self._storages[request["storage"]]
        co_id = RawCoId(request["id"])
        ticket = request["ticket"]
        if ticket in opened.waits:
            opened.waits.pop(ticket).cancel()
        scope = opened.waits[ticket] = trio.CancelScope()
        sessions = {CoSessionId(key): count for key, count in request["known"]["sessions"].items()}
        wanted = KnownState(request["known"]["header"], sessions)

        async def wait() -> None:
            with scope:
                try:
                    await opened.storage.wait_stored(co_id, lambda: wanted)
                except trio.ClosedResourceError:
                    return  # the original leaves such a promise open
                del opened.waits[ticket]
                state = _state(co_id, opened.storage.known_state(co_id))
                await self._send(_line({"stored": ticket, "state": state}))

        self._nursery.start_soon(wait)

    async def _unmount(self, request: Request) -> None:
        self._storage(request).unmount(RawCoId(request["id"]))

    async def _ids(self, request: Request) -> list[RawCoId]:
        return await self._storage(request).ids(request["limit"], request["offset"])

    async def _count(self, request: Request) -> int:
        return self._storage(request).count()

    # Bookkeeping.

    async def _track(self, request: Request) -> None:
        sync = self._storage(request).sync
        for update in request["updates"]:
            sync.note(RawCoId(update["id"]), update["peerId"], is_synced=update["synced"])
        await sync.flush()

    async def _unsynced(self, request: Request) -> list[RawCoId]:
        return await self._storage(request).sync.unsynced_ids()

    async def _stop_tracking(self, request: Request) -> None:
        await self._storage(request).sync.stop(RawCoId(request["id"]))

    async def _acquire(self, request: Request) -> Request:
        lock = await self._storage(request).locks.try_acquire(
            request["peer"],
            request["session"],
            ttl_ms=request["ttl"],
            interval_ms=request["interval"],
        )
        if isinstance(lock, ReconciliationLock):
            return {"acquired": True, "lastProcessedOffset": lock.last_processed_offset}
        return {"acquired": False, "reason": lock.value}

    async def _renew(self, request: Request) -> bool:
        locks = self._storage(request).locks
        return await locks.renew(request["peer"], request["session"], request["offset"])

    async def _release(self, request: Request) -> bool:
        return await self._storage(request).locks.release(request["peer"], request["session"])

    async def _mark_deletion(self, request: Request) -> None:
        self._storage(request).mark_deletion_valid(RawCoId(request["id"]))

    async def _enable_erasure(self, request: Request) -> None:
        self._storage(request).eraser.enable()

    async def _erase(self, request: Request) -> int:
        return await self._storage(request).eraser.erase_pending()

    async def _pending(self, request: Request) -> list[RawCoId]:
        return await self._storage(request).eraser.pending()

    _operations: ClassVar[dict[str, Operation]] = {
        "reset": _reset,
        "open": _open,
        "close": _close,
        "drop": _drop,
        "advance": _advance,
        "load": _load,
        "store": _store,
        "known": _known,
        "wait": _wait,
        "unmount": _unmount,
        "ids": _ids,
        "count": _count,
        "track": _track,
        "unsynced": _unsynced,
        "stopTracking": _stop_tracking,
        "acquire": _acquire,
        "renew": _renew,
        "release": _release,
        "markDeletion": _mark_deletion,
        "enableErasure": _enable_erasure,
        "erase": _erase,
        "pending": _pending,
    }


def _content(line: str) -> Content:
    message = decode_line(line)
    if not isinstance(message, Content):
        raise ValueError(f"not a content message: {line[:100]}")
    return message


def _line(answer: Request) -> str:
    return json.dumps(answer)


def _state(co_id: RawCoId, known: KnownState) -> Request:
    return {"id": co_id, "header": known.header, "sessions": dict(known.sessions)}


async def serve(kind: StoreKind, directory: Path, clock: MockClock) -> None:
    """Answer requests until standard input ends."""
    paths = [directory / "requests", directory / "answers"]
    for path in paths:
        os.mkfifo(path)
    # Opened both ways, neither waits for the other end, nor ends with it.
    reading, writing = (trio.lowlevel.FdStream(os.open(path, os.O_RDWR)) for path in paths)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with (
        reading,
        writing,
        open_storage_files(kind, directory) as files,
        trio.open_nursery() as nursery,
    ):
        rpc = StorageRpc(files, writing, nursery, clock)
        nursery.start_soon(_receive_all, rpc, reading)
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            pass
        await rpc.perform({"op": "reset", "n": 0})
        nursery.cancel_scope.cancel()


async def _receive_all(rpc: StorageRpc, reading: trio.abc.ReceiveStream) -> None:
    parts: list[bytes] = []
    async for chunk in reading:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            parts.append(bytes(line))
            await rpc.receive(b"".join(parts))
            parts.clear()
        parts.append(bytes(rest))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.interop.storage_rpc")
    parser.add_argument("--store", type=StoreKind, choices=list(StoreKind), required=True)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    clock = MockClock()
    trio.run(serve, options.store, options.directory, clock, clock=clock)


if __name__ == "__main__":
    main()
