"""How a member behaves: what it said and did not keep, and what it makes us do. A machine.

Members know the secret of the mesh, so each may be asked for what it says; who lies or floods is
told from who is slow or unlucky by what came of it, and by how long it goes on:

| what                                                             | it goes after              |
|------------------------------------------------------------------|----------------------------|
| values that it announced and did not have when asked             | 32, and 4 in 5 of all      |
| reads of its log that show what no node writes                   | 3, one after the other     |
| reads of its log that stalled though the line carries something  | 3, one after the other     |
| messages that cost more time than they are worth                 | 2 s in debt all the time   |
| messages that nobody knows                                       | 4,096, or 1 MiB            |

A line that carries nothing one way stalls reads, too, so who goes for that may come back at once,
the first time. What is wrong with the content of a log that it has signed is no line's fault.

Time that is spent on its messages is taken from a credit, which grows by a share of all time, and
by what turns out to be true. A member that joins may have to compare 100,000 values, which takes
some 0.3 s; so the credit begins with more. Who has none left is read from later.
"""

from __future__ import annotations

from node.mesh.member_data import Cause

MAX_UNDELIVERED = 32
MAX_UNDELIVERED_PER_DELIVERED = 4
MAX_FAILURES = 3
RUN_SECONDS = 10.0
"""How long a read that stalled is remembered: who speaks meanwhile could have answered it."""

SHARE = 0.15
"""Of our time that any member may take."""

MAX_CREDIT_SECONDS = 0.5
BYTE_SECONDS = 3e-9
"""What it takes to read and decrypt a byte: nobody sees that time from here."""

VALUE_SECONDS = 0.001
"""What a value that was brought over is worth, about what handling it takes."""

CLAIM_SECONDS = 0.0001
MAX_PAUSE_SECONDS = 2.0
MAX_ABSENT = 20_000
ABSENT_PER_SECOND = 2500
"""Values that may be asked for in vain: at once, and for good. Each takes some 60 us to look up, so
that is a share of our time as above; what is here may be asked for at any rate."""

VAIN_PUSH = 6
"""A value of which nothing was left to push counts as so many that are not here: 0.1 to 0.4 ms."""

MAX_DEBT_SECONDS = 2.0
MAX_UNKNOWN = 4096
MAX_UNKNOWN_BYTES = 1 << 20


class Conduct:
    """Of one member on one connection. Seconds are monotonic."""

    def __init__(self, now: float) -> None:
        self.ended_for: str | None = None
        """What it did that it must not, if that is why it goes."""
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
        """When the first read began of those that stalled lately."""
        self._unknown = 0
        self._unknown_bytes = 0
        self._credit = MAX_CREDIT_SECONDS
        self._may_ask = float(MAX_ABSENT)
        self._asked_at = now
        self._updated_at = now
        self._in_debt_since: float | None = None

    @property
    def pause_seconds(self) -> float:
        """How long not to read from it."""
        return min(-self._credit / SHARE, MAX_PAUSE_SECONDS) if self._credit < 0 else 0.0

    def note_delivered(self, values: int) -> None:
        """So much came that it had announced."""
        self.delivered += values
        self._credit += values * VALUE_SECONDS
        self._failures = self._unreadable = 0
        self._in_vain_since = None

    def note_true(self, claims: int) -> None:
        """So much of what it said we hold, too, or had asked for."""
        self._credit += claims * CLAIM_SECONDS

    def note_undelivered(self) -> None:
        self.undelivered += 1

    def note_failure(self, cause: Cause, asked_at: float, heard_at: float) -> None:
        """A read of its log that began at `asked_at` failed, while it was connected.

        If nothing at all was heard of it meanwhile, that says more of the line than of it. But
        who was asked before, was heard after that, and is silent again, answers what it likes.
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

    def absent_pause(self, values: int, now: float) -> float:
        """So many values were looked up for it in vain; how long it waits for the next ones."""
        earned = (now - self._asked_at) * ABSENT_PER_SECOND
        self._asked_at = now
        self._may_ask = min(self._may_ask + earned, MAX_ABSENT) - values
        return max(0.0, -self._may_ask / ABSENT_PER_SECOND)

    def note_unknown(self, size: int) -> None:
        """A message of no known number."""
        self._unknown += 1
        self._unknown_bytes += size

    def note_handled(self, seconds: float, size: int, now: float) -> None:
        """Messages of so many bytes were handled, which took so long."""
        earned = (now - self._updated_at) * SHARE
        self._updated_at = now
        self._credit = min(self._credit + earned, MAX_CREDIT_SECONDS)
        self._credit -= seconds + size * BYTE_SECONDS
        if not self.pause_seconds:
            self._in_debt_since = None
        elif self._in_debt_since is None:
            self._in_debt_since = now

    @property
    def may_be_unlucky(self) -> bool:
        """Whether a line that carries nothing one way would have looked like that, too."""
        return self._failures >= MAX_FAILURES > self._unreadable

    def fault(self, now: float) -> str | None:
        """Why it has to go; None as long as it may stay."""
        if self._unknown > MAX_UNKNOWN or self._unknown_bytes > MAX_UNKNOWN_BYTES:
            return f"{self._unknown} messages that nobody knows, {self._unknown_bytes} bytes"
        if self._failures >= MAX_FAILURES:
            return f"its log cannot be read: {self._failures} reads failed, one after the other"
        most = max(MAX_UNDELIVERED, MAX_UNDELIVERED_PER_DELIVERED * self.delivered)
        if self.undelivered >= most:
            return f"it announced {self.undelivered} values that it did not have"
        if self._in_debt_since is not None and now - self._in_debt_since >= MAX_DEBT_SECONDS:
            seconds = now - self._in_debt_since
            return f"for {seconds:.1f} s its messages cost more than they were worth"
        return None
