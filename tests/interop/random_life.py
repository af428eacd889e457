"""A random life of one core that parties of the original and of ours share.

Two to four of them, some of each kind, replicate it over real sockets in some shape, while its
writer appends, truncates and clears, readers get, download and clear, and connections come and
go. Then all are connected, and must agree: on the head, on each block that anybody holds, on how
much is contiguous; nobody may have had invalid data or requests, and the wire must fall silent.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import combinations

import trio

from hypercore.downloading import LIVE
from hypercore.errors import BlockNotAvailable, HypercoreError, OutOfRange
from tests.interop.core_parties import JS, OURS, Party, World, open_world

LIFE_SECONDS = 40.0
AGREEMENT_SECONDS = 10.0
SILENCE_SECONDS = 0.15


class Check(Enum):
    """What must be true in the end."""

    END = auto()
    HEADS = auto()
    BLOCKS = auto()
    FIGURES = auto()
    SILENCE = auto()


@dataclass(frozen=True)
class Fault:
    """A party that failed a check; None where nobody can be named."""

    check: Check
    party: int | None
    text: str
    is_originals: bool = False
    """The party is JavaScript, and what it tells of itself shows that the fault is its own."""


@dataclass
class Outcome:
    """How a life went."""

    seed: int
    kinds: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    verdict: str = "good"
    repetitions: list[str] = field(default_factory=list)
    """What came of the same life when it was lived again."""

    is_cut_off: bool = False
    """It came to no end: JavaScript's process may be busy for ever."""


