"""Erasing keys on real logs: no row and no file has them, and peers go on reading the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from bee import Bee
from hypercore import Core, Corestore, Durability, open_corestore
from hypercore.errors import BlockNotAvailable
from hypercore.replication.messages import PROTOCOL
from tests.support.storage_rows import all_rows
from tests.support.stream_pair import open_mux_pair

SECRET = b"under the apple tree"


async def erase(bee: Bee) -> int:
    """All of the secret; returns how many blocks went."""
    return (await bee.erase(gte=b"b:", lt=b"b;")).blocks


def large(number: int) -> bytes:
    """Of such values RocksDB keeps some in tables and some in blob files."""
    return (SECRET + b" %d " % number) * (400 if number % 5 == 0 else 3)


async def fill(bee: Bee, beside: Core) -> dict[bytes, bytes | None]:
    """Values of `a`, `b` and `c`; those of `b` are the secret, some overwritten or deleted."""
    for number in range(40):
        await bee.put(b"b:%s:%d" % (SECRET, number), large(number))
        await bee.put(b"a:%d" % number, b"a" * 5_000)
        await beside.append(bytes(5_000))
    async with bee.batch() as batch:
        for number in range(0, 40, 2):
            await batch.put(b"b:%s:%d" % (SECRET, number), large(number + 1))
            await batch.put(b"c:%d" % number, b"c%d" % number)
    for number in range(0, 40, 7):
        await bee.delete(b"b:%s:%d" % (SECRET, number))
    return {entry.key: entry.value async for entry in bee.range() if entry.key[:1] != b"b"}


def files_with(path: Path, secret: bytes) -> list[str]:
    return [file.name for file in path.rglob("*") if file.is_file() and secret in file.read_bytes()]


def rows_with(store: Corestore, secret: bytes) -> list[bytes]:
    return [key for key, value in all_rows(store.storage).items() if secret in key + value]


@asynccontextmanager
async def replicating(ours: Corestore, theirs: Corestore) -> AsyncIterator[None]:
    async with (
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ours.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("durability", ["commit", "os"])
async def test_no_row_and_no_file_has_it(tmp_path: Path, durability: str) -> None:
    async with open_corestore(tmp_path, durability=Durability.parse(durability)) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        entries = await fill(bee, await store.get(name="beside"))
        assert rows_with(store, SECRET)
        assert len(files_with(tmp_path, SECRET)) > 0
        await erase(bee)
        assert not rows_with(store, SECRET)
        await store.reclaim()
        assert not files_with(tmp_path, SECRET)
        nodes = [core.read_node(2 * seq) for seq in range(core.length)]
        assert None not in nodes, "the others need them in their proofs"
    assert not files_with(tmp_path, SECRET)
    async with open_corestore(tmp_path) as store:
        bee = Bee(await store.get(name="bee"))
        assert {entry.key: entry.value async for entry in bee.range()} == entries
        await bee.put(b"b:again", b"1")
        assert await erase(bee) == 1
    assert not files_with(tmp_path, SECRET)


async def test_nobody_restores_it() -> None:
    """A peer still has all of it; our own reads of older versions do not ask it."""
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await ours.get(name="bee")
        bee = Bee(core)
        await fill(bee, await ours.get(name="beside"))
        copy = await theirs.get(key=core.key)
        async with replicating(ours, theirs):
            await copy.wait_length(core.length)
            await copy.download()
            before = bee.snapshot()
            await erase(bee)
            await copy.wait_length(core.length)
            with pytest.raises(BlockNotAvailable):
                assert [entry async for entry in before.range()]
            assert not rows_with(ours, SECRET)
            assert rows_with(theirs, SECRET), "copies are their owners' business"


async def test_a_new_peer_reads_the_rest_sparsely(autojump_clock: trio.testing.MockClock) -> None:
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        core = await ours.get(name="bee")
        bee = Bee(core)
        entries = await fill(bee, await ours.get(name="beside"))
        await erase(bee)
        copy = await theirs.get(key=core.key)
        async with replicating(ours, theirs):
            await copy.wait_length(core.length)
            remote = Bee(copy)
            assert (await remote.get(b"a:7")) == (await bee.get(b"a:7"))
            assert await remote.get(b"b:%s:1" % SECRET) is None
            assert {entry.key: entry.value async for entry in remote.range()} == entries
            gone = next(seq for seq in range(core.length) if not core.has(seq))
            with trio.move_on_after(30) as waiting:
                await copy.get(gone)
            assert waiting.cancelled_caught, "nobody has it"
            assert (await remote.get(b"a:8")) == (await bee.get(b"a:8")), "and that ended nothing"
            assert not rows_with(theirs, SECRET)
