"""What hyperbee 2.27.3's test/basic.js covers.

"basic properties": key, id and discovery key are the core's. Codecs are not given with each call;
`encoded` shows a bee, a version or a batch by others. Streams hold no session of the core, so "no
session leak" has no counterpart. `is_bee` of an empty core that may not wait says no, where the
original throws. "setting read-only flag": a read-only session of the core makes a read-only bee.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest

from bee import BINARY, JSON, UTF8, Bee, Codec, Entry, is_bee
from hypercore import Core
from hypercore.errors import NotWritable
from tests.bee.originals.filling import collect

Text = Bee[str, str]


async def put_all(bee: Text, keys: str) -> None:
    async with bee.batch() as batch:
        for key in keys:
            await batch.put(key, None)


async def test_basic_properties(core: Core, bee: Text) -> None:
    assert bee.is_writable
    assert bee.version == 1
    assert (bee.key_encoding, bee.value_encoding) == (UTF8, UTF8)


async def test_nothing_is_beyond_the_bounds(bee: Text) -> None:
    """out of bounds iterator; string encoding."""
    await put_all(bee, "abc")
    assert await collect(bee.range(gt="c")) == []
    assert await collect(bee.range(gte="f")) == []
    assert (
        await collect(bee.encoded(key_encoding=BINARY, value_encoding=BINARY).range(gt=b"c")) == []
    )


async def test_nothing_is_beyond_the_bounds_of_a_larger_bee(bee: Text) -> None:
    for number in range(8):
        await bee.put(str(number), "hello world")
    assert await collect(bee.range(gte="a")) == []


async def test_history_in_reverse(bee: Text) -> None:
    """createHistoryStream reverse."""
    await put_all(bee, "abc")
    assert [change.key async for change in bee.history(reverse=True)] == ["c", "b", "a"]


@pytest.mark.parametrize("is_sub", [False, True])
async def test_all_short_ranges(bee: Text, is_sub: bool) -> None:
    """test all short iterators; sub database."""
    db = bee.sub("sub1") if is_sub else bee
    reference: list[str] = []
    for size in range(1, 16):
        reference = sorted([*reference, str(size - 1)])
        await db.put(str(size - 1), "hello world")
        if is_sub:
            await bee.put(str(size - 1), "parent hello world")
        for upper in range(size):
            for lower, with_lower, with_upper, is_reverse in product(
                range(upper + 1), (False, True), (False, True), (False, True)
            ):
                low, high = str(lower), str(upper)
                entries = db.range(
                    gte=low if with_lower else None,
                    gt=None if with_lower else low,
                    lte=high if with_upper else None,
                    lt=None if with_upper else high,
                    reverse=is_reverse,
                )
                expected = [
                    key
                    for key in reference
                    if (low < key or (with_lower and low == key))
                    and (key < high or (with_upper and key == high))
                ]
                assert [entry.key async for entry in entries] == expected[
                    :: -1 if is_reverse else 1
                ]


async def test_other_codecs_for_a_put_and_a_get(bee: Text) -> None:
    """custom key/value encodings in get/put; in range iterator."""
    raw = bee.encoded(key_encoding=BINARY, value_encoding=BINARY)
    await raw.put(b"hello1", b"world1")
    await raw.put(b"hello2", b"world2")
    assert await raw.get(b"hello1") == Entry(1, b"hello1", b"world1")
    assert await collect(raw.range(gt=b"hello1")) == [Entry(2, b"hello2", b"world2")]
    assert await bee.get("hello1") == Entry(1, "hello1", "world1")


async def test_a_sub(bee: Text) -> None:
    """simple sub put/get."""
    sub = bee.sub("hello")
    await sub.put("world", "hello world")
    assert await sub.get("world") == Entry(1, "world", "hello world")


async def test_several_levels_of_subs(core: Core) -> None:
    """multiple levels of sub; sub respects keyEncoding."""
    bee = Bee(core, key_encoding=UTF8, value_encoding=UTF8)
    inner = bee.sub("hello", separator=b"!").sub("world")
    await inner.put("a", "b")
    assert await inner.get("a") == Entry(1, "a", "b")
    # `sep` is the whole bee's in the original, and each sub's here.
    assert await bee.get("hello!world\0a") == Entry(1, "hello!world\0a", "b")


async def test_entries_outside_a_sub_are_not_in_it(bee: Text) -> None:
    """multiple levels of sub, entries outside sub."""
    outer = bee.sub("hello")
    inner = outer.sub("world")
    await outer.put("a", "b")
    await inner.put("b", "c")
    assert await collect(inner.range()) == [Entry(2, "b", "c")]


@dataclass(frozen=True)
class Name:
    text: str


async def test_a_sub_has_codecs_of_its_own(bee: Text) -> None:
    """sub respects keyEncoding."""
    names = Codec(lambda name: name.text.encode(), lambda data: Name(data.decode()))
    sub = bee.sub("hello", key_encoding=names)
    await sub.put(Name("hello"), "val")
    assert await collect(sub.range()) == [Entry(1, Name("hello"), "val")]
    assert await sub.get(Name("hello")) == Entry(1, Name("hello"), "val")


async def test_a_key_in_a_sub_may_begin_with_the_last_byte(bee: Text) -> None:
    """sub with a key that starts with 0xff."""
    sub = bee.sub("hello", key_encoding=BINARY)
    await sub.put(b"\xff\x01\x02", "val")
    assert await collect(sub.range()) == [Entry(1, b"\xff\x01\x02", "val")]
    assert await sub.get(b"\xff\x01\x02") is not None


async def test_a_version_of_a_sub_shows_its_keys_alone(bee: Text) -> None:
    """read stream on sub checkout returns only sub keys; double sub checkout."""
    sub = bee.sub("sub")
    await bee.put("a", "a")
    await sub.put("sa", "sa")
    await sub.put("sb", "sb")
    before = sub.snapshot()
    again = sub.checkout(before.version)
    await bee.put("b", "b")
    await sub.put("sc", "sc")
    for view in (before, again, bee.checkout(before.version).sub("sub")):
        assert [entry.key async for entry in view.range()] == ["sa", "sb"]


async def test_a_read_only_bee(core: Core) -> None:
    """setting read-only flag to false disables header write; cannot append to read-only db."""
    bee = Bee(core.session(read_only=True))
    assert not bee.is_writable
    with pytest.raises(NotWritable):
        await bee.put(b"hello", b"world")
    assert core.length == 0


async def test_the_header(bee: Text) -> None:
    """get header out."""
    await bee.put("hi", "ho")
    assert (await bee.header()).protocol == "hyperbee"


async def test_what_is_a_bee(core: Core, bee: Text) -> None:
    """isHyperbee of empty core, of something, of the word hyperbee, of a bee."""
    assert not await is_bee(core, wait=False)
    await bee.put("hi", "ho")
    assert await is_bee(core)


@pytest.mark.parametrize("block", [b"something", b"hyperbee"])
async def test_what_is_none(core: Core, block: bytes) -> None:
    await core.append(block)
    assert not await is_bee(core)


async def test_other_codecs_for_a_version(bee: Text) -> None:
    """supports encodings in checkout; in snapshot."""
    await bee.put("hi", "there")
    for view in (bee.checkout(bee.version), bee.snapshot()):
        keys = view.encoded(key_encoding=BINARY, value_encoding=UTF8)
        values = view.encoded(key_encoding=UTF8, value_encoding=BINARY)
        assert await keys.get(b"hi") == Entry(1, b"hi", "there")
        assert await values.get("hi") == Entry(1, "hi", b"there")


async def test_json(core: Core) -> None:
    bee = Bee(core, key_encoding=JSON, value_encoding=JSON)
    await bee.put({"a": 1}, [None])
    assert await bee.get({"a": 1}) == Entry(1, {"a": 1}, [None])


async def test_get_by_seq(bee: Text) -> None:
    """get by seq."""
    await bee.put("/a", "1")
    await bee.put("/b", "2")
    assert await bee.get_by_seq(1) == Entry(1, "/a", "1")
    assert await bee.get_by_seq(2) == Entry(2, "/b", "2")
