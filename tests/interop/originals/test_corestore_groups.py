"""Update groups that both sides keep: corestore's groups.js, with the two taking turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore import open_corestore
from tests.interop.originals.history_peer import PRIMARY_KEY, open_javascript_store
from tests.support.storage_rows import rows_of_directory

pytestmark = pytest.mark.interop

TOPIC = b"\x01" * 32
OTHER = b"\x02" * 32


async def test_each_side_notes_changes_where_the_other_finds_them(tmp_path: Path) -> None:
    async with open_javascript_store() as theirs:
        async with theirs.opened(tmp_path):
            first = (await theirs("join", name="first", topic=TOPIC.hex()))["key"]
            await theirs("append", name="first", blocks=["theirs"])
        async with open_corestore(tmp_path, primary_key=PRIMARY_KEY) as store:
            assert store.group_updates(TOPIC) == [bytes.fromhex(first)]
            second = (await store.get(name="second", group=TOPIC)).key.hex()
            await (await store.get(name="second")).append(b"ours")
            third = (await store.get(name="third", group=OTHER)).key.hex()
            await (await store.get(name="third")).append(b"ours")
        async with theirs.opened(tmp_path):
            assert await theirs("updates", topic=TOPIC.hex()) == {"keys": [second, first]}
            assert await theirs("updates", topic=OTHER.hex()) == {"keys": [third]}
            await theirs("append", name="first", blocks=["theirs"])
        async with open_corestore(tmp_path) as store:
            assert [key.hex() for key in store.group_updates(TOPIC)] == [first, second]
            await (await store.get(name="second")).append(b"ours")
            assert [key.hex() for key in store.group_updates(TOPIC)] == [second, first]
        async with theirs.opened(tmp_path):
            assert await theirs("updates", topic=TOPIC.hex()) == {"keys": [second, first]}
    updates = [key for key in rows_of_directory(tmp_path) if key[:1] == b"\x06"]
    assert len(updates) == 3
