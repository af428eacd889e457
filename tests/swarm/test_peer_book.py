from __future__ import annotations

import pytest

from hypercore.crypto import encode_id
from swarm.announcement import Announcement
from swarm.known_peer import (
    BACK_OFF_SECONDS,
    MAX_UNPROVEN_FAILURES,
    MISSED_BACK_OFF_SECONDS,
    PeerState,
    Priority,
    Source,
)
from swarm.peer_book import (
    MAX_CUTS,
    MAX_FOUND_PEERS,
    MAX_NEIGHBORS,
    MAX_REFUSALS,
    MAX_TOLD_PEERS,
    MISSED_SECONDS,
    OURSELVES_SECONDS,
    STABLE_SECONDS,
    PeerBook,
)

TOPIC = b"\x01" * 32
OTHER = b"\x02" * 32
KEY = b"\x03" * 32
HERE = (("192.0.2.7", 4000),)


def create_book(name: str = "n5") -> PeerBook:
    return PeerBook(name, entropy=bytes)


def announced(*topics: bytes) -> Announcement:
    return Announcement.of(topics, b"saltsalt")


def names(book: PeerBook, now: float) -> list[str]:
    return [dial.name for dial in book.plan_dials(now, 10)]


def test_static_peers_are_dialed_at_once_and_every_second_for_an_hour() -> None:
    book = create_book()
    book.add_static("example.org", 4000, KEY, 10.0)
    book.add_static("example.org", 4000, None, 11.0)
    now = book.deadline or 0.0
    assert now == 10.0
    for failure in range(5):
        (dial,) = book.plan_dials(now, 10)
        assert dial.addresses == (("example.org", 4000),)
        assert dial.expected_key == KEY
        assert dial.failures == failure
        assert book.plan_dials(now, 10) == [], "not twice at once"
        book.dial_failed(dial.name, "refused", now)
        wait = MISSED_BACK_OFF_SECONDS
        assert book.deadline == now + wait
        assert book.plan_dials(now + wait - 0.01, 10) == []
        now += wait
    (peer,) = book.peers
    assert (peer.failures, peer.last_error, peer.source) == (5, "refused", Source.STATIC)
    assert names(book, now) == ["example.org:4000"]
    book.dial_failed("example.org:4000", "no answer", 10.0 + MISSED_SECONDS)
    assert book.deadline == 10.0 + MISSED_SECONDS + BACK_OFF_SECONDS[-1]


def test_places_that_others_tell_of_are_tried_a_few_times_after_all_else() -> None:
    book = create_book()
    book.peer_told(("192.0.2.7", 4000), KEY, 0.0)
    book.peer_told("wss://example.org/mesh", KEY, 0.0)
    book.peer_told(("192.0.2.7", 4000), OTHER, 0.0)
    book.add_static("example.org", 4000, None, 5.0)
    dials = book.plan_dials(5.0, 10)
    assert [dial.name for dial in dials] == [
        "example.org:4000", "192.0.2.7:4000", "wss://example.org/mesh",
    ]  # fmt: skip
    assert [dial.expected_key for dial in dials] == [None, OTHER, KEY]
    now = 5.0
    for number in range(MAX_UNPROVEN_FAILURES + 1):
        book.dial_failed("192.0.2.7:4000", "nobody there", now)
        if number < MAX_UNPROVEN_FAILURES:
            now += 2 * BACK_OFF_SECONDS[number]
            assert "192.0.2.7:4000" in names(book, now)
    assert "192.0.2.7:4000" not in {peer.name for peer in book.peers}
    book.peer_told(("192.0.2.7", 4000), KEY, now)
    assert names(book, now)[-1] == "192.0.2.7:4000", "it was told of again"


