"""[trio] A node: builds all its parts, owns them, and takes them down in the right order.

    corestore -> data core -> bee -> CoValueStore -> SyncHost <- Jazz clients
                                                     SyncHost <- Mesh <- Swarm -> other nodes

With `--store sqlite` there is no data core, hence no mesh and no swarm (`storing`).

Closing goes the other way: clients are told to go, connections and discovery end, then the sync
host and the store. What was acknowledged is on the disk by then, as the durability says.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version

import structlog
import trio
from structlog.contextvars import bound_contextvars

from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair, decode_id, encode_id
from hypercore.fork_proof import verify_fork_proof
from hypercore.replication.messages import PROTOCOL as LOG_PROTOCOL
from hypercore.storage import Durability
from node.access.opening import Access, open_access
from node.block_cache import BlockCache, open_block_cache
from node.client import AdminAccess
from node.cojson.host import HostOptions, SyncHost, open_sync_host
from node.cojson.room import Room, run_with_room
from node.cojson.serve import serve_client
from node.config import Config, Endpoint
from node.disk_guard import DiskGuard, DiskLimits, open_disk_guard
from node.explaining import explain
from node.governing import Presence, perform_on_mesh
from node.identity import load_or_create_identity, read_passphrase
from node.joining import Joining, choose_membership, parse_joins
from node.keeping import MeshKeeper, open_keeper
from node.listening import bound_port, dialable, open_endpoint, open_tcp
from node.logs import DATA_CORE, perform_on_store
from node.mesh.exchange import Traffic
from node.mesh.member import MemberStatistics
from node.mesh.member_book import MemberBook, load_book
from node.mesh.membership import Membership, NotAllowed
from node.mesh.membership_file import load_membership, save_membership
from node.mesh.mesh import Mesh, open_mesh
from node.mesh.messages import PROTOCOL as MESH_PROTOCOL
from node.mesh.peer_rules import is_lan_address
from node.mesh.policy_file import load_policy
from node.mesh.pushing import ValuePusher
from node.mesh.replicas import ReplicaPolicy
from node.mesh.serve import KeptOut, NotSpoken, OtherMesh, serve_member
from node.mirror_file import MirrorSpec, load_mirrors
from node.mirrors import Mirrors, open_mirrors
from node.policies import Policies
from node.relaying import RelayService
from node.storing import Storing, open_storing
from node.syncing import perform_on_sync
from node.table import open_table
from node.tally import BlockTally
from node.transfer import perform_transfer
from node.values import perform_on_values
from node.verbs import (
    AddMirror,
    ChangePolicy,
    ExitCode,
    Explain,
    ExportValues,
    ImportValues,
    ListForks,
    ListMirrors,
    ListValues,
    Load,
    LogVerb,
    MeshInfo,
    MeshInvite,
    MeshMembers,
    MeshRevoke,
    RemoveMirror,
    Result,
    ShowPolicy,
    ShowSync,
    Verb,
    VerbError,
    WaitSync,
)
from node.web.admin import serve_admin
from node.web.jazz import JazzLimits, JazzServer, JazzSocket
from node.web.status import (
    CacheStatus,
    ClientCounts,
    CompactionStatus,
    DiskStatus,
    NodeStatus,
    PeerStatus,
    PenaltyStatus,
    SyncCounts,
)
from swarm.io.connection import Connection
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.swarm import Swarm, open_swarm
from swarm.io.tasks import open_background_nursery

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the node can be reached: URLs for clients and people, HOST:PORT for other nodes."""

    ws: str
    mesh: str | None
    admin: str


@dataclass(frozen=True, slots=True)
class _Self:
    """Who this node is, read from its data directory; of no mesh if its store has none."""

    identity: KeyPair = field(repr=False)
    membership: Membership | None = field(repr=False)
    joining: Joining = field(repr=False)
    book: MemberBook
    policy: ReplicaPolicy = field(default_factory=ReplicaPolicy)
    mirrors: list[MirrorSpec] = field(default_factory=list)


