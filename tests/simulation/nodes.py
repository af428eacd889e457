"""A node of a simulated cluster: what `beemesh up` builds, on a simulated host and disk."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import trio
from structlog.contextvars import bound_contextvars

from bee.bee import Bee
from hypercore.core import Core
from hypercore.corestore import Corestore, corestore_on
from hypercore.errors import HypercoreError
from hypercore.storage.memory import MemoryStorage
from node.access.gate import Gate
from node.access.usage_file import count_usage
from node.block_cache import BlockCache
from node.cojson.gatekeeper import Origin
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.room import Room, run_with_room
from node.cojson.serve import ClientSocket, serve_client
from node.compacting import Compacting, CompactionOptions
from node.covalue.bee_store import BeeStore
from node.covalue.hybrid_store import open_hybrid_store
from node.covalue.ids import RawCoId
from node.covalue.reconciling import NoteCopied
from node.covalue.store import CoValueStore
from node.disk_guard import DiskLimits, open_disk_guard
from node.introducing import Introducer
from node.keeping import MAX_DIALED
from node.mesh import whereabouts
from node.mesh.exchange import measure_traffic
from node.mesh.member_book import MemberBook
from node.mesh.membership import Membership
from node.mesh.mesh import Mesh, open_mesh
from node.mesh.pushing import ValuePusher
from node.mesh.recall import LogWasLonger
from node.mesh.replicas import ReplicaPolicy
from node.mesh.serve import ACCEPTED as MEMBER_PROTOCOLS
from node.mesh.serve import KeptOut, NotSpoken, serve_member
from node.mesh.ticket import Record, Role, Ticket
from node.mesh.trust import Trust
from node.notation import parse_address
from node.pausing import pause_without_room
from node.storing import open_data_core
from swarm.io.connection import Connection
from swarm.io.mux import open_mux
from swarm.io.swarm import Swarm, open_swarm
from tests.simulation.clocks import unix_time
from tests.simulation.determinism import Note
from tests.simulation.disk import Disk, DiskStorage
from tests.simulation.network import CURRENT_HOST, PORT, Network
from tests.simulation.plans import NodePlan
from tests.simulation.roles import FOUNDER, identity_of, keep_role, renewed
from tests.simulation.sqlite_file import SqliteFile
from tests.simulation.truth import Truth

ACCEPTED = (*MEMBER_PROTOCOLS, whereabouts.PROTOCOL)
EVICTIONS = 4
"""Measurements one after the other until nothing counts as used lately."""
UNWIND_SECONDS = 30.0
"""For the tasks of a node that is stopped; virtual, and far more than they may need."""


class Door(ClientSocket, Protocol):
    """A client's connection, which goes down with its node."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Copy:
    """Of a node's directory."""

    rows: MemoryStorage
    file: Path | None
    """The SQLite file of a hybrid node."""
    book: bytes
    membership: Membership


class _Values(NamedTuple):
    """Where the coValues of a node are while it runs."""

    bee: Bee[bytes, bytes]
    compacting: Compacting
    store: CoValueStore
    rebuild: Callable[[], Awaitable[int]]
    catch_up: Callable[[NoteCopied], Awaitable[None]] | None = None


