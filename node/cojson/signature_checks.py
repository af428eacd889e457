"""[trio] Has signatures checked by another process, while this one does the rest.

The process starts when there is something to check for the first time, and ends when there has been
nothing for a while. Until it is ready, and when it has died, nobody waits for it: what has no
verdict is checked where it is judged.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio

from node.cojson import signature_worker
from node.cojson.crypto import signed_bytes
from node.cojson.foresight import Check, Extensions, Foresight
from node.cojson.messages import Message
from node.cojson.signature_worker import READY, signature_check
from node.covalue.content import Content
from swarm.io.tasks import Wakeup

MIN_CHECKS = 8
"""Fewer at once are not worth the round trip: it takes 0.1 ms, a signature 0.06."""

LOOKS = 16
"""Messages looked at in a turn, as many as are judged in one; signatures checked in one."""

MANY_CHECKS = 512
"""So many take 30 ms."""

MAX_CHECKS = 4096
"""Under way; beyond it signatures are checked where they are judged."""

IDLE_SECONDS = 600.0
"""Nothing to check for so long ends the process, which takes 13 MB."""

STALL_SECONDS = 10.0
"""Without a verdict for so long the process is ended: somebody may have stopped it."""

RESTART_SECONDS = 60.0
"""After it died, or did not start."""

_log = structlog.get_logger(__name__)


COMMAND = (sys.executable, "-P", signature_worker.__file__)


class Batch:
    """Checks that were handed over together, in order; one task waits for them."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = checks
        self.done = 0
        self.progress = Wakeup()

    def take(self, verdicts: bytes | bytearray) -> bytes | bytearray:
        """Note the verdicts of the next checks; returns the rest, which are another batch's."""
        end = min(self.done + len(verdicts), len(self.checks))
        taken = end - self.done
        for (extension, key), verdict in zip(self.checks[self.done : end], verdicts, strict=False):
            extension.verdict = key, verdict == 1
        self.done = end
        self.progress.set()
        return verdicts[taken:]

    @property
    def is_done(self) -> bool:
        return self.done == len(self.checks)

    def give_up(self) -> None:
        """Nobody will look at the rest."""
        self.done = len(self.checks)
        self.progress.set()

    async def wait(self, count: int) -> None:
        """Return when the first `count` of them have been looked at, or nobody will do it."""
        while self.done < count:
            await self.progress.wait()


