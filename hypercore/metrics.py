"""The figures of many cores under the names that `hypercore-stats` gives them.

So dashboards made for JavaScript nodes read ours. Left out are those for which we have nothing to
report: caches and sessions (there are none of the kind), and the file system's room.

Source: hypercore-stats 2.5.1 (the names, and what is summed under each).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from hypercore.core_info import CoreStatistics
from hypercore.replication.statistics import Counters

_WIRE = ("sync", "request", "cancel", "data", "want", "bitfield", "range", "extension")
_WAYS = {"received": "rx", "transmitted": "tx"}


class MeasuredCore(Protocol):
    """What is asked of each core; `hypercore.core.Core` satisfies it."""

    @property
    def length(self) -> int: ...
    @property
    def contiguous_length(self) -> int: ...
    def statistics(self) -> CoreStatistics: ...


def hypercore_metrics(
    cores: Iterable[MeasuredCore],
    departed: Counters | None = None,
    departed_wire: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """By name. `departed` and `departed_wire` are the counts of cores that are closed by now."""
    total = Counters()
    wire = dict(departed_wire or {})
    if departed is not None:
        total.add(departed)
    count = full = length = in_flight = most_in_flight = 0
    remotes: set[bytes] = set()
    round_trips: list[float] = []
    for core in cores:
        count += 1
        length += core.length
        full += core.length == core.contiguous_length
        replication = core.statistics().replication
        total.add(replication.total)
        for name, value in replication.wire.items():
            wire[name] = wire.get(name, 0) + value
        for peer in replication.peers:
            remotes.add(peer.remote_public_key)
            in_flight += peer.requests_in_flight
            most_in_flight += peer.max_requests_in_flight
            if peer.round_trip_seconds:
                round_trips.append(peer.round_trip_seconds)
    metrics: dict[str, float] = {
        "hypercore_total_cores": count,
        "hypercore_total_fully_downloaded_cores": full,
        "hypercore_total_length": length,
        "hypercore_total_inflight_blocks": in_flight,
        "hypercore_total_max_inflight_blocks": most_in_flight,
        "hypercore_total_peers": len(remotes),
        "hypercore_round_trip_time_avg_seconds": sum(round_trips) / max(len(round_trips), 1),
        "hypercore_total_blocks_uploaded": total.blocks_sent,
        "hypercore_total_blocks_downloaded": total.blocks_received,
        "hypercore_total_bytes_uploaded": total.bytes_sent,
        "hypercore_total_bytes_downloaded": total.bytes_received,
        "hypercore_total_hotswaps": total.hotswaps,
        "hypercore_invalid_data": total.invalid_data,
        "hypercore_invalid_requests": total.invalid_requests,
    }
    for kind in _WIRE:
        for way, suffix in _WAYS.items():
            metrics[f"hypercore_total_wire_{kind}_{way}"] = wire.get(f"wire_{kind}_{suffix}", 0)
    return metrics
