"""From where somebody comes, as limits for each of many count it."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")


@lru_cache(maxsize=4096)
def site_of(host: str) -> str:
    """An address of IPv4, or the /64 of one of IPv6: nobody is given less, and it costs nothing.

    Neighbors in a private network share a /64 and are told apart. What is no address stands for
    itself.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local or address in _UNIQUE_LOCAL:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
