from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from hypercore.errors import (
    InvalidCapability,
    MalformedMessage,
    StorageFailed,
    UsageError,
)
from hypercore.log import Changeset
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import (
    PROTOCOL,
    Handshake,
    MessageType,
    Sync,
)
from hypercore.replication.peer_handle import PeerHandle
from hypercore.replication.served_peer import MAX_WAITING_EXTENSIONS
from hypercore.replication.session import CoreReplication
from tests.support.claiming_peers import pair_for, stranger
from tests.support.memory_log import MemoryLog
from tests.support.memory_mux import MemoryMux, memory_mux_pair

KEY_PAIR = KeyPair.from_seed(bytes(32))


class Core(MemoryLog):
    """A memory log that replicates, and whose commits can be made to fail."""

    def __init__(self, key_pair: KeyPair | None = None, key: bytes | None = None) -> None:
        super().__init__(key_pair, key)
        self.failure: StorageFailed | None = None
        self.replication = CoreReplication(self)

    def append(self, blocks: Sequence[bytes]) -> None:
        super().append(blocks)
        self.replication.log_changed()

    def commit(self, changesets: Sequence[Changeset]) -> None:
        if self.failure is not None:
            raise self.failure
        super().commit(changesets)

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        if self.failure is not None:
            raise self.failure
        return super().read_blocks(indices)


def writer(length: int) -> Core:
    core = Core(KEY_PAIR)
    if length:
        core.append([b"block %d" % index for index in range(length)])
    return core


def reader() -> Core:
    return Core(key=writer(0).key)


@asynccontextmanager
async def joined(one: Core, other: Core) -> AsyncIterator[tuple[MemoryMux, MemoryMux]]:
    muxes = pair_for(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.replication.serve, muxes[0])
        nursery.start_soon(other.replication.serve, muxes[1])
        await trio.testing.wait_all_tasks_blocked()
        yield muxes
        nursery.cancel_scope.cancel()


async def test_a_reader_gets_what_it_wants() -> None:
    source, target = writer(300), reader()
    async with joined(source, target):
        target.replication.want_blocks(range(300))
        await trio.testing.wait_all_tasks_blocked()
        assert target.blocks == source.blocks
        statistics = target.replication.statistics()
        assert statistics.total.blocks_received == 300
        (peer,) = statistics.peers
        assert peer.length == peer.contiguous_length == 300
        assert peer.requests_in_flight == 0
        assert source.replication.statistics().total.blocks_sent == 300
    # The counts outlive the peer.
    assert not target.replication.statistics().peers
    assert target.replication.statistics().total.blocks_received == 300


async def test_an_update_waits_for_the_newer_head_of_a_peer() -> None:
    source, target = writer(3), reader()
    assert not await target.replication.wait_update()
    one, other = pair_for(source)
    results: list[bool] = []

    async def update() -> None:
        results.append(await target.replication.wait_update())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.replication.serve, other)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(update)
        await trio.testing.wait_all_tasks_blocked()
        assert not results, "a peer that is just connecting may have news"
        nursery.start_soon(source.replication.serve, one)
        await trio.testing.wait_all_tasks_blocked()
        assert results == [True]
        assert not await target.replication.wait_update()
        nursery.cancel_scope.cancel()


async def test_who_does_not_have_the_core_is_no_error() -> None:
    core = reader()
    one, _ = memory_mux_pair()
    await core.replication.serve(one)
    assert not core.replication.has_reachable_peers
    assert core.replication.nobody_has(0)


async def test_who_does_not_know_the_key_loses_the_connection() -> None:
    core = writer(1)
    ours, theirs = pair_for(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, ours)
        await theirs.open_channel(PROTOCOL, core.discovery_key, Handshake(bytes(32)).encode())
    assert isinstance(ours.error, InvalidCapability)
    assert core.replication.statistics().peers_refused == 1


