"""Large values are read in many parts: each costs the same, and gives what all of it would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import product
from pathlib import Path

import pytest

from bee.bee import Bee
from node.cojson.crypto import RunningHash
from node.covalue import reading, sqlite_reader
from node.covalue.bee_store import BeeStore
from node.covalue.content import PIECE_BYTES, Content, SessionContent
from node.covalue.ids import CoSessionId
from node.covalue.known_state import KnownState
from node.covalue.session_log import feed
from node.covalue.store import CoValueStore, LoadedPieces
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.stores import HOMES, Appender, joined, load_all

ANN = Author("ann")
HEADER = map_header("large")
ID = HEADER.id

LARGE = PIECE_BYTES + 1
"""A transaction after which there is a checkpoint."""

SIZES: dict[str, Sequence[int]] = {
    "a": [LARGE, 60_000, 60_000, 10, LARGE, LARGE, 10, 10, LARGE, 60_000, 10, 60_000, 10],
    "b": [LARGE] * 5,
    "c": [10, 10],
    "d": [10, LARGE],
}
"""Transactions of each session, each of which came alone."""


async def put(store: CoValueStore, sizes: dict[str, Sequence[int]]) -> None:
    appender = Appender()
    for session, each in sizes.items():
        running = RunningHash()
        for after, size in enumerate(each):
            new = edits(1, size=size, start=after)
            feed(running, new)
            part = SessionContent(after, new, ANN.sign_hash(running))
            header = HEADER if session == "a" and not after else None
            content = Content(ID, header, {session_id(session): part}, HEADER.priority)
            await appender.put(store, content)


def session_id(name: str) -> CoSessionId:
    return ANN.session_id(name, as_agent=True)


def known(**counts: int) -> KnownState:
    return KnownState(bool(counts), {session_id(key): n for key, n in counts.items() if n})


def shape(contents: Sequence[Content]) -> list[dict[str, tuple[int, int, bytes]]]:
    return [
        {key: (part.after, part.stop, part.signature) for key, part in content.new.items()}
        for content in contents
    ]


@pytest.mark.parametrize("kind", HOMES)
async def test_parts_are_the_same_however_many_checkpoints_are_read_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [
        known(),
        *(
            known(a=a, b=b, c=c, d=d)
            for a, b, c, d in product((0, 1, 4, 6, 9, 12, 13), (0, 3, 5), (0, 1, 2), (0, 1, 2))
            if a
        ),
    ]

    async def parts(few: int, at_once: int) -> list[object]:
        monkeypatch.setattr(reading, "FEW_CHECKPOINTS", few)
        monkeypatch.setattr(sqlite_reader, "CHECKPOINTS_AT_ONCE", at_once)
        found: list[object] = []
        for state, size in product(states, (1, PIECE_BYTES, 4 * PIECE_BYTES, None)):
            loaded = await store.load(ID, state, size)
            found.append((shape(loaded.pieces), loaded.is_complete))
        return found

    async with HOMES[kind](tmp_path).open() as store:
        await put(store, SIZES)
        expected = await parts(1000, 1000)
        for few, at_once in ((1, 1), (2, 4), (8, 2)):
            assert await parts(few, at_once) == expected


@pytest.mark.parametrize("kind", HOMES)
async def test_all_parts_together_are_the_value(kind: str, tmp_path: Path) -> None:
    async with HOMES[kind](tmp_path).open() as store:
        await put(store, SIZES)
        contents = await load_all(store, ID, known(), PIECE_BYTES)
        counts = {key: len(part) for key, part in joined(contents).items()}
        assert counts == {session_id(key): len(sizes) for key, sizes in SIZES.items()}
        assert len(contents) > 12


class CountedLog(DataLog):
    """Counts the blocks that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get_local(self, index: int, /) -> bytes | None:
        self.reads += 1
        return super().get_local(index)

    def get_local_many(self, indices: Sequence[int], /) -> list[bytes | None]:
        self.reads += len(indices)
        return super().get_local_many(indices)


async def load_from_our_store(log: CountedLog, state: KnownState) -> LoadedPieces:
    return await BeeStore(Bee(log, cache_bytes=0), log).load(ID, state, 1)


async def read_as_from_a_member(log: CountedLog, state: KnownState) -> LoadedPieces:
    return await reading.read_pieces(Bee(log, cache_bytes=0).snapshot(), ID, state, 1)


@pytest.mark.parametrize("load", [load_from_our_store, read_as_from_a_member])
async def test_a_part_costs_no_more_of_a_value_four_times_as_large(
    load: Callable[[CountedLog, KnownState], Awaitable[LoadedPieces]],
) -> None:
    """It did: all checkpoints were read for each, so that a load of 80 MB took 5 s."""
    costs: list[int] = []
    for count in (20, 80):
        log = CountedLog()
        await put(BeeStore(Bee(log), log), {"a": [LARGE] * count})
        store = BeeStore(Bee(log, cache_bytes=0), log)
        log.reads = 0
        loaded = await load(log, known(a=count // 2))
        costs.append(log.reads)
        (part,) = loaded.pieces[0].new.values()
        assert (part.after, part.stop, len(loaded.pieces)) == (count // 2, count // 2 + 1, 1)
        log.reads = 0
        assert await store.load_value(ID) is not None
        costs.append(log.reads)
    of_part, of_value, of_larger_part, of_larger_value = costs
    # The tree is one level deeper.
    assert of_larger_part < of_part + 20
    assert of_larger_value < of_value + 10
