"""What hyperbee 2.27.3's test/cas.js covers.

The same questions are asked of all codecs there, and of bees and batches; here by parameters.
`always_duplicate` is the original's option of that name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from bee import BINARY, JSON, UTF8, Bee, Codec, Expected
from bee.batch import Edits
from hypercore import Core
from tests.support.bee_log import BeeLog


@dataclass(frozen=True)
class Kind:
    """Codecs, a key, a value and another value for them."""

    keys: Codec[Any]
    values: Codec[Any]
    key: Any
    value: Any
    other: Any


KINDS = [
    Kind(UTF8, UTF8, "key", "value", "value^"),
    Kind(UTF8, JSON, "key", {"value": "value"}, {"value": "value^"}),
    Kind(UTF8, BINARY, "key", b"value", b"value^"),
    Kind(BINARY, BINARY, b"key", b"value", b"value^"),
]


@asynccontextmanager
async def target_of(
    bee: Bee[Any, Any], is_batch: bool
) -> AsyncIterator[Bee[Any, Any] | Edits[Any, Any]]:
    if is_batch:
        async with bee.batch() as batch:
            yield batch
    else:
        yield bee


def has_changed(last: Any, coming: Any) -> bool:
    return bool(coming.value != last.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_batch", [False, True])
async def test_a_put_under_a_condition(core: Core, kind: Kind, is_batch: bool) -> None:
    """bee.put({ cas }), bee.batch().put({ cas }) succeeds if cas(last, next) returns truthy."""
    bee = Bee(core, key_encoding=kind.keys, value_encoding=kind.values)
    async with target_of(bee, is_batch) as target:
        await target.put(kind.key, kind.value)
        first = await target.get(kind.key)
        assert not await target.put(kind.key, kind.value, cas=has_changed)
        assert await target.get(kind.key) == first
        assert await target.put(kind.key, kind.other, cas=has_changed)
        second = await target.get(kind.key)
        assert second is not None
        assert second.value == kind.other
        # By value, without a function of one's own.
        assert not await target.put(kind.key, kind.value, expected=kind.value)
        assert await target.put(kind.key, kind.value, expected=kind.other)


async def test_of_a_new_key_nobody_is_asked(bee: Bee[str, str]) -> None:
    """bee.put({ cas }) ignores cas(last, next) if it is a new key."""

    def refuse(_last: object, _next: object) -> bool:
        return False

    assert await bee.put("key", "value", cas=refuse)
    assert not await bee.put("key", "value^", cas=refuse)
    await bee.delete("key")
    assert await bee.put("key", "value", cas=refuse)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_batch", [False, True])
async def test_a_deletion_under_a_condition(core: Core, kind: Kind, is_batch: bool) -> None:
    """bee.del({ cas }), bee.batch({ cas }) succeeds if cas(last, tomb) returns truthy."""
    bee = Bee(core, key_encoding=kind.keys, value_encoding=kind.values)
    async with target_of(bee, is_batch) as target:
        await target.put(kind.key, kind.value)
        first = await target.get(kind.key)
        assert not await target.delete(kind.key, cas=lambda last, _: last.value != kind.value)
        assert await target.get(kind.key) == first
        assert not await target.delete(kind.key, expected=kind.other)
        assert await target.delete(kind.key, cas=lambda last, _: last.value == kind.value)
        assert await target.get(kind.key) is None


async def test_of_an_absent_key_nobody_is_asked(bee: Bee[str, str]) -> None:
    """bee.del({ cas }) ignores cas(last, tomb) if key does not exist."""
    asked: list[str] = []

    def note(last: Any, _next: object) -> bool:
        asked.append(last.value)
        return True

    assert not await bee.delete("key", cas=note)
    assert asked == []
    await bee.put("key", "value")
    assert await bee.delete("key", cas=note)
    assert asked == ["value"]


@pytest.mark.parametrize("first_is_put", [True, False])
@pytest.mark.parametrize("second_is_put", [True, False])
async def test_a_batch_in_which_all_was_refused_lets_others_go_on(
    bee: Bee[str, str], first_is_put: bool, second_is_put: bool
) -> None:
    """flushing an empty batch after a "failed" cas op releases lock (allows progress)."""
    await bee.put("key", "value")
    for is_put in (first_is_put, second_is_put):
        async with bee.batch() as batch:
            if is_put:
                assert not await batch.put("key", "value", cas=has_changed)
            else:
                assert not await batch.delete("key", cas=lambda last, _: last.value != "value")
    assert bee.version == 2
    assert await bee.put("key", "1", expected=Expected.ABSENT) is False
    assert await bee.delete("key", expected="value")


@pytest.mark.parametrize("is_batch", [False, True])
async def test_the_same_value_is_not_put_twice(is_batch: bool) -> None:
    """alwaysDuplicate - should not insert the same kv-pair twice; works on batch puts."""
    versions = []
    for always in (True, False):
        bee = Bee(BeeLog(), key_encoding=UTF8, value_encoding=UTF8, always_duplicate=always)
        async with target_of(bee, is_batch) as target:
            assert await target.put("/a", "1")
            assert await target.put("/a", "1") is always
            assert await target.put("/a", "1") is always
            assert await target.put("/a", "2")
        found = await bee.get("/a")
        assert found is not None
        assert found.value == "2"
        versions.append(bee.version)
    assert versions == [5, 3]
