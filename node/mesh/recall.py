"""[trio] Not forking ourselves: before it appends, a node asks what others know of its own log.

A store that was put back to an older state, or copied, does not know what it signed since. If it
went on from there it would sign a second history of the same length, and its log would be frozen
everywhere. Members that replicate the log know better, so each says on meeting us how long it is
(`Head`), and shows it: the head comes with proofs, like anybody's. Until all members that were
ever met have done so, nothing is appended here; after `GRACE_SECONDS` the node goes on.

    nobody knows more        go on
    a longer head comes      our own blocks are fetched back, the rows beside the bee made anew
    not all of it comes,     cut back to what we had, as a new fork: a history that nobody else has,
    or the head does not     and no lie; what members merged of the rest comes back from them
    nobody shows what we     as a new fork, too: if a member has shown a longer head before, or the
    are known to have lost   store was salvaged, or lost a part, and not all members can be asked
    our key, another node    two nodes run with it, and the elder signs that: the younger one stops

A member that keeps single blocks only may know a head, and lack the tree nodes that lead there from
ours. But no member's word decides anything: a longer head comes with our signature, or its sender
is expelled.

Until that is settled nothing is fetched and no client is let in, so that nothing in memory is of
the older state. Should a member show later that we signed a longer head, the node stops, and
settles it when it is started again; the row `recall/longer` says until then that there is one.
The row `recall` beside the log says how much of it we had written ourselves, from a start until
this is settled: a crash in between goes on with it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import assert_never

import structlog
import trio

from bee.errors import BeeError
from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError
from hypercore.errors import HypercoreError, StorageFailed
from hypercore.log import Head as CoreHead
from node.errors import NodeError
from node.mesh.head_claims import Claimant, HeadClaims
from node.mesh.member import Member
from node.mesh.own_log import OwnLog
from node.mesh.run_messages import Alive, Doubt, Head, RunMessage
from node.mesh.runs import Runs
from swarm.io.tasks import Wakeup

GRACE_SECONDS = 2.0
"""How long the first append waits for a member's word, where any member was ever met."""

HEAD_SECONDS = 5.0
"""How long a member may take to prove what lies between our log and the head that it shows."""

LONGER_SECONDS = 30.0
"""How long the first append waits for a member that shows a longer head, where it is known that we
signed one, or that head is here without its blocks: it takes members seconds to dial us again."""

RETRY_SECONDS = 1.0

STALL_SECONDS = 5.0
"""Fetching our own blocks back is given up when none comes for so long, and at once when all
members that were ever met are here and all lack one."""

MAX_HEADS = 4
"""Words about our log from one member on one connection: one, and one answer, are usual."""

MAX_RUNS_TOLD = 16
"""The same about other runs of our key, or of its own; none is usual."""

OVERLAP_SECONDS = 4.0
"""How long the first append waits when a member saw another run of this node go just before. If
that run lives, it dials the member every second, and is told apart; mostly it lost its power."""

_LOOK_SECONDS = 0.25
_ROW = b"recall"
_LONGER_ROW = b"recall/longer"
_FAILED = (BeeError, HypercoreError, DecodeError, trio.ClosedResourceError)
_log = structlog.get_logger(__name__)


class LogWasLonger(NodeError):
    """A member showed a longer head of our own log than we had, after we had gone on."""


class SecondNode(NodeError):
    """Another node runs with our key."""


class RecallState(Enum):
    """Whether we append."""

    ASKING = "asking members how long our log is"
    RECOVERING = "fetching our own log back"
    GOING_ON = "going on"