class Node:
    """A running node; made by `open_node`."""

    def __init__(
        self,
        config: Config,
        identity: KeyPair,
        store: Corestore,
        storing: Storing,
        host: SyncHost,
        mesh: Mesh | None,
        access: Access,
    ) -> None:
        self.config = config
        self.store = store
        self.host = host
        self.mesh = mesh
        self.access = access
        self.compacting = storing.compacting
        self.addresses = Addresses("", None, "")
        self.admin_token = ""
        self.jazz = JazzServer(
            self._serve_jazz,
            JazzLimits(
                max_message_bytes=config.ws_max_message_bytes,
                max_connections=config.ws_max_connections,
                max_connections_per_address=config.ws_max_connections_per_address,
                handshake_seconds=config.ws_handshake_seconds,
                deflate=config.ws_deflate,
            ),
            access.door,
        )
        self._identity = identity
        self.keeper = (
            None
            if mesh is None
            else MeshKeeper(
                *(mesh, identity, config, access.gate),
                lambda: self.mesh_addresses,
                lambda: self._present(),
            )
        )
        self._data = storing.data
        self._values = storing.values
        self.mirrors: Mirrors | None = None
        self.cache: BlockCache | None = None
        """Both are None without connections to other nodes."""
        self.guard: DiskGuard | None = None
        self.room: Room | None = None
        self._policies = Policies(mesh, config.policy_path, config.replicate)
        self._swarm: Swarm | None = None
        self.relay: RelayService | None = None
        self._tally = BlockTally(store.open_cores)
        self._started = trio.current_time()

    @property
    def id(self) -> bytes:
        return self._identity.public_key

    @property
    def key(self) -> bytes | None:
        """Of the data core; None without one."""
        return None if self._data is None else self._data.key

    def ticket(self) -> str | None:
        """Lets its bearer into the mesh: a secret. None if there is none, or we may not."""
        if self.mesh is None:
            return None
        with suppress(NotAllowed):
            ticket = self.mesh.membership.invite(
                self._identity, self.mesh_addresses, unix_seconds=time.time()
            )
            return ticket.encode()
        return None

    @property
    def mesh_addresses(self) -> list[str]:
        """Where other nodes can dial this one, the best first."""
        listening = self._swarm.addresses if self._swarm is not None else ()
        texts = [text for host, port in listening for text in dialable(host, port)]
        return [*texts, *self.config.mesh_url]

    async def connect(self, swarm: Swarm, mesh: Mesh, joining: Joining) -> None:
        """Look for the members of the mesh."""
        self._swarm = swarm
        for id, host, port in () if self.keeper is None else self.keeper.known_addresses():
            swarm.add_peer(host, port, id)
        for peer in joining.peers:
            swarm.add_peer(peer.host, peer.port, peer.public_key)
        for way in joining.websockets:
            swarm.add_websocket(way.url, way.public_key)
        await swarm.join(mesh.membership.topic)
        if self.mirrors is not None:
            await self.mirrors.connect(swarm)

    async def serve_connection(self, mesh: Mesh, connection: Connection) -> None:
        """One other node, or any hypercore peer: who knows a core's key may replicate it."""
        found_by = self._found_by(connection.link.remote_public_key)
        with bound_contextvars(remote=connection.remote_address, found_by=found_by):
            await self._serve(mesh, connection)

    async def _serve_jazz(self, client: JazzSocket) -> None:
        self.access.gate.count_connection(client.origin)
        await serve_client(self.host, client, client.origin)

    async def dismiss_withdrawn(self) -> None:
        """Send away the clients whose token is taken back, until cancelled."""
        while True:
            names = await self.access.wait_withdrawn()
            count = self.jazz.dismiss(lambda origin: origin.token in names)  # noqa: B023
            _log.info("tokens withdrawn", tokens=sorted(names), clients=count)

    def kept_ranges(self) -> Mapping[bytes, tuple[int, int | None]]:
        """Blocks of others' cores that are no cache, by key: mirrors, and what a blind node has."""
        kept = {} if self.mesh is None else self.mesh.safekeeping.kept()
        return kept if self.mirrors is None else {**kept, **self.mirrors.kept_ranges()}

    async def mind_room(self, room: Room) -> None:
        """Ask other nodes for nothing while there is no room for it, until cancelled."""
        is_paused = False
        while True:
            if room.is_open and is_paused:
                if self.mesh is not None:
                    self.mesh.resume()
                if self.mirrors is not None:
                    self.mirrors.resume()
            elif not room.is_open:
                if self.mesh is not None:
                    self.mesh.pause(room.reason)
                if self.mirrors is not None:
                    self.mirrors.pause()
            is_paused = not room.is_open
            await room.wait_changed()

    async def report_frozen(self) -> None:
        """Log every core whose writer signed two histories, until cancelled."""
        async for core in self.store.frozen_cores():
            proof = core.fork_proof
            assert proof is not None
            _log.error(
                "core frozen: its writer signed two histories",
                core=core.key.hex(),
                conflict=str(verify_fork_proof(proof, core.key)),
                evidence=f"beemesh core proof {encode_id(core.key)} --fork",
            )

    def _found_by(self, public_key: bytes) -> str:
        known = self._swarm.connections if self._swarm is not None else ()
        return next(
            (info.source.value for info in known if info.remote_public_key == public_key), ""
        )

    async def _serve(self, mesh: Mesh, connection: Connection) -> None:
        async with open_mux(connection, accept=(MESH_PROTOCOL, LOG_PROTOCOL)) as mux:
            try:
                await serve_member(mesh, mux, self.store, _traffic(connection))
            except KeptOut as kept_out:
                _log.debug("kept out", reason=str(kept_out))
            except (OtherMesh, NotSpoken) as stranger:
                is_other_mesh = isinstance(stranger, OtherMesh)
                if not mesh.trust.is_barred(connection.link.remote_public_key):
                    await self._serve_stranger(mesh, connection, mux, is_other_mesh=is_other_mesh)
            finally:
                self._tally.look()

    async def _serve_stranger(
        self, mesh: Mesh, connection: Connection, mux: MuxHandle, *, is_other_mesh: bool
    ) -> None:
        """A stranger that dialed us names what it wants; it learns of nothing else.

        One that we dialed is offered what is here, a node of another mesh only what is mirrored.
        """
        mirrors, is_ours = self.mirrors, connection.link.is_initiator
        if not is_other_mesh:
            _log.info("hypercore_peer")
        elif is_ours and mirrors is not None:
            await self.store.replicate(mux, lambda core: core.key in mirrors)
            return
        await self.store.replicate(
            mux,
            lambda core: mesh.trust.serves_strangers(core.key),
            is_discreet=is_other_mesh or not is_ours,
        )

    # What the admin server asks.

    def status(self) -> NodeStatus:
        config = self.config
        membership = None if self.mesh is None else self.mesh.membership
        verdict = None if self.mesh is None else self.mesh.trust.verdict
        return NodeStatus(
            name=config.name,
            id=self.id.hex(),
            key=None if self.key is None else self.key.hex(),
            version=version("beemesh"),
            data=str(config.data),
            ws=self.addresses.ws,
            mesh=self.addresses.mesh,
            admin=self.addresses.admin,
            mesh_name="" if membership is None else membership.name,
            mesh_is_open=membership is not None and membership.is_open,
            mesh_is_encrypted=membership is not None and membership.is_encrypted,
            mesh_role="" if verdict is None or verdict.role is None else verdict.role.value,
            mesh_role_expiry=None if verdict is None else verdict.expiry,
            mesh_trouble="" if self.mesh is None else self.mesh.trust.trouble,
            store=config.store,
            durability=config.durability,
            replicate=self._replicate_text(),
            discovery=config.discovery,
            uptime_seconds=round(trio.current_time() - self._started, 3),
            covalues=self._values.count(),
            peers=len(self._swarm.connections) if self._swarm is not None else 0,
            blocks=self._tally.counts(),
            clients=self._client_counts(),
            sync=self._sync_counts(),
            penalties=self._penalties(),
            cores=self._tally.cores(
                {} if self.key is None else {self.key: DATA_CORE},
                {member.key: member.name for member in self._members()},
            ),
            access=self.access.status(),
            disk=DiskStatus() if self.guard is None else self.guard.status(),
            cache=CacheStatus() if self.cache is None else self.cache.statistics(),
            mirrors=() if self.mirrors is None else self.mirrors.statistics(),
            compaction=CompactionStatus() if self.compacting is None else self.compacting.status(),
            hypercore=self._tally.metrics(),
            ways=self._ways(),
            relay=None if self.relay is None else self.relay.status(),
        )

    def _ways(self) -> dict[str, int]:
        connections = self._swarm.connections if self._swarm is not None else ()
        return dict(Counter(connection.reach.value for connection in connections))

    def _replicate_text(self) -> str:
        return "" if self.mesh is None else ", ".join(self.mesh.policy.brief)

    def _penalties(self) -> tuple[PenaltyStatus, ...]:
        now = trio.current_time()
        return tuple(
            PenaltyStatus(
                id=penalty.node_id.hex(),
                reason=penalty.reason,
                times=penalty.times,
                seconds_left=round(penalty.until - now, 1),
            )
            for penalty in (() if self.mesh is None else self.mesh.penalties.current(now))
        )

    def _members(self) -> Sequence[MemberStatistics]:
        return () if self.mesh is None else self.mesh.statistics().members

    def peers(self) -> list[PeerStatus]:
        members = {member.id: member for member in self._members()}
        cores = {core.key: core for core in self.store.open_cores()}
        unix_ms = time.time() * 1000
        peers: list[PeerStatus] = []
        for connection in self._swarm.connections if self._swarm is not None else ():
            member = members.get(connection.remote_public_key)
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

    def _present(self) -> dict[str, Presence]:
        return {
            peer.id: Presence(peer.address, peer.reach, peer.is_initiator)
            for peer in self.peers()
            if peer.is_member
        }

    def missing_for_ready(self) -> list[str]:
        reasons = [] if self.addresses.ws else ["not listening yet"]
        if self.guard is not None and (trouble := self.guard.status().trouble):
            reasons.append(f"nothing is taken in: {trouble}")
        return reasons

    async def perform(self, verb: Verb) -> AsyncGenerator[Result, None]:
        """Carry out a verb. Raises: VerbError. Cancel: as the verb says."""
        async with aclosing(self._results(verb)) as results:
            async for result in results:
                if isinstance(verb, LogVerb):
                    self._tally.look()  # the core may be closed when the verb is done
                yield result

    def _results(self, verb: Verb) -> AsyncGenerator[Result, None]:
        """Raises: VerbError."""
        match verb:
            case Load() | ListValues() | ListForks():
                return perform_on_values(self.host, self.mesh, verb)
            case ShowSync() | WaitSync():
                return perform_on_sync(self.host, self.mesh, verb)
            case MeshInvite() | MeshRevoke() | MeshMembers() | MeshInfo():
                if self.keeper is None:
                    text = "this node is in no mesh: other nodes cannot read --store sqlite"
                    raise VerbError(ExitCode.FAILED, text)
                return perform_on_mesh(self.keeper, verb)
            case ImportValues() | ExportValues():
                return perform_transfer(self.host, verb)
            case AddMirror() | RemoveMirror() | ListMirrors():
                if self.mirrors is None:
                    text = "--store sqlite has no connections to other nodes: use bee or hybrid"
                    raise VerbError(ExitCode.USAGE, text)
                return self.mirrors.perform(verb)
            case ShowPolicy() | ChangePolicy():
                return self._policies.perform(verb)
            case Explain():
                return explain(self.host, self.mesh, self._data, verb)
            case _:
                return perform_on_store(self.store, verb, can_fetch=True)

    def _sync_counts(self) -> SyncCounts:
        counts = self.host.statistics()
        mesh = None if self.mesh is None else self.mesh.statistics()
        return SyncCounts(
            in_memory=counts.values_in_memory,
            subscribed=counts.subscribed_ids,
            transactions=counts.transactions_stored,
            commits=counts.commits,
            refused=counts.refused,
            bad_lines=counts.bad_lines,
            forks=counts.forks_found,
            erased=counts.erased_values,
            forked_cores=0 if mesh is None else mesh.forked_cores,
            false_evidence=0 if mesh is None else mesh.evidence_refused,
        )

    def _client_counts(self) -> ClientCounts:
        statistics = asdict(self.jazz.statistics())
        return ClientCounts(connected=statistics.pop("connections"), **statistics)


