"""Blocks given up by one side, and the other side goes on: hypercore's clear.js, mark-n-sweep.js.

Their tests themselves are followed in `tests/hypercore/originals`; those with peers, in
`tests/interop/test_replication.py` (a sparse seeder on either side).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore import Core, Corestore, Durability, open_corestore
from tests.interop.originals.history_peer import (
    PRIMARY_KEY,
    describe,
    open_javascript_store,
)
from tests.support.storage_rows import rows_of_directory, verify_core

pytestmark = pytest.mark.interop

BLOCKS = [f"block {index}" for index in range(300)]


async def fill(store: Corestore, name: str, blocks: list[str]) -> Core:
    core = await store.get(name=name)
    await core.append([block.encode() for block in blocks])
    return core


async def test_javascript_goes_on_where_we_cleared_and_swept(tmp_path: Path) -> None:
    async with open_javascript_store() as theirs:
        async with open_corestore(
            tmp_path, primary_key=PRIMARY_KEY, durability=Durability.OS
        ) as store:
            cleared, swept = (
                await fill(store, "cleared", BLOCKS),
                await fill(store, "swept", BLOCKS),
            )
            assert await cleared.clear(5, 6) == 1
            assert await cleared.clear(100, 250) == 150
            async with swept.marking() as marks:
                marks.add_range(10, 20)
                await marks.get(299)
            assert await swept.sweep() == 289
            half = await fill(store, "half", BLOCKS)
            async with half.marking() as marks:
                marks.add_range(0, 7)
            ours = {name: describe(await store.get(name=name)) for name in ("cleared", "swept")}
        async with theirs.opened(tmp_path):
            for name, facts in ours.items():
                assert await theirs.describe(name) == facts
                await theirs("append", name=name, blocks=["theirs"])
            # Marks that we made, and JavaScript sweeps.
            await theirs("sweep", name="half")
            assert (await theirs.describe("half", may_drop=True))["held"] == list(range(7))
            seen = [await theirs.describe(name) for name in ours]
        async with open_corestore(tmp_path) as store:
            assert [describe(await store.get(name=name)) for name in ours] == seen
            for name in (*ours, "half"):
                core = await store.get(name=name)
                await core.append(b"ours")
                if name in ours:  # JavaScript's sweep deleted tree nodes as well
                    verify_core(store.storage, core.discovery_key, may_have_gaps=True)


async def test_we_go_on_where_javascript_cleared_and_swept(tmp_path: Path) -> None:
    async with open_javascript_store() as theirs:
        async with theirs.opened(tmp_path):
            for name in ("cleared", "swept", "half"):
                await theirs("append", name=name, blocks=BLOCKS)
            await theirs("clear", name="cleared", start=6, stop=10)
            await theirs("mark", name="swept", indices=[0, 299], ranges=[[10, 20]])
            await theirs("sweep", name="swept")
            await theirs("mark", name="half", indices=[3], ranges=[[290, 300]])
            seen = {
                name: await theirs.describe(name, may_drop=True) for name in ("cleared", "swept")
            }
        async with open_corestore(tmp_path) as store:
            for name, facts in seen.items():
                core = await store.get(name=name)
                assert describe(core) == facts
                await core.append(b"ours")
            assert seen["swept"]["held"] == [0, *range(10, 20), 299]
            # Marks that JavaScript made, and we sweep.
            half = await store.get(name="half")
            assert await half.sweep() == 289
            ours = {name: describe(await store.get(name=name)) for name in (*seen, "half")}
            assert ours["half"]["held"] == [3, *range(290, 300)]
        async with theirs.opened(tmp_path):
            assert {name: await theirs.describe(name, may_drop=True) for name in ours} == ours


async def test_marks_are_the_same_rows(tmp_path: Path) -> None:
    """But for one: how long the log was when we began to mark."""
    async with open_javascript_store() as theirs, theirs.opened(tmp_path / "theirs"):
        await theirs("append", name="log", blocks=BLOCKS)
        await theirs("mark", name="log", indices=[7], ranges=[[100, 120]])
    async with open_corestore(tmp_path / "ours", primary_key=PRIMARY_KEY) as store:
        core = await fill(store, "log", BLOCKS)
        async with core.marking() as marks:
            await marks.get(7)
            marks.add_range(100, 120)
    their_rows = rows_of_directory(tmp_path / "theirs")
    our_rows = rows_of_directory(tmp_path / "ours")
    extra = set(our_rows) - set(their_rows)
    assert [our_rows.pop(key) for key in extra] == [b"300 0"]
    assert our_rows == their_rows
