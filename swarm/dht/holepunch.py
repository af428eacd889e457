"""Getting through the NATs of both ends at the same time; a machine.

| ours       | theirs     | what we do, for at most                                              |
|------------|------------|----------------------------------------------------------------------|
| consistent | consistent | one probe a second to each of their addresses, 10 s                  |
| consistent | random     | a probe to a random port of their host every 20 ms, 35 s             |
| random     | consistent | open 256 sockets that write to their address once, then probe from   |
|            |            | one after the other every 20 ms, 35 s                                |
| random     | random     | nothing: it takes a relay                                            |

An open socket counts as a consistent one. A probe is one byte. The first probes of a socket expire
on the way: they are to open our NAT, not to close theirs. The server answers each probe with one;
the first that reaches the initiator tells it where to connect to.

To an address that was not proven to be the remote's, a probe goes only every fourth second, and
none of the many: else a peer could make us flood a stranger. And the initiator goes where a probe
came from only if that is a host of the remote's, as far as there is word of it: nodes that were
asked how our socket appears know where it is, and one byte of theirs ended the punch. Where a NAT
sends from yet another host, it goes there when nothing else came.

Source: hyperdht 6.34.0 lib/holepuncher.js.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hypercore.crypto import Entropy
from swarm.announcement import Address
from swarm.dht.hosts import is_usable
from swarm.dht.nat import SocketNat
from swarm.dht.peer_messages import NatKind, PunchRound

BIRTHDAY_SOCKETS = 256
LOW_TTL = 5
"""Routers that a probe which only opens our own NAT may pass."""

CONSISTENT_TRIES = 10
CONSISTENT_SECONDS = 1.0
RANDOM_TRIES = 1750
RANDOM_SECONDS = 0.02
MAX_ANSWERED_PROBES = 512
"""Of one punch: a stranger who found a socket of ours gets no more."""

_BIRTHDAY_PAUSE_SECONDS = 0.1
_UNPROVEN_EVERY = 4
_MAX_BURST = 5  # probes that are late are sent at once, but not more of them
_FIRST_PORT = 1000
_MAX_REMOTE_ADDRESSES = 8


class Strategy(enum.Enum):
    """What to do, seen from our side."""

    BOTH_CONSISTENT = "both consistent"
    THEY_ARE_RANDOM = "they are random"
    WE_ARE_RANDOM = "we are random"

    @property
    def is_random(self) -> bool:
        """Whether it takes thousands of probes."""
        return self is not Strategy.BOTH_CONSISTENT


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send one byte from a socket; with a low TTL it does not arrive."""

    socket: int
    to: Address
    is_low_ttl: bool = False


@dataclass(frozen=True, slots=True)
class OpenSockets:
    """Open `count` more sockets; their numbers follow that of the first, which is 0."""

    count: int


