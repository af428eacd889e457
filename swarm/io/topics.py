"""Topics in the distributed hash table: announced, looked up, and kept fresh.

Announcing walks to where a topic is kept, and sees on the way who else announces it: one query
does both. It is repeated after a quarter of a minute, and then every ten to twelve minutes, since
records live for twenty. A topic that is left, or only looked up from now on, is taken back.

Nodes of the originals keep the record that they have, and its relays, until it is about to expire:
ours is taken back before one that names other relays is made. The originals do so at the first
announcement only.

Source: hyperswarm 4.17.2 lib/peer-discovery.js; hyperdht 6.34.0 lib/persistent.js.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from hypercore.crypto import Entropy, KeyPair
from swarm.announcement import Address
from swarm.dht.operations import (
    PeersFound,
    plan_announce,
    plan_lookup,
    plan_unannounce,
    read_lookup,
)
from swarm.dht.query import QueryPlan, QueryResult, Reply
from swarm.io.answers import Answers
from swarm.io.dht import Dht
from swarm.io.tasks import Wakeup, open_background_nursery

REFRESH_SECONDS = 600.0
JITTER = 0.2
"""The share by which a wait may be longer, so that nodes do not stay in step."""

LOOK_AGAIN_SECONDS = 15.0
"""After the first look-up: two who join at the same time look before either is announced."""

RETRY_SECONDS = 15.0
"""After an announcement that no node took: the network may be unreachable just now."""

FAREWELL_SECONDS = 1.0
"""For taking a topic back."""

MAX_FOUND = 1024
"""Peers found that nobody has looked at yet; more are dropped, and found again later."""

_log = logging.getLogger("beemesh.swarm")


@dataclass(frozen=True, slots=True)
class Interest:
    """What a topic is joined for."""

    is_server: bool = True
    """Be found by others."""
    is_client: bool = True
    """Find others."""
    limit: int | None = None
    """How many peers one look-up may bring."""


@dataclass(frozen=True, slots=True)
class TopicPeer:
    """A key that, as nodes of the table say, announces these topics; only a handshake proves it."""

    public_key: bytes
    relay_addresses: tuple[Address, ...]
    topics: frozenset[bytes]


class Server(Protocol):
    """What is needed of a key's `swarm.io.peer_server.PeerServer`."""

    @property
    def relay_addresses(self) -> tuple[Address, ...]:
        """Where handshakes for the key can be sent to."""

    async def wait_announced(self) -> None:
        """Return when these addresses are known."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where nodes hold a topic for us, and what they were told."""

    closest: tuple[Address, ...]
    relays: frozenset[Address]  # in whatever order, as their answers come


