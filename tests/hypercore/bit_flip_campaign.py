"""Flip single bits of a store: `python -m tests.hypercore.bit_flip_campaign --flips 10000`.

A store with two cores of ours and a replica, with blocks in tables and in files of their own, some
cleared, some not fetched. In one copy it was closed, in the other its process died, so that there
is a write-ahead log, too. One bit of some file is turned, then everything is read and audited:

* `refused`: the store, or the core, does not open, and says why;
* `detected`: it opens; reading, or an audit, names what is damaged. Every other block is served;
* `dead`: nothing that is stored is affected: every row is what it was.

Whatever is served must be what was written, and nothing may be missing without an error. Of some
flips the rest is tried, too: the blocks of the replica are fetched again by who reads them, and
`beemesh core verify --repair` makes a store that is sound, and has them all after a download.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import Core, Corestore, open_corestore
from hypercore.errors import CorruptStorage, DamagedBlock, StorageError
from hypercore.replication.messages import PROTOCOL
from hypercore.store_repair import audit_core, repair_cores, salvage_store
from tests.support.memory_mux import memory_mux_pair
from tests.support.storage_rows import all_rows
from tests.support.store_promises import SOURCE_KEYS, open_cores

LENGTH = 300
FETCHED = range(40, LENGTH)
"""What the replica has; some of it is cleared again."""

CLEARED = range(100, 130)
HEALED_EVERY = 100
_PATIENCE_SECONDS = 60
_LIVE_KINDS = ("sst", "blob", "log", "manifest")


def block_of(name: str, index: int) -> bytes:
    text = b"%s %d " % (name.encode(), index)
    return text * (800 if index % 60 == 7 else 1 + index % 9)


def blocks_of(name: str) -> list[bytes]:
    return [block_of(name, index) for index in range(LENGTH)]


@dataclass
class Report:
    flips: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    by_file: Counter[str] = field(default_factory=Counter)
    """Outcomes by kind of file."""
    damaged_blocks: int = 0
    """Reads that said which block is damaged."""
    healed: int = 0
    """Stores of which all of the replica was fetched again."""
    repaired: int = 0
    """Stores that were salvaged, and then sound."""
    lost_ours: int = 0
    """Stores that were salvaged, and lost blocks or a head that only their owner had."""
    unreadable: int = 0
    """Stores, or cores of ours, that stay closed and say so: what tells of all else is damaged."""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A store that nobody has open, and what it holds."""

    path: Path
    rows: Mapping[bytes, bytes]
    held: Mapping[str, frozenset[int]]


@asynccontextmanager
async def open_source() -> AsyncIterator[Core]:
    """The replica's writer, in memory."""
    async with open_corestore(None) as store:
        core = await store.get(key_pair=SOURCE_KEYS)
        await core.append(blocks_of("replica"))
        yield core


@asynccontextmanager
async def joined(source: Core, replica: Core) -> AsyncIterator[None]:
    theirs, ours = memory_mux_pair()
    for mux in (theirs, ours):
        mux.expected.add((PROTOCOL, replica.discovery_key))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.replication.serve, theirs)
        nursery.start_soon(replica.replication.serve, ours)
        yield
        nursery.cancel_scope.cancel()