class SignatureChecker:
    """`run` it beside its users."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        idle_seconds: float = IDLE_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._command = command
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._process_scope = trio.CancelScope()
        self._unsent = bytearray()
        self._batches: deque[Batch] = deque()
        self._under_way = 0
        self._wake = Wakeup()
        self._is_wanted = False
        self._is_ready = False
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def is_running(self) -> bool:
        """Whether the process is there and ready to check."""
        return self._is_ready

    async def wait_running(self, is_running: bool = True) -> None:
        """Return when there is one, or none. Cancel: nothing is changed."""
        while self._is_ready is not is_running:
            await self._changed.park()

    def hand_over(self, checks: Sequence[Check]) -> Batch | None:
        """Have all of these checked; None if they will not be."""
        if len(checks) < MIN_CHECKS or self._under_way + len(checks) > MAX_CHECKS:
            return None
        if not self._is_ready:
            self._is_wanted = True
            self._wake.set()
            return None
        for extension, key in checks:
            text = signed_bytes(extension.running)
            self._unsent += signature_check(extension.signature, key, text)
        batch = Batch(checks)
        self._batches.append(batch)
        self._under_way += len(checks)
        self._wake.set()
        return batch

    async def wait_checked(self, batch: Batch, count: int) -> None:
        """Return when the first `count` of a batch have a verdict, or will get none.

        Cancel: nothing is changed.
        """
        if batch.done < count:
            with trio.move_on_after(self._stall_seconds) as patience:
                await batch.wait(count)
            if patience.cancelled_caught:
                self._process_scope.cancel()
                await batch.wait(count)

    async def run(self) -> None:
        """Run until cancelled: that ends the process, and nobody waits for verdicts any more."""
        while True:
            while not self._is_wanted:
                await self._wake.wait()
            try:
                is_idle = await self._use_process()
            finally:
                self._give_up()
            if not is_idle:
                _log.warning("signatures are checked without another process for a while")
                await trio.sleep(RESTART_SECONDS)

    async def _use_process(self) -> bool:
        """Start it and give it work until there is none for long; False: it ended before."""
        is_idle = False
        try:
            async with trio.open_nursery() as nursery:
                self._process_scope = nursery.cancel_scope
                start = partial(
                    trio.run_process,
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    check=False,
                    deliver_cancel=_kill,
                )
                process: trio.Process = await nursery.start(start)
                nursery.start_soon(self._take_verdicts, process)
                is_idle = await self._send_checks(process)
                nursery.cancel_scope.cancel()
        except* OSError as group:
            error = str(group.exceptions[0])
            _log.warning("cannot start the process that checks signatures", error=error)
        except* trio.BrokenResourceError:
            pass  # it died
        return is_idle

    async def _send_checks(self, process: trio.Process) -> bool:
        assert process.stdin is not None
        await self.wait_running()
        while True:
            with trio.move_on_after(self._idle_seconds) as patience:
                await self._wake.wait()
            if patience.cancelled_caught and not self._batches:
                return True
            if self._unsent:
                unsent, self._unsent = self._unsent, bytearray()
                await process.stdin.send_all(unsent)

    async def _take_verdicts(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self._is_ready = await process.stdout.receive_some(len(READY)) == READY
        self._changed.unpark_all()
        while verdicts := await process.stdout.receive_some():
            self._under_way -= len(verdicts)
            while verdicts:
                batch = self._batches[0]
                verdicts = batch.take(verdicts)
                if batch.is_done:
                    self._batches.popleft()
        self._process_scope.cancel()

    def _give_up(self) -> None:
        for batch in self._batches:
            batch.give_up()
        self._batches.clear()
        self._unsent.clear()
        self._under_way = 0
        self._is_wanted = self._is_ready = False
        self._changed.unpark_all()


async def _kill(process: trio.Process) -> None:
    process.kill()  # it holds nothing


class LookAhead:
    """Messages of one sender of which some signatures are checked before they are judged."""

    def __init__(
        self,
        foresight: Foresight | None = None,
        batch: Batch | None = None,
        checker: SignatureChecker | None = None,
    ) -> None:
        self._foresight = foresight
        self._batch = batch
        self._checker = checker

    @classmethod
    async def of(
        cls,
        checker: SignatureChecker | None,
        foresight_of: Callable[[str | None, bool], Foresight | None],
        peer_id: str | None,
        messages: Sequence[Message],
    ) -> LookAhead:
        """Have the signatures of what came together checked, as far as that pays.

        Many in one message are checked before that is judged, in any case, so that others have
        their turn meanwhile. `foresight_of` tells what to look with, for this client, or a member,
        and something large or not.

        Cancel: nothing is changed.
        """
        parts = sum(len(message.new) for message in messages if isinstance(message, Content))
        is_large = parts >= MANY_CHECKS
        if parts < MIN_CHECKS or (checker is None and not is_large):
            return cls()
        foresight = foresight_of(peer_id, is_large)
        if foresight is None:
            return cls()
        for count, message in enumerate(messages, 1):
            for _ in foresight.steps(message):
                await trio.lowlevel.checkpoint()
            if count % LOOKS == 0:
                await trio.lowlevel.checkpoint()
        batch = None if checker is None else checker.hand_over(foresight.checks)
        if batch is None and is_large:
            for count, (extension, key) in enumerate(foresight.checks, 1):
                extension.is_signed_by(key)
                if count % LOOKS == 0:
                    await trio.lowlevel.checkpoint()
        return cls(foresight, batch, checker)

    async def wait(self, stop: int) -> None:
        """Return when signatures of the first `stop` messages have a verdict, or will get none.

        Cancel: nothing is changed.
        """
        if self._foresight and self._batch and self._checker:
            await self._checker.wait_checked(self._batch, self._foresight.checks_within[stop])

    def extensions(self, start: int, stop: int) -> Sequence[Extensions]:
        """Of the messages [start, stop); empty when nothing was foreseen."""
        return () if self._foresight is None else self._foresight.extensions[start:stop]