class SimulatedNode:
    """A host, a disk, and the process that runs there now, if one does."""

    def __init__(
        self,
        network: Network,
        plan: NodePlan,
        seed: int,
        note: Note,
        membership: Membership,
        directory: Path,
    ) -> None:
        """`directory` is for what lies in real files."""
        self.network = network
        self.host = network.add_host()
        self.number = self.host.number
        self.plan = plan
        self.policy = plan.policy
        """Of now; a node keeps it over a restart."""
        self.identity = identity_of(self.number)
        self.role = plan.role
        """What admins make of it, whether it knows or not."""
        if self.identity.public_key in membership.founders:
            self.role = Role.ADMIN
        self.is_shut_out = False
        self.copy: Copy | None = None
        """Of its directory, for who puts it back."""
        self._chance = random.Random(f"{seed}/node/{self.number}")
        sync_seconds = self._chance.choice((0.0005, 0.003, 0.02))
        self.disk = Disk(self._chance, sync_seconds, is_hasty=plan.is_hasty)
        self._file = SqliteFile(directory / str(self.number), self.disk) if plan.is_hybrid else None
        self.room = Room()
        """Of this start of it."""
        self._note = note
        self._book = MemberBook()
        self._membership = membership
        self._trust: Trust | None = None
        self._storage: DiskStorage | None = None
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._stopped.set()
        self._started = trio.Event()
        self.sync: SyncHost | None = None
        self.mesh: Mesh | None = None
        self.swarm: Swarm | None = None
        self.store: CoValueStore | None = None
        self.cores: Corestore | None = None
        self.data: Core | None = None
        self._compacting: Compacting | None = None
        self._cache: BlockCache | None = None
        self._clients: trio.Nursery | None = None
        self._doors: dict[Door, None] = {}

    @property
    def primary_key(self) -> bytes:
        return self.number.to_bytes(32, "little")

    @property
    def name(self) -> str:
        return f"node {self.number}"

    @property
    def is_up(self) -> bool:
        return self.sync is not None

    @property
    def is_blind(self) -> bool:
        """Whether it lacks the key; who has it, and is made blind, gets nothing to read."""
        return self._membership.lacks_key

    @property
    def takes_clients(self) -> bool:
        """Whether what clients bring here is on its way to all others, and it knows."""
        knows = self.mesh is None or self.mesh.trust.may_write
        return not self.is_shut_out and self.role.may_write and not self.is_blind and knows

    @property
    def reads(self) -> bool:
        """Whether it is to have what others write."""
        return self.role is not Role.BLIND and not self.is_blind

    def wants(self, co_id: RawCoId, truth: Truth) -> bool:
        """Whether it is to hold this value, for itself or for a client."""
        if self.sync is None or self.denies(co_id, truth):
            return False
        if co_id in self.sync.subscribed_ids():
            return True
        if self.policy.is_bounded:
            return False
        return self.policy.reason(co_id, truth.owners(co_id)) is not None

    def denies(self, co_id: RawCoId, truth: Truth) -> bool:
        """Whether it takes nothing of this value from other nodes."""
        return self.policy.denial(co_id, truth.owners(co_id)) is not None

    def start(self, nursery: trio.Nursery) -> None:
        self._note(f"node {self.number} starts")
        self.host.is_on = True
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        nursery.start_soon(self._run)

    async def wait_started(self) -> None:
        await self._started.wait()

    async def _run(self) -> None:
        """Run the node, once more when it asks for that."""
        CURRENT_HOST.set(self.host)
        while await self._ends_to_start_again():
            self._scope = trio.CancelScope()
        self._note(f"node {self.number} is gone")
        self._stopped.set()

    async def _ends_to_start_again(self) -> bool:
        self._storage = DiskStorage(self.disk, self.plan.durability)
        is_over = True
        try:
            with self._scope, bound_contextvars(node=self.number):
                async with self._open(self._storage):
                    self._started.set()
                    await trio.sleep_forever()
        except* LogWasLonger as group:
            self._note(f"node {self.number} ends, and starts again: {group.exceptions[0]}")
            self._save()
            is_over = False
        return not is_over

    @asynccontextmanager
    async def _open(self, storage: DiskStorage) -> AsyncIterator[None]:
        """As `node.daemon.open_node`, without web servers and files."""
        plan, public_key = self.plan, self.identity.public_key
        with corestore_on(
            storage, primary_key=self.primary_key, entropy=self._chance.randbytes
        ) as cores:
            async with (
                open_data_core(cores, self._membership.data_key) as data,
                self._open_values(data, cores) as values,
            ):
                bee, compacting, store = values.bee, values.compacting, values.store
                gate = Gate(quotas=plan.quotas, usage=await count_usage(store))
                limits = DiskLimits((), self.disk.max_bytes)
                options = HostOptions(min_copies=plan.min_copies)
                self.room = room = Room()
                async with (
                    open_disk_guard(room, limits, cores, store, self._measure),
                    open_sync_host(store, options, access=gate, room=room) as sync,
                    open_mesh(
                        sync,
                        data,
                        self._membership,
                        id=public_key,
                        name=self.name,
                        policy=self.policy,
                        identity=self.identity,
                        book=self._book,
                        clock=self.unix_time,
                        cores=cores,
                        pusher=ValuePusher(bee, data),
                        rebuild=values.rebuild,
                        entropy=self._chance.randbytes,
                    ) as mesh,
                ):
                    sync.mesh, compacting.is_member = mesh, mesh.has_met
                    self._trust = mesh.trust
                    introducer = Introducer(
                        *(public_key, lambda: [f"{self.host.address}:{PORT}"], self._book),
                        *(mesh.members.__contains__, mesh.trust.is_barred),
                    )

                    async with open_swarm(
                        self.identity,
                        partial(self._serve, mesh, cores, introducer),
                        listen=(self.host.address, PORT),
                        lan=False,
                        watches_network=False,
                        entropy=self._chance.randbytes,
                    ) as swarm:
                        introducer.use(swarm)
                        self._dial(swarm, mesh)
                        await mesh.recall.wait_settled()
                        if values.catch_up is not None:
                            await values.catch_up(sync.announce)
                        async with trio.open_nursery() as clients:
                            clients.start_soon(pause_without_room, room, mesh, None)
                            clients.start_soon(run_with_room, room, compacting.run)
                            if self._membership.founders:
                                clients.start_soon(keep_role, mesh.trust, gate, sync.end_refused)
                            self.sync, self.mesh, self.swarm = sync, mesh, swarm
                            self.store, self._clients = store, clients
                            self.cores, self.data = cores, data
                            self._compacting = compacting
                            kept = mesh.safekeeping.kept
                            self._cache = BlockCache(cores, mesh.uses, 0, kept)
                            try:
                                yield
                            finally:
                                self._forget()
                                clients.cancel_scope.cancel()

    async def _serve(
        self, mesh: Mesh, cores: Corestore, introducer: Introducer, connection: Connection
    ) -> None:
        async with open_mux(connection, accept=ACCEPTED) as mux:
            try:
                await serve_member(
                    *(mesh, mux, cores, measure_traffic(connection)),
                    partial(introducer.serve, None),
                    stopwatch=trio.current_time,
                )
            except (KeptOut, NotSpoken) as error:
                self._note(f"node {self.number}: {error}")

    @asynccontextmanager
    async def _open_values(self, data: Core, cores: Corestore) -> AsyncIterator[_Values]:
        """As `node.storing.open_storing`."""
        bee = Bee(data)
        compacting = Compacting(bee, data, cores.reclaim, CompactionOptions(0.0, 0))
        store = BeeStore(bee, data, compacting.reclaim, keeps_texts=self._file is None)
        if self._file is None:
            yield _Values(bee, compacting, store, store.rebuild)
            return
        async with (
            self._file.open(self.plan.durability) as sqlite,
            open_hybrid_store(sqlite, store, catches_up=False) as hybrid,
        ):
            yield _Values(bee, compacting, hybrid, hybrid.rebuild, hybrid.catch_up)

    def _dial(self, swarm: Swarm, mesh: Mesh) -> None:
        """Whom it is told of, and whom it has met."""
        for number in self.plan.peers:
            swarm.add_peer(self.network.hosts[number].address, PORT)
        for id, address in self._book.addresses(MAX_DIALED):
            if not mesh.trust.is_barred(key := bytes.fromhex(id)):
                swarm.add_peer(*parse_address(address), key)

    async def _measure(self, _paths: tuple[Path, ...]) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return self.disk.measure()

    def compact(self) -> None:
        """Have the bee compacted at the next look."""
        assert self._clients is not None
        assert self._compacting is not None
        self._clients.start_soon(self._compacting.reclaim)

    def evict(self) -> None:
        """Give up all blocks of others that nobody reads."""
        if self._cache is not None and self._clients is not None:
            cache, self._cache = self._cache, None
            self._clients.start_soon(self._evict, cache)

    async def _evict(self, cache: BlockCache) -> None:
        try:
            for _ in range(EVICTIONS):
                await cache.trim()
        except HypercoreError as error:
            self._note(f"node {self.number} cannot trim its cache: {error}")
        self._cache = cache

    def change_policy(self, policy: ReplicaPolicy) -> None:
        assert self.mesh is not None
        self._note(f"node {self.number} keeps {', '.join(policy.brief)}")
        self.policy = policy
        self.mesh.change_policy(policy)

    def lacks_of(self, data: Core) -> int:
        """How many blocks of a writer's data core are not here."""
        here = None
        if self.cores is not None:
            open_cores = self.cores.open_cores()
            here = next((core for core in open_cores if core.key == data.key), None)
        held = range(data.length) if here is None else range(here.length, data.length)
        lacking = sum(data.bitfield.get(index) for index in held)
        if here is not None:
            pairs = ((data.bitfield.get(i), here.bitfield.get(i)) for i in range(here.length))
            lacking += sum(theirs and not ours for theirs, ours in pairs)
        return lacking

    def make_copy(self) -> None:
        """Copy its directory; it runs on."""
        self._note(f"node {self.number} is copied")
        file = self._file.copy() if self._file is not None else None
        self.copy = Copy(self.disk.copy(), file, self._book.encode(), self.membership)

    def put_back(self) -> None:
        """Make its directory what it was when it was copied; it must not run.

        Of a hybrid node it may be the rows alone, or the SQLite file.
        """
        assert self.copy is not None
        kinds = ("all", "all", "rows", "file") if self.copy.file is not None else ("all",)
        kind = self._chance.choice(kinds)
        self._note(f"node {self.number} is put back to its copy: {kind}")
        if kind != "file":
            self.disk.put_back(self.copy.rows)
            self._book = MemberBook.decode(self.copy.book)
            if self.number != FOUNDER:  # what it signed since nobody else may have heard of
                key = self._membership.data_secret  # who was given that since needs it again
                self._membership = replace(self.copy.membership, data_secret=key)
        if kind != "rows" and self._file is not None and self.copy.file is not None:
            self._file.put_back(self.copy.file)

    def shut_out(self, other: SimulatedNode) -> None:
        """Revoke another node; its clients go elsewhere."""
        assert self.mesh is not None
        self._note(f"node {self.number} shuts out node {other.number}")
        subject, now = other.identity.public_key, self.unix_time()
        trust = self.mesh.trust
        trust.take([trust.membership.revoke(self.identity, subject, "lost", unix_seconds=now)])
        other.is_shut_out = True
        other.send_clients_away()

    def send_clients_away(self) -> None:
        for door in list(self._doors):
            door.close()

    @property
    def membership(self) -> Membership:
        """As it knows its mesh; as it is on its disk while it does not run."""
        self._save()
        return self._membership

    def take(self, records: Sequence[Record]) -> None:
        """Have these count, also where it does not run: a verb can do that."""
        if self._trust is not None:
            self._trust.take(records)
        else:
            self._membership = self._membership.taking(records, self.unix_time())

    def unix_time(self) -> float:
        """As its own clock has it."""
        return unix_time(self.host)

    def _save(self) -> None:
        """A node does so as soon as it changes, also before it takes clients."""
        if self._trust is not None:
            self._membership = self._trust.membership

    def join(self, ticket: Ticket) -> None:
        """Start with this ticket the next time; it must not run."""
        id, now = self.identity.public_key, self.unix_time()
        self._membership = renewed(self._membership, ticket, id, now)

    def _forget(self) -> None:
        self._save()
        self.sync = self.mesh = self.swarm = self.store = self._clients = self._trust = None
        self.cores = self.data = self._compacting = self._cache = None
        self._started = trio.Event()

    def serve_client(self, socket: Door, origin: Origin) -> None:
        """Let a client in; the node must be up."""
        assert self.sync is not None
        assert self._clients is not None
        self._clients.start_soon(self._serve_client, self.sync, socket, origin)

    async def _serve_client(self, sync: SyncHost, socket: Door, origin: Origin) -> None:
        self._doors[socket] = None
        try:
            await serve_client(sync, socket, origin)
        finally:
            self._doors.pop(socket, None)
            socket.close()

    async def stop(self) -> None:
        """In order, as after SIGTERM."""
        self._note(f"node {self.number} stops")
        await self._unwind()

    async def kill(self) -> None:
        """The process ends at once; what it wrote is in the system's memory, sockets are closed."""
        self._note(f"node {self.number} is killed")
        self._cut_off()
        for socket in list(self.host.sockets):
            socket.close()
        await self._unwind()

    async def cut_power(self) -> None:
        """The machine is off at once: what was not synced is lost, in whole or in part."""
        self._cut_off()
        lost = self.disk.cut_power()
        self._note(f"node {self.number} loses power and {lost} commits")
        self.host.is_on = False
        for socket in list(self.host.sockets):
            socket.vanish()
        if self.host.listener is not None:
            self.host.listener.vanish()
        await self._unwind()

    def _cut_off(self) -> None:
        if self._storage is not None:
            self._storage.cut_off()
        if self._file is not None:
            self._file.cut_off()
        for door in list(self._doors):
            door.close()
        self._forget()

    async def _unwind(self) -> None:
        self._scope.cancel()
        with trio.fail_after(UNWIND_SECONDS):
            await self._stopped.wait()
