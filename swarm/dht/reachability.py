"""Whether strangers can reach us, and when that makes us a full member of the table.

A node asks from a socket that nobody knows. To find out whether its other socket, the server's, can
be reached by those it never wrote to, it asks five nodes to answer there. Most answers must arrive,
and name the host that others see.

Source: dht-rpc 6.27.0 index.js _bootstrap, _checkIfFirewalled, _updateNetworkState, _ontick. There,
a node that was reached once says so for ever, on whatever network.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarm.announcement import Address
from swarm.dht.hosts import party_of
from swarm.dht.messages import Internal
from swarm.dht.nat import NatSampler, Witnesses
from swarm.dht.requests import Call, Via

PROBES = 5
ENOUGH_PONGS = 3
STABLE_SECONDS = 20 * 60.0
"""A node must have been up for that long before it offers to keep records for others."""

RETEST_SECONDS = 60 * 60.0

RECHECK_SECONDS = 15.0
"""From sleep or a change of network to a new test whether strangers reach us: until then we learn
how the network shows us."""

RECHECKS = 3


class Role(enum.Enum):
    """What a node wants to be."""

    EPHEMERAL = "ephemeral"
    """Only asks: in no table, keeps nothing for others."""

    ADAPTIVE = "adaptive"
    """Keeps records once it has been up and reachable for a while."""

    PERSISTENT = "persistent"
    """Keeps records as soon as it can be reached."""


class FirewallTest:
    """One round of asking others to reach our server socket."""

    def __init__(self, candidates: Iterable[Address], server_port: int) -> None:
        """Asks the first PROBES candidates of different parties."""
        self._server_port = server_port
        self._asked: list[Address] = []
        parties: set[str] = set()
        for address in candidates:
            party = party_of(address[0])
            if party in parties or len(self._asked) == PROBES or address in self._asked:
                continue
            if party is not None:
                parties.add(party)
            self._asked.append(address)
        self._missing = len(self._asked)
        self._pongs = NatSampler()
        self._arrived = 0

    @property
    def is_over(self) -> bool:
        return self._missing == 0

    @property
    def calls(self) -> Sequence[Call]:
        return [ask_to_reach(to, self._server_port) for to in self._asked]

    def answered(self, seen_as: Address, via: Via) -> None:
        """An answer came; it counts if it reached the server socket."""
        self._missing -= 1
        if via is Via.SERVER:
            self._arrived += 1
            self._pongs.add(seen_as)

    def timed_out(self) -> None:
        self._missing -= 1

    def public_address(self, expected_host: str | None) -> Address | None:
        """Where everybody can reach us; None if too few could."""
        enough = ENOUGH_PONGS if len(self._asked) >= PROBES else 1
        address = self._pongs.address
        if self._arrived < enough or address != (expected_host, self._server_port):
            return None
        return address


def ask_to_reach(to: Address, server_port: int) -> Call:
    """Ask a node to answer at our host, at this port."""
    return Call(to, Internal.PING_NAT, True, value=server_port.to_bytes(2, "little"))


@dataclass(frozen=True, slots=True)
class Probe:
    """Make this call; tell the standing what came of it."""

    call: Call
    test: FirewallTest


@dataclass(frozen=True, slots=True)
class Settled:
    """A test is over: strangers reach us at `address`, or, if that is None, perhaps not."""

    address: Address | None


StandingOutput = Probe | Settled


class Standing:
    """What we are to others; a machine."""

    def __init__(
        self,
        role: Role,
        server_port: int,
        *,
        is_open: bool,
        public_address: Address | None,
        now: float,
    ) -> None:
        self.role = role
        self.is_ephemeral = True
        self.is_firewalled = not is_open
        self._is_always_open = is_open
        self.nat = NatSampler()
        if public_address is not None:
            self.nat.add(public_address)
        self._server_port = server_port
        self._witnesses = Witnesses()
        self._test: FirewallTest | None = None
        self._is_for_role = False
        self._tested_host: str | None = None
        self._retest_at = now + STABLE_SECONDS
        self._recheck_at = now
        self._rechecks_left = 0

    @property
    def via(self) -> Via:
        """The socket to ask from."""
        return Via.CLIENT if self.is_firewalled else Via.SERVER

    @property
    def public_address(self) -> Address | None:
        """Where strangers reach us; None when they do not."""
        address = self.nat.address
        if self.is_firewalled or address is None or address[1] != self._server_port:
            return None
        return address

    def observe(self, witness: Address, seen_as: Address, via: Via, now: float) -> None:
        """A node that is known to exist says how it sees us."""
        if via is self.via and self._witnesses.admit(witness, now):
            self.nat.add(seen_as)

    def is_test_due(self, now: float) -> bool:
        """Whether it is time to find out if we may become persistent."""
        if not self.is_ephemeral or self.role is Role.EPHEMERAL or self._test is not None:
            return False
        if self.role is Role.PERSISTENT and not self.is_firewalled:
            return self.nat.address is not None
        is_same_network = self.role is Role.ADAPTIVE and self._tested_host == self.nat.host
        return now >= self._retest_at and not is_same_network

    def is_recheck_due(self, now: float) -> bool:
        """Whether it is time to find out if strangers reach us where we are now."""
        if not self.is_firewalled or not self._rechecks_left or self._test is not None:
            return False
        return now >= self._recheck_at and self.nat.address is not None

    def test(
        self, candidates: Iterable[Address], now: float, *, for_role: bool
    ) -> list[StandingOutput]:
        """Find out whether we can be reached, and with `for_role` become persistent if so."""
        self._is_for_role = for_role
        self._recheck_at = now + RECHECK_SECONDS
        self._rechecks_left = max(0, self._rechecks_left - 1)
        if for_role:
            self._retest_at = now + RETEST_SECONDS
            self._tested_host = self.nat.host
        if not self.is_firewalled:
            return [self._settle(self.nat.address if for_role else None)]
        test = FirewallTest(candidates, self._server_port)
        if self.nat.address is None or test.is_over:
            return [self._settle(None)]
        self._test = test
        return [Probe(call, test) for call in test.calls]

    def probe_answered(
        self, test: FirewallTest, seen_as: Address, via: Via
    ) -> list[StandingOutput]:
        test.answered(seen_as, via)
        return self._conclude(test)

    def probe_timed_out(self, test: FirewallTest) -> list[StandingOutput]:
        test.timed_out()
        return self._conclude(test)

    def forget(self, now: float) -> None:
        """After sleep we may be anywhere: how we are seen from there is found out anew."""
        self._tested_host = None
        self._retest_at = now + RETEST_SECONDS
        if self.role is Role.PERSISTENT or self._is_always_open:
            return
        self.is_ephemeral = self.is_firewalled = True
        self.nat, self._witnesses, self._test = NatSampler(), Witnesses(), None
        self._recheck_at, self._rechecks_left = now + RECHECK_SECONDS, RECHECKS

    def _conclude(self, test: FirewallTest) -> list[StandingOutput]:
        if not test.is_over or self._test is not test:
            return []
        self._test = None
        return [self._settle(test.public_address(self.nat.host))]

    def _settle(self, address: Address | None) -> Settled:
        if address is not None:
            if self.is_firewalled:
                self.is_firewalled = False
                self.nat = NatSampler()  # what was seen of the other socket does not count here
                self._witnesses = Witnesses()
                self.nat.add(address)
            self.is_ephemeral = self.is_ephemeral and not self._is_for_role
        return Settled(address)
