"""Who has a log open is told in order, and keeps it open or not."""

from __future__ import annotations

from collections.abc import Sequence

from hypercore.log import Changeset
from hypercore.log_users import LogUsers


class Listener:
    def __init__(self, name: str, heard: list[tuple[str, str]], *, is_weak: bool = False) -> None:
        self.is_weak = is_weak
        self._name = name
        self._heard = heard

    def arrived(self, changesets: Sequence[Changeset]) -> None:
        self._heard.append((self._name, f"{len(changesets)} arrived"))

    def truncating(self, length: int) -> None:
        self._heard.append((self._name, f"cut to {length}"))

    def replaced(self, length: int) -> None:
        self._heard.append((self._name, f"only {length} left"))

    def fail(self, error: Exception) -> None:
        self._heard.append((self._name, str(error)))

    def recovered(self) -> None:
        self._heard.append((self._name, "recovered"))

    def log_closed(self) -> None:
        self._heard.append((self._name, "closed"))


def test_every_user_hears_everything_in_the_order_of_coming() -> None:
    users, heard = LogUsers(), list[tuple[str, str]]()
    for name in ("one", "two"):
        users.add(Listener(name, heard))
    users.arrived((Changeset(),))
    users.replaced(3)
    users.fail(OSError("no room"))
    users.recovered()
    said = ("1 arrived", "only 3 left", "no room", "recovered")
    assert heard == [(name, event) for event in said for name in ("one", "two")]


def test_histories_hear_of_cuts_alone_and_as_long_as_somebody_wants_them() -> None:
    users, heard = LogUsers(), list[tuple[str, str]]()
    users.add(Listener("user", heard))
    history = Listener("history", heard)
    users.histories.add(history)
    users.truncating(4)
    users.recovered()
    users.replaced(3)
    del history
    users.truncating(2)
    assert heard == [
        ("user", "cut to 4"),
        ("history", "cut to 4"),
        ("user", "recovered"),
        ("user", "only 3 left"),
        ("history", "cut to 3"),
        ("user", "cut to 2"),
    ]


def test_weak_users_do_not_count_as_sessions() -> None:
    users, heard = LogUsers(), list[tuple[str, str]]()
    weak, strong = Listener("weak", heard, is_weak=True), Listener("strong", heard)
    for user in (weak, strong):
        users.add(user)
    assert users.sessions == 1
    users.remove(strong)
    users.remove(strong)
    assert users.sessions == 0
    users.arrived(())
    assert heard == [("weak", "0 arrived")]


def test_at_the_end_all_are_told_once_even_those_that_leave_by_it() -> None:
    users, heard = LogUsers(), list[tuple[str, str]]()

    class Leaver(Listener):
        def log_closed(self) -> None:
            super().log_closed()
            users.remove(self)

    for name in ("one", "two"):
        users.add(Leaver(name, heard))
    users.end()
    users.end()
    assert heard == [("one", "closed"), ("two", "closed")]
