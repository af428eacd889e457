"""A network of table nodes in memory: a clock that is a variable, latency and loss from a seed."""

from __future__ import annotations

import enum
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from swarm.announcement import Address
from swarm.dht.engine import DhtEngine
from swarm.dht.interface import Bootstrapped, EngineOutput, QueryFinished, QueryReplied, Settings
from swarm.dht.query import QueryPlan, QueryResult, Reply
from swarm.dht.reachability import Role
from swarm.dht.requests import Answered, Call, TimedOut, Transmit, Via

UNIX_MS = 1_800_000_000_000
Endpoint = Callable[[bytes, Address, Address], None]
"""Takes a datagram, where it came from, and where it was sent to."""


class Network:
    """Carries datagrams between endpoints."""

    def __init__(self, seed: int, *, loss: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.now = 1000.0
        self.endpoints: dict[Address, Endpoint] = {}
        self.datagrams = 0
        self.bytes_to: dict[str, int] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._counter), action))

    def send(self, data: bytes, source: Address, to: Address) -> None:
        """Deliver after 10 to 100 ms, or not at all."""
        self.datagrams += 1
        self.bytes_to[to[0]] = self.bytes_to.get(to[0], 0) + len(data)
        if self.random.random() < self.loss:
            return
        self.at(self.now + self.random.uniform(0.01, 0.1), lambda: self._deliver(data, source, to))

    def run(self, until: Callable[[], bool], limit_seconds: float = 60.0) -> None:
        """Let time pass until something holds; fails when it does not in time."""
        end = self.now + limit_seconds
        while not until():
            assert self._events, "nothing will ever happen again"
            when, _, action = heapq.heappop(self._events)
            assert when <= end, f"nothing came of it in {limit_seconds} s"
            self.now = max(self.now, when)
            action()

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            when, _, action = heapq.heappop(self._events)
            self.now = max(self.now, when)
            action()
        self.now = end

    def _deliver(self, data: bytes, source: Address, to: Address) -> None:
        endpoint = self.endpoints.get(to)
        if endpoint is not None:
            endpoint(data, source, to)


@dataclass(slots=True)
class QueryRecord:
    """What a node's query brought so far."""

    replies: list[Reply]
    result: QueryResult | None = None


class Nat(enum.Enum):
    """What is between a node and the world."""

    NONE = "none"
    CONSISTENT = "lets in only those that were written to"
    RANDOM = "the same, and shows everybody another port"


class SimulatedNode:
    """An engine with two addresses: that of its server's socket, and the client's."""

    def __init__(
        self, network: Network, settings: Settings, host: str, *, nat: Nat = Nat.NONE
    ) -> None:
        self.network = network
        self.nat = nat
        self.server: Address = (host, settings.server_port)
        self.client: Address = (host, settings.server_port % 60_000 + 5_000)
        self.engine = DhtEngine(settings, network.random.randbytes, network.now, UNIX_MS)
        self.queries: dict[int, QueryRecord] = {}
        self.calls: dict[int, Answered | TimedOut] = {}
        self.is_bootstrapped = False
        self._let_in: set[tuple[Address, Address]] = set()  # from outside, to one of ours
        self._mapped: dict[Address, Address] = {}
        self._wake_at: float | None = None
        network.endpoints[self.server] = self._receive
        network.endpoints[self.client] = self._receive

    def start(self) -> None:
        self._carry_out(self.engine.start(self.network.now))

    def stop(self) -> None:
        """Vanish."""
        for address in (self.server, self.client):
            self.network.endpoints.pop(address, None)
        self._wake_at = None

    def move(self, nat: Nat) -> None:
        """Be behind another router, which has the same address and knows of nothing before."""
        self.nat = nat
        self._let_in.clear()
        self._mapped.clear()
        self.engine.wake_up(self.network.now)

    def query(self, plan: QueryPlan, remembered: Sequence[Address] = ()) -> QueryRecord:
        """Run a query to its end."""
        number, outputs = self.engine.query(plan, self.network.now, remembered)
        record = self.queries[number] = QueryRecord([])
        self._carry_out(outputs)
        self.network.run(lambda: record.result is not None)
        return record

    def call(self, call: Call) -> Answered | TimedOut:
        """Ask one node."""
        handle, outputs = self.engine.call(call, self.network.now)
        self._carry_out(outputs)
        self.network.run(lambda: handle in self.calls)
        return self.calls.pop(handle)

    def refresh(self) -> None:
        self._carry_out(self.engine.refresh(self.network.now))

    def _receive(self, data: bytes, source: Address, to: Address) -> None:
        if self.nat is not Nat.NONE and (source, to) not in self._let_in:
            return
        via = Via.SERVER if to == self.server else Via.CLIENT
        self._carry_out(self.engine.receive(data, source, via, self.network.now))

    def _wake(self, when: float) -> None:
        if when == self._wake_at:
            self._wake_at = None
            self._carry_out(self.engine.advance(self.network.now))

    def _map(self, to: Address, via: Via) -> Address:
        """As what this node appears to those that it writes to."""
        shown = self.server if via is Via.SERVER else self.client
        if self.nat is Nat.RANDOM:
            shown = self._mapped.setdefault(to, (shown[0], 20_000 + len(self._mapped)))
            self.network.endpoints[shown] = self._receive
        self._let_in.add((to, shown))
        return shown

    def _carry_out(self, outputs: Sequence[EngineOutput]) -> None:
        for output in outputs:
            match output:
                case Transmit(data, to, via):
                    self.network.send(data, self._map(to, via), to)
                case Answered() | TimedOut():
                    self.calls[output.handle] = output
                case QueryReplied(number, reply):
                    self.queries[number].replies.append(reply)
                case QueryFinished(number, result):
                    self.queries[number].result = result
                case Bootstrapped():
                    self.is_bootstrapped = True
        deadline = self.engine.deadline
        if self._wake_at is None or deadline < self._wake_at:
            self._wake_at = deadline
            self.network.at(deadline, lambda: self._wake(deadline))


def public_host(index: int) -> str:
    """A public host of its own /24 for every index below 14,000."""
    return f"{60 + index // 250}.{1 + index % 250}.7.9"


def member(bootstrap: tuple[Address, ...] = (), port: int = 4000) -> Settings:
    """Of a node that is reachable, and keeps records for others."""
    return Settings(port, bootstrap, Role.PERSISTENT, is_open=True)


def build_network(
    seed: int, size: int, *, loss: float = 0.0, hosts: Sequence[str] | None = None
) -> tuple[Network, list[SimulatedNode]]:
    """A network whose members came one after the other, as they do."""
    network = Network(seed, loss=loss)
    names = hosts or [public_host(i) for i in range(size)]
    nodes: list[SimulatedNode] = []
    for host in names[:size]:
        known = (nodes[0].server,) if nodes else ()
        settings = replace(member(known), public_address=(host, 4000))
        node = SimulatedNode(network, settings, host)
        nodes.append(node)
        node.start()
        network.run(lambda node=node: node.is_bootstrapped)  # type: ignore[misc]
    return network, nodes
