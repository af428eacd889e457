"""One client, seen from its connection: messages in, frames out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import thread_time
from typing import Protocol

import structlog
import trio

from node.cojson.foresight import Extensions
from node.cojson.messages import Known, Load, Message, Reconcile, decode_line, encode_message
from node.cojson.outbox import Outbox
from node.cojson.outputs import After, Pull
from node.cojson.recent import Line, RecentContent
from node.cojson.signature_checks import LookAhead
from node.cojson.slow_lane import MESSAGE_SECONDS, SlowLane, is_slow
from node.cojson.sync import SyncEngine
from node.cojson.withholding import Withholding, is_harmless_text
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.store import CoValueStore
from node.errors import CorruptStore

TURN = 64
"""Cheap operations after which a loop lets other tasks run: 2 to 3 ms."""

TURN_SECONDS = 0.005
"""After a turn that took longer the next one has a quarter of the operations, or one message."""

FIRST_WEIGHT = 8
"""What an operation counts for at first, when nothing is known of a client; later mostly 1."""

CONTENT_COST = 4
"""Cheap operations that one content message is worth, most of it checking its signature."""

SESSIONS_COST = 50
"""Sessions in a known state that cost one more cheap operation: 4 KB of an answer."""

VALUES_COST = 8
"""Values to reconcile that cost one more: each is looked up, and may have to be read."""

READ_COST = 8
"""Cheap operations that reading one value is worth."""

SERVE_BYTES = 64 * 1024
"""Read per turn for one client: a few pieces, so that clients take turns."""

_WITH_SESSIONS = (Load, Known)
_log = structlog.get_logger(__name__)


class Inlet(Protocol):
    """Where a client's messages go: the host."""

    async def look_ahead(self, peer_id: str, messages: Sequence[Message]) -> LookAhead: ...

    def receive(
        self, peer_id: str, messages: Sequence[Message], foreseen: Sequence[Extensions]
    ) -> None: ...

    async def wait_settled(self, peer_id: str) -> None: ...

    def has_claims(self, peer_id: str) -> bool: ...

    def listened(self, peer_id: str, *, is_quiet: bool) -> None: ...


class ContentSource:
    """Where a client's content comes from: what was stored just now, else the store."""

    def __init__(
        self,
        engine: SyncEngine,
        recent: RecentContent,
        store: CoValueStore,
        screen: Callable[[str, Message], Message | None],
    ) -> None:
        """`screen` says what a client is told in place of a control message; None: nothing."""
        self._screen = screen
        self._engine = engine
        self._recent = recent
        self._store = store
        self.withholding = Withholding(engine.hazardous)

    async def pull(self, peer_id: str, co_id: RawCoId) -> tuple[list[str], bool] | After:
        """Lines that bring a client further with one value, and whether they are the last.

        Cancel: nothing counts as sent.
        """
        wanted = self._engine.next_for(peer_id, co_id)
        if wanted is None:
            return [], True
        if isinstance(wanted, After):
            return wanted
        if isinstance(wanted, Known):
            said = self._screen(peer_id, wanted)
            return [] if said is None else [encode_message(said)], True
        if wanted.held is not None and not wanted.is_screened:
            line = self._recent.line(co_id, wanted.known, wanted.held)
            if line is None and wanted.known == NOTHING:
                line = await self._read_line(co_id, wanted.held)
            if line is not None:
                self._engine.sent(peer_id, co_id, line.reached)
                return [line.text], True
        return await self._read_lines(peer_id, co_id, wanted)

    async def _read_lines(
        self, peer_id: str, co_id: RawCoId, wanted: Pull
    ) -> tuple[list[str], bool] | After:
        """Lines from the store, a few pieces at a time."""
        try:
            loaded = await self._store.load(co_id, wanted.known, SERVE_BYTES)
            pieces, withheld = self.withholding.screen(loaded.pieces)
            held = await self._held(co_id, wanted.held) if withheld else NOTHING
        except CorruptStore as error:
            _log.error("cannot serve", error=str(error))
            return [], True
        if wanted.held is None and (after := self._engine.goes_before(peer_id, co_id, pieces)):
            return after
        for content in pieces:
            if content.expect_until is not None:
                self._engine.cut_streams.begin(co_id, content.expect_until)
            self._engine.sent(peer_id, co_id, content.known_state, content.expect_until)
        if withheld:
            # What is withheld counts as sent, or it would be read again and again.
            passed = {key: count for key, count in held.sessions.items() if key in withheld}
            self._engine.sent(peer_id, co_id, KnownState(True, passed))
            if not pieces and (said := self._screen(peer_id, Known(co_id, held))) is not None:
                return [encode_message(said)], loaded.is_complete
        return [encode_message(content) for content in pieces], loaded.is_complete

    async def _held(self, co_id: RawCoId, held: KnownState | None) -> KnownState:
        """`held`, or what is stored of a value that is not in memory. Raises: CorruptStore."""
        value = None if held is not None else await self._store.load_value(co_id)
        return held or (NOTHING if value is None else value.known_state)

    async def _read_line(self, co_id: RawCoId, held: KnownState) -> Line | None:
        """All of a short value; None for a long one, and for what is damaged or withheld."""
        try:
            text = await self._store.load_text(co_id)
        except CorruptStore:
            return None  # `load` will say so
        if text is None or not is_harmless_text(text):
            return None
        self._recent.keep_text(co_id, text)
        return self._recent.line(co_id, NOTHING, held)