def test_a_place_that_proved_its_key_is_kept_and_no_hearsay_changes_it() -> None:
    book = create_book()
    book.peer_told(("192.0.2.7", 4000), KEY, 0.0)
    assert names(book, 0.0) == ["192.0.2.7:4000"]
    book.dial_succeeded("192.0.2.7:4000", KEY)
    book.connection_opened(KEY, 0.0)
    book.peer_told(("192.0.2.7", 4000), OTHER, 1.0)
    book.connection_closed(KEY, 100.0)
    for second in range(10):
        (dial,) = book.plan_dials(102.0 + 2 * second, 10)
        assert dial.expected_key == KEY
        book.dial_failed(dial.name, "nobody there", 102.0 + 2 * second)


def test_who_is_said_to_be_there_is_dialed_a_second_after_it_hung_up() -> None:
    book = create_book()
    book.add_static("192.0.2.7", 4000, None, 0.0)
    for second in (0.0, 10.0):
        assert names(book, second) == ["192.0.2.7:4000"]
        book.dial_succeeded("192.0.2.7:4000", KEY)
        book.connection_opened(KEY, second)
        book.connection_closed(KEY, second + 0.25)
    assert names(book, 13.0) == [], "it does not seem to want us"
    book.peer_told(("192.0.2.7", 4000), OTHER, 13.0)
    assert names(book, 13.0) == [], "that is somebody else"
    book.peer_told(("192.0.2.7", 4000), KEY, 10.5)
    assert names(book, 11.0) == [], "whoever says so, it is left alone for a second"
    assert names(book, 11.5) == ["192.0.2.7:4000"]
    book.dial_succeeded("192.0.2.7:4000", KEY)
    book.connection_opened(KEY, 11.5)
    book.peer_told(("192.0.2.7", 4000), KEY, 11.6)
    book.connection_closed(KEY, 11.75)
    assert names(book, 13.0) == [], "what was said while it was connected is no news"


def test_many_places_that_others_tell_of_displace_nobody() -> None:
    book = create_book()
    for number in range(MAX_TOLD_PEERS + 9):
        book.peer_told(("192.0.2.7", 1 + number), number.to_bytes(32, "big"), 0.0)
    assert len(book.peers) == MAX_TOLD_PEERS
    book.join(TOPIC, 0.0)
    book.neighbor_seen("n1", HERE, announced(TOPIC), 0.0)
    book.add_static("192.0.2.7", 1, OTHER, 0.0)
    first, *_ = book.plan_dials(0.0, 10)
    assert (first.name, first.source) == ("192.0.2.7:1", Source.STATIC)
    assert "n1" in {peer.name for peer in book.peers}


def test_a_place_that_is_named_then_is_none_of_those_that_others_tell_of() -> None:
    book = create_book()
    for number in range(MAX_TOLD_PEERS + 9):
        book.peer_told(("192.0.2.7", 1 + number), number.to_bytes(32, "big"), 0.0)
    book.add_static("192.0.2.7", 1, OTHER, 0.0)
    book.peer_told(("192.0.2.9", 1), KEY, 0.0)
    assert "192.0.2.9:1" in {peer.name for peer in book.peers}


