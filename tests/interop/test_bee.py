"""JavaScript's Hyperbee and ours: equal blocks, one directory in turn, and over the wire."""

from __future__ import annotations

import random
from math import isfinite
from pathlib import Path
from struct import pack, unpack
from typing import Any

import pytest
import trio

from bee import JSON, Bee
from bee.messages import decode_record
from hypercore import open_corestore
from tests.bee.test_bee import GHOSTLY
from tests.interop.bee_peer import apply, key_of, open_bee_peer, shown
from tests.interop.replication_peer import connected
from tests.support.bee_log import BeeLog

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 120


def random_operations(seed: int, count: int, keys: int) -> list[Any]:
    """Much of what can happen; few keys and large batches, so that trees also shrink."""
    source = random.Random(seed)

    def key() -> str:
        return (b"%04d" % source.randrange(keys)).hex()

    def operation() -> list[Any]:
        weight = source.random()
        put_share = (0.35, 0.6, 0.85)[seed % 3]
        if weight < put_share:
            value = None if source.random() < 0.05 else source.randbytes(source.randrange(6)).hex()
            made: list[Any] = ["put", key(), value]
        else:
            made = ["del", key(), None]
        if source.random() < 0.1:
            made.append(source.random() < 0.5)
        return made

    operations: list[Any] = []
    while len(operations) < count:
        if source.random() < 0.2:
            operations.append([operation() for _ in range(source.randrange(1, 60))])
        else:
            operations.append(operation())
    return operations


