"""A member that says that a core is its own, and somebody else writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair, discovery_key
from hypercore.manifest import Manifest
from hypercore.proof import build_proof
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import PROTOCOL as REPLICATION_PROTOCOL
from hypercore.replication.messages import PROTOCOL_ALIASES, Data, Handshake, Request, Sync
from hypercore.replication.messages import MessageType as Wire
from node.mesh.authorship import Authorship
from node.mesh.membership import Membership
from node.mesh.messages import PROTOCOL, MessageType, Welcome
from node.mesh.ticket import Role
from node.mesh.trust_messages import Introduction, Records
from swarm.io.connection import open_connection
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, serve_end, wait_until
from tests.node.mesh.test_safekeeping import ADMIN, founded, joined
from tests.node.mesh.test_serve import prove, raw_connection, welcome

LIAR = KeyPair.from_seed(b"l" * 32)


@asynccontextmanager
async def claims_core(node: MeshNode, key: bytes) -> AsyncIterator[MuxHandle]:
    """A member whose data core that is, as it says."""
    near, far = trio.testing.memory_stream_pair()
    async with open_background_nursery() as nursery:
        nursery.start_soon(lambda: serve_end(node, near, is_initiator=False))
        async with (
            open_connection(far, LIAR, is_initiator=True) as connection,
            open_mux(connection, accept=(PROTOCOL, REPLICATION_PROTOCOL)) as mux,
        ):
            channel = await mux.open_channel(PROTOCOL, None)
            prove(mux, channel)
            channel.send(MessageType.WELCOME, welcome(key))
            yield mux


async def leave_behind(mux: MuxHandle, source: Core, length: int) -> None:
    """Say that nothing leads on from that length, and prove the present head from nothing."""
    capability = replicate_capability(
        is_initiator=True, key=source.key, handshake_hash=mux.link.handshake_hash
    )
    log = await mux.open_channel(
        REPLICATION_PROTOCOL,
        discovery_key(source.key),
        Handshake(capability).encode(),
        aliases=PROTOCOL_ALIASES,
    )
    head = source.head
    for known in (0, length):
        log.send(Wire.SYNC, Sync(0, head.length, known, False, True, True, True, False).encode())
    while True:
        for number, payload in await log.receive():
            if number == Wire.REQUEST:
                request = Request.decode(payload)
                proof = build_proof(request.proof, head, source.read_node, None)
                log.send(Wire.DATA, Data(request.id, proof).encode())


async def copy(source: Corestore, node: MeshNode, kept: Core, length: int) -> None:
    """Have the node fetch so many blocks."""
    near, far = trio.testing.memory_stream_pair()
    async with open_background_nursery() as nursery:
        nursery.start_soon(_replicate, source, near, True)
        nursery.start_soon(_replicate, node.cores, far, False)
        await kept.wait_length(length)
        await kept.download(0, length)


async def _replicate(store: Corestore, stream: trio.abc.Stream, is_initiator: bool) -> None:
    async with (
        open_connection(stream, KeyPair.generate(), is_initiator=is_initiator) as connection,
        open_mux(connection, accept=(REPLICATION_PROTOCOL,)) as mux,
    ):
        await store.replicate(mux)


async def test_who_claims_a_core_that_is_kept_here_cannot_have_it_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found in review: any member could have a mirror, or a keeper, give up all that it had."""
    async with open_mesh_node(1) as node, open_corestore(None) as store:
        source = await store.get(name="somebody else's")
        await source.append([b"%d" % number for number in range(20)])
        kept = await node.cores.get(key=source.key)
        await copy(store, node, kept, 20)
        await source.append([b"more"])
        for _ in range(2):  # nor when it comes again
            async with claims_core(node, source.key) as mux:
                with trio.move_on_after(30):
                    await leave_behind(mux, source, 20)
        assert kept.bitfield.count(0, 20) == 20
        assert not node.mesh.trust.book.has_core(source.key.hex())


async def test_who_writes_a_core_that_is_kept_here_shows_that() -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as writer:
        await writer.host.receive_content("t", [Author(1).created("held")])
        kept = await node.cores.get(key=writer.data.key)
        await copy(writer.cores, node, kept, writer.data.length)
        async with connected(node, writer):
            assert kept.replication.settings.writer == writer.identity.public_key
        assert node.mesh.trust.book.has_core(writer.data.key.hex())


async def test_an_older_node_is_believed_while_there_is_nothing_to_lose_and_nobody_else() -> None:
    async with open_mesh_node(1) as node, open_corestore(None) as store:
        source = await store.get(name="an older node's")
        kept = await node.cores.get(key=source.key)
        for _ in range(2):
            async with claims_core(node, source.key):
                await wait_until(lambda: LIAR.public_key in node.mesh.members)
                assert kept.replication.settings.writer == LIAR.public_key
            await wait_until(lambda: not node.mesh.members)
            await source.append([b"block"])
            await copy(store, node, kept, source.length)
        node.mesh.trust.book.note("ab" * 32, "another", "writer", 0, key=source.key.hex())
        async with claims_core(node, source.key):
            await wait_until(lambda: LIAR.public_key in node.mesh.members)
            assert kept.replication.settings.writer is None