def _traffic(connection: Connection) -> Traffic:
    def count() -> int:
        statistics = connection.statistics()
        return statistics.bytes_received + statistics.bytes_sent

    return Traffic(is_lan_address(connection.remote_address), count)


@asynccontextmanager
async def open_node(config: Config) -> AsyncIterator[Node]:
    """Run a node until the body ends.

    Raises: ConfigError, VerbError when an address cannot be had, StoreLocked, CorruptStorage.
    Cancel: closes everything, as at the end of the body.
    """
    durability = Durability.parse(config.durability)
    self = await trio.to_thread.run_sync(_prepare, config)
    room = Room()
    async with (
        open_corestore(config.corestore_path, durability=durability, read_only=False) as store,
        open_storing(config, store, _data_key(self)) as storing,
        open_access(config, storing.values) as access,
        open_disk_guard(room, _disk_limits(config), store, storing.values) as guard,
        open_sync_host(
            storing.values, _host_options(config), access=access.gate, room=room
        ) as host,
        _open_mesh(config, self, host, storing, store) as mesh,
    ):
        node = Node(config, self.identity, store, storing, host, mesh, access)
        node.guard, node.room = guard, room
        async with AsyncExitStack() as stack:
            if node.keeper is not None:
                await stack.enter_async_context(open_keeper(node.keeper))
            if node.mesh is not None:
                mirrors = open_mirrors(store, config.mirrors_path, self.mirrors)
                node.mirrors = await stack.enter_async_context(mirrors)
                cache = open_block_cache(
                    store, node.mesh.uses, config.cache_bytes, node.kept_ranges
                )
                node.cache = await stack.enter_async_context(cache)
            await stack.enter_async_context(_open_network(node, self))
            if mesh is not None:
                await mesh.recall.wait_settled()
            await stack.enter_async_context(_open_servers(node))
            nursery = await stack.enter_async_context(open_background_nursery())
            nursery.start_soon(node.mind_room, room)
            yield node


