"""An audit names what is damaged, and nothing else; a repair makes it sound or fetchable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from hypercore import (
    AuditProgress,
    BlockNotAvailable,
    Core,
    DamagedBlock,
    DamageKind,
    open_corestore,
)
from hypercore.crypto import KeyPair
from hypercore.log import Changeset
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, encode_node
from hypercore.storage import Storage, WriteBatch
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import DataKeys
from hypercore.store_repair import audit_core
from tests.hypercore.bit_flip_campaign import joined
from tests.support.claimed_lengths import claimed_length

KEY_PAIR = KeyPair.from_seed(bytes(32))
LENGTH = 600


def blocks() -> list[bytes]:
    return [b"block %d" % index for index in range(LENGTH)]


@asynccontextmanager
async def open_ours() -> AsyncIterator[Core]:
    async with open_corestore(None) as store:
        core = await store.get(key_pair=KEY_PAIR)
        await core.append(blocks())
        yield core


@asynccontextmanager
async def open_theirs() -> AsyncIterator[tuple[Core, Core, Storage]]:
    """(its writer, a replica with blocks 20 to 579, the replica's storage), not connected."""
    async with open_ours() as source, open_corestore(None) as store:
        replica = await store.get(key=source.key)
        async with joined(source, replica):
            with trio.fail_after(20):
                await replica.download(20, 580)
        yield source, replica, store.storage


def change(storage: Storage, core: Core, stage: Callable[[WriteBatch, DataKeys], None]) -> None:
    record = Catalog(storage).find(core.discovery_key)
    assert record is not None
    batch = storage.batch()
    stage(batch, DataKeys(record.data_pointer))
    storage.commit(batch)


async def test_what_is_sound_is_sound() -> None:
    async with open_theirs() as (source, replica, _):
        ours, theirs = await audit_core(source), await audit_core(replica, is_strict=True)
        assert ours.is_sound
        assert theirs.is_sound
        assert (ours.blocks_verified, theirs.blocks_verified) == (LENGTH, 560)
        assert ours.nodes_verified == LENGTH - len(source.head.roots)
        assert ours.blocks_unprovable == theirs.blocks_unprovable == 0


async def test_cleared_pruned_and_never_fetched_is_no_damage() -> None:
    async with open_theirs() as (source, replica, _):
        for core in (source, replica):
            await core.clear(100, 300)
            await core.clear_many([401, 403, 404])
        assert await source.prune() > 0
        for core, held in ((source, LENGTH), (replica, 560)):
            audit = await audit_core(core, is_strict=True)
            assert audit.damage == ()
            assert audit.blocks_verified == held - 203


async def test_an_audit_of_next_to_nothing_ends_however_long_the_log_is_said_to_be() -> None:
    async with open_corestore(None) as store:
        core = await store.get(manifest=Manifest.single_signer(KEY_PAIR.public_key))
        core.commit([claimed_length(KEY_PAIR, 45)])
        core.commit([Changeset(blocks=[(1 << 40, b"far away, and proven by nothing")])])
        with trio.fail_after(20):
            result = await audit_core(core)
    assert (result.blocks_verified, result.blocks_unprovable, result.damaged_rows) == (1, 1, 0)


async def test_an_audit_goes_on_while_the_log_changes() -> None:
    async with open_ours() as core:
        positions = []
        async for progress in core.audit():
            positions.append(progress.position)
            if len(positions) == 1:
                await core.append(b"more")
                await core.clear(0, 10)
                await core.truncate(500)
        assert positions == [256, 500, 500]
        assert progress.is_sound
        assert progress.length == 500


@pytest.mark.parametrize(
    ("kind", "start", "stage"),
    [
        (DamageKind.BLOCK, 44, lambda batch, keys: batch.delete(keys.block(44))),
        (DamageKind.BLOCK, 44, lambda batch, keys: batch.put(keys.block(44), b"block 45")),
        (DamageKind.BLOCK, 600, lambda batch, keys: batch.put(keys.block(600), b"beyond")),
        (DamageKind.NODE, 63, lambda batch, keys: batch.delete(keys.node(63))),
        (DamageKind.NODE, 95, lambda batch, keys: batch.put(keys.node(95), b"no node")),
        (DamageKind.NODE, 95, lambda batch, keys: batch.put(keys.node(95), node(97))),
        (DamageKind.SUBTREE, 95, lambda batch, keys: batch.put(keys.node(95), node(95))),
        (DamageKind.PAGE, 0, lambda batch, keys: batch.delete(keys.page(0))),
        (DamageKind.HEAD, 600, lambda batch, keys: batch.put(keys.head, b"no head")),
    ],
)
async def test_damage_is_named(
    kind: DamageKind, start: int, stage: Callable[[WriteBatch, DataKeys], None]
) -> None:
    async with open_theirs() as (_, replica, storage):
        change(storage, replica, stage)
        audit = await audit_core(replica, is_strict=True)
        assert (kind, start) in [(damage.kind, damage.start) for damage in audit.damage]
        assert str(audit.damage[0])
        assert not audit.is_sound


def node(index: int) -> bytes:
    return encode_node(MerkleNode(index, 5, bytes(32)))  # type: ignore[arg-type]  # a wrong one


async def test_a_long_run_of_damage_is_one_item() -> None:
    async with open_corestore(None) as store:
        core = await store.get(key_pair=KEY_PAIR)
        await core.append(blocks())
        change(store.storage, core, lambda batch, keys: batch.delete_range(*keys.blocks()))
        audit = await audit_core(core)
        assert audit.damaged_blocks == LENGTH
        (item,) = audit.damage
        assert (item.kind, item.start, item.stop) == (DamageKind.BLOCK, 0, LENGTH)
        assert str(item) == "block 0 to 599: missing"


async def repaired(core: Core) -> AuditProgress:
    """Repair until nothing is found any more."""
    audit = await audit_core(core, is_strict=True)
    for _ in range(30):
        if audit.is_sound:
            break
        await core.repair(audit.damage)
        audit = await audit_core(core, is_strict=True)
    assert audit.is_sound
    return audit


@pytest.mark.parametrize("index", [63, 64, 95, 96, 511, 383])
async def test_tree_nodes_are_made_anew(index: int) -> None:
    async with open_theirs() as (_, replica, storage):
        change(storage, replica, lambda batch, keys: batch.put(keys.node(index), b"no node"))
        audit = await repaired(replica)
        assert audit.blocks_verified == 560


@pytest.mark.parametrize("marks", [None, bytes(4096), b"\xff" * 4096])
@pytest.mark.parametrize("page", [0, 1])
async def test_marks_are_written_anew_as_they_are(page: int, marks: bytes | None) -> None:
    """Once the number of a wrong page was taken for that of a block, which counted as here then."""
    first = page << 15
    async with open_corestore(None) as store:
        core = await store.get(key_pair=KEY_PAIR)
        await core.append([b"a block"] * (first + 3))
        await core.clear(first, first + 1)

        def stage(batch: WriteBatch, keys: DataKeys) -> None:
            row = keys.page(page)
            batch.delete(row) if marks is None else batch.put(row, marks)

        change(store.storage, core, stage)
        (damage,) = (await audit_core(core)).damage
        assert (damage.kind, damage.start) == (DamageKind.PAGE, page)
        await core.repair([damage])
        assert (await audit_core(core)).is_sound
        assert [core.has(first + offset) for offset in range(3)] == [False, True, True]


async def test_what_cannot_be_made_anew_is_fetched_again() -> None:
    async with open_theirs() as (source, replica, storage):

        def stage(batch: WriteBatch, keys: DataKeys) -> None:
            batch.delete_range(keys.node(200), keys.node(420))
            batch.delete_range(keys.block(110), keys.block(140))
            batch.put(keys.block(300), b"other bytes")

        change(storage, replica, stage)
        audit = await repaired(replica)
        assert audit.blocks_verified < 560
        async with joined(source, replica):
            with trio.fail_after(20):
                await replica.download(0, LENGTH)
        audit = await audit_core(replica, is_strict=True)
        assert audit.is_sound
        assert audit.blocks_verified == LENGTH
        assert [replica.get_local(index) for index in range(LENGTH)] == blocks()


async def test_reading_names_the_damaged_block_and_fetches_it_where_it_can() -> None:
    async with open_theirs() as (source, replica, storage):
        change(storage, replica, lambda batch, keys: batch.delete(keys.block(44)))
        with pytest.raises(DamagedBlock) as caught:
            replica.get_local(44)
        assert caught.value.index == 44
        with pytest.raises(DamagedBlock):
            await replica.get(44, wait=False)
        async with joined(source, replica):
            with trio.fail_after(20):
                assert await replica.get(44) == b"block 44"
                assert await replica.get_many([43, 44]) == [b"block 43", b"block 44"]
        assert replica.get_local(44) == b"block 44"
        assert (await audit_core(replica)).is_sound


async def test_a_damaged_block_of_ours_stays_lost() -> None:
    async with open_corestore(None) as store:
        core = await store.get(key_pair=KEY_PAIR)
        await core.append(blocks())
        change(store.storage, core, lambda batch, keys: batch.delete(keys.block(44)))
        with pytest.raises(DamagedBlock):
            await core.get(44)
        audit = await audit_core(core)
        assert audit.damaged_blocks == 1
        assert await core.repair(audit.damage) == []
        with pytest.raises(DamagedBlock):
            await core.get(44)
        await core.append(b"goes on")
        assert await core.get(LENGTH) == b"goes on"


async def test_peers_are_told_of_blocks_that_were_forgotten() -> None:
    async with open_theirs() as (_, replica, storage):
        change(storage, replica, lambda batch, keys: batch.put(keys.block(44), b"wrong"))
        audit = await audit_core(replica)
        assert await replica.repair(audit.damage) == [(44, 45)]
        assert not replica.has(44)
        with pytest.raises(BlockNotAvailable):
            await replica.get(44, wait=False)
