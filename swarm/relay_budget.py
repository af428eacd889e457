"""How many bytes a blind relay passes on, and for which hosts; a machine."""

from __future__ import annotations

from collections import Counter


class RelayBudget:
    """So many bytes until the next `refill`, and for no host more than it leaves to the others.

    So one host alone has half of them, and there is always something for one that comes later.
    Rejected: equal shares, by which a relay that few use would pass on next to nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.left = max_bytes
        self._used: Counter[str] = Counter()

    def refill(self) -> None:
        """Another hour, or day: begin to count anew."""
        self.left = self._max_bytes
        self._used.clear()

    def has_room(self, host: str) -> bool:
        """Whether anything may be passed on from and to that host."""
        return self._used[host] < self.left

    def link(self, host: str, other: str) -> LinkBudget:
        """The budget for what goes from one to the other, and back."""
        return LinkBudget(self, {host, other})

    def take(self, hosts: set[str], size: int) -> bool:
        """Count `size` bytes between these hosts; False when that is more than they may have."""
        self.left -= size
        for host in hosts:
            self._used[host] += size
        return all(self._used[host] <= self.left for host in hosts)


class LinkBudget:
    """A relay's budget as it applies between some hosts; a `udx.relay.Budget`."""

    def __init__(self, whole: RelayBudget, hosts: set[str]) -> None:
        self._whole = whole
        self._hosts = hosts

    def take(self, size: int) -> bool:
        return self._whole.take(self._hosts, size)
