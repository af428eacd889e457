"""What we keep of whom, and what the others want to be told of.

`ReplicaPolicy` is ours, `Selection` is a member's: what it said it is interested in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from hypercore.crypto import blake2b
from node.covalue.ids import RawCoId
from node.mesh.follow_rules import OwnerRule, Owners, first_match, read_patterns
from node.mesh.messages import MAX_INTEREST_IDS, Interest, Sessions
from node.mesh.peer_rules import PeerRules

MAX_SELECTED_IDS = 100_000
"""Ids that a member may select one by one (about 15 MB); one that wants more selects everything."""


class Why(StrEnum):
    """Which part of a policy decided about a value."""

    EVERYTHING = "all"
    PINNED = "pin"
    PREFIX = "prefix"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class ReplicaPolicy:
    """What this node keeps besides what its clients ask for (*lazy*, where nothing is set).

    `everything` is a full replica, `pinned` single ids, `prefixes` and `owners` follow all values
    whose id begins so or that somebody owns. What is denied beats them all: such values are
    neither asked for nor taken from the mesh, unless another cannot be kept without (the group of
    a value, the members of a group); then they are not kept up to date. The bounds hold for what
    is only followed: larger values are not taken, nor those that were last changed longer ago, by
    their authors' clocks.
    """

    everything: bool = False
    pinned: frozenset[RawCoId] = frozenset()
    prefixes: tuple[str, ...] = ()
    owners: frozenset[OwnerRule] = frozenset()
    denied: frozenset[RawCoId] = frozenset()
    denied_prefixes: tuple[str, ...] = ()
    denied_owners: frozenset[OwnerRule] = frozenset()
    max_value_bytes: int | None = None
    max_age_seconds: float | None = None
    peers: PeerRules = field(default_factory=PeerRules)

    @classmethod
    def parse(cls, text: str) -> ReplicaPolicy:
        """`lazy` or `all`. Raises: ValueError for anything else."""
        if text not in {"lazy", "all"}:
            raise ValueError(f"{text!r} is neither lazy nor all")
        return cls(everything=text == "all")

    def denial(self, co_id: str, owners: Owners = ()) -> str | None:
        """The rule that denies a value, as text; None when none does, as far as is known."""
        if co_id in self.denied:
            return co_id
        if self.denied_prefixes and co_id.startswith(self.denied_prefixes):
            prefix = next(text for text in self.denied_prefixes if co_id.startswith(text))
            return f"prefix:{prefix}"
        rule = first_match(self.denied_owners, co_id, owners) if self.denied_owners else None
        return None if rule is None else rule.text

    def allows(self, co_id: str) -> bool:
        """Whether a value may come in from the mesh, as far as its id tells."""
        return self.denial(co_id) is None

    def reason(self, co_id: str, owners: Owners = ()) -> tuple[Why, str] | None:
        """Why a value is kept though no client asked for it, and the rule; None if it is not."""
        if self.denial(co_id, owners) is not None:
            return None
        if co_id in self.pinned:
            return Why.PINNED, co_id
        if self.prefixes and co_id.startswith(self.prefixes):
            prefix = next(text for text in self.prefixes if co_id.startswith(text))
            return Why.PREFIX, f"prefix:{prefix}"
        rule = first_match(self.owners, co_id, owners)
        if rule is not None:
            return Why.OWNER, rule.text
        return (Why.EVERYTHING, "all") if self.everything else None

    def select(self, subscribed: frozenset[RawCoId]) -> frozenset[RawCoId]:
        """The single ids that we want to hear of, when clients subscribed to these."""
        wanted = (subscribed | self.pinned) - self.denied
        if self.denied_prefixes:
            wanted = frozenset(id for id in wanted if not id.startswith(self.denied_prefixes))
        return wanted

    @property
    def follows(self) -> bool:
        """Whether the policy keeps values whose ids are not known beforehand."""
        return self.everything or bool(self.prefixes or self.owners)

    @property
    def needs_owners(self) -> bool:
        """Whether the owner of a value may decide about it."""
        return bool(self.owners or self.denied_owners)

    @property
    def is_bounded(self) -> bool:
        return self.max_value_bytes is not None or self.max_age_seconds is not None

    @property
    def scope(self) -> bytes:
        """What a full replica leaves out, in 16 bytes; none when it leaves out nothing."""
        rules = sorted([*self.denied, *self.denied_prefixes, *(r.text for r in self.denied_owners)])
        bounds = (self.max_value_bytes, self.max_age_seconds)
        if not rules and not self.is_bounded:
            return b""
        return blake2b(repr((rules, bounds)).encode())[:16]

    @property
    def brief(self) -> tuple[str, ...]:
        """What members are told: kinds, without what they are about."""
        kinds = {
            "all": self.everything,
            "pin": bool(self.pinned),
            "follow": bool(self.prefixes or self.owners),
            "deny": bool(self.denied or self.denied_prefixes or self.denied_owners),
        }
        return tuple(kind for kind, is_set in kinds.items() if is_set) or ("lazy",)


class Change(Enum):
    """What became different with a member's `Interest`."""

    NOTHING = auto()
    IDS = auto()
    """Single ids came or went."""
    RULES = auto()
    """What it follows has changed, apart from single ids."""


class TooManySelected(Exception):
    """More single ids than `MAX_SELECTED_IDS`: everything should have been selected."""