def _disk_limits(config: Config) -> DiskLimits:
    is_inside = config.sqlite_path.is_relative_to(config.data)
    paths = (config.data,) if is_inside else (config.data, config.sqlite_path)
    return DiskLimits(paths, config.max_disk_bytes, config.min_free_bytes)


def _data_key(self: _Self) -> bytes | None:
    return None if self.membership is None else self.membership.data_key


def _host_options(config: Config) -> HostOptions:
    return HostOptions(
        memory_bytes=config.covalue_memory,
        memory_seconds=config.covalue_memory_seconds,
        enforces_writes=config.enforce_permissions,
        erases=config.erase_deleted,
        min_copies=config.min_copies,
    )


@asynccontextmanager
async def _open_mesh(
    config: Config, self: _Self, host: SyncHost, storing: Storing, store: Corestore
) -> AsyncIterator[Mesh | None]:
    """The mesh, if there is something that other nodes can read."""
    if self.membership is None or storing.data is None:
        yield None
        return
    async with open_mesh(
        host,
        storing.data,
        self.membership,
        id=self.identity.public_key,
        name=config.name,
        policy=self.policy,
        identity=self.identity,
        book=self.book,
        cores=store,
        pusher=None if storing.bee is None else ValuePusher(storing.bee, storing.data),
        rebuild=storing.rebuild,
    ) as mesh:
        host.mesh = mesh
        yield mesh


