"""Runs seeds; what is wrong with one comes back as text."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.conversations.comparison import differences, loading_faults
from tests.conversations.engine import EngineServer
from tests.conversations.original import OriginalProcess, OriginalServer, open_original
from tests.conversations.party import Cost, Outcome, Party
from tests.conversations.script import STEPS, write_script


@dataclass
class Report:
    """What the conversations of a campaign came to."""

    seeds: int = 0
    written: int = 0
    early: int = 0
    heard: int = 0
    ours: Cost = field(default_factory=Cost)
    original: Cost = field(default_factory=Cost)
    """What went either way; of the original only where there was one."""
    failures: dict[int, list[str]] = field(default_factory=dict)
    original_failures: dict[int, list[str]] = field(default_factory=dict)
    """Where cojson's server is at fault; ours is not compared with it there.

    Seen are values of which it keeps the header alone: their first content held a deletion, too,
    which it did not take.
    """


class Campaign:
    """With our server alone, which then loses things too, or beside the original."""

    def __init__(self, *, has_original: bool, steps: int = STEPS) -> None:
        self.report = Report()
        self._has_original = has_original
        self._steps = steps
        self._stack = ExitStack()
        self._process: OriginalProcess | None = None

    def __enter__(self) -> Self:
        if self._has_original:
            self._process = self._stack.enter_context(open_original())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def run(self, seed: int) -> Outcome:
        """The conversation with our server; what was wrong is in `faults`."""
        script = write_script(seed, steps=self._steps, has_mishaps=self._process is None)
        server = EngineServer(seed)
        ours = Party(script, server).hold()
        if self._process is not None:
            ours.faults += loading_faults(server, self._process, ours.held["reader"])
            original = Party(script, OriginalServer(self._process)).hold()
            if original.faults:
                self.report.original_failures[seed] = original.faults
            else:
                # Claims that are doubted after a crash, as cojson does not, have a price: who is
                # sent the end of one session again sends all others.
                ours.faults += differences(ours, original, compares_costs=not server.cuts_sessions)
            _add(self.report.original, original)
        self._count(ours)
        return ours

    def _count(self, ours: Outcome) -> None:
        self.report.seeds += 1
        self.report.written += ours.written
        self.report.early += ours.early
        self.report.heard += ours.heard.messages
        _add(self.report.ours, ours)
        if ours.faults:
            self.report.failures[ours.seed] = ours.faults


def _add(cost: Cost, outcome: Outcome) -> None:
    cost.add(outcome.said)
    cost.add(outcome.heard)
