"""What all cores of a node did since it started, those that are closed again included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hypercore.core import Core
from hypercore.replication.statistics import Counters
from node.web.status import BlockCounts, CoreStatus


class BlockTally:
    """Adds up the cores that are open when it looks; look now and then, and when one may close."""

    def __init__(self, open_cores: Callable[[], Iterable[Core]]) -> None:
        self._open_cores = open_cores
        self._seen: dict[int, Core] = {}
        self._closed = Counters()
        self._closed_verified = 0

    def look(self) -> None:
        """Take note of new cores; keep the counts of closed ones and let them go."""
        for core in self._open_cores():
            self._seen.setdefault(id(core), core)
        for number, core in list(self._seen.items()):
            if core.is_closed:
                statistics = core.statistics()
                self._closed.add(statistics.replication.total)
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
        return BlockCounts(
            held=sum(core.info().blocks_held for core in self._seen.values()),
            fetched=total.blocks_received,
            verified=verified,
            uploaded=total.blocks_sent,
            fetched_bytes=total.bytes_received,
            uploaded_bytes=total.bytes_sent,
        )

    def cores(self, names: Mapping[bytes, str]) -> tuple[CoreStatus, ...]:
        """The open cores, those with a name (by key) first."""
        self.look()
        statuses = []
        for core in self._seen.values():
            info = core.info()
            statuses.append(
                CoreStatus(
                    name=names.get(info.key, ""),
                    key=info.key.hex(),
                    length=info.length,
                    byte_length=info.byte_length,
                    contiguous_length=info.contiguous_length,
                    held=info.blocks_held,
                )
            )
        return tuple(sorted(statuses, key=lambda status: (not status.name, status.name)))