def _prepare(config: Config) -> _Self:
    """Read who we are, make it on the first start; blocks on the disk."""
    joining = parse_joins(config.join)
    stored = load_membership(config.mesh_path)
    passphrase = read_passphrase()
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = load_or_create_identity(config.key_path, passphrase)
    if not config.has_mesh:
        return _Self(identity, None, joining, MemberBook())
    membership = choose_membership(
        stored,
        joining,
        config.mesh_name,
        config.name,
        identity.public_key,
        is_encrypted=config.mesh_encrypted,
        unix_seconds=time.time(),
    )
    if membership != stored:
        save_membership(config.mesh_path, membership)
    policy = load_policy(config.policy_path, config.replicate)
    mirrors = load_mirrors(config.mirrors_path)
    return _Self(identity, membership, joining, load_book(config.members_path), policy, mirrors)


@asynccontextmanager
async def _open_network(node: Node, self: _Self) -> AsyncIterator[None]:
    """The swarm, on the wanted port or a free one, looking for members; none without a mesh."""
    mesh = node.mesh
    if mesh is None:
        yield
        return
    async with AsyncExitStack() as stack:
        table = await stack.enter_async_context(open_table(node.config))

        async def open_on(host: str, port: int) -> Swarm:
            swarm = open_swarm(
                self.identity,
                partial(node.serve_connection, mesh),
                listen=(host, port),
                lan="lan" in node.config.discovery,
                hyperdht=None if table is None else table[0],
                relays=[decode_id(key) for key in node.config.relay],
            )
            return await stack.enter_async_context(swarm)

        swarm = await open_endpoint("--mesh", node.config.mesh, open_on)
        await node.connect(swarm, mesh, self.joining)
        if table is not None and node.config.serve_relay is not None:
            node.relay = RelayService(self.identity, node.config.serve_relay)
            nursery = await stack.enter_async_context(open_background_nursery())
            nursery.start_soon(node.relay.run, table[0])
        if table is not None:
            for key, relays in table[1].peers.items():
                swarm.add_candidate(mesh.membership.topic, key, relays)
        yield


