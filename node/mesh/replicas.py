"""What we keep of whom, and what the others want to be told of.

`ReplicaPolicy` is ours, `Selection` is a member's: what it said it is interested in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from node.covalue.ids import RawCoId
from node.mesh.messages import MAX_INTEREST_IDS, Interest, Sessions

MAX_SELECTED_IDS = 100_000
"""Ids that one member may select one by one (about 15 MB); who wants more selects everything."""


@dataclass(frozen=True, slots=True)
class ReplicaPolicy:
    """What this node keeps besides what its clients ask for (*lazy*, where nothing is set).

    `everything` is a full replica, `pinned` single ids, `prefixes` and `owners` follow all
    values whose id begins so or that such a group or account owns. `denied` beats them all:
    such values are neither asked for nor taken from the mesh.
    """

    everything: bool = False
    pinned: frozenset[RawCoId] = frozenset()
    prefixes: tuple[str, ...] = ()
    owners: frozenset[str] = frozenset()
    denied: frozenset[RawCoId] = frozenset()

    @classmethod
    def parse(cls, text: str) -> ReplicaPolicy:
        """`lazy` or `all`. Raises: ValueError for anything else."""
        if text not in {"lazy", "all"}:
            raise ValueError(f"{text!r} is neither lazy nor all")
        return cls(everything=text == "all")

    def allows(self, co_id: str) -> bool:
        """Whether it may come in from the mesh at all."""
        return co_id not in self.denied

    def keeps(self, co_id: str, owner: str | None = None) -> bool:
        """Whether it is kept though no client asked for it."""
        if not self.allows(co_id):
            return False
        return (
            self.everything
            or co_id in self.pinned
            or owner in self.owners
            or co_id.startswith(self.prefixes)
        )

    def select(self, subscribed: frozenset[RawCoId]) -> frozenset[RawCoId]:
        """The single ids that we want to hear of, when clients subscribed to these."""
        return (subscribed | self.pinned) - self.denied

    @property
    def follows(self) -> bool:
        """Whether it keeps values whose ids are not known beforehand."""
        return self.everything or bool(self.prefixes or self.owners)

    @property
    def brief(self) -> tuple[str, ...]:
        """What members are told: kinds, without what they are about."""
        kinds = {
            "all": self.everything,
            "pin": bool(self.pinned),
            "follow": bool(self.prefixes or self.owners),
            "deny": bool(self.denied),
        }
        return tuple(kind for kind, is_set in kinds.items() if is_set) or ("lazy",)


class TooManySelected(Exception):
    """More single ids than `MAX_SELECTED_IDS`: everything should have been selected."""


class Selection:
    """What a member is interested in, as its `Interest` messages added up."""

    def __init__(self) -> None:
        self.everything = False
        self.ids: set[RawCoId] = set()
        self._prefixes: tuple[str, ...] = ()
        self._owners: frozenset[str] = frozenset()

    def apply(self, interest: Interest) -> None:
        """Raises: TooManySelected; nothing is changed then."""
        ids: set[RawCoId] = set() if interest.everything else self.ids
        if not interest.everything:
            added = sum(co_id not in ids for co_id in interest.added)
            if len(ids) + added > MAX_SELECTED_IDS:
                raise TooManySelected
            ids.update(interest.added)
            ids.difference_update(interest.removed)
        self.ids = ids
        self.everything = interest.everything
        self._prefixes = interest.prefixes
        self._owners = frozenset(interest.owners)

    def matches(self, co_id: str, owner: str | None = None) -> bool:
        return (
            self.everything
            or co_id in self.ids
            or owner in self._owners
            or co_id.startswith(self._prefixes)
        )

    def pick(self, changes: Mapping[RawCoId, Sessions]) -> Iterator[tuple[RawCoId, Sessions]]:
        """Those of the changes that the member wants to hear of."""
        if not (self.everything or self._prefixes or self._owners) and len(self.ids) < len(changes):
            return ((co_id, changes[co_id]) for co_id in self.ids if co_id in changes)
        return ((co_id, state) for co_id, state in changes.items() if self.matches(co_id))


class ToldInterest:
    """What one member knows of our interest; makes the messages that bring it up to date."""

    def __init__(self) -> None:
        self._said_anything = False
        self._everything = False
        self._prefixes: tuple[str, ...] = ()
        self._owners: frozenset[str] = frozenset()
        self._ids: set[RawCoId] = set()

    def matches(self, co_id: RawCoId) -> bool:
        """Whether the member was told that we want to hear of this one."""
        return self._everything or co_id in self._ids or co_id.startswith(self._prefixes)

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
        owners = tuple(sorted(self._owners))
        return [
            Interest(self._everything, more, fewer, self._prefixes, owners)
            for more, fewer in _pair_up(added, removed)
        ]


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
