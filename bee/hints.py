"""What peers said a read will need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from weakref import WeakValueDictionary

from bee.log import LogPeer
from bee.question import Question

MAX_HINTS_PER_REQUEST = 2176
"""Seqs one request may be answered with (the original sends no more: 2,048 + 128)."""

MAX_UNANSWERED = 4
"""Questions in a row without an answer, after which hints are not waited for."""

WAITS_FOR_HINTS = 2
"""Waits of a read in which hints may still come, and little is asked for beside them."""

MAX_HINTS = 4 * MAX_HINTS_PER_REQUEST
"""Seqs remembered; the oldest are forgotten first."""


PUSHED = -1
"""In place of a hint's number: the blocks that it names are sent along with it."""


class Hints:
    """Seqs that peers hinted at and that were therefore asked for, with nobody waiting.

    A peer may name only as many as we asked for: each request gives credit; hints not asked for are
    ignored.
    """

    __slots__ = (
        "_asked",
        "_count",
        "_credit",
        "_numbers",
        "_questions",
        "_unanswered",
        "_waits",
        "are_pushed",
    )

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._count = 0
        self._credit = 0
        self._unanswered = 0
        self._waits = 0
        self._asked = 0
        self._questions: WeakValueDictionary[int, Question] = WeakValueDictionary()
        self.are_pushed = False
        """Whether some peer has sent what it hinted at."""

    def expect(self, requests: int = 1) -> None:
        """A question was sent to our peers, in this many requests."""
        self._credit = min(self._credit + requests * MAX_HINTS_PER_REQUEST, MAX_HINTS)
        self._waits = WAITS_FOR_HINTS if self._unanswered <= MAX_UNANSWERED else 0

    def question(self, peer: LogPeer | None = None) -> Question:
        """A new question to that peer, or to all; it can be answered while somebody holds it."""
        self._asked += 1
        question = self._questions[self._asked] = Question(self._asked, peer)
        return question

    def answer(self, number: int, seqs: Sequence[int], peer: LogPeer) -> None:
        """The peer has answered the question of that number, if it was asked: `seqs` come."""
        question = self._questions.get(number)
        if question is not None and question.peer in (None, peer):
            question.answer(seqs, peer)

    @property
    def count(self) -> int:
        """How many hints have come."""
        return self._count

    def miss(self) -> None:
        """What was asked for has come, and no hint before it."""
        self._unanswered += 1

    def wait_for_more(self) -> bool:
        """Whether hints should come with what a read is about to wait for; counts that wait."""
        if self._waits == 0:
            return False
        self._waits -= 1
        return True

    def add(self, seqs: Iterable[int], length: int, *, is_pushed: bool = False) -> Sequence[int]:
        """A hint arrived; returns what of it is worth fetching from a log of that length."""
        self._unanswered = 0
        fresh = [seq for seq in seqs if 0 < seq < length][: self._credit]
        self._credit -= len(fresh)
        self._count += 1
        self.are_pushed |= is_pushed
        for seq in fresh:
            self._numbers[seq] = PUSHED if is_pushed else self._count
        excess = len(self._numbers) - MAX_HINTS
        if excess > 0:
            for seq in list(islice(self._numbers, excess)):
                del self._numbers[seq]
        return fresh

    def __contains__(self, seq: int) -> bool:
        return seq in self._numbers

    def is_pushed(self, seq: int) -> bool:
        """Whether a peer that sends what it names has named it."""
        return self._numbers.get(seq) == PUSHED

    def number_of(self, seqs: Iterable[int]) -> int:
        """Number (>= 1) of the last hint that named one of these; 0 if any was never named.

        `PUSHED` if all of them follow the hint by themselves.
        """
        numbers = [self._numbers.get(seq, 0) for seq in seqs]
        return 0 if 0 in numbers else max(numbers, default=0)

    def forget(self, seqs: Iterable[int]) -> None:
        """Forget hints at these blocks: they did not come."""
        for seq in seqs:
            self._numbers.pop(seq, None)

    def clear(self) -> None:
        self._numbers.clear()