class Life:
    """One core, from its writer's first block to agreement."""

    def __init__(self, world: World, outcome: Outcome, only: str | None) -> None:
        self._world = world
        self._outcome = outcome
        self._chance = random.Random(outcome.seed)
        self._blocks: list[bytes] = []
        """What the log holds now."""
        self._ever: dict[int, set[bytes]] = {}
        """What it ever held, by index."""
        self._written = 0
        self._parties: list[Party] = []
        self._reader = 1
        """Whose turn it is."""
        self._links: dict[tuple[int, int], Callable[[], Awaitable[None]]] = {}
        kinds = [self._chance.choice([JS, OURS]) for _ in range(self._chance.randint(2, 4))]
        if len(set(kinds)) == 1:
            kinds[-1] = OURS if kinds[0] == JS else JS
        outcome.kinds = kinds if only is None else [only] * len(kinds)
        self._steps: list[tuple[float, Callable[[], bool], Callable[[], Awaitable[None]]]] = [
            (0.25, lambda: True, self._append_some),
            (0.33, lambda: bool(self._blocks), self._truncate),
            (0.41, lambda: bool(self._blocks), self._clear),
            (0.55, lambda: bool(self._blocks), self._get),
            (0.67, lambda: True, self._download),
            (0.72, lambda: bool(self._blocks), self._download_blocks),
            (0.78, lambda: True, self._update),
            (0.88, lambda: bool(self._links), self._part),
            (0.96, lambda: True, self._join_two),
            (1.00, lambda: True, partial(trio.sleep, 0.02)),
        ]

    def _say(self, *words: object) -> None:
        self._outcome.trace.append(" ".join(map(str, words)))

    def _blame(self, check: Check, number: int, text: str, *, is_originals: bool = False) -> None:
        name = f"party {number} ({self._outcome.kinds[number]})"
        self._outcome.faults.append(Fault(check, number, f"{name} {text}", is_originals))

    async def _blame_stuck(self, check: Check, number: int, text: str) -> None:
        lacks_blocks = check is Check.BLOCKS
        held = await self._held_of_the_last_history()
        figures = [await party.figures() for party in self._parties]
        refusals = sum(one.get("wire_no_data_tx", 0) for one in figures)
        own_fault = await self._parties[number].own_fault(
            lacks_blocks=lacks_blocks, held=held, refusals=refusals
        )
        self._blame(
            check,
            number,
            f"{text}; it {own_fault}" if own_fault else text,
            is_originals=bool(own_fault),
        )

    async def _held_of_the_last_history(self) -> set[int]:
        fork = (await self._parties[0].figures())["fork"]
        held = set[int]()
        for party in self._parties:
            if (await party.figures())["fork"] == fork:
                held |= await party.held(len(self._blocks))
        return held

    async def run(self) -> None:
        self._say("kinds", *self._outcome.kinds)
        for kind in self._outcome.kinds:
            self._parties.append(await self._world.party(kind, *self._parties[:1]))
            if len(self._parties) == 1 and self._chance.random() < 0.7:
                await self._append(self._chance.choice([1, 2, 5, 17, 64, 130, 400]))
        await self._connect(self._chance.choice(["line", "full", "star", "none"]))
        async with trio.open_nursery() as self._nursery:
            for _ in range(self._chance.randint(3, 25)):
                turn = self._chance.random()
                self._reader = self._chance.randrange(1, len(self._parties))
                await next(step for end, may, step in self._steps if turn < end and may())()
                if self._chance.random() < 0.3:
                    await trio.sleep(self._chance.choice([0, 0.001, 0.01]))
            self._say("heal")
            for pair in combinations(range(len(self._parties)), 2):
                await self._join(*pair)
            if self._chance.random() < 0.7 or not self._blocks:
                await self._append(1)
            for check in (self._check_heads, self._check_blocks, self._check_silence):
                if not self._outcome.faults:
                    await check()
                if self._outcome.faults and await self._has_connected_again():
                    self._outcome.faults.clear()
                    await check()
            self._nursery.cancel_scope.cancel()

    async def _connect(self, shape: str) -> None:
        for one in range(len(self._parties)):
            for other in range(one):
                is_near = (shape == "line" and one == other + 1) or (shape == "star" and not other)
                if shape == "full" or is_near:
                    pair = (one, other) if self._chance.random() < 0.5 else (other, one)
                    await self._join(*pair)

    async def _join(self, one: int, other: int) -> None:
        if (one, other) not in self._links and (other, one) not in self._links:
            self._say("join", one, other)
            part = await self._world.join(self._parties[one], self._parties[other])
            self._links[one, other] = part

    async def _has_connected_again(self) -> bool:
        """JavaScript ends a connection on which it was to prove what it is just cutting off."""
        peers = [len(await party.peers()) for party in self._parties]
        if min(peers) == len(self._parties) - 1:
            return False
        self._say("connect again", *peers)
        for pair in list(self._links):
            await self._links.pop(pair)()
            await self._join(*pair)
        return True

    # Steps of a life.

    def _start(self, what: str, call: Callable[[], Awaitable[object]]) -> None:
        """Do it beside all else: what it waits for may come late, or never."""

        async def run() -> None:
            # What is asked of the original fails as an assertion.
            with suppress(BlockNotAvailable, OutOfRange, AssertionError):
                await call()
                self._say("done", what)

        self._say(what)
        self._nursery.start_soon(run)

    async def _append(self, count: int) -> None:
        for _ in range(count):
            self._written += 1
            block = b"%d-" % self._written + b"x" * self._chance.choice([0, 1, 10, 100])
            self._ever.setdefault(len(self._blocks), set()).add(block)
            self._blocks.append(block)
        self._say("append", count, "to", len(self._blocks))
        await self._parties[0].append(*self._blocks[-count:])

    async def _append_some(self) -> None:
        await self._append(self._chance.choice([1, 1, 2, 3, 7, 40, 150]))

    async def _truncate(self) -> None:
        length = len(self._blocks)
        somewhere = [self._chance.randint(0, length) for _ in range(2)]
        new_length = self._chance.choice([0, length - 1, *somewhere])
        self._say("truncate", new_length)
        del self._blocks[new_length:]
        await self._parties[0].truncate(new_length)
        if self._chance.random() < 0.7:
            await self._append(self._chance.choice([1, 2, 5, 33]))

    async def _clear(self) -> None:
        number = self._chance.randrange(len(self._parties))
        start = self._chance.randrange(len(self._blocks))
        stop = self._chance.randint(start, len(self._blocks))
        length: int = (await self._parties[number].figures())["length"]
        if start < min(stop, length):
            self._say("clear", number, start, min(stop, length))
            await self._parties[number].clear(start, min(stop, length))

    async def _get(self) -> None:
        number = self._reader
        index = self._chance.randrange(len(self._blocks) + (self._chance.random() < 0.2))

        async def get() -> None:
            block = await self._parties[number].get(index)
            if block not in self._ever.get(index, ()):
                self._blame(Check.BLOCKS, number, f"got {block!r} as block {index}")

        self._start(f"get {number} {index}", get)

    async def _download(self) -> None:
        number, length = self._reader, len(self._blocks)
        start = self._chance.randint(0, length)
        stop = self._chance.choice([LIVE, self._chance.randint(start, length), length])
        linear = self._chance.random() < 0.4
        download = partial(self._parties[number].download, start, stop, linear=linear)
        self._start(f"download {number} {start} {stop} {linear=}", download)

    async def _download_blocks(self) -> None:
        number = self._reader
        count = self._chance.randint(1, 6)
        blocks = [self._chance.randrange(len(self._blocks)) for _ in range(count)]
        call = partial(self._parties[number].download_blocks, blocks)
        self._start(f"download {number} {blocks}", call)

    async def _update(self) -> None:
        self._start(f"update {self._reader}", self._parties[self._reader].update)

    async def _part(self) -> None:
        pair = self._chance.choice(list(self._links))
        self._say("part", *pair)
        await self._links.pop(pair)()

    async def _join_two(self) -> None:
        await self._join(*self._chance.sample(range(len(self._parties)), 2))

    # What must be true in the end.

    async def _check_heads(self) -> None:
        writer = await self._parties[0].figures()
        if writer["length"] != len(self._blocks):
            self._blame(Check.HEADS, 0, f"has {writer['length']} blocks of {len(self._blocks)}")
        for number, party in enumerate(self._parties):
            with trio.move_on_after(AGREEMENT_SECONDS):
                await party.until("fork", exactly=writer["fork"])
                await party.until("length", exactly=len(self._blocks))
                continue
            here = await party.figures()
            told = f"{here['length']} blocks of fork {here['fork']}"
            told += f", not {len(self._blocks)} of {writer['fork']}"
            await self._blame_stuck(Check.HEADS, number, f"stays at {told}")

    async def _check_blocks(self) -> None:
        held = set[int]().union(*[await one.held(len(self._blocks)) for one in self._parties])
        length = len(self._blocks)
        self._say("held", len(held), "of", length)
        for number, party in enumerate(self._parties):
            got = 0
            with trio.move_on_after(AGREEMENT_SECONDS) as scope:
                if self._chance.random() < 0.5:
                    await party.download_blocks(sorted(held))
                elif len(held) == length:
                    await party.download(0, length, linear=self._chance.random() < 0.5)
                for index in sorted(held):
                    block = await party.get(index)
                    if block != self._blocks[index]:
                        self._blame(Check.BLOCKS, number, f"has {block!r} as block {index}")
                    got += 1
            if scope.cancelled_caught:
                text = f"has got {got} of the {len(held)} blocks that are held"
                await self._blame_stuck(Check.BLOCKS, number, text)
        contiguous = next((i for i in range(length) if i not in held), length)
        if not self._outcome.faults:
            for number in range(len(self._parties)):
                await self._check_figures(number, contiguous)

    async def _check_figures(self, number: int, contiguous: int) -> None:
        party = self._parties[number]
        # JavaScript does not note what it is told of a history to which it has yet to come.
        is_noted = contiguous == len(self._blocks) and self._outcome.kinds[number] == OURS
        with trio.move_on_after(AGREEMENT_SECONDS):
            if is_noted:
                await party.until("remote_contiguous", exactly=contiguous)
        here = await party.figures()
        expected = {
            "contiguous": contiguous,
            "byte_length": sum(map(len, self._blocks)),
            "invalid_data": 0,
            "invalid_requests": 0,
        }
        if is_noted:
            expected["remote_contiguous"] = contiguous
        for name, value in expected.items():
            if here[name] != value:
                # It counted the levels of a path in a history that it has left meanwhile.
                is_own = name == "invalid_data" and here[name] == here["asked_too_little"]
                text = f"has a {name} of {here[name]}, not {value}"
                if is_own:
                    text += ", for it had asked for too little"
                self._blame(Check.FIGURES, number, text, is_originals=is_own)

    async def _wires(self) -> list[dict[str, int]]:
        figures = [await party.figures() for party in self._parties]
        return [{k: v for k, v in one.items() if k.startswith("wire")} for one in figures]

    async def _check_silence(self) -> None:
        before, after = [{"": 0}], await self._wires()
        with trio.move_on_after(AGREEMENT_SECONDS):
            while before != after:
                await trio.sleep(SILENCE_SECONDS)
                before, after = after, await self._wires()
            return
        for number, (one, two) in enumerate(zip(before, after, strict=True)):
            if said := {name: two[name] - one[name] for name in one if two[name] != one[name]}:
                self._blame(Check.SILENCE, number, f"is not silent: {said}")


async def live(port: int, seed: int, only: str | None = None) -> Outcome:
    """A whole life; of one kind of parties `only`, if that is given."""
    outcome = Outcome(seed)
    try:
        with trio.fail_after(LIFE_SECONDS):
            async with open_world(port) as world:
                await Life(world, outcome, only).run()
    except (trio.TooSlowError, HypercoreError, AssertionError, OSError, ExceptionGroup) as error:
        outcome.faults.append(Fault(Check.END, None, f"came to no end: {error!r}"))
        outcome.is_cut_off = True
    return outcome
