"""Cores of JavaScript and of ours as parties of one play: the same words for both.

A test says who is which, and runs in both directions. One JavaScript process serves a whole file
of tests (`javascript_process`, a fixture of the module that uses it); each test has a connection
to it, and cores, of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import trio

from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.downloading import LIVE, Download, Order
from hypercore.replication.settings import PushMode, ReplicationSettings
from swarm.io.mux import MuxHandle
from tests.interop.replication_peer import listening, run_connection

HERE = Path(__file__).parent
LOOK_AGAIN_SECONDS = 0.002
LIMIT_SECONDS = 180.0
MAX_BACKOFFS = 32
"""So often a peer may say that it lacks what JavaScript asked it for."""

JS, OURS = "js", "ours"
DIRECTIONS = [(JS, OURS), (OURS, JS)]
DIRECTION_NAMES = ["from js to ours", "from ours to js"]


@contextmanager
def run_javascript(patience: float = 60.0) -> Iterator[int]:
    """The process, for as long as the block lasts; gives the port of its control.

    It is killed if it takes more than `patience` seconds to end, and TimeoutExpired raised.
    """
    process = subprocess.Popen(
        ["node", "core_peer.cjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()


class Control:
    """One test's connection to the JavaScript process."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Event()
        self._sending = trio.Lock()

    async def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.attempt(command, **arguments)
        assert "error" not in answer, (command, arguments, answer)
        return answer

    async def attempt(self, command: str, **arguments: Any) -> dict[str, Any]:
        """As a call, but an error is an answer, too."""
        self._number += 1
        number = self._number
        line = json.dumps({"number": number, "command": command, **arguments}) + "\n"
        async with self._sending:
            await self._stream.send_all(line.encode())
        while number not in self._answers:
            await self._arrived.wait()
        return self._answers.pop(number)

    async def read(self) -> None:
        buffered = b""
        async for chunk in self._stream:
            *lines, buffered = (buffered + bytes(chunk)).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self._answers[answer["number"]] = answer
            self._arrived.set()
            self._arrived = trio.Event()


class Party(Protocol):
    """One core, of either kind. Figures have the names that `figures` gives them."""

    id: str

    @property
    def key(self) -> str: ...
    async def append(self, *blocks: bytes) -> None: ...
    async def fill(self, count: int) -> None: ...
    async def truncate(self, length: int) -> None: ...
    async def clear(self, start: int, stop: int) -> None: ...
    async def get(self, index: int) -> bytes: ...
    async def get_forced(self, index: int) -> bytes: ...
    async def get_local(self, index: int) -> bytes | None: ...
    async def has(self, start: int, stop: int) -> bool: ...
    async def held(self, length: int) -> set[int]: ...
    async def update(self) -> bool: ...
    async def download(self, start: int, stop: int, *, linear: bool = False) -> None: ...
    async def download_blocks(self, blocks: Sequence[int]) -> None: ...
    async def start_download(self, start: int, stop: int) -> Callable[[], Awaitable[None]]: ...
    async def figures(self) -> dict[str, Any]: ...
    async def peers(self) -> list[dict[str, Any]]: ...
    async def until(
        self, field: str, least: int = 0, *, exactly: object = None, peer: int | str | None = None
    ) -> None: ...
    async def push(self, index: int) -> None: ...
    async def set_push(self, mode: PushMode) -> None: ...
    async def set_active(self, is_active: bool) -> None: ...
    async def extension(self, name: str) -> None: ...
    async def send_extension(self, name: str, text: str) -> None: ...
    async def extension_texts(self, count: int) -> list[str]: ...
    async def downloaded(self) -> int: ...
    async def own_fault(self, *, lacks_blocks: bool, held: set[int], refusals: int) -> str: ...
    async def reopen(self) -> None: ...