async def test_a_handshake_that_is_none_loses_the_connection() -> None:
    core = writer(1)
    ours, theirs = pair_for(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, ours)
        await theirs.open_channel(PROTOCOL, core.discovery_key, b"\x01short")
    assert isinstance(ours.error, MalformedMessage)


async def test_a_malformed_message_loses_the_connection() -> None:
    core = writer(1)
    async with stranger(core) as channel:
        channel.send(MessageType.SYNC, b"")
        await trio.testing.wait_all_tasks_blocked()
        assert channel.other is not None
        assert isinstance(channel.other.error, MalformedMessage)
        await channel.receive()  # what was sent before
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
    assert not core.replication.peers


async def test_a_bad_proof_loses_the_channel_and_is_not_kept() -> None:
    core = reader()
    async with stranger(core) as channel:
        head = Sync(0, 3, 0, True, True, True, True, False)
        channel.send(MessageType.SYNC, head.encode())
        await trio.testing.wait_all_tasks_blocked()
        # The first request has the id 1; an answer of another fork is no answer to it.
        channel.send(MessageType.DATA, b"\x01\x01\x07\x00\x00\x00")
        await trio.testing.wait_all_tasks_blocked()
        assert channel.other is not None
        assert channel.other.is_closed
        assert channel.other.error is None
    assert core.commits == 0
    assert core.replication.statistics().peers_refused == 1


async def test_extensions_reach_their_handlers_and_are_answered() -> None:
    source, target = writer(1), reader()
    arrived: list[bytes] = []

    async def echo(payload: bytes, peer: PeerHandle) -> list[bytes]:
        assert peer.is_connected
        assert peer.length == 1
        await trio.lowlevel.checkpoint()
        return [payload + b"!", payload + b"?"]

    async def note(payload: bytes, peer: PeerHandle) -> list[bytes]:
        arrived.append(payload)
        if payload == b"again!":
            peer.send_extension("unknown", b"dropped")
        return []

    source.replication.set_extension("chat", echo)
    target.replication.set_extension("chat", note)
    assert target.replication.send_extension("chat", b"nobody hears") == 0
    async with joined(source, target):
        assert target.replication.send_extension("chat", b"hello") == 1
        assert target.replication.send_extension("chat", b"again") == 1
        await trio.testing.wait_all_tasks_blocked()
        assert arrived == [b"hello!", b"hello?", b"again!", b"again?"]
        source.replication.set_extension("chat", None)
        target.replication.send_extension("chat", b"deaf")
        await trio.testing.wait_all_tasks_blocked()
        assert len(arrived) == 4


async def test_extension_messages_that_nobody_has_time_for_are_dropped() -> None:
    source, target = writer(1), reader()
    handled: list[bytes] = []
    release = trio.Event()

    async def slow(payload: bytes, peer: PeerHandle) -> list[bytes]:
        await release.wait()
        handled.append(payload)
        return []

    source.replication.set_extension("chat", slow)
    async with joined(source, target):
        for _ in range(MAX_WAITING_EXTENSIONS + 50):
            target.replication.send_extension("chat", b"hello")
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        await trio.testing.wait_all_tasks_blocked()
    assert len(handled) == MAX_WAITING_EXTENSIONS


async def test_a_note_sees_messages_before_their_handler_and_may_be_all() -> None:
    source, target = writer(1), reader()
    handled: list[bytes] = []
    noted: list[bytes] = []

    async def handle(payload: bytes, peer: PeerHandle) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        handled.append(payload)
        return []

    def note(payload: bytes, peer: PeerHandle) -> bool:
        assert peer.is_connected
        assert not handled
        noted.append(payload)
        return payload == b"all"

    source.replication.set_extension("chat", handle, None, note)
    async with joined(source, target):
        for payload in (b"one", b"all", b"two"):
            target.replication.send_extension("chat", payload)
        await trio.testing.wait_all_tasks_blocked()
        assert noted == [b"one", b"all", b"two"]
        assert handled == [b"one", b"two"]
        source.replication.set_extension("chat", handle, None)  # the note goes with its handler
        target.replication.send_extension("chat", b"all")
        await trio.testing.wait_all_tasks_blocked()
        assert len(noted) == 3
        assert handled[2:] == [b"all"]


