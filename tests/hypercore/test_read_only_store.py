"""Cores of a store that nothing can be written to, among peers that have more of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio.testing

from hypercore import (
    BlockNotAvailable,
    Core,
    Corestore,
    Durability,
    NotWritable,
    open_corestore,
)
from hypercore.log import Changeset
from hypercore.replication.settings import PushMode, ReplicationSettings
from tests.support.replicating_cores import replicating


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


@pytest.fixture
async def core(store: Corestore) -> Core:
    core = await store.get(name="log")
    await core.append([b"%d" % index for index in range(10)])
    return core


@pytest.fixture
async def copy(core: Core, tmp_path: Path) -> AsyncIterator[Core]:
    """With the head and block 3, read-only by now."""
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        copy = await store.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(10)
            await copy.get(3)
    async with open_corestore(tmp_path, read_only=True) as store:
        yield await store.get(key=core.key)


async def test_it_serves_what_it_has_and_takes_nothing(core: Core, copy: Core) -> None:
    copy.replication.configure(ReplicationSettings(push=PushMode.ALLOWED))
    async with replicating(core, copy):
        await core.append([b"more"])
        core.push([10])
        copy.prefetch(range(10))
        await trio.testing.wait_all_tasks_blocked()
        assert (copy.length, len(copy.peers), len(core.peers)) == (10, 1, 1)
        assert not await copy.update()
        async with open_corestore(None) as other_store:
            other = await other_store.get(key=core.key)
            async with replicating(copy, other):
                assert await other.get(3) == b"3"


@pytest.mark.parametrize(
    "call",
    [
        lambda core: core.get(4),
        lambda core: core.get_many([3, 4]),
        lambda core: core.download(),
        lambda core: core.seek(5),
        lambda core: core.snapshot().get(4),
    ],
)
async def test_what_is_not_there_is_not_waited_for(
    core: Core, copy: Core, call: Callable[[Core], Awaitable[object]]
) -> None:
    async with replicating(core, copy):
        with pytest.raises(BlockNotAvailable):
            await call(copy)
    assert await copy.get(3) == b"3"


async def mark_all(core: Core) -> None:
    async with core.marking() as marks:
        marks.add_range(0, 10)


@pytest.mark.parametrize(
    "write",
    [
        lambda core: core.clear(3, 4),
        lambda core: core.set_user_data("note", b"hello"),
        lambda core: core.write_local({b"note": b"hello"}),
        lambda core: core.commit_pieces([Changeset(blocks=[(4, b"4")])]),
        lambda core: core.append(b"more"),
        lambda core: core.truncate(3),
        mark_all,
    ],
)
async def test_a_write_is_refused_and_harms_nothing(
    copy: Core, write: Callable[[Core], Awaitable[object]]
) -> None:
    for _ in range(2):
        with pytest.raises(NotWritable, match="read-only"):
            await write(copy)
    assert (copy.has(3), copy.has(4), copy.contiguous_length) == (True, False, 0)
    with pytest.raises(BlockNotAvailable):
        await copy.download()