def test_a_key_that_is_told_of_at_many_places_leaves_room_for_others() -> None:
    book = create_book()
    for number in range(2 * MAX_TOLD_PEERS):
        book.peer_told(("192.0.2.7", 1 + number), KEY, 0.0)
    book.connection_opened(KEY, 1.0)  # from elsewhere: nothing comes of any of those places
    for number in range(MAX_TOLD_PEERS // 2):
        book.peer_told(("192.0.2.9", 1 + number), number.to_bytes(32, "big"), 1.0)
    assert len(book.peers) <= MAX_TOLD_PEERS
    assert len(book.plan_dials(1.0, MAX_TOLD_PEERS)) == MAX_TOLD_PEERS // 2


def test_a_key_keeps_the_place_where_it_was_rather_than_those_that_others_invent() -> None:
    book = create_book()
    book.peer_told(("192.0.2.7", 1), KEY, 0.0)
    (dial,) = book.plan_dials(0.0, 1)
    book.dial_succeeded(dial.name, KEY)
    book.connection_opened(KEY, 0.0)
    book.connection_closed(KEY, 0.5)
    for number in range(2 * MAX_TOLD_PEERS):
        book.peer_told(("192.0.2.66", 1 + number), KEY, 60.0)
    assert dial.name in {peer.name for peer in book.peers}


def test_of_many_keys_at_one_place_each_only_who_keeps_failing_makes_room() -> None:
    book = create_book()
    for number in range(MAX_TOLD_PEERS):
        book.peer_told(("192.0.2.7", 1 + number), number.to_bytes(32, "big"), 0.0)
    lost, *_ = book.plan_dials(0.0, MAX_TOLD_PEERS)
    book.peer_told(("192.0.2.9", 1), KEY, 0.0)
    assert lost.expected_key is not None
    book.dial_succeeded(lost.name, lost.expected_key)
    book.connection_opened(lost.expected_key, 0.0)
    book.connection_closed(lost.expected_key, 60.0)
    now = 60.0
    for _ in range(MAX_UNPROVEN_FAILURES):
        assert "192.0.2.9:1" not in {peer.name for peer in book.peers}
        now = book.deadline or 0.0
        assert names(book, now) == [lost.name]
        book.dial_failed(lost.name, "nobody there", now)
        book.peer_told(("192.0.2.9", 1), KEY, now)
    assert lost.name not in {peer.name for peer in book.peers}
    assert names(book, now) == ["192.0.2.9:1"]


def test_others_are_dialed_again_with_back_off() -> None:
    book = create_book("n9")
    book.join(TOPIC, 0.0)
    book.neighbor_seen("n1", HERE, announced(TOPIC), 0.0)
    now = book.deadline or 0.0
    for failure in range(5):
        assert names(book, now) == ["n1"]
        book.dial_failed("n1", "no answer", now)
        wait = BACK_OFF_SECONDS[min(failure, len(BACK_OFF_SECONDS) - 1)]
        assert book.deadline == now + wait
        now += wait


def test_where_something_else_answers_there_is_nobody_to_be_missed() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    for attempt in range(1, MAX_CUTS + 2):
        now = book.deadline or 0.0
        assert names(book, now) == ["a:1"]
        book.dial_failed("a:1", "no handshake", now, is_answered=True)
        patient = attempt > MAX_CUTS
        assert book.deadline == now + (
            BACK_OFF_SECONDS[attempt - 1] if patient else MISSED_BACK_OFF_SECONDS
        )


def test_waits_vary_by_up_to_a_quarter() -> None:
    book = PeerBook("n5", entropy=lambda size: b"\xff" * size)
    book.add_static("a", 1, None, 0.0)
    book.plan_dials(0.0, 1)
    book.dial_failed("a:1", "", 0.0)
    assert book.deadline == pytest.approx(1.25, abs=0.001)


def test_a_connection_that_lasted_clears_failures() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    for lasted, failures in ((0.5, 1), (0.75, 2), (STABLE_SECONDS, 1)):
        now = book.deadline or 0.0
        assert names(book, now) == ["a:1"]
        book.dial_succeeded("a:1", KEY)
        book.connection_opened(KEY, now)
        assert book.peers[0].state is PeerState.CONNECTED
        assert book.deadline is None
        book.connection_closed(KEY, now + lasted)
        assert book.peers[0].failures == failures
        assert book.deadline == now + lasted + BACK_OFF_SECONDS[failures - 1]


def test_peers_known_to_be_connected_otherwise_are_not_dialed() -> None:
    book = create_book()
    book.connection_opened(KEY, 0.0)
    book.add_static("a", 1, KEY, 0.0)
    assert book.deadline is None
    assert names(book, 1.0) == []
    assert book.peers[0].state is PeerState.CONNECTED
    book.connection_closed(KEY, 5.0)
    assert book.deadline == 6.0


def test_removed_peers_are_forgotten() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    assert names(book, 0.0) == ["a:1"]
    book.remove_static("a", 1)
    book.dial_failed("a:1", "", 0.0)
    book.dial_succeeded("a:1", KEY)
    book.found_ourselves("a:1", 1.0)
    assert book.peers == []


def test_ourselves_are_dialed_a_minute_later_and_refused_keys_never() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    book.plan_dials(0.0, 1)
    book.found_ourselves("a:1", 1.0)
    book.add_static("b", 1, KEY, 0.0)
    book.refuse(KEY)
    assert book.is_refused(KEY)
    assert not book.has_untried
    assert names(book, 1.0 + OURSELVES_SECONDS - 0.1) == []
    assert book.deadline == 1.0 + OURSELVES_SECONDS
    assert {peer.state for peer in book.peers} == {PeerState.OURSELVES, PeerState.WAITING}
    assert names(book, 1.0 + OURSELVES_SECONDS) == ["a:1"]
    book.dial_succeeded("a:1", OTHER)
    assert book.peers[0].state is PeerState.CONNECTED, "there are others of that name"
    book.found_ourselves("a:1", 99.0)
    book.forget_failures(100.0)
    assert names(book, 100.0) == ["a:1"], "on another network it may be another one's"


def test_neighbors_without_a_common_topic_are_not_dialed() -> None:
    book = create_book()
    book.neighbor_seen("n1", HERE, announced(TOPIC), 0.0)
    assert book.deadline is None
    book.join(OTHER, 1.0)
    assert book.deadline is None
    book.join(TOPIC, 2.0)
    assert names(book, 2.0) == ["n1"]
    (peer,) = book.peers
    assert (set(peer.topics), peer.source) == ({TOPIC}, Source.LAN)
    book.leave(TOPIC, 3.0)
    book.dial_failed("n1", "", 3.0)
    assert book.deadline is None
    assert book.topics == {OTHER}


def test_of_two_neighbors_the_one_with_the_larger_name_dials_first() -> None:
    book = create_book("n5")
    book.join(TOPIC, 0.0)
    book.neighbor_seen("n1", HERE, announced(TOPIC), 0.0)
    book.neighbor_seen("n9", HERE, announced(TOPIC), 0.0)
    assert names(book, 0.5) == ["n1"]
    assert names(book, 1.0) == ["n9"]


def test_a_neighbor_may_change_its_topics_move_and_leave() -> None:
    book = create_book()
    book.join(TOPIC, 0.0)
    book.neighbor_seen("n1", HERE, announced(OTHER), 0.0)
    assert book.deadline is None
    book.neighbor_seen("n1", HERE, announced(OTHER, TOPIC), 1.0)
    assert names(book, 1.0) == ["n1"]
    book.dial_failed("n1", "", 1.0)
    there = (("192.0.2.8", 4000),)
    book.neighbor_seen("n1", there, announced(TOPIC), 1.5)
    (dial,) = book.plan_dials(1.5, 1)
    assert dial.addresses == there
    assert dial.failures == 0
    book.neighbor_left("n1")
    assert book.peers == []


def test_ourselves_and_neighbors_without_address_are_no_neighbors() -> None:
    book = create_book("n5")
    book.neighbor_seen("n5", HERE, announced(TOPIC), 0.0)
    book.neighbor_seen("n6", (), announced(TOPIC), 0.0)
    assert book.peers == []


def test_neighbors_are_bounded() -> None:
    book = create_book()
    for number in range(MAX_NEIGHBORS + 10):
        book.neighbor_seen(f"m{number}", HERE, announced(TOPIC), 0.0)
    assert len(book.peers) == MAX_NEIGHBORS


def test_neighbors_with_other_topics_make_room_for_those_with_ours() -> None:
    """A thousand of them, which cost 256 KB, kept all others from being found for hours."""
    book = create_book()
    book.join(TOPIC, 0.0)
    for number in range(MAX_NEIGHBORS):
        book.neighbor_seen(f"m{number}", HERE, announced(OTHER), 0.0)
    book.neighbor_seen("one more", HERE, announced(OTHER), 0.0)
    book.neighbor_seen("friend", HERE, announced(TOPIC), 0.0)
    known = {peer.name for peer in book.peers}
    assert len(known) == MAX_NEIGHBORS
    assert "friend" in known
    assert "one more" not in known
    for number in range(MAX_NEIGHBORS):
        book.neighbor_seen(f"f{number}", HERE, announced(TOPIC), 0.0)
    assert len(book.peers) == MAX_NEIGHBORS
    assert all(peer.topics for peer in book.peers), "and no more than there is room for"


def test_dials_are_limited_and_the_longest_waiting_goes_first() -> None:
    book = create_book()
    for number in (3, 1, 2):
        book.add_static("a", number, None, float(number))
    assert [dial.name for dial in book.plan_dials(5.0, 2)] == ["a:1", "a:2"]
    assert book.plan_dials(5.0, 0) == []
    assert names(book, 5.0) == ["a:3"]
    book.dial_given_up("a:2", 6.0)
    book.dial_given_up("b:2", 6.0)
    assert [(dial.name, dial.failures) for dial in book.plan_dials(6.0, 9)] == [("a:2", 0)]


def test_a_neighbor_where_nobody_listens_any_more_is_forgotten() -> None:
    book = create_book()
    book.join(TOPIC, 0.0)
    book.neighbor_seen("n1", HERE, announced(TOPIC), 0.0)
    for refusals in (1, 2, 1, 2, 3):
        now = book.deadline or 0.0
        if refusals == 1:  # no answer says nothing, and what was counted before is void
            book.plan_dials(now, 1)
            book.dial_failed("n1", "no answer", now)
            now = book.deadline or 0.0
        assert names(book, now) == ["n1"]
        book.dial_failed("n1", "refused", now, is_refused=True)
        assert bool(book.peers) == (refusals < MAX_REFUSALS)
    book.neighbor_seen("n1", HERE, announced(TOPIC), 100.0)
    assert names(book, 100.0) == ["n1"], "until it announces itself again"


def test_a_static_peer_is_never_forgotten() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    for _ in range(MAX_REFUSALS + 1):
        now = book.deadline or 0.0
        book.plan_dials(now, 1)
        book.dial_failed("a:1", "refused", now, is_refused=True)
    assert len(book.peers) == 1


def test_who_was_connected_is_dialed_every_second_for_an_hour() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    assert names(book, 0.0) == ["a:1"]
    book.dial_succeeded("a:1", KEY)
    book.connection_opened(KEY, 0.0)
    book.connection_closed(KEY, 5.0)
    dials = 0
    while (now := book.deadline or 0.0) < 5.0 + MISSED_SECONDS:
        assert names(book, now) == ["a:1"]
        book.dial_failed("a:1", "no answer", now)
        dials += 1
    assert dials == MISSED_SECONDS / MISSED_BACK_OFF_SECONDS - 1
    assert names(book, now) == ["a:1"]
    book.dial_failed("a:1", "no answer", now)
    assert book.deadline == now + BACK_OFF_SECONDS[-1]


def test_who_hangs_up_at_once_again_and_again_is_not_missed() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    for failures in range(1, 5):
        now = book.deadline or 0.0
        assert names(book, now) == ["a:1"]
        book.dial_succeeded("a:1", KEY)
        book.connection_opened(KEY, now)
        book.connection_closed(KEY, now)
        wait = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1]
        assert book.deadline == now + wait


