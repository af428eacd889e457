"""Which addresses may be talked to, and which of them are one party's.

An id is the hash of an address, so a host gets many ids near a target by taking many ports. Hosts
of one /24 therefore count as one party, and a party gets a limited share of whatever is limited.
Inside a private network, where a test may run a whole table on one host, nobody is limited.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import lru_cache

from swarm.announcement import Address
from swarm.dht.messages import encode_address

_STRAYS = frozenset({("134.209.28.98", 49738), ("167.99.142.185", 49738), ("35.233.47.252", 9400)})
_STRAY_HOST = "150.136.142.116"
"""Nodes of a test network that were once mixed with the public one.

Source: hyperdht 6.34.0 index.js filterNode.
"""


class Scope(enum.Enum):
    """From where a host can be reached."""

    NOWHERE = "nowhere"
    PRIVATE = "private"
    PUBLIC = "public"


@lru_cache(maxsize=2**14)
def scope_of(host: str) -> Scope:
    """Raises: ValueError when the host is not IPv4 in dotted decimals."""
    first, second, *_ = encode_address((host, 0))
    if first == 0 or first >= 224:  # this network, multicast, reserved, broadcast
        return Scope.NOWHERE
    is_private = (
        first in (10, 127)
        or (first == 172 and 16 <= second <= 31)
        or (first == 192 and second == 168)
        or (first == 169 and second == 254)
        or (first == 100 and 64 <= second <= 127)  # behind a provider's NAT
    )
    return Scope.PRIVATE if is_private else Scope.PUBLIC


@lru_cache(maxsize=2**14)
def party_of(host: str) -> str | None:
    """The party that a host belongs to, as its /24; None where parties are not counted."""
    return host.rpartition(".")[0] if scope_of(host) is Scope.PUBLIC else None


def is_usable(address: Address) -> bool:
    """Whether a node could be there at all."""
    host, port = address
    if port == 0 or host == _STRAY_HOST or address in _STRAYS:
        return False
    return scope_of(host) is not Scope.NOWHERE


def may_refer(referrer: Address, to: Address) -> bool:
    """Whether to believe `referrer` that there is a node at `to`.

    Somebody out on the internet cannot know nodes in our private network; it could only make us
    probe it.
    """
    if not is_usable(to):
        return False
    return scope_of(to[0]) is Scope.PUBLIC or scope_of(referrer[0]) is Scope.PRIVATE


def is_private(address: Address) -> bool:
    return scope_of(address[0]) is Scope.PRIVATE


def first_public(addresses: Sequence[Address]) -> Address | None:
    return next(
        (each for each in addresses if is_usable(each) and scope_of(each[0]) is Scope.PUBLIC), None
    )


def match_address(ours: Sequence[Address], theirs: Sequence[Address]) -> Address | None:
    """Which of their addresses is most likely in a network of ours.

    The one with the most leading numbers in common with any of ours; None if none has even the
    first.

    Source: hyperdht 6.34.0 lib/holepuncher.js matchAddress.
    """
    best: Address | None = None
    most = 0
    for address in theirs:
        parts = address[0].split(".")
        for host, _ in ours:
            common = _common_parts(parts, host.split("."))
            if common > most:
                best, most = address, common
    return best


def _common_parts(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many leading numbers are equal; the last one does not count."""
    count = 0
    for our, their in zip(ours[:3], theirs[:3], strict=True):
        if our != their:
            break
        count += 1
    return count
