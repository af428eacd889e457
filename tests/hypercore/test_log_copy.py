"""Filling a core whose manifest fixes its first blocks from another one, whole and in parts.

Follows the tests of hypercore 11.37.1 test/core.js called "clone" and "copyPrologue".
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hypercore import Core, Corestore, Manifest, Prologue, UsageError, open_corestore
from tests.support.signing_party import replicating
from tests.support.storage_rows import verify_core


def blocks(count: int, start: int = 0) -> list[bytes]:
    return [b"block %d" % index for index in range(start, start + count)]


async def source_of(store: Corestore, count: int) -> Core:
    source = await store.get(name="source")
    await source.append(blocks(count))
    return source


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 200, 5000])
async def test_a_whole_log_under_another_key(tmp_path: Path, count: int) -> None:
    async with open_corestore(tmp_path) as store:
        source = await source_of(store, count)
        manifest = Manifest.static(source.head.tree_hash, count)
        copy = await store.get(manifest=manifest)
        await copy.copy_prologue(source)
        assert copy.head == replace(source.head, signature=b"")
        assert await copy.get_many(range(count)) == blocks(count)
        assert copy.contiguous_length == count
        for index in range(2 * count):
            assert copy.read_node(index) == source.read_node(index)
        await source.append(b"more")
        assert copy.length == count
        await copy.copy_prologue(source)
        assert copy.length == count
    async with open_corestore(tmp_path) as store:
        assert verify_core(store.storage, copy.discovery_key) == count


async def test_a_part_of_a_log_and_from_there_on() -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        source = await source_of(store, 5)
        prologue = Prologue(source.head.tree_hash, 5)
        await source.append(blocks(4, 5))
        assert source.key_pair is not None
        manifest = Manifest.multi_signer([source.key_pair.public_key], prologue=prologue)
        copy = await store.get(manifest=manifest, key_pair=source.key_pair)
        assert not copy.info().is_writable
        remote = await other_store.get(key=copy.key)
        await copy.copy_prologue(source)
        assert copy.info().is_writable
        assert copy.length == 5
        await remote.wait_length(5)
        assert await remote.get_many(range(5)) == blocks(5)
        await copy.append(b"its own")
        with pytest.raises(UsageError, match="cut the prologue of 5 blocks"):
            await copy.truncate(4)
        await copy.truncate(5)
        await copy.append(b"its own again")
        assert await remote.get(5) in (b"its own", b"its own again")


async def test_only_what_is_held() -> None:
    async with open_corestore(None) as store:
        source = await source_of(store, 100)
        await source.clear(0, 40)
        await source.clear(50, 90)
        copy = await store.get(manifest=Manifest.static(source.head.tree_hash, 100))
        await copy.copy_prologue(source)
        assert copy.length == 100
        held = [index for index in range(100) if copy.has(index)]
        assert held == [*range(40, 50), *range(90, 100)]
        assert await copy.get(45) == b"block 45"
        full = await store.get(name="full")
        await full.append(blocks(100))
        await copy.copy_prologue(full)
        assert copy.contiguous_length == 100
        assert await copy.get_many(range(100)) == blocks(100)
        assert verify_core(store.storage, copy.discovery_key) == 100


async def test_another_log_is_refused() -> None:
    async with open_corestore(None) as store:
        source = await source_of(store, 3)
        for manifest, reason in (
            (Manifest.static(bytes(32), 1), "not those of the prologue"),
            (Manifest.static(source.head.tree_hash, 4), "3 blocks to fill a prologue of 4"),
        ):
            copy = await store.get(manifest=manifest)
            with pytest.raises(UsageError, match=reason):
                await copy.copy_prologue(source)
            assert (copy.length, copy.contiguous_length) == (0, 0)
        with pytest.raises(UsageError, match="fixes no blocks"):
            await source.copy_prologue(source)
