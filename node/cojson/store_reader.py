"""[trio] Answers the engine's questions to the store, and lets it go on with what takes long.

They are answered in the order in which they were asked, but for those that take long: hashing a
session anew and reading a group. Loads waited for a second behind one session of 200 MB.

Judging a large group takes no reading, only time: it gets a quarter of it, one group after the
other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import structlog
import trio

from node.cojson.client_link import READ_COST, SERVE_BYTES, TURN
from node.cojson.crypto import RunningHash
from node.cojson.group_reading import read_group
from node.cojson.outputs import GoOn, JudgeGroup, LoadValue, Output, ReadGroup, Rehash
from node.cojson.recent import RecentContent
from node.cojson.sync import SyncEngine
from node.cojson.withholding import is_harmless, is_harmless_text
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState, merge_counts
from node.covalue.session_log import feed
from node.covalue.store import CoValueStore, StoredValue
from node.errors import CorruptStore
from swarm.io.tasks import Wakeup

Question = LoadValue | Rehash | ReadGroup | JudgeGroup

LONG_READS = 4
"""At a time: a small group does not wait for a large session, unless for so many."""

JUDGING_REST = 3.0
"""Times as long as judging took, others have the processor."""

_REHASH_BYTES = 1024 * 1024
_log = structlog.get_logger(__name__)


class _Lane:
    """Questions, for any number of tasks that answer them."""

    def __init__(self) -> None:
        self._questions: deque[Question] = deque()
        self._idle = trio.lowlevel.ParkingLot()

    def put(self, question: Question) -> None:
        self._questions.append(question)
        self._idle.unpark()

    async def take(self) -> Question:
        """The next one. Cancel: nothing is taken."""
        while not self._questions:
            await self._idle.park()
        return self._questions.popleft()


class StoreReader:
    """`ask` it from anywhere; `answered` is given what the engine wants done with each answer."""

    def __init__(
        self,
        engine: SyncEngine,
        store: CoValueStore,
        recent: RecentContent,
        answered: Callable[[Sequence[Output]], None],
    ) -> None:
        self._engine = engine
        self._store = store
        self._recent = recent
        self._answered = answered
        self._short = _Lane()
        """What is answered from a value's rows."""
        self._long = _Lane()
        """What takes reading all transactions of a value: seconds, if it is large."""
        self._rehashing: dict[RawCoId, dict[CoSessionId, int]] = {}
        """All that is to be hashed of a value whose turn has not come: it is read once for that."""
        self._judging = _Lane()
        self._going_on = Wakeup()

    def ask(self, question: Question | GoOn) -> None:
        match question:
            case GoOn():
                self._going_on.set()
            case LoadValue():
                self._short.put(question)
            case Rehash(co_id, session_id, count):
                if co_id not in self._rehashing:
                    self._rehashing[co_id] = {}
                    self._long.put(question)
                self._rehashing[co_id][session_id] = count
            case ReadGroup():
                self._long.put(question)
            case JudgeGroup():
                self._judging.put(question)
            case _:
                assert_never(question)

    async def run(self) -> None:
        """Answer, until cancelled."""
        async with trio.open_nursery() as tasks:
            for _ in range(LONG_READS):
                tasks.start_soon(self._answer_all, self._long)
            tasks.start_soon(self._answer_all, self._judging)
            tasks.start_soon(self._go_on)
            await self._answer_all(self._short)

    async def _go_on(self) -> None:
        """Some offers at a time: others have their turn in between."""
        while True:
            await self._going_on.wait()
            self._answered(self._engine.go_on())
            await trio.lowlevel.checkpoint()

    async def _answer_all(self, lane: _Lane) -> None:
        cost = 0
        while True:
            question = await lane.take()
            cost += 1
            try:
                outputs, read_cost = await self._answer(question)
            except CorruptStore as error:
                _log.error("cannot read", error=str(error))
                read_cost = 0
                if isinstance(question, ReadGroup):
                    outputs = self._engine.group_read(question.co_id, None)
                else:
                    outputs = self._engine.load_failed(question.co_id)
            self._answered(outputs)
            cost += read_cost
            if cost >= TURN:
                cost = 0
                await trio.lowlevel.checkpoint()

    async def _answer(self, question: Question) -> tuple[list[Output], int]:
        """What the engine says to the answer, and what that cost beyond looking for it.

        Raises: CorruptStore.
        """
        match question:
            case LoadValue(co_id, is_wanted):
                value = await self._read_value(co_id, is_wanted)
                # What is not there costs next to nothing.
                return self._engine.loaded(co_id, value), 0 if value is None else READ_COST
            case Rehash(co_id):
                return await self._rehash(co_id, self._rehashing.pop(co_id)), READ_COST
            case ReadGroup(co_id, begun):
                group = await read_group(self._store, co_id, begun)
                return self._engine.group_read(co_id, group), READ_COST
            case JudgeGroup(co_id):
                await self._judge(co_id)
                return self._engine.group_judged(co_id), READ_COST
            case _:
                assert_never(question)

    async def _judge(self, co_id: RawCoId) -> None:
        started = time.perf_counter()
        for unread in self._engine.judging(co_id):
            if unread is None:
                await trio.sleep(JUDGING_REST * (time.perf_counter() - started))
            else:
                self._answered(await self._read_in_turn(unread.co_id))
            started = time.perf_counter()

    async def _read_in_turn(self, co_id: RawCoId) -> list[Output]:
        """A group that memory had no room for until its turn came, or one above it."""
        try:
            group = await read_group(self._store, co_id)
        except CorruptStore as error:
            _log.error("cannot read", error=str(error))
            group = None
        return self._engine.group_read(co_id, group)

    async def _read_value(self, co_id: RawCoId, is_wanted: bool) -> StoredValue | None:
        """What is stored of a value; where a client wants its content, one read gets both.

        Raises: CorruptStore.
        """
        if is_wanted:
            text = await self._store.load_text(co_id)
            if text is not None:
                if is_harmless_text(text):
                    self._recent.keep_text(co_id, text)
                return text.value
            loaded = await self._store.load(co_id, NOTHING, SERVE_BYTES)
            if loaded.is_complete and all(map(is_harmless, loaded.pieces)):
                self._recent.keep(loaded.pieces)
            if loaded.value is not None:
                return loaded.value
            if not loaded.pieces:
                return None
        return await self._store.load_value(co_id)

    async def _rehash(self, co_id: RawCoId, sessions: Mapping[CoSessionId, int]) -> list[Output]:
        """Hash the first so many transactions of stored sessions. Raises: CorruptStore."""
        hashes = await self._hash(co_id, sessions)
        outputs: list[Output] = []
        for number, (session_id, running) in enumerate(hashes.items(), 1):
            count = sessions[session_id]
            outputs += self._engine.rehashed(co_id, session_id, count, running)
            if number % TURN == 0:
                self._answered(outputs)
                outputs = []
                await trio.lowlevel.checkpoint()
        return outputs

    async def _hash(
        self, co_id: RawCoId, sessions: Mapping[CoSessionId, int]
    ) -> dict[CoSessionId, RunningHash]:
        value = await self._store.load_value(co_id)
        if value is None:
            raise CorruptStore(co_id, "it was stored and is gone")
        stops = {key: item.count for key, item in value.sessions.items()}
        counts = {**stops, **dict.fromkeys(sessions, 0)}
        hashes = {key: RunningHash() for key in sessions}
        left = dict(sessions)
        while left:
            loaded = await self._store.load(co_id, KnownState(True, counts), _REHASH_BYTES)
            for piece in loaded.pieces:
                merge_counts(counts, piece.known_state.sessions)  # other sessions grow meanwhile
                for session_id, (after, transactions, _) in piece.new.items():
                    count = left.get(session_id)
                    if count is None:
                        continue
                    feed(hashes[session_id], transactions[: count - after])
                    if after + len(transactions) >= count:
                        del left[session_id]
                        counts[session_id] = max(counts[session_id], stops.get(session_id, 0))
            if not loaded.pieces:
                raise CorruptStore(co_id, f"sessions end before they should: {[*left.items()][:3]}")
            await trio.lowlevel.checkpoint()
        return hashes