class Topics:
    """The topics of one key; made by `open_topics`."""

    def __init__(
        self, dht: Dht, key_pair: KeyPair, server: Server, nursery: trio.Nursery,
        entropy: Entropy,
    ) -> None:  # fmt: skip
        self._dht = dht
        self._key_pair = key_pair
        self._server = server
        self._nursery = nursery
        self._entropy = entropy
        self._scopes: dict[bytes, trio.CancelScope] = {}
        self._interests: dict[bytes, Interest] = {}
        self._refreshed: dict[bytes, Wakeup] = {}
        self._announced: set[bytes] = set()
        self._stored: dict[bytes, _Stored] = {}  # one task at a time deals with a topic
        self._turns: WeakValueDictionary[bytes, trio.Lock] = WeakValueDictionary()
        self._changed = trio.Event()
        self._found: dict[bytes, TopicPeer] = {}
        self._news = Wakeup()

    def keep(self, interests: Mapping[bytes, Interest]) -> None:
        """Announce and look up these, and no others, from now on."""
        for topic in [t for t in self._scopes if interests.get(t) != self._interests[t]]:
            self._scopes.pop(topic).cancel()
            del self._refreshed[topic], self._interests[topic]
            self._announced.discard(topic)
        for topic in sorted(interests.keys() - self._scopes.keys()):
            interest = self._interests[topic] = interests[topic]
            scope = self._scopes[topic] = trio.CancelScope()
            refreshed = self._refreshed[topic] = Wakeup()
            turn = self._turns.setdefault(topic, trio.Lock())
            self._nursery.start_soon(self._keep, topic, interest, scope, refreshed, turn)

    def refresh(self, topic: bytes | None = None) -> None:
        """Announce and look up a topic again now, or all of them."""
        for joined, refreshed in self._refreshed.items():
            if topic in (None, joined):
                refreshed.set()

    async def wait_announced(self) -> None:
        """Return when nodes have taken, or told what they know of, every topic that is wanted.

        Cancel: nothing changes.
        """
        while not self._scopes.keys() <= self._announced:
            await self._changed.wait()

    @property
    def has_news(self) -> bool:
        """Whether somebody was found whom `receive` has not told of."""
        return bool(self._found)

    async def receive(self) -> list[TopicPeer]:
        """The peers found since the last call, at least one.

        Cancel: nothing is lost.
        """
        while not self._found:
            await self._news.wait()
        found, self._found = list(self._found.values()), {}
        return found

    async def _keep(
        self,
        topic: bytes,
        interest: Interest,
        scope: trio.CancelScope,
        refreshed: Wakeup,
        turn: trio.Lock,
    ) -> None:
        """Keep one topic, until it is left.

        A new join waits until it is taken back, since that would hit the new announcement.
        """
        with scope:
            async with turn:
                try:
                    await self._keep_fresh(topic, interest, refreshed)
                finally:
                    if topic in self._stored and not self._is_taken_over(topic, scope):
                        with self._dht.driver.farewell(FAREWELL_SECONDS):
                            await self._forget(topic, self._stored.pop(topic).closest)

    async def _keep_fresh(self, topic: bytes, interest: Interest, refreshed: Wakeup) -> None:
        """Announce and look up, again and again; runs until cancelled."""
        closest = self._stored[topic].closest if topic in self._stored else ()
        looks_again = interest.is_client
        if interest.is_server:
            await self._server.wait_announced()
        while True:
            plan, relays = plan_lookup(topic), self._server.relay_addresses
            if interest.is_server:
                is_same = topic in self._stored and self._stored[topic].relays == set(relays)
                plan = plan_announce(topic, self._key_pair, relays, clear=not is_same)
            result = await self._walk(topic, interest, plan, closest)
            closest = tuple(reply.source for reply in result.closest)
            if result.stored and interest.is_server:
                self._stored[topic] = _Stored(closest, frozenset(relays))
            seconds = RETRY_SECONDS
            if result.stored if interest.is_server else closest:
                seconds = LOOK_AGAIN_SECONDS if looks_again else REFRESH_SECONDS
                seconds *= 1 + JITTER * int.from_bytes(self._entropy(2), "little") / 2**16
                looks_again = False
                self._announced.add(topic)
                self._changed.set()
                self._changed = trio.Event()
            with trio.move_on_after(seconds):
                await refreshed.wait()

    def _is_taken_over(self, topic: bytes, scope: trio.CancelScope) -> bool:
        """Whether a task other than the one with this scope goes on to announce a topic."""
        is_same = self._scopes.get(topic) is scope
        return not is_same and topic in self._interests and self._interests[topic].is_server

    async def _walk(
        self, topic: bytes, interest: Interest, plan: QueryPlan, remembered: Sequence[Address]
    ) -> QueryResult:
        """Walk to where the topic is kept."""
        answers = self._dht.driver.query(plan, read_lookup, remembered)
        brought: set[bytes] = set()
        try:
            async for found in answers:
                if interest.is_client:
                    self._add(topic, found, brought, interest.limit)
        finally:
            answers.cancel()
        result = answers.result
        assert result is not None  # it ended by itself
        if interest.is_server and not result.stored:
            _log.info("no node of the DHT took a topic: %d did not answer", result.timeouts)
        return result

    def _add(self, topic: bytes, found: PeersFound, brought: set[bytes], limit: int | None) -> None:
        for record in found.records:
            key = record.public_key
            is_beyond = limit is not None and key not in brought and len(brought) >= limit
            if key == self._key_pair.public_key or is_beyond:
                continue
            brought.add(key)
            known = self._found.get(key)
            if known is not None:
                self._found[key] = replace(known, topics=known.topics | {topic})
            elif len(self._found) < MAX_FOUND:
                relays = record.relay_addresses
                self._found[key] = TopicPeer(key, relays, frozenset((topic,)))
        self._news.set()

    async def _forget(self, topic: bytes, closest: Sequence[Address]) -> None:
        plan = plan_unannounce(topic, self._key_pair)
        answers: Answers[None] = self._dht.driver.query(plan, _nothing, closest)
        try:
            await answers.wait_finished()
        finally:
            answers.cancel()


def _nothing(_: Reply) -> None:
    return None


@asynccontextmanager
async def open_topics(
    dht: Dht, key_pair: KeyPair, server: Server, entropy: Entropy
) -> AsyncIterator[Topics]:
    """Announce topics for a key that `server` serves, until the body ends; then take them back.

    Cancel: takes them back, for at most FAREWELL_SECONDS.
    """
    async with open_background_nursery() as nursery:
        yield Topics(dht, key_pair, server, nursery, entropy)
