"""The users that have a log open, and what they are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakSet

from hypercore.log import Changeset


class User(Protocol):
    """One that has the log open; `handle.Handle` is one."""

    @property
    def is_weak(self) -> bool:
        """Whether the log may be closed while this user has it open."""

    def arrived(self, changesets: Sequence[Changeset]) -> None:
        """These changes were committed."""

    def truncating(self, length: int) -> None:
        """The log is about to be cut to that length."""

    def replaced(self, length: int) -> None:
        """Another process had the files: only the first `length` blocks are what they were."""

    def fail(self, error: Exception) -> None:
        """Nothing will come any more."""

    def recovered(self) -> None:
        """The log was read anew: blocks may come again."""

    def log_closed(self) -> None:
        """The log was closed."""


class HistoryWatch(Protocol):
    """Something that is told what is cut off, for as long as anybody holds a reference to it."""

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
        """The user has left, and hears nothing more; one that is not here is no error."""
        self._users.pop(user, None)

    @property
    def sessions(self) -> int:
        """How many users keep the log open."""
        return sum(not user.is_weak for user in self._users)

    def arrived(self, changesets: Sequence[Changeset]) -> None:
        """These changes were committed."""
        for user in self._users:
            user.arrived(changesets)

    def truncating(self, length: int) -> None:
        """The log is about to be cut to that length."""
        for watch in (*self._users, *self.histories):
            watch.truncating(length)

    def replaced(self, length: int) -> None:
        """Another process had the files: only the first `length` blocks are what they were."""
        for user in self._users:
            user.replaced(length)
        for watch in self.histories:
            watch.truncating(length)

    def fail(self, error: Exception) -> None:
        """Nothing will come any more, until `recovered`."""
        for user in self._users:
            user.fail(error)

    def recovered(self) -> None:
        """The log was read anew: blocks may come again."""
        for user in self._users:
            user.recovered()

    def end(self) -> None:
        """The log is closed, for all users."""
        for user in list(self._users):
            user.log_closed()
        self._users.clear()
