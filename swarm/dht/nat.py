"""How the world sees us: every answer says from where its request seemed to come.

Of the last 16 such observations, all but a few must agree. If host and port do, we are mapped
consistently; if only the host does, every destination sees another port.

Source: dht-rpc 6.27.0 index.js _natAdd, _sampleBootstrapMaybe; nat-sampler 1.0.1 for the figures.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

from swarm.announcement import Address
from swarm.dht.hosts import party_of
from swarm.dht.peer_messages import NatKind

MAX_SAMPLES = 16
RESAMPLE_SECONDS = 1800.0
"""One party has one say in this time."""

MIN_SOCKET_SAMPLES = 4
"""Nodes asked about one socket."""

_REMEMBERED = 256


def _tolerance(samples: int) -> int:
    """How many may disagree."""
    if samples < 4:
        return 0
    if samples < 8:
        return 1
    return 2 if samples < 12 else 3


class NatSampler:
    """What most of the nodes that were asked agree on."""

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
    """Who had a say lately. Hosts of one party have one say between them."""

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


class SocketNat:
    """The NAT between one socket and the world, judged by how the socket appears to a few nodes.

    Three equal answers are enough to call it consistent, three different ones to call it random;
    what is still unclear after four stays unknown, or is called random after more.

    Source: hyperdht 6.34.0 lib/nat.js.
    """

    def __init__(self, *, is_open: bool) -> None:
        self.kind = NatKind.OPEN if is_open else NatKind.UNKNOWN
        self._is_open = is_open
        self._is_frozen = False
        self._witnesses: set[Address] = set()
        self._seen_as: Counter[Address] = Counter()
        self._hosts: Counter[str] = Counter()

    @property
    def samples(self) -> int:
        return self._seen_as.total()

    @property
    def is_settled(self) -> bool:
        """Whether more samples would hardly change anything."""
        return self.kind.is_consistent or self.samples >= MIN_SOCKET_SAMPLES

    @property
    def addresses(self) -> tuple[Address, ...] | None:
        """Where it appears; with a random NAT only the host counts. None while unknown."""
        ranked = [address for address, _ in self._seen_as.most_common()]
        match self.kind:
            case NatKind.UNKNOWN:
                return None
            case NatKind.RANDOM:
                return tuple((host, 0) for host, _ in self._hosts.most_common(1))
            case NatKind.OPEN | NatKind.CONSISTENT:
                often = sum(hits >= 2 for hits in self._seen_as.values())
                return tuple(ranked[: max(2, often)])

    def freeze(self) -> None:
        """The remote was told the `kind`: it does not change any more."""
        self._is_frozen = True

    def add(self, seen_as: Address, witness: Address) -> None:
        """One node tells how the socket appears to it. Each is heard once."""
        if witness in self._witnesses or len(self._witnesses) >= MAX_SAMPLES:
            return
        self._witnesses.add(witness)
        self._seen_as[seen_as] += 1
        self._hosts[seen_as[0]] += 1
        if not self._is_frozen and not self._is_open:
            self.kind = self._judge()

    def _judge(self) -> NatKind:
        if self.samples < 3:
            return self.kind
        (_, most), *others = self._seen_as.most_common(2)
        if most >= 3:
            return NatKind.CONSISTENT
        if most == 1 or (len(self._hosts) == 1 and self.samples > 3):
            return NatKind.RANDOM
        if len(self._hosts) > 1 and others and others[0][1] > 1:
            return NatKind.CONSISTENT
        return NatKind.RANDOM if self.samples > MIN_SOCKET_SAMPLES else self.kind
