"""Where the packets of a stream go."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.udx.packet import HEADER_BYTES

Address = tuple[str, int]

_UDP_IPV4_BYTES = 28
_UDP_IPV6_BYTES = 48

MAX_OVERHEAD_BYTES = HEADER_BYTES + _UDP_IPV6_BYTES
"""What of an MTU is not payload, on any path."""


@dataclass(frozen=True, slots=True)
class Path:
    """One way to the remote: what goes into packets, and where the shell sends them."""

    remote_id: int
    """The stream's id at the other end."""
    address: Address
    endpoint: int = 0
    """Which of our sockets, as the shell counts them."""
    is_ipv6: bool = False
    max_mtu: int = 1500
    """What the first link carries."""

    @property
    def overhead_bytes(self) -> int:
        """What of an MTU is not payload."""
        return HEADER_BYTES + (_UDP_IPV6_BYTES if self.is_ipv6 else _UDP_IPV4_BYTES)
