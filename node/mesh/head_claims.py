"""How long members say that our own log is, and who has yet to say so. A machine."""

from __future__ import annotations

from typing import Protocol

from node.mesh.run_messages import Doubt, Head


class Claimant(Protocol):
    """A member on its connection; `member.Member` is one."""

    @property
    def id(self) -> bytes: ...


class HeadClaims:
    """Heads of our own log that members have shown; that we signed them was verified before."""

    def __init__(self, members: frozenset[bytes]) -> None:
        """`members` are those ever met, by id: their word is waited for."""
        self._silent = set(members)
        self._heads: dict[Claimant, Head] = {}
        self._departed: Claimant | None = None
        """The member whose claim is kept though it went; of several, the one that showed most."""
        self._half_heard: dict[Claimant, bool] = {}
        """Members that said how long our log is (True), or what they know of our key (False).

        The two come in any order, and only both together are a word on which we go on.
        """

    def __bool__(self) -> bool:
        """Whether anybody has told how long our log is."""
        return bool(self._heads)

    @property
    def silent(self) -> int:
        """How many of the members ever met have not said both yet."""
        return len(self._silent)

    @property
    def is_confirmed(self) -> bool:
        """Whether all members that were ever met, at least one, have told how long our log is."""
        return bool(self._heads) and not self._silent

    def hear(self, member: Claimant, head: Head) -> None:
        """A member says how long our log is, or, when asked, what it knows of our key."""
        is_length = head.doubt is Doubt.UNASKED
        if self._half_heard.setdefault(member, is_length) is not is_length:
            self._silent.discard(member.id)
        if is_length:
            self._heads[member] = head

    def forget(self, member: Claimant) -> None:
        """The member went. That we signed a longer head stays true, whoever has shown it."""
        self._half_heard.pop(member, None)
        gone = [each for each in (self._departed, member) if each in self._heads]
        most = max(gone, key=self._place, default=None)
        for each in gone:
            if each is not most:
                self._heads.pop(each, None)
        self._departed = most

    def drop(self, member: Claimant) -> None:
        """What a member claimed was dealt with."""
        self._heads.pop(member, None)

    def all(self) -> list[tuple[Claimant, Head]]:
        """In the order in which they came."""
        return list(self._heads.items())

    def beyond(self, fork: int, length: int) -> list[tuple[Claimant, Head]]:
        """Claims of more than a log of this fork and length."""
        here = (fork, length)
        return [each for each in self._heads.items() if (each[1].fork, each[1].length) > here]

    def of_later_forks(self, fork: int) -> list[tuple[Claimant, Head]]:
        """Claims of forks after this one."""
        return [each for each in self._heads.items() if each[1].fork > fork]

    def greatest_length(self) -> int:
        """The greatest length claimed, of any fork; 0 without claims."""
        return max((head.length for head in self._heads.values()), default=0)

    def _place(self, member: Claimant) -> tuple[int, int]:
        head = self._heads[member]
        return head.fork, head.length
