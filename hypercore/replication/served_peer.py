"""[trio] A peer with its channel while a core is replicated to it, and its extension messages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from functools import partial
from typing import TypeVar

import trio

from hypercore.errors import StorageError
from hypercore.replication.channel import MessageChannel
from hypercore.replication.effort import MAX_PAUSE_SECONDS, Effort
from hypercore.replication.peer_handle import ExtensionHandler, PeerHandle
from hypercore.replication.remote import RemotePeer

T = TypeVar("T")
Clock = Callable[[], float]

MAX_WAITING_EXTENSIONS = 1024
MAX_WAITING_BYTES = 1 << 18
"""How many extension messages of one peer may wait for their handler, and of how many bytes, though
one may be larger. More are dropped: they are hints. A hundred reads at once ask as many questions.
"""


class ServedPeer:
    """A peer with its channel.

    Its effort, and that of its whole connection, is measured by the clock until that makes it wait,
    and by our thread's processor time from then on: on a busy machine others' work would be its
    debt, and an honest reader would wait for seconds. Not from the start, since reading that takes
    ten times as long (2 us).
    """

    __slots__ = (
        "_blocks",
        "_connection",
        "_is_handler_due",
        "_processor_time",
        "_waiting_bytes",
        "channel",
        "clock",
        "effort",
        "error",
        "extensions",
        "handle",
        "peer",
        "waiting",
    )

    def __init__(
        self,
        peer: RemotePeer,
        channel: MessageChannel,
        handle: PeerHandle,
        connection: Effort,
        processor_time: Clock = time.thread_time,
    ) -> None:
        """`connection` is what all cores of the connection have cost."""
        self.peer = peer
        self.channel = channel
        self.handle = handle
        self.error: StorageError | None = None
        self.waiting: trio.CancelScope | None = None
        self.extensions: list[tuple[str, bytes]] = []
        self._waiting_bytes = 0
        self._is_handler_due = False
        """Extension messages wait, and their handler has not done anything yet."""
        self._processor_time = processor_time
        self.clock: Clock = processor_time if connection.is_exact else trio.current_time
        self.effort = Effort(trio.current_time())
        self._connection = connection
        self._blocks = 0
        """Those that had gone either way when the effort was noted last."""

    def send(self, messages: Iterable[tuple[int, bytes]]) -> None:
        send = self.channel.send
        try:
            for message_type, payload in messages:
                send(message_type, payload)
        except trio.ClosedResourceError:
            pass  # closed for a broken disk; `serve` is about to say so

    def answer(self) -> None:
        """Have answers taken, after the first step of a handler that is about to begin.

        A bee's word on what it pushes then leaves with the block that was requested, and not after
        the reader has looked at that and requested the next one.
        """
        if not self._is_handler_due:
            self.channel.wake_source()

    def handler_has_begun(self) -> None:
        """Let answers that waited for this go on."""
        if self._is_handler_due:
            self._is_handler_due = False
            self.channel.wake_source()

    def note_effort(self, started: float, idle_bytes: int = 0) -> None:
        """Something was done for the peer since `started`; `idle_bytes` came outside of blocks."""
        seconds = self.clock() - started
        counters = self.peer.counters
        before, self._blocks = self._blocks, counters.blocks_received + counters.blocks_sent
        blocks = self._blocks - before
        now = trio.current_time()
        self.effort.spent(seconds, blocks, now, idle_bytes)
        self._connection.spent(seconds, blocks, now, idle_bytes)
        is_exact = self.clock is self._processor_time
        if not is_exact and (self._connection.is_exact or self.pause_seconds):
            self.clock = self._processor_time
            self.effort.begin_exact()
            self._connection.begin_exact()

    @property
    def pause_seconds(self) -> float:
        """How long not to read from the peer."""
        return max(self.effort.pause_seconds, self._connection.pause_seconds)

    def fail(self, error: StorageError) -> None:
        """Our core cannot be read or written: its channel ends, and `serve` raises this."""
        self.error = error
        self.channel.close()

    def add_extension(self, name: str, payload: bytes) -> None:
        is_room = self._waiting_bytes < MAX_WAITING_BYTES
        if is_room and len(self.extensions) < MAX_WAITING_EXTENSIONS:
            self._is_handler_due |= not self.extensions
            self.extensions.append((name, payload))
            self._waiting_bytes += len(payload)

    async def handle_extensions(self, handlers: Mapping[str, ExtensionHandler]) -> None:
        """Have the messages that wait handled, one after another, and answered.

        What a handler takes of our time is the peer's effort; what it waits for is not. Cancel:
        what was not handled is dropped with the peer.
        """
        while self.extensions:
            name, payload = self.extensions[0]
            handler = handlers.get(name)
            if handler is not None:
                try:
                    answers = await _Timed(handler(payload, self.handle), self)
                except StorageError as error:  # of this core; not the end of the process
                    self.fail(error)
                    return
                except trio.ClosedResourceError:
                    answers = ()  # the handler's owner has closed the core meanwhile
                for answer in answers:
                    self.handle.send_extension(name, answer)
            self.handler_has_begun()
            # A bee that walks a tree for the peer takes 3 ms at once, and may wait for nothing. Of
            # a peer that owes too much nothing more is read, but these were read already.
            owes_too_much = self.pause_seconds == MAX_PAUSE_SECONDS
            await trio.sleep(MAX_PAUSE_SECONDS if owes_too_much else 0)
            self._waiting_bytes -= len(payload)
            del self.extensions[0]  # not sooner: while there are any, this task handles them


class _Timed(Awaitable[T]):
    """Awaits something, and notes each of its steps as a peer's effort as soon as it is over."""

    def __init__(self, awaited: Awaitable[T], served: ServedPeer) -> None:
        self._awaited = awaited
        self._served = served

    def __await__(self) -> Generator[object, object, T]:
        steps = self._awaited.__await__()
        step = partial(steps.send, None)
        while True:
            started = self._served.clock()
            try:
                waits_for = step()
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._served.note_effort(started)
                self._served.handler_has_begun()
            try:
                step = partial(steps.send, (yield waits_for))
            except BaseException as error:  # noqa: BLE001  # it is for the handler to raise
                step = partial(steps.throw, error)