@pytest.mark.parametrize("always_duplicate", [True, False])
async def test_random_operations_give_the_same_blocks(always_duplicate: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer:
            for seed in range(24):
                operations = random_operations(seed, 120, (12, 40, 150, 600)[seed % 4])
                name = f"seed {seed}"
                options = {"alwaysDuplicate": always_duplicate}
                await peer("open", id=name, name=name, options=options)
                await peer("apply", id=name, operations=operations)
                theirs = (await peer("blocks", id=name, start=0))["blocks"]
                log = BeeLog()
                await apply(Bee(log, always_duplicate=always_duplicate), operations)
                assert [block.hex() for block in log.blocks] == theirs, name


async def test_numbers_as_json_give_the_same_blocks() -> None:
    source = random.Random(5)
    numbers = [
        sign * digit * 10.0**power
        for power in range(-9, 25)
        for digit in (1, 15)
        for sign in (1, -1)
    ]
    numbers += [0.0, -0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 2.0**60]
    while len(numbers) < 2_000:
        (number,) = unpack(">d", source.randbytes(8))
        (near_one,) = unpack(">d", bytes((0x3F + source.randrange(6),)) + source.randbytes(7))
        numbers += [each for each in (number, near_one, round(near_one, 2)) if isfinite(each)]
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer:
            options = {"keyEncoding": "json", "valueEncoding": "json"}
            await peer("open", id="a", name="numbers", options=options)
            await peer("putNumbers", id="a", doubles=[pack(">d", each).hex() for each in numbers])
            theirs = (await peer("blocks", id="a", start=0))["blocks"]
    log = BeeLog()
    bee = Bee(log, key_encoding=JSON, value_encoding=JSON)
    async with bee.batch() as batch:
        for number in numbers:
            await batch.put(number, [number, {"1.0": number}])
    assert [block.hex() for block in log.blocks] == theirs
    for entry in [entry async for entry in bee.range()]:
        assert await bee.get(entry.key) == entry


async def test_twenty_new_sequences_of_two_thousand_operations_give_the_same_blocks() -> None:
    """Made anew with every run; a failure names the seed to repeat it with."""
    first = random.SystemRandom().randrange(2**32)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer:
            for seed in range(first, first + 20):
                operations = random_sequence(seed, 2_000)
                name = f"seed {seed}"
                await peer("open", id=name, name=name)
                await peer("apply", id=name, operations=operations)
                theirs = (await peer("blocks", id=name, start=0))["blocks"]
                log = BeeLog()
                await apply(Bee(log), operations)
                assert [block.hex() for block in log.blocks] == theirs, name


def random_sequence(seed: int, count: int) -> list[Any]:
    """Puts, deletions and conditions, in subs and outside, alone and in batches; `count` in all."""
    source = random.Random(seed)
    keys = source.choice((20, 100, 400, 2_000))
    put_share = source.choice((0.4, 0.6, 0.85))
    names = [(), (b"s",), (b"s", b"t"), (b"",), (b"s\0t",), (b"\xff",)]

    def operation() -> list[Any]:
        key = b"%x" % source.randrange(keys) if source.random() < 0.98 else source.randbytes(2)
        value = None if source.random() < 0.05 else source.randbytes(source.randrange(40)).hex()
        is_put = source.random() < put_share
        accepts = source.random() < 0.5 if source.random() < 0.1 else None
        sub = [name.hex() for name in source.choice(names)] if source.random() < 0.3 else []
        return ["put" if is_put else "del", key.hex(), value if is_put else None, accepts, sub]

    made: list[Any] = []
    left = count
    while left:
        size = min(left, source.randrange(1, 120)) if source.random() < 0.1 else 0
        made.append([operation() for _ in range(size)] if size else operation())
        left -= size or 1
    return made


async def test_turns_on_one_directory(tmp_path: Path) -> None:
    operations = random_operations(7, 400, 300)
    turns = [operations[start : start + 100] for start in range(0, 400, 100)]
    reference = BeeLog()
    with trio.fail_after(LIMIT_SECONDS):
        for number, turn in enumerate(turns):
            await apply(Bee(reference), turn)
            if number % 2:
                async with open_bee_peer(tmp_path) as peer:
                    await peer("open", id="a", name="turns")
                    await peer("apply", id="a", operations=turn)
                    blocks = (await peer("blocks", id="a", start=0))["blocks"]
                    assert blocks == [block.hex() for block in reference.blocks]
                    entries = (await peer("range", id="a"))["entries"]
                    assert entries == [shown(entry) async for entry in Bee(reference).range()]
            else:
                async with open_corestore(tmp_path) as store:
                    core = await store.get(name="turns")
                    await apply(Bee(core), turn)
                    assert await core.get_many(range(core.length)) == reference.blocks


async def test_both_find_the_same_differences() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer:
            operations = [op for op in random_operations(2, 700, 200) if isinstance(op[0], str)]
            await peer("open", id="a", name="diff")
            await peer("apply", id="a", operations=operations)
            log = BeeLog()
            bee = Bee(log)
            await apply(bee, operations)
            source = random.Random(1)
            for _ in range(20):
                left, right = source.randrange(1, bee.version), source.randrange(1, bee.version)
                theirs = (await peer("diff", id="a", left=left, right=right))["rows"]
                differences = bee.checkout(left).diff(right)
                assert [[shown(d.left), shown(d.right)] async for d in differences] == theirs


@pytest.mark.parametrize("is_initiator", [True, False], ids=["we dial", "they dial"])
async def test_javascript_reads_ours_over_the_wire(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="ours")
            bee = Bee(core)
            async with bee.batch() as batch:
                for number in range(5_000):
                    await batch.put(key_of(number * 7919 % 5_000), b"value %d" % number)
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=is_initiator):
                await peer("waitLength", id="a", length=core.length)
                for number in (0, 1, 777, 4_999):
                    theirs = (await peer("get", id="a", key=key_of(number).hex()))["entry"]
                    assert theirs == shown(await bee.get(key_of(number)))
                absent = await peer("get", id="a", key=b"nowhere".hex())
                assert absent["entry"] is None
                bounds = {"gte": key_of(1_000), "lt": key_of(1_300)}
                arguments = {name: bound.hex() for name, bound in bounds.items()}
                theirs = (await peer("range", id="a", **arguments))["entries"]
                entries = bee.range(gte=bounds["gte"], lt=bounds["lt"])
                assert theirs == [shown(entry) async for entry in entries]
                theirs = (await peer("range", id="a", reverse=True, limit=20))["entries"]
                entries = bee.range(reverse=True, limit=20)
                assert theirs == [shown(entry) async for entry in entries]
                # What we append reaches them, and they read it.
                await bee.put(b"later", b"on")
                await peer("waitLength", id="a", length=core.length)
                assert (await peer("get", id="a", key=b"later".hex()))["entry"][2] == b"on".hex()