@asynccontextmanager
async def _open_servers(node: Node) -> AsyncIterator[None]:
    """The WebSocket and admin servers, and `admin.json` while they run."""
    config = node.config
    async with (
        _open_listeners("--ws", config.ws) as jazz,
        _open_listeners("--admin", config.admin) as admin,
    ):
        admin_address = dialable(config.admin.host, bound_port(admin))[0]
        node.addresses = Addresses(
            ws=f"ws://{dialable(config.ws.host, bound_port(jazz))[0]}",
            mesh=next(iter(node.mesh_addresses), None),
            admin=f"http://{admin_address}",
        )
        node.admin_token = secrets.token_urlsafe(24)
        access = AdminAccess(node.addresses.admin, node.admin_token, os.getpid())
        host_names = [admin_address.rpartition(":")[0]]
        async with open_background_nursery() as nursery:
            await nursery.start(node.jazz.serve, jazz)
            nursery.start_soon(node.dismiss_withdrawn)
            nursery.start_soon(node.report_frozen)
            if node.compacting is not None:
                nursery.start_soon(run_with_room, node.room, node.compacting.run)
            nursery.start_soon(serve_admin, node, node.admin_token, admin, host_names)
            await trio.to_thread.run_sync(access.write, config.data)
            try:
                yield
            finally:
                config.admin_path.unlink(missing_ok=True)


@asynccontextmanager
async def _open_listeners(
    option: str, endpoint: Endpoint
) -> AsyncIterator[list[trio.SocketListener]]:
    listeners = await open_endpoint(option, endpoint, open_tcp)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()