@dataclass(frozen=True, slots=True)
class Punched:
    """The remote's probe came through, from there, to this socket: connect."""

    socket: int
    remote: Address


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Nothing came through in time."""


PunchOutput = SendProbe | OpenSockets | Punched | GaveUp


class _State(enum.Enum):
    TALKING = "talking"
    PUNCHING = "punching"
    DONE = "done"


class Puncher:
    """One attempt. `nat` is that of socket 0, and may be replaced while the ends are talking."""

    def __init__(self, nat: SocketNat, entropy: Entropy, *, is_initiator: bool) -> None:
        self.nat = nat
        self.remote_nat = NatKind.UNKNOWN
        self.is_remote_punching = False
        self._entropy = entropy
        self._is_initiator = is_initiator
        self._remotes: tuple[Address, ...] = ()
        self._proven_hosts: set[str] = set()
        self._opened_host: str | None = None
        self._stray: Punched | None = None
        self._state = _State.TALKING
        self._strategy: Strategy | None = None
        self._target: Address | None = None
        """Where random probes go; what the remote says later does not change it."""
        self._tries = 0
        self._next_at = 0.0
        self._sockets = 1
        self._answered = 0

    @property
    def is_punching(self) -> bool:
        return self._state is _State.PUNCHING

    @property
    def is_done(self) -> bool:
        return self._state is _State.DONE

    @property
    def is_unstable(self) -> bool:
        """Whether another socket may have better luck with our NAT."""
        are_both_random = NatKind.RANDOM is self.nat.kind is self.remote_nat
        return are_both_random or self.nat.kind is NatKind.UNKNOWN

    @property
    def strategy(self) -> Strategy | None:
        """What could be done, by what is known; None when nothing can."""
        ours, theirs = self.nat.kind, self.remote_nat
        if not self._remotes or NatKind.UNKNOWN in (ours, theirs):
            return None
        if ours.is_consistent and theirs.is_consistent:
            return Strategy.BOTH_CONSISTENT
        if self._proven is None or not (ours.is_consistent or theirs.is_consistent):
            return None
        return Strategy.THEY_ARE_RANDOM if ours.is_consistent else Strategy.WE_ARE_RANDOM

    @property
    def deadline(self) -> float | None:
        """When `advance` has something to do."""
        return self._next_at if self.is_punching else None

    def open_session(self, to: Address) -> list[PunchOutput]:
        """Open our NAT for the remote, which is there as far as its relay knows."""
        self._opened_host = to[0]
        return [SendProbe(0, to, True)]

    def hear(self, message: PunchRound, proven_host: str | None) -> None:
        """What the remote says about itself, and a host at which it was shown to receive."""
        if proven_host is not None and len(self._proven_hosts) < _MAX_REMOTE_ADDRESSES:
            self._proven_hosts.add(proven_host)
        self.remote_nat = message.nat
        self.is_remote_punching = message.is_punching
        addresses = message.addresses or ()
        is_host_enough = message.nat is NatKind.RANDOM
        self._remotes = tuple(
            address
            for address in addresses
            if is_usable((address[0], 1) if is_host_enough else address)
        )[:_MAX_REMOTE_ADDRESSES]

    def start(self, now: float) -> list[PunchOutput]:
        """Begin; nothing happens when it has begun already, or `strategy` is None."""
        if self._state is not _State.TALKING or self.strategy is None:
            return []
        self._state = _State.PUNCHING
        self._strategy = self.strategy
        self._target = self._proven
        self._next_at = now
        if self._strategy is Strategy.BOTH_CONSISTENT:
            if not self._is_initiator:  # we answered a round with a probe a moment ago
                self._next_at = now + CONSISTENT_SECONDS
            return self.advance(now)
        if self._strategy is Strategy.THEY_ARE_RANDOM:
            return self.advance(now)
        self._next_at = now + _BIRTHDAY_PAUSE_SECONDS
        assert self._target is not None, "it takes a proven address to choose this"
        first, self._sockets = self._sockets, BIRTHDAY_SOCKETS
        opening = [SendProbe(index, self._target, True) for index in range(first, BIRTHDAY_SOCKETS)]
        return [OpenSockets(BIRTHDAY_SOCKETS - first), *opening]

    def advance(self, now: float) -> list[PunchOutput]:
        """Call at `deadline`, or later."""
        if not self.is_punching or now < self._next_at:
            return []
        if self._strategy is Strategy.BOTH_CONSISTENT:
            return self._probe_all(now)
        outputs: list[PunchOutput] = []
        for _ in range(_MAX_BURST):
            if now < self._next_at:
                return outputs
            if self._tries >= RANDOM_TRIES:
                return [*outputs, *self._give_up()]
            outputs.append(self._random_probe())
            self._next_at += RANDOM_SECONDS
        self._next_at = now + RANDOM_SECONDS
        return outputs

    def probed(self, socket: int, source: Address) -> list[PunchOutput]:
        """A probe arrived."""
        if not is_usable(source) or self.is_done:
            return []
        if not self._is_initiator:
            self._answered += 1
            return [SendProbe(socket, source)] if self._answered <= MAX_ANSWERED_PROBES else []
        punched = Punched(socket, source)
        if source[0] != self._opened_host and all(source[0] != host for host, _ in self._remotes):
            self._stray = self._stray or punched
            return []
        self._state = _State.DONE
        return [punched]

    def stop(self) -> None:
        """Another way was found, or nobody cares any more."""
        self._state = _State.DONE

    @property
    def _proven(self) -> Address | None:
        return next(
            (address for address in self._remotes if address[0] in self._proven_hosts), None
        )

    def _probe_all(self, now: float) -> list[PunchOutput]:
        if self._tries >= CONSISTENT_TRIES:
            return self._give_up()
        self._tries += 1
        self._next_at = now + CONSISTENT_SECONDS
        is_turn_of_all = self._tries % _UNPROVEN_EVERY == 0
        return [
            SendProbe(0, address)
            for address in self._remotes
            if is_turn_of_all or address[0] in self._proven_hosts
        ]

    def _random_probe(self) -> SendProbe:
        target = self._target
        assert target is not None
        index = self._tries
        self._tries += 1
        if self._strategy is Strategy.THEY_ARE_RANDOM:
            draw = int.from_bytes(self._entropy(4), "little")
            return SendProbe(0, (target[0], _FIRST_PORT + draw % (2**16 - _FIRST_PORT)))
        return SendProbe(index % self._sockets, target, index < self._sockets)

    def _give_up(self) -> list[PunchOutput]:
        self._state = _State.DONE
        return [GaveUp()] if self._stray is None else [self._stray]