async def test_javascript_passes_over_questions_that_it_does_not_know() -> None:
    count = 2_000
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer, open_corestore(None) as store:
            key = (await peer("open", id="a", name="theirs"))["key"]
            await peer("fill", id="a", count=count, size=20)
            core = await store.get(key=bytes.fromhex(key))
            async with connected(store, peer, is_initiator=True):
                await core.wait_length(count + 1)
                bee = Bee(core)
                keys = [key_of(number) for number in range(0, count, 100)]
                found = await bee.get_many(keys)
                assert [entry.key for entry in found if entry is not None] == keys
                operations = [["put", each.hex(), b"new".hex()] for each in keys]
                await peer("apply", id="a", operations=operations)
                await core.wait_length(count + 1 + len(keys))
                differences = [item async for item in bee.snapshot().diff(count + 1)]
                assert [item.left.key for item in differences if item.left is not None] == keys
                assert core.info().blocks_held < count // 2
                total = core.statistics().replication.total
                assert (total.pushes_received, total.invalid_data) == (0, 0)


async def test_we_read_a_large_one_of_javascript_sparsely() -> None:
    count = 20_000
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer, open_corestore(None) as store:
            key = (await peer("open", id="a", name="theirs"))["key"]
            await peer("fill", id="a", count=count, size=20)
            core = await store.get(key=bytes.fromhex(key))
            async with connected(store, peer, is_initiator=True):
                await core.wait_length(count + 1)
                bee = Bee(core)
                snapshot = bee.snapshot()
                entry = await snapshot.get(key_of(14_321))
                assert entry is not None
                assert entry.value == bytes([14_321 & 255]) * 20
                assert core.info().blocks_held <= 40
                assert snapshot.reads.round_trips <= 14  # hints that come late leave plain descent
                again = bee.snapshot()
                assert await again.get(b"nowhere") is None
                before = core.info().blocks_held
                ranged = bee.snapshot()
                entries = ranged.range(gte=key_of(10_000), lt=key_of(10_100))
                assert [e.key async for e in entries] == [key_of(n) for n in range(10_000, 10_100)]
                assert core.info().blocks_held - before <= 200
                # Theirs answers late (it walks the whole range first). Without any hint each of at
                # most 25 leaves takes a round trip, and its entries another.
                assert ranged.reads.round_trips <= 60


async def test_javascript_reads_what_an_erasure_leaves(tmp_path: Path) -> None:
    """Turns on one directory: they write and delete, we erase, they read and go on."""
    source = random.Random(5)
    expected: dict[str, str | None] = {}
    with trio.fail_after(LIMIT_SECONDS):
        for turn in range(4):
            operations = random_operations(turn * 3, 150, 300)
            async with open_bee_peer(tmp_path) as peer:
                await peer("open", id="a", name="erased")
                await peer("apply", id="a", operations=operations)
                entries = (await peer("range", id="a"))["entries"]
            start = source.randrange(300)
            bounds = {"gte": b"%04d" % start, "lt": b"%04d" % (start + source.randrange(100))}
            async with open_corestore(tmp_path) as store:
                core = await store.get(name="erased")
                bee = Bee(core)
                assert [shown(entry) async for entry in bee.range()] == entries
                await bee.erase(gte=bounds["gte"], lt=bounds["lt"])
                for seq in range(1, core.length):
                    block = core.get_local(seq)
                    assert block is None or not (
                        bounds["gte"] <= decode_record(block).key < bounds["lt"]
                    )
                assert core.bitfield.count(0, core.length) < core.length
            expected = {
                key: value
                for _, key, value in entries
                if not bounds["gte"] <= bytes.fromhex(key) < bounds["lt"]
            }
            async with open_bee_peer(tmp_path) as peer:
                await peer("open", id="a", name="erased")
                left = (await peer("range", id="a"))["entries"]
                assert {key: value for _, key, value in left} == expected
                for number in range(start - 3, start + 103):
                    key = (b"%04d" % max(number, 0)).hex()
                    entry = (await peer("get", id="a", key=key))["entry"]
                    is_erased = bounds["gte"] <= bytes.fromhex(key) < bounds["lt"]
                    if is_erased or key in expected:
                        assert (entry and entry[2]) == expected.get(key)
                        assert (entry is not None) == (key in expected)
        assert expected


