"""Where a node that knows nobody asks first.

Source: hyperdht 6.34.0 lib/constants.js; the form of the names from dht-rpc 6.27.0 index.js.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from swarm.announcement import Address

PUBLIC_BOOTSTRAP = (
    "88.99.3.86@node1.hyperdht.org:49737",
    "142.93.90.113@node2.hyperdht.org:49737",
    "138.68.147.8@node3.hyperdht.org:49737",
)


@dataclass(frozen=True, slots=True)
class BootstrapNode:
    """A node to ask at `address`; its name is looked up when that is None, or does not answer."""

    name: str
    port: int
    address: Address | None


def parse_bootstrap(node: str | Address) -> BootstrapNode:
    """Read `HOST:PORT`, `IP@NAME:PORT`, or a pair of host and port.

    Raises: ValueError.
    """
    if isinstance(node, str):
        text, separator, port_text = node.rpartition(":")
        if not separator or not port_text.isascii() or not port_text.isdigit():
            raise ValueError(f"a bootstrap node is HOST:PORT, not {node!r}")
        port = int(port_text)
    else:
        text, port = node
    suggested, _, name = text.rpartition("@")
    if not name or not 0 < port < 2**16:
        raise ValueError(f"a bootstrap node is HOST:PORT, not {node!r}")
    if suggested:
        if not is_ipv4(suggested):
            raise ValueError(f"{suggested!r} is not an IPv4 address")
        return BootstrapNode(name, port, (suggested, port))
    return BootstrapNode(name, port, (name, port) if is_ipv4(name) else None)


def is_ipv4(text: str) -> bool:
    """Whether it is an address, without a port."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