def test_who_was_connected_and_starts_anew_is_missed_unless_that_goes_on() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    for _ in range(5):
        now = book.deadline or 0.0
        assert names(book, now) == ["a:1"]
        book.dial_failed("a:1", "no answer", now)
    for attempt in range(1, MAX_CUTS + 2):
        now = book.deadline or 0.0
        assert names(book, now) == ["a:1"]
        book.dial_succeeded("a:1", KEY)
        book.connection_opened(KEY, now)
        book.connection_closed(KEY, now + 0.1)
        is_missed = attempt <= MAX_CUTS
        wait = MISSED_BACK_OFF_SECONDS if is_missed else BACK_OFF_SECONDS[-1]
        assert book.deadline == now + 0.1 + wait


def test_who_let_us_in_is_missed_for_an_hour_however_soon_it_goes_each_time() -> None:
    book = create_book()
    book.peer_found(KEY, HERE, frozenset((TOPIC,)), 0.0)
    book.join(TOPIC, 0.0)
    book.peer_found(KEY, HERE, frozenset((TOPIC,)), 0.0)
    (name,) = names(book, 0.0)
    now = 0.0
    while now < MISSED_SECONDS:
        book.dial_succeeded(name, KEY)
        book.connection_opened(KEY, now)
        book.connection_closed(KEY, now, says_nothing=True)
        assert book.deadline == now + MISSED_BACK_OFF_SECONDS
        now = book.deadline
        assert names(book, now) == [name]
    book.dial_succeeded(name, KEY)
    book.connection_opened(KEY, now)
    book.connection_closed(KEY, now, says_nothing=True)
    assert book.deadline == now + BACK_OFF_SECONDS[-1], "that is no way to be a member"


