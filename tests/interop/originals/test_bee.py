"""A JavaScript bee and its views, read by ours over the wire: hyperbee's basic.js, checkout.js,
diff.js, extension.js, history.js, ranges.js, sub.js and watch.js with JavaScript on the other side.

The tests themselves are followed in `tests/bee/originals`, blocks and compaction in
`tests/interop/test_bee.py`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from bee import Bee, Snapshot, is_bee
from hypercore import Core, open_corestore
from tests.interop.bee_peer import open_bee_peer, shown
from tests.interop.replication_peer import connected
from tests.interop.test_bee import random_sequence
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

SEED = 7
SUBS = [(), (b"s",), (b"s", b"t"), (b"",), (b"\xff",)]


@asynccontextmanager
async def both() -> AsyncIterator[tuple[PeerProcess, Core]]:
    """A JavaScript bee after some hundred operations, and our empty replica of it."""
    with trio.fail_after(180):
        async with open_bee_peer() as peer, open_corestore(None) as store:
            key = (await peer("open", id="a", name="views"))["key"]
            operations = random_sequence(SEED, 600)
            length = (await peer("apply", id="a", operations=operations))["length"]
            core = await store.get(key=bytes.fromhex(key))
            async with connected(store, peer, is_initiator=True):
                await core.wait_length(length)
                yield peer, core


def sub_of(view: Bee | Snapshot[bytes, bytes], names: tuple[bytes, ...]) -> Any:
    for name in names:
        view = view.sub(name)
    return view


async def ask(peer: PeerProcess, kind: str, names: tuple[bytes, ...] = (), **more: Any) -> Any:
    answer = await peer("view", id="a", kind=kind, names=[name.hex() for name in names], **more)
    return answer["rows"]


async def test_ranges_of_versions_and_subs() -> None:
    chance = random.Random(SEED)
    async with both() as (peer, core):
        bee = Bee(core)
        for names in SUBS:
            for _ in range(6):
                version = bee.version
                bounds = {
                    chance.choice(("gt", "gte")): b"%x" % chance.randrange(16),
                    chance.choice(("lt", "lte")): b"%x" % chance.randrange(16, 256),
                }
                options = {name: bound.hex() for name, bound in bounds.items()}
                reverse = chance.random() < 0.5
                limit = chance.choice((-1, 3))
                theirs = await ask(
                    peer,
                    "range",
                    names,
                    version=version,
                    options={**options, "reverse": reverse, "limit": limit},
                )
                entries = sub_of(bee.checkout(version), names).range(
                    **bounds, reverse=reverse, limit=None if limit < 0 else limit
                )
                assert [shown(entry) async for entry in entries] == theirs


async def test_differences_in_subs() -> None:
    async with both() as (peer, core):
        bee = Bee(core)
        before = bee.version
        more = random_sequence(SEED + 1, 200)
        await core.wait_length((await peer("apply", id="a", operations=more))["length"])
        for names in SUBS:
            for options in ({}, {"gte": b"3".hex(), "lt": b"9".hex()}):
                bounds = {name: bytes.fromhex(bound) for name, bound in options.items()}
                theirs = await ask(peer, "diff", names, other=before, options=options)
                rows = sub_of(bee, names).diff(before, **bounds)
                assert [[shown(row.left), shown(row.right)] async for row in rows] == theirs


async def test_histories() -> None:
    async with both() as (peer, core):
        bee = Bee(core)
        every: list[dict[str, Any]] = [
            {},
            {"gte": 17, "lt": 90},
            {"gt": -20},
            {"reverse": True, "limit": 30},
        ]
        for options in every:
            theirs = await ask(peer, "history", options=options)
            assert [
                ["del" if change.is_deletion else "put", *(shown(change[:3]) or ())]
                async for change in bee.history(**options)
            ] == theirs


async def test_what_they_put_is_told() -> None:
    async with both() as (peer, core):
        bee = Bee(core)
        with bee.watch(prefix=b"told") as watch, bee.watch_key(b"told 2") as key:
            assert await anext(key) is None
            for number in range(3):
                operation = ["put", (b"told %d" % number).hex(), b"v".hex()]
                await peer("apply", id="a", operations=[operation])
                told = [row.left and row.left.key async for row in await anext(watch)]
                assert told == [b"told %d" % number]
            entry = await anext(key)
            assert entry is not None
            assert entry.value == b"v"


async def test_it_is_known_as_a_bee() -> None:
    async with both() as (_, core):
        assert await is_bee(core)
        assert (await Bee(core).header()).protocol == "hyperbee"
