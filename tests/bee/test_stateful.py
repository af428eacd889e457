"""A bee against sorted dicts, one for each version: two thousand short lives of changes,
checkouts, crashes and reopenings. What fails is told with its seed and its steps."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio

from bee import Bee, Entry, Expected
from hypercore.errors import StorageFailed
from tests.support.bee_log import BeeLog

LIVES = 2_000
STEPS = 14
KEYS = (12, 40, 40, 40, 40, 40, 40, 250)
"""Different ones; with many the tree has three levels, and merges nodes that have children."""


State = dict[bytes, tuple[int, bytes | None]]
Change = tuple[bytes, bytes | None, bool]
"""Key, value, whether it is a deletion."""


class CrashingLog(BeeLog):
    """Fails the next append if told to, before or after it was stored."""

    crash: str = ""

    def append_nowait(self, blocks: Sequence[bytes], **rows: object) -> int:
        crash, self.crash = self.crash, ""
        if crash == "lost":
            raise StorageFailed("nothing was stored")
        first = super().append_nowait(blocks)
        if crash == "kept":
            raise StorageFailed("it was stored, and nobody is told so")
        return first


class Life:
    """One bee, and what it has to hold in each version: key -> (seq, value)."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.keys = self.chance.choice(KEYS)
        self.log = CrashingLog()
        self.bee = self.opened()
        self.versions: dict[int, State] = {1: {}}
        self.steps: list[str] = []

    def opened(self) -> Bee:
        return Bee(self.log, cache_bytes=self.chance.choice((0, 2_000, 1 << 20)))

    @property
    def now(self) -> State:
        return self.versions[max(self.versions)]

    def key(self) -> bytes:
        return b"%03d" % self.chance.randrange(self.keys)

    async def run(self) -> None:
        kinds = {self.change: 6, self.batch: 4, self.look_back: 3, self.reopen: 1, self.crash: 2}
        for _ in range(STEPS):
            (step,) = self.chance.choices(list(kinds), list(kinds.values()))
            self.steps.append(step.__name__)
            await step()
        for version in self.versions:
            await self.check(version)

    def expect(self, changes: Sequence[Change]) -> State:
        """What is there after these (key, value, is a deletion), and the version it gets."""
        state = dict(self.now)
        seq = max(self.log.length, 1)
        for key, value, is_deletion in changes:
            if not is_deletion:
                state[key] = (seq, value)
            elif state.pop(key, None) is None:
                continue
            seq += 1
        return state

    def invented(self, count: int) -> list[Change]:
        chance = self.chance
        share = chance.random() if count > 1 else 0.4
        return [(self.key(), chance.randbytes(2), chance.random() < share) for _ in range(count)]

    async def change(self) -> None:
        ((key, value, is_deletion),) = self.invented(1)
        wanted = Expected.ABSENT if self.chance.random() < 0.2 else Expected.ANYTHING
        is_there = key in self.now
        is_refused = is_there and wanted is Expected.ABSENT
        state = self.expect([] if is_refused else [(key, value, is_deletion)])
        if is_deletion:
            done = await self.bee.delete(key, expected=wanted)
            assert done is (is_there and not is_refused)
        else:
            assert await self.bee.put(key, value, expected=wanted) is not is_refused
        self.versions[self.bee.version] = state

    async def batch(self) -> None:
        changes = self.invented(self.chance.randrange(1, max(20, self.keys)))
        state = self.expect(changes)
        is_discarded = self.chance.random() < 0.15
        try:
            async with self.bee.batch() as batch:
                for key, value, is_deletion in changes:
                    await (batch.delete(key) if is_deletion else batch.put(key, value))
                seen = {entry.key: (entry.seq, entry.value) async for entry in batch.range()}
                assert seen == state
                if is_discarded:
                    raise KeyError
        except KeyError:
            return
        self.versions[self.bee.version] = state

    async def reopen(self) -> None:
        self.bee = self.opened()

    async def crash(self) -> None:
        """The append fails, and whoever opens the log again finds all of it, or nothing."""
        changes = [(b"crash", None, False), *self.invented(self.chance.randrange(8))]
        state = self.expect(changes)
        is_kept = self.chance.random() < 0.5
        length = self.log.length
        self.log.crash = "kept" if is_kept else "lost"
        with pytest.raises(StorageFailed):
            await self.write(changes)
        if is_kept:
            self.versions[self.log.length] = state
        else:
            assert self.log.length == length
        self.bee = self.opened()

    async def write(self, changes: Sequence[Change]) -> None:
        async with self.bee.batch() as batch:
            for key, value, is_deletion in changes:
                await (batch.delete(key) if is_deletion else batch.put(key, value))

    async def look_back(self) -> None:
        await self.check(self.chance.choice(list(self.versions)))

    async def check(self, version: int) -> None:
        """All that a version shows is what it has to be."""
        state = self.versions[version]
        snapshot = self.bee.checkout(version)
        for _ in range(3):
            key = self.key()
            expected = None if key not in state else Entry(state[key][0], key, state[key][1])
            assert await snapshot.get(key) == expected
        low, high = sorted((self.key(), self.key()))
        is_reverse = self.chance.random() < 0.5
        rows = [(seq, key, value) for key, (seq, value) in sorted(state.items())]
        part = [row for row in rows if low <= row[1] < high]
        found = [tuple(row) async for row in snapshot.range(gte=low, lt=high, reverse=is_reverse)]
        assert found == part[:: -1 if is_reverse else 1]
        assert [tuple(entry) async for entry in snapshot.range()] == rows
        other = self.chance.choice(list(self.versions))
        differing = [
            key
            for key in sorted({*state, *self.versions[other]})
            if state.get(key) != self.versions[other].get(key)
        ]
        sides = [one or two async for one, two in snapshot.diff(other)]
        assert [side.key for side in sides if side is not None] == differing


def test_two_thousand_lives() -> None:
    async def live() -> None:
        for seed in range(LIVES):
            life = Life(seed)
            try:
                await life.run()
            except BaseException as error:
                error.add_note(f"seed {seed}, steps: {', '.join(life.steps)}")
                raise

    trio.run(live)