class Recall:
    """Of one node. Start `run` before the first connection; `receive` what members say."""

    def __init__(
        self,
        id: bytes,
        identity: KeyPair | None,
        log: OwnLog,
        rebuild: Callable[[], Awaitable[int]] | None,
        instance: bytes,
        members: frozenset[bytes],
    ) -> None:
        """`id` is our key, and `identity` signs with it, where there is something to sign.

        `rebuild` makes all that is beside the log anew; `members` are those ever met, by id.
        """
        self.instance = instance
        """Tells this run of the node from every other."""
        self.state = RecallState.ASKING
        self.recovered = range(0)
        """Blocks of our own log that had been signed by us and were not here."""
        self.runs = Runs()
        self._id = id
        self._identity = identity
        self._log = log
        self._rebuild = rebuild
        self._claims = HeadClaims(members)
        self._is_longer = log.get_local_value(_LONGER_ROW) is not None
        """A member has shown a longer head before this start."""
        self._may_be_longer = log.is_recovering
        """The store may have lost our newest head."""
        self._is_shown = False
        """Whether a longer head was shown, and dealt with."""
        marked = log.get_local_value(_ROW)
        appended = log.statistics().blocks_appended
        self._known = (log.length if marked is None else int(marked)) - appended
        """How long the log was when we had written all of it, but for what we append since."""
        self._settled = trio.Event()
        self._heard = trio.Event()
        self._wake = Wakeup()
        self._second: str | None = None
        self._doubted_until = -math.inf

    def meet(self, head: CoreHead) -> Head:
        """What to tell a member on meeting it: how long its log is here, as it signed."""
        if not head.length:
            return Head(self.instance, head.fork, 0)
        return Head(
            *(self.instance, head.fork, head.length),
            tree_hash=head.tree_hash,
            signature=head.signature,
        )

    def receive(self, member: Member, message: RunMessage, now: float) -> list[RunMessage]:
        """A member speaks of our log or of runs; returns what to tell it."""
        member.conduct.heads += isinstance(message, Head)
        member.conduct.runs_told += isinstance(message, Alive)
        if member.conduct.heads > MAX_HEADS:
            self._end(member, "one length of our log after the other")
            return []
        if member.conduct.runs_told > MAX_RUNS_TOLD:
            self._end(member, "one run after the other")
            return []
        match message:
            case Head():
                return self._receive_head(member, message, now)
            case Alive(instance, b""):
                if self._identity is None or instance == self.instance:
                    return []
                return [message.sign(self._identity)]
            case Alive():
                self._receive_proof(member, message)
                return []
            case _:
                assert_never(message)

    def _receive_proof(self, member: Member, alive: Alive) -> None:
        if alive.is_by(member.id):
            self.runs.prove(member.id, alive)
        elif alive.instance == self.instance and alive.is_by(self._id):
            self._second = member.statistics().name or member.id.hex()[:12]
            self._wake.set()
        else:
            self._end(member, "that another node runs with a key, and does not show it")

    def _receive_head(self, member: Member, head: Head, now: float) -> list[RunMessage]:
        if not self._is_ours(head):
            self._end(member, f"{_name(head)} of our log, which we did not sign")
            return []
        self._claims.hear(member, head)
        if not self._claims.silent:
            self._heard.set()
        if head.doubt is Doubt.UNASKED:
            self._wake.set()
            doubt = self.runs.note(member.id, head.instance, now)
            if doubt is Doubt.SECOND:
                _log.error("two nodes run with one key", id=member.id.hex())
            answer = Head(self.instance, 0, 0, doubt)
            return [answer, *self.runs.tell(member.id, head.instance)]
        match head.doubt:
            case Doubt.OVERLAP | Doubt.SECOND:  # that is shown by another message
                self._doubted_until = now + OVERLAP_SECONDS
            case Doubt.NONE:
                pass
            case _:
                assert_never(head.doubt)
        self._wake.set()
        return []

    def _is_ours(self, head: Head) -> bool:
        """Whether we signed such a head; one that is not longer than ours says nothing new."""
        log = self._log
        if (head.fork, head.length) <= (log.fork, log.length):
            return True
        return log.verifier is not None and head.is_signed(log.verifier)

    def forget(self, member: Member) -> None:
        """The member went. That we signed a longer head stays true, whoever has shown it."""
        self._claims.forget(member)

    async def run(self) -> None:
        """Keep everybody from appending to our log while it is not known how long it is.

        Where the disk is full it is found out all the same, unless something has to be written.

        Raises: SecondNode, LogWasLonger.
        Cancel: the log may be appended to.
        """
        while True:
            with suppress(StorageFailed):
                if not self._settled.is_set():
                    async with self._log.exclusive():
                        await self._find_out()
                    self._settled.set()
                await self._stay_alone()
            await trio.sleep(RETRY_SECONDS)  # there is no room on our disk

    async def _find_out(self) -> None:
        """Find out how long our log is. Raises: StorageFailed."""
        is_marked = False
        with suppress(StorageFailed):
            await self._mark()
            is_marked = True
        await self._ask()
        if self._is_behind and not is_marked:
            await self._mark()
        if self._may_be_longer:  # from here on our own row says so
            await self._log.write_local({_LONGER_ROW: b""})
            await self._log.end_recovering()
        await self._settle()
        with suppress(StorageFailed):  # then the next start looks once more
            await self._log.write_local({_ROW: None, _LONGER_ROW: None})

    async def _stay_alone(self) -> None:
        """Look into what members say later. Raises: as `run`; StorageFailed."""
        while True:
            await self._wake.wait()
            self._check_alone()
            if self._is_behind:
                await self._mark()
                await self._follow_forks()
                await self._check_whole()
                await self._log.write_local({_ROW: None})

    @property
    def is_settled(self) -> bool:
        """Whether it is known how long our log is, or nobody could say."""
        return self._settled.is_set()

    async def wait_settled(self) -> None:
        """Return when our log's length is known, or nobody could say. Cancel: undoes nothing."""
        await self._settled.wait()

    async def wait_readable(self) -> None:
        """Return when all that our log's head needs is here, to be read. Cancel: undoes nothing."""
        if self._is_behind and not self._settled.is_set():
            await self._settled.wait()

    async def _mark(self) -> None:
        await self._log.write_local({_ROW: b"%d" % self._appended_to})

    def _check_alone(self) -> None:
        if self._second is not None:
            raise SecondNode(
                f"another node runs with the same key, {self._second} has seen both: stop it, or "
                f"start this one on a data directory of its own"
            )

    async def _ask(self) -> None:
        """Wait for the members' word, or for long enough; in doubt, for the whole truth."""
        with trio.move_on_after(LONGER_SECONDS):
            while not self._is_told:
                await self._wake.wait()
        if not self._claims.silent:
            return
        with trio.move_on_after(GRACE_SECONDS):
            await self._heard.wait()
        with trio.move_on_at(self._doubted_until):
            while self._second is None:
                await self._wake.wait()
        if not self._claims:
            _log.info("no member told how long our log is", length=self._log.length)

    @property
    def _is_told(self) -> bool:
        """Whether what our log is known or feared to have lost was shown, or nobody knows of it."""
        if self._can_show_more or self._second is not None:
            return True
        is_known = self._is_longer or self._is_behind
        return not is_known and (self._claims.is_confirmed or not self._may_be_longer)

    @property
    def _appended_to(self) -> int:
        """How long the log would be if only we had written to it."""
        return self._known + self._log.statistics().blocks_appended

    @property
    def _can_show_more(self) -> bool:
        """Whether anybody knows more of our log than we had written: its head alone may be here."""
        return bool(self._claims.beyond(self._log.fork, self._appended_to))

    @property
    def _is_behind(self) -> bool:
        log = self._log
        return bool(self._claims.beyond(log.fork, log.length)) or log.length > self._appended_to

    async def _settle(self) -> None:
        """Get what others hold of our log, as far as they show it. We hold the writer's lock."""
        self._check_alone()
        while self._is_behind:
            self.state = RecallState.RECOVERING
            self._is_shown = True
            log = self._log
            for member, head in self._claims.all():
                if (head.fork, head.length) <= (log.fork, log.length):
                    continue
                if head.fork > log.fork:
                    await self._follow_fork(member, head)
                elif not await self._wait_length(head):
                    self._claims.drop(member)
                    await self._begin_fork(log.fork + 1, **_about(member, head))
            if log.length > self._appended_to:
                await self._recover()
        is_lost = self._is_longer and not self._is_shown
        if is_lost or (self._may_be_longer and not self._claims.is_confirmed):
            # What we signed beyond our length is not known here: it gets no second history.
            await self._begin_fork(self._log.fork + 1, not_heard=self._claims.silent)
        self.state = RecallState.GOING_ON

    async def _follow_forks(self) -> None:
        """Begin a later fork than any that we have signed, and do not know of."""
        later = self._claims.of_later_forks(self._log.fork)
        if later:
            async with self._log.exclusive():
                for member, head in later:
                    await self._follow_fork(member, head)

    async def _check_whole(self) -> None:
        """Raises: LogWasLonger, StorageFailed."""
        if self._is_behind:
            await self._log.write_local({_LONGER_ROW: b""})
            length = max(self._log.length, self._claims.greatest_length())
            raise LogWasLonger(
                f"a member holds {length} blocks of our own log, of which we had "
                f"{self._appended_to}: start again, and they are fetched back"
            )

    async def _follow_fork(self, member: Claimant, head: Head) -> None:
        """We have cut our log back once already, and do not know of it."""
        self._claims.drop(member)
        if head.fork > self._log.fork:
            await self._begin_fork(head.fork + 1, **_about(member, head))

    async def _begin_fork(self, fork: int, **about: object) -> None:
        """What we signed beyond our length cannot be had: from here on it is another history."""
        length = self._appended_to
        _log.warning("our log goes on as a new fork", fork=fork, length=length, **about)
        await self._log.truncate(length, fork)
        self._known = self._log.length - self._log.statistics().blocks_appended

    async def _wait_length(self, head: Head) -> bool:
        """Whether a head that long is here, with all that proves it to follow ours."""
        with trio.move_on_after(HEAD_SECONDS):
            await self._log.wait_length(head.length)
            return True
        return False

    def _end(self, member: Member, claim: str) -> None:
        member.expel(f"it claims {claim}")

    async def _recover(self) -> None:
        """A longer head of ours is here: fetch its blocks, or cut it off."""
        log, before = self._log, self._appended_to
        lacking = log.length - before
        _log.warning("our own log was longer", here=before, signed=log.length)
        values: int | None = None
        try:
            await self._fetch_unless_stalled(before)
            values = None if self._rebuild is None else await self._rebuild()
        except _FAILED as error:
            _log.error("our own log cannot be read back", blocks=lacking, error=str(error))
        if values is None:
            await log.truncate(before, log.fork + 1)
            _log.error("our log goes on as a new fork", length=before, blocks_lost=lacking)
        else:
            first = self.recovered.start if self.recovered else before
            self.recovered = range(first, log.length)
            _log.warning("our own log is back", blocks=lacking, values=values)
        self._known = log.length - log.statistics().blocks_appended

    async def _fetch_unless_stalled(self, start: int) -> None:
        """Fetch what can be had of blocks [start, our length)."""
        log = self._log
        received, since = -1, trio.current_time()
        while trio.current_time() < since + STALL_SECONDS:
            with trio.move_on_after(_LOOK_SECONDS):
                await log.download(start, log.length)
                return
            lacking = log.bitfield.first_unset(start)
            if not self._claims.silent and log.replication.nobody_has(lacking):
                return  # all members that were ever met are here
            before, received = received, log.statistics().replication.total.blocks_received
            if received != before:
                since = trio.current_time()


def _about(member: Claimant, head: Head) -> dict[str, object]:
    return {"claimed": head.length, "by": member.id.hex()[:12]}


def _name(head: Head) -> str:
    return f"fork {head.fork}, length {head.length}"
