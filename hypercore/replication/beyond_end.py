"""What a peer has said that it has beyond our end, where our log has no room to note single blocks.

Only the last run is remembered. Of which windows more was told is noted: these are asked about
again when our end has moved.
"""

from __future__ import annotations

from hypercore.replication.wants import SentWants


class BeyondEnd:
    """The last run that one peer announced beyond our end."""

    def __init__(self, wants: SentWants) -> None:
        self._wants = wants
        self._forgotten: set[int] = set()
        """Windows that were told, of which something was not kept."""

        self.run = range(0)

    def note(self, start: int, stop: int) -> None:
        """The peer has blocks [start, stop), with those of the run if it goes on from that."""
        run = self.run
        if run.start <= start <= run.stop:
            self.run = range(run.start, max(stop, run.stop))
        else:
            self.forgot(run.start, run.stop)
            self.run = range(start, stop)

    def drop(self, start: int, stop: int) -> None:
        """What was said of blocks [start, stop) does not hold any more; the run goes with it."""
        run = self.run
        if start < run.stop and run.start < stop:
            if run.start < start or stop < run.stop:
                self.forgot(run.start, run.stop)
            self.run = range(0)

    def forgot(self, start: int, stop: int) -> None:
        """What the peer has of blocks [start, stop) was told and is not remembered."""
        self._forgotten.update(self._wants.windows(start, stop))

    def reached(self, length: int) -> range:
        """Our log has `length` blocks now: take out those of the run that are not beyond that."""
        for window in self._forgotten:
            self._wants.forget(window)
        self._forgotten.clear()
        start, stop = self.run.start, min(self.run.stop, length)
        if start >= stop:
            return range(0)
        self.run = range(stop, self.run.stop)
        return range(start, stop)
