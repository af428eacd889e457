"""What happens in a conversation, made from a seed: the same with whatever server it is held.

Values are numbered; their headers, and so their ids, are known before anybody makes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from node.covalue.header import CoValueHeader, parse_header
from tests.support.authors import Author, group_header, map_header

CLIENTS = 3
PEOPLE = [Author(f"model {number}") for number in range(CLIENTS)]
STEPS = 400
LARGE = 60_000
"""Characters in a transaction, of which two make a value that travels in pieces."""


class Deed(Enum):
    # What people do; whatever needs a value that is not here waits until it is.
    MAKE = auto()
    EDIT = auto()
    HIRE = auto()
    WANT = auto()
    DELETE = auto()
    RECONCILE = auto()
    COME_OR_GO = auto()
    # What moves: messages to the server, messages to the client, work at the server.
    SAY = auto()
    HEAR = auto()
    WORK = auto()
    # Once, in the middle: all come to rest, and one of them goes on with a new device.
    REPLACE = auto()
    # What goes wrong, or passes, at the server.
    RESTART = auto()
    REMEMBER = auto()
    RESTORE = auto()
    LOSE = auto()
    FORGET = auto()
    LAPSE = auto()


_OFTEN = {
    Deed.MAKE: 6,
    Deed.EDIT: 9,
    Deed.HIRE: 1,
    Deed.WANT: 6,
    Deed.DELETE: 1,
    Deed.RECONCILE: 1,
    Deed.COME_OR_GO: 6,
    Deed.SAY: 30,
    Deed.HEAR: 20,
    Deed.WORK: 24,
}
_SELDOM = {Deed.RESTART: 0.3, Deed.FORGET: 1, Deed.LAPSE: 1}
_MISHAPS = {Deed.REMEMBER: 0.5, Deed.RESTORE: 0.3, Deed.LOSE: 1}


@dataclass(frozen=True, slots=True)
class Made:
    """A value: who makes it, and the number of the group that owns it or that it extends."""

    header: CoValueHeader
    maker: int
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    deed: Deed
    client: int
    value: int = 0
    other: int = 0
    """How many transactions or messages; whom to hire; whether the device starts anew."""
    size: int = 10


@dataclass
class Script:
    seed: int
    values: list[Made] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


def write_script(seed: int, *, steps: int = STEPS, has_mishaps: bool) -> Script:
    """Without mishaps a server keeps all that it stores."""
    return _Author(seed, has_mishaps).write(steps)


class _Author:
    def __init__(self, seed: int, has_mishaps: bool) -> None:
        self._chance = random.Random(f"conversation {seed}")
        self._script = Script(seed)
        self._odds = _OFTEN | _SELDOM | (_MISHAPS if has_mishaps else {})

    def write(self, steps: int) -> Script:
        deeds = self._chance.choices(list(self._odds), list(self._odds.values()), k=steps)
        for deed in deeds:
            step = self._step(deed, self._chance.randrange(CLIENTS))
            if step is not None:
                self._script.steps.append(step)
        middle = len(self._script.steps) // 2
        self._script.steps.insert(middle, Step(Deed.REPLACE, self._chance.randrange(CLIENTS)))
        return self._script

    def _step(self, deed: Deed, client: int) -> Step | None:
        chance = self._chance
        match deed:
            case Deed.MAKE:
                self._script.values.append(self._make(client))
                return Step(deed, client, len(self._script.values) - 1, chance.randint(0, 3))
            case Deed.EDIT:
                value = self._pick(lambda made: not made.header.is_group)
                size = LARGE if chance.random() < 0.03 else 10
                return self._about(deed, client, value, chance.choice([1, 1, 1, 3]), size)
            case Deed.HIRE:
                value = self._pick(lambda made: self._may_hire(client, made))
                # Nobody hires himself: an admin would be none any more.
                other = (client + chance.randrange(1, CLIENTS)) % CLIENTS
                return self._about(deed, client, value, other)
            case Deed.DELETE:
                value = self._pick(lambda made: self._may_delete(client, made))
                return self._about(deed, client, value)
            case Deed.WANT:
                return self._about(deed, client, self._pick(lambda made: True))
            case Deed.COME_OR_GO:
                return Step(deed, client, other=int(chance.random() < 0.3))
            case Deed.SAY | Deed.HEAR:
                return Step(deed, client, other=chance.choice([1, 1, 2, 9]))
            case _:
                return Step(deed, client, other=chance.randrange(1 << 30))

    @staticmethod
    def _about(
        deed: Deed, client: int, value: int | None, other: int = 0, size: int = 10
    ) -> Step | None:
        return None if value is None else Step(deed, client, value, other, size)

    def _make(self, client: int) -> Made:
        name = f"{self._script.seed} {len(self._script.values)}"
        kind = self._chance.random()
        if kind < 0.3:
            return Made(map_header(name), client)
        group = self._pick(lambda made: made.header.is_group)
        if group is None or kind < 0.55:
            extended = group if self._chance.random() < 0.4 else None
            return Made(group_header(PEOPLE[client].account_id, name), client, extended)
        owner = self._script.values[group].header.id
        source = self._pick(lambda made: made.header.owner_group is not None)
        if source is not None and kind > 0.95:
            return Made(_branch(name, owner, self._script.values[source].header.id), client, group)
        return Made(map_header(name, owner), client, group)

    @staticmethod
    def _may_hire(client: int, made: Made) -> bool:
        """Where a group extends another, who is hired may be an admin by that already."""
        return made.header.is_group and made.maker == client and made.group is None

    def _may_delete(self, client: int, made: Made) -> bool:
        """Who founded the owning group is its admin; branches are left alone."""
        return (
            made.header.owner_group is not None
            and made.header.source is None
            and made.group is not None
            and self._script.values[made.group].maker == client
        )

    def _pick(self, fits: Callable[[Made], bool]) -> int | None:
        """A value made before, the later ones more often."""
        numbers = [number for number, made in enumerate(self._script.values) if fits(made)]
        if not numbers:
            return None
        return max(self._chance.choice(numbers), self._chance.choice(numbers))


def _branch(name: str, group: str, source: str) -> CoValueHeader:
    return parse_header(
        {
            "type": "comap",
            "ruleset": {"type": "ownedByGroup", "group": group},
            "meta": {"source": source, "branch": name},
            "uniqueness": name,
        }
    )
