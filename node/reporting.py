"""Makes the records that `status` and `peers` show from what the parts of a node counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from hypercore.core import Core
from node.cojson.reports import HostStatistics
from node.mesh.member_statistics import MemberStatistics
from node.mesh.mesh import Mesh
from node.mesh.penalties import Penalty
from node.web.jazz import JazzStatistics
from node.web.status import ClientCounts, PeerStatus, PenaltyStatus, SyncCounts
from swarm.io.swarm_report import ConnectionInfo


def peer_records(
    connections: Iterable[ConnectionInfo],
    members: Iterable[MemberStatistics],
    open_cores: Iterable[Core],
    unix_ms: float,
) -> list[PeerStatus]:
    """Every connected node, with what is here of its data core if it is a member."""
    by_id = {member.id: member for member in members}
    cores = {core.key: core for core in open_cores}
    peers: list[PeerStatus] = []
    for connection in connections:
        member = by_id.get(connection.remote_public_key)
        core = cores.get(member.key) if member is not None else None
        peers.append(
            PeerStatus(
                id=connection.remote_public_key.hex(),
                name=member.name if member is not None else "",
                address=connection.address,
                found_by=connection.source.value,
                reach=connection.reach.value,
                is_member=member is not None,
                is_initiator=connection.is_initiator,
                key=member.key.hex() if member is not None else "",
                length=core.length if core is not None else 0,
                held=core.info().blocks_held if core is not None else 0,
                bytes_received=connection.statistics.bytes_received,
                bytes_sent=connection.statistics.bytes_sent,
                connected_seconds=max(unix_ms - connection.since_unix_ms, 0) / 1000,
            )
        )
    return peers


def count_ways(connections: Iterable[ConnectionInfo]) -> dict[str, int]:
    """How many nodes are connected by which way; see `PeerStatus.reach`."""
    return dict(Counter(connection.reach.value for connection in connections))


def penalty_records(penalties: Iterable[Penalty], now: float) -> tuple[PenaltyStatus, ...]:
    """Each with how long it still lasts at `now`, by the clock that set it; 0 when it is over."""
    return tuple(
        PenaltyStatus(
            id=penalty.node_id.hex(),
            reason=penalty.reason,
            times=penalty.times,
            seconds_left=max(0.0, round(penalty.until - now, 1)),
        )
        for penalty in penalties
    )


def sync_counts(host: HostStatistics, mesh: Mesh | None, not_shared: int) -> SyncCounts:
    """What the sync engine and the store did; what the mesh, if any, found, and has left to do."""
    found = None if mesh is None else mesh.statistics()
    state = None if mesh is None else mesh.sync_state()
    return SyncCounts(
        in_memory=host.values_in_memory,
        subscribed=host.subscribed_ids,
        transactions=host.transactions_stored,
        commits=host.commits,
        refused=host.refused,
        bad_lines=host.bad_lines,
        forks=host.forks_found,
        erased=host.erased_values,
        forked_cores=0 if found is None else found.forked_cores,
        false_evidence=0 if found is None else found.evidence_refused,
        not_stored=host.not_stored,
        not_shared=not_shared,
        withheld=host.withheld,
        left=0 if state is None else state.left,
        waiting=0 if state is None else state.waiting,
    )


def client_counts(jazz: JazzStatistics) -> ClientCounts:
    statistics = asdict(jazz)
    return ClientCounts(connected=statistics.pop("connections"), **statistics)
