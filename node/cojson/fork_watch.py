"""[trio] Looks into suspected forks one at a time, keeps the evidence, and says so."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection

import structlog
import trio

from hypercore.errors import StorageFailed
from node.cojson.fork_check import Verdict, check_fork
from node.cojson.outputs import CheckFork
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.session_fork import SessionFork
from node.covalue.store import CoValueStore
from node.errors import CorruptStore
from swarm.io.tasks import Wakeup

MAX_SUSPICIONS = 16
"""Those that may wait; a forger who sends more is not worth the reading."""

MAX_PENDING_BYTES = 16 * 1024 * 1024

LOOK_SECONDS = 2.0
"""How long a caller that asks what a suspicion is worth waits at most."""

AGAIN_SECONDS = 60.0
"""A session is not looked into twice within this: each time costs reading it."""

MAX_FORKS = 1024
"""Sessions of which evidence is kept (up to 2 MiB each); whoever forks more is known by then."""

MAX_FORK_BYTES = 64 * 1024 * 1024
"""All evidence: it is passed on from memory, and anybody can fork a session of their own."""

_MAX_REMEMBERED = 4096
_log = structlog.get_logger(__name__)


class ForkWatch:
    """Run `run` in a task; `suspect` what does not fit."""

    def __init__(
        self,
        store: CoValueStore,
        when_unproven: Callable[[CheckFork], None],
        max_bytes: int = MAX_FORK_BYTES,
        wait_stored: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`wait_stored` returns when all that was verified before it was called is in the store.

        What is suspected differs from what was verified, which may be on its way to the disk.
        """
        self._forked: set[tuple[RawCoId, CoSessionId]] = set()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._store = store
        self._when_unproven = when_unproven
        self._wait_stored = wait_stored
        self._suspicions: OrderedDict[tuple[RawCoId, CoSessionId], CheckFork] = OrderedDict()
        self._pending_bytes = 0
        self._looked_at: OrderedDict[tuple[RawCoId, CoSessionId, int], float] = OrderedDict()
        self._wake = Wakeup()
        self._kept = trio.lowlevel.ParkingLot()
        self._looking_at: RawCoId | None = None
        self._has_looked = trio.lowlevel.ParkingLot()

    @property
    def forks_found(self) -> int:
        """Sessions of which evidence is kept, that of earlier runs included."""
        return len(self._forked)

    def suspect(self, check: CheckFork) -> None:
        """Look into it, unless that was done just now or too much is waiting.

        Of two parts of one session that wait, the one that begins earlier tells more.
        """
        session = (check.co_id, check.session_id)
        now = trio.current_time()
        looked_at = self._looked_at.get((*session, check.part.after))
        if looked_at is not None and now - looked_at < AGAIN_SECONDS:
            return
        size = _size(check)
        waiting = self._suspicions.get(session)
        if waiting is not None and waiting.part.after > check.part.after:
            self._pending_bytes -= _size(self._suspicions.pop(session))
            waiting = None
        is_full = len(self._suspicions) >= MAX_SUSPICIONS
        if waiting is not None or session in self._forked or is_full:
            return
        if self._pending_bytes + size > MAX_PENDING_BYTES and self._suspicions:
            return
        self._suspicions[session] = check
        self._pending_bytes += size
        self._looked_at[(*session, check.part.after)] = now
        if len(self._looked_at) > _MAX_REMEMBERED:
            self._looked_at.popitem(last=False)
        self._wake.set()

    async def run(self) -> None:
        """Look into what is suspected, until cancelled.

        Raises: StorageFailed when evidence cannot be kept; it is found again by the next run.
        Cancel: what was not looked into is forgotten.
        """
        try:
            for fork in await self._store.forks():
                self._note(fork)
        except CorruptStore as error:
            _log.error("cannot read forks", error=str(error))
        while True:
            if not self._suspicions:
                await self._wake.wait()
                continue
            await self._wait_stored()
            session, check = self._suspicions.popitem(last=False)
            self._pending_bytes -= _size(check)
            self._looking_at = check.co_id
            try:
                await self._look_into(check)
            except CorruptStore as error:
                _log.error("cannot look into a fork", error=str(error))
            except StorageFailed:
                self._suspicions.setdefault(session, check)
                self._pending_bytes = sum(map(_size, self._suspicions.values()))
                raise
            finally:
                self._looking_at = None
                self._has_looked.unpark_all()
            await trio.lowlevel.checkpoint()

    async def _look_into(self, check: CheckFork) -> None:
        match await check_fork(self._store, check):
            case SessionFork() as found:
                await self.keep(found)
            case Verdict.UNPROVEN:
                self._when_unproven(check)
            case Verdict.FORGED:
                pass

    def is_known(self, co_id: RawCoId, session_id: CoSessionId) -> bool:
        """Whether evidence of this session is kept, or there is no room for more."""
        is_full = len(self._forked) >= MAX_FORKS or self._bytes >= self._max_bytes
        return is_full or (co_id, session_id) in self._forked

    async def are_forked(self, co_id: RawCoId, sessions: Collection[CoSessionId]) -> bool:
        """Whether each of these sessions, which do not verify, was continued in two ways.

        What is suspected of the value is looked into first; after `LOOK_SECONDS` they have the
        benefit of the doubt. Cancel: undoes nothing.
        """
        with trio.move_on_after(LOOK_SECONDS) as patience:
            while co_id == self._looking_at or any(id == co_id for id, _ in self._suspicions):
                await self._has_looked.park()
        are_known = all(self.is_known(co_id, session_id) for session_id in sessions)
        return patience.cancelled_caught or (are_known and len(sessions) > 0)

    def _note(self, fork: SessionFork) -> None:
        if (fork.co_id, fork.session_id) not in self._forked:
            self._forked.add((fork.co_id, fork.session_id))
            self._bytes += fork.size

    async def wait_kept(self, more_than: int) -> None:
        """Return when evidence of more sessions than that is kept. Cancel: nothing is changed."""
        while len(self._forked) <= more_than:
            await self._kept.park()

    async def keep(self, fork: SessionFork) -> None:
        """Keep evidence that was checked, unless there is some of this session already.

        Cancel: it is kept, or not.
        """
        if self.is_known(fork.co_id, fork.session_id):
            return
        await self._store.keep_fork(fork)
        self._note(fork)
        self._kept.unpark_all()
        _log.warning(
            "session forked",
            co_id=fork.co_id,
            session_id=fork.session_id,
            index=fork.index,
            kept=len(fork.kept.transactions),
            refused=len(fork.refused.transactions),
        )


def _size(check: CheckFork) -> int:
    return 256 + sum(len(item.changes) + 128 for item in check.part.transactions)