def test_a_connection_of_which_the_end_says_nothing_ends_a_row_of_cuts() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    for attempt in range(5):
        for says_nothing in (False, True):
            now = book.deadline or 0.0
            assert names(book, now) == ["a:1"], attempt
            book.dial_succeeded("a:1", KEY)
            book.connection_opened(KEY, now)
            book.connection_closed(KEY, now + 0.1, says_nothing=says_nothing)
            assert book.deadline == now + 0.1 + MISSED_BACK_OFF_SECONDS


def test_a_peer_is_dialed_beside_a_connection_that_is_in_doubt() -> None:
    book = create_book()
    book.add_static("a", 1, None, 0.0)
    assert names(book, 0.0) == ["a:1"]
    book.dial_succeeded("a:1", KEY)
    book.connection_opened(KEY, 0.0)
    book.connection_doubted(b"\x09" * 32, 5.0)
    assert names(book, 5.0) == [], "of another one"
    book.connection_doubted(KEY, 5.0)
    assert names(book, 5.0) == ["a:1"]
    assert book.peers[0].state is PeerState.CONNECTED
    book.dial_failed("a:1", "no answer", 10.0)
    book.connection_doubted(KEY, 10.5)
    assert book.deadline == 11.0, "a doubt that goes on is no reason to hurry"
    book.connection_trusted(KEY)
    assert names(book, 19.0) == []
    book.connection_doubted(KEY, 20.0)
    assert names(book, 20.0) == ["a:1"]
    book.dial_succeeded("a:1", KEY)
    book.connection_opened(KEY, 20.1)  # took the place of the first
    assert names(book, 29.0) == []
    book.connection_closed(KEY, 30.0)
    assert book.deadline == 31.0