class Selection:
    """What a member is interested in, as its `Interest` messages added up.

    `owners_of` tells who owns a value, None when it is not known (any more): then it counts as
    wanted, since nothing is announced that was not looked up.
    """

    def __init__(self, owners_of: Callable[[RawCoId], Owners | None] = lambda _: ()) -> None:
        self.everything = False
        self.ids: set[RawCoId] = set()
        self.prefixes: tuple[str, ...] = ()
        self.owners: frozenset[OwnerRule] = frozenset()
        self._owners_of = owners_of

    def apply(self, interest: Interest) -> Change:
        """Raises: TooManySelected; nothing is changed then."""
        before = (self.everything, self.prefixes, self.owners)
        ids: set[RawCoId] = set() if interest.everything else self.ids
        added = 0
        if not interest.everything:
            added = sum(co_id not in ids for co_id in interest.added)
            if len(ids) + added > MAX_SELECTED_IDS:
                raise TooManySelected
            ids.update(interest.added)
        selected = len(ids)
        ids.difference_update(interest.removed)
        self.ids = ids
        self.everything = interest.everything
        self.prefixes = interest.prefixes
        self.owners = read_patterns(interest.owners)
        if before != (self.everything, self.prefixes, self.owners):
            return Change.RULES
        return Change.IDS if added or len(ids) < selected else Change.NOTHING

    def matches(self, co_id: RawCoId) -> bool:
        if self.everything or co_id in self.ids or co_id.startswith(self.prefixes):
            return True
        if not self.owners:
            return False
        owners = self._owners_of(co_id)
        return owners is None or first_match(self.owners, co_id, owners) is not None

    def pick(self, changes: Mapping[RawCoId, Sessions]) -> Iterator[tuple[RawCoId, Sessions]]:
        """Those of the changes that the member wants to hear of."""
        if not (self.everything or self.prefixes or self.owners) and len(self.ids) < len(changes):
            return ((co_id, changes[co_id]) for co_id in self.ids if co_id in changes)
        return ((co_id, state) for co_id, state in changes.items() if self.matches(co_id))


class ToldInterest:
    """What one member knows of our interest; makes the messages that bring it up to date."""

    def __init__(self) -> None:
        self._said_anything = False
        self._everything = False
        self._prefixes: tuple[str, ...] = ()
        self._owners: frozenset[OwnerRule] = frozenset()
        self._ids: set[RawCoId] = set()
        self._followed: frozenset[str] = frozenset()
        self.messages = 0
        """How many were made."""
        self.listing_due = 0
        """The first message that names all that we follow: all of that is to be told. 0 when we
        follow nothing."""

    def matches(self, co_id: RawCoId) -> bool:
        """Whether the member may think that we want to hear of this one.

        Of a value that we lack only the member knows who owns it.
        """
        return (
            self._everything
            or bool(self._owners)
            or co_id in self._ids
            or co_id.startswith(self._prefixes)
        )

    def plan_more(self, ids: Iterable[RawCoId]) -> list[Interest]:
        """Messages that add these at once, ahead of the next `plan`; none before the first."""
        if not self._said_anything or self._everything:
            return []
        fresh = sorted(set(ids) - self._ids)
        room = MAX_SELECTED_IDS - len(self._ids)
        if not fresh or len(fresh) > room:
            return []
        self._ids.update(fresh)
        return self._messages(fresh, [])

    def plan(self, policy: ReplicaPolicy, wanted: Set[RawCoId]) -> list[Interest]:
        """Messages after which the member knows these; none when it does already.

        `wanted` are single ids, as `ReplicaPolicy.select` gives them.
        """
        everything = policy.everything or len(wanted) > MAX_SELECTED_IDS
        if everything:
            wanted = frozenset()
        standing = (everything, policy.prefixes, policy.owners)
        if policy.everything:  # what else we follow need not be listed: we read the log
            standing = (True, (), frozenset())
        is_same = standing == (self._everything, self._prefixes, self._owners)
        added: Set[RawCoId] = wanted - self._ids
        removed: Set[RawCoId] = self._ids - wanted
        if is_same and not added and not removed and self._said_anything:
            return []
        if everything or self._everything:  # saying so empties the list at the other end
            added, removed = wanted, frozenset()
            self._ids.clear()
        self._said_anything = True
        self._everything, self._prefixes, self._owners = standing
        self._ids.update(added)
        self._ids.difference_update(removed)
        return self._messages(sorted(added), sorted(removed))

    def _messages(self, added: list[RawCoId], removed: list[RawCoId]) -> list[Interest]:
        owners = tuple(rule.text for rule in sorted(self._owners))
        messages = [
            Interest(self._everything, more, fewer, self._prefixes, owners)
            for more, fewer in _pair_up(added, removed)
        ]
        before, self._followed = self._followed, messages[0].followed
        if self._followed - before:
            self.listing_due = self.messages + 1
        elif not self._followed:
            self.listing_due = 0
        self.messages += len(messages)
        return messages


def _pair_up(
    added: list[RawCoId], removed: list[RawCoId]
) -> Iterable[tuple[tuple[RawCoId, ...], tuple[RawCoId, ...]]]:
    """Cut both lists into pieces that fit a message; one pair at least.

    What is removed goes first, so that a member at its bound never exceeds it on the way.
    """
    pairs: list[tuple[tuple[RawCoId, ...], tuple[RawCoId, ...]]] = [
        ((), tuple(removed[start : start + MAX_INTEREST_IDS]))
        for start in range(0, len(removed), MAX_INTEREST_IDS)
    ]
    pairs.extend(
        (tuple(added[start : start + MAX_INTEREST_IDS]), ())
        for start in range(0, len(added), MAX_INTEREST_IDS)
    )
    return pairs or [((), ())]
