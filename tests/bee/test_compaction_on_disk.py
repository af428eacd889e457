"""How much room compaction gives back, measured in files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bee import Bee
from hypercore import Core, Durability, flat_tree, open_corestore
from hypercore.flat_tree import TreeIndex
from hypercore.merkle import encode_node
from tests.bee.test_compaction import entries_of, reachable
from tests.support.storage_rows import all_rows

COUNT = 100_000
BATCH = 1_000


def room_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def what_must_stay(core: Core) -> int:
    """Bytes of the blocks that the tree names, and of the tree nodes in their proofs."""
    blocks = [core.get_local(seq) or b"" for seq in range(core.length)]
    alive = {0, *reachable(blocks, core.length)}
    roots = set(flat_tree.full_roots(core.length))
    nodes: set[TreeIndex] = set(roots)
    for seq in alive:
        index = TreeIndex(2 * seq)
        while index not in roots:
            nodes |= {index, flat_tree.sibling(index)}
            index = flat_tree.parent(index)
    size = sum(len(blocks[seq]) for seq in alive)
    for index in nodes:
        node = core.read_node(index)
        assert node is not None
        size += len(encode_node(node))
    return size


@pytest.mark.slow
async def test_after_deleting_nine_of_ten(tmp_path: Path) -> None:
    chance = random.Random(1)
    names = [b"key %06d" % number for number in range(COUNT)]
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        chance.shuffle(names)
        for start in range(0, COUNT, BATCH):
            async with bee.batch() as batch:
                for name in names[start : start + BATCH]:
                    await batch.put(name, chance.randbytes(100))
        chance.shuffle(names)
        for start in range(0, COUNT * 9 // 10, BATCH):
            async with bee.batch() as batch:
                for name in names[start : start + BATCH]:
                    await batch.delete(name)
        expected = await entries_of(bee)
        assert len(expected) == COUNT // 10
        await store.reclaim()
        before = room_of(tmp_path)
        await bee.compact()
        await store.reclaim()
        assert await entries_of(Bee(core)) == expected
        after = room_of(tmp_path)
        must = what_must_stay(core)
        assert after <= 1.5 * must, f"{after} bytes of files, {must} must stay"
        assert after < before / 5
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="bee")
        assert await entries_of(Bee(core)) == expected
        rows = all_rows(store.storage)
        assert len(rows) < 100_000, "tree nodes of 190,000 blocks were 380,000"
