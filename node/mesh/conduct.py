"""How a member behaves: where it does not keep its word, and what it makes us do. A machine.

Members know the secret of the mesh, so each can be held to what it says; one that lies or floods
is told from one that is slow, busy or unlucky by what comes of it. Only what a slow machine does
no more often than a fast one is counted:

| what                                                             | it is expelled after       |
|------------------------------------------------------------------|----------------------------|
| values that it announced and did not have when asked             | 32, 1 a minute, 4 in 5     |
| reads of its log that show what no node writes                   | 3, one after the other     |
| values whose rows this node cannot read, beyond the 4,096 first  | 3, one after the other     |
| reads of its log that stalled though the line carries something  | 3, one after the other     |
| messages that say nothing, or the same as the one before         | 256, and 6 a minute        |
| changes of what it follows                                       | 64, and 5 a second         |
| values told of that nobody wants to hear of                      | 50,000, and 500 a second   |
| words about members                                              | the same                   |
| replies to what it was not told                                  | 50,000, and 4 for each     |
| messages that nobody knows                                       | 4,096, and 1 a second      |
| bytes of these                                                   | 1 MiB, and 1 KiB a second  |

Connections live for months: what is no fault once a day is none on the thousandth day.

A line that carries nothing one way stalls reads, too, so a member expelled for that may come back
at once, the first time. What is wrong with the content of a log that it signed is no line's fault.

Work, on the other hand, is nobody's fault: a node with many clients asks for a lot, and one that
was away for long has to compare everything. A member that takes more of our time than its share is
read and answered later (`effort`), at once, and for as long as it goes on. A claim that turns out
to be true pays for itself. Asking now and then for each value that is here costs nothing, and
neither does asking for some that are not.
"""

from __future__ import annotations

from node.mesh.effort import Effort, Quota
from node.mesh.member_data import Cause

MAX_UNDELIVERED = 32
UNDELIVERED_PER_SECOND = 1 / 60
"""A value may be erased, or given up, between the word of it and the question."""

MAX_UNDELIVERED_PER_DELIVERED = 4
MAX_FAILURES = 3
RUN_SECONDS = 10.0
"""How long a stalled read is remembered: a member that speaks meanwhile could have answered it."""

VALUE_SECONDS = 0.001
"""What a value that was brought over is worth: about what handling it takes."""

CLAIM_SECONDS = 0.0001
MAX_TRUE = 20_000
TRUE_PER_SECOND = 2000
"""Claims that pay for themselves because they are true: the same may be said again and again."""

MAX_ABSENT = 8000
ABSENT_PER_SECOND = 100
"""Values that may be asked for in vain at no cost: what eight clients that come from elsewhere ask
for. Each takes some 60 us to look up."""

MIN_PRESENT = 8000
PRESENT_PER_SECOND = 1 / 100
"""Every value that is here may be asked for at no cost, and again after a long while (this part of
them each second); a node compares what it keeps when it meets another, and every five minutes."""

SESSIONS_PER_LOOKUP = 128
"""A value with more sessions takes as long to look up, and to tell of, as several: that is paid."""

MAX_IDLE = 256
IDLE_PER_SECOND = 1 / 10
"""A node sends a few such messages when it meets another, and when messages cross."""

MAX_TURNS = 64
TURNS_PER_SECOND = 5
"""How often it may follow something else. A member that reads our log in vain asks twice a second
to be told of everything once more, and that takes two messages."""

MAX_IDLE_WORDS = 50_000
IDLE_WORDS_PER_SECOND = 500
"""More than are on their way when we lose interest, or than a mesh has members."""

REPLIES_PER_VALUE = 4
"""A member may not know a short name, then hold nothing, then a part, and all in the end."""

MAX_UNKNOWN = 4096
UNKNOWN_PER_SECOND = 1
MAX_UNKNOWN_BYTES = 1 << 20
UNKNOWN_BYTES_PER_SECOND = 1 << 10


def extra_lookups(sessions: int) -> int:
    """As how many more values one with so many sessions counts."""
    return sessions // SESSIONS_PER_LOOKUP


class Allowance:
    """What one node may have of our time, and of what is free, on all its connections together."""

    def __init__(self, now: float) -> None:
        self.effort = Effort(now)
        self.true = Quota(MAX_TRUE, TRUE_PER_SECOND, now)
        self.absent = Quota(MAX_ABSENT, ABSENT_PER_SECOND, now)
        self.present = Quota(MIN_PRESENT, MIN_PRESENT * PRESENT_PER_SECOND, now)

    def use_up(self, now: float) -> None:
        """Nothing is left of it; it fills with time."""
        for part in (self.effort, self.true, self.absent, self.present):
            part.use_up(now)