def test_an_extension_needs_a_name() -> None:
    with pytest.raises(UsageError):
        reader().replication.set_extension("", None)


async def test_a_disk_that_fails_ends_the_core_and_says_so() -> None:
    source, target = writer(10), reader()
    target.failure = StorageFailed("full")
    one, other = pair_for(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.replication.serve, one)
        with pytest.raises(StorageFailed):
            await target.replication.serve(other)
        nursery.cancel_scope.cancel()
    assert not target.replication.peers


async def test_a_disk_that_cannot_be_read_does_not_break_the_writer_of_the_connection() -> None:
    source, target = writer(10), reader()
    one, other = pair_for(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.replication.serve, other)
        source.failure = StorageFailed("gone")
        target.replication.want_blocks(range(10))
        with pytest.raises(StorageFailed):
            await source.replication.serve(one)
        nursery.cancel_scope.cancel()


async def test_a_disk_that_fails_an_extension_ends_the_core_and_nothing_else() -> None:
    source, target = writer(1), reader()

    async def fail(payload: bytes, peer: PeerHandle) -> list[bytes]:
        raise StorageFailed("unreadable")

    source.replication.set_extension("chat", fail)
    one, other = pair_for(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.replication.serve, other)
        nursery.start_soon(say_hello, target)
        with pytest.raises(StorageFailed):
            await source.replication.serve(one)
        nursery.cancel_scope.cancel()


async def say_hello(core: Core) -> None:
    await trio.testing.wait_all_tasks_blocked()
    core.replication.send_extension("chat", b"hello")


async def test_an_idle_channel_is_opened_again_by_who_still_reads() -> None:
    core = reader()
    ours, theirs = pair_for(core)
    capability = replicate_capability(
        is_initiator=False, key=core.key, handshake_hash=theirs.link.handshake_hash
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, ours)
        for _ in range(3):
            channel = await theirs.open_channel(
                PROTOCOL, core.discovery_key, Handshake(capability).encode()
            )
            idle = Sync(0, 0, 0, False, True, False, False, False)
            channel.send(MessageType.SYNC, idle.encode())
            await trio.testing.wait_all_tasks_blocked()
            channel.close()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_cancelling_closes_the_channel() -> None:
    source, target = writer(1), reader()
    one, other = pair_for(source)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve() -> None:
            with scope:
                await source.replication.serve(one)

        nursery.start_soon(serve)
        nursery.start_soon(target.replication.serve, other)
        await trio.testing.wait_all_tasks_blocked()
        assert target.replication.statistics().peers
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not target.replication.peers
        nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_passed_over_in_time(autojump_clock: trio.testing.MockClock) -> None:
    source, target = writer(20), reader()
    async with joined(source, target):
        pass
    assert target.head.length == 20
    async with stranger(target) as silent:
        claim = Sync(0, 20, 20, False, True, True, True, False)
        silent.send(MessageType.SYNC, claim.encode())
        silent.send(MessageType.RANGE, b"\x00\x00\x14")
        await trio.testing.wait_all_tasks_blocked()
        target.replication.want_blocks(range(20))
        async with joined(source, target):
            await trio.sleep(10)
            assert target.contiguous_length == 20


async def test_a_silent_peer_is_passed_over_when_nobody_else_says_anything_either(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever waits for messages began to when there was nothing to look at later."""
    source, target = writer(20), reader()
    async with joined(source, target):
        pass
    async with stranger(target) as silent, joined(source, target):
        claim = Sync(0, 20, 20, False, True, True, True, False)
        silent.send(MessageType.SYNC, claim.encode())
        silent.send(MessageType.RANGE, b"\x00\x00\x14")
        await trio.sleep(60)
        target.replication.want_blocks([7])
        await trio.sleep(2)
        assert 7 in target.blocks
