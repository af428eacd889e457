"""Rows that are found by what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_type

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bee import JSON, UTF8, Bee, CorruptTree, Index, IndexedBee, IndexNotBuilt
from bee.indexes import BUILT_AT_ONCE, Build, IndexResults
from hypercore import open_corestore
from hypercore.errors import UsageError
from tests.support.bee_log import BeeLog, RemoteLog
from tests.support.cancel_everywhere import CancelAtStep


def by_country(_key: str, value: object) -> Iterable[bytes]:
    return [value["country"].encode()] if isinstance(value, dict) and "country" in value else []


def by_words(key: str, _value: object) -> Iterable[bytes]:
    return [word.encode() for word in key.lower().split()]


COUNTRY = Index("country", by_country)
WORDS = Index("words", by_words)


def towns(log: BeeLog, *indexes: Index[str, object]) -> IndexedBee[str, object]:
    return IndexedBee(Bee(log, key_encoding=UTF8, value_encoding=JSON), indexes)


async def build(indexed: IndexedBee[str, object]) -> list[tuple[str, int]]:
    return [(progress.name, progress.rows) async for progress in indexed.build()]


async def keys_by(indexed: IndexedBee[str, object], name: str, term: str) -> list[str]:
    return [entry.key for entry in await indexed.by(name).get(term.encode())]


async def fill(indexed: IndexedBee[str, object]) -> None:
    async with indexed.batch() as batch:
        for key, country in [("Bern", "CH"), ("Basel", "CH"), ("Bad Ems", "DE"), ("Bonn", "DE")]:
            await batch.put(key, {"country": country})


async def test_rows_by_a_term() -> None:
    indexed = towns(BeeLog(), COUNTRY, WORDS)
    await build(indexed)
    await fill(indexed)
    assert await keys_by(indexed, "country", "CH") == ["Basel", "Bern"]
    assert await keys_by(indexed, "words", "ems") == ["Bad Ems"]
    assert await keys_by(indexed, "country", "C") == []
    assert [entry.key async for entry in indexed.rows.range()] == [
        "Bad Ems", "Basel", "Bern", "Bonn"
    ]  # fmt: skip
    await indexed.put("Bern", {"country": "DE"})
    assert await indexed.delete("Bonn")
    assert not await indexed.delete("Bonn")
    await indexed.put("Basel", None)
    assert await keys_by(indexed, "country", "DE") == ["Bad Ems", "Bern"]
    assert await keys_by(indexed, "country", "CH") == []
    with pytest.raises(UsageError):
        indexed.by("nothing")


async def test_type_checkers_take_any_function_of_what_the_bee_holds() -> None:
    def initial(key: str, value: str | None) -> list[bytes]:
        return [(value or key)[:1].encode()]

    bee = Bee(BeeLog(), key_encoding=UTF8, value_encoding=UTF8)
    by_function = IndexedBee(bee, [Index("initial", initial)])
    by_lambda = IndexedBee(
        bee, [Index("initial", lambda key, value: [(value or key)[:1].encode()])]
    )
    for indexed in (assert_type(by_function, IndexedBee[str, str]), by_lambda):
        async for _ in indexed.build():
            pass
        await indexed.put("NL", "Delft")
        assert [entry.value for entry in await indexed.by("initial").get(b"D")] == ["Delft"]


async def test_ranges_of_terms() -> None:
    log = BeeLog()
    bee = Bee(log)
    indexed = IndexedBee(bee, [Index("value", lambda _key, value: [value or b""])])
    _ = [progress async for progress in indexed.build()]
    terms = [b"", b"\0", b"\0\0", b"\0\1", b"\0\xff", b"a", b"a\0", b"a\0b", b"aa", b"b", b"\xff"]
    for number, term in enumerate(terms):
        await indexed.put(b"%d" % number, term)

    async def read(
        gt: bytes | None = None,
        gte: bytes | None = None,
        lt: bytes | None = None,
        lte: bytes | None = None,
    ) -> list[bytes]:
        results = indexed.by("value").range(gt=gt, gte=gte, lt=lt, lte=lte)
        return [found.term async for found in results]

    assert await read() == sorted(terms)
    for low in terms:
        for high in terms:
            both = [term for term in sorted(terms) if low <= term <= high]
            assert await read(gte=low, lte=high) == both
            assert await read(gt=low, lte=high) == [term for term in both if term != low]
            assert await read(gte=low, lt=high) == [term for term in both if term != high]
    last = indexed.by("value").range(reverse=True, limit=2)
    assert [found.term async for found in last] == [b"\xff", b"b"]


async def test_an_index_is_not_read_before_it_is_built() -> None:
    log = BeeLog()
    plain = towns(log)
    await fill(plain)
    indexed = towns(log, COUNTRY)
    with pytest.raises(IndexNotBuilt, match="never built"):
        await indexed.by("country").get(b"CH")
    assert await build(indexed) == [("country", 0), ("country", 4)]
    assert await build(indexed) == []
    assert await keys_by(indexed, "country", "CH") == ["Basel", "Bern"]


async def test_an_index_that_was_truncated_is_not_built() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="towns")
        bee = Bee(core)
        await bee.sub("rows").put(b"Bern", b"CH")
        length = core.length
        indexed = IndexedBee(bee, [Index("country", lambda _key, value: [value or b""])])
        assert [progress async for progress in indexed.build()]
        assert await indexed.by("country").get(b"CH")
        built_length = core.length
        await core.truncate(length)
        while core.length < built_length:
            await bee.sub("rows").put(b"Bern", b"CH")
        with pytest.raises(IndexNotBuilt):
            await indexed.by("country").get(b"CH")


async def test_a_new_revision_is_built_anew() -> None:
    log = BeeLog()
    indexed = towns(log, COUNTRY)
    await build(indexed)
    await fill(indexed)
    lower = Index[str, object](
        "country", lambda key, value: [term.lower() for term in by_country(key, value)], revision=2
    )
    changed = towns(log, lower)
    with pytest.raises(IndexNotBuilt, match="revision 1 is there"):
        await changed.by("country").get(b"ch")
    await build(changed)
    assert await keys_by(changed, "country", "ch") == ["Basel", "Bern"]
    assert await keys_by(changed, "country", "CH") == []


async def test_an_index_that_was_not_declared_for_a_while() -> None:
    log = BeeLog()
    indexed = towns(log, COUNTRY, WORDS)
    await build(indexed)
    await fill(indexed)
    await towns(log, WORDS).put("Bern", {"country": "FR"})
    again = towns(log, COUNTRY, WORDS)
    with pytest.raises(IndexNotBuilt):
        await again.by("country").get(b"CH")
    assert await keys_by(again, "words", "bern") == ["Bern"]
    await build(again)
    assert await keys_by(again, "country", "CH") == ["Basel"]
    assert await keys_by(again, "country", "FR") == ["Bern"]


async def test_building_goes_on_and_writing_too() -> None:
    """Stopped after every batch, with rows changed before and behind the place it has come to."""
    log = BeeLog()
    count = 2 * BUILT_AT_ONCE + 50
    plain = towns(log)
    async with plain.batch() as batch:
        for number in range(count):
            await batch.put(f"{number:04}", {"country": "old"})
    expected = {f"{number:04}": "old" for number in range(count)}
    steps = 0
    while True:
        indexed = towns(log, COUNTRY)
        async for progress in indexed.build():
            assert progress.rows <= count
            break
        else:
            break
        steps += 1
        for number in (steps, 300 + steps, count - steps):
            await indexed.put(f"{number:04}", {"country": "new"})
            expected[f"{number:04}"] = "new"
    assert steps == 4
    for country in ("old", "new"):
        keys = [key for key, value in expected.items() if value == country]
        assert await keys_by(indexed, "country", country) == sorted(keys)


async def test_building_finds_rows_with_any_key() -> None:
    """Also the two that a range of a sub-database leaves out if it is open below."""
    bee = Bee(BeeLog())
    keys = [b"", b"\0", b"\0\0", b"\0\1", b"a", b"\xff" * 300]
    for key in keys:
        await bee.sub("rows").put(key, b"term")
    indexed = IndexedBee(bee, [Index("all", lambda _key, value: [value or b""])])
    assert [progress.rows async for progress in indexed.build()][-1] == len(keys)
    assert [entry.key for entry in await indexed.by("all").get(b"term")] == keys


async def test_what_terms_raises_leaves_the_row() -> None:
    def picky(_key: str, value: object) -> Iterable[bytes]:
        if value == "bad":
            raise ValueError("no such country")
        return [b"fine"]

    indexed = towns(BeeLog(), Index("picky", picky))
    await build(indexed)
    async with indexed.batch() as batch:
        await batch.put("a", "good")
        with pytest.raises(ValueError, match="no such country"):
            await batch.put("a", "bad")
        await batch.put("b", "good")
    assert await keys_by(indexed, "picky", "fine") == ["a", "b"]
    assert [entry.value async for entry in indexed.rows.range()] == ["good", "good"]


async def test_an_index_over_the_wire() -> None:
    owner = BeeLog()
    indexed = towns(owner, COUNTRY)
    await build(indexed)
    async with indexed.batch() as batch:
        for number in range(2000):
            await batch.put(f"{number:04}", {"country": f"{number % 100:02}"})
    log = RemoteLog(owner)
    there = towns(log, COUNTRY)
    assert len(await keys_by(there, "country", "42")) == 20
    assert len(log.held) < 250  # of 4,003; the rows are as far apart as they can be
    assert log.trips < 25


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"index\0country\0CH", b"", "without a key"),
        (b"index\0country\0CH\0\1Nowhere", b"", "not there"),
        (b"index\0country\0CH\0\1\xff", b"", "undecodable"),
        (b"built\0country", b"\1\7\0\0", "state of an index"),
        (b"built\0country", b"", "state of an index"),
    ],
)
async def test_what_another_writer_may_have_written(key: bytes, value: bytes, reason: str) -> None:
    log = BeeLog()
    indexed = towns(log, COUNTRY)
    await build(indexed)
    await Bee(log).put(key, value)
    with pytest.raises(CorruptTree, match=reason):
        _ = [found async for found in indexed.by("country").range()]


def test_names_of_indexes() -> None:
    for name in ("", "a\0b"):
        with pytest.raises(UsageError):
            Index(name, by_words)
    with pytest.raises(UsageError):
        towns(BeeLog(), COUNTRY, COUNTRY)


rows = st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.binary(max_size=2), max_size=3))


@given(st.lists(st.one_of(rows, st.sampled_from("abcdefgh")), max_size=12))
def test_an_index_equals_a_scan(changes: list[dict[str, list[bytes]] | str]) -> None:
    def terms(_key: str, value: object) -> Iterable[bytes]:
        assert isinstance(value, list)
        return [bytes.fromhex(term) for term in value]

    async def run() -> None:
        indexed = towns(BeeLog(), Index("terms", terms))
        await build(indexed)
        for change in changes:
            if isinstance(change, str):
                await indexed.delete(change)
            else:
                async with indexed.batch() as batch:
                    for key, some in change.items():
                        await batch.put(key, [term.hex() for term in some])
            everything = [entry async for entry in indexed.rows.range()]
            scanned = sorted(
                (term, entry.key) for entry in everything for term in set(terms("", entry.value))
            )
            found = [(term, e.key) async for term, e in indexed.by("terms").range()]
            assert found == scanned

    trio.run(run)


async def test_a_batch_goes_on_after_a_change_that_was_cancelled() -> None:
    """Found in review: the row was in the batch then, and not all of what its indexes say of it."""
    words = Index[str, object](
        "words", lambda _, value: [word.encode() for word in str(value).split()]
    )
    cancelled = 0
    for number in range(12):
        async with open_corestore(None) as store:
            bee = Bee(await store.get(name="towns"), key_encoding=UTF8, value_encoding=JSON)
            indexed = IndexedBee(bee, [words])
            await build(indexed)
            async with indexed.batch() as batch:
                for row in range(60):
                    await batch.put(str(row), " ".join(map(str, range(row, row + 30))))
            async with indexed.batch() as batch:
                with trio.CancelScope() as scope:
                    instrument = CancelAtStep(trio.lowlevel.current_task(), scope, number + 1)
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        for row in range(60):
                            await batch.put(str(row), " ".join(map(str, range(200, 230))))
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                cancelled += scope.cancelled_caught
                if number % 2:
                    await batch.delete("0")
            stated = {
                (word.encode(), entry.key)
                async for entry in indexed.rows.range()
                for word in str(entry.value).split()
            }
            found = {(found.term, found.entry.key) async for found in indexed.by("words").range()}
            assert found == stated
    assert cancelled == 12


async def test_an_index_that_is_back_after_a_cut_does_not_miss_rows() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="towns")
        bee = Bee(core, key_encoding=UTF8, value_encoding=JSON)
        both, one = IndexedBee(bee, [COUNTRY, WORDS]), IndexedBee(bee, [COUNTRY])
        await build(both)
        length = core.length
        await one.put("Bern", {"country": "CH"})
        with pytest.raises(IndexNotBuilt):
            await keys_by(both, "words", "bern")
        await core.truncate(length)
        await one.put("Basel", {"country": "CH"})
        with pytest.raises(IndexNotBuilt):
            await keys_by(both, "words", "basel")
        await build(both)
        assert await keys_by(both, "words", "basel") == ["Basel"]


async def test_terms_that_are_none_leave_the_row_as_it_was() -> None:
    def terms(_key: bytes, value: bytes | None) -> Iterable[bytes]:
        return [b"good"] if value == b"good" else ["bad"]  # type: ignore[list-item]  # the point

    bee = Bee(BeeLog())
    indexed = IndexedBee(bee, [Index("first", lambda _key, _value: [b"any"]), Index("term", terms)])
    assert [progress async for progress in indexed.build()]
    async with indexed.batch() as batch:
        await batch.put(b"a", b"good")
        for key in (b"a", b"b"):
            with pytest.raises(TypeError):
                await batch.put(key, b"bad")
    assert [entry.key async for entry in indexed.rows.range()] == [b"a"]
    for name, term in (("first", b"any"), ("term", b"good")):
        assert [entry.value for entry in await indexed.by(name).get(term)] == [b"good"]


@pytest.mark.parametrize("given", [b"DE", b"", ["DE"], [b"DE", 7]])
async def test_terms_that_are_no_list_of_bytes_are_named(given: Any) -> None:
    bee = Bee(BeeLog())
    await bee.sub("rows").put(b"a", b"there before")
    indexed = IndexedBee(bee, [Index("country", lambda _key, _value: given)])
    for change in (build_all, put_row):
        with pytest.raises(TypeError, match="terms of index 'country' must be a list of bytes"):
            await change(indexed)


async def build_all(indexed: IndexedBee[bytes, bytes]) -> None:
    _ = [progress async for progress in indexed.build()]


async def put_row(indexed: IndexedBee[bytes, bytes]) -> None:
    await indexed.put(b"b", b"row")


async def test_tasks_that_share_a_read_or_a_build() -> None:
    log = BeeLog()
    indexed = towns(log, COUNTRY, WORDS)
    async with indexed.rows.batch() as batch:
        for number in range(700):
            await batch.put(f"{number:03}", {"country": "CH"})
    progress: list[tuple[str, int]] = []
    found: list[str] = []

    async def share(build: Build[str, object]) -> None:
        async for name, rows in build:
            progress.append((name, rows))

    async def take(results: IndexResults[str, object]) -> None:
        nonlocal found
        async for row in results:
            found += [row.entry.key]

    async with trio.open_nursery() as nursery:
        build = indexed.build()
        for _ in range(3):
            nursery.start_soon(share, build)
    assert {name for name, rows in progress if rows == 700} == {"country", "words"}

    remote = RemoteLog(log)
    reader = towns(remote, COUNTRY, WORDS)
    results = reader.by("country").range()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take, results)
    assert sorted(found) == [f"{number:03}" for number in range(700)]


class PausingLog(RemoteLog):
    """Others run whenever it is told of a write, as they do in a core now and then."""

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        await trio.lowlevel.checkpoint()


async def test_what_a_cancelled_task_was_reading_is_read_by_those_that_share_it() -> None:
    """The others were at the end while it held the last rows, and nobody got those."""
    log = BeeLog()
    indexed = towns(log, COUNTRY)
    async with indexed.rows.batch() as batch:
        for number in range(60):
            await batch.put(f"{number:03}", {"country": "CH"})
    async for _ in indexed.build():
        pass
    found: list[str] = []

    async def take(results: IndexResults[str, object], scope: trio.CancelScope) -> None:
        with scope:
            async for row in results:
                found.append(row.entry.key)  # noqa: PERF401

    for step in range(60):
        found.clear()
        results = towns(PausingLog(log), COUNTRY).by("country").range()
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()
            for scope in (first, trio.CancelScope(), trio.CancelScope()):
                nursery.start_soon(take, results, scope)
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            first.cancel()
        assert sorted(found) == [f"{number:03}" for number in range(60)]
