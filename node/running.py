"""[trio] A running node: serves connections, tells how it is, hands verbs on."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import structlog
import trio
from structlog.contextvars import bound_contextvars

from hypercore.corestore import Corestore
from hypercore.crypto import KeyPair, encode_id
from hypercore.fork_proof import verify_fork_proof
from hypercore.replication.messages import PROTOCOL as LOG_PROTOCOL
from node.access.opening import Access
from node.access.reasons import Reason
from node.backup import back_up
from node.block_cache import BlockCache
from node.cojson.host import SyncHost
from node.cojson.room import Room
from node.cojson.serve import serve_client
from node.config import Config
from node.disk_guard import DiskGuard
from node.explaining import explain
from node.governing import Presence, perform_on_mesh
from node.introducing import Introducer
from node.joining import Joining
from node.keeping import MeshKeeper
from node.listening import dialable
from node.logs import DATA_CORE, perform_on_store
from node.mesh.exchange import measure_traffic
from node.mesh.member_statistics import MemberStatistics
from node.mesh.membership import NotAllowed
from node.mesh.mesh import Mesh
from node.mesh.messages import PROTOCOL as MESH_PROTOCOL
from node.mesh.serve import KeptOut, NotSpoken, OtherMesh, serve_member
from node.mesh.trust import StrangerTerms
from node.mesh.whereabouts import PROTOCOL as ADDRESS_PROTOCOL
from node.mirror_file import told_by_key
from node.mirrors import Mirrors
from node.notation import parse_address
from node.open_files import room_for_clients
from node.policies import Policies
from node.relaying import RelayService
from node.reporting import (
    client_counts,
    count_ways,
    peer_records,
    penalty_records,
    sync_counts,
)
from node.storing import Storing
from node.strangers import Strangers
from node.syncing import perform_on_sync
from node.tally import BlockTally
from node.transfer import perform_transfer
from node.values import perform_on_values
from node.verbs import (
    AddMirror,
    BackUp,
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
from node.web.jazz import JazzLimits, JazzServer, JazzSocket
from node.web.status import CacheStatus, CompactionStatus, DiskStatus, NodeStatus, PeerStatus
from swarm.io.connection import Connection
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.swarm import Swarm
from swarm.io.swarm_report import ConnectionInfo
from swarm.io.tasks import open_background_nursery
from swarm.reach import Reach

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the node can be reached: URLs for clients and people, HOST:PORT for other nodes."""

    ws: str
    mesh: str | None
    admin: str


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
        self.has_new_keys = False
        """No node was up with its keys before."""
        self.jazz = JazzServer(
            self._serve_jazz,
            JazzLimits(
                max_message_bytes=config.ws_max_message_bytes,
                max_connections=room_for_clients(config.ws_max_connections),
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
                host.end_refused,
            )
        )
        self._introducer = (
            None
            if mesh is None
            else Introducer(
                *(identity.public_key, lambda: self.mesh_addresses, mesh.trust.book),
                *(mesh.members.__contains__, mesh.trust.is_barred),
            )
        )
        self._data = storing.data
        self._values = storing.values
        self._count_not_shared = storing.count_not_shared
        self.mirrors: Mirrors | None = None
        self.cache: BlockCache | None = None
        """Both are None without connections to other nodes."""
        self.guard: DiskGuard | None = None
        self.room: Room | None = None
        self._policies = Policies(mesh, config.policy_path, config.replicate)
        self._swarm: Swarm | None = None
        self.relay: RelayService | None = None
        self.strangers = Strangers(store, lambda: len(self._connections()))
        self._tally = BlockTally(store.open_cores)
        self._started = trio.current_time()

    @property
    def id(self) -> bytes:
        return self._identity.public_key

    @property
    def key(self) -> bytes | None:
        """The key of the data core; None without one."""
        return None if self._data is None else self._data.key

    def ticket(self) -> str | None:
        """Lets its bearer into the mesh: a secret. None without a mesh, or if we may not invite."""
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
        if self._introducer is not None:
            self._introducer.use(swarm)
        known = [] if self.keeper is None else self.keeper.known_addresses()
        for id, host, port in known:
            swarm.add_peer(host, port, id)
        for peer in joining.peers:
            swarm.add_peer(peer.host, peer.port, peer.public_key)
        for way in joining.websockets:
            swarm.add_websocket(way.url, way.public_key)
        await swarm.join(mesh.membership.topic)
        if self.mirrors is not None:
            joined = [(peer.host, peer.port) for peer in joining.peers]
            dialed = [*joined, *((host, port) for _, host, port in known)]
            await self.mirrors.connect(swarm, dialed)

    async def serve_connection(self, mesh: Mesh, connection: Connection) -> None:
        """One other node, or any hypercore peer: whoever knows a core's key may replicate it."""
        found_by = self._found_by(connection.link.remote_public_key)
        with bound_contextvars(remote=connection.remote_address, found_by=found_by):
            await self._serve(mesh, connection)

    async def _serve_jazz(self, client: JazzSocket) -> None:
        self.access.gate.count_connection(client.origin)
        await serve_client(self.host, client, client.origin)

    async def dismiss_withdrawn(self) -> None:
        """Send away clients whose token was withdrawn, until cancelled."""
        while True:
            names = await self.access.wait_withdrawn()
            count = self.jazz.dismiss(lambda origin: origin.token in names)  # noqa: B023
            _log.info("tokens withdrawn", tokens=sorted(names), clients=count)

    def kept_ranges(self) -> Mapping[bytes, tuple[int, int | None]]:
        """Blocks of others' cores that are no cache, by key: mirrors, and what a blind node has."""
        kept = {} if self.mesh is None else self.mesh.safekeeping.kept()
        return kept if self.mirrors is None else {**kept, **self.mirrors.kept_ranges()}

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
        known = self._connections()
        return next(
            (info.source.value for info in known if info.remote_public_key == public_key), ""
        )

    async def _serve(self, mesh: Mesh, connection: Connection) -> None:
        async with open_mux(
            connection, accept=(MESH_PROTOCOL, LOG_PROTOCOL, ADDRESS_PROTOCOL)
        ) as mux:
            try:
                with self._finding_out(mesh, connection) as note_welcome:
                    await serve_member(
                        *(mesh, mux, self.store),
                        replace(measure_traffic(connection), note_welcome=note_welcome),
                        None
                        if self._introducer is None
                        else partial(self._introducer.serve, _host_of(connection)),
                    )
            except KeptOut as kept_out:
                _log.debug("kept out", reason=str(kept_out))
            except (OtherMesh, NotSpoken) as stranger:
                is_other_mesh = isinstance(stranger, OtherMesh)
                await self._serve_on_terms(mesh, connection, mux, is_other_mesh=is_other_mesh)
            finally:
                self._tally.look()

    @contextmanager
    def _finding_out(self, mesh: Mesh, connection: Connection) -> Iterator[Callable[[], None]]:
        """Find out in the block what a remote is; yields what to call if it turns out a member.

        Of remotes of which nothing is known, only so many may be here at once.
        """
        link = connection.link
        is_known = mesh.has_met(link.remote_public_key)
        if link.is_initiator or (is_known and not mesh.trust.is_barred(link.remote_public_key)):
            yield connection.note_welcome
            return
        with self.strangers.finding_out(connection.remote_address.rpartition(":")[0]) as place:

            def note_welcome() -> None:
                place.leave()
                connection.note_welcome()

            yield note_welcome

    async def _serve_on_terms(
        self, mesh: Mesh, connection: Connection, mux: MuxHandle, *, is_other_mesh: bool
    ) -> None:
        """Serve a stranger as long as its terms stay the same; then it may come again.

        Otherwise a member about to be shut out would stay connected as somebody else.
        """
        trust, id = mesh.trust, connection.link.remote_public_key
        if (terms := trust.stranger_terms(id)) is StrangerTerms.NOTHING:
            return
        async with open_background_nursery() as nursery:

            async def end_on_other_terms() -> None:
                while trust.stranger_terms(id) is terms:
                    await trust.wait_judged()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_on_other_terms)
            await self._serve_stranger(mesh, connection, mux, is_other_mesh=is_other_mesh)

    async def _serve_stranger(
        self, mesh: Mesh, connection: Connection, mux: MuxHandle, *, is_other_mesh: bool
    ) -> None:
        """A stranger that dialed us names what it wants; it learns of nothing else.

        One that we dialed is offered what is here, a node of another mesh only what is mirrored.
        """
        mirrors, is_ours = self.mirrors, connection.link.is_initiator
        if not is_other_mesh:
            _log.info("hypercore peer")
        elif is_ours and mirrors is not None:
            await self.store.replicate(mux, lambda core: core.key in mirrors)
            return
        serve = partial(
            self.store.replicate,
            mux,
            lambda core: mesh.trust.serves_strangers(core.key),
            is_discreet=is_other_mesh or not is_ours,
        )
        if is_ours:
            await serve()
            return
        with self.strangers.making_room(connection.link.remote_public_key):
            await serve()

    # What the admin server asks.

    def status(self) -> NodeStatus:
        config, now = self.config, trio.current_time()
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
            uptime_seconds=round(now - self._started, 3),
            covalues=self._values.count(),
            peers=len(self._connections()),
            blocks=self._tally.counts(),
            clients=client_counts(self.jazz.statistics()),
            sync=sync_counts(self.host.statistics(), self.mesh, self._count_not_shared()),
            penalties=penalty_records(
                () if self.mesh is None else self.mesh.penalties.recent(now), now
            ),
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
            ways=count_ways(self._connections()),
            relay=None if self.relay is None else self.relay.status(),
        )

    def _connections(self) -> Sequence[ConnectionInfo]:
        return () if self._swarm is None else self._swarm.connections

    def _replicate_text(self) -> str:
        return "" if self.mesh is None else ", ".join(self.mesh.policy.brief)

    def _members(self) -> Sequence[MemberStatistics]:
        return () if self.mesh is None else self.mesh.statistics().members

    def peers(self) -> list[PeerStatus]:
        return peer_records(
            self._connections(), self._members(), self.store.open_cores(), time.time() * 1000
        )

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

    def brief(self) -> str:
        """What it does just now, in one line."""
        clients, nodes = self.jazz.statistics().connections, len(self._connections())
        return "; ".join([f"clients: {clients}", f"nodes: {nodes}", *self.missing_for_ready()])

    async def perform(self, verb: Verb) -> AsyncGenerator[Result, None]:
        """Carry out a verb. Raises: VerbError. Cancel: as the verb says."""
        async with aclosing(self._results(verb)) as results:
            async for result in results:
                if isinstance(verb, LogVerb):
                    self._tally.look()  # the core may be closed when the verb is done
                yield result

    async def _back_up(self, verb: BackUp) -> AsyncGenerator[Result, None]:
        yield await back_up(self.config, self.store, verb)

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
                    raise VerbError(ExitCode.USAGE, text)
                return perform_on_mesh(self.keeper, verb)
            case ImportValues() if self.access.gate.is_read_only:
                raise VerbError(ExitCode.FAILED, f"nothing imported: {Reason.READ_ONLY.text}")
            case ImportValues() | ExportValues():
                return perform_transfer(self.host, verb)
            case AddMirror() | RemoveMirror() | ListMirrors():
                if self.mirrors is None:
                    text = "--store sqlite has no connections to other nodes: use bee or hybrid"
                    raise VerbError(ExitCode.USAGE, text)
                return self.mirrors.perform(verb)
            case ShowPolicy() | ChangePolicy():
                return self._policies.perform(verb)
            case BackUp():
                return self._back_up(verb)
            case Explain():
                return explain(self.host, self.mesh, self._data, verb)
            case _:
                mirrors = () if self.mirrors is None else self.mirrors.specs
                told = told_by_key(verb, mirrors, self.store.names())
                return perform_on_store(self.store, told, can_fetch=True)


def _host_of(connection: Connection) -> str | None:
    """Where the remote's packets come from, if that is its machine itself."""
    if connection.reach in (Reach.RELAYED, Reach.WEBSOCKET):
        return None
    with suppress(ValueError):
        return parse_address(connection.remote_address)[0]
    return None