class JavaScriptParty:
    def __init__(self, control: Control, id: str) -> None:
        self.control = control
        self.id = id
        self.key = ""
        self._downloads = 0
        self._texts: list[str] = []
        self.events: list[str] = []

    async def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        return await self.control(command, id=self.id, **arguments)

    async def fill(self, count: int) -> None:
        await self("fill", count=count)

    async def append(self, *blocks: bytes) -> None:
        await self("append", blocks=[block.hex() for block in blocks])

    async def truncate(self, length: int) -> None:
        await self("truncate", length=length)

    async def clear(self, start: int, stop: int) -> None:
        await self("clear", start=start, stop=stop)

    async def get(self, index: int) -> bytes:
        return bytes.fromhex((await self("get", index=index))["block"])

    async def get_forced(self, index: int) -> bytes:
        return bytes.fromhex((await self("get", index=index, options={"force": True}))["block"])

    async def get_local(self, index: int) -> bytes | None:
        block = (await self("get", index=index, options={"wait": False}))["block"]
        return None if block is None else bytes.fromhex(block)

    async def has(self, start: int, stop: int) -> bool:
        return bool((await self("has", start=start, stop=stop))["has"])

    async def held(self, length: int) -> set[int]:
        return set((await self("held", length=length))["held"])

    async def update(self) -> bool:
        return bool((await self("update", options={"wait": True}))["updated"])

    async def _download(self, **options: Any) -> str:
        self._downloads += 1
        name = f"{self.id} {self._downloads}"
        await self("download", name=name, options=options)
        return name

    async def download(self, start: int, stop: int, *, linear: bool = False) -> None:
        stop = -1 if stop == LIVE else stop
        await self("done", name=await self._download(start=start, end=stop, linear=linear))

    async def download_blocks(self, blocks: Sequence[int]) -> None:
        await self("done", name=await self._download(blocks=list(blocks)))

    async def start_download(self, start: int, stop: int) -> Callable[[], Awaitable[None]]:
        name = await self._download(start=start, end=-1 if stop == LIVE else stop)

        async def cancel() -> None:
            await self("destroy", name=name)

        return cancel

    async def figures(self) -> dict[str, Any]:
        return {**await self("state"), **(await self("stats"))["stats"]}

    async def peers(self) -> list[dict[str, Any]]:
        peers: list[dict[str, Any]] = (await self("peers"))["peers"]
        return peers

    async def until(
        self, field: str, least: int = 0, *, exactly: object = None, peer: int | str | None = None
    ) -> None:
        arguments: dict[str, Any] = {"field": field, "least": least}
        if exactly is not None:
            arguments["exactly"] = exactly
        if peer is not None:
            arguments["peer"] = peer
        await self("until", **arguments)

    async def push(self, index: int) -> None:
        await self("push", index=index)

    async def set_push(self, mode: PushMode) -> None:
        await self("setPush", allow=mode is not PushMode.OFF, only=mode is PushMode.ONLY)

    async def set_active(self, is_active: bool) -> None:
        await self("setActive", active=is_active)

    async def extension(self, name: str) -> None:
        await self("extension", name=name)

    async def send_extension(self, name: str, text: str) -> None:
        await self("sendExtension", name=name, text=text)

    async def _take_events(self) -> None:
        self.events += (await self("takeEvents"))["events"]

    async def extension_texts(self, count: int) -> list[str]:
        while True:
            await self._take_events()
            texts = [event for event in self.events if event.startswith("extension ")]
            if len(texts) >= count:
                return [text.split(" ", 2)[2] for text in texts]
            await trio.sleep(LOOK_AGAIN_SECONDS)

    async def wait_event(self, start: str) -> str:
        """The first event that begins like this."""
        while True:
            await self._take_events()
            for event in self.events:
                if event.startswith(start):
                    return event
            await trio.sleep(LOOK_AGAIN_SECONDS)

    async def downloaded(self) -> int:
        await self._take_events()
        return sum(event.startswith(("download ", "pushed ")) for event in self.events)

    async def own_fault(self, *, lacks_blocks: bool, held: set[int], refusals: int) -> str:
        """Why it does not get blocks, or another head, if it alone is to blame; else nothing.

        `held` are the blocks that all others hold of that head, `refusals` how often ours answered
        that they lack what was asked for.
        """
        forgotten = (await self("forgotten"))["blocks"]
        if lacks_blocks and forgotten:
            return f"believes that {forgotten} are on their way"
        paused = [peer for peer in await self.peers() if peer["is_paused"]]
        if paused and (await self.figures())["asked_too_little"]:
            return "asks a peer for nothing more since it had asked it for too little"
        if any(peer["not_available"] >= MAX_BACKOFFS for peer in paused) and not refusals:
            return "asks JavaScript for nothing more since that lacked what it was asked for"
        for start, stop in (await self("soughtAtForks"))["sought"]:
            if not lacks_blocks and held.isdisjoint(range(start, stop)):
                return f"waits to be led on by one of [{start}, {stop}), of which nobody has any"
        return ""

    async def reopen(self) -> None:
        await self("reopen")


