"""Which accounts' content a node takes.

Every transaction belongs to a session, and every session to its owner, an account or an agent
(`people.py`: listing either means both). The lists are about what is *written*; who may read is
not an account's matter, since cojson does not authenticate readers: that is what tokens are for.

| content                                   | open | deny list          | allow list             |
|-------------------------------------------|------|--------------------|------------------------|
| session of somebody listed                | take | refuse             | take                   |
| session of somebody else                  | take | take               | refuse                 |
| an account's own value, by its agent      | take | as the account     | as the account         |
| header with some session that is taken    | take | take               | take                   |
| header whose sessions are all refused     | take | refuse             | refuse                 |
| header alone: of an account               | take | as the account     | as the account         |
| header alone: of a group                  | take | as its first admin | refuse                 |
| header alone: of any other value          | take | take               | refuse                 |
| an account's header that others wait for  | take | take               | take                   |

With both lists, an account on both is denied. The last row is what keeps a group readable that has
a member who is not welcome: clients do not show a group before they have the header of every
member's account, so the group of a welcome author would wait forever. Such a header is some 300
bytes, signed by nobody and about nobody else; it is taken alone, without sessions, when content
that is taken names it.

A message is taken in parts: refused sessions are dropped from it before anything is looked up,
verified or waited for, the others go on. Lists hold for clients and for other nodes alike. They
do not touch what is stored already. A deny list stops people who are known, not those who make
themselves new keys, which costs nothing; an allow list or tokens stop these, too.

An allow list must name everybody whose content is needed: the values of a welcome author in a
group that an unlisted account made wait until the group is here, which is never.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from node.access.people import Person, person_of
from node.access.reasons import Reason

MAX_LISTED = 1_000_000
"""Ids in a list: about 150 MB."""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The lists, as persons. `allow` None: everybody who is not denied."""

    allow: frozenset[Person] | None = None
    deny: frozenset[Person] = frozenset()

    @classmethod
    def of(cls, allow: Iterable[str] | None = None, deny: Iterable[str] = ()) -> AccessPolicy:
        """From account and agent ids as people write them.

        Raises: ValueError, naming what is no id.
        """
        return cls(None if allow is None else _persons(allow), _persons(deny))

    @property
    def is_open(self) -> bool:
        return self.allow is None and not self.deny

    def objection(self, *names: Person | None) -> Reason | None:
        """Why content of somebody with these names is refused; None when it is taken."""
        if any(name in self.deny for name in names):
            return Reason.DENIED
        if self.allow is None or any(name in self.allow for name in names):
            return None
        return Reason.NOT_ALLOWED


OPEN = AccessPolicy()


def parse_id_lines(text: str) -> list[str]:
    """The ids of a list file: one a line, `#` begins a comment. They are not checked yet."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _persons(ids: Iterable[str]) -> frozenset[Person]:
    persons: set[Person] = set()
    for text in ids:
        person = person_of(text)
        if person is None:
            raise ValueError(
                f"{text[:80]!r} is neither an account id (co_z...) nor an agent id "
                f"(sealer_z.../signer_z...)"
            )
        persons.add(person)
        if len(persons) > MAX_LISTED:
            raise ValueError(f"more than {MAX_LISTED} ids in one list")
    return frozenset(persons)
