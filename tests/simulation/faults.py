"""Makes things go wrong, and puts them right."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial

import trio

from node.mesh.ticket import Role
from tests.simulation.circumstances import draw_policy
from tests.simulation.clocks import DAY_SECONDS, draw_error
from tests.simulation.determinism import Note
from tests.simulation.disk import Shortage
from tests.simulation.network import Link, Network
from tests.simulation.nodes import SimulatedNode
from tests.simulation.offline import compact_directory, salvage_directory
from tests.simulation.roles import FOUNDER, draw_role, sign_change
from tests.simulation.rules import draw_rules, has_budget, without_budgets
from tests.simulation.script import Fault
from tests.simulation.truth import Truth

FLAPS = 4
SALVAGED_SHARE = 0.3


class FaultMaker:
    """`check` is awaited with every node that has started again."""

    def __init__(
        self,
        network: Network,
        nodes: list[SimulatedNode],
        nursery: trio.Nursery,
        check: Callable[[SimulatedNode], Awaitable[None]],
        truth: Truth,
        note: Note,
    ) -> None:
        self._truth = truth
        self._note = note
        self._network = network
        self._nodes = nodes
        self._nursery = nursery
        self._check = check
        self._usual = {key: _copy(link) for key, link in network.links.items()}
        self._down: dict[int, trio.Event] = {}
        self._changing: dict[int, trio.Event] = {}
        """Nodes of which an admin makes something else."""
        self._judges: set[int] = set()
        """Who has signed something that is to count for good."""
        self._salvaged: set[int] = set()
        """Whose logs are not known to be whole, instead of being put back."""
        self._is_over = trio.Event()
        self._tasks: dict[Fault, Callable[[SimulatedNode, random.Random], Awaitable[None]]] = {
            Fault.COPY: self._copy,
            Fault.BAN: self._ban,
            Fault.COMPACT: partial(self._keep_up, Fault.COMPACT),
            Fault.EVICT: partial(self._keep_up, Fault.EVICT),
            Fault.POLICY: partial(self._keep_up, Fault.POLICY),
            Fault.RULE: partial(self._keep_up, Fault.RULE),
            Fault.FULL: self._fill,
            Fault.FLAP: self._flap,
        }

    def make(self, fault: Fault, actor: int, chance: random.Random) -> None:
        """Begin a fault; some end by themselves."""
        node = self._nodes[actor]
        if fault in {Fault.KILL, Fault.POWER, Fault.STOP}:
            if actor not in self._down:
                self._down[actor] = trio.Event()
                self._nursery.start_soon(self._restart, fault, actor, chance)
        elif fault is Fault.ROLE:
            if actor not in self._changing and not node.is_shut_out:
                self._changing[actor] = trio.Event()
                self._nursery.start_soon(self._change_role, node, chance)
        elif fault is Fault.RESET:
            for socket in list(node.host.sockets):
                socket.break_off("reset by a middlebox")
        elif fault is Fault.HEAL:
            self._heal()
        elif fault is Fault.CLOCK:
            node.host.clock_error_seconds = draw_error(chance)
            self._note(f"the clock of node {actor} is off by {node.host.clock_error_seconds} s")
        elif fault in self._tasks:
            self._nursery.start_soon(self._tasks[fault], node, chance)
        else:
            self._spoil_links(fault, actor, chance)

    def _spoil_links(self, fault: Fault, actor: int, chance: random.Random) -> None:
        numbers = range(len(self._nodes))
        if fault is Fault.PARTITION:
            group = {number for number in numbers if chance.random() < 0.5}
            for one, other in self._network.links:
                self._network.link(one, other).is_cut = (one in group) != (other in group)
        elif fault is Fault.ISOLATE:
            kind = chance.choice(("in", "out", "both"))
            for other in numbers:
                self._cut(actor, other, kind in {"out", "both"})
                self._cut(other, actor, kind in {"in", "both"})
        elif fault is Fault.CUT_ONE_WAY:
            self._cut(actor, chance.choice(numbers), True)
        elif fault is Fault.LOSE:
            loss = chance.uniform(0.01, 0.2)
            for link in self._network.links.values():
                link.loss = loss
        else:
            assert fault is Fault.SLOW
            for link in self._links_of(actor):
                link.latency = chance.uniform(0.05, 0.5)

    async def put_right(self) -> None:
        """All links as they were, all nodes up."""
        self._is_over.set()
        for node in self._nodes:
            node.host.clock_error_seconds = 0.0
        for is_done in list(self._changing.values()):
            await is_done.wait()
        for node_is_up in list(self._down.values()):
            await node_is_up.wait()
        for node in self._nodes:
            node.disk.shortage = None
        self._heal()
        self._renew_budgets()
        for node in self._nodes:
            if node.copy is not None:
                await node.kill()
                if node.number in self._salvaged:
                    salvage_directory(node, self._note)
                else:
                    node.put_back()
                    self._truth.put_back(node.number)
                if node.number % 2:
                    await compact_directory(node, self._note)
                node.start(self._nursery)
                await node.wait_started()
                await self._check(node)

    def _renew_budgets(self) -> None:
        """By another day, or because people want it so."""
        for node in self._nodes:
            rules = node.policy.peers
            if not has_budget(rules):
                continue
            if node.number % 2 and node.is_up:
                node.change_policy(replace(node.policy, peers=without_budgets(rules)))
            elif not any(other.plan.grant_seconds for other in self._nodes):
                node.host.clock_error_seconds = DAY_SECONDS
                self._note(f"the next day begins for node {node.number}")

    def _heal(self) -> None:
        for key, usual in self._usual.items():
            link = self._network.link(*key)
            link.is_cut, link.loss = False, usual.loss
            link.latency, link.jitter = usual.latency, usual.jitter

    def _cut(self, source: int, target: int, is_cut: bool) -> None:
        if source != target:
            self._network.link(source, target).is_cut |= is_cut

    def _links_of(self, number: int) -> Iterable[Link]:
        return (link for key, link in self._network.links.items() if number in key)

    async def _flap(self, node: SimulatedNode, chance: random.Random) -> None:
        for _ in range(FLAPS):
            for is_cut in (True, False):
                for link in self._links_of(node.number):
                    link.is_cut = is_cut
                with trio.move_on_after(chance.uniform(0.05, 1.5)):
                    await self._is_over.wait()
                    return

    async def _copy(self, node: SimulatedNode, chance: random.Random) -> None:
        """Some are not put back in the end, but salvaged where they lie."""
        await node.wait_started()
        if chance.random() < SALVAGED_SHARE:
            self._salvaged.add(node.number)
        if not self._is_over.is_set() and node.copy is None and node.disk.shortage is None:
            node.make_copy()
            self._truth.copy(node.number)

    async def _keep_up(self, fault: Fault, node: SimulatedNode, chance: random.Random) -> None:
        await node.wait_started()
        if self._is_over.is_set() or not node.is_up:
            return
        if fault is Fault.COMPACT:
            node.compact()
        elif fault is Fault.EVICT:
            node.evict()
        elif fault is Fault.RULE:
            rules = draw_rules(chance, node.number, len(self._nodes))
            node.change_policy(replace(node.policy, peers=rules))
        else:
            node.change_policy(draw_policy(chance, node.policy))

    async def _ban(self, node: SimulatedNode, _: random.Random) -> None:
        """The clients of the node go elsewhere."""
        founder = self._nodes[FOUNDER]
        admins = [other for other in self._nodes if other.plan.role is Role.ADMIN]
        admin = next((other for other in admins if other is not node), founder)
        if admin.role is not Role.ADMIN or node.role is Role.ADMIN:
            admin = founder
        await admin.wait_started()
        if not self._is_over.is_set() and node.number not in self._changing:
            if admin.role is not Role.ADMIN:
                return
            admin.shut_out(node)
            self._judges.add(admin.number)

    async def _change_role(self, node: SimulatedNode, chance: random.Random) -> None:
        """The founder signs that, while it runs or not; who is let in to read is given the key."""
        founder, id = self._nodes[FOUNDER], node.identity.public_key
        is_encrypted = founder.membership.is_encrypted
        role = draw_role(chance, node.role, is_encrypted=is_encrypted)
        is_shut_out_first, pause = chance.random() < 0.5, chance.choice((0.0, 0.0, 0.05, 1.0))
        if node.number not in self._judges:
            self._note(f"node {node.number} is made {role}, and was {node.role}")
            node.role = role
            if not role.may_write:
                node.send_clients_away()
            changes = sign_change(
                *(founder.membership, founder.identity, id, role),
                is_shut_out_first=is_shut_out_first,
                unix_seconds=founder.unix_time(),
            )
            for records in changes:
                founder.take(records)
                with trio.move_on_after(pause):
                    await self._is_over.wait()
            if node.is_blind and role is not Role.BLIND:
                await self._give_key(node, role)
        self._changing.pop(node.number).set()

    async def _give_key(self, node: SimulatedNode, role: Role) -> None:
        """It starts anew with a ticket."""
        founder, number = self._nodes[FOUNDER], node.number
        ticket = founder.membership.invite(
            founder.identity,
            role=role,
            member=node.identity.public_key,
            unix_seconds=founder.unix_time(),
        )
        while number in self._down:
            await self._down[number].wait()
        self._down[number] = trio.Event()
        await node.wait_started()
        await node.stop()
        node.join(ticket)
        node.start(self._nursery)
        await node.wait_started()
        self._down.pop(number).set()

    async def _fill(self, node: SimulatedNode, chance: random.Random) -> None:
        """Meanwhile all that was acknowledged is served."""
        await node.wait_started()
        if self._is_over.is_set() or node.disk.shortage is not None:
            return
        node.disk.shortage = chance.choice(list(Shortage))
        self._note(f"the disk of node {node.number} is short of room: {node.disk.shortage.name}")
        with trio.move_on_after(chance.choice((0.3, 1.5, 4.0))):
            await self._is_over.wait()
        await self._check(node)
        node.disk.shortage = None
        self._note(f"there is room on the disk of node {node.number}")

    async def _restart(self, fault: Fault, number: int, chance: random.Random) -> None:
        node = self._nodes[number]
        await node.wait_started()
        loses_power = fault is Fault.POWER and node.plan.durability.waits_for_disk
        if loses_power:
            await node.cut_power()
        elif fault is Fault.STOP:
            await node.stop()
        else:
            await node.kill()
        with trio.move_on_after(chance.choice((0.0, 0.2, 1.0, 5.0))):
            await self._is_over.wait()
        if chance.random() < 0.2:
            await compact_directory(node, self._note)
        node.start(self._nursery)
        await node.wait_started()
        await self._check(node)
        self._down.pop(number).set()


def _copy(link: Link) -> Link:
    return Link(link.latency, link.jitter, link.loss, link.bytes_per_second)
