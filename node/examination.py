"""[trio] What the network lets a node do: the checks behind `beemesh doctor net`."""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from hypercore.crypto import system_entropy
from swarm.announcement import NeighborSeen, create_instance_name
from swarm.dht.peer_messages import NatKind
from swarm.io.hyperdht import HyperDht, open_hyperdht
from swarm.io.mdns import Mdns, open_mdns
from swarm.io.peer_sockets import list_hosts

TABLE_SECONDS = 8.0
"""How long a node of the table may take to answer."""

MULTICAST_SECONDS = 5.0
"""How long a neighbor may take to be heard: registering a name takes two of them."""

NEIGHBORS_SECONDS = 3.0
"""How long others may answer once one is heard.

Nobody says the same twice within a second; the questions after the first come 1 s and 3 s later.
"""

_EARLIEST_UNIX_SECONDS = 1_735_689_600  # 2025-01-01
_TOPIC = bytes(32)


class Verdict(enum.Enum):
    """How other nodes can reach this one."""

    OPEN = "open"
    PUNCHABLE = "punchable"
    RANDOM = "random"
    UNKNOWN = "unknown"
    LAN_ONLY = "lan-only"
    OFFLINE = "offline"


_MEANINGS = {
    Verdict.OPEN: "Strangers reach this node directly.",
    Verdict.PUNCHABLE: "Behind a NAT that is easy to get through: others reach this node.",
    Verdict.RANDOM: (
        "Behind a NAT that shows everybody another port: nodes with an easier NAT reach this node,"
        " in some seconds; two nodes like this one do not reach each other."
    ),
    Verdict.UNKNOWN: "UDP passes, but too few nodes answered to tell what the NAT does.",
    Verdict.LAN_ONLY: (
        "No node of the DHT answers: UDP is blocked, or there is no way to the internet. Nodes on"
        " this network are found, others by --join HOST:PORT."
    ),
    Verdict.OFFLINE: "No network: no node of the DHT answers, and multicast is not heard.",
}


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What was found out. `nat` is that of a fresh socket, `seen_as` where it appears."""

    verdict: Verdict
    addresses: tuple[str, ...]
    udp_passes: bool
    table_nodes: int
    nat: str
    seen_as: tuple[str, ...]
    strangers_let_in: bool
    multicast_heard: bool
    multicast_error: str
    neighbors: int
    clock_plausible: bool

    @property
    def meaning(self) -> str:
        """The verdict for people."""
        return _MEANINGS[self.verdict]


@dataclass(slots=True)
class _TableFindings:
    nodes: int = 0
    nat: NatKind = NatKind.UNKNOWN
    seen_as: tuple[str, ...] = ()
    is_open: bool = False


@dataclass(slots=True)
class _LanFindings:
    is_heard: bool = False
    error: str = ""
    neighbors: int = 0


async def examine_network(bootstrap: Sequence[str]) -> NetworkReport:
    """Ask the table, and listen for neighbors; at most about ten seconds.

    Writes to the bootstrap nodes, and a few nodes that they name.

    Raises: OSError when there is no socket to be had.
    Cancel: nothing stays open.
    """
    table, lan = _TableFindings(), _LanFindings()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask_table, bootstrap, table)
        nursery.start_soon(_listen, lan)
    return NetworkReport(
        verdict=_judge(table, lan),
        addresses=tuple(list_hosts()),
        udp_passes=table.nodes > 0,
        table_nodes=table.nodes,
        nat=table.nat.name.lower(),
        seen_as=table.seen_as,
        strangers_let_in=table.is_open,
        multicast_heard=lan.is_heard,
        multicast_error=lan.error,
        neighbors=lan.neighbors,
        clock_plausible=time.time() >= _EARLIEST_UNIX_SECONDS,
    )


def _judge(table: _TableFindings, lan: _LanFindings) -> Verdict:
    if not table.nodes:
        return Verdict.LAN_ONLY if lan.is_heard else Verdict.OFFLINE
    if table.is_open:
        return Verdict.OPEN
    match table.nat:
        case NatKind.OPEN | NatKind.CONSISTENT:
            return Verdict.PUNCHABLE
        case NatKind.RANDOM:
            return Verdict.RANDOM
        case NatKind.UNKNOWN:
            return Verdict.UNKNOWN


async def _ask_table(bootstrap: Sequence[str], findings: _TableFindings) -> None:
    with trio.move_on_after(TABLE_SECONDS):
        async with open_hyperdht(bootstrap=bootstrap, port=0) as hyperdht:
            await hyperdht.dht.wait_bootstrapped()
            await _examine(hyperdht, findings)


async def _examine(hyperdht: HyperDht, findings: _TableFindings) -> None:
    statistics = hyperdht.dht.statistics()
    findings.nodes = statistics.nodes or statistics.requests.answers
    findings.is_open = not statistics.is_firewalled
    nat = await hyperdht.examine_nat()
    findings.nat = nat.kind
    findings.seen_as = tuple(f"{host}:{port}" if port else host for host, port in nat.addresses)


async def _listen(findings: _LanFindings) -> None:
    """Have one node announce itself and another one hear it; both are this one."""
    names = [create_instance_name(system_entropy) for _ in range(2)]
    async with (
        open_mdns(names[0], "0.0.0.0", 1) as announcing,
        open_mdns(names[1], "0.0.0.0", 1) as listening,
    ):
        announcing.announce([_TOPIC])
        with trio.move_on_after(MULTICAST_SECONDS) as patience:
            await _hear(listening, names[0], findings, patience)
        findings.error = announcing.error or listening.error


async def _hear(
    mdns: Mdns, wanted: str, findings: _LanFindings, patience: trio.CancelScope
) -> None:
    """Listen until `patience` ends: a moment after the `wanted` name, since others answer, too."""
    while True:
        for neighbor in await mdns.receive():
            if isinstance(neighbor, NeighborSeen):
                findings.is_heard |= neighbor.name == wanted
                findings.neighbors += neighbor.name != wanted
        if findings.is_heard:
            patience.deadline = min(patience.deadline, trio.current_time() + NEIGHBORS_SECONDS)
