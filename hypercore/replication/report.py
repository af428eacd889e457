"""What replication of one core tells about itself, put together from its peers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypercore.log import Head
from hypercore.replication.channel import Link
from hypercore.replication.pushes import takes_pushes
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicator import Replicator
from hypercore.replication.statistics import PeerStatistics, ReplicationStatistics, WireCounts


def report_replication(
    replicator: Replicator, head: Head, peers: Iterable[tuple[RemotePeer, Link]]
) -> ReplicationStatistics:
    """The present peers one by one, and all that there were in total."""
    total = replace(replicator.departed)
    wire = WireCounts()
    wire.add(replicator.departed_wire)
    average = head.byte_length // max(head.length, 1)
    reports = []
    for peer, link in peers:
        if peer.is_gone:
            continue
        total.add(peer.counters)
        wire.add(peer.wire)
        reports.append(_report_peer(peer, link, average))
    return ReplicationStatistics(tuple(reports), total, wire.named(), replicator.peers_refused)


def _report_peer(peer: RemotePeer, link: Link, average_block_bytes: int) -> PeerStatistics:
    return PeerStatistics(
        remote_public_key=link.remote_public_key,
        fork=peer.sync.fork if peer.sync is not None else 0,
        length=peer.length,
        contiguous_length=peer.contiguous_length,
        requests_in_flight=len(peer.inflight),
        max_requests_in_flight=peer.inflight.most(average_block_bytes),
        requests_waiting=len(peer.uploads),
        round_trip_seconds=peer.inflight.round_trip_seconds,
        seconds_per_block=peer.speed.seconds_per_block,
        allows_push=takes_pushes(peer),
        counters=replace(peer.counters),
        wire=peer.wire.named(),
    )
