"""What an account may store and what an address may send, in numbers.

| quota                        | counts                          | over it                     |
|------------------------------|---------------------------------|-----------------------------|
| account: bytes               | what its sessions stored here   | its content is refused      |
| account: values              | values it created here          | its new values are refused  |
| address: bytes a minute      | frames that came                | it is read from more slowly |
| address: messages a minute   | lines of those frames           | it is read from more slowly |
| address: new values a minute | values its clients had stored   | it is read from more slowly |

Rates are token buckets: a minute's worth may come at once, then as much as flows in. An address
that owes is left unread until the debt is paid; the socket fills up, and the client waits as it
would for a slow disk. A connection that is paced so can never owe more than one frame. Many
connections of one address can: when it owes what FAR_BEYOND_MINUTES would bring in and yet more
comes, the connection that brings it is sent away.

An address of IPv6 is its /64: nobody is given less.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from node.cojson.gatekeeper import Pace
from swarm.site import site_of

FAR_BEYOND_MINUTES = 10
MAX_ADDRESSES = 20_000
"""Addresses remembered, about 1 KB each. Of the longest silent, one without debt is forgotten."""

_SCAN = 16
_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """None: no bound. `loopback` says that rates hold for clients on this machine, too."""

    account_bytes: int | None = None
    account_values: int | None = None
    bytes_per_minute: int | None = None
    messages_per_minute: int | None = None
    values_per_minute: int | None = None
    loopback: bool = False

    @property
    def bounds_accounts(self) -> bool:
        return self.account_bytes is not None or self.account_values is not None

    @property
    def bounds_rates(self) -> bool:
        rates = (self.bytes_per_minute, self.messages_per_minute, self.values_per_minute)
        return rates != (None, None, None)


NO_QUOTAS = Quotas()


class Bucket:
    """So many a minute, a minute's worth at once. May be overdrawn: that is the debt.

    Within any span of t seconds a client that waits while there is a debt gets through less than
    `per_minute * (1 + t / 60)` and one message more.
    """

    __slots__ = ("_at", "_level", "_per_minute")

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_minute = per_minute
        self._level = per_minute
        self._at = now

    def spend(self, amount: float, now: float) -> None:
        self._level = self._level_at(now) - amount
        self._at = max(now, self._at)

    def debt_seconds(self, now: float) -> float:
        """How long until the debt is paid; 0 when nothing is owed."""
        return max(-self._level_at(now), 0.0) * _MINUTE / self._per_minute

    def is_full(self, now: float) -> bool:
        return self._level_at(now) >= self._per_minute

    def _level_at(self, now: float) -> float:
        gained = max(now - self._at, 0.0) * self._per_minute / _MINUTE
        return min(self._level + gained, self._per_minute)


class _Meter:
    """The buckets of one address; those without a rate are left out."""

    __slots__ = ("bytes", "messages", "values")

    def __init__(self, quotas: Quotas, now: float) -> None:
        self.bytes = _bucket(quotas.bytes_per_minute, now)
        self.messages = _bucket(quotas.messages_per_minute, now)
        self.values = _bucket(quotas.values_per_minute, now)

    def debt_seconds(self, now: float) -> float:
        return max([bucket.debt_seconds(now) for bucket in self._buckets()], default=0.0)

    def is_full(self, now: float) -> bool:
        return all(bucket.is_full(now) for bucket in self._buckets())

    def _buckets(self) -> list[Bucket]:
        buckets = (self.bytes, self.messages, self.values)
        return [bucket for bucket in buckets if bucket is not None]


class Paces:
    """How fast each address may send."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._meters: OrderedDict[str, _Meter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._meters)

    def receive(self, address: str, size: int, messages: int, now: float) -> Pace:
        """So much came from there; returns how long to leave its connection unread."""
        meter = self._meter(address, now)
        if meter is None:
            return Pace()
        before = meter.debt_seconds(now)
        if before > FAR_BEYOND_MINUTES * _MINUTE:
            return Pace(before, f"more than {FAR_BEYOND_MINUTES} minutes beyond its rate")
        if meter.bytes is not None:
            meter.bytes.spend(size, now)
        if meter.messages is not None:
            meter.messages.spend(messages, now)
        return Pace(meter.debt_seconds(now))

    def count_value(self, address: str, now: float) -> None:
        """A client from there had a new value stored."""
        meter = self._meter(address, now)
        if meter is not None and meter.values is not None:
            meter.values.spend(1, now)

    def _meter(self, address: str, now: float) -> _Meter | None:
        """None when this address is not metered."""
        if not self._quotas.bounds_rates:
            return None
        key, is_local = _metered(address)
        if not key or (is_local and not self._quotas.loopback):
            return None
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = _Meter(self._quotas, now)
            if len(self._meters) > MAX_ADDRESSES:
                self._forget(now)
        else:
            self._meters.move_to_end(key)
        return meter

    def _forget(self, now: float) -> None:
        """One of the oldest that owes nothing, else the oldest."""
        oldest = list(islice(self._meters, _SCAN))
        del self._meters[next((key for key in oldest if self._meters[key].is_full(now)), oldest[0])]


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now)


@lru_cache(maxsize=4096)
def _metered(address: str) -> tuple[str, bool]:
    """(what is metered: the address or its /64, whether it is this machine's own)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "", False  # a client in this process
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return site_of(address), (mapped or parsed).is_loopback
