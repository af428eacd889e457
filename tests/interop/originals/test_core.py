"""What one side truncated, changed atomically or purged, the other side opens and goes on with.

Follows hypercore's core.js (append and truncate), atomic.js and purge.js across the two; the tests
themselves are followed in `tests/hypercore/originals`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hypercore import Corestore, Durability, open_corestore
from hypercore.storage.layout import DataKeys
from tests.interop.originals.history_peer import (
    PRIMARY_KEY,
    JavaScriptStore,
    describe,
    open_javascript_store,
)
from tests.support.storage_rows import rows_of_directory, verify_core

pytestmark = pytest.mark.interop

Changes = Sequence[dict[str, Any]]
"""Of one atom: `name`, and `truncate`, `append`, `userData` in this order."""

# "one" is cut in one atom and grows in the next: JavaScript cannot do both in one.
ATOMS: Sequence[Changes] = [
    [
        {"name": "one", "append": ["hello", "world"]},
        {"name": "other", "append": ["1", "2", "3"], "userData": {"note": "first"}},
    ],
    [
        {"name": "one", "truncate": 1},
        {"name": "other", "append": ["4"]},
        {"name": "third", "userData": {"note": "alone"}},
    ],
    [
        {"name": "one", "append": ["edits!"], "userData": {"note": "cut and grown"}},
        {"name": "other", "truncate": 2, "userData": {"note": "second"}},
    ],
]
NAMES = ("one", "other", "third")


async def carry_out(store: Corestore, changes: Changes) -> None:
    cores = [await store.get(name=change["name"]) for change in changes]
    async with store.atom(*cores) as atom:
        for core, change in zip(cores, changes, strict=True):
            draft = atom[core]
            if "truncate" in change:
                draft.truncate(change["truncate"])
            if "append" in change:
                draft.append([block.encode() for block in change["append"]])
            for key, value in change.get("userData", {}).items():
                draft.set_user_data(key, value.encode())


async def describe_all(store: Corestore) -> dict[str, object]:
    return {name: describe(await store.get(name=name)) for name in NAMES}


async def described_by(theirs: JavaScriptStore) -> dict[str, object]:
    return {name: await theirs.describe(name) for name in NAMES}


async def test_atoms_leave_equal_records(tmp_path: Path) -> None:
    async with open_javascript_store() as theirs, theirs.opened(tmp_path / "theirs"):
        for changes in ATOMS:
            await theirs("atom", changes=changes)
        seen = await described_by(theirs)
    async with open_corestore(tmp_path / "ours", primary_key=PRIMARY_KEY) as store:
        for changes in ATOMS:
            await carry_out(store, changes)
        assert await describe_all(store) == seen
    our_rows = rows_of_directory(tmp_path / "ours")
    seen_rows = rows_of_directory(tmp_path / "theirs")
    # Cutting "other" to 2 blocks in an atom, JavaScript leaves the node over blocks 0 to 3; outside
    # of atoms it does not.
    assert set(seen_rows) - set(our_rows) == {DataKeys(1).node(3)}
    del seen_rows[DataKeys(1).node(3)]
    assert our_rows == seen_rows


async def test_atoms_in_turns(tmp_path: Path) -> None:
    async with open_javascript_store() as theirs:
        for number, changes in enumerate([*ATOMS, *ATOMS]):
            if number % 2:
                async with theirs.opened(tmp_path):
                    await theirs("atom", changes=changes)
                    seen = await described_by(theirs)
                async with open_corestore(tmp_path) as store:
                    assert await describe_all(store) == seen
            else:
                async with open_corestore(
                    tmp_path, primary_key=PRIMARY_KEY, durability=Durability.OS
                ) as store:
                    await carry_out(store, changes)
                    ours = await describe_all(store)
                async with theirs.opened(tmp_path):
                    assert await described_by(theirs) == ours


async def test_truncations_in_turns(tmp_path: Path) -> None:
    """core - append and truncate."""
    async with open_javascript_store() as theirs:
        async with open_corestore(tmp_path, primary_key=PRIMARY_KEY) as store:
            core = await store.get(name="log")
            await core.append([b"hello", b"world", b"fo", b"ooo"])
            await core.truncate(3)
            await core.append([b"a", b"b", b"c", b"d"])
            ours = describe(core)
        async with theirs.opened(tmp_path):
            assert await theirs.describe("log") == ours
            await theirs("truncate", name="log", length=3)
            await theirs("append", name="log", blocks=["a"])
            await theirs("truncate", name="log", length=2)
            seen = await theirs.describe("log")
            assert (seen["fork"], seen["length"]) == (3, 2)
        async with open_corestore(tmp_path) as store:
            core = await store.get(name="log")
            assert describe(core) == seen
            await core.truncate(0)
            assert verify_core(store.storage, core.discovery_key) == 0
            ours = describe(core)
        async with theirs.opened(tmp_path):
            assert await theirs.describe("log") == ours


async def test_javascript_opens_a_store_without_the_purged_core(tmp_path: Path) -> None:
    """And ours opens one without the core that JavaScript purged."""
    async with open_javascript_store() as theirs:
        async with theirs.opened(tmp_path):
            for name in ("first", "purged", "kept", "theirs"):
                await theirs("append", name=name, blocks=[f"{name} {index}" for index in range(40)])
            await theirs("purge", name="theirs")
        async with open_corestore(tmp_path) as store:
            assert len([*store.discovery_keys()]) == 3
            again = await store.get(name="theirs")
            assert (again.length, again.count(0, 40)) == (0, 0)
            await again.append(b"once more")
            assert await store.purge(name="theirs")
            key = (await store.get(name="purged")).key
            # The first one made is the default one of a store.
            assert await store.purge(name="first")
            assert await store.purge(name="purged")
            kept = describe(await store.get(name="kept"))
        async with theirs.opened(tmp_path):
            assert await theirs("names") == {"names": ["kept"], "cores": 1}
            assert await theirs.describe("kept") == kept
            # Anew, under pointers that nobody had.
            await theirs("append", name="purged", blocks=["anew"])
            seen = await theirs.describe("purged")
            assert (seen["length"], seen["fork"], seen["held"]) == (1, 0, [0])
            assert await theirs.describe("kept") == kept
        async with open_corestore(tmp_path) as store:
            core = await store.get(name="purged")
            assert core.key == key
            assert describe(core) == seen
            assert await core.get(0) == b"anew"
            await core.append(b"ours")
            for name, length in (("purged", 2), ("kept", 40)):
                log = await store.get(name=name)
                assert verify_core(store.storage, log.discovery_key) == length
