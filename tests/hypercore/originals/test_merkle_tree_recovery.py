"""Missing tree nodes: what hypercore's test/merkle-tree-recovery.js asks.

The original opens such a log in a repair mode, in which nothing can be appended until a peer has
proven what is missing. Here a node is hashed anew from the blocks below it, the signed head says
whether it is right, and the log is as it was. Where blocks are missing, too, the log is refused;
a reader drops it and fetches it again. So the original's proofs for a single node
(`generateRemoteProofForTreeNode`), its repair mode and its events have no counterpart.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hypercore import Corestore, CorruptStorage, Durability, open_corestore
from hypercore.flat_tree import children, full_roots, left_span, right_span
from hypercore.replication.messages import PROTOCOL
from hypercore.storage import Storage
from hypercore.storage.layout import DataKeys
from hypercore.storage.rocks import RocksStorage
from tests.support.storage_rows import all_rows, verify_core
from tests.support.stream_pair import open_mux_pair

KEYS = DataKeys(0)
BLOCKS = [b"i%d" % index for index in range(30)]


async def make(path: Path, count: int = 30) -> bytes:
    async with open_corestore(path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append(BLOCKS[:count])
        return core.key


def lose(path: Path, *keys: bytes) -> None:
    storage = RocksStorage(path, Durability.OS)
    batch = storage.batch()
    for key in keys:
        batch.delete(key)
    storage.commit(batch)
    storage.close()


def subtree(top: int) -> list[bytes]:
    """All that is stored of it, nodes and blocks."""
    nodes = range(left_span(top), right_span(top) + 1)
    return [KEYS.node(index) for index in nodes] + [KEYS.block(index // 2) for index in nodes[::2]]


async def test_a_log_without_its_roots_opens(tmp_path: Path) -> None:
    """bad merkle root core can still ready; fail appends & truncates when in repair mode."""
    await make(tmp_path)
    lose(tmp_path, *(KEYS.node(root) for root in full_roots(30)))
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        assert (core.length, core.byte_length) == (30, sum(map(len, BLOCKS)))
        await core.append(b"more")
        await core.truncate(14)
        assert verify_core(store.storage, core.discovery_key) == 14


async def test_a_root_and_all_nodes_below(tmp_path: Path) -> None:
    """bad merkle root - fix via fully remote proof."""
    await make(tmp_path)
    root = full_roots(30)[0]
    lose(tmp_path, *(KEYS.node(index) for index in range(right_span(root) + 1)))
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        assert verify_core(store.storage, core.discovery_key) == 30


async def test_a_node_within(tmp_path: Path) -> None:
    """bad merkle sub root - fix via fully remote proof."""
    await make(tmp_path)
    below = children(children(full_roots(30)[0])[0])[0]
    lose(tmp_path, KEYS.node(below))
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        node = core.read_node(below)
        assert node is not None
        assert node.size == sum(len(block) for block in BLOCKS[:4])
        await serve_a_reader(store, core.key)


async def serve_a_reader(store: Corestore, key: bytes) -> None:
    async with (
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        copy = await theirs.get(key=key)
        nursery.start_soon(store.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            await copy.wait_length(30)
            assert await copy.get_many(range(30)) == BLOCKS
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_hashed_anew_is_refused(tmp_path: Path) -> None:
    """bad merkle root - atomically updates storage: a wrong node never gets into it."""
    await make(tmp_path)
    root = full_roots(30)[0]
    lose(tmp_path, *subtree(root))
    with pytest.raises(CorruptStorage, match=f"tree node {root}, a root, is missing"):
        await open_and_close(tmp_path)
    assert KEYS.node(root) not in rows_of(tmp_path)


async def test_a_wrong_block_gives_no_root(tmp_path: Path) -> None:
    await make(tmp_path)
    lose(tmp_path, *(KEYS.node(index) for index in range(60)))
    storage = RocksStorage(tmp_path, Durability.OS)
    batch = storage.batch()
    batch.put(KEYS.block(3), b"another")
    storage.commit(batch)
    storage.close()
    with pytest.raises(CorruptStorage, match="do not belong together"):
        await open_and_close(tmp_path)
    assert KEYS.node(full_roots(30)[0]) not in rows_of(tmp_path)


async def test_a_node_over_a_wrong_block_is_not_believed(tmp_path: Path) -> None:
    await make(tmp_path)
    storage = RocksStorage(tmp_path, Durability.OS)
    batch = storage.batch()
    batch.put(KEYS.block(3), b"another")
    batch.delete(KEYS.node(6))
    storage.commit(batch)
    storage.close()
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        with pytest.raises(CorruptStorage, match=r"blocks \[3, 4\)"):
            core.read_node(6)


async def test_a_reader_fetches_it_again(tmp_path: Path) -> None:
    """fix via range request to include roots automatically; while repairing ignore requests."""
    key = await make(tmp_path / "ours")
    async with (
        open_corestore(tmp_path / "ours") as ours,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ours.replicate, our_mux)
        await ours.get(name="log")
        async with open_corestore(tmp_path / "theirs") as theirs:
            copy = await theirs.get(key=key)
            nursery.start_soon(theirs.replicate, their_mux)
            with trio.fail_after(20):
                await copy.wait_length(30)
                await copy.download()
        nursery.cancel_scope.cancel()
    lose(tmp_path / "theirs", *subtree(full_roots(30)[0]))
    async with (
        open_corestore(tmp_path / "ours") as ours,
        open_corestore(tmp_path / "theirs") as theirs,
    ):
        with pytest.raises(CorruptStorage, match="a root, is missing"):
            await theirs.get(key=key)
        await theirs.get(key=key, overwrite=True)
        await ours.get(name="log")
        async with open_mux_pair(PROTOCOL) as (our_mux, their_mux), trio.open_nursery() as nursery:
            nursery.start_soon(ours.replicate, our_mux)
            nursery.start_soon(theirs.replicate, their_mux)
            copy = await theirs.get(key=key)
            with trio.fail_after(20):
                await copy.wait_length(30)
                await copy.download()
            nursery.cancel_scope.cancel()
        assert verify_core(theirs.storage, copy.discovery_key) == 30


async def open_and_close(path: Path) -> None:
    async with open_corestore(path) as store:
        await store.get(name="log")


def rows_of(path: Path) -> dict[bytes, bytes]:
    storage: Storage = RocksStorage(path, Durability.OS, read_only=True)
    try:
        return all_rows(storage)
    finally:
        storage.close()
