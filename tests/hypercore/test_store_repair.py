"""A store in which rows say what cannot be: all of its cores are mended, or told of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from hypercore import CorruptStorage, open_corestore
from hypercore.crypto import KeyPair
from hypercore.flat_tree import full_roots
from hypercore.manifest import Manifest
from hypercore.storage import Storage, WriteBatch
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import CoreRecord, DataKeys, auth_key
from hypercore.store_repair import CoreRepair, repair_cores
from tests.support.claimed_lengths import claimed_length

KEY_PAIR = KeyPair.from_seed(b"\x07" * 32)
MANIFEST = Manifest.single_signer(KEY_PAIR.public_key)
DEPTH = 45


def change(
    storage: Storage, discovery_key: bytes, stage: Callable[[WriteBatch, CoreRecord], None]
) -> None:
    record = Catalog(storage).find(discovery_key)
    assert record is not None
    batch = storage.batch()
    stage(batch, record)
    storage.commit(batch)


async def fill(path: Path, stage: Callable[[WriteBatch, CoreRecord], None]) -> bytes:
    """A log of ours and one of others of a claimed length, whose rows are changed."""
    async with open_corestore(path) as store:
        log = await store.get(name="log")
        await log.append([b"one", b"two"])
        theirs = await store.get(manifest=MANIFEST)
        theirs.commit([claimed_length(KEY_PAIR, DEPTH)])
        await theirs.wait_durable()
        discovery_key = theirs.discovery_key
    async with open_corestore(path) as store:
        change(store.storage, discovery_key, stage)
    return discovery_key


async def repair(path: Path) -> dict[bytes, CoreRepair]:
    with trio.fail_after(20):
        return {each.discovery_key: each async for each in repair_cores(path, is_strict=True)}


def break_head(batch: WriteBatch, record: CoreRecord) -> None:
    batch.put(DataKeys(record.data_pointer).head, b"\xff\xff")


def break_keys(batch: WriteBatch, record: CoreRecord) -> None:
    batch.put(auth_key(record.core_pointer), b"")


def lose_root(batch: WriteBatch, record: CoreRecord) -> None:
    [root] = full_roots(1 << DEPTH)
    batch.delete(DataKeys(record.data_pointer).node(root))


@pytest.mark.parametrize("stage", [break_head, lose_root])
async def test_a_head_that_cannot_be_trusted_begins_anew(
    stage: Callable[[WriteBatch, CoreRecord], None], tmp_path: Path
) -> None:
    """Found in review: the first one ended the repair of all, the second went on for ever."""
    theirs = await fill(tmp_path, stage)
    repairs = await repair(tmp_path)
    assert len(repairs) == 2
    assert (repairs[theirs].was_reset, repairs[theirs].failure) == (True, "")
    assert all(each.is_sound for each in repairs.values())


async def test_keys_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    theirs = await fill(tmp_path, break_keys)
    repairs = await repair(tmp_path)
    assert len(repairs) == 2
    assert "keys" in repairs.pop(theirs).failure
    assert all(each.is_sound for each in repairs.values())


async def test_a_core_without_its_root_is_refused_however_long_it_is(tmp_path: Path) -> None:
    """Found in review: opening it looked for the blocks of the whole tree, one by one."""
    theirs = await fill(tmp_path, lose_root)
    with trio.fail_after(20):
        async with open_corestore(tmp_path) as store:
            with pytest.raises(CorruptStorage, match="a root, is missing"):
                await store.find(theirs)
