"""The node's statistics as Prometheus metrics; read when scraped, counted nowhere twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from node.web.status import AccessStatus, NodeStatus
from swarm.reach import Reach

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Figures = Mapping[str, tuple[str, float]]
"""By name: the help text of each figure, and its value."""


class StatusCollector(Collector):
    """Turns one status into metric families at each scrape."""

    def __init__(self, read_status: Callable[[], NodeStatus]) -> None:
        self._read_status = read_status

    def collect(self) -> Iterable[Metric]:
        status = self._read_status()
        yield InfoMetricFamily(
            "beemesh_node",
            "Which node this is",
            {"id": status.id, "name": status.name, "version": status.version},
        )
        yield from _families(GaugeMetricFamily, "beemesh", _gauges(status))
        yield from _families(CounterMetricFamily, "beemesh", _counters(status))
        length = GaugeMetricFamily("beemesh_core_length", "Blocks of a named core", labels=["core"])
        for core in status.cores:
            if core.name:
                length.add_metric([core.name], core.length)
        yield length
        yield from _collect_ways(status)
        yield from _collect_access(status.access)
        yield from _collect_room(status)
        for name, value in status.hypercore.items():
            text = name.removeprefix("hypercore_").replace("_", " ")
            yield GaugeMetricFamily(name, f"As hypercore-stats: {text}", value)


def _families(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily], prefix: str, figures: _Figures
) -> Iterable[Metric]:
    for name, (text, value) in figures.items():
        yield kind(f"{prefix}_{name}", text, float(value))


def _gauges(status: NodeStatus) -> _Figures:
    clients, sync, compaction = status.clients, status.sync, status.compaction
    return {
        "uptime_seconds": ("Seconds since the start", status.uptime_seconds),
        "covalues": ("coValues held", status.covalues),
        "peers": ("Connected nodes", status.peers),
        "members_kept_out": (
            "Members sent away for a while",
            sum(penalty.seconds_left > 0 for penalty in status.penalties),
        ),
        "clients": ("Connected Jazz clients", clients.connected),
        "covalues_in_memory": ("coValues whose state is in memory", sync.in_memory),
        "covalues_withheld": (
            "coValues that clients cannot take, wholly or in part",
            len(sync.withheld),
        ),
        "covalues_subscribed": ("coValues that clients follow", sync.subscribed),
        "sync_left": ("Values and blocks to be fetched from members, or confirmed", sync.left),
        "acknowledgements_waiting": ("Acknowledgements that wait for copies", sync.waiting),
        "blocks_held": ("Blocks stored, of all open cores", status.blocks.held),
        "dead_bytes": ("Dead blocks of the data bee at the last look", compaction.dead_bytes),
        "compacting": ("Whether the data bee is being compacted", compaction.is_running),
    }


def _counters(status: NodeStatus) -> _Figures:
    blocks, clients, sync = status.blocks, status.clients, status.sync
    return {
        "blocks_fetched": ("Blocks that came from other nodes", blocks.fetched),
        "blocks_verified": ("Fetched blocks that fit a signed tree", blocks.verified),
        "blocks_uploaded": ("Blocks sent to other nodes", blocks.uploaded),
        "blocks_fetched_bytes": ("Bytes of fetched blocks", blocks.fetched_bytes),
        "blocks_uploaded_bytes": ("Bytes of uploaded blocks", blocks.uploaded_bytes),
        "transactions_stored": ("Transactions of coValues stored", sync.transactions),
        "commits": ("Atomic writes of coValues", sync.commits),
        "messages_refused": ("Messages of which nothing was kept", sync.refused),
        "messages_not_stored": ("Messages that damage kept from the disk", sync.not_stored),
        "edits_not_shared": (
            "Commits of a value that damage kept from the bee",
            sync.not_shared,
        ),
        "bad_lines": ("Lines of clients that were not messages", sync.bad_lines),
        "session_forks": ("Sessions with a second continuation", sync.forks),
        "core_forks": ("Cores whose writer signed two histories", sync.forked_cores),
        "false_evidence": ("Evidence of forks that showed none", sync.false_evidence),
        "covalues_erased": ("Deleted coValues removed from the disk", sync.erased),
        "compactions": ("Compactions of the data bee", status.compaction.compactions),
        "compacted_bytes": ("Bytes of blocks that they gave up", status.compaction.bytes),
        "clients_accepted": ("Jazz clients accepted", clients.accepted),
        "clients_unauthorized": ("Jazz clients without a token", clients.unauthorized),
        "clients_slowed": ("Times a client was left unread", status.access.slowed),
        "clients_sent_away": ("Clients far beyond their rate", status.access.sent_away),
        "clients_refused": ("Jazz clients refused for a limit", clients.refused),
        "client_messages_received": ("Frames from clients", clients.messages_received),
        "client_messages_sent": ("Frames to clients", clients.messages_sent),
        "client_received_bytes": ("Bytes from clients", clients.bytes_received),
        "client_sent_bytes": ("Bytes to clients", clients.bytes_sent),
    }


def _collect_room(status: NodeStatus) -> Iterable[Metric]:
    disk, cache, mirrors = status.disk, status.cache, status.mirrors
    gauges = {
        "disk_free_bytes": ("Free on the disk", disk.free_bytes),
        "disk_used_bytes": ("Taken by the data directory", disk.used_bytes),
        "taking_in": ("1 while there is room for anything new, else 0", not disk.trouble),
        "cache_bytes": ("Blocks of others that may be given up", cache.bytes),
        "mirrors": ("Cores of others kept whole or by range", len(mirrors)),
        "mirror_blocks_missing": (
            "Blocks of mirrors that are not here yet",
            sum(m.wanted - m.held for m in mirrors),
        ),
    }
    yield from _families(GaugeMetricFamily, "beemesh", gauges)
    text = "Blocks of others that were given up"
    yield CounterMetricFamily("beemesh_cache_evicted_blocks", text, cache.evicted_blocks)


def _collect_ways(status: NodeStatus) -> Iterable[Metric]:
    ways = GaugeMetricFamily(
        "beemesh_connections", "Connected nodes by the way of their packets", labels=["reach"]
    )
    for reach in Reach:
        ways.add_metric([reach.value], status.ways.get(reach.value, 0))
    yield ways
    relay = status.relay
    if relay is None:
        return
    gauges = {
        "links": ("Pairs of nodes being relayed for", relay.links),
        "left_bytes": ("What may still be relayed today", relay.bytes_left),
    }
    yield from _families(GaugeMetricFamily, "beemesh_relay", gauges)
    yield CounterMetricFamily(
        "beemesh_relay_links_opened", "Pairs of nodes that were relayed for", relay.links_opened
    )


def _collect_access(access: AccessStatus) -> Iterable[Metric]:
    """Labels are a closed set of reasons, and the busiest tokens; never accounts."""
    refused = CounterMetricFamily(
        "beemesh_content_refused", "Sessions and values that were not taken", labels=["reason"]
    )
    for reason, count in access.refused.items():
        refused.add_metric([reason], count)
    yield refused
    frames = CounterMetricFamily("beemesh_token_frames", "Frames by token", labels=["token"])
    sizes = CounterMetricFamily("beemesh_token_bytes", "Bytes by token", labels=["token"])
    for token in access.tokens:
        frames.add_metric([token.name], token.frames)
        sizes.add_metric([token.name], token.bytes)
    yield frames
    yield sizes
    yield GaugeMetricFamily(
        "beemesh_accounts_counted", "Accounts with anything stored", access.accounts_counted
    )
    yield GaugeMetricFamily(
        "beemesh_accounts_full", "Accounts found full since the start", access.accounts_full
    )
    if access.accounts:
        yield GaugeMetricFamily(
            "beemesh_account_bytes_max", "Stored by the largest account", access.accounts[0].bytes
        )


def build_registry(read_status: Callable[[], NodeStatus]) -> CollectorRegistry:
    """The node's metrics and those of its process."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(read_status))
    ProcessCollector(registry=registry)
    return registry


def render_metrics(registry: CollectorRegistry) -> bytes:
    return generate_latest(registry)
