"""A writer that signs whatever it likes: its readers wait at worst, and nobody else does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import Core, Durability, HypercoreError, Order, open_corestore
from hypercore.crypto import KeyPair
from hypercore.errors import InvalidProof
from hypercore.proof import BlockProof, Proof, verify_proof
from hypercore.store_repair import audit_core
from tests.support.hostile_writers import BLOCK, HostileWriter
from tests.support.replicating_cores import replicating
from tests.support.stalls import unharmed

KEY_PAIR = KeyPair.from_seed(b"h" * 32)
ROUNDS = 60


@pytest.fixture
async def theirs() -> AsyncIterator[Core]:
    """The writer's, which takes whatever is signed."""
    async with open_corestore(None) as opened:
        yield await opened.get(key=HostileWriter(KEY_PAIR).key)


async def read_on(core: Core) -> None:
    async for _ in core.blocks(reverse=True):
        break


async def read_bytes(core: Core) -> None:
    async for _ in core.byte_stream():
        break


async def download_anyhow(core: Core) -> None:
    async with core.downloading(order=Order.RANDOM) as download:
        await download.done()


async def look_back(core: Core) -> None:
    async with await core.checkout(core.length // 2 + 1) as earlier, core.snapshot() as snapshot:
        await earlier.get(0)
        await snapshot.get(snapshot.length - 1)


async def mend(core: Core) -> None:
    await core.repair((await audit_core(core, is_strict=True)).damage)


async def keep(core: Core) -> None:
    async with core.marking() as marks:
        marks.add_range(0, core.length)
    assert await core.sweep() == 0


async def describe(core: Core) -> None:
    core.info()
    core.statistics()
    core.has_range(0, core.length)
    core.tree_hash()
    core.prefetch(range(core.length))


USES: dict[str, Callable[[Core], Awaitable[object]]] = {
    "the first block": lambda core: core.get(0),
    "the last block": lambda core: core.get_many([core.length - 1]),
    "everything": lambda core: core.download(),
    "the second half": lambda core: core.download(core.length // 2),
    "everything in any order": download_anyhow,
    "the middle byte": lambda core: core.seek(core.byte_length // 2),
    "the bytes": read_bytes,
    "the blocks backward": read_on,
    "how it was": look_back,
    "room": lambda core: core.clear(0, core.length),
    "an audit": audit_core,
    "repair": mend,
    "marks": keep,
    "a proof": lambda core: core.prove(core.length - 1),
    "what is known": describe,
    "more": lambda core: core.wait_length(core.length + 1),
    "an update": lambda core: core.update(),
}


@pytest.mark.parametrize("use", list(USES))
async def test_whatever_it_signs_and_whoever_reads(
    use: str, theirs: Core, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    writer = HostileWriter(KEY_PAIR)
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        copy = await store.get(key=theirs.key)
        with unharmed():
            for changes in chain(writer.unreadable(), writer.absurdities()):
                await theirs.commit_pieces([changes])
                async with replicating(theirs, copy):
                    await trio.testing.wait_all_tasks_blocked()
                    with trio.move_on_after(5), suppress(HypercoreError):
                        await USES[use](copy)
        assert copy.head == theirs.head
    async with open_corestore(tmp_path) as store:
        copy = await store.get(key=theirs.key)
        assert copy.head == theirs.head
        assert (await audit_core(copy)).is_sound


@pytest.mark.parametrize("size", [0, len(BLOCK) - 1, 2**40])
async def test_a_size_that_is_signed_and_wrong(size: int, theirs: Core, tmp_path: Path) -> None:
    """The right one was stored with the block, under a head that says another: never opened again.

    The same in an answer that holds more than the block.
    """
    changes = HostileWriter(KEY_PAIR).misjudge(size)
    await theirs.commit_pieces([changes])
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        copy = await store.get(key=theirs.key)
        async with replicating(theirs, copy):
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.1):
                await copy.get(0)
        assert copy.head == theirs.head
        assert not copy.has(0)
    async with open_corestore(tmp_path) as store:
        copy = await store.get(key=theirs.key)
        assert copy.head == theirs.head
        answer = Proof(0, block=BlockProof(0, BLOCK, ()))
        with pytest.raises(InvalidProof, match=f"size {len(BLOCK)}, ours is {size}"):
            verify_proof(answer, copy.head, {0: copy.head.roots[0]}.get, None)


@pytest.mark.parametrize("seed", range(3))
async def test_a_new_head_all_the_time(seed: int, theirs: Core) -> None:
    """Somebody else gets from us what we have of it; a core beside it is read as ever."""
    writer = HostileWriter(KEY_PAIR, seed)
    async with (
        open_corestore(None) as store,
        open_corestore(None) as far,
        open_corestore(None) as good,
    ):
        copy, third = await store.get(key=theirs.key), await far.get(key=theirs.key)
        honest = await good.get(name="log")
        beside = await store.get(key=honest.key)
        with unharmed():
            async with (
                replicating(theirs, copy),
                replicating(copy, third),
                replicating(honest, beside),
                trio.open_nursery() as nursery,
            ):
                for use in ("everything", "the bytes", "more", "how it was"):
                    nursery.start_soon(insist, USES[use], copy)
                for number in range(ROUNDS):
                    if theirs.is_frozen:
                        break
                    await theirs.commit_pieces([writer.next(theirs.head)])
                    await honest.append(b"%d" % number)
                    assert await beside.get(number) == b"%d" % number
                nursery.cancel_scope.cancel()
        assert copy.length


async def insist(use: Callable[[Core], Awaitable[object]], core: Core) -> None:
    while True:
        with suppress(HypercoreError):
            with trio.move_on_after(0.05):
                await use(core)
        await trio.lowlevel.checkpoint()
