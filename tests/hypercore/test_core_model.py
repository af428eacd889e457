"""A core against a list of blocks: random appends, cuts, reads and reopenings."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore import Core, Corestore, Durability, open_corestore
from tests.support.storage_rows import verify_core

BLOCK = st.binary(max_size=12) | st.integers(4090, 4100).map(bytes)
ACTIONS = st.lists(
    st.tuples(st.just("append"), st.lists(BLOCK, min_size=1, max_size=40))
    | st.tuples(st.just("append one"), BLOCK)
    | st.tuples(st.just("truncate"), st.floats(0, 1))
    | st.tuples(st.just("read"), st.floats(0, 1))
    | st.tuples(st.just("local"), st.dictionaries(BLOCK, st.none() | BLOCK, max_size=4))
    | st.tuples(st.just("reopen"), st.none()),
    max_size=30,
)


class Model:
    """What a core should hold."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.local: dict[bytes, bytes] = {}
        self.fork = 0

    async def apply(self, core: Core, action: str, value: object) -> None:
        match action, value:
            case "append", list(blocks):
                assert await core.append(blocks) == len(self.blocks)
                self.blocks += blocks
            case "append one", bytes(block):
                assert await core.append(block) == len(self.blocks)
                self.blocks.append(block)
            case "truncate", float(share):
                length = int(share * len(self.blocks))
                await core.truncate(length)
                del self.blocks[length:]
                self.fork += 1
            case "read", float(share):
                if self.blocks:
                    index = int(share * (len(self.blocks) - 1))
                    assert await core.get(index) == self.blocks[index]
            case "local", dict(rows):
                short = {key[:100]: row for key, row in rows.items()}
                await core.write_local(short)
                for key, row in short.items():
                    self.local.pop(key, None)
                    if row is not None:
                        self.local[key] = row

    async def compare(self, store: Corestore, core: Core) -> None:
        assert core.length == core.contiguous_length == len(self.blocks)
        assert core.byte_length == sum(map(len, self.blocks))
        assert core.fork == self.fork
        assert [block async for block in core.blocks()] == self.blocks
        assert list(core.local_items(b"", b"\xff" * 101)) == sorted(self.local.items())
        assert verify_core(store.storage, core.discovery_key) == len(self.blocks)


async def run_on_disk(path: Path, actions: list[tuple[str, object]]) -> None:
    model = Model()
    pieces: list[list[tuple[str, object]]] = [[]]
    for action in actions:
        if action[0] == "reopen":
            pieces.append([])
        pieces[-1].append(action)
    for piece in pieces:
        async with open_corestore(path, durability=Durability.OS) as store:
            core = await store.get(name="log")
            for name, value in piece:
                await model.apply(core, name, value)
            await model.compare(store, core)


async def run_in_memory(actions: list[tuple[str, object]]) -> None:
    model = Model()
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        for name, value in actions:
            await model.apply(core, name, value)
            if name == "reopen":
                await core.close()
                core = await store.get(name="log")
        await model.compare(store, core)


@settings(max_examples=30)
@given(actions=ACTIONS)
def test_on_disk(
    actions: list[tuple[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trio.run(run_on_disk, tmp_path_factory.mktemp("model"), actions)


@settings(max_examples=100)
@given(actions=ACTIONS)
def test_in_memory(actions: list[tuple[str, object]]) -> None:
    trio.run(run_in_memory, actions)
