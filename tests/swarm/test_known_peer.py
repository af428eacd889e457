"""One peer: how important it is, when it is dialed again, and whether anybody wants it."""

from __future__ import annotations

import math

import pytest

from swarm.announcement import MAX_TOPICS, Announcement
from swarm.known_peer import (
    BACK_OFF_SECONDS,
    MAX_UNPROVEN_FAILURES,
    MISSED_BACK_OFF_SECONDS,
    KnownPeer,
    PeerState,
    Priority,
    Source,
)

KEY = b"\x03" * 32
TOPIC, OTHER = b"\x01" * 32, b"\x02" * 32


@pytest.mark.parametrize(
    ("failures", "priority"),
    [
        (0, Priority.NEW),
        (1, Priority.LOST_JUST_NOW),
        (2, Priority.LOST),
        (3, Priority.FAILING),
        (4, Priority.STALE),
    ],
)
def test_who_was_connected_comes_before_strangers_until_it_fails_too_often(
    failures: int, priority: Priority
) -> None:
    for source in (Source.LAN, Source.DHT):
        known = KnownPeer("n1", source, (), public_key=KEY, failures=failures)
        assert known.priority is priority
        stranger = KnownPeer("n1", source, (), failures=failures)
        assert stranger.priority is (Priority.STALE if failures else Priority.NEW)
        named = KnownPeer("n1", source, (), failures=failures, is_explicit=True)
        assert named.priority is Priority.NAMED
    assert KnownPeer("host:1", Source.STATIC, (), failures=failures).priority is Priority.NAMED


def test_each_failure_postpones_the_next_dial_further() -> None:
    peer = KnownPeer("n1", Source.LAN, (), state=PeerState.DIALING)
    pauses = []
    for _ in range(5):
        peer.postpone(100.0, jitter=0.25)
        pauses.append((peer.next_attempt - 100.0) / 1.25)
    assert pauses == [*BACK_OFF_SECONDS, BACK_OFF_SECONDS[-1], BACK_OFF_SECONDS[-1]]
    assert (peer.failures, peer.state) == (5, PeerState.WAITING)


def test_a_peer_that_is_missed_is_dialed_often_whatever_failed() -> None:
    peer = KnownPeer("n1", Source.LAN, (), failures=9, missed_until=200.0)
    peer.postpone(199.0, jitter=0.0)
    assert peer.next_attempt == 199.0 + MISSED_BACK_OFF_SECONDS
    peer.postpone(200.0, jitter=0.0)
    assert peer.next_attempt == 200.0 + BACK_OFF_SECONDS[-1]
    peer.dial_by(300.0)
    assert peer.next_attempt == 200.0 + BACK_OFF_SECONDS[-1]
    peer.dial_by(201.0)
    assert peer.next_attempt == 201.0


def test_who_gets_wanted_by_a_topic_is_dialed_from_then_on() -> None:
    neighbor = KnownPeer("n1", Source.LAN, (), announcement=Announcement.of([TOPIC], b"saltsalt"))
    found = KnownPeer("key", Source.DHT, (), found_topics=frozenset([TOPIC]))
    for peer in (neighbor, found):
        peer.match({OTHER}, 5.0)
        assert (peer.is_wanted, peer.next_attempt) == (False, 0.0)
        peer.match({OTHER, TOPIC}, 6.0)
        assert (peer.topics, peer.is_wanted, peer.next_attempt) == (frozenset([TOPIC]), True, 6.0)
        peer.match({TOPIC}, 9.0)
        assert peer.next_attempt == 6.0, "it was wanted before"
    static = KnownPeer("host:1", Source.STATIC, ())
    static.match({TOPIC}, 5.0)
    assert (static.topics, static.is_wanted) == (frozenset(), True)


def test_what_a_neighbor_announces_in_turns_it_announces_also_between_them() -> None:
    many = [bytes((index,)) * 32 for index in range(100, 101 + MAX_TOPICS)]
    neighbor = KnownPeer("n1", Source.LAN, ())
    for turn, is_complete in ((0, False), (1, True)):
        neighbor.announcement = Announcement.of(many, b"saltsalt", turn)
        neighbor.match(set(many), 0.0)
        assert (neighbor.topics == set(many)) is is_complete
    neighbor.announcement = Announcement.of(many[:2], b"saltsalt")
    neighbor.match(set(many), 0.0)
    assert neighbor.topics == set(many[:2]), "these are all"


def test_only_what_strangers_said_is_forgotten() -> None:
    failures = MAX_UNPROVEN_FAILURES + 1
    assert KnownPeer("key", Source.DHT, (), failures=failures).is_forgettable
    assert not KnownPeer("key", Source.DHT, (), failures=failures - 1).is_forgettable
    assert not KnownPeer("key", Source.DHT, (), failures=failures, is_explicit=True).is_forgettable
    assert not KnownPeer("n1", Source.LAN, (), failures=failures).is_forgettable


def test_people_see_the_key_it_proved_or_has_to_prove() -> None:
    peer = KnownPeer("key", Source.DHT, (), expected_key=KEY)
    assert peer.missed_until == -math.inf
    info = peer.info(is_connected=True)
    assert (info.public_key, info.state) == (KEY, PeerState.CONNECTED)
    assert peer.info(is_connected=False).state is PeerState.WAITING
