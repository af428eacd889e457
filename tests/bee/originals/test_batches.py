"""What hyperbee 2.27.3's test/batches.js covers.

A batch is a block of code here that holds the writer's lock; `db.batch()` of the original takes it
with the first change. After `flush` it takes and tells nothing more ("batch with multiple read
streams", "batch.get(k) after flush": read the bee). It belongs to one task, so the calls in
parallel come one after the other ("many concurrent batch puts/peeks", "batches can survive
parallel ops"). "batches close when instance closes" has no counterpart: a bee is not closed.
"""

from __future__ import annotations

import pytest
import trio

from bee import JSON, BatchEnded, Bee, Entry
from tests.bee.originals.filling import collect

Text = Bee[str, str]


async def test_a_batch(bee: Text) -> None:
    """basic batch."""
    async with bee.batch() as batch:
        await batch.put("a", "1")
        await batch.put("b", "2")
    assert await collect(bee.range()) == [Entry(1, "a", "1"), Entry(2, "b", "2")]


async def test_peek(bee: Text) -> None:
    """batch peek."""
    await bee.put("5", None)
    async with bee.batch() as batch:
        assert await batch.peek(gte="5") == (1, "5", None)
        assert await batch.peek(gte="6") is None
        await batch.put("6", None)
        assert await batch.peek(gte="6") == (2, "6", None)
        assert await batch.peek(reverse=True) == (2, "6", None)
        assert await bee.peek(gte="6") is None
    assert await bee.peek(gte="6") == (2, "6", None)


async def test_many_puts_and_peeks(bee: Text) -> None:
    """many concurrent batch puts/peeks; batches can survive parallel ops."""
    async with bee.batch() as batch:
        for number in range(100):
            await batch.put(f"i-{number}", f"i-{number}")
            assert await batch.peek() == Entry(1, "i-0", "i-0")
    names = sorted(f"i-{number}" for number in range(100))
    assert [(entry.key, entry.value) async for entry in bee.range()] == [(n, n) for n in names]


async def test_get(bee: Text) -> None:
    """batch get."""
    await bee.put("5", None)
    async with bee.batch() as batch:
        assert await batch.get("5") == (1, "5", None)
        assert await batch.get("6") is None
        await batch.put("6", None)
        assert await batch.get("6") == (2, "6", None)
        assert await bee.get("6") is None
    assert await bee.get("6") == (2, "6", None)


async def test_a_range_of_a_batch(bee: Text) -> None:
    """batch createReadStream."""
    await bee.put("a", "1")
    async with bee.batch() as batch:
        assert await collect(batch.range()) == [Entry(1, "a", "1")]
        await batch.put("b", "2")
        both = [Entry(1, "a", "1"), Entry(2, "b", "2")]
        assert await collect(batch.range()) == both
        assert await collect(batch.range(reverse=True, limit=1)) == both[1:]
        assert await collect(bee.range()) == both[:1]
    assert await collect(bee.range()) == both


async def test_a_range_goes_on_while_the_batch_changes(bee: Text) -> None:
    async with bee.batch() as batch:
        for number in range(30):
            await batch.put(f"{number:02}", None)
        seen = []
        async for entry in batch.range():
            seen.append(entry.key)
            await batch.delete(entry.key)
            if entry.key == "10":
                await batch.put("10a", None)
                await batch.put("05a", None)
        assert seen == [*(f"{n:02}" for n in range(11)), "10a", *(f"{n:02}" for n in range(11, 30))]
        assert [entry.key async for entry in batch.range()] == ["05a"]


async def test_a_flushed_batch_tells_nothing(bee: Text) -> None:
    """batch.get(k) after flush; batch with multiple read streams."""
    async with bee.batch() as batch:
        await batch.put("0", "a")
        await batch.flush()
        for read in (batch.get("0"), batch.peek(), collect(batch.range())):
            with pytest.raises(BatchEnded):
                await read
    assert await bee.get("0") == Entry(1, "0", "a")


async def test_a_batch_overwrites_itself(bee: Text) -> None:
    """batch overwriting itself."""
    async with bee.batch() as batch:
        await batch.put("a", "1")
        await batch.put("a", "2")
    assert await collect(bee.range()) == [Entry(2, "a", "2")]


async def test_batches_at_the_same_time(bee: Text) -> None:
    """parallel batches: one after the other, and each sees what the one before has put."""
    order: list[str] = []

    async def write(name: str, entries: str) -> None:
        async with bee.batch() as batch:
            order.append(name)
            for key in entries:
                await batch.put(key, name)
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name, entries in (("1", "ab"), ("2", "abc"), ("3", "b")):
            nursery.start_soon(write, name, entries)
    last = {key: name for name in order for key in {"1": "ab", "2": "abc", "3": "b"}[name]}
    assert {entry.key: entry.value async for entry in bee.range()} == last
    assert bee.version == 7


async def test_other_codecs_in_a_batch(bee: Text) -> None:
    """batch puts, del and createRangeIterator support custom key/value encodings."""
    async with bee.batch() as batch:
        edits = batch.encoded(key_encoding=JSON, value_encoding=JSON)
        for number in (1, 3, 5):
            await edits.put({"a": number}, {"b": number + 1})
        assert await edits.get({"a": 1}) == Entry(1, {"a": 1}, {"b": 2})
        assert await edits.delete({"a": 5})
        assert await edits.get({"a": 5}) is None
        both = [Entry(1, {"a": 1}, {"b": 2}), Entry(2, {"a": 3}, {"b": 4})]
        assert await collect(edits.range()) == both
    assert await collect(bee.encoded(key_encoding=JSON, value_encoding=JSON).range()) == both


async def test_a_batch_reads_what_it_wrote(bee: Text) -> None:
    """batches simple support read after write, with multiple writes, with lots of them."""
    for number in range(300):
        await bee.put(f"#{number}", f"#{number}")
    async with bee.batch() as batch:
        for number in range(300):
            await batch.put(f"#{number}", f"*#{number}")
            found = await batch.get(f"#{number}")
            assert found is not None
            assert found.value == f"*#{number}"
        entries = await collect(batch.range())
        assert len(entries) == 300
        assert all(entry.value == "*" + entry.key for entry in entries)
        raised = await bee.get("#7")
        assert raised is not None
        assert raised.value == "#7"
