"""The verified state of the values in use: never their transactions.

Values that nobody used for long are forgotten when the budget is spent, and read again from the
store when they are needed; a session's running hash is then made again with its first append.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from node.cojson.outputs import Output
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_log import SessionLog

MEMORY_BYTES = 64 * 1024 * 1024
"""Budget for verified state; a BLAKE3 state alone takes 2 KB."""

_ENTRY_BYTES = 1024
_SESSION_BYTES = 2560
_DEPENDENCY_BYTES = 160
_HEADER_FACTOR = 20
"""What the objects of a large header take of its text, if somebody fills it with `[]`."""
_SCAN = 16
"""Oldest entries looked at per call: those in use cannot be forgotten and are passed over."""


class Phase(Enum):
    LOADING = auto()
    """The store has been asked."""
    ABSENT = auto()
    """Neither stored nor accepted."""
    HELD = auto()
    """The header is verified; durable or on its way there."""
    DAMAGED = auto()
    """What is stored cannot be read."""


@dataclass(slots=True)
class ValueEntry:
    """What is verified of one value."""

    co_id: RawCoId
    phase: Phase = Phase.LOADING
    header: CoValueHeader | None = None
    dependencies: dict[RawCoId, None] = field(default_factory=dict)
    logs: dict[CoSessionId, SessionLog] = field(default_factory=dict)
    """Accepted: verified, perhaps not durable yet."""
    durable: KnownState = NOTHING
    """What may be acknowledged, announced and served."""
    waiting: deque[Callable[[list[Output]], None]] = field(default_factory=deque)
    """What to do when the store has answered, in order; each adds what it wants done."""
    rehashing: set[CoSessionId] = field(default_factory=set)
    judging: set[RawCoId] = field(default_factory=set)
    """Groups that are being read, without which a right cannot be judged."""
    is_deleted: bool = False
    """A deletion was accepted: only delete sessions are taken and kept."""
    is_tombstone: bool = False
    """It is durable: `durable` holds the delete sessions and nothing else."""
    tickets: deque[int] = field(default_factory=deque)
    """Commits that are out, oldest first."""

    @property
    def is_busy(self) -> bool:
        """Whether the store owes an answer without which content cannot be judged."""
        return self.phase is Phase.LOADING or bool(self.rehashing) or bool(self.judging)

    @property
    def is_idle(self) -> bool:
        return not (self.is_busy or self.waiting or self.tickets)

    @property
    def version(self) -> int:
        """Another one with every durable change; 0 when nothing is durable."""
        if not self.durable.header:
            return 0
        count = 1 + sum(self.durable.sessions.values())
        return -count if self.is_tombstone else count

    @property
    def size(self) -> int:
        size = _ENTRY_BYTES + _SESSION_BYTES * len(self.logs)
        size += _DEPENDENCY_BYTES * len(self.dependencies)
        if self.header is not None:
            size += _HEADER_FACTOR * max(len(self.header.canonical) - _ENTRY_BYTES, 0)
        return size


class ValueTable:
    """Entries by id, least recently used first."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._entries: OrderedDict[RawCoId, ValueEntry] = OrderedDict()
        self._sizes: dict[RawCoId, int] = {}
        self._used_bytes = 0
        self._memory_bytes = memory_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, co_id: RawCoId) -> ValueEntry | None:
        return self._entries.get(co_id)

    def use(self, co_id: RawCoId) -> ValueEntry | None:
        """The entry, which counts as used now."""
        entry = self._entries.get(co_id)
        if entry is not None:
            self._entries.move_to_end(co_id)
        return entry

    def add(self, co_id: RawCoId) -> ValueEntry:
        entry = self._entries[co_id] = ValueEntry(co_id)
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
        if self._used_bytes <= self._memory_bytes:
            return
        for co_id in list(islice(self._entries, _SCAN)):
            if self._used_bytes <= self._memory_bytes:
                return
            if self._entries[co_id].is_idle:
                self.discard(co_id)
            else:
                self._entries.move_to_end(co_id)
