"""One directory, JavaScript's corestore and ours in turn: equal records, equal contents."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from hypercore import Core, Corestore, Durability, StoreLocked, open_corestore
from hypercore.errors import CopiedStore
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import DataKeys
from tests.support.long_writer import MUCH
from tests.support.replicating_cores import replicating
from tests.support.storage_rows import rows_of_directory, verify_core

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
PRIMARY_KEY = bytes(range(32))


@dataclass(frozen=True)
class Step:
    """One thing to do to one core."""

    name: str
    namespaces: Sequence[str] = ()
    append: Sequence[bytes] = ()
    truncate: int | None = None
    clear: tuple[int, int] | None = None
    user_data: Mapping[str, bytes] = field(default_factory=dict)
    encryption_key: bytes | None = None

    def for_javascript(self) -> dict[str, object]:
        step: dict[str, object] = {
            "core": {"name": self.name, "namespaces": list(self.namespaces)},
            "userData": {key: value.hex() for key, value in self.user_data.items()},
        }
        if self.encryption_key is not None:
            step["core"] = {"name": self.name, "encryptionKey": self.encryption_key.hex()}
        if self.append:
            step["append"] = [block.hex() for block in self.append]
        if self.truncate is not None:
            step["truncate"] = self.truncate
        if self.clear is not None:
            step["clear"] = self.clear
        return step

    async def open(self, store: Corestore) -> Core:
        for name in self.namespaces:
            store = store.namespace(name)
        return await store.get(name=self.name, encryption_key=self.encryption_key)

    async def carry_out(self, store: Corestore) -> Core:
        core = await self.open(store)
        if self.append:
            await core.append(self.append)
        if self.truncate is not None:
            await core.truncate(self.truncate)
        if self.clear is not None:
            await core.clear(*self.clear)
        for key, value in self.user_data.items():
            await core.set_user_data(key, value)
        return core


def some_blocks(count: int, start: int = 0) -> list[bytes]:
    return [
        b"block %d " % i + b"-" * (i % 50) if i % 97 else b"BIG %d" % i * 1000
        for i in range(start, start + count)
    ]


NAMED = "n\u00e4me\x00with zero"
STEPS = [
    Step("log", append=some_blocks(300)),
    Step("log", append=some_blocks(1, 300)),
    Step("empty"),
    Step("empty block", append=[b"", b"x", b""]),
    Step("log", namespaces=["app"], append=some_blocks(5)),
    Step("log", namespaces=["app", "inner"], append=some_blocks(3)),
    Step("truncated", append=some_blocks(100)),
    Step("truncated", truncate=37),
    Step("truncated", append=some_blocks(4)),
    Step("cut to nothing", append=some_blocks(10)),
    Step("cut to nothing", truncate=0),
    Step(NAMED, user_data={"note": b"hello", "bin\x00key": bytes(range(256))}),
    Step("secret", append=some_blocks(20), encryption_key=bytes(range(32, 64))),
]


def run_javascript(path: Path, steps: Sequence[Step], **options: object) -> dict[str, Any]:
    task = {
        "dir": str(path),
        "primaryKey": PRIMARY_KEY.hex(),
        "steps": [step.for_javascript() for step in steps],
        **options,
    }
    done = subprocess.run(
        ["node", str(HERE / "storage_peer.cjs")],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    assert answer, done.stderr
    return answer


async def run_ours(path: Path, steps: Sequence[Step]) -> dict[bytes, dict[str, object]]:
    async with open_corestore(path, primary_key=PRIMARY_KEY, durability=Durability.OS) as store:
        cores = [await step.carry_out(store) for step in steps]
        return {core.key: describe(core) for core in cores}


def describe(core: Core) -> dict[str, object]:
    """What storage_peer.cjs says of a core, said by us."""
    hasher = hashlib.sha256()
    for index in range(core.length):
        block = core.get_local(index)
        assert (block is not None) == core.has(index)
        hasher.update(block or b"")
    return {
        "key": core.key.hex(),
        "discoveryKey": core.discovery_key.hex(),
        "length": core.length,
        "byteLength": core.byte_length,
        "fork": core.fork,
        "contiguousLength": core.contiguous_length,
        "writable": core.is_writable,
        "held": core.info().blocks_held,
        "digest": hasher.hexdigest(),
        "treeHash": core.head.tree_hash.hex(),
        "isSigned": True,
    }


def assert_same(
    theirs: Sequence[dict[str, Any]], ours: Mapping[bytes, Mapping[str, object]]
) -> None:
    assert len(theirs) == len(ours)
    for core in theirs:
        audit = core.pop("audit")
        assert not audit["corrupt"]
        assert audit["droppedTreeNodes"] == audit["droppedBlocks"] == audit["droppedBits"] == 0
        assert core == ours[bytes.fromhex(core["key"])]


async def test_the_records_are_equal_byte_for_byte(tmp_path: Path) -> None:
    theirs = run_javascript(tmp_path / "theirs", STEPS)
    ours = await run_ours(tmp_path / "ours", STEPS)
    assert_same(theirs["cores"], ours)
    their_rows = rows_of_directory(tmp_path / "theirs")
    our_rows = rows_of_directory(tmp_path / "ours")
    assert set(our_rows) == set(their_rows)
    for key, value in their_rows.items():
        assert our_rows[key] == value, key.hex()
    assert len(our_rows) > 1100


async def test_javascript_opens_what_we_made_and_we_open_it_again(tmp_path: Path) -> None:
    made = await run_ours(tmp_path, STEPS)
    seen = run_javascript(tmp_path, [*STEPS[:1], Step(NAMED)], compact=True)
    names = ["cut to nothing", "empty", "empty block", "log", NAMED, "secret", "truncated"]
    assert seen["names"] == names
    again = await run_ours(tmp_path, [Step("log", append=[b"ours"]), Step(NAMED)])
    key = bytes.fromhex(seen["cores"][0]["key"])
    assert again[key]["length"] == made[key]["length"] + 300 + 1  # type: ignore[operator]  # object
    assert_same(run_javascript(tmp_path, [Step("log"), Step(NAMED)])["cores"], again)


async def test_we_open_what_javascript_made_and_it_opens_it_again(tmp_path: Path) -> None:
    theirs = run_javascript(tmp_path, STEPS)
    unchanged = [
        Step(step.name, step.namespaces, encryption_key=step.encryption_key) for step in STEPS
    ]
    assert_same(theirs["cores"], await run_ours(tmp_path, unchanged))
    more = [Step("log", append=some_blocks(200)), Step("empty", append=[b"first"])]
    ours = await run_ours(tmp_path, [*more, Step("new here", append=[b"new"])])
    unchanged = [Step("log"), Step("empty"), Step("new here")]
    assert_same(run_javascript(tmp_path, unchanged)["cores"], ours)


async def test_turns_taken_many_times_over_several_pages(tmp_path: Path) -> None:
    blocks = [b"%d" % index for index in range(33_000)]
    await run_ours(tmp_path, [Step("log", append=blocks)])
    seen = run_javascript(tmp_path, [Step("log", append=[b"js"] * 3)])
    assert_same(seen["cores"], await run_ours(tmp_path, [Step("log")]))
    await run_ours(tmp_path, [Step("log", append=[b"ours"] * 2)])
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.truncate(32_700)
        discovery_key = core.discovery_key
        assert verify_core_of(store, discovery_key) == 32_700
    seen = run_javascript(tmp_path, [Step("log")])["cores"][0]
    assert seen["length"] == seen["contiguousLength"] == 32_700


def verify_core_of(store: Corestore, discovery_key: bytes) -> int:
    return verify_core(store.storage, discovery_key)


async def test_cleared_blocks_are_gone_for_both_and_the_others_provable(tmp_path: Path) -> None:
    """JavaScript, clearing block 5, deletes the leaf of block 4 too."""
    steps = [
        Step("log", append=some_blocks(40)),
        Step("log", clear=(5, 6)),
        Step("log", clear=(20, 29)),
    ]
    ours = await run_ours(tmp_path / "ours", steps)
    assert_same(run_javascript(tmp_path / "ours", [Step("log")])["cores"], ours)
    seen = run_javascript(tmp_path / "theirs", steps)["cores"][0]
    assert (seen["held"], seen["contiguousLength"]) == (30, 5)
    async with open_corestore(tmp_path / "theirs") as store:
        core = await store.get(name="log")
        assert describe(core)["digest"] == seen["digest"]
        for index in range(40):
            if core.has(index):
                assert core.read_node(2 * index) is not None


async def test_each_side_refuses_while_the_other_has_the_store_open(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, primary_key=PRIMARY_KEY):
        assert "lock" in run_javascript(tmp_path, [])["error"]
    with open_in_javascript(tmp_path) as hold:
        assert hold.stdin is not None
        with pytest.raises(StoreLocked, match=f"process {hold.pid}"):
            async with open_corestore(tmp_path):
                pass
        async with open_corestore(tmp_path, read_only=True) as store:
            assert store.primary_key == PRIMARY_KEY
        hold.stdin.close()


def open_in_javascript(path: Path) -> subprocess.Popen[str]:
    """A process that has the store open until its standard input ends."""
    script = (
        "const store = new (require('corestore'))(process.argv[1]);"
        "store.ready().then(() => console.log('open'));"
        "process.stdin.resume().on('end', () => process.exit())"
    )
    process = subprocess.Popen(
        ["node", "-e", script, str(path)],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


async def test_what_javascript_marked_as_recovering_is_recovered_by_ours(tmp_path: Path) -> None:
    """And JavaScript, which would wait for peers before it appends, does not wait any more."""
    path = tmp_path / "store"
    run_javascript(path, [Step("log", append=some_blocks(5))])
    run_javascript(path, [Step("log")], recovering=True)
    async with (
        open_corestore(path) as store,
        open_corestore(None, primary_key=PRIMARY_KEY) as lost,
        open_corestore(None) as far,
    ):
        core, longer = await store.get(name="log"), await lost.get(name="log")
        await longer.append(some_blocks(8))
        copy = await far.get(key=core.key)
        assert core.is_recovering
        async with replicating(longer, copy):
            await copy.download(0, 8)
        async with replicating(core, copy):
            await core.recover(settle_seconds=0.1)
            assert (core.length, core.is_recovering) == (8, False)
    (seen,) = run_javascript(path, [Step("log", append=[b"theirs"])])["cores"]
    assert seen["length"] == 9
    assert seen["audit"]["droppedTreeNodes"] == 0


async def test_a_copy_is_not_written_by_either(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    await run_ours(original, [Step("log", append=[b"one"])])
    shutil.copytree(original, copy, copy_function=shutil.copy2)
    assert "Invalid device file" in run_javascript(copy, [])["error"]
    with pytest.raises(CopiedStore, match="copied"):
        async with open_corestore(copy, read_only=False):
            pass
    async with open_corestore(copy) as store:
        assert store.is_read_only
        assert await (await store.get(name="log")).get(0) == b"one"


async def test_a_block_whose_proof_an_older_javascript_gave_up_costs_nothing_else(
    tmp_path: Path,
) -> None:
    """The `clear` of 11.37 pruned the hash beside a block that stays, and hung up when asked."""
    blocks = some_blocks(64)
    steps = [Step("log", append=blocks), Step("log", clear=(8, 32)), Step("log", clear=(33, 60))]
    run_javascript(tmp_path, steps)
    async with (
        open_corestore(tmp_path, primary_key=PRIMARY_KEY) as store,
        open_corestore(None) as reader,
    ):
        log = await store.get(name="log")
        assert log.get_local(32) == blocks[32]
        copy = await reader.get(key=log.key)
        async with replicating(log, copy):
            await copy.wait_length(len(blocks))
            for index in (0, 7, 32, 60, 63):
                assert await copy.get(index) == blocks[index]
    await forget_node(tmp_path, "log", 2 * 33)
    async with (
        open_corestore(tmp_path, primary_key=PRIMARY_KEY) as store,
        open_corestore(None) as reader,
    ):
        log = await store.get(name="log")
        copy = await reader.get(key=log.key)
        async with replicating(log, copy):
            await copy.wait_length(len(blocks))
            with trio.move_on_after(0.2) as waiting:
                await copy.get(32)
            assert waiting.cancelled_caught, "it is held, and nothing here proves it"
            for index in (0, 7, 60, 63):
                assert await copy.get(index) == blocks[index]
        assert log.statistics().replication.total.no_data_sent == 1


async def forget_node(path: Path, name: str, index: int) -> None:
    async with open_corestore(path, primary_key=PRIMARY_KEY) as store:
        async with await store.get(name=name) as core:
            discovery_key = core.discovery_key
        record = Catalog(store.storage).find(discovery_key)
        assert record is not None
        batch = store.storage.batch()
        batch.delete(DataKeys(record.data_pointer).node(index))
        store.storage.commit(batch)


async def append_long(store: Corestore) -> Core:
    core = await store.get(name="log")
    await core.append_pieces(
        [[b"%d " % index * 3_000] for index in range(400)], expected_bytes=MUCH
    )
    return core


async def test_rows_that_went_into_tables_of_their_own(tmp_path: Path) -> None:
    """As a long append's do; JavaScript reads them, rewrites them, and goes on."""
    async with open_corestore(tmp_path, primary_key=PRIMARY_KEY) as store:
        ours = describe(core := await append_long(store))
    for compact in (False, True):
        seen = run_javascript(tmp_path, [Step("log")], compact=compact)
        assert_same(seen["cores"], {core.key: ours})
    seen = run_javascript(tmp_path, [Step("log", append=some_blocks(3))])
    assert_same(seen["cores"], await run_ours(tmp_path, [Step("log")]))


async def test_a_long_append_that_a_crash_ended(tmp_path: Path) -> None:
    """JavaScript opens what is left, and appends, and then ours deletes what was to come."""
    whole, left = tmp_path / "whole", tmp_path / "left"
    async with open_corestore(whole, primary_key=PRIMARY_KEY, durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append(some_blocks(3))

        def copying() -> Iterator[list[bytes]]:
            yield from ([b"%d " % index * 3_000] for index in range(400))
            shutil.copytree(whole, left)
            (left / "CORESTORE").unlink()  # it was copied, and is the one now

        await core.append_pieces(copying(), expected_bytes=MUCH)
    assert [*(left / "db").glob("ahead-*")]
    seen = run_javascript(left, [Step("log", append=some_blocks(5))])
    assert seen["cores"][0]["length"] == 8
    assert_same(seen["cores"], await run_ours(left, [Step("log")]))
    assert not [*(left / "db").glob("ahead-*")]
    async with open_corestore(left, primary_key=PRIMARY_KEY) as store:
        core = await append_long(store)
        assert verify_core_of(store, core.discovery_key) == 408
        ours = describe(core)
    assert_same(run_javascript(left, [Step("log")])["cores"], {core.key: ours})
