"""What is exchanged with which member: both ways, one way, and how many bytes.

A rule is found by the member's id in hexadecimal (or how that begins), by its name, else by where
it is: `lan` for addresses of private networks, `wan` for all others. Members give themselves their
names, also one that another has: so an operator's word about a member that was met is kept by its
id, and no name is taken for a whole id or for a place. A budget counts the bytes of its connections
in both directions, by day and by month of UTC; once it is used up, nothing more is exchanged until
the next day or month begins.

| record  | MessagePack array              |
|---------|--------------------------------|
| traffic | day, its bytes, month, its bytes |

Days are counted from 1970, months from January of the year 0.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from hypercore.encoding import DecodeError
from node.mesh.fields import FieldReader, pack_fields

LAN = "lan"
WAN = "wan"

_SECONDS_OF_DAY = 86_400


class Direction(StrEnum):
    """As this node sees it: `down` takes and does not give, `up` gives and does not take."""

    BOTH = "both"
    DOWN = "down"
    UP = "up"
    OFF = "off"

    @property
    def takes(self) -> bool:
        return self in {Direction.BOTH, Direction.DOWN}

    @property
    def gives(self) -> bool:
        return self in {Direction.BOTH, Direction.UP}


@dataclass(frozen=True, slots=True)
class PeerRule:
    """What may be exchanged with a member; None is no bound."""

    direction: Direction = Direction.BOTH
    day_bytes: int | None = None
    month_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes exchanged with one member, this day and this month."""

    day: int = 0
    day_bytes: int = 0
    month: int = 0
    month_bytes: int = 0

    def counted(self, size: int, unix_seconds: float) -> Traffic:
        """With so many more bytes, at that time."""
        day, month = _day_and_month(unix_seconds)
        return Traffic(
            day,
            size + (self.day_bytes if day == self.day else 0),
            month,
            size + (self.month_bytes if month == self.month else 0),
        )

    def encode(self) -> bytes:
        return pack_fields(self.day, self.day_bytes, self.month, self.month_bytes)

    @classmethod
    def decode(cls, data: bytes | None) -> Traffic:
        """What the row says; nothing where it is missing or cannot be read."""
        if data is None:
            return cls()
        try:
            reader = FieldReader.unpack(data, 1024)
            return cls(reader.uint(), reader.uint(), reader.uint(), reader.uint())
        except DecodeError:
            return cls()


@dataclass(frozen=True, slots=True)
class PeerRules:
    """`named` by id, beginning of an id (8 digits at least), name, `lan` or `wan`."""

    named: Mapping[str, PeerRule] = field(default_factory=dict)

    def find(self, member_id: bytes, name: str, *, is_lan: bool) -> PeerRule:
        """The rule for a member: of several, the one that names it most exactly."""
        digits = member_id.hex()
        fitting = [key for key in self.named if is_id_text(key) and digits.startswith(key)]
        by_name = [name] if is_name(name) else []
        place = LAN if is_lan else WAN
        for key in (*sorted(fitting, key=len, reverse=True), *by_name, place):
            if key in self.named:
                return self.named[key]
        return PeerRule()

    def with_rule(self, key: str, rule: PeerRule) -> PeerRules:
        """The same with another rule under that name; a rule that says nothing is left out."""
        named = {name: old for name, old in self.named.items() if name != key}
        if rule != PeerRule():
            named[key] = rule
        return replace(self, named=named)


def is_called(member_id: str, name: str, key: str) -> bool:
    """Whether a rule under that key names the member with this id, in hexadecimal, or name."""
    is_by_name = key == name and is_name(name)
    return is_by_name or (is_id_text(key) and member_id.startswith(key))


def direction_now(rule: PeerRule, traffic: Traffic, unix_seconds: float) -> Direction:
    """The rule's direction, or `off` when its budget is used up."""
    used = traffic.counted(0, unix_seconds)
    is_over = (rule.day_bytes is not None and used.day_bytes >= rule.day_bytes) or (
        rule.month_bytes is not None and used.month_bytes >= rule.month_bytes
    )
    return Direction.OFF if is_over else rule.direction


def is_id_text(text: str) -> bool:
    """Whether a text is (the beginning of) a node's id."""
    return re.fullmatch(r"[0-9a-f]{8,64}", text) is not None


def is_name(text: str) -> bool:
    """Whether a rule may name a member so: a whole id, or a place, is none.

    The beginning of an id may be one: containers call themselves so.
    """
    return text not in (LAN, WAN) and re.fullmatch(r"[0-9a-f]{64}", text) is None


def is_lan_address(address: str | None) -> bool:
    """Whether HOST:PORT is of this machine or of a private network; None counts as such."""
    if address is None:
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return False


def traffic_key(member_id: bytes) -> bytes:
    return b"traffic:" + member_id.hex().encode()


def _day_and_month(unix_seconds: float) -> tuple[int, int]:
    date = datetime.fromtimestamp(unix_seconds, UTC)
    return int(unix_seconds // _SECONDS_OF_DAY), date.year * 12 + date.month - 1
