"""Who has a log open, and hears what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakSet

from hypercore.log import Changeset


class User(Protocol):
    """Who has the log open; `handle.Handle` is one."""

    @property
    def is_weak(self) -> bool:
        """Whether the log may be closed while this user has it open."""

    def arrived(self, changesets: Sequence[Changeset]) -> None:
        """These were committed."""

    def truncating(self, length: int) -> None:
        """The log is about to be cut to that length."""

    def replaced(self, length: int) -> None:
        """Others had the files: only so many of the blocks are what they were."""

    def fail(self, error: Exception) -> None:
        """Nothing will come any more."""

    def recovered(self) -> None:
        """The log was read anew: blocks may come again."""

    def log_closed(self) -> None:
        """The log was closed."""


class HistoryWatch(Protocol):
    """Who has to know what is cut off; it is watched for as long as it is referenced."""

    def truncating(self, length: int) -> None:
        """The log is about to be cut to that length."""


class LogUsers:
    """The users of one log, told in the order in which they came."""

    def __init__(self) -> None:
        self.histories: WeakSet[HistoryWatch] = WeakSet()
        """Told of cuts alone; these do not keep the log open."""
        self._users: dict[User, None] = {}

    def add(self, user: User) -> None:
        self._users[user] = None

    def remove(self, user: User) -> None:
        """It has left, and hears nothing more. One that is not here is no error."""
        self._users.pop(user, None)

    @property
    def sessions(self) -> int:
        """How many of them keep the log open."""
        return sum(not user.is_weak for user in self._users)

    def arrived(self, changesets: Sequence[Changeset]) -> None:
        """These were committed."""
        for user in self._users:
            user.arrived(changesets)

    def truncating(self, length: int) -> None:
        """The log is about to be cut to that length."""
        for watch in (*self._users, *self.histories):
            watch.truncating(length)

    def replaced(self, length: int) -> None:
        """Others had the files: only so many of the blocks are what they were."""
        for user in self._users:
            user.replaced(length)
        for watch in self.histories:
            watch.truncating(length)

    def fail(self, error: Exception) -> None:
        """Nothing will come any more, until they have `recovered`."""
        for user in self._users:
            user.fail(error)

    def recovered(self) -> None:
        """The log was read anew: blocks may come again."""
        for user in self._users:
            user.recovered()

    def end(self) -> None:
        """The log is closed, for all of them."""
        for user in list(self._users):
            user.log_closed()
        self._users.clear()
