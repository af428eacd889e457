"""Our sync engine as a server of conversations: with a disk that takes its time and may lose.

What it says goes through an outbox for each client, which joins acknowledgements that wait. Of some
servers clients are told only what a member of the mesh has copied, too.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

from node.cojson.copies import CopyGate, Overdue
from node.cojson.messages import Known, Load, Message, decode_line, encode_message
from node.cojson.outbox import Outbox
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import SessionCounts, merge_counts
from tests.conversations.client import Spoken
from tests.support.engine_shell import Disk, EngineShell

_MEMBER = bytes(32)
_MEMORY_BYTES = [0, 3000, 2**26]
"""For verified state: nearly none, too little, enough."""


class EngineServer:
    """What the engine asks for waits until `work`."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"engine {seed}")
        self._memory_bytes = self._chance.choice(_MEMORY_BYTES)
        self._enforces_writes = self._chance.random() < 0.3
        self.cuts_sessions = self._chance.random() < 0.5
        self._min_copies = 2 if self._chance.random() < 0.3 else 1
        self._copied: dict[RawCoId, dict[CoSessionId, int]] = {}
        """What the member has said to have, durably: no crash of ours takes that back."""
        self._begun: list[tuple[RawCoId, SessionCounts]] = []
        self._remembered: Disk | None = None
        self.faults: list[str] = []
        self._has_lost = False
        self._boot(Disk())

    @property
    def keeps_order(self) -> bool:
        """Not if it may have lost what it had sent, or said to have."""
        return not self._has_lost

    def _boot(self, disk: Disk) -> None:
        self._shell = EngineShell(
            disk, memory_bytes=self._memory_bytes, enforces_writes=self._enforces_writes
        )
        self._shell.holds_reads = True
        self._shell.cuts_sessions = self.cuts_sessions
        self._shell.engine.cut_streams.journal = self
        for co_id, announced in self._begun:
            self._shell.engine.cut_streams.note(co_id, announced)
        self._outboxes: dict[str, Outbox] = {}
        self._gate = CopyGate(self._min_copies)

    def begin(self, co_id: RawCoId, announced: SessionCounts) -> None:
        """Whoever is being sent this may be cut: that is known after a restart, too."""
        self._begun.append((co_id, announced))

    def join(self, peer: str) -> None:
        self._outboxes[self._shell.client(peer)] = Outbox()

    def leave(self, peer: str) -> None:
        self._shell.leave(peer)
        self._gate.forget(peer)
        del self._outboxes[peer]

    def say(self, peer: str, messages: Sequence[Spoken]) -> None:
        self._shell.say(peer, *messages)

    def take(self, peer: str) -> list[Spoken]:
        """All that waits, or a line of it: values are read when no other waits."""
        outbox = self._outboxes[peer]
        self._fill(peer)
        lines = outbox.take_lines(1 if self._chance.random() < 0.3 else 1 << 30)
        said = [decode_line(line) for line in lines]
        if not outbox.control_bytes:
            said += [self._screened(peer, message) for message in self._shell.take(peer)]
        spoken = [message for message in said if message is not None]
        for message in spoken:
            assert isinstance(message, Spoken)
            if isinstance(message, Known):
                self._check(message)
        return [message for message in spoken if isinstance(message, Spoken)]

    def _fill(self, peer: str) -> None:
        """Move what the engine said to the outbox."""
        messages, self._shell.sent[peer] = self._shell.sent[peer], []
        for message in messages:
            said = self._screened(peer, message)
            if isinstance(said, Known | Load):
                self._outboxes[peer].say(said)
            elif said is not None:
                self._outboxes[peer].push(encode_message(said))

    def _screened(self, peer: str, message: Message) -> Message | None:
        if not isinstance(message, Known | Load):
            return message
        engine, co_id = self._shell.engine, message.co_id
        claimed = engine.claimed_by(peer, co_id)
        said = self._gate.screen(peer, message, engine.durable_state(co_id), claimed)
        assert not isinstance(said, Overdue)
        return said

    def _copy(self) -> bool:
        """The member copies all that somebody waits for; whether that is told to anybody."""
        is_told = False
        for peer in self._outboxes:
            self._fill(peer)
        for co_id in list(self._gate.ledger.watched):
            counts = {key: len(log) for key, log in self._shell.disk.logs[co_id].items()}
            self._copied[co_id] = merge_counts(self._copied.get(co_id, {}), counts)
            if self._gate.ledger.note(_MEMBER, co_id, self._copied[co_id]):
                for peer, known in self._gate.due(co_id, self._shell.engine.durable_state(co_id)):
                    self._outboxes[peer].say(known)
                    is_told = True
        return is_told

    def _check(self, known: Known) -> None:
        """Nothing is acknowledged that is not stored in all copies; of deleted values all is."""
        disk, co_id = self._shell.disk, known.co_id
        if co_id in disk.deleted:
            return
        for session_id, count in known.known.sessions.items():
            if count > len(disk.logs[co_id].get(session_id, ())):
                self.faults.append(f"{count} of {session_id} in {co_id} acknowledged, not stored")
            copied = self._copied.get(co_id, {}).get(session_id, 0)
            if self._min_copies > 1 and count > copied:
                self.faults.append(f"{count} of {session_id} in {co_id} acknowledged, not copied")

    def work(self) -> None:
        """Answer one read, store something of what is to be stored, or have it copied."""
        if self._chance.random() < 0.2:
            self._copy()
        elif self._shell.reads and self._chance.random() < 0.6:
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
        return self._copy() or is_busy

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
        for peer in self._outboxes:
            self._shell.carry_out(self._shell.engine.listened(peer, is_quiet=True))
