"""Which addresses may be talked to, and which of them are one party's.

An id is the hash of an address, so whoever wants many ids near a target takes many ports of one
host. Hosts of one /24 therefore count as one party, and a party gets a limited share of whatever
is limited. Inside a private network, where a test may run a whole table on one host, nobody is
limited.
"""

from __future__ import annotations

import enum
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
    """Who may be behind a host, as its /24; None when it is nobody's business to count."""
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
