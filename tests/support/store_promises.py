"""What a `store_script` was told, and whether a store keeps it.

A line is `CORE WORD NUMBERS...`. With a question mark it says what begins:

| line                     | means                                                       |
|--------------------------|-------------------------------------------------------------|
| `= LENGTH FORK`          | the head was there, or a later one                          |
| `row NUMBER`             | the local row `number` was this high                        |
| `?+ START STOP`, `+ ...` | blocks [START, STOP) are being fetched; are here            |
| `?- START STOP`, `- ...` | they are being cleared; are gone                            |
| `?-- INDICES`, `-- ...`  | the same for single blocks                                  |
| `?fork CUT`              | the writer begins a new fork there; a head follows          |

Of one core nothing begins before the last thing has ended. What had begun and was not
acknowledged may have happened: an append or clearing as a whole or not at all, of a download any
blocks, and of a new fork whatever is signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hypercore import Core, Corestore
from hypercore.crypto import KeyPair
from hypercore.manifest import Manifest
from tests.support.storage_rows import verify_core, verify_sparse_core

POSITION = b"position"
"""The local row that goes with every append: the fork and length it leads to."""

NUMBER = b"number"
"""A local row that is written alone, or with a clearing."""

SOURCE_KEYS = KeyPair.from_seed(b"the replica's writer".ljust(32))
"""Of the writer of the core that is replicated."""

SOURCE_KEY = Manifest.single_signer(SOURCE_KEYS.public_key).key


@dataclass
class Promise:
    """What was acknowledged of one core, and what had begun."""

    fork: int = 0
    length: int = 0
    number: int = 0
    held: set[int] = field(default_factory=set)
    coming: set[int] = field(default_factory=set)
    going: set[int] = field(default_factory=set)
    is_forking: bool = False

    def take(self, word: str, numbers: list[int]) -> None:
        match word, numbers:
            case "=", [length, fork]:
                self.fork, self.length = max((self.fork, self.length), (fork, length))
                self.is_forking = False
            case "row", [number]:
                self.number = max(self.number, number)
            case "?+", [start, stop]:
                self.coming = set(range(start, stop))
            case "+", [start, stop]:
                self.held |= set(range(start, stop))
                self.length = max(self.length, stop)
                self.coming = set()
            case "?-", [start, stop]:
                self.going = set(range(start, stop))
            case "?--", _:
                self.going = set(numbers)
            case "-" | "--", _:
                self.held -= self.going
                self.going = set()
            case "?fork", [cut]:
                self.held = {index for index in self.held if index < cut}
                self.length = min(self.length, cut)
                self.is_forking = True
            case _:
                raise AssertionError(f"the writer said {word} {numbers}")


class Promises:
    """All that was said about one store."""

    def __init__(self) -> None:
        self.of = {"log": Promise(), "cleared": Promise(), "replica": Promise()}
        self.acknowledged: dict[str, int] = dict.fromkeys(self.of, 0)

    def take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            name, word, *numbers = line.decode().split()
            self.of[name].take(word, list(map(int, numbers)))
            self.acknowledged[name] += not word.startswith("?")

    def copy(self) -> Promises:
        other = Promises()
        for name, promise in self.of.items():
            other.of[name] = Promise(
                promise.fork, promise.length, promise.number, set(promise.held)
            )
        return other


async def open_cores(store: Corestore) -> Mapping[str, Core]:
    return {
        "log": await store.get(name="log"),
        "cleared": await store.get(name="cleared"),
        "replica": await store.get(key=SOURCE_KEY),
    }


def verify_store(store: Corestore, cores: Mapping[str, Core]) -> int:
    """Check every row of the store's cores, and that they can go on; returns how many blocks."""
    storage = store.storage
    blocks = verify_core(storage, cores["log"].discovery_key)
    verify_core(storage, cores["cleared"].discovery_key, may_have_gaps=True)
    blocks += cores["cleared"].info().blocks_held
    blocks += verify_sparse_core(storage, cores["replica"].discovery_key)
    log = cores["log"]
    position = log.get_local_value(POSITION)
    if position is not None:
        fork, length = map(int, position.split())
        assert fork <= log.fork, f"row of fork {fork} beside {log.fork}"
        assert fork < log.fork or length == log.length, f"row of {length} beside {log.length}"
    return blocks


def what_is_there(cores: Mapping[str, Core]) -> Promises:
    """The store as it is, as the promise from which the next writer goes on."""
    found = Promises()
    for name, core in cores.items():
        promise = found.of[name]
        promise.fork, promise.length = core.fork, core.length
        promise.number = int(core.get_local_value(NUMBER) or 0) if name == "log" else 0
        if name != "log":
            promise.held = {index for index in range(core.length) if core.has(index)}
    return found


def broken_promises(promised: Promises, found: Promises) -> list[str]:
    """What was acknowledged and is not so."""
    broken = []
    for name, promise in promised.of.items():
        there = found.of[name]
        if promise.is_forking:
            is_behind = there.length < promise.length
        else:
            is_behind = (there.fork, there.length) < (promise.fork, promise.length)
        if is_behind or there.number < promise.number:
            broken.append(f"{name}: {_head(promise)} was acknowledged, {_head(there)} is there")
        if name != "log":
            broken += [f"{name}: {text}" for text in _broken_blocks(promise, there, name)]
    return broken


def _head(promise: Promise) -> str:
    return f"fork {promise.fork}, length {promise.length}, row {promise.number}"


def _broken_blocks(promise: Promise, there: Promise, name: str) -> Iterable[str]:
    lost = promise.held - there.held - promise.going
    if lost:
        yield f"blocks {sorted(lost)} were acknowledged and are gone"
    going = promise.held & promise.going
    if going and 0 < len(going - there.held) < len(going):
        yield f"blocks {sorted(going - there.held)} of {sorted(going)} were cleared, the rest not"
    extra = there.held - promise.held - promise.coming
    if name == "cleared":
        extra = {index for index in extra if index < promise.length}
    if extra and not promise.is_forking:
        yield f"blocks {sorted(extra)} were cleared, or never fetched, and are there"
