"""A core whose writer signed two histories: what still works, what does not, what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    CoreFrozen,
    Corestore,
    CorruptStorage,
    Durability,
    InvalidProof,
    NotWritable,
    UsageError,
    open_corestore,
    verify_fork_proof,
)
from hypercore.proof_request import BlockRequest, UpgradeRequest
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import PROTOCOL, Data, Handshake, MessageType, Sync
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.storage.core_storage import FORK_PROOF_KEY
from tests.support.forked_cores import joined, open_writer
from tests.support.forked_logs import ONE, SHARED, fork_proof, tree_with
from tests.support.memory_mux import memory_mux_pair
from tests.support.trees import KEY_PAIR, MANIFEST

KEY = MANIFEST.key
PROOF = fork_proof()


async def test_a_frozen_core_is_read_and_served() -> None:
    async with open_corestore(None) as one, open_corestore(None) as other:
        writer = await open_writer(one, ONE)
        await writer.freeze(PROOF)
        assert not writer.is_writable
        assert not writer.info().is_writable
        assert await writer.get_many(range(5)) == ONE
        assert [block async for block in writer.blocks()] == ONE
        await writer.write_local({b"rows": b"stay"})
        reader = await other.get(key=KEY)
        async with joined(writer, reader):
            assert not writer.replication.statistics().peers_refused
            with pytest.raises(CoreFrozen):
                await reader.wait_length(9)
            assert reader.is_frozen
        frozen_error = pytest.raises(CoreFrozen, match=KEY.hex()[:16])
        with frozen_error:
            await writer.append(b"more")
        with pytest.raises(CoreFrozen):
            await writer.truncate(2)
        with pytest.raises(CoreFrozen):
            await writer.get(5)
        assert writer.head.length == 5


async def test_blocks_beyond_do_not_come_and_blocks_missing_do_not_either() -> None:
    async with open_corestore(None) as one, open_corestore(None) as other:
        writer = await open_writer(one, ONE)
        reader = await other.get(key=KEY)
        async with joined(writer, reader):
            await reader.update()
            await reader.get(0)
        failures: list[CoreFrozen] = []

        async def expect(call: object) -> None:
            assert callable(call)
            try:
                await call()
            except CoreFrozen as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, lambda: reader.get(3))
            nursery.start_soon(expect, lambda: reader.wait_length(6))
            nursery.start_soon(expect, lambda: reader.download(0, 5))
            await trio.testing.wait_all_tasks_blocked()
            await reader.freeze(PROOF)
        assert len(failures) == 3
        async with joined(writer, reader):
            assert not await reader.update()
            with pytest.raises(CoreFrozen):
                await reader.get(3)
        assert reader.info().blocks_held == 1
        assert reader.replication.statistics().total.requests_sent == 2


@pytest.mark.parametrize("durability", ["commit", "os"])
async def test_it_stays_frozen(tmp_path: Path, durability: str) -> None:
    mode = Durability.parse(durability)
    async with open_corestore(tmp_path, durability=mode) as store:
        writer = await open_writer(store, ONE)
        await writer.freeze(PROOF)
        await writer.freeze(fork_proof(ONE, [*SHARED, b"third"]))
    async with open_corestore(tmp_path, durability=mode) as store:
        writer = await store.get(key_pair=KEY_PAIR)
        assert writer.fork_proof == PROOF  # the first evidence
        assert verify_fork_proof(writer.fork_proof, KEY).fork == 0
        assert await writer.get(4) == b"e"
        with pytest.raises(CoreFrozen):
            await writer.append(b"more")
        with pytest.raises(CoreFrozen):
            await writer.get(7)


async def test_evidence_that_was_spoiled_on_the_disk_is_corrupt_storage(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        writer = await open_writer(store, ONE)
        spoiled = bytearray(PROOF.encode())
        spoiled[100] ^= 1
        await writer.set_user_data(FORK_PROOF_KEY, bytes(spoiled))
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        with pytest.raises(CorruptStorage, match="fork proof"):
            await store.get(key_pair=KEY_PAIR)


async def test_only_evidence_about_this_core_and_fork_freezes_it() -> None:
    async with open_corestore(None) as store:
        other = await store.get(name="another")
        await other.append(b"x")
        with pytest.raises(InvalidProof, match="another core"):
            await other.freeze(PROOF)
        writer = await open_writer(store, ONE)
        await writer.truncate(4)
        with pytest.raises(UsageError, match="evidence about fork 0, the core is at 1"):
            await writer.freeze(PROOF)
        assert not writer.is_frozen
        assert not other.is_frozen
        await writer.append(b"goes on")
        with pytest.raises(NotWritable):
            await (await store.get(key=bytes(32))).append(b"x")


async def test_a_store_tells_which_cores_are_frozen() -> None:
    told: list[bytes] = []

    async def listen(store: Corestore) -> None:
        async for core in store.frozen_cores():
            told.append(core.key)  # noqa: PERF401  # as they come

    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        nursery.start_soon(listen, store)
        await (await store.get(name="another")).append(b"x")
        writer = await open_writer(store, ONE)
        await trio.testing.wait_all_tasks_blocked()
        assert not told
        await writer.freeze(PROOF)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [KEY]
        await writer.close()
        await store.get(key=KEY)  # known already
        nursery.start_soon(listen, store)  # who comes later is told, too
        await trio.testing.wait_all_tasks_blocked()
        assert told == [KEY, KEY]
        nursery.cancel_scope.cancel()


async def test_who_listens_for_frozen_cores_may_stop_and_go_on() -> None:
    async with open_corestore(None) as store:
        writer = await open_writer(store, ONE)
        frozen = store.frozen_cores()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(frozen)
        await writer.freeze(PROOF)
        assert (await anext(frozen)).key == KEY
        async for core in store.frozen_cores():
            assert core.key == KEY
            break  # what is left behind makes no warning, which would be an error here


async def test_who_listens_for_frozen_cores_is_done_when_the_store_is_closed() -> None:
    async def listen(store: Corestore) -> None:
        async for _ in store.frozen_cores():
            raise AssertionError

    async with trio.open_nursery() as nursery:
        async with open_corestore(None) as store:
            nursery.start_soon(listen, store)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await listen(store)


async def test_a_longer_head_that_is_pushed_to_a_frozen_core_is_not_taken() -> None:
    """Found in review: a push that was on its way ended more than its channel."""
    async with open_corestore(None) as one, open_corestore(None) as other:
        writer = await open_writer(one, ONE)
        reader = await other.get(key=KEY)
        async with joined(writer, reader):
            await reader.update()
        await reader.freeze(PROOF)
        reader.replication.configure(ReplicationSettings(push=PushMode.ALLOWED))
        ours, theirs = memory_mux_pair()
        for mux in (ours, theirs):
            mux.expected.add((PROTOCOL, reader.discovery_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.serve, ours)
            capability = replicate_capability(
                is_initiator=False, key=KEY, handshake_hash=theirs.link.handshake_hash
            )
            channel = await theirs.open_channel(
                PROTOCOL, reader.discovery_key, Handshake(capability).encode()
            )
            sync = Sync(0, 6, 5, True, True, True, False, False)
            channel.send(MessageType.SYNC, sync.encode())
            longer = tree_with([*ONE, b"more"])
            pushed = longer.answer(block=BlockRequest(5, 0), upgrade=UpgradeRequest(5, 1))
            channel.send(MessageType.DATA, Data(0, pushed).encode())
            await trio.testing.wait_all_tasks_blocked()
            assert len(reader.peers) == 1
            assert reader.replication.statistics().total.answers_ignored == 1
            nursery.cancel_scope.cancel()
        assert reader.head.length == 5
        assert not await reader.update()


async def test_an_error_that_is_met_again_and_again_does_not_grow() -> None:
    """Found in review: it kept the frames, and what they held, of all who had met it."""
    async with open_corestore(None) as store:
        reader = await store.get(key=KEY)
        await reader.freeze(PROOF)
        depths = []
        for _ in range(20):
            with pytest.raises(CoreFrozen) as caught:
                await reader.get(3)
            depths.append(len(caught.traceback))
        assert depths[-1] == depths[0]
