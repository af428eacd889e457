"""Rules about values whose ids are not known beforehand: by who owns them, or by how ids begin.

| text         | is about                                                                      |
|--------------|-------------------------------------------------------------------------------|
| `prefix:TXT` | values whose id begins so                                                     |
| `owner:ID`   | values whose header names ID: the group that rules them, or a group's founder |
| `group:ID`   | the same, and the group or account itself                                     |
| `account:ID` | the same, and what is ruled by the groups that the account founded            |

Who owns a value is in its header, which its id is the hash of, so nobody can lie about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_RULE_TEXT = 120
"""Characters of a rule: an agent's id has 90."""

PREFIX = "prefix"
EVERYTHING = "all"

Owners = Sequence[str]
"""Who owns a value, and who owns its owner, if known: (group, founder), (founder,), ()."""


class OwnerKind(StrEnum):
    OWNER = "owner"
    GROUP = "group"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True, order=True)
class OwnerRule:
    """All that somebody owns; `id` is a group's, an account's or an agent's."""

    kind: OwnerKind
    id: str

    @property
    def text(self) -> str:
        return f"{self.kind}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> OwnerRule:
        """Raises: ValueError for a text that is no such rule."""
        kind, separator, owner = text.partition(":")
        if not separator or not owner or len(text) > MAX_RULE_TEXT or not owner.isprintable():
            raise ValueError(f"{text!r} is no owner:ID, group:ID, account:ID or prefix:co_z...")
        try:
            return cls(OwnerKind(kind), owner)
        except ValueError:
            raise ValueError(
                f"{text!r} is no owner:ID, group:ID, account:ID or prefix:co_z..."
            ) from None

    def matches(self, co_id: str, owners: Owners) -> bool:
        match self.kind:
            case OwnerKind.OWNER:
                return self.id in owners[:1]
            case OwnerKind.GROUP:
                return co_id == self.id or self.id in owners[:1]
            case OwnerKind.ACCOUNT:
                return co_id == self.id or self.id in owners[:2]


def parse_rule(text: str) -> str | OwnerRule:
    """A prefix as text, or a rule about owners.

    Raises: ValueError.
    """
    kind, _, rest = text.partition(":")
    if kind != PREFIX:
        return OwnerRule.parse(text)
    if not re.fullmatch(r"co_z[0-9A-Za-z]{0,40}", rest):
        raise ValueError(f"{text!r}: ids begin with co_z, so write prefix:co_z...")
    return rest


def first_match(rules: Iterable[OwnerRule], co_id: str, owners: Owners) -> OwnerRule | None:
    """The first of the rules that is about this value."""
    return next((rule for rule in rules if rule.matches(co_id, owners)), None)


def read_patterns(texts: Iterable[str]) -> frozenset[OwnerRule]:
    """What a member said about owners; kinds of rules of a later version are left out."""
    rules: set[OwnerRule] = set()
    for text in texts:
        try:
            rules.add(OwnerRule.parse(text))
        except ValueError:
            continue
    return frozenset(rules)
