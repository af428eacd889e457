"""What hypercore 11.37.1's test/basic.js covers, but for sessions and snapshots, which have files.

Without a counterpart: "createIfMissing", "overwrite" and "key is set sync", for a store makes
cores and nothing is half open; "treeHashFromStorage", for a head is always checked against the
tree it is loaded with (`test_storage.py` in interop, `test_stored_log.py`); "storage info", of
which a store gives its own; counts of waits, and sessions that never wait, for each call says
whether it waits; "get undefined", which has a type; "setKeyPair": a key pair that does not sign
for a core does not make it writable.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    BlockNotAvailable,
    BlockTooLarge,
    Core,
    Corestore,
    Durability,
    KeyPair,
    Manifest,
    NotWritable,
    OutOfRange,
    Prologue,
    Truncated,
    decode_id,
    encode_id,
    open_corestore,
)
from hypercore.given_blocks import MAX_BLOCK_BYTES
from tests.support.replicating_cores import replicating


def held(core: Core, length: int) -> list[bool]:
    return [core.has(index) for index in range(length)]


async def test_a_new_core(core: Core) -> None:
    assert (core.length, core.byte_length, core.fork) == (0, 0, 0)
    assert core.is_writable
    assert await core.append(b"hello") == 0
    assert await core.append(b"world") == 1
    info = core.info()
    assert (info.length, info.byte_length, info.contiguous_length) == (2, 10, 2)


async def test_ids(store: Corestore) -> None:
    key = b"a" * 32
    core = await store.get(key=key)
    text = "cfosnambcfosnambcfosnambcfosnambcfosnambcfosnambcfoo"
    assert encode_id(core.key) == text
    assert encode_id(core.session().key) == text
    assert decode_id(text) == key


async def test_a_closed_core(core: Core) -> None:
    await core.append(b"hello world")
    await core.close()
    await core.close()
    with pytest.raises(trio.ClosedResourceError):
        await core.get(0)


async def test_opening_again_and_going_on(tmp_path: Path) -> None:
    for start in (0, 2):
        async with open_corestore(tmp_path, durability=Durability.OS) as store:
            core = await store.get(name="log")
            assert core.is_writable
            assert core.length == start
            await core.append(b"hello")
            await core.append(b"world")
            assert core.info().byte_length == 5 * core.length == 5 * (start + 2)


async def test_a_truncation_tells_its_length_and_fork(core: Core) -> None:
    await core.append([b"a", b"b", b"c"])
    events = core.events()
    await core.truncate(2)
    assert await anext(events) == Truncated(2, 1)


async def test_tree_hashes_of_all_lengths(core: Core, other_store: Corestore) -> None:
    hashes = [core.head.tree_hash]
    other = await other_store.get(name="log")
    assert other.head.tree_hash == core.head.tree_hash
    for index in range(1, 10):
        await core.append(b"%d" % index)
        hashes.append(core.head.tree_hash)
    for length, expected in enumerate(hashes):
        async with await core.checkout(length) as checkout:
            assert checkout.head.tree_hash == expected
    assert len(set(hashes)) == 10


async def test_downloading_what_is_here(core: Core) -> None:
    await core.append(b"a")
    await core.download(0, 1)
    await core.download()


async def test_downloading_what_is_appended_here_later(core: Core) -> None:
    await core.append(b"a")
    with trio.fail_after(10):
        async with core.downloading(0, 3) as download, trio.open_nursery() as nursery:
            nursery.start_soon(download.done)
            nursery.start_soon(core.download, 0, 3)
            await trio.testing.wait_all_tasks_blocked()
            await core.append([b"b", b"c"])


async def test_blocks_that_come_later(core: Core, other_store: Corestore) -> None:
    """JavaScript: read ahead. Our own core does not wait for itself: `wait_length` does."""
    await core.append(b"a")
    with pytest.raises(OutOfRange):
        await core.get(1)
    copy = await other_store.get(key=core.key)
    got = []

    async def read() -> None:
        got.append(await copy.get(1))

    async with replicating(core, copy), trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await core.append(b"b")
    assert got == [b"b"]


async def test_not_waiting(store: Corestore) -> None:
    core = await store.get(key=bytes(32))
    with pytest.raises(BlockNotAvailable):
        await core.get(1, wait=False)
    assert core.get_local(1) is None


async def test_which_blocks_are_here(core: Core) -> None:
    await core.append([b"a", b"b", b"c", b"d", b"e", b"f"])
    assert all(held(core, 6))
    assert core.has_range(0, 5)
    await core.clear(2, 3)
    assert held(core, 6) == [True, True, False, True, True, True]
    assert not core.has_range(0, 5)
    assert core.has_range(0, 2)
    assert core.has_range(3, 5)
    assert not core.has(6)
    assert not core.has(-1)


async def test_a_reader_does_not_append(core: Core, other_store: Corestore) -> None:
    copy = await other_store.get(key=core.key)
    assert not copy.is_writable
    with pytest.raises(NotWritable):
        await copy.append(b"abc")


async def test_a_key_pair_of_somebody_else(store: Corestore) -> None:
    manifest = Manifest.single_signer(KeyPair.generate().public_key)
    core = await store.get(manifest=manifest, key_pair=KeyPair.generate())
    assert not core.is_writable
    with pytest.raises(NotWritable):
        await core.append(b"world")


async def test_the_largest_block(core: Core) -> None:
    await core.append(bytes(MAX_BLOCK_BYTES))
    with pytest.raises(BlockTooLarge, match=r"15728641 bytes, at most 15728640") as caught:
        await core.append([b"small", bytes(MAX_BLOCK_BYTES + 1)])
    assert (caught.value.size, caught.value.limit) == (MAX_BLOCK_BYTES + 1, MAX_BLOCK_BYTES)
    assert core.length == 1


async def test_a_manifest_that_is_known_later(store: Corestore) -> None:
    manifest = Manifest(version=1, quorum=0, signers=(), prologue=Prologue(bytes(32), 1))
    core = await store.get(key=manifest.key, manifest=manifest)
    assert core.manifest == manifest
    assert (await store.get(key=manifest.key)).manifest == manifest


@pytest.mark.parametrize(
    ("change", "expected", "contiguous"),
    [
        ("truncate", [True, True, False, False, False], 2),
        ("clear", [True, True, False, True, True], 2),
        ("append", [True] * 5, 5),
    ],
)
async def test_what_is_held_is_the_same_after_opening_again(
    tmp_path: Path, change: str, expected: list[bool], contiguous: int
) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        assert core.contiguous_length == 0
        await core.append([b"a", b"b", b"c", b"d", b"e"])
        if change == "truncate":
            await core.truncate(2)
        elif change == "clear":
            await core.clear(2, 3)
        assert held(core, 5) == expected
        assert core.contiguous_length == contiguous
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        assert held(core, 5) == expected
        assert core.contiguous_length == contiguous
        await core.append([b"f", b"g"])
        assert core.contiguous_length == (7 if change == "append" else 4 if core.fork else 2)


async def test_blocks_up_to_the_border_of_a_page(tmp_path: Path) -> None:
    for is_new in (True, False):
        async with open_corestore(tmp_path, durability=Durability.OS) as store:
            core = await store.get(name="log")
            if is_new:
                await core.append([b"#"] * 32_768)
            assert core.bitfield.has_range(0, 32_768)
            assert not core.bitfield.get(32_768)
            assert core.contiguous_length == 32_768