def test_another_connection_with_a_key_keeps_its_time() -> None:
    book = create_book()
    book.add_static("a", 1, KEY, 0.0)
    book.plan_dials(0.0, 1)
    book.dial_failed("a:1", "", 0.0)
    book.connection_opened(KEY, 1.0)
    book.connection_opened(KEY, 1.0 + STABLE_SECONDS)  # replaces the first
    book.connection_closed(KEY, 2.0 + STABLE_SECONDS)
    assert book.peers[0].failures == 1, "cleared, and the end counts"
    book.connection_closed(KEY, 99.0)
    assert book.peers[0].failures == 2, "one that was not let in clears nothing"


FOUND_KEY = b"\x61" * 32
FOUND_TOPIC = b"\x62" * 32
RELAYS = (("192.0.2.1", 49737),)


def test_a_peer_of_the_table_is_dialed_by_its_key_and_forgotten_if_nothing_comes_of_it() -> None:
    book = PeerBook("me")
    book.join(FOUND_TOPIC, 0.0)
    book.peer_found(FOUND_KEY, RELAYS, frozenset((FOUND_TOPIC, b"\x63" * 32)), 0.0)
    (info,) = book.peers
    assert (info.source, info.topics) == (Source.DHT, frozenset({FOUND_TOPIC})), (
        "only topics of ours count"
    )
    now = 0.0
    for _ in range(MAX_UNPROVEN_FAILURES + 1):
        assert book.plan_dials(now, 9)[0].expected_key == FOUND_KEY
        (peer,) = book.peers
        book.dial_failed(peer.name, "silence", now)
        now += 100.0
    assert book.peers == []
    book.peer_found(FOUND_KEY, RELAYS, frozenset((FOUND_TOPIC,)), now)
    (dial,) = book.plan_dials(now, 9)
    assert (dial.failures, dial.addresses) == (0, RELAYS), "found again, it gets another chance"


