"""How the world sees us: every answer says from where its request seemed to come.

Of the last 16 such observations, all but a few must agree. If host and port do, we are mapped
consistently; if only the host does, every destination sees another port.

Source: dht-rpc 6.27.0 index.js _natAdd, _sampleBootstrapMaybe; nat-sampler 1.0.1 for the figures.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

from swarm.announcement import Address
from swarm.dht.hosts import party_of

MAX_SAMPLES = 16
RESAMPLE_SECONDS = 1800.0
"""One party has one say in this time."""

_REMEMBERED = 256


def _tolerance(samples: int) -> int:
    """How many may disagree."""
    if samples < 4:
        return 0
    if samples < 8:
        return 1
    return 2 if samples < 12 else 3


class NatSampler:
    """What most of those who were asked agree on."""

    def __init__(self) -> None:
        self._samples: deque[Address] = deque(maxlen=MAX_SAMPLES)
        self.host: str | None = None
        """Our public host; None when they disagree, or there is nothing yet."""
        self.port: int | None = None
        """Our public port; None as well when it depends on who sees it."""

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def address(self) -> Address | None:
        """Our public address, if it is the same for everybody."""
        return None if self.host is None or self.port is None else (self.host, self.port)

    @property
    def is_randomized(self) -> bool:
        """Whether every destination sees another port."""
        return self.host is not None and self.port is None

    def add(self, seen_as: Address) -> None:
        self._samples.append(seen_as)
        threshold = len(self._samples) - _tolerance(len(self._samples))
        (address, hits), *_ = Counter(self._samples).most_common(1)
        if hits >= threshold:
            self.host, self.port = address
            return
        (host, hits), *_ = Counter(host for host, _ in self._samples).most_common(1)
        self.host, self.port = (host if hits >= threshold else None), None


class Witnesses:
    """Who had a say lately. Hosts of one party have one between them."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str | Address, float] = OrderedDict()

    def admit(self, witness: Address, now: float) -> bool:
        """Whether to listen to a witness now; then not again for RESAMPLE_SECONDS."""
        key = party_of(witness[0]) or witness
        heard_at = self._heard.get(key)
        if heard_at is not None and now - heard_at < RESAMPLE_SECONDS:
            return False
        self._heard[key] = now
        self._heard.move_to_end(key)
        if len(self._heard) > _REMEMBERED:
            self._heard.popitem(last=False)
        return True
