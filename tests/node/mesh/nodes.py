"""Whole nodes without web and disk: a corestore, the data bee, a sync host, the mesh."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing

from bee.bee import Bee
from hypercore.core import Core
from hypercore.corestore import Corestore, corestore_on, open_corestore
from hypercore.crypto import KeyPair
from hypercore.storage import Storage
from node.cojson.gatekeeper import Gatekeeper
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Load, Message
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING
from node.mesh.exchange import Traffic
from node.mesh.member_book import MemberBook
from node.mesh.membership import Membership
from node.mesh.mesh import Mesh, open_mesh
from node.mesh.pushing import ValuePusher
from node.mesh.replicas import ReplicaPolicy
from node.mesh.serve import ACCEPTED, KeptOut, NotSpoken, serve_member
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from swarm.io.tasks import open_background_nursery

MESH = Membership("bees", b"secret")


class NoChannel:
    """A channel that nobody sends on, or a mesh that nobody asks."""

    def wake_source(self) -> None:
        pass

    def receive_holdings(self, *_: object) -> None:
        pass


@dataclass
class MeshNode:
    """One node of a test."""

    identity: KeyPair
    cores: Corestore
    data: Core
    store: BeeStore
    host: SyncHost
    mesh: Mesh
    goodbyes: list[str] = field(default_factory=list)
    """Why connections ended."""

    async def counts(self, co_id: RawCoId) -> Mapping[CoSessionId, int]:
        return (await self.host.known_state(co_id)).sessions

    async def wait_counts(
        self, wanted: Mapping[RawCoId, Mapping[CoSessionId, int]], seconds: float = 10
    ) -> None:
        """Wait until all of this is stored here, but not for long."""
        feed = self.host.changes()
        with trio.fail_after(seconds):
            for co_id, counts in wanted.items():
                while dict(await self.counts(co_id)) != dict(counts):
                    await feed.receive()


def identity_of(number: int) -> KeyPair:
    return KeyPair.from_seed(bytes((number,)) * 32)


@asynccontextmanager
async def open_mesh_node(
    number: int,
    membership: Membership = MESH,
    policy: ReplicaPolicy | None = None,
    options: HostOptions | None = None,
    *,
    clock: Callable[[], float] = time.time,
    book: MemberBook | None = None,
    path: Path | None = None,
    storage: Storage | None = None,
    stored: Sequence[Content] = (),
    access: Gatekeeper | None = None,
) -> AsyncIterator[MeshNode]:
    """On the disk at `path`, on `storage`, or in memory.

    `stored` is there before the node has ever heard of a mesh.
    """
    identity = identity_of(number)
    async with AsyncExitStack() as stack:
        seed = bytes((number,)) * 32
        cores = (
            await stack.enter_async_context(open_corestore(path, primary_key=seed))
            if storage is None
            else stack.enter_context(corestore_on(storage, primary_key=seed))
        )
        data = await cores.get(name="beemesh/data", encryption_key=membership.data_key)
        bee = Bee(data)
        store = BeeStore(bee, data)
        host = await stack.enter_async_context(open_sync_host(store, options, access=access))
        assert not (await host.receive_content("test", stored)).refused
        mesh = await stack.enter_async_context(
            open_mesh(
                host,
                data,
                membership,
                id=identity.public_key,
                name=f"node {number}",
                policy=policy,
                identity=identity,
                clock=clock,
                book=book,
                cores=cores,
                pusher=ValuePusher(bee, data),
                rebuild=store.rebuild,
                entropy=lambda size: bytes((number,)) * size,
            )
        )
        host.mesh = mesh
        yield MeshNode(identity, cores, data, store, host, mesh)


async def serve_end(
    node: MeshNode, stream: trio.abc.Stream, *, is_initiator: bool, traffic: Traffic | None = None
) -> None:
    """What a node does with a connection."""
    async with (
        open_connection(stream, node.identity, is_initiator=is_initiator) as connection,
        open_mux(connection, accept=ACCEPTED) as mux,
    ):
        try:
            node.goodbyes.append(await serve_member(node.mesh, mux, node.cores, traffic))
        except (NotSpoken, KeptOut) as error:
            node.goodbyes.append(str(error))


@asynccontextmanager
async def connected(
    left: MeshNode, right: MeshNode, *, admitted: bool = True, traffic: Traffic | None = None
) -> AsyncIterator[trio.testing.MemorySendStream]:
    """Two nodes that see each other while the block lasts; what the right one says goes there.

    The right one takes the `traffic` for that of its connection.
    """
    near, far = trio.testing.memory_stream_pair()
    async with open_background_nursery() as nursery:
        nursery.start_soon(_run_end, left, near, True)
        nursery.start_soon(_run_end, right, far, False, traffic)
        if admitted:
            with trio.fail_after(20):
                await _wait_member(left, right)
                await _wait_member(right, left)
        assert isinstance(far.send_stream, trio.testing.MemorySendStream)
        yield far.send_stream


async def _wait_member(node: MeshNode, other: MeshNode) -> None:
    while other.identity.public_key not in node.mesh.members:
        await node.mesh.wait_members_changed()


async def _run_end(
    node: MeshNode, stream: trio.abc.Stream, is_initiator: bool, traffic: Traffic | None = None
) -> None:
    try:
        await serve_end(node, stream, is_initiator=is_initiator, traffic=traffic)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        node.goodbyes.append("broken")


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until this holds."""
    with trio.fail_after(10):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def subscribed(node: MeshNode, *co_ids: RawCoId) -> AsyncIterator[None]:
    """A client of this node that loads these, while the block lasts."""
    with node.host.client("test") as client:
        messages: list[Message] = [Load(co_id, NOTHING) for co_id in co_ids]
        await client.receive(messages)
        yield