def test_a_key_that_was_asked_for_is_dialed_on_and_others_are_bounded() -> None:
    book = PeerBook("me")
    book.join(FOUND_TOPIC, 0.0)
    book.add_key(FOUND_KEY, (), 0.0)
    now = 0.0
    for _ in range(10):
        (dial,) = book.plan_dials(now, 9)
        book.dial_failed(dial.name, "silence", now)
        now += 100.0
    for index in range(MAX_FOUND_PEERS + 5):
        book.peer_found(index.to_bytes(32, "big"), RELAYS, frozenset((FOUND_TOPIC,)), now)
    assert len(book.peers) == MAX_FOUND_PEERS
    book.add_key(OTHER, (), now)
    assert encode_id(OTHER) in names(book, now), "whom strangers name displaces nobody"
    book.remove_key(FOUND_KEY)
    book.remove_key(OTHER)
    book.leave(FOUND_TOPIC, now)
    assert book.plan_dials(now, 9) == []


def test_who_is_wanted_no_more_makes_room() -> None:
    book = PeerBook("me")
    book.join(FOUND_TOPIC, 0.0)
    for index in range(MAX_FOUND_PEERS - 1):
        book.peer_found(index.to_bytes(32, "big"), RELAYS, frozenset((FOUND_TOPIC,)), 0.0)
    book.add_key(OTHER, (), 0.0)
    (dialed,) = book.plan_dials(0.0, 1)
    book.leave(FOUND_TOPIC, 1.0)
    book.join(FOUND_TOPIC, 2.0)
    assert len(book.plan_dials(2.0, MAX_FOUND_PEERS)) == MAX_FOUND_PEERS - 1, "joined anew"
    for peer in book.peers:
        if peer.name != dialed.name:
            book.dial_failed(peer.name, "silence", 3.0)
    book.leave(FOUND_TOPIC, 4.0)
    book.remove_key(OTHER)
    book.join(TOPIC, 5.0)
    book.peer_found(FOUND_KEY, RELAYS, frozenset((TOPIC,)), 5.0)
    assert {peer.name for peer in book.peers} == {dialed.name, encode_id(FOUND_KEY)}
    assert names(book, 5.0) == [encode_id(FOUND_KEY)]


def test_on_another_network_what_failed_is_tried_at_once() -> None:
    book = PeerBook("me")
    book.add_key(FOUND_KEY, (), 0.0)
    for now in (0.0, 100.0, 200.0):
        (dial,) = book.plan_dials(now, 9)
        book.dial_failed(dial.name, "silence", now)
    assert book.plan_dials(201.0, 9) == []
    book.forget_failures(201.0)
    assert [dial.failures for dial in book.plan_dials(201.0, 9)] == [0]