def test_authorship_counts_for_one_core_of_one_node_on_one_connection_of_one_mesh() -> None:
    keys, others = KeyPair.from_seed(b"k" * 32), KeyPair.from_seed(b"o" * 32)
    core, other = (Manifest.single_signer(pair.public_key).key for pair in (keys, others))
    mesh, node, other_node = b"mesh" * 8, b"node" * 8, b"echo" * 8
    proof = Authorship.prove(keys, mesh, node, b"handshake")
    assert proof.is_of(core, mesh, node, b"handshake")
    assert not proof.is_of(other, mesh, node, b"handshake")
    assert not proof.is_of(core, mesh, node, b"another")
    assert not proof.is_of(core, mesh, other_node, b"handshake")
    assert not proof.is_of(core, b"hive" * 8, node, b"handshake")
    assert not replace(proof, signature=bytes(64)).is_of(core, mesh, node, b"handshake")


@asynccontextmanager
async def claims_core_in(mesh: Membership, node: MeshNode, key: bytes) -> AsyncIterator[None]:
    """A member of an encrypted mesh whose data core that is, as it says."""
    shown = mesh.invite(ADMIN).grant
    async with raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, mesh)
        channel.send(MessageType.RECORDS, Records(bytes(32), shown=shown).encode())
        channel.send(MessageType.WELCOME, Welcome(key, 1, "raw", "", shown, ()).encode())
        await wait_until(lambda: bool(node.goodbyes) or bool(node.mesh.members))
        yield


@pytest.mark.parametrize("is_open", [True, False])
async def test_an_empty_core_of_ours_is_not_encrypted_because_a_member_names_it(
    is_open: bool,
) -> None:
    """Found in review: what the node appended to it from then on, only the mesh could read."""
    mesh = founded()
    async with open_mesh_node(1, mesh) as node:
        ours = await node.cores.get(name="ours")
        if not is_open:
            await ours.close()
        async with claims_core_in(mesh, node, ours.key):
            assert "a core that this node writes" in node.goodbyes[0]
            ours = await node.cores.get(name="ours")
            await ours.append(b"plain")
        assert not ours.info().is_encrypted
        assert await ours.get(0) == b"plain"


async def test_a_core_that_is_mirrored_is_read_as_before_though_a_member_names_it() -> None:
    """Found in review: the mirror failed as soon as its first block came."""
    mesh = founded()
    async with open_mesh_node(1, mesh) as node, open_corestore(None) as store:
        source = await store.get(name="somebody else's")
        await source.append(b"plain")
        mirror = await node.cores.get(key=source.key)
        async with claims_core_in(mesh, node, source.key):
            assert "nothing shows that the member writes it" in node.goodbyes[0]
            await copy(store, node, mirror, 1)
            assert await mirror.get(0) == b"plain"


async def test_a_core_that_is_mirrored_is_read_if_the_member_shows_that_it_writes_it() -> None:
    mesh = founded()
    async with (
        open_mesh_node(1, mesh) as node,
        open_mesh_node(2, joined(mesh, Role.WRITER)) as writer,
    ):
        value = Author(1).value("held")
        await writer.host.receive_content("t", [value.edit("[]", with_header=True)])
        await node.cores.get(key=writer.data.key)
        async with connected(node, writer):
            assert await node.host.load(value.id) is not None


async def test_an_introduction_does_not_encrypt_a_core_that_is_in_use() -> None:
    mesh = founded()
    member = KeyPair.from_seed(b"i" * 32)
    shown = mesh.invite(ADMIN).grant
    async with (
        open_mesh_node(1, mesh) as node,
        open_mesh_node(2, joined(mesh, Role.BLIND)) as keeper,
        open_corestore(None) as store,
    ):
        source = await store.get(name="somebody else's")
        await source.append(b"plain")
        mirror = await node.cores.get(key=source.key)
        introduction = Introduction.issue(mesh.key, member, source.key, "writer", shown)
        keeper.mesh.trust.keep_introduction(introduction)
        async with connected(node, keeper):
            await trio.testing.wait_all_tasks_blocked()
            await copy(store, node, mirror, 1)
            assert await mirror.get(0) == b"plain"
            assert not node.mesh.safekeeping.absent


async def test_a_core_that_cannot_have_been_encrypted_ends_its_member_alone() -> None:
    """Found in review: a member whose core began with three bytes ended every node that it met."""
    mesh = founded()
    shown = mesh.invite(ADMIN).grant
    async with open_mesh_node(1, mesh) as node, raw_connection(node) as mux:
        short = await node.cores.get(name="short")
        await short.append(b"abc")
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, mesh)
        channel.send(MessageType.RECORDS, Records(bytes(32), shown=shown).encode())
        channel.send(MessageType.WELCOME, Welcome(short.key, 1, "raw", "", shown, ()).encode())
        await wait_until(lambda: bool(node.goodbyes))
        assert "block 0 was not encrypted with this key" in node.goodbyes[0]