class Conduct:
    """The conduct of one member on one connection. Seconds are monotonic."""

    def __init__(self, now: float) -> None:
        self.allowance = Allowance(now)
        """Replaced, once it is admitted, by the one that it had when it was here before."""
        self.ended_for: str | None = None
        """What it did wrong, if that is why it goes."""
        self._was_unlucky: bool | None = None
        self.undelivered = 0
        """Values that it announced, and did not have when it was asked for them."""
        self.delivered = 0
        self.heads = 0
        """Words about how long our log is."""
        self.runs_told = 0
        """Words about other runs with our key, or with its own."""
        self.evidence_received = 0
        """Pieces of evidence, known ones included."""
        self.evidence_unproven = 0
        """Pieces that could not be judged here."""
        self.is_unread = False
        """Whether a read of what it announced failed, and is to be done again."""
        self._failures = 0
        self._unreadable = 0
        """Failures that no line is to blame for."""
        self._in_vain_since: float | None = None
        """When the first of the reads that stalled lately began."""
        self._is_short = False
        """Whether it lacked more of what it had announced than chance explains."""
        self._replies = 0
        self._flood: str | None = None
        """What there was too much of."""
        self._turns = Quota(MAX_TURNS, TURNS_PER_SECOND, now)
        self._unwanted = Quota(MAX_IDLE_WORDS, IDLE_WORDS_PER_SECOND, now)
        self._gossip = Quota(MAX_IDLE_WORDS, IDLE_WORDS_PER_SECOND, now)
        self._idle = Quota(MAX_IDLE, IDLE_PER_SECOND, now)
        self._missed = Quota(MAX_UNDELIVERED - 1, UNDELIVERED_PER_SECOND, now)
        self._unknown = Quota(MAX_UNKNOWN, UNKNOWN_PER_SECOND, now)
        self._unknown_bytes = Quota(MAX_UNKNOWN_BYTES, UNKNOWN_BYTES_PER_SECOND, now)

    @property
    def effort(self) -> Effort:
        return self.allowance.effort

    def note_delivered(self, values: int) -> None:
        """So many values came that it had announced."""
        self.delivered += values
        self.effort.earn(values * VALUE_SECONDS)
        self._failures = self._unreadable = 0
        self._in_vain_since = None

    def note_true(self, claims: int, now: float) -> None:
        """So many of its claims were about what we hold, too, or had asked for."""
        self.effort.earn(self.allowance.true.take(claims, now) * CLAIM_SECONDS)

    def note_undelivered(self, now: float) -> None:
        self.undelivered += 1
        self._is_short = not self._missed.take(1, now)

    def note_failure(self, cause: Cause, asked_at: float, heard_at: float) -> None:
        """A read of its log that began at `asked_at` failed, while it was connected.

        If nothing at all was heard of it meanwhile, that says more about the line than about it.
        But a member that was asked before, was heard after that, and is silent again, answers only
        what it likes.
        """
        if cause is Cause.OUR_DISK:
            return
        self.is_unread = True
        if cause is Cause.CONTENT:
            self._failures += 1
            self._unreadable += 1
            return
        since = self._in_vain_since
        if since is None or asked_at - since > RUN_SECONDS:
            since = self._in_vain_since = asked_at
        self._failures += heard_at > since

    def note_looked_up(
        self, seconds: float, present: int, absent: int, stored: int, now: float, extra: int = 0
    ) -> float:
        """Looking up values for it took so long; returns which part of that it has to pay.

        `present` of them are here, of `stored` in all; with their sessions they took as long as
        `extra` more would have.
        """
        free = self.allowance.absent.take(absent, now)
        free += self.allowance.present.take(present, now, most=stored)
        paid = present + absent + extra - free
        if not paid:
            return 0.0
        share = paid / (present + absent + extra)
        self.effort.spend(seconds * share, now)
        return share

    def note_idle(self, now: float) -> None:
        """A message that said nothing, or what it had said before."""
        if not self._idle.take(1, now):
            self._flood = "messages that say nothing, or nothing new, one after the other"

    def note_turn(self, now: float) -> None:
        """It follows something else from now on."""
        if not self._turns.take(1, now):
            self._flood = "changes of what it follows, one after the other"

    def note_unwanted(self, values: int, now: float) -> None:
        """It told of values of which we do not want to hear."""
        if self._unwanted.take(values, now) < values:
            self._flood = "word of values that nobody asked it to tell of, without end"

    def note_gossip(self, words: int, now: float) -> None:
        """It said something about members."""
        if self._gossip.take(words, now) < words:
            self._flood = "words about members without end"

    def note_reply(self, values: int, told: int) -> None:
        """It replied about so many values; it was told of `told` in all so far."""
        self._replies += values
        if self._replies > MAX_IDLE_WORDS + REPLIES_PER_VALUE * told:
            self._flood = f"{self._replies} replies to {told} values that it was told of"

    def note_unknown(self, size: int, now: float) -> None:
        """A message whose number is not known here."""
        has_room = self._unknown_bytes.take(size, now) == size
        if not (self._unknown.take(1, now) and has_room):
            self._flood = "messages that nobody knows, one after the other"

    def end(self, fault: str | None) -> None:
        """It goes; what comes of reads that are still under way changes nothing any more."""
        self._was_unlucky = self.may_be_unlucky
        self.ended_for = fault

    @property
    def may_be_unlucky(self) -> bool:
        """Whether a line that carries nothing one way would have looked like that, too."""
        if self._was_unlucky is not None:
            return self._was_unlucky
        return self._failures >= MAX_FAILURES > self._unreadable

    def fault(self) -> str | None:
        """Why it has to go; None as long as it may stay."""
        if self._failures >= MAX_FAILURES:
            return f"its log cannot be read: {self._failures} reads failed, one after the other"
        most = MAX_UNDELIVERED_PER_DELIVERED * self.delivered
        if self._is_short and self.undelivered >= most:
            return f"it announced {self.undelivered} values that it did not have"
        return self._flood
