"""What all cores of a node did since it started, those that are closed again included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hypercore.core import Core
from hypercore.metrics import hypercore_metrics
from hypercore.replication.statistics import Counters
from node.web.status import BlockCounts, CoreStatus


class BlockTally:
    """Adds up the cores that are open when it looks; look now and then, and when one may close."""

    def __init__(self, open_cores: Callable[[], Iterable[Core]]) -> None:
        self._open_cores = open_cores
        self._seen: dict[int, Core] = {}
        self._closed = Counters()
        self._closed_wire: dict[str, int] = {}
        self._closed_verified = 0

    def look(self) -> None:
        """Take note of new cores; keep the counts of closed ones and let them go."""
        for core in self._open_cores():
            self._seen.setdefault(id(core), core)
        for number, core in list(self._seen.items()):
            if core.is_closed:
                statistics = core.statistics()
                self._closed.add(statistics.replication.total)
                for name, value in statistics.replication.wire.items():
                    self._closed_wire[name] = self._closed_wire.get(name, 0) + value
                self._closed_verified += statistics.blocks_verified
                del self._seen[number]

    def counts(self) -> BlockCounts:
        self.look()
        total = Counters()
        total.add(self._closed)
        verified = self._closed_verified
        for core in self._seen.values():
            statistics = core.statistics()
            total.add(statistics.replication.total)
            verified += statistics.blocks_verified
        held = {core: core.info().blocks_held for core in self._seen.values()}
        return BlockCounts(
            held=sum(held.values()),
            held_of_others=sum(count for core, count in held.items() if not core.is_writable),
            fetched=total.blocks_received,
            verified=verified,
            uploaded=total.blocks_sent,
            fetched_bytes=total.bytes_received,
            uploaded_bytes=total.bytes_sent,
        )

    def metrics(self) -> dict[str, float]:
        """Under the names of `hypercore-stats`."""
        self.look()
        return hypercore_metrics(self._seen.values(), self._closed, self._closed_wire)

    def cores(
        self, names: Mapping[bytes, str], members: Mapping[bytes, str]
    ) -> tuple[CoreStatus, ...]:
        """The open cores, own ones first.

        By key, `names` is what we call a core, `members` what the node that writes it is called.
        """
        self.look()
        statuses = []
        for core in self._seen.values():
            info = core.info()
            statuses.append(
                CoreStatus(
                    name=names.get(info.key, ""),
                    member=members.get(info.key, ""),
                    is_own=info.is_writable,
                    key=info.key.hex(),
                    length=info.length,
                    byte_length=info.byte_length,
                    contiguous_length=info.contiguous_length,
                    held=info.blocks_held,
                    is_frozen=info.is_frozen,
                    is_stuck=core.stuck_fork is not None,
                )
            )
        return tuple(
            sorted(
                statuses,
                key=lambda status: (not status.is_own, not status.name, status.name, status.key),
            )
        )
