"""[trio] A node: builds all its parts, owns them, and takes them down in the right order.

    corestore -> data core -> bee -> CoValueStore -> SyncHost <- Jazz clients
                                                     SyncHost <- Mesh <- Swarm -> other nodes

With `--store sqlite` there is no data core, hence no mesh and no swarm (`storing`).

Closing goes the other way: clients are told to go, connections and discovery end, then the sync
host and the store. What was acknowledged is on the disk by then, as the durability says.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
import trio

from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair, decode_id
from hypercore.storage import Durability
from node.access.opening import open_access
from node.block_cache import open_block_cache
from node.client import AdminAccess, choose_token
from node.cojson.cut_streams_file import keep_cut_streams
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.room import Room, run_with_room
from node.config import Config
from node.disk_guard import DiskLimits, open_disk_guard
from node.errors import ConfigError
from node.identity import (
    is_encrypted,
    load_member_identity,
    load_or_create_identity,
    read_passphrase,
)
from node.joining import Joining, choose_membership, parse_joins
from node.keeping import open_keeper
from node.listening import bound_port, dialable, open_endpoint, open_tcp
from node.mesh.member_book import MemberBook, load_book
from node.mesh.membership import Membership
from node.mesh.membership_file import load_membership, save_membership
from node.mesh.mesh import Mesh, open_mesh
from node.mesh.policy_file import load_policy
from node.mesh.pushing import ValuePusher
from node.mesh.replicas import ReplicaPolicy
from node.mirror_file import MirrorSpec, load_mirrors
from node.mirrors import open_mirrors
from node.pausing import pause_without_room
from node.private_file import alone_in, remove_scratch
from node.relaying import RelayService
from node.running import Addresses, Node
from node.settings import Endpoint
from node.storing import Storing, has_served, open_storing
from node.stuck_forks import report_stuck_forks
from node.table import open_table
from node.web.admin import serve_admin
from swarm.io.swarm import Swarm, open_swarm
from swarm.io.tasks import open_background_nursery

_RETRY_SECONDS = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Who this node is, read from its data directory; without a mesh if its store has none."""

    identity: KeyPair = field(repr=False)
    membership: Membership | None = field(repr=False)
    joining: Joining = field(repr=False)
    admin_token: str = field(repr=False)
    book: MemberBook
    policy: ReplicaPolicy = field(default_factory=ReplicaPolicy)
    mirrors: list[MirrorSpec] = field(default_factory=list)


@asynccontextmanager
async def open_node(config: Config) -> AsyncIterator[Node]:
    """Run a node until the body ends.

    Raises: ConfigError, VerbError when an address cannot be had, StoreLocked, CorruptStorage.
    Cancel: closes everything, as at the end of the body.
    """
    durability = Durability.parse(config.durability)
    prepared = await trio.to_thread.run_sync(_prepare, config, await _misses_keys(config))
    room = Room()
    async with (
        open_corestore(config.corestore_path, durability=durability, read_only=False) as store,
        open_storing(config, store, _data_key(prepared)) as storing,
        open_access(config, storing.values) as access,
        open_disk_guard(room, _disk_limits(config), store, storing.values) as guard,
        open_sync_host(
            storing.values, _host_options(config), access=access.gate, room=room
        ) as host,
        keep_cut_streams(config.cut_streams_path, host.cut_streams),
        _open_mesh(config, prepared, host, storing, store) as mesh,
    ):
        await trio.to_thread.run_sync(_remove_scratch, config)
        node = Node(config, prepared.identity, store, storing, host, mesh, access)
        node.guard, node.room, node.admin_token = guard, room, prepared.admin_token
        async with AsyncExitStack() as stack:
            if node.keeper is not None:
                await stack.enter_async_context(open_keeper(node.keeper))
            if node.mesh is not None:
                mirrors = open_mirrors(store, config.mirrors_path, prepared.mirrors)
                node.mirrors = await stack.enter_async_context(mirrors)
                node.mesh.witness.mirrored = node.mirrors
                cache = open_block_cache(
                    store, node.mesh.uses, config.cache_bytes, node.kept_ranges
                )
                node.cache = await stack.enter_async_context(cache)
            await stack.enter_async_context(_open_network(node, prepared))
            if mesh is not None:
                await mesh.recall.wait_settled()
            if storing.catch_up is not None:
                await storing.catch_up(host.announce)
            await stack.enter_async_context(_open_servers(node))
            nursery = await stack.enter_async_context(open_background_nursery())
            nursery.start_soon(pause_without_room, room, mesh, node.mirrors)
            node.has_new_keys = await trio.to_thread.run_sync(_end_first_start, config)
            yield node