async def make_specimens(scratch: Path) -> list[Specimen]:
    """One store that was closed in order, and one of a process that died."""
    path = scratch / "closed"
    async with open_source() as source, open_corestore(path, primary_key=bytes(32)) as store:
        cores = await open_cores(store)
        await cores["log"].append(blocks_of("log")[: LENGTH // 2])
        await cores["cleared"].append(blocks_of("cleared"))
        await cores["cleared"].clear(CLEARED.start, CLEARED.stop)
        async with joined(source, cores["replica"]):
            with trio.fail_after(_PATIENCE_SECONDS):
                await cores["replica"].download(FETCHED.start, FETCHED.stop)
        await store.reclaim()
        await cores["log"].append(blocks_of("log")[LENGTH // 2 :])
        await cores["replica"].clear(CLEARED.start, CLEARED.stop)
        # As a kill leaves it: what is written is in the files, and nothing is finished.
        shutil.copytree(path, scratch / "killed")
    return [await _described(scratch / name) for name in ("closed", "killed")]


async def _described(path: Path) -> Specimen:
    async with open_corestore(path, read_only=True) as store:
        cores = await open_cores(store)
        held = {
            name: frozenset(index for index in range(core.length) if core.has(index))
            for name, core in cores.items()
        }
        rows = all_rows(store.storage)
    assert held["log"] == frozenset(range(LENGTH))
    assert held["cleared"] == frozenset(range(LENGTH)) - frozenset(CLEARED)
    assert held["replica"] == frozenset(FETCHED) - frozenset(CLEARED)
    return Specimen(path, rows, held)


def kind_of(path: Path) -> str:
    if path.name.startswith(("MANIFEST", "OPTIONS")):
        return path.name.partition("-")[0].lower()
    return path.suffix.removeprefix(".") or path.name


def flip(path: Path, position: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def draw_bit(path: Path, chance: random.Random) -> tuple[Path, int, int]:
    """A bit of what is stored, or, now and then, of any file."""
    files = [file for file in sorted((path / "db").iterdir()) if file.stat().st_size]
    if chance.random() < 0.85:
        files = [file for file in files if kind_of(file) in _LIVE_KINDS]
        sizes = [file.stat().st_size for file in files]
        # By size, but small files are not to be forgotten.
        (file,) = chance.choices(files, [size + sum(sizes) // 20 for size in sizes])
    else:
        file = chance.choice(files)
    return file, chance.randrange(file.stat().st_size), chance.randrange(8)


async def judge(specimen: Specimen, report: Report) -> str:
    """Read everything, and say how the flip came out. Raises: AssertionError."""
    is_detected = False
    async with open_corestore(specimen.path, read_only=True) as store:
        cores = await open_cores(store)
        for name, core in cores.items():
            damaged = set()
            for index in specimen.held[name]:
                try:
                    block = core.get_local(index)
                except DamagedBlock as error:
                    damaged.add(error.index)
                else:
                    assert block is not None, f"{name} {index} is gone without a word"
                    assert block == block_of(name, index), f"{name} {index} is not what it was"
            assert damaged <= specimen.held[name]
            report.damaged_blocks += len(damaged)
            audit = await audit_core(core, is_strict=True)
            assert audit.damaged_blocks == len(damaged), f"{name}: {audit}"
            is_detected |= bool(damaged) or not audit.is_sound
        if not is_detected:
            try:
                rows = all_rows(store.storage)
            except CorruptStorage:
                is_detected = True
            else:
                assert rows == specimen.rows, "rows are gone without a word"
    return "detected" if is_detected else "dead"


async def heal(path: Path, report: Report) -> None:
    """Who reads a damaged block of a replica gets it from a peer, and it is kept."""
    async with open_source() as source, open_corestore(path) as store:
        replica = (await open_cores(store))["replica"]
        async with joined(source, replica):
            with trio.fail_after(_PATIENCE_SECONDS):
                for index in FETCHED:
                    assert await replica.get(index) == block_of("replica", index)
        for index in FETCHED:
            assert replica.get_local(index) == block_of("replica", index)
        report.healed += 1


async def repair(path: Path, report: Report) -> None:
    """What `beemesh core verify --repair` does; then the replica is fetched again."""
    salvage = await salvage_store(path)
    is_sound = True
    async for item in repair_cores(path, is_strict=bool(salvage.gaps)):
        assert item.is_sound or item.is_writable or item.failure, f"{item}"
        is_sound &= item.is_sound
    async with open_source() as source, open_corestore(path) as store:
        cores = await open_cores(store)
        await _check_ours(store, cores)
        async with joined(source, cores["replica"]):
            with trio.fail_after(_PATIENCE_SECONDS):
                await cores["replica"].download(0, LENGTH)
        assert [cores["replica"].get_local(index) for index in range(LENGTH)] == blocks_of(
            "replica"
        )
        audit = await audit_core(cores["replica"], is_strict=True)
        assert audit.is_sound, f"{audit}"
        await store.reclaim()  # nothing is left that cannot be rewritten
    report.repaired += is_sound
    report.lost_ours += not is_sound


async def _check_ours(store: Corestore, cores: Mapping[str, Core]) -> None:
    """Our own cores serve what is left, and never begin anew at a length they had."""
    for name in ("log", "cleared"):
        core = cores[name]
        for index in range(core.length):
            try:
                block = core.get_local(index)
            except DamagedBlock:
                continue
            assert block in (None, block_of(name, index))
        if core.length < LENGTH:
            try:
                await core.append(b"another history")
            except StorageError:
                continue
            raise AssertionError(f"{name} of length {core.length} went on")


class Campaign:
    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch = scratch
        self.seed = seed
        self.report = Report()
        self.specimens = trio.run(make_specimens, scratch)

    def run(
        self,
        flips: int,
        first: int = 0,
        *,
        healed_every: int = HEALED_EVERY,
        seconds: float = math.inf,
    ) -> Report:
        """Go on until so many bits were turned, or so much time is gone."""
        end = time.monotonic() + seconds
        for number in range(first, first + flips):
            if time.monotonic() > end:
                break
            self._flip(number, is_healed=number % healed_every == 0)
        return self.report

    def _flip(self, number: int, *, is_healed: bool) -> None:
        report = self.report
        chance = random.Random(f"{self.seed}/{number}")
        specimen = chance.choice(self.specimens)
        file, position, bit = draw_bit(specimen.path, chance)
        report.flips += 1
        where = f"flip {number}, {specimen.path.name}/db/{file.name} byte {position} bit {bit}"
        flip(file, position, bit)
        outcome = "wrong"
        try:
            try:
                outcome = trio.run(judge, specimen, report)
            except StorageError:
                outcome = "refused"
            if is_healed:
                self._mend(specimen)
        except (AssertionError, BaseExceptionGroup) as error:
            report.wrong.append(f"{where}: {error!r}, again: {again(self.seed, number)}")
        finally:
            flip(file, position, bit)
        report.by_outcome[outcome] += 1
        report.by_file[f"{kind_of(file)} {outcome}"] += 1

    def _mend(self, specimen: Specimen) -> None:
        for action in (heal, repair):
            path = self.scratch / "copy"
            shutil.copytree(specimen.path / "db", path / "db")
            try:
                trio.run(action, path, self.report)
            except StorageError:  # it says so, and serves nothing wrong
                self.report.unreadable += action is repair
            finally:
                shutil.rmtree(path)


def again(seed: int, number: int) -> str:
    """The command that repeats a flip, with all that can follow it."""
    return (
        f"python -m tests.hypercore.bit_flip_campaign --seed {seed} --first {number} "
        "--flips 1 --healed-every 1"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--first", type=int, default=0, help="the number of the first flip")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after that long")
    parser.add_argument("--healed-every", type=int, default=HEALED_EVERY)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        campaign = Campaign(Path(path), options.seed)
        report = campaign.run(
            options.flips,
            options.first,
            healed_every=options.healed_every,
            seconds=options.seconds,
        )
    sys.stdout.write(f"seed {options.seed}: {report}\n")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
