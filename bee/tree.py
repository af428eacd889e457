"""What all snapshots of one bee share, and how a read waits for blocks that are not here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from bee.cache import NodeCache
from bee.errors import CorruptTree, HistoryReplaced, NotABee, UnknownFormat
from bee.held import Held
from bee.hints import PUSHED, Hints
from bee.log import Log
from bee.messages import PROTOCOL, Header
from bee.node_reader import BlocksNeeded, NodeReader
from bee.question import Question
from hypercore.encoding import DecodeError
from hypercore.errors import BlockNotAvailable, SnapshotNotAvailable

T = TypeVar("T")

PAUSE_EFFORT = 16
"""Effort, in units of about 4 us, after which the log is asked whether others should run.

What is here is read without waiting; a loop of such reads must not starve other tasks.
"""


class ReadStatistics(NamedTuple):
    """What the reads of a snapshot had to wait for.

    `blocks_waited` were not here; `round_trips` is how many times in a row a read had to ask
    and wait (blocks that were on the way already are part of the trip that asked for them).
    """

    blocks_waited: int = 0
    round_trips: int = 0


class ReadCounter:
    """Counts for `ReadStatistics`."""

    __slots__ = ("_last_hint", "blocks_waited", "round_trips")

    def __init__(self) -> None:
        self.blocks_waited = 0
        self.round_trips = 0
        self._last_hint = 0

    def count(self, blocks: int, hint: int) -> None:
        """`hint` numbers the hint that asked for all of the blocks, 0 if there was none.

        Pushed blocks come in the trip that asked for them: they count only if none was counted.
        """
        self.blocks_waited += blocks
        if hint == PUSHED and self.round_trips:
            return
        if hint == 0 or hint != self._last_hint:
            self.round_trips += 1
            self._last_hint = hint

    @property
    def statistics(self) -> ReadStatistics:
        return ReadStatistics(self.blocks_waited, self.round_trips)


class Tree:
    """All of one bee that its snapshots share: the log, the cache, the hints of peers."""

    __slots__ = (
        "_fork",
        "_has_header",
        "_local",
        "cache",
        "effort",
        "held",
        "hints",
        "log",
        "reader",
    )

    def __init__(self, log: Log, cache_bytes: int) -> None:
        self.log = log
        self.cache = NodeCache(cache_bytes)
        self.hints = Hints()
        self.held = Held()
        self._local = log.get_local
        self.reader = NodeReader(self.cache, self._local, self.hints, log.get_local_many)
        self._fork = log.fork
        self._has_header = False
        self.effort = 0
        """Spent since the last pause; callers of `pause` add to it."""

    async def pause(self) -> None:
        """Let other tasks run if it is time: the log counts what each of its writes costs."""
        while self.effort >= PAUSE_EFFORT:
            self.effort -= PAUSE_EFFORT
            await self.log.write_local({})

    def current_fork(self) -> int:
        """The log's fork; forgets what was cached of another one."""
        fork = self.log.fork
        if fork != self._fork:
            self._fork = fork
            self._has_header = False
            self.cache.clear()
            self.hints.clear()
        return fork

    def check_fork(self, fork: int) -> None:
        """Raises: HistoryReplaced."""
        if not fork == self._fork == self.log.fork and fork != self.current_fork():
            raise HistoryReplaced(fork, self._fork)

    async def read(
        self,
        step: Callable[[NodeReader], T],
        counter: ReadCounter,
        ask: Callable[[int], Question | None] | None = None,
    ) -> T:
        """Run `step` until nothing is missing; `ask` is told the first seq that is not here.

        It may return the question that it asked: the blocks that its answer names are waited for
        instead.

        Raises: CorruptTree, HistoryReplaced; BlockNotAvailable for what our own log gave up.
        Cancel: nothing has changed; blocks that were asked for may still come.
        """
        # Known before the first step: where a range ends is found out once.
        self.reader.is_alone = not self.log.peers
        try:
            try:
                return step(self.reader)
            except BlocksNeeded as missing:
                needed = missing.seqs
            # Nobody is asked for what our own log lacks: it was given up.
            return await self._wait(step, needed, counter, None if self.log.is_writable else ask)
        except CorruptTree as error:
            self.refuse(error)

    async def _wait(
        self,
        step: Callable[[NodeReader], T],
        needed: Sequence[int],
        counter: ReadCounter,
        ask: Callable[[int], Question | None] | None,
    ) -> T:
        """`read`, once something is missing."""
        fork = self._fork
        held: dict[int, bytes] = {}

        def read(seqs: Sequence[int]) -> list[bytes | None]:
            local = iter(self.log.get_local_many([seq for seq in seqs if seq not in held]))
            return [held[seq] if seq in held else next(local) for seq in seqs]

        reader = NodeReader(
            self.cache,
            lambda seq: held[seq] if seq in held else self._local(seq),
            self.hints,
            read,
            is_alone=not self.log.peers,
        )
        question = asked_at = None
        may_tell = reader.is_alone
        while True:
            try:
                if may_tell:
                    return step(reader)
            except BlocksNeeded as missing:
                needed = missing.seqs
            may_tell = True
            if max(needed) >= self.log.length:
                raise CorruptTree(max(needed), "named by the tree, and not in the log")
            if ask is not None and self.hints.number_of(needed) != PUSHED:
                lacking = next(seq for seq in needed if not self.hints.is_pushed(seq))
                question, ask = ask(lacking), None
                if self.hints.wait_for_more():
                    needed = (lacking,)  # the rest comes along, or is hinted at
                asked_at = self.hints.count
            counter.count(len(needed), self.hints.number_of(needed))
            try:
                held.update(await self._fetch(needed, question))
            except SnapshotNotAvailable:
                self.check_fork(fork)
                raise
            if asked_at == self.hints.count:
                self.hints.miss()
            asked_at = None
            if question is not None and question.is_answered:
                question = None
            self.check_fork(fork)

    async def _fetch(self, seqs: Sequence[int], question: Question | None) -> dict[int, bytes]:
        """These blocks, or those with which the question is answered, by seq.

        Empty where other blocks may do: those announced do not come, or were sent before.
        """
        if self.log.is_writable:  # a peer that has what we gave up may not restore it
            return dict(zip(seqs, await self.log.get_many(seqs, wait=False), strict=True))
        if question is None and self.hints.number_of(seqs) == PUSHED:
            patience = [peer.push_patience_seconds for peer in self.log.peers]
            return await self._expect(seqs, max(patience, default=0.0))
        if question is None:
            return dict(zip(seqs, await self.log.get_many(seqs), strict=True))
        found: dict[int, bytes] = {}
        # What is requested comes, even if the answer ends the wait for it.
        self.log.prefetch([seq for seq in seqs if seq != question.expected])
        try:
            with question.begin(self.log.wait_scope()):
                found.update(zip(seqs, await self.log.get_many(seqs), strict=True))
        finally:
            question.end()
        named = [seq for seq in question.seqs if seq < self.log.length]
        found.update(await self._expect(named, question.patience_seconds))
        return found

    async def _expect(self, seqs: Sequence[int], seconds: float) -> dict[int, bytes]:
        """These blocks, which peers have announced, if they come within that time."""
        with self.log.wait_scope(seconds):
            return dict(zip(seqs, await self.log.get_many(seqs), strict=True))
        self.hints.forget(seqs)
        return {}

    def refuse(self, error: CorruptTree) -> NoReturn:
        """Raise it, or what explains it better; nothing that was read on the way is kept.

        Raises: CorruptTree, NotABee, UnknownFormat.
        """
        self.cache.clear()
        self.check_header()
        raise error

    def check_may_write(self) -> None:
        """As `check_header`; of a log with one block, that has to be here: nothing else shows it.

        Raises: NotABee, UnknownFormat, BlockNotAvailable.
        """
        self.check_header()
        if not self._has_header and self.log.length == 1 and self.log.is_writable:
            raise BlockNotAvailable(0)

    def check_header(self) -> None:
        """Make sure, once, that the log starts as a bee does, if its first block is here.

        Raises: NotABee, UnknownFormat.
        """
        if not self._has_header:
            block = self._local(0)
            if block is not None:
                decode_header(block)
                self._has_header = True

    async def header(self, counter: ReadCounter) -> Header:
        """Raises: NotABee, UnknownFormat; BlockNotAvailable where our own log gave it up."""
        block = self._local(0)
        if block is None:
            counter.count(1, 0)
            block = (await self.log.get_many((0,), wait=not self.log.is_writable))[0]
        return decode_header(block)


def decode_header(block: bytes) -> Header:
    """Raises: NotABee, UnknownFormat."""
    try:
        header = Header.decode(block)
    except DecodeError as error:
        raise NotABee(f"block 0 is not a header: {error}") from error
    if header.protocol != PROTOCOL:
        if header.protocol.startswith(PROTOCOL):
            raise UnknownFormat(header.protocol)
        raise NotABee(f"block 0 names the protocol {header.protocol!r}, not {PROTOCOL!r}")
    return header


async def is_bee(log: Log, *, wait: bool = True) -> bool:
    """Whether the log holds a bee that can be read here, by its first block.

    False for an empty log, and with `wait` false for one whose first block is not here.
    """
    block = log.get_local(0) if log.length else None
    if block is None and wait and log.length:
        block = (await log.get_many((0,)))[0]
    if block is None:
        return False
    try:
        decode_header(block)
    except (NotABee, UnknownFormat):
        return False
    return True
