"""The links of a blind relay, and which of them makes way when there are too many; a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Link(Hashable, Protocol):
    @property
    def is_closed(self) -> bool: ...


L = TypeVar("L", bound=Link)


class RelayLinks(Generic[L]):
    """Links by the hosts that they join, the oldest first; those that are closed do not count."""

    def __init__(self) -> None:
        self._hosts: dict[L, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._open())

    def add(self, link: L, host: str, other: str) -> None:
        self._hosts[link] = (host, other)

    def count(self, host: str) -> int:
        """How many links lead to that host."""
        return sum(host in hosts for hosts in self._open().values())

    def making_way(self, host: str, other: str) -> L | None:
        """The link that makes way for one between these hosts, in a full relay.

        It leads to the host that has most links, which still has no fewer than either of these
        then. If several do, it is the one whose other end has most, and the youngest: whoever
        keeps a relay full for others does it from few hosts, and a busy node has one link to each
        of many.
        """
        links = self._open()
        counts = Counter(end for ends in links.values() for end in set(ends))
        wanted = 1 + max(counts[host], counts[other])
        shares = {
            link: sorted((counts[end] for end in links[link]), reverse=True) for link in links
        }
        crowded = max(reversed(shares), key=shares.__getitem__, default=None)
        return None if crowded is None or shares[crowded][0] <= wanted else crowded

    def _open(self) -> dict[L, tuple[str, str]]:
        for link in [link for link in self._hosts if link.is_closed]:
            del self._hosts[link]
        return self._hosts