def test_a_refused_key_is_not_even_remembered() -> None:
    book = PeerBook("me")
    book.refuse(FOUND_KEY)
    book.add_key(FOUND_KEY, RELAYS, 0.0)
    assert book.peers == []


def test_of_those_who_are_due_the_most_important_go_first() -> None:
    book = create_book()
    book.join(TOPIC, 0.0)
    keys = {
        name: bytes([index]) * 32 for index, name in enumerate(("new", "lost", "stale", "named"))
    }
    for key in (keys["stale"], keys["lost"], keys["new"]):
        book.peer_found(key, (), frozenset((TOPIC,)), 0.0)
    book.add_key(keys["named"], (), 0.0)
    lost, stale = (encode_id(keys[name]) for name in ("lost", "stale"))
    assert len(book.plan_dials(0.0, 10)) == 4
    book.dial_failed(stale, "no answer", 0.0)
    book.dial_succeeded(lost, keys["lost"])
    book.connection_opened(keys["lost"], 0.0)
    book.connection_closed(keys["lost"], 20.0)
    book.dial_failed(encode_id(keys["new"]), "", 0.0)
    book.dial_failed(encode_id(keys["named"]), "", 0.0)
    by_key = {peer.public_key: peer.priority for peer in book.peers}
    assert by_key[keys["lost"]] is Priority.LOST_JUST_NOW
    assert by_key[keys["stale"]] is Priority.STALE
    assert by_key[keys["named"]] is Priority.NAMED
    fresh = b"\x09" * 32
    book.peer_found(fresh, (), frozenset((TOPIC,)), 100.0)
    dialed = [dial.expected_key for dial in book.plan_dials(200.0, 3)]
    assert dialed == [keys["named"], keys["lost"], fresh]


def test_a_websocket_lets_other_ways_go_first() -> None:
    book = create_book()
    book.add_websocket("wss://example.org/mesh", KEY, 10.0)
    book.add_static("example.org", 4000, KEY, 10.0)
    (dial,) = book.plan_dials(10.0, 5)
    assert (dial.url, dial.addresses) == (None, (("example.org", 4000),))
    (dial,) = book.plan_dials(11.0, 5)
    assert (dial.url, dial.addresses) == ("wss://example.org/mesh", ())
    untried = [book.has_untried]
    book.dial_succeeded("example.org:4000", KEY)
    book.connection_opened(KEY, 11.0)
    book.dial_failed(dial.name, "", 11.0)
    assert [*untried, book.has_untried] == [True, False]
    assert book.plan_dials(1000.0, 5) == [], "one connection is enough"
    book.remove_websocket("wss://example.org/mesh")
    assert [peer.name for peer in book.peers] == ["example.org:4000"]


def test_a_refused_key_may_be_allowed_again() -> None:
    book = create_book()
    book.add_static("a", 1, KEY, 0.0)
    book.refuse(KEY)
    assert book.plan_dials(0.0, 5) == []
    book.allow(KEY, 5.0)
    assert not book.is_refused(KEY)
    assert names(book, 5.0) == ["a:1"]


def test_a_neighbor_that_calls_itself_by_the_name_of_another_peer_is_not_that_peer() -> None:
    """Found in review: its goodbye had a peer forgotten that was named by the user."""
    book = create_book()
    book.add_static("example", 4000, None, 0.0)
    book.add_key(KEY, (), 0.0)
    for name in ("example:4000", encode_id(KEY)):
        book.neighbor_seen(name, (("192.0.2.66", 6),), announced(), 0.0)
        book.neighbor_left(name)
    dials = {dial.name: dial.addresses for dial in book.plan_dials(0.0, 10)}
    assert dials == {"example:4000": (("example", 4000),), encode_id(KEY): ()}
