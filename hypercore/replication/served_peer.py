"""[trio] A peer with its channel while a core is replicated to it, and its extension messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from typing import TypeVar

import trio

from hypercore.errors import StorageError
from hypercore.replication.channel import MessageChannel
from hypercore.replication.effort import Effort
from hypercore.replication.peer_handle import ExtensionHandler, PeerHandle
from hypercore.replication.remote import RemotePeer

T = TypeVar("T")

MAX_WAITING_EXTENSIONS = 64
"""Extension messages of one peer that wait for their handler; more are dropped: they are hints."""


class ServedPeer:
    """A peer with its channel."""

    __slots__ = ("channel", "effort", "error", "extensions", "handle", "peer", "waiting")

    def __init__(self, peer: RemotePeer, channel: MessageChannel, handle: PeerHandle) -> None:
        self.peer = peer
        self.channel = channel
        self.handle = handle
        self.error: StorageError | None = None
        self.waiting: trio.CancelScope | None = None
        self.extensions: list[tuple[str, bytes]] = []
        self.effort = Effort(trio.current_time())

    def note_effort(self, started: float, idle_bytes: int = 0) -> None:
        """Something was done for the peer, beginning then; so many bytes were in no block."""
        now = trio.current_time()
        counters = self.peer.counters
        blocks = counters.blocks_received + counters.blocks_sent
        self.effort.spent(now - started, blocks, now, idle_bytes)

    def fail(self, error: StorageError) -> None:
        """Our core cannot be read or written: its channel ends, and `serve` raises this."""
        self.error = error
        self.channel.close()

    def add_extension(self, name: str, payload: bytes) -> None:
        if len(self.extensions) < MAX_WAITING_EXTENSIONS:
            self.extensions.append((name, payload))

    async def handle_extensions(self, handlers: Mapping[str, ExtensionHandler]) -> None:
        """Have what waits handled, one after another, and answered.

        What a handler takes of our time is the peer's effort; what it waits for is not. Cancel:
        what was not handled is dropped with the peer.
        """
        while self.extensions:
            name, payload = self.extensions[0]
            handler = handlers.get(name)
            if handler is not None:
                try:
                    answers = await _Timed(handler(payload, self.handle), self.note_effort)
                except StorageError as error:  # of this core; not the end of the process
                    self.fail(error)
                    return
                except trio.ClosedResourceError:
                    answers = ()  # whose it was has closed the core meanwhile
                for answer in answers:
                    self.handle.send_extension(name, answer)
            # A bee that walks a tree for the peer takes up to 28 ms, and waits for nothing.
            await trio.lowlevel.checkpoint()
            del self.extensions[0]  # not sooner: while there are any, this task handles them


class _Timed(Awaitable[T]):
    """Awaits something, and tells of each of its steps when that began, once it is over."""

    def __init__(self, awaited: Awaitable[T], note: Callable[[float], object]) -> None:
        self._awaited = awaited
        self._note = note

    def __await__(self) -> Generator[object, object, T]:
        steps = self._awaited.__await__()
        step = partial(steps.send, None)
        while True:
            started = trio.current_time()
            try:
                waits_for = step()
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._note(started)
            try:
                step = partial(steps.send, (yield waits_for))
            except BaseException as error:  # noqa: BLE001  # it is for the handler to raise
                step = partial(steps.throw, error)
