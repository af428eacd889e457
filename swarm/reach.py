"""How a connection reaches its remote."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reach(enum.Enum):
    """The way that packets take."""

    LAN = "lan"
    """Over UDP or TCP, within a local network."""
    DIRECT = "direct"
    """Over UDP, to an address that lets strangers in."""
    PUNCHED = "punched"
    """Over UDP, through holes in the NATs of both."""
    RELAYED = "relayed"
    """Over UDP, by way of a blind relay."""
    TCP = "tcp"
    """Over TCP."""
    WEBSOCKET = "websocket"
    """Over a WebSocket, and so through whatever lets web pages through."""


@dataclass(slots=True)
class Route:
    """The way that one connection takes now; a better one may be found while it is in use."""

    reach: Reach
    address: str
    """Of the next hop, as `host:port`."""
