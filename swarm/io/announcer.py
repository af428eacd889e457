"""Keeping a key known at the nodes closest to its hash, and a way open from them to us.

The three closest are told where we are by the announcement itself, and pass on what clients want of
us. They are asked for a sign of life every few seconds, which also keeps our NAT open for them;
when one is gone, or sees us somewhere else, and every few minutes anyway, all is done anew.

Source: hyperdht 6.34.0 lib/announcer.js, which does not look at where it is seen: after a router
got another address nobody comes through before the few minutes are over.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import trio

from hypercore.crypto import KeyPair, encode_id
from swarm.announcement import Address
from swarm.dht.messages import Command
from swarm.dht.operations import (
    plan_find_peer,
    sign_own_announcement,
    sign_own_unannouncement,
)
from swarm.dht.payloads import MAX_RECORD_RELAYS, peer_target
from swarm.dht.peer_messages import RelayPair
from swarm.dht.query import Reply
from swarm.dht.requests import Call, TooManyRequests
from swarm.errors import PeerUnreachable
from swarm.io.answers import Answers
from swarm.io.dht import Dht
from swarm.io.tasks import Wakeup

MAX_RELAYS = 3
PING_SECONDS = 3.0
PINGS = 100
"""Between two announcements, when all goes well: five minutes."""

MOVE_SECONDS = 30.0
"""Between two announcements made because we are seen elsewhere: some routers never settle."""

RETRY_SECONDS = 10.0
"""After an announcement that nobody took."""

FAREWELL_SECONDS = 1.0
"""For taking announcements back when we close."""

_FAILURES = (PeerUnreachable, TooManyRequests, trio.ClosedResourceError)
_log = logging.getLogger("beemesh.dht")


class Announcer:
    """What keeps one key known; `run` does it."""

    def __init__(self, dht: Dht, key_pair: KeyPair) -> None:
        self.relays: tuple[RelayPair, ...] = ()
        """The nodes that pass messages on to us, and where each sees us."""
        self.announced = trio.Event()
        """The first announcement was made, whether or not a node took it."""
        self._dht = dht
        self._key_pair = key_pair
        self._target = peer_target(key_pair.public_key)
        self._closest: tuple[Address, ...] = ()
        self._trusted: list[frozenset[Address]] = [frozenset()] * 3  # of the last three rounds
        self._refreshed = Wakeup()
        self._moved_at = -math.inf

    @property
    def relay_addresses(self) -> tuple[Address, ...]:
        """Where others reach us, at most three; our own address first if it is open."""
        own = self._dht.public_address
        through = tuple(pair.relay for pair in self.relays)
        return ((own, *through) if own is not None else through)[:MAX_RECORD_RELAYS]

    def is_relay(self, address: Address) -> bool:
        """Whether we chose this node, in this round or one of the two before."""
        return any(address in chosen for chosen in self._trusted)

    def refresh(self) -> None:
        """Announce again now: the network has changed."""
        self._refreshed.set()

    async def run(self) -> None:
        """Announce until cancelled; then take the announcement back, for FAREWELL_SECONDS."""
        try:
            while True:
                await self._announce()
                self.announced.set()
                await self._keep_alive()
        finally:
            with self._dht.driver.farewell(FAREWELL_SECONDS):
                await self._forget_at([pair.relay for pair in self.relays])

    async def _announce(self) -> None:
        plan = plan_find_peer(self._key_pair.public_key)
        answers: Answers[None] = self._dht.driver.query(plan, _nothing, self._closest)
        try:
            result = await answers.wait_finished()
        finally:
            answers.cancel()
        taken: list[RelayPair] = []
        async with trio.open_nursery() as nursery:
            for reply in result.closest[:MAX_RELAYS]:
                nursery.start_soon(self._announce_at, reply, taken)
        self._closest = tuple(reply.source for reply in result.closest)
        before = {pair.relay for pair in self.relays}
        self.relays = tuple(taken)
        now = frozenset(pair.relay for pair in taken)
        self._trusted = [now, *self._trusted[:2]]
        if not taken:
            _log.info("no node took the announcement of %s", encode_id(self._key_pair.public_key))
        await self._forget_at(sorted(before - now))

    async def _announce_at(self, reply: Reply, taken: list[RelayPair]) -> None:
        call = sign_own_announcement(self._key_pair, reply)
        if call is None:
            return
        try:
            response = await self._dht.request(call)
        except _FAILURES:
            return
        if not response.error:
            taken.append(RelayPair(reply.source, reply.response.to))

    async def _keep_alive(self) -> None:
        """Return when it is time to announce again."""
        if not self.relays:
            with trio.move_on_after(RETRY_SECONDS):
                await self._refreshed.wait()
            return
        for _ in range(PINGS):
            with trio.move_on_after(PING_SECONDS):
                await self._refreshed.wait()
                return
            alive: list[RelayPair] = []
            async with trio.open_nursery() as nursery:
                for pair in self.relays:
                    nursery.start_soon(self._ping, pair.relay, alive)
            if len(alive) < len(self.relays) or self._has_moved(alive):
                return

    def _has_moved(self, alive: Sequence[RelayPair]) -> bool:
        """Whether what relays pass on goes to where we were."""
        now = trio.current_time()
        if now < self._moved_at + MOVE_SECONDS or set(alive) == set(self.relays):
            return False
        self._moved_at = now
        if not _hosts(alive) & _hosts(self.relays):
            self._dht.driver.wake_up()  # all say so: strangers reach us in another place, too
        return True

    async def _ping(self, relay: Address, alive: list[RelayPair]) -> None:
        try:
            pong = await self._dht.ping(relay)
        except _FAILURES:
            return
        alive.append(RelayPair(relay, pong.seen_as))

    async def _forget_at(self, relays: Sequence[Address]) -> None:
        async with trio.open_nursery() as nursery:
            for relay in relays:
                nursery.start_soon(self._unannounce_at, relay)

    async def _unannounce_at(self, relay: Address) -> None:
        """Get a token first; a node that does not know us has nothing to forget."""
        try:
            response = await self._dht.request(Call(relay, Command.FIND_PEER, target=self._target))
            if response.value and (
                call := sign_own_unannouncement(self._key_pair, relay, response)
            ):
                await self._dht.request(call)
        except _FAILURES:
            pass


def _hosts(pairs: Sequence[RelayPair]) -> set[str]:
    """The hosts at which these see us."""
    return {pair.peer[0] for pair in pairs}


def _nothing(_: Reply) -> None:
    return None