class ClientLink:
    """Given out by `SyncHost.client`; one task receives, one takes lines."""

    def __init__(
        self,
        peer_id: str,
        outbox: Outbox,
        source: ContentSource,
        inlet: Inlet,
        slow_lane: SlowLane,
        stopwatch: Callable[[], float] = thread_time,
    ) -> None:
        self.peer_id = peer_id
        self.outbox = outbox
        self._source = source
        self._inlet = inlet
        self._place = slow_lane.place()
        self._stopwatch = stopwatch
        self._received = 0
        self._weight = FIRST_WEIGHT

    @property
    def end_reason(self) -> str | None:
        """Why the connection is to end; None while it is fine."""
        return self.outbox.end_reason

    async def receive(self, messages: Sequence[Message]) -> None:
        """Take the messages of one frame.

        Waits while much of this client is unsettled, or many answers to it are unsent. Cojson
        clients read whatever they send; one that does not has only itself to wait for.

        Cancel: some of the messages may have been taken.
        """
        ahead = await self._inlet.look_ahead(self.peer_id, messages)
        start = 0
        for stop, message in enumerate(messages, 1):
            self._received += _cost(message) * self._weight
            if self._received >= TURN:
                self._received = 0
                await self._take(messages, start, stop, ahead)
                start = stop
                await trio.lowlevel.checkpoint()
                await self.outbox.wait_room()
        await self._take(messages, start, len(messages), ahead)
        await self.outbox.wait_room()
        await self._inlet.wait_settled(self.peer_id)

    async def _take(
        self, messages: Sequence[Message], start: int, stop: int, ahead: LookAhead
    ) -> None:
        await ahead.wait(stop)
        foreseen, taken = ahead.extensions(start, stop), messages[start:stop]
        started = self._stopwatch()
        self._inlet.receive(self.peer_id, taken, foreseen)
        seconds = self._stopwatch() - started
        if seconds > TURN_SECONDS:
            self._weight = min(4 * self._weight, TURN)
        elif taken:
            self._weight = max(1, self._weight // 2)
        if seconds > MESSAGE_SECONDS:
            size = sum(message.size for message in taken if isinstance(message, Content))
            if is_slow(seconds, len(taken), size):
                await self._place.rest(seconds)

    @property
    def has_claims(self) -> bool:
        """Whether the client may have what is not here: then call `listened` now and then."""
        return self._inlet.has_claims(self.peer_id)

    async def listened(self, *, is_quiet: bool) -> None:
        """Some seconds have passed in which the client might have sent what it claims.

        Waits while many answers to it are unsent. Cancel: nothing is lost.
        """
        self._inlet.listened(self.peer_id, is_quiet=is_quiet)
        await self.outbox.wait_room()

    async def wait_found(self, co_id: RawCoId) -> bool:
        """Ask as a client does, so that dependencies are found too; whether it is here now.

        Cancel: the value may still be looked for.
        """
        await self.receive([Load(co_id, NOTHING)])
        while True:
            if self.outbox.is_wanted(co_id):
                return True
            for line in self.outbox.take_lines(1):
                answer = decode_line(line)
                if isinstance(answer, Known) and answer.co_id == co_id:
                    return answer.known.header
            await self.outbox.wake.wait()

    async def next_lines(self, max_characters: int) -> list[str]:
        """What to send now, up to about so much; nothing when nothing waits.

        Control lines first, then values by priority. Yields only when the store does.

        Cancel: the client has to start over: what was taken counts as sent.
        """
        lines = self.outbox.take_lines(max_characters)
        size = sum(map(len, lines))
        while size < max_characters and self.outbox.end_reason is None:
            wanted = self.outbox.next_wanted()
            if wanted is None:
                break
            co_id, priority = wanted
            answer = await self._source.pull(self.peer_id, co_id)
            if isinstance(answer, After):
                self.outbox.hurry(answer.co_ids)
                continue
            pulled, is_last = answer
            if is_last:
                self.outbox.served(co_id, priority)
            lines += pulled
            size += sum(map(len, pulled))
        return lines


def _cost(message: Message) -> int:
    """In cheap operations."""
    if isinstance(message, Content):
        return CONTENT_COST
    if isinstance(message, _WITH_SESSIONS):
        return 1 + len(message.known.sessions) // SESSIONS_COST
    if isinstance(message, Reconcile):
        return 1 + len(message.values) // VALUES_COST
    return 1
