"""Plays a script, and looks at what became of it.

What must hold whatever happens:

* Nothing acknowledged is lost: who acknowledged it has it, at the end and after each start.
* `Script.patience_seconds` after everything is put right, all nodes that want a value have of it
  what any node has that gives it to them, and all clients that loaded it have it as it was written.
* Nobody's quota is exceeded.
* Every node can be stopped at any moment, and leaves no task behind.
* A full disk takes nothing in, serves all that it holds, and recovers by itself.
* A node that is put back to an older copy of its directory, or salvaged, forks nothing.
* Who is shut out is gone everywhere.
* Of a session that goes on in two ways, evidence is everywhere where one of the two is.
* A blind member has every block of every writer, and nothing that it can read.
* All know what admins have made of each; who may not read gets nothing new, nor do others from
  who may not write.
* Nothing is logged above `info` but what is expected, and no task crashes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
import trio.socket
import trio.testing

from node.access.usage import transaction_bytes
from node.cojson.eraser import PAUSE_SECONDS, START_SECONDS
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, merge_counts
from tests.simulation.clients import SimulatedClient
from tests.simulation.clocks import clocks_of_hosts
from tests.simulation.deeds import Deeds
from tests.simulation.determinism import LogWatch, derive, run_deterministic
from tests.simulation.excuses import EXCUSED, WITHOUT_KEEPERS
from tests.simulation.faults import FaultMaker
from tests.simulation.membership import misjudged, not_gone, not_kept
from tests.simulation.network import Network
from tests.simulation.nodes import SimulatedNode
from tests.simulation.offline import is_in_own_log, plaintext_of, verify_directory
from tests.simulation.roles import MESH, encrypted, found_mesh
from tests.simulation.rules import flows, reached_from
from tests.simulation.script import (
    CONVERGENCE_SECONDS,
    QUOTA_BYTES,
    Deed,
    Fault,
    Script,
    Step,
    write_script,
)
from tests.simulation.sqlite_file import sqlite_on_virtual_time
from tests.simulation.truth import Truth

VERIFY_SHARE = 0.2
"""Of all runs, after which every block on every disk is looked at."""

WHISPER = 1 << 32
"""No step of a script draws so large a number."""

BOOT_SECONDS = 1.0
"""For the first connections, before anything happens."""

States = dict[RawCoId, dict[int, dict[CoSessionId, int]]]
"""What each node holds of each value."""


@dataclass
class Outcome:
    """One run, over."""

    seed: int
    trace: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    acknowledged: int = 0
    values: int = 0
    bytes_delivered: int = 0
    digest: int = 0
    seconds_to_converge: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    """How often each thing happened: steps, events in the log, what nodes count."""


def run_seed(seed: int, *, nodes: int | None = None, is_hasty: bool = False) -> Outcome:
    """Play the script of a seed; with disks that lie if `is_hasty`."""
    outcome = Outcome(seed)
    script = write_script(seed, nodes=nodes)
    if is_hasty:
        plans = (replace(plan, is_hasty=True) for plan in script.nodes)
        script = replace(script, nodes=tuple(plans))
    try:
        with TemporaryDirectory(prefix="beemesh-simulation-") as directory:
            run_deterministic(seed, Cluster(script, outcome, Path(directory)).play)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding about this seed
        outcome.violations.append(f"crashed: {_describe(error)}")
    return outcome


def _describe(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_describe(inner) for inner in error.exceptions)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    return f"{type(error).__name__}: {error} at {where}"


def _lacks(
    held: Mapping[CoSessionId, int], wanted: Mapping[CoSessionId, int]
) -> dict[CoSessionId, int]:
    return {key: count for key, count in wanted.items() if held.get(key, 0) < count}


class Cluster:
    """Nodes and clients of one run."""

    def __init__(self, script: Script, outcome: Outcome, directory: Path) -> None:
        """`directory` is for what lies in real files."""
        self._directory = directory
        self._script = script
        self._outcome = outcome
        self._network = Network(derive(script.seed, "network"))
        self._truth = Truth()
        mesh = encrypted(MESH) if script.is_encrypted else MESH
        memberships = [mesh] * len(script.nodes)
        if script.is_founded:
            memberships = found_mesh(mesh, script.nodes)
        self._nodes = [
            SimulatedNode(self._network, plan, script.seed, self._note, membership, directory)
            for plan, membership in zip(script.nodes, memberships, strict=True)
        ]
        self._clients = [
            SimulatedClient(number, self._truth, self._nodes, self._note)
            for number in range(script.clients)
        ]
        self._deeds = Deeds(script.seed, self._truth, self._clients, self._nodes)

    def _note(self, text: str) -> None:
        text = text.replace(str(self._directory), "")  # another one each time
        self._outcome.trace.append(f"{trio.current_time():9.4f} {text}")

    def _complain(self, text: str) -> None:
        self._note(f"VIOLATION {text}")
        self._outcome.violations.append(text)

    async def play(self) -> None:
        logs = LogWatch(self._note, self._outcome.seen)
        logs.install()
        trio.socket.set_custom_socket_factory(self._network)
        try:
            with sqlite_on_virtual_time(), clocks_of_hosts():
                async with trio.open_nursery() as nursery:
                    await self._play(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            logs.uninstall()
        happened = {step.what for step in self._script.steps}
        excuses = [excuse for what, excuse in EXCUSED.items() if what in happened]
        if any(node.plan.min_copies > 1 for node in self._nodes):
            excuses.append(WITHOUT_KEEPERS)
        for complaint in logs.complaints:
            if not any(re.search(excuse, complaint) for excuse in excuses):
                self._complain(f"logged: {complaint}")
        self._outcome.digest = self._network.digest
        self._outcome.bytes_delivered = self._network.bytes_delivered
        self._outcome.values = len(self._deeds.made)

    async def _play(self, nursery: trio.Nursery) -> None:
        script = self._script
        for source in range(len(self._nodes)):
            for target in range(len(self._nodes)):
                link = self._network.link(source, target)
                link.latency, link.jitter = script.latency, script.jitter
        nursery.start_soon(self._network.run)
        faults = FaultMaker(
            self._network, self._nodes, nursery, self._check_held, self._truth, self._note
        )
        for node in self._nodes:
            node.start(nursery)
        for node in self._nodes:
            await node.wait_started()
        async with self._clients_running():
            await trio.sleep(BOOT_SECONDS)
            start = trio.current_time()
            self._deeds.found_group()
            for step in script.steps:
                await trio.sleep_until(start + step.at)
                self._note(f"{step.what.name.lower()} by {step.actor}")
                self._outcome.seen[f"step {step.what.name.lower()}"] += 1
                if isinstance(step.what, Fault):
                    faults.make(step.what, step.actor, derive(script.seed, "step", step.draw))
                else:
                    self._deeds.do(step.what, step)
            await trio.sleep_until(start + script.seconds)
            self._note("everything is put right")
            await faults.put_right()
            await self._converge()
            await self._whisper()
            await self._check_erased()
        for node in self._nodes:
            await self._check_held(node)
            self._check_cores(node)
        self._check_quotas()
        self._count()
        for node in self._nodes:
            await node.stop()
        if derive(script.seed, "verify").random() < VERIFY_SHARE:
            for node in self._nodes:
                for problem in await verify_directory(node):
                    self._complain(problem)

    @asynccontextmanager
    async def _clients_running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for client in self._clients:
                nursery.start_soon(client.run)
            yield
            nursery.cancel_scope.cancel()
        for client in self._clients:
            for problem in client.problems:
                self._complain(problem)

    def _count(self) -> None:
        """Look at what nodes count; of those that started again, since then."""
        seen = self._outcome.seen
        for node in self._nodes:
            seen[f"node {node.role.value}"] += 1
            seen[f"node keeps {', '.join(node.policy.brief)}"] += 1
            seen["node hybrid"] += node.plan.is_hybrid
            seen["node encrypted"] += self._script.is_encrypted
            seen["node min copies"] += node.plan.min_copies > 1
            for source in (node.mesh, node.sync):
                counted = {} if source is None else asdict(source.statistics())
                for name, number in counted.items():
                    if isinstance(number, int) and number:
                        seen[f"count {name}"] += number

    # What must hold.

    async def _check_held(self, node: SimulatedNode) -> None:
        """All that a node acknowledged is in its store."""
        if node.sync is None:
            return
        counts = self._truth.acknowledged.get(node.number, {})
        for (co_id, session_id), count in counts.items():
            held = (await node.sync.known_state(co_id)).sessions
            is_gone = any(map(is_delete_session, held)) and not is_delete_session(session_id)
            if held.get(session_id, 0) < count and not is_gone:
                self._complain(
                    f"node {node.number} lost {session_id} of {co_id}: "
                    f"{held.get(session_id, 0)} of {count}"
                )
        self._outcome.acknowledged += len(counts)

    async def _converge(self) -> None:
        """Wait until all agree; what does not in time is a violation."""
        started = trio.current_time()
        apart = await self._apart()
        while apart and trio.current_time() < started + self._script.patience_seconds:
            await trio.sleep(0.1)
            apart = await self._apart()
        seconds = trio.current_time() - started
        self._outcome.seconds_to_converge = max(self._outcome.seconds_to_converge, seconds)
        self._note(f"agreed after {seconds:.1f} s")
        for text in apart:
            self._complain(text)

    async def _apart(self) -> list[str]:
        """Who lacks what, now."""
        states: States = {}
        for co_id in self._deeds.made:
            for node in self._readers:
                if node.sync is not None:
                    state = await node.sync.known_state(co_id)
                    if state != NOTHING:
                        states.setdefault(co_id, {})[node.number] = dict(state.sessions)
        apart = [text for co_id in states for text in self._compare(co_id, states[co_id])]
        apart += self._unacknowledged(states)
        apart += not_gone(self._nodes)
        apart += not_kept(self._nodes)
        apart += misjudged(self._nodes) if self._script.is_founded else []
        for session in () if self._script.has_rules else self._truth.forked:
            apart += await self._unseen(*session)
        return apart

    def _compare(self, co_id: RawCoId, states: dict[int, dict[CoSessionId, int]]) -> Iterable[str]:
        for number, counts in states.items():
            states[number] = {
                key: self._truth.sound(co_id, key, count) for key, count in counts.items()
            }
        for node in self._readers:
            if node.sync is None:
                yield f"node {node.number} is not up"
            elif node.wants(co_id, self._truth):
                held, wanted = states.get(node.number), self._due_at(node, states)
                if wanted and (held is None or _lacks(held, wanted)):
                    yield f"node {node.number} has {held} of {co_id}, wanted {wanted}"
        for client in self._clients:
            home = client.node
            if home is None or co_id not in client.wanted or home.denies(co_id, self._truth):
                continue
            wanted = self._due_at(home, states)
            if not any(map(is_delete_session, wanted)):
                seen = client.held.get(co_id, {})
                if lacking := _lacks(seen, wanted):
                    yield f"client {client.number} lacks {lacking} of {co_id}"

    def _due_at(
        self, node: SimulatedNode, states: dict[int, dict[CoSessionId, int]]
    ) -> dict[CoSessionId, int]:
        """What a node is to have of a value: what anybody has that gives it to this one.

        What only readers are left to hold, since its writer was shut out, they do not pass on.
        """
        due: dict[CoSessionId, int] = {}
        for other in self._readers:
            if other.number in states and other.takes_clients and flows(other, node):
                merge_counts(due, states[other.number])
        deletions = {key: count for key, count in due.items() if is_delete_session(key)}
        return deletions or due

    async def _unseen(self, co_id: RawCoId, session_id: CoSessionId) -> list[str]:
        """Who holds one of two continuations, of which others hold the other, and has no evidence.

        The two are of different lengths, and who has the shorter one asks for the other.
        """
        counts: dict[int, int] = {}
        wanted: set[int] = set()
        unaware: list[int] = []
        for node in self._readers:
            if node.sync is None or node.store is None:
                continue
            held = (await node.sync.known_state(co_id)).sessions.get(session_id, 0)
            if held > self._truth.forked[co_id, session_id]:
                counts[node.number] = held
                known = {(fork.co_id, fork.session_id) for fork in await node.store.forks()}
                if node.wants(co_id, self._truth):
                    wanted.add(held)
                    if (co_id, session_id) not in known:
                        unaware.append(node.number)
        if min(wanted, default=0) == max(counts.values(), default=0):
            return []
        return [f"node {number} has no evidence that {session_id} forks" for number in unaware]

    @property
    def _members(self) -> list[SimulatedNode]:
        """Nodes that nobody shut out."""
        return [node for node in self._nodes if not node.is_shut_out]

    @property
    def _readers(self) -> list[SimulatedNode]:
        """Of these, who can read what all have."""
        return [node for node in self._members if node.reads]

    def _unacknowledged(self, states: States) -> Iterable[str]:
        """What a client wrote within its quota must be safe somewhere by now.

        In more than one copy, if its node is to tell no sooner; who else would have kept one may
        be shut out, or keep other values by now, and then nobody is to be told that it is safe.
        """
        for client in self._clients:
            if client.number in self._deeds.greedy:
                continue
            node = client.node
            if node is None:
                yield f"client {client.number} is not connected"
                continue
            counts = self._truth.acknowledged.get(node.number, {})
            for co_id, session_id, total in client.written():
                if co_id in self._truth.deleted and not is_delete_session(session_id):
                    continue
                if self._some_are_kept_from_some and self._cannot_be_taken(node, co_id, states):
                    continue
                safe = counts.get((co_id, session_id), 0)
                sound = self._truth.sound(co_id, session_id, total)
                copies = sum(
                    keeper.wants(co_id, self._truth)
                    or states.get(co_id, {}).get(keeper.number, {}).get(session_id, 0) >= sound
                    for keeper in self._readers
                )
                if safe < sound and copies >= node.plan.min_copies:
                    yield (
                        f"client {client.number}: {safe} of {total} of {session_id} of {co_id} "
                        "are safe"
                    )

    async def _whisper(self) -> None:
        """Write something once all know who may read: who may not does not get it."""
        teller = self._clients[-1].node
        if teller is None or self._outcome.violations:
            return
        reached = reached_from(teller, self._members)
        kept_out = [node for node in self._nodes if not node.reads or node.number not in reached]
        if not kept_out:
            return
        before = set(self._deeds.made)
        self._deeds.do(Deed.CREATE, Step(0, Deed.CREATE, self._script.clients - 1, WHISPER))
        await self._converge()
        for node in kept_out:
            for co_id in set(self._deeds.made) - before:
                if node.sync is not None and await node.sync.known_state(co_id) != NOTHING:
                    self._complain(f"node {node.number} has {co_id}, and may not read")
            if node.is_blind and (
                read := plaintext_of(node, [co_id.encode() for co_id in self._deeds.made])
            ):
                self._complain(f"node {node.number} is blind, and has {read[0]!r} on its disk")

    async def _check_erased(self) -> None:
        """A minute later it is in the log of nobody who has heard that it was deleted."""
        gone = [co_id for co_id in self._deeds.blobs if co_id in self._truth.deleted]
        if not gone or self._outcome.violations:
            return
        await trio.sleep(START_SECONDS + PAUSE_SECONDS + CONVERGENCE_SECONDS)
        for node in self._nodes:
            for co_id in gone:
                known = NOTHING if node.sync is None else await node.sync.known_state(co_id)
                mark = self._deeds.blobs[co_id].encode()
                is_gone = any(map(is_delete_session, known.sessions))
                if is_gone and await is_in_own_log(node, mark):
                    self._complain(f"{node.name} has {co_id} in its log, which was deleted")

    @property
    def _some_are_kept_from_some(self) -> bool:
        plans = self._script.nodes
        return self._script.has_rules or any("deny" in plan.policy.brief for plan in plans)

    def _cannot_be_taken(self, node: SimulatedNode, co_id: RawCoId, states: States) -> bool:
        """Whether something is lacking that a value needs, because it is denied, or kept away.

        Clients here bring nothing but what they wrote: a node that denies what that needs cannot
        take it, nor can others what needs that.
        """
        needs = self._truth.needs(co_id) - {co_id}
        return any(
            node.denies(id, self._truth)
            or id not in states
            or (node.number not in states[id] and not self._due_at(node, states[id]))
            for id in needs
        )

    def _check_cores(self, node: SimulatedNode) -> None:
        """Nobody forks its own log, whatever copy of it is put back."""
        if node.mesh is not None and (forked := node.mesh.statistics().forked_cores):
            self._complain(f"node {node.number} knows of {forked} forked cores")

    def _check_quotas(self) -> None:
        """Of nobody there is more than allowed, anywhere: each person has one device only."""
        for client in self._clients:
            most = 0
            for co_id, session_id, _ in client.written():
                if co_id in self._truth.deleted:
                    continue  # what comes of it later is acknowledged, and not kept
                safe = max(
                    counts.get((co_id, session_id), 0)
                    for counts in [{}, *self._truth.acknowledged.values()]
                )
                session = self._truth.session(co_id, session_id)
                most += sum(map(transaction_bytes, session.transactions[:safe]))
            if most > QUOTA_BYTES:
                self._complain(f"client {client.number} has {most} bytes of {QUOTA_BYTES}")
