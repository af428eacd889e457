"""One node of the table; a machine.

Datagrams, calls and queries go in, datagrams and answers come out. By itself it finds its
neighbors, keeps its table fresh, learns how the world sees it, and answers what others ask. What
it does is decided elsewhere (`requests`, `walks`, `neighborhood`, `reachability`, `responder`);
here it is put together.

Source: dht-rpc 6.27.0 index.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from hypercore.crypto import Entropy
from hypercore.encoding import DecodeError, Reader
from swarm.announcement import Address
from swarm.dht.health import HealthMonitor
from swarm.dht.hosts import is_usable
from swarm.dht.interface import (
    Bootstrapped,
    DhtStatistics,
    EngineOutput,
    QueryFinished,
    QueryReplied,
    Settings,
)
from swarm.dht.messages import (
    ADDRESS_BYTES,
    ID_BYTES,
    Internal,
    NodeId,
    Request,
    Response,
    decode_address,
    decode_datagram,
    node_id,
)
from swarm.dht.neighborhood import Check, Introduction, Neighborhood, Ping, Swap
from swarm.dht.payloads import PeerRecord, peer_target
from swarm.dht.purposes import Errands, ForQuery, ForUser, Hint, Purpose, QuickProbe
from swarm.dht.query import Query, QueryPlan
from swarm.dht.reachability import (
    Probe,
    Role,
    Settled,
    Standing,
    StandingOutput,
    ask_to_reach,
)
from swarm.dht.requests import (
    Answered,
    Call,
    Delayed,
    RequestOutput,
    RequestTable,
    TimedOut,
    TooManyRequests,
    Transmit,
    Via,
)
from swarm.dht.responder import Responder
from swarm.dht.router import Asked, PeerAsked
from swarm.dht.routing_table import ROW_SIZE, RoutingTable
from swarm.dht.startup import Phase, Startup
from swarm.dht.walks import (
    BACKGROUND_CONCURRENCY,
    Errand,
    SearchFinished,
    SearchReplied,
    WalkOutput,
    Walks,
)


class DhtEngine:
    """A node. `now` is monotonic seconds; what to do is returned, in order."""

    def __init__(self, settings: Settings, entropy: Entropy, now: float, unix_ms: int) -> None:
        self.settings = settings
        self.bootstrap = settings.bootstrap
        """Asked when fewer than 20 nodes are known; may be changed at any time."""
        self._entropy = entropy
        self._standing = Standing(
            settings.role,
            settings.server_port,
            is_open=settings.is_open,
            public_address=settings.public_address,
            now=now,
        )
        self._neighborhood = Neighborhood(entropy(ID_BYTES), now)
        self._requests = RequestTable(entropy, now)
        self._responder = Responder(self.table, entropy, now, unix_ms)
        self._health = HealthMonitor()
        self._malformed = 0
        self._errands = Errands()
        self._walks = Walks(self._errands)
        self._startup = Startup(
            is_persistent=settings.role is Role.PERSISTENT,
            is_firewalled=self._standing.is_firewalled,
        )

    @property
    def table(self) -> RoutingTable:
        return self._neighborhood.table

    @property
    def is_bootstrapped(self) -> bool:
        return self._startup.phase is Phase.RUNNING

    @property
    def own_id(self) -> NodeId | None:
        """Our id; None while we are in nobody's table."""
        return None if self._standing.is_ephemeral else self.table.own_id

    @property
    def public_address(self) -> Address | None:
        """Where strangers reach us; None when they do not."""
        return self._standing.public_address

    @property
    def asks_via(self) -> Via:
        """The socket that it asks from, and that is therefore known to those it asks."""
        return self._standing.via

    @property
    def statistics(self) -> DhtStatistics:
        standing, responder = self._standing, self._responder
        return DhtStatistics(
            role=standing.role,
            is_ephemeral=standing.is_ephemeral,
            is_firewalled=standing.is_firewalled,
            is_bootstrapped=self.is_bootstrapped,
            health=self._health.state,
            public_host=standing.nat.host,
            public_port=standing.nat.port,
            nodes=len(self.table),
            queries=self._errands.queries,
            requests=self._requests.statistics,
            answered=responder.answered,
            ignored=responder.ignored,
            malformed=self._malformed,
            refused_by_allowance=responder.refused_by_allowance,
            passed_on=responder.router.passed_on,
            records=responder.records.statistics,
        )

    @property
    def deadline(self) -> float:
        """When `advance` has something to do."""
        deadlines = (
            self._neighborhood.upkeep.next_tick,
            self._requests.deadline,
            self._responder.deadline,
        )
        return min(when for when in deadlines if when is not None)

    def start(self, now: float) -> list[EngineOutput]:
        """Begin to search for neighbors; `Bootstrapped` tells the end of it."""
        self._startup.phase = Phase.BOOTSTRAPPING
        outputs: list[EngineOutput] = []
        for address in self.settings.nodes:
            outputs += self._ping(self._neighborhood.introduce(address), now)
        if self._standing.is_test_due(now):  # a node that knows where it is need not search twice
            return outputs + self._test_standing(now, for_role=True)
        return outputs + self._bootstrap_round(now)

    def call(self, call: Call, now: float) -> tuple[int, list[EngineOutput]]:
        """Ask one node; `Answered` or `TimedOut` will tell, by the handle.

        Raises: TooManyRequests.
        """
        via = call.via or self._standing.via
        id_to_show = self._id_to_show if via is self._standing.via else None
        handle, outputs = self._requests.open(call, via, id_to_show, now)
        self._errands.note(handle, ForUser())
        return handle, self._digest(outputs, now)

    def cancel_call(self, handle: int) -> None:
        """Lose interest in an answer."""
        self._errands.settle(handle)
        self._requests.cancel(handle)

    def query(
        self, plan: QueryPlan, now: float, remembered: Sequence[Address] = ()
    ) -> tuple[int, list[EngineOutput]]:
        """Walk to a target; `QueryFinished` will tell the end, by the number of the query."""
        return self._start_query(plan, now, remembered, is_background=False)

    def cancel_query(self, number: int) -> None:
        """Lose interest in a query. What it committed already is not undone."""
        for handle in self._errands.end_query(number):
            self.cancel_call(handle)

    def hold_query(self, number: int) -> None:
        """Let a query visit nobody else for now, nor come to an end."""
        self._walks.hold(number)

    def resume_query(self, number: int, now: float) -> list[EngineOutput]:
        """Let a held query go on."""
        return self._follow_walks(self._walks.resume(number), now)

    def serve(self, record: PeerRecord) -> None:
        """Take handshakes and hole punches for a key of ours, as `PeerAsked`.

        Raises: ValueError when it is served already.
        """
        self._responder.router.serve(peer_target(record.public_key), record)

    def stop_serving(self, public_key: bytes) -> None:
        self._responder.router.stop_serving(peer_target(public_key))

    def answer(
        self, question: PeerAsked, sealed: bytes, now: float, via: Via | None = None
    ) -> list[EngineOutput]:
        """Answer a handshake or a punch, through the socket it came to or another one."""
        router = self._responder.router
        through = via or question.asked.via
        return list(router.answer(question, sealed, through, self._responder.own_id, now))

    def refresh(self, now: float) -> list[EngineOutput]:
        """Look around in the table, in the background."""
        nodes = list(self.table)
        target = self.table.own_id
        if nodes:
            target = nodes[int.from_bytes(self._entropy(4), "little") % len(nodes)].id
        return self._search(target, now)

    def wake_up(self, now: float) -> None:
        """The machine was asleep, or the network has changed: trust nothing from before."""
        self._neighborhood.upkeep.woke_up(self.table, now)
        self._forget_standing(now)

    def receive(self, data: bytes, source: Address, via: Via, now: float) -> list[EngineOutput]:
        """Take a datagram that came in through one of the two sockets."""
        try:
            message = decode_datagram(data)
        except DecodeError:
            self._malformed += 1
            return []
        if not is_usable(source):
            return []
        match message:
            case Response():
                return self._digest(self._requests.receive(message, source, via, now), now)
            case Request():
                return self._receive_request(Asked(message, source, via, len(data), now))
            case _:
                assert_never(message)

    def advance(self, now: float) -> list[EngineOutput]:
        """Call at `deadline`, or later."""
        outputs: list[EngineOutput] = list(self._responder.advance(now))
        outputs += self._digest(self._requests.advance(now), now)
        if now >= self._neighborhood.upkeep.next_tick:
            outputs += self._tick(now)
        return outputs

    def _receive_request(self, asked: Asked) -> list[EngineOutput]:
        request, source = asked.request, asked.source
        outputs: list[EngineOutput] = []
        if request.id is not None and request.id == node_id(source):
            outputs += self._ping(self._neighborhood.introduce(source), asked.now)
        is_hint = request.is_internal and request.command == Internal.DOWN_HINT
        if is_hint and request.value is not None and len(request.value) >= ADDRESS_BYTES:
            address = decode_address(Reader(request.value))
            outputs += self._ping(self._neighborhood.hinted_down(address, asked.now), asked.now)
        outputs += self._responder.receive(asked)
        return outputs

    # Requests of our own, and what comes of them.

    @property
    def _id_to_show(self) -> NodeId | None:
        return self.own_id if self._standing.via is Via.SERVER else None

    def _ping(self, pings: Sequence[Ping], now: float) -> list[EngineOutput]:
        outputs: list[EngineOutput] = []
        for ping in pings:
            outputs += self._open(Call(ping.address, Internal.PING, True), ping, now)
        return outputs

    def _open(self, call: Call, purpose: Purpose, now: float) -> list[EngineOutput]:
        try:
            handle, outputs = self._requests.open(call, self._standing.via, self._id_to_show, now)
        except TooManyRequests:
            # At most what queries and upkeep have under way, each of which is bounded.
            self._errands.postpone(call, purpose)  # to the next tick
            return []
        self._errands.note(handle, purpose)
        return self._digest(outputs, now)

    def _digest(self, outputs: Sequence[RequestOutput], now: float) -> list[EngineOutput]:
        digested: list[EngineOutput] = []
        for output in outputs:
            match output:
                case Transmit():
                    digested.append(output)
                case Answered():
                    digested += self._answered(output, now)
                case Delayed(handle, call):
                    purpose = self._errands.of(handle)
                    if isinstance(purpose, ForQuery):
                        digested += self._follow_walks(self._walks.delayed(purpose, call), now)
                case TimedOut():
                    digested += self._timed_out(output, now)
                case _:
                    assert_never(output)
        return digested

    def _answered(self, answered: Answered, now: float) -> list[EngineOutput]:
        purpose = self._errands.settle(answered.handle)
        response, source = answered.response, answered.call.to
        outputs: list[EngineOutput] = []
        has_id = response.id == node_id(source)
        if has_id or source in self.bootstrap:
            self._standing.observe(source, response.to, answered.via, now)
        if has_id:
            outputs += self._ping(self._neighborhood.heard_from(source, now), now)
        match purpose:
            case None | Hint():
                return outputs
            case ForUser():
                return [*outputs, answered]
            case QuickProbe():
                self._startup.probe_answered()
                return outputs
            case ForQuery():
                return outputs + self._follow_walks(self._walks.answered(purpose, answered), now)
            case Probe(_, test):
                settled = self._standing.probe_answered(test, response.to, answered.via)
                return outputs + self._follow_standing(settled, now)
            case Check() | Swap() | Introduction():
                pings = self._neighborhood.ping_settled(purpose, response.id)
                return outputs + self._ping(pings, now)
            case _:
                assert_never(purpose)

    def _timed_out(self, timed_out: TimedOut, now: float) -> list[EngineOutput]:
        purpose = self._errands.settle(timed_out.handle)
        is_ours = isinstance(purpose, Probe | QuickProbe)  # these go unanswered if we are to blame
        if timed_out.call.shows_who_is_down and not is_ours:
            self._neighborhood.silent(timed_out.call.to)
        if isinstance(purpose, ForUser):
            return [timed_out]
        return [] if purpose is None else self._failed(purpose, timed_out.call, now)

    def _failed(self, purpose: Purpose, call: Call, now: float) -> list[EngineOutput]:
        """No answer came, whatever the question was for."""
        match purpose:
            case ForUser() | Hint() | QuickProbe():
                return []
            case ForQuery():
                return self._follow_walks(self._walks.timed_out(purpose, call), now)
            case Probe(_, test):
                return self._follow_standing(self._standing.probe_timed_out(test), now)
            case Check() | Swap() | Introduction():
                return self._ping(self._neighborhood.ping_settled(purpose, None), now)
            case _:
                assert_never(purpose)

    # Queries.

    def _search(self, target: NodeId, now: float) -> list[EngineOutput]:
        """Look for nodes near a target, making way for other queries."""
        plan = QueryPlan(target, Internal.FIND_NODE, True, concurrency=BACKGROUND_CONCURRENCY)
        return self._start_query(plan, now, (), is_background=True)[1]

    def _start_query(
        self, plan: QueryPlan, now: float, remembered: Sequence[Address], *, is_background: bool
    ) -> tuple[int, list[EngineOutput]]:
        self._neighborhood.upkeep.used(now)
        nodes = [node.address for node in self.table.closest(plan.target)]
        if len(nodes) < ROW_SIZE:
            nodes += self.bootstrap
        query = Query(plan, self.table.own_id, nodes, remembered)
        number, steps = self._walks.start(query, is_background=is_background)
        return number, self._follow_walks(steps, now)

    def _follow_walks(self, steps: Sequence[WalkOutput], now: float) -> list[EngineOutput]:
        outputs: list[EngineOutput] = []
        for step in steps:
            match step:
                case Errand(call, purpose):
                    outputs += self._open(call, purpose, now)
                case QueryReplied():
                    outputs.append(step)
                case QueryFinished(number):
                    self.cancel_query(number)
                    outputs.append(step)
                case SearchReplied(number, source):
                    outputs += self._search_replied(number, source, now)
                case SearchFinished(number):
                    self.cancel_query(number)
                    outputs += self._search_finished(number, now)
                case _:
                    assert_never(step)
        return outputs

    def _search_replied(self, number: int, source: Address, now: float) -> list[EngineOutput]:
        self._walks.pace(number, len(self._requests))
        if not self._startup.takes_probe(number):
            return []
        return self._open(ask_to_reach(source, self.settings.server_port), QuickProbe(), now)

    def _search_finished(self, number: int, now: float) -> list[EngineOutput]:
        if not self._startup.ends_round(number):
            return []
        if self._startup.is_test_worthwhile:
            return self._test_standing(now, for_role=self.settings.role is Role.PERSISTENT)
        return self._finish_bootstrap()

    # Getting started, and finding out what we are to others.

    def _bootstrap_round(self, now: float) -> list[EngineOutput]:
        self._startup.begin_round(self._errands.next_query)
        return self._search(self.table.own_id, now)

    def _finish_bootstrap(self) -> list[EngineOutput]:
        self._startup.phase = Phase.RUNNING
        return [Bootstrapped()]

    def _test_standing(self, now: float, *, for_role: bool) -> list[EngineOutput]:
        recent = [node.address for node in self.table.most_recent(ROW_SIZE)]
        steps = self._standing.test((*recent, *self.bootstrap), now, for_role=for_role)
        return self._follow_standing(steps, now)

    def _follow_standing(self, steps: Sequence[StandingOutput], now: float) -> list[EngineOutput]:
        outputs: list[EngineOutput] = []
        for step in steps:
            match step:
                case Probe(call):
                    outputs += self._open(call, step, now)
                case Settled(address):
                    outputs += self._settled(address, now)
                case _:
                    assert_never(step)
        return outputs

    def _settled(self, address: Address | None, now: float) -> list[EngineOutput]:
        """We can be reached at this address, or not as far as we know."""
        if address is not None:
            self._move(node_id(address))
        if self._startup.phase is not Phase.BOOTSTRAPPING:
            return [] if address is None else self.refresh(now)
        if self._startup.takes_another_round(is_reachable=address is not None):
            return self._bootstrap_round(now)
        return self._finish_bootstrap()

    def _move(self, own_id: NodeId) -> None:
        if own_id != self.table.own_id:
            self._neighborhood.move(own_id)
        self._responder.table = self.table
        self._responder.own_id = self.own_id

    def _forget_standing(self, now: float) -> None:
        self._health.reset()
        self._standing.forget(now)
        self._responder.own_id = self.own_id

    # Every five seconds.

    def _tick(self, now: float) -> list[EngineOutput]:
        chores = self._neighborhood.tick(len(self._requests), now)
        if chores.has_slept:
            self._forget_standing(now)
        self._walks.tick()
        statistics = self._requests.statistics
        self._health.tick(statistics.answers, statistics.timeouts)
        self._responder.records.expire(now)
        outputs: list[EngineOutput] = []
        for call, purpose in self._errands.take_postponed():
            outputs += self._open(call, purpose, now)
        if not self.is_bootstrapped:
            return outputs
        if self._standing.is_test_due(now):
            outputs += self._test_standing(now, for_role=True)
        if self._standing.is_recheck_due(now):
            outputs += self._test_standing(now, for_role=False)
        for node in chores.check:
            outputs += self._ping(self._neighborhood.check(node, now), now)
        if chores.is_refresh_due:
            outputs += self.refresh(now)
        return outputs