def _disk_limits(config: Config) -> DiskLimits:
    is_inside = config.sqlite_path.is_relative_to(config.data)
    paths = (config.data,) if is_inside else (config.data, config.sqlite_path)
    return DiskLimits(paths, config.max_disk_bytes, config.min_free_bytes)


def _data_key(prepared: _Prepared) -> bytes | None:
    return None if prepared.membership is None else prepared.membership.data_key


def _host_options(config: Config) -> HostOptions:
    return HostOptions(
        memory_bytes=config.covalue_memory,
        memory_seconds=config.covalue_memory_seconds,
        enforces_writes=config.enforce_permissions,
        erases=config.erase_deleted,
        min_copies=config.min_copies,
        checks_aside=_has_spare_core()
        if config.signature_process == "auto"
        else config.signature_process == "on",
    )


def _has_spare_core() -> bool:
    """Whether a second process pays: two processors may be the halves of one core."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return (os.cpu_count() or 1 if usable is None else len(usable)) >= 4


@asynccontextmanager
async def _open_mesh(
    config: Config, prepared: _Prepared, host: SyncHost, storing: Storing, store: Corestore
) -> AsyncIterator[Mesh | None]:
    """The mesh, if there is something that other nodes can read."""
    if prepared.membership is None or storing.data is None:
        yield None
        return
    async with open_mesh(
        host,
        storing.data,
        prepared.membership,
        id=prepared.identity.public_key,
        name=config.name,
        policy=prepared.policy,
        identity=prepared.identity,
        book=prepared.book,
        cores=store,
        pusher=None if storing.bee is None else ValuePusher(storing.bee, storing.data),
        rebuild=storing.rebuild,
    ) as mesh:
        host.mesh = mesh
        if storing.compacting is not None:
            storing.compacting.is_member = mesh.has_met
        yield mesh


def _remove_scratch(config: Config) -> None:
    """Remove what earlier runs left: with the store open, we are alone. Blocks on the disk."""
    for path in (
        *(config.key_path, config.mesh_path, config.policy_path),
        *(config.members_path, config.mirrors_path, config.admin_path, config.table_path),
    ):
        remove_scratch(path)


def _end_first_start(config: Config) -> bool:
    """Whether no node was up with these keys before this one. Blocks on the disk."""
    try:
        config.first_start_path.unlink()
    except FileNotFoundError:
        return False
    return True


async def _misses_keys(config: Config) -> bool:
    """Whether a node has run here, and both of the files are gone that say which one."""
    keys = (config.key_path, config.mesh_path)
    return config.has_mesh and not any(path.exists() for path in keys) and await has_served(config)


def _prepare(config: Config, misses_keys: bool) -> _Prepared:
    """Read who we are, or make it on the first start; blocks on the disk."""
    joining = parse_joins(config.join)
    admin_token = choose_token(config.admin_token_file)
    if config.data.exists() and not config.data.is_dir():
        raise ConfigError(f"{config.data} is no directory")
    is_named = load_membership(config.mesh_path) is not None
    if is_named and config.has_mesh and not config.corestore_path.is_dir():
        # Members would take what this node has in a new store for all that it ever had.
        raise ConfigError(
            f"{config.data} has the keys of a node, and its store {config.corestore_path} is not "
            f"there: is it on a disk that is not mounted? To begin with an empty one, make the "
            f"directory"
        )
    passphrase = read_passphrase()
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Of two that begin here at once, one made the keys that the other one then had on its disk.
    with alone_in(config.data):
        return _decide_identity(config, passphrase, joining, admin_token, misses_keys=misses_keys)


def _decide_identity(
    config: Config,
    passphrase: bytes | None,
    joining: Joining,
    admin_token: str,
    *,
    misses_keys: bool,
) -> _Prepared:
    stored = load_membership(config.mesh_path)
    book = load_book(config.members_path) if config.has_mesh else MemberBook()
    is_known = stored is not None or any(book) or misses_keys
    open_identity = load_member_identity if is_known else load_or_create_identity
    if not is_known and not config.key_path.exists():
        config.first_start_path.touch(mode=0o600)
    identity = open_identity(config.key_path, passphrase)
    if passphrase is not None and not is_encrypted(config.key_path):
        advice = "stop the node, `openssl pkcs8 -topk8 -in node.key -out new.key`, and replace it"
        _log.warning("the passphrase is of no use: node.key is not encrypted", advice=advice)
    if not config.has_mesh:
        return _Prepared(identity, None, joining, admin_token, book)
    membership = choose_membership(
        stored,
        joining,
        config.mesh_name,
        config.name,
        identity.public_key,
        is_encrypted=config.mesh_encrypted,
        unix_seconds=time.time(),
    )
    config.corestore_path.mkdir(exist_ok=True, mode=0o700)
    if membership != stored:
        save_membership(config.mesh_path, membership)
    policy = load_policy(config.policy_path, config.replicate)
    mirrors = load_mirrors(config.mirrors_path)
    return _Prepared(identity, membership, joining, admin_token, book, policy, mirrors)


@asynccontextmanager
async def _open_network(node: Node, prepared: _Prepared) -> AsyncIterator[None]:
    """The swarm, on the wanted port or a free one, looking for members; none without a mesh."""
    mesh = node.mesh
    if mesh is None:
        yield
        return
    async with AsyncExitStack() as stack:
        table = await stack.enter_async_context(open_table(node.config))

        async def open_on(host: str, port: int) -> Swarm:
            swarm = open_swarm(
                prepared.identity,
                partial(node.serve_connection, mesh),
                listen=(host, port),
                lan="lan" in node.config.discovery,
                hyperdht=None if table is None else table[0],
                relays=[decode_id(key) for key in node.config.relay],
            )
            return await stack.enter_async_context(swarm)

        swarm = await open_endpoint("--mesh", node.config.mesh, open_on)
        await node.connect(swarm, mesh, prepared.joining)
        if table is not None and node.config.serve_relay is not None:
            node.relay = RelayService(prepared.identity, node.config.serve_relay)
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
        access = AdminAccess(node.addresses.admin, node.admin_token, os.getpid())
        host_names = [admin_address.rpartition(":")[0], *config.admin_hosts]
        async with open_background_nursery() as nursery:
            await nursery.start(node.jazz.serve, jazz)
            nursery.start_soon(node.dismiss_withdrawn)
            nursery.start_soon(node.report_frozen)
            nursery.start_soon(report_stuck_forks, node.store.open_cores)
            nursery.start_soon(node.strangers.run)
            if node.compacting is not None:
                nursery.start_soon(run_with_room, node.room, node.compacting.run)
            nursery.start_soon(serve_admin, node, node.admin_token, admin, host_names)
            await nursery.start(_keep_written, access, config.data)
            try:
                yield
            finally:
                config.admin_path.unlink(missing_ok=True)


async def _keep_written(
    access: AdminAccess, data: Path, *, task_status: trio.TaskStatus[None]
) -> None:
    """Write `admin.json`; on a full disk the node serves without, until there is room."""
    is_told = False
    while True:
        try:
            await trio.to_thread.run_sync(access.write, data)
        except OSError as error:
            if not is_told:
                _log.error("admin.json cannot be written", reason=str(error))
                is_told = True
                task_status.started()
            await trio.sleep(_RETRY_SECONDS)
        else:
            if not is_told:
                task_status.started()
            return


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