class OurParty:
    def __init__(self, world: World, id: str, store: Corestore, core: Core) -> None:
        self._world = world
        self.id = id
        self.store = store
        self.core = core
        self._texts: list[str] = []
        self._changed = trio.Event()

    @property
    def key(self) -> str:
        return self.core.key.hex()

    async def fill(self, count: int) -> None:
        await self.core.append(numbered(self.core.length, self.core.length + count))

    async def append(self, *blocks: bytes) -> None:
        await self.core.append(blocks)

    async def truncate(self, length: int) -> None:
        await self.core.truncate(length)

    async def clear(self, start: int, stop: int) -> None:
        await self.core.clear(start, stop)

    async def get(self, index: int) -> bytes:
        return await self.core.get(index)

    async def get_forced(self, index: int) -> bytes:
        return await self.core.get(index, force=True)

    async def get_local(self, index: int) -> bytes | None:
        return self.core.get_local(index)

    async def has(self, start: int, stop: int) -> bool:
        return self.core.has_range(start, stop)

    async def held(self, length: int) -> set[int]:
        return set(filter(self.core.has, range(length)))

    async def update(self) -> bool:
        return await self.core.update()

    async def download(self, start: int, stop: int, *, linear: bool = False) -> None:
        order = Order.LINEAR if linear else Order.RANDOM
        async with self.core.downloading(start, stop, order=order) as download:
            await download.done()

    async def download_blocks(self, blocks: Sequence[int]) -> None:
        async with self.core.downloading(blocks=blocks) as download:
            await download.done()

    async def start_download(self, start: int, stop: int) -> Callable[[], Awaitable[None]]:
        download: Download = await self._world.stack.enter_async_context(
            self.core.downloading(start, stop)
        )

        async def cancel() -> None:
            download.cancel()

        return cancel

    async def figures(self) -> dict[str, Any]:
        core = self.core
        replication = core.statistics().replication
        total = replication.total
        return {
            "key": self.key,
            "length": core.length,
            "byte_length": core.byte_length,
            "fork": core.fork,
            "contiguous": core.contiguous_length,
            "remote_contiguous": core.remote_contiguous_length,
            "has_manifest": core.manifest is not None,
            "asked_too_little": 0,
            "peer_count": len(replication.peers),
            "hotswaps": total.hotswaps,
            "invalid_data": total.invalid_data,
            "invalid_requests": total.invalid_requests,
            "not_available": total.no_data_received,
            "pushes_received": total.pushes_received,
            **replication.wire,
        }

    async def peers(self) -> list[dict[str, Any]]:
        return [
            {
                "length": peer.length,
                "contiguous": peer.contiguous_length,
                "allows_push": peer.allows_push,
                "key": peer.remote_public_key.hex(),
                "hotswaps": peer.counters.hotswaps,
                **peer.wire,
            }
            for peer in self.core.statistics().replication.peers
        ]

    async def until(
        self, field: str, least: int = 0, *, exactly: object = None, peer: int | str | None = None
    ) -> None:
        while True:
            if _fits(await self.figures(), await self.peers(), field, least, exactly, peer):
                return
            await trio.sleep(LOOK_AGAIN_SECONDS)

    async def push(self, index: int) -> None:
        self.core.push([index])

    async def set_push(self, mode: PushMode) -> None:
        settings = self.core.replication.settings
        self.core.replication.configure(replace(settings, push=mode))

    async def set_active(self, is_active: bool) -> None:
        self.core.replication.set_active(is_active)

    async def extension(self, name: str) -> None:
        async def handle(payload: bytes, _: object) -> Sequence[bytes]:
            self._texts.append(payload.decode())
            self._changed.set()
            self._changed = trio.Event()
            return ()

        self.core.set_extension(name, handle)

    async def send_extension(self, name: str, text: str) -> None:
        self.core.send_extension(name, text.encode())

    async def extension_texts(self, count: int) -> list[str]:
        while len(self._texts) < count:
            await self._changed.wait()
        return self._texts

    async def downloaded(self) -> int:
        return self.core.statistics().replication.total.blocks_received

    async def own_fault(self, *, lacks_blocks: bool, held: set[int], refusals: int) -> str:
        return ""

    async def reopen(self) -> None:
        await self.core.close()
        self.core = await self.store.get(key=bytes.fromhex(self.key))


