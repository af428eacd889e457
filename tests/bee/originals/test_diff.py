"""What hyperbee 2.27.3's test/diff.js covers.

Snapshots hold no session of the core, so "no session leak after diff stream closes" has no
counterpart. "diff key encoding option": a bee, shown by other codecs.
"""

from __future__ import annotations

from bee import BINARY, JSON, UTF8, Bee
from hypercore import Core
from tests.bee.originals.filling import collect, put_range

Text = Bee[str, str]


async def test_a_diff(bee: Text) -> None:
    """basic diff; with passed snap; with older snap as base; with 2 snaps."""
    await put_range(bee, 0, 10)
    before = bee.snapshot()
    await bee.put("a", "b")
    after = bee.snapshot()
    await bee.put("more", "stuff")
    newer = [((11, "a", "b"), None)]
    assert await collect(after.diff(before.version)) == newer
    assert await collect(after.diff(before)) == newer
    assert await collect(before.diff(after)) == [(None, (11, "a", "b"))]
    assert len(await collect(bee.diff(before))) == 2
    assert await collect(bee.diff(before, limit=1)) == newer


async def test_a_bigger_diff(bee: Text) -> None:
    """bigger diff."""
    await put_range(bee, 0, 10)
    before = bee.version
    await bee.delete("01")
    await put_range(bee, 9, 12)
    assert await collect(bee.diff(before)) == [
        (None, (2, "01", None)),
        ((12, "09", None), (10, "09", None)),
        ((13, "10", None), None),
        ((14, "11", None), None),
    ]


async def test_a_diff_of_a_sub(bee: Text) -> None:
    """diff stream on sub + checkout."""
    sub = bee.sub("sub")
    await bee.put("a", "a")
    await sub.put("sa", "sa")
    first = sub.version
    await sub.put("sb", "sb")
    second = sub.version
    await bee.put("b", "b")
    await sub.put("sc", "sc")
    assert await collect(sub.checkout(second).diff(first)) == [((3, "sb", "sb"), None)]
    assert await collect(sub.diff(first)) == [((3, "sb", "sb"), None), ((5, "sc", "sc"), None)]


async def test_a_diff_of_a_sub_of_a_sub(bee: Text) -> None:
    """diff on multi-level sub db with parent checkout."""
    sub = bee.sub("hello").sub("world")
    await sub.put("a", "b")
    await sub.put("b", "c")
    first = sub.version
    await sub.put("c", "d")
    await sub.delete("a")
    second = sub.version
    await sub.put("e", "f")
    await sub.put("g", "h")
    expected = [(None, (1, "a", "b")), ((3, "c", "d"), None)]
    parent = bee.checkout(second)
    assert await collect(parent.sub("hello").sub("world").diff(first)) == expected
    assert await collect(sub.checkout(second).diff(first)) == expected


async def test_what_was_deleted(bee: Text) -> None:
    """diff regression."""
    for key in "123456789":
        await bee.put(key, None)
    before = bee.version
    for key in "12345":
        await bee.delete(key)
    rows = await collect(bee.diff(before))
    assert rows == [(None, (number, str(number), None)) for number in range(1, 6)]


async def test_a_diff_by_other_codecs(core: Core) -> None:
    """diff key encoding option."""
    bee = Bee(core, key_encoding=BINARY, value_encoding=BINARY)
    before = bee.version
    await bee.put(b"a", b"b")
    shown = bee.encoded(key_encoding=JSON, value_encoding=JSON)
    await shown.put({"a": 1}, {"b": 2})
    assert await collect(shown.diff(before, gte={"a": 1})) == [((2, {"a": 1}, {"b": 2}), None)]


async def test_a_diff_beyond_all_keys(bee: Text) -> None:
    """diff oob seek."""
    for number in range(10):
        await bee.put(f"d{number}", None)
    await bee.delete("d9")
    assert await collect(bee.diff(1, gt="e", lt="f")) == []
    assert len(await collect(bee.diff(1, gt="d2", lte="d5"))) == 3
    assert bee.key_encoding is UTF8
