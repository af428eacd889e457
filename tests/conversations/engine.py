"""Our sync engine as a server of conversations: with a disk that takes its time and may lose."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

from node.cojson.messages import Known
from node.covalue.ids import RawCoId
from node.covalue.known_state import SessionCounts
from tests.conversations.client import Spoken
from tests.support.engine_shell import Disk, EngineShell

_MEMORY_BYTES = [0, 3000, 2**26]
"""For verified state: nearly none, too little, enough."""


class EngineServer:
    """What the engine asks for waits until `work`."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"engine {seed}")
        self._memory_bytes = self._chance.choice(_MEMORY_BYTES)
        self._enforces_writes = self._chance.random() < 0.3
        self.cuts_sessions = self._chance.random() < 0.5
        self._begun: list[tuple[RawCoId, SessionCounts]] = []
        self._remembered: Disk | None = None
        self.faults: list[str] = []
        self._has_lost = False
        self._boot(Disk())

    @property
    def keeps_order(self) -> bool:
        """Not if it may have forgotten what depends on what when a value's turn comes."""
        return self._memory_bytes == _MEMORY_BYTES[-1] and not self._has_lost

    def _boot(self, disk: Disk) -> None:
        self._shell = EngineShell(
            disk, memory_bytes=self._memory_bytes, enforces_writes=self._enforces_writes
        )
        self._shell.holds_reads = True
        self._shell.cuts_sessions = self.cuts_sessions
        self._shell.engine.cut_streams.journal = self
        for co_id, announced in self._begun:
            self._shell.engine.cut_streams.note(co_id, announced)
        self._peers: dict[str, None] = {}

    def begin(self, co_id: RawCoId, announced: SessionCounts) -> None:
        """Whoever is being sent this may be cut: that is known after a restart, too."""
        self._begun.append((co_id, announced))

    def join(self, peer: str) -> None:
        self._peers[self._shell.client(peer)] = None

    def leave(self, peer: str) -> None:
        self._shell.leave(peer)
        del self._peers[peer]

    def say(self, peer: str, messages: Sequence[Spoken]) -> None:
        self._shell.say(peer, *messages)

    def take(self, peer: str) -> list[Spoken]:
        spoken: list[Spoken] = []
        for message in self._shell.take(peer):
            assert isinstance(message, Spoken)
            if isinstance(message, Known):
                self._check(message)
            spoken.append(message)
        return spoken

    def _check(self, known: Known) -> None:
        """Nothing is acknowledged that is not on the disk; of deleted values all is."""
        disk, co_id = self._shell.disk, known.co_id
        if co_id in disk.deleted:
            return
        for session_id, count in known.known.sessions.items():
            if count > len(disk.logs[co_id].get(session_id, ())):
                self.faults.append(f"{count} of {session_id} in {co_id} acknowledged, not stored")

    def work(self) -> None:
        """Answer one read, or store something of what is to be stored."""
        if self._shell.reads and self._chance.random() < 0.6:
            self._shell.answer_read()
        elif self._shell.stores:
            self._shell.commit(self._chance.choice([None, 1]))

    def rest(self) -> bool:
        is_busy = False
        while self._shell.reads or self._shell.stores:
            is_busy = True
            while self._shell.reads:
                self._shell.answer_read()
            self._shell.commit()
        return is_busy

    def restart(self) -> None:
        self._boot(self._shell.disk)

    def remember(self) -> None:
        """Make a backup."""
        self._remembered = copy.deepcopy(self._shell.disk)

    def restore(self) -> None:
        """Go on with the backup, if there is one."""
        self._has_lost = True
        self._boot(copy.deepcopy(self._remembered or self._shell.disk))

    def lose(self) -> None:
        """Some value cannot be written any more, just now."""
        if not self._shell.stores:
            return
        self._has_lost = True
        lost = self._chance.choice(self._shell.stores).append.co_id
        tickets = [store.ticket for store in self._shell.stores if store.append.co_id == lost]
        self._shell.stores = [store for store in self._shell.stores if store.append.co_id != lost]
        self._shell.carry_out(self._shell.engine.not_stored(tickets))

    def forget(self) -> None:
        """Nothing is used for two rounds."""
        for _ in range(3):
            self._shell.engine.begin_round()
        self._shell.engine.forget_unused(3)

    def lapse(self) -> None:
        """A while passes in which nobody says anything."""
        self._shell.carry_out(self._shell.engine.ask_again())
        for peer in self._peers:
            self._shell.carry_out(self._shell.engine.listened(peer, is_quiet=True))