def _fits(
    figures: dict[str, Any],
    peers: list[dict[str, Any]],
    field: str,
    least: int,
    exactly: object,
    peer: int | str | None,
) -> bool:
    """Whether a figure of the core, or of "any" or "all" of its peers, is as it is to be."""

    def fits(value: Any) -> bool:
        return bool(value == exactly if exactly is not None else value >= least)

    if peer is None:
        return fits(figures[field])
    values = [one[field] for one in peers]
    if isinstance(peer, str):
        return any(map(fits, values)) if peer == "any" else all(map(fits, values))
    return peer < len(values) and fits(values[peer])


class World:
    """The parties of one test."""

    def __init__(self, control: Control, nursery: trio.Nursery, stack: AsyncExitStack) -> None:
        self.control = control
        self.stack = stack
        self._nursery = nursery
        self._number = 0

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"

    async def party(self, kind: str, of: Party | None = None, **options: Any) -> Party:
        """A new core: its writer, or a reader of another party's core."""
        if kind == JS:
            return await self.javascript(of, **options)
        return await self.ours(of)

    async def javascript(self, of: Party | None = None, **options: Any) -> JavaScriptParty:
        party = JavaScriptParty(self.control, self._name(JS))
        key = None if of is None else of.key
        party.key = (await party("open", key=key, options=options))["key"]
        return party

    async def ours(
        self, of: Party | None = None, settings: ReplicationSettings | None = None
    ) -> OurParty:
        store = await self.stack.enter_async_context(open_corestore(None))
        if of is None:
            core = await store.get(name="log")
        else:
            core = await store.get(key=bytes.fromhex(of.key))
        if settings is not None:
            core.replication.configure(settings)
        return OurParty(self, self._name(OURS), store, core)

    async def join(self, one: Party, other: Party) -> Callable[[], Awaitable[None]]:
        """Connect them; `one` dials. Returns when both know each other; gives what parts them.

        Nobody else may join or part from either meanwhile: it is told by the number of peers.
        """
        name = self._name("connection")
        dialing, listening_scope = trio.CancelScope(), trio.CancelScope()
        await self._connect(one, other, name, dialing, listening_scope)

        async def part() -> None:
            counts = [len(await party.peers()) for party in (one, other)]
            dialing.cancel()
            listening_scope.cancel()
            unpaired = await self.control("unpair", name=name)
            has_javascript = isinstance(one, JavaScriptParty) or isinstance(other, JavaScriptParty)
            if has_javascript and not unpaired["open"]:
                return  # it ended before
            for party, count in zip((one, other), counts, strict=True):
                await party.until("peer_count", exactly=count - 1)

        return part

    async def _connect(
        self,
        one: Party,
        other: Party,
        name: str,
        dialing: trio.CancelScope,
        listening_scope: trio.CancelScope,
    ) -> None:
        counts = [len(await party.peers()) for party in (one, other)]
        if isinstance(other, JavaScriptParty):
            port = (await other("listen", name=name))["port"]
        else:
            assert isinstance(other, OurParty)
            port = await self._nursery.start(self._listen, other, listening_scope)
        if isinstance(one, JavaScriptParty):
            await one("connect", name=name, port=port)
        else:
            assert isinstance(one, OurParty)
            self._nursery.start_soon(self.dial, one, port, dialing)
        for party, count in zip((one, other), counts, strict=True):
            await party.until("peer_count", count + 1)

    async def _listen(
        self,
        party: OurParty,
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with scope:
            async with listening(partial(_replicate, party.store)) as port:
                task_status.started(port)
                await trio.sleep_forever()

    async def dial(self, party: OurParty, port: int, scope: trio.CancelScope | None = None) -> None:
        """Connect ours to whoever listens, until the connection ends."""
        with scope or trio.CancelScope():
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await run_connection(stream, partial(_replicate, party.store), is_initiator=True)


async def _replicate(store: Corestore, mux: MuxHandle) -> None:
    await store.replicate(mux)


@asynccontextmanager
async def open_world(port: int) -> AsyncIterator[World]:
    """Parties on the JavaScript process with that control port, and here; for a limited time."""
    with trio.fail_after(LIMIT_SECONDS):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            control = Control(stream)
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                nursery.start_soon(control.read)
                yield World(control, nursery, stack)
                nursery.cancel_scope.cancel()


def numbered(start: int, stop: int) -> list[bytes]:
    """What `fill` appends."""
    return [b"#%d" % index for index in range(start, stop)]
