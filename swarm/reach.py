"""How a connection reaches its remote."""

from __future__ import annotations

import enum


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
