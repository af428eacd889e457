"""What the `core` and `bee` verbs take for the name of a core."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bee.bee import Bee
from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import encode_id
from node.logs import MIN_KEY_CHARACTERS, perform_on_store
from node.verbs import BeeGet, CoreAppend, CoreInfo, ExitCode, LogVerb, Result, VerbError


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as store:
        yield store


async def perform(store: Corestore, verb: LogVerb) -> list[Result]:
    return [result async for result in perform_on_store(store, verb, can_fetch=False)]


async def test_the_beginning_of_a_key_stands_for_it_in_either_spelling(store: Corestore) -> None:
    core = await store.get(name="towns")
    await Bee(core).put(b"Bern", b"CH")
    for spelling in (encode_id(core.key), core.key.hex(), core.key.hex().upper()):
        for length in (MIN_KEY_CHARACTERS, 12, len(spelling) - 1):
            (told,) = await perform(store, CoreInfo(spelling[:length]))
            assert told["key"] == encode_id(core.key)
        (entry,) = await perform(store, BeeGet(spelling[:12], b"Bern"))
        assert entry["value"] == "CH"
        with pytest.raises(VerbError, match="no core named") as caught:
            await perform(store, CoreInfo(spelling[: MIN_KEY_CHARACTERS - 1]))
        assert caught.value.code is ExitCode.NOT_FOUND


async def test_of_several_keys_that_begin_alike_none_is_meant(
    store: Corestore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.logs.MIN_KEY_CHARACTERS", 1)
    cores = [await store.get(name=f"core {number}") for number in range(17)]
    digits = [core.key.hex()[0] for core in cores]
    crowded = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(VerbError, match=f"keys begin with {crowded}") as caught:
        await perform(store, CoreInfo(crowded))
    assert caught.value.code is ExitCode.USAGE


async def test_a_name_is_a_name_however_a_key_begins(store: Corestore) -> None:
    core = await store.get(name="towns")
    await core.append([b"block"])
    begun = core.key.hex()[:12]
    await perform(store, CoreAppend(begun, (b"other",)))
    (told,) = await perform(store, CoreInfo(begun))
    assert told["key"] != encode_id(core.key)