async def test_javascript_reads_it_sparsely_over_the_wire() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="ours")
            bee = Bee(core)
            async with bee.batch() as batch:
                for number in range(2_000):
                    await batch.put(key_of(number * 7919 % 2_000), b"value %d" % number)
            await bee.erase(gte=key_of(500), lt=key_of(1_500))
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=True):
                await peer("waitLength", id="a", length=core.length)
                for number in (0, 499, 500, 1_000, 1_499, 1_500, 1_999):
                    theirs = (await peer("get", id="a", key=key_of(number).hex()))["entry"]
                    assert theirs == shown(await bee.get(key_of(number)))
                    assert (theirs is None) == (500 <= number < 1_500)
                theirs = (await peer("range", id="a"))["entries"]
                assert theirs == [shown(entry) async for entry in bee.range()]
                held = (await peer("held", id="a"))["held"]
                assert held <= core.bitfield.count(0, core.length) == 1_002


async def test_the_original_finds_some_deleted_keys() -> None:
    """Why ours does not end where a block is about the key it looks for."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer() as peer:
            await peer("open", id="a", name="found")
            # As in `tests/bee/test_bee.py`.
            operations: list[Any] = [["put", (b"%d" % n).hex(), "76"] for n in GHOSTLY[:-3]]
            operations += [["del", (b"%d" % n).hex(), None] for n in GHOSTLY[-3:-1]]
            operations += [["put", (b"%d" % GHOSTLY[-1]).hex(), "76"]]
            await peer("apply", id="a", operations=operations)
            ghost = (b"%d" % 4).hex()
            entries = (await peer("range", id="a"))["entries"]
            assert ghost not in [key for _, key, _ in entries]
            assert (await peer("get", id="a", key=ghost))["entry"] == [9, ghost, "76"]
            blocks = (await peer("blocks", id="a", start=0))["blocks"]
            assert await Bee(BeeLog(map(bytes.fromhex, blocks))).get(b"4") is None


async def thin_out(bee: Bee, count: int) -> None:
    """Put so many keys as the command `fill` does, and delete nine of ten, in any order."""
    async with bee.batch() as batch:
        for number in range(count):
            await batch.put(key_of(number * 7919 % count), b"value %d" % number)
    source = random.Random(count)
    for number in source.sample(range(count), count * 9 // 10):
        await bee.delete(key_of(number))


async def test_javascript_reads_what_a_compaction_leaves(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        bee = Bee(await store.get(name="a"))
        await thin_out(bee, 3_000)
        done = await bee.compact()
        assert done.kept < 400
        assert done.pruned > 0
        await store.reclaim()
        ours = [shown(entry) async for entry in bee.range()]
    with trio.fail_after(LIMIT_SECONDS):
        async with open_bee_peer(tmp_path) as peer:
            await peer("open", id="a", name="a")
            assert (await peer("range", id="a"))["entries"] == ours
            for entry in ours[::10]:
                assert entry is not None
                assert (await peer("get", id="a", key=entry[1]))["entry"] == entry
            audit = (await peer("audit", id="a"))["stats"]
            assert audit["blocks"] == done.kept + done.appended + 1, "none was found wanting"
            assert audit["droppedBlocks"] == audit["droppedTreeNodes"] == 0
            await peer("apply", id="a", operations=random_operations(3, 100, 300))
            ours = (await peer("range", id="a"))["entries"]
    async with open_corestore(tmp_path) as store:
        bee = Bee(await store.get(name="a"))
        assert [shown(entry) async for entry in bee.range()] == ours
        await bee.compact()
        assert [shown(entry) async for entry in bee.range()] == ours


async def test_javascript_follows_a_compacted_bee_over_the_wire() -> None:
    """A new peer, and one that was away and whose length was named."""
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_bee_peer() as old,
            open_bee_peer() as new,
            open_corestore(None) as store,
        ):
            core = await store.get(name="ours")
            bee = Bee(core)
            await thin_out(bee, 2_000)
            await old("open", id="a", key=core.key.hex())
            async with connected(store, old, is_initiator=True):
                await old("waitLength", id="a", length=core.length)
            away = core.length
            await bee.put(b"more", b"1")
            kept = bee.version
            await bee.put(b"more", b"2")
            done = await bee.compact(versions=[kept], lengths=[away])
            assert done.kept < 500
            assert done.pruned > 0
            ours = [shown(entry) async for entry in bee.range()]
            await new("open", id="a", key=core.key.hex())
            for peer in (old, new):
                async with connected(store, peer, is_initiator=True):
                    await peer("waitLength", id="a", length=core.length)
                    assert (await peer("range", id="a"))["entries"] == ours
                    version = {"id": "a", "version": kept}
                    entry = (await peer("get", key=b"more".hex(), **version))["entry"]
                    assert entry == [kept - 1, b"more".hex(), b"1".hex()]
