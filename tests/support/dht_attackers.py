"""Nodes that mean no good, for networks of `dht_network`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.dht.messages import Command, Internal, Request, Response, decode_datagram, node_id
from swarm.dht.payloads import LookupAnswer, PeerRecord
from swarm.dht.routing_table import distance
from tests.support.dht_network import Network, SimulatedNode


class Malice(enum.Enum):
    SILENT = "answers pings, and nothing else"
    ECLIPSE = "takes everything, keeps nothing, and names only its like"
    INVENTOR = "names nodes that do not exist, and peers that do not either"
    GARBLER = "answers noise"
    REFUSER = "answers errors"


@dataclass
class Attacker:
    """One bad node at one address. It joins as an honest one would."""

    network: Network
    address: Address
    malice: Malice
    gang: Sequence[Address] = ()

    def __post_init__(self) -> None:
        self.network.endpoints[self.address] = self._receive

    def join(self, victims: Sequence[SimulatedNode]) -> None:
        """Ask these something, so that they take us for a member."""
        for victim in victims:
            request = Request(
                7, victim.server, Internal.FIND_NODE, True, node_id(self.address), None, bytes(32)
            )
            self.network.send(request.encode(), self.address, victim.server)

    def _receive(self, data: bytes, source: Address, _: Address) -> None:
        try:
            request = decode_datagram(data)
        except DecodeError:
            return
        if isinstance(request, Request):
            answer = self._answer(request, source)
            if answer is not None:
                self.network.send(answer, self.address, source)

    def _answer(self, request: Request, source: Address) -> bytes | None:
        own_id = node_id(self.address)
        if request.is_internal and request.command == Internal.PING:
            return Response(request.transaction, source, own_id).encode()
        chance = self.network.random
        match self.malice:
            case Malice.SILENT:
                return None
            case Malice.ECLIPSE:
                named = tuple(self._nearest(request.target or own_id))
                return self._respond(request, source, named)
            case Malice.INVENTOR:
                named = tuple(
                    (
                        f"99.{chance.randrange(256)}.{chance.randrange(256)}.5",
                        chance.randrange(65536),
                    )
                    for _ in range(20)
                )
                fake = LookupAnswer((PeerRecord(chance.randbytes(32)),)).encode()
                is_lookup = not request.is_internal and request.command == Command.LOOKUP
                return self._respond(request, source, named, value=fake if is_lookup else None)
            case Malice.GARBLER:
                prefix = bytes((0x13, 0x1F)) + request.transaction.to_bytes(2, "little")
                return prefix + chance.randbytes(chance.randrange(80))
            case Malice.REFUSER:
                return self._respond(request, source, (), error=1 + chance.randrange(30))

    def _respond(
        self,
        request: Request,
        source: Address,
        named: tuple[Address, ...],
        *,
        error: int = 0,
        value: bytes | None = None,
    ) -> bytes:
        return Response(
            request.transaction, source, node_id(self.address), bytes(32), named, error, value
        ).encode()

    def _nearest(self, target: bytes) -> Sequence[Address]:
        return sorted(self.gang, key=lambda address: distance(node_id(address), target))[:20]


def sybil_addresses(target: bytes, hosts: Sequence[str], per_host: int) -> list[Address]:
    """The ports of each host that happen to be closest to a target."""
    chosen: list[Address] = []
    for host in hosts:
        ports = range(1024, 65536, 7)
        nearest = sorted(ports, key=lambda port: distance(node_id((host, port)), target))
        chosen += [(host, port) for port in nearest[:per_host]]
    return chosen
