"""Random operations, and everything that can be read afterwards, against the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from hypothesis import given
from hypothesis import strategies as st

from bee import Bee, Entry
from tests.reference.bee_model import BeeModel, Bounds, Operation
from tests.support.bee_log import BeeLog, RemoteLog

keys = st.one_of(
    st.integers(0, 60).map(lambda number: b"%03d" % number),
    st.binary(max_size=3),
)
values = st.one_of(st.none(), st.binary(max_size=8))
puts = st.tuples(keys, values, st.just(value=False))
deletions = st.tuples(keys, st.none(), st.just(value=True))
operations = st.one_of(puts, puts, deletions)
steps = st.lists(st.one_of(operations, st.lists(operations, max_size=25)), max_size=80)
bounds = st.builds(
    Bounds,
    gt=st.one_of(st.none(), keys),
    gte=st.one_of(st.none(), keys),
    lt=st.one_of(st.none(), keys),
    lte=st.one_of(st.none(), keys),
)
cache_sizes = st.sampled_from([0, 3_000, 1 << 20])

Step = Operation | list[Operation]


async def run_steps(bee: Bee, model: BeeModel, todo: list[Step]) -> None:
    for step in todo:
        if isinstance(step, tuple):
            model.apply([step])
            await change(bee.put, bee.delete, step)
            continue
        model.apply(step)
        async with bee.batch() as batch:
            for key, value, is_deletion in step:
                await change(batch.put, batch.delete, (key, value, is_deletion))
                found = await batch.get(key)
                assert (found is not None, found and found.value) == (
                    not is_deletion,
                    None if is_deletion else value,
                )


async def change(
    put: Callable[[bytes, bytes | None], Awaitable[bool]],
    delete: Callable[[bytes], Awaitable[bool]],
    operation: Operation,
) -> None:
    key, value, is_deletion = operation
    if is_deletion:
        await delete(key)
    else:
        assert await put(key, value)


def built(todo: list[Step], cache_bytes: int) -> tuple[BeeLog, BeeModel]:
    log, model = BeeLog(), BeeModel()
    trio.run(run_steps, Bee(log, cache_bytes=cache_bytes), model, todo)
    return log, model


@given(steps, cache_sizes, bounds, st.booleans(), st.one_of(st.none(), st.integers(0, 9)))
def test_reads_are_those_of_the_model(
    todo: list[Step], cache_bytes: int, limits: Bounds, reverse: bool, limit: int | None
) -> None:
    log, model = built(todo, cache_bytes)
    assert log.length == (model.version if model.has_header else 0)

    async def read() -> None:
        warm, cold = Bee(log), Bee(log, cache_bytes=cache_bytes)
        versions = [v for v, state in enumerate(model.versions) if state is not None]
        all_keys = {key for _, key, _, _ in model.history}
        for bee in (warm, cold):
            for version in versions[-3:]:
                snapshot = bee.checkout(version)
                # Also of all deleted keys none is found: see `bee.descent.find`.
                for key in (*model.now, *all_keys, b"", b"030", b"nowhere"):
                    state = model.versions[version]
                    assert state is not None
                    expected = Entry(state[key][0], key, state[key][1]) if key in state else None
                    assert await snapshot.get(key) == expected
                entries = snapshot.range(
                    gt=limits.gt,
                    gte=limits.gte,
                    lt=limits.lt,
                    lte=limits.lte,
                    reverse=reverse,
                    limit=limit,
                )
                assert [tuple(entry) async for entry in entries] == model.range(
                    version, limits, reverse=reverse, limit=limit
                )
            for since in versions[::3]:
                newer = bee.checkout(versions[-1]).range(gt=limits.gt, lt=limits.lt, since=since)
                expected_rows = model.range(versions[-1], Bounds(gt=limits.gt, lt=limits.lt))
                assert [tuple(entry) async for entry in newer] == [
                    row for row in expected_rows if row[0] >= since
                ]
            history = [tuple(change) async for change in bee.history()]
            # What a batch puts as None and overwrites looks like a deletion (see `Change`).
            assert [row[:3] for row in history] == [row[:3] for row in model.history]
            assert all(value is None for *_, value, is_deletion in history if is_deletion)
            assert {row for row in model.history if row[3]} <= set(history)

    trio.run(read)


@given(steps, st.lists(operations, max_size=40), cache_sizes, bounds, st.booleans())
def test_a_batch_reads_its_changes_in_order(
    todo: list[Step], changes: list[Operation], cache_bytes: int, limits: Bounds, reverse: bool
) -> None:
    log, model = built(todo, 1 << 20)

    async def read() -> None:
        async with Bee(log, cache_bytes=cache_bytes).batch() as batch:
            for step in changes:
                await change(batch.put, batch.delete, step)
            model.apply(changes)
            for reversed_, limit in ((reverse, None), (not reverse, 3)):
                entries = batch.range(
                    gt=limits.gt,
                    gte=limits.gte,
                    lt=limits.lt,
                    lte=limits.lte,
                    reverse=reversed_,
                    limit=limit,
                )
                expected = model.range(model.version, limits, reverse=reversed_, limit=limit)
                assert [tuple(entry) async for entry in entries] == expected
            first = await batch.peek(gte=limits.gte, lt=limits.lt)
            rows = model.range(model.version, Bounds(gte=limits.gte, lt=limits.lt), limit=1)
            assert ([] if first is None else [tuple(first)]) == rows

    trio.run(read)


@given(steps, st.data(), bounds, cache_sizes)
def test_differences_are_those_of_the_model(
    todo: list[Step], data: st.DataObject, limits: Bounds, cache_bytes: int
) -> None:
    log, model = built(todo, 1 << 20)
    versions = [v for v, state in enumerate(model.versions) if state is not None]
    left, right = (data.draw(st.sampled_from(versions)) for _ in range(2))

    async def read() -> None:
        rows = []
        async for one, other in (
            Bee(log, cache_bytes=cache_bytes)
            .checkout(left)
            .diff(right, gt=limits.gt, gte=limits.gte, lt=limits.lt, lte=limits.lte)
        ):
            either = one or other
            assert either is not None
            rows.append((either.key, one and one.seq, other and other.seq))
        assert rows == model.diff(left, right, limits)

    trio.run(read)


@given(steps, steps, cache_sizes)
def test_a_reopened_bee_writes_the_same_blocks(
    first: list[Step], second: list[Step], cache_bytes: int
) -> None:
    log, model = built(first, 1 << 20)
    copy = BeeLog(log.blocks)
    again = BeeModel()
    again.versions, again.history = list(model.versions), list(model.history)

    async def write() -> None:
        await run_steps(Bee(log), model, second)

    async def write_reopened() -> None:
        for step in second:
            await run_steps(Bee(copy, cache_bytes=cache_bytes), again, [step])

    trio.run(write)
    trio.run(write_reopened)
    assert copy.blocks == log.blocks


@given(steps, bounds, st.booleans(), st.booleans())
def test_a_remote_bee_reads_the_same(
    todo: list[Step], limits: Bounds, reverse: bool, hints: bool
) -> None:
    log, model = built(todo, 1 << 20)
    if not model.has_header:
        return

    async def read() -> None:
        Bee(log, extension=hints)
        for key in (*list(model.now)[:5], b"nowhere"):
            remote = RemoteLog(log)
            snapshot = Bee(remote).snapshot()
            found = await snapshot.get(key)
            assert (found and found.seq) == (model.now[key][0] if key in model.now else None)
            assert snapshot.reads.blocks_waited <= len(remote.held)
            assert snapshot.reads.round_trips <= remote.trips
        remote = RemoteLog(log)
        entries = Bee(remote).range(
            gt=limits.gt, gte=limits.gte, lt=limits.lt, lte=limits.lte, reverse=reverse
        )
        assert [tuple(entry) async for entry in entries] == model.range(
            model.version, limits, reverse=reverse
        )

    trio.run(read)
