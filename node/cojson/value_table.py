"""The verified state of the values in use: never their transactions.

Values that nobody used for long are forgotten, and when the budget is spent those least recently
used. They are read again from the store when they are needed; a session's running hash
is then made again with its first append. What is in use (a read, a commit, somebody who waits for
either) stays, whatever became of the client that wanted it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from node.cojson.crypto import RunningHash
from node.cojson.outputs import Output
from node.covalue.dependencies import session_dependencies
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState, SessionCounts, sessions_hash
from node.covalue.session_log import SessionLog
from node.covalue.store import StoredValue

MEMORY_BYTES = 64 * 1024 * 1024
"""Budget for verified state; a BLAKE3 state alone takes 2 KB."""

_ENTRY_BYTES = 2048
_HEADER_BYTES = 640
_HEADER_FACTOR = 4
"""A parsed header takes about four times its text, and something for itself."""
_LARGE_HEADER_FACTOR = 20
"""What the objects of a large header take of its text, if somebody fills it with `[]`."""
_LARGE_HEADER_BYTES = 1024
_DEPENDENCY_BYTES = 160
_SESSION_BYTES = 520
_HASH_BYTES = 2048
_SCAN = 16
"""Old entries in use that are passed over per call: they cannot be forgotten now."""


class Phase(Enum):
    LOADING = auto()
    """The store has been asked."""
    ABSENT = auto()
    """Neither stored nor accepted."""
    HELD = auto()
    """The header is verified; durable or on its way there."""
    DAMAGED = auto()
    """What is stored cannot be read."""


class DependencyOrder:
    """That of what a value depends on, as it was once; no two are equal."""

    __slots__ = ()


@dataclass(slots=True)
class ValueEntry:
    """What is verified of one value."""

    co_id: RawCoId
    phase: Phase = Phase.LOADING
    header: CoValueHeader | None = None
    dependencies: dict[RawCoId, None] = field(default_factory=dict)
    order: DependencyOrder = field(default_factory=DependencyOrder)
    """A new object whenever these are not what they were and, after that, what came."""
    logs: dict[CoSessionId, SessionLog] = field(default_factory=dict)
    """Accepted: verified, perhaps not durable yet. Changed by the methods below."""
    hashes: int = 0
    """How many of these have a running hash: to count them with each edit would cost too much."""
    durable: KnownState = NOTHING
    """What may be acknowledged, announced and served."""
    waiting: deque[Callable[[list[Output]], None]] = field(default_factory=deque)
    """What to do when the store has answered, in order; each adds what it wants done."""
    rehashing: dict[CoSessionId, int] = field(default_factory=dict)
    """Sessions of which so many transactions are being hashed anew."""
    judging: set[RawCoId] = field(default_factory=set)
    """Groups that are being read or judged, without which a right cannot be judged."""
    is_deleted: bool = False
    """A deletion was accepted: only delete sessions are taken and kept."""
    is_tombstone: bool = False
    """The deletion is durable: `durable` holds the delete sessions and nothing else."""
    tickets: list[int] = field(default_factory=list)
    """Commits that are out, oldest first."""
    round: int = 0
    """The round of the table in which it was last used."""
    hashed: tuple[SessionCounts, str] | None = None
    """The durable counts that were compared last, and their hash."""

    def hold(self, stored: StoredValue) -> None:
        """Take over what is stored of this value."""
        self.phase = Phase.HELD
        self.header = stored.header
        self.dependencies = dict.fromkeys(sorted(stored.dependencies))
        self.order = DependencyOrder()
        self.durable = stored.known_state
        self.is_deleted = self.is_tombstone = stored.is_deleted
        self.logs = {
            session_id: SessionLog(item.count, item.signature, item.bytes_since_checkpoint)
            for session_id, item in stored.sessions.items()
        }
        self.hashes = 0

    def extend(self, logs: Mapping[CoSessionId, SessionLog]) -> list[CoSessionId]:
        """Take over verified logs, which are hashed; returns the sessions that are new."""
        new = [session_id for session_id in logs if session_id not in self.logs]
        self.logs.update(logs)
        self.hashes += len(new)
        return new

    def rehash(self, session_id: CoSessionId, running: RunningHash) -> None:
        """The running hash of a session has been made again."""
        log = self.logs[session_id]
        self.hashes += log.running is None
        log.running = running

    def keep_only(self, session_ids: Iterable[CoSessionId]) -> None:
        """Let go of all other sessions, and of what they depend on."""
        self.logs = {key: self.logs[key] for key in session_ids}
        self.hashes = sum([log.running is not None for log in self.logs.values()])
        self.dependencies = dict.fromkeys(session_dependencies(self.logs))
        self.order = DependencyOrder()

    @property
    def is_busy(self) -> bool:
        """Whether the store owes an answer without which content cannot be judged."""
        return self.phase is Phase.LOADING or bool(self.rehashing) or bool(self.judging)

    @property
    def is_idle(self) -> bool:
        return not (self.is_busy or self.waiting or self.tickets)

    @property
    def durable_hash(self) -> str:
        """What reconciliation compares. Made once: a batch may name a value a thousand times."""
        counts = self.durable.sessions
        if self.hashed is None or self.hashed[0] is not counts:
            self.hashed = counts, sessions_hash(counts)
        return self.hashed[1]

    @property
    def version(self) -> int:
        """A new one with every durable change; 0 when nothing is durable."""
        if not self.durable.header:
            return 0
        count = 1 + sum(self.durable.sessions.values())
        return -count if self.is_tombstone else count

    @property
    def size(self) -> int:
        """The bytes it takes at most, as tracemalloc says."""
        size = _ENTRY_BYTES + _SESSION_BYTES * len(self.logs) + _HASH_BYTES * self.hashes
        size += _DEPENDENCY_BYTES * len(self.dependencies)
        if self.header is not None:
            length = len(self.header.canonical)
            size += _HEADER_BYTES + _HEADER_FACTOR * length
            size += _LARGE_HEADER_FACTOR * max(length - _LARGE_HEADER_BYTES, 0)
        return size


class ValueTable:
    """Entries by id, least recently used first."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._entries: OrderedDict[RawCoId, ValueEntry] = OrderedDict()
        self._sizes: dict[RawCoId, int] = {}
        self._used_bytes = 0
        self._memory_bytes = memory_bytes
        self._round = 0

    @property
    def used_bytes(self) -> int:
        """Beyond the budget only by what is in use."""
        return self._used_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, co_id: RawCoId) -> ValueEntry | None:
        return self._entries.get(co_id)

    def use(self, co_id: RawCoId) -> ValueEntry | None:
        """The entry, which counts as used now."""
        entry = self._entries.get(co_id)
        if entry is not None:
            self._entries.move_to_end(co_id)
            entry.round = self._round
        return entry

    def add(self, co_id: RawCoId) -> ValueEntry:
        entry = self._entries[co_id] = ValueEntry(co_id, round=self._round)
        self.resize(entry)
        return entry

    def resize(self, entry: ValueEntry) -> None:
        """Count the entry's present size."""
        size = entry.size
        self._used_bytes += size - self._sizes.get(entry.co_id, 0)
        self._sizes[entry.co_id] = size

    def discard(self, co_id: RawCoId) -> None:
        if self._entries.pop(co_id, None) is not None:
            self._used_bytes -= self._sizes.pop(co_id)

    def trim(self) -> None:
        """Forget idle values while the budget is exceeded; nobody may be holding an entry."""
        passed = 0
        while self._used_bytes > self._memory_bytes and passed < _SCAN:
            if not self._forget_oldest():
                passed += 1

    def begin_round(self) -> None:
        """What is not used until the end of this round can be forgotten in the next one."""
        self._round += 1

    def forget_unused(self, max_values: int) -> bool:
        """Look at up to `max_values` that were used neither in this round nor the one before.

        Idle ones are forgotten. True when there may be more.
        """
        for _ in range(max_values):
            oldest = next(iter(self._entries.values()), None)
            if oldest is None or oldest.round >= self._round - 1:
                return False
            self._forget_oldest()
        return True

    def _forget_oldest(self) -> bool:
        """Forget it if it is idle, and say whether it was; one in use counts as used now."""
        co_id, entry = next(iter(self._entries.items()))
        if entry.is_idle:
            self.discard(co_id)
            return True
        self.use(co_id)
        return False
