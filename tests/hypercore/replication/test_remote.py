from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from hypercore.encoding import MAX_UINT
from hypercore.replication.messages import HaveBits, Range, Sync
from hypercore.replication.remote import RemotePeer
from hypercore.replication.statistics import Counters
from hypercore.replication.uploads import Uploads
from hypercore.replication.wants import WINDOW_BLOCKS
from hypercore.storage.memory import MemoryStorage
from tests.support.memory_log import MemoryLog
from tests.support.stored_logs import open_log

LENGTH = 200


def peer() -> RemotePeer:
    counters = Counters()
    return RemotePeer(Uploads(MemoryLog(key=bytes(32)), counters), counters)


def sync(length: int, *, fork: int = 0, acknowledged: int = 0, can_upgrade: bool = True) -> Sync:
    return Sync(fork, length, acknowledged, can_upgrade, True, True, True, False)


ranges = st.builds(Range, st.integers(0, LENGTH), st.integers(0, LENGTH), st.booleans())
bits = st.builds(
    HaveBits,
    st.integers(0, 5).map(lambda word: word * 32),
    st.integers(0, 3).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count)),
)


@given(st.lists(st.one_of(ranges, bits), max_size=20))
def test_what_a_peer_has_is_what_it_last_said_of_each_block(
    messages: list[Range | HaveBits],
) -> None:
    remote = peer()
    model: set[int] = set()
    for message in messages:
        if isinstance(message, Range):
            remote.receive_range(message, LENGTH)
            covered = set(range(message.start, message.start + message.length))
            model = model - covered if message.drop else model | covered
        else:
            remote.receive_bits(message, LENGTH)
            value = int.from_bytes(message.words, "little")
            for place in range(8 * len(message.words)):
                if value >> place & 1:
                    model.add(message.start + place)
                else:
                    model.discard(message.start + place)
    known = {index for index in range(LENGTH) if remote.offers(index)}
    assert known == {index for index in model if index < LENGTH}
    assert set(remote.offered(BitMap64(range(LENGTH)))) == known
    assert remote.has_range(0, LENGTH) == (len(known) == LENGTH)


@given(st.lists(st.one_of(ranges, bits, st.integers(0, 9)), max_size=20))
def test_nothing_that_a_peer_dropped_beyond_our_end_is_offered(
    messages: list[Range | HaveBits | int],
) -> None:
    remote = peer()
    model: set[int] = set()
    length = 0
    for message in messages:
        if isinstance(message, int):
            length += message
            remote.reached(length)
            continue
        if isinstance(message, Range):
            remote.receive_range(message, length)
            told = set(range(message.start, message.start + message.length))
            had = set() if message.drop else told
            assert all(remote.offers(index) for index in had)
        else:
            remote.receive_bits(message, length)
            value = int.from_bytes(message.words, "little")
            told = set(range(message.start, message.start + 8 * len(message.words)))
            had = {index for index in told if value >> (index - message.start) & 1}
        model = model - told | had
    known = {index for index in range(2 * LENGTH + 200) if remote.offers(index)}
    assert known <= model
    remote.reached(2 * LENGTH + 200)
    assert known == {index for index in range(2 * LENGTH + 200) if remote.offers(index)}
    assert set(remote.offered(BitMap64(range(2 * LENGTH + 200)))) == known


@pytest.mark.parametrize(
    "told",
    [
        [HaveBits(0, b"\x00\xff\x00\xff")],
        [HaveBits(64, b"\x00\x00\x00\xff")],
        [Range(12, 4), Range(20, 4)],
        [Range(12, 9), Range(20, 1, drop=True)],
    ],
    ids=["bits around our end", "bits beyond it", "two runs", "a run and a part of it dropped"],
)
def test_what_could_not_be_kept_beyond_our_end_is_asked_about_once_we_are_there(
    told: list[Range | HaveBits],
) -> None:
    remote = peer()
    assert remote.sent_wants.want(3)
    for message in told:
        if isinstance(message, Range):
            remote.receive_range(message, 10)
        else:
            remote.receive_bits(message, 10)
    # Not before: it would say the same.
    assert not remote.sent_wants.want(3)
    remote.reached(30)
    assert not remote.has_told(12)
    assert remote.sent_wants.want(12)


def test_what_could_be_kept_is_not_asked_about_again() -> None:
    remote = peer()
    assert remote.sent_wants.want(3)
    remote.receive_bits(HaveBits(0, b"\xfe\x03\x00\x00"), 10)
    remote.receive_range(Range(10, 2), 10)
    remote.receive_range(Range(12, 2), 10)
    remote.reached(14)
    assert not remote.sent_wants.want(12)
    assert set(remote.offered(BitMap64(range(14)))) == set(range(1, 14))


def test_a_peer_with_gaps_is_not_asked_again_with_each_block_when_nothing_was_lost() -> None:
    """For a long log each answer may have 256 KiB."""
    remote = peer()
    assert remote.sent_wants.want(3)
    for length in range(10, 30, 2):
        remote.receive_range(Range(length + 1, 1), length)
        remote.reached(length + 2)
        assert not remote.sent_wants.want(length)
    remote.receive_range(Range(0, 30, drop=True), 30)
    remote.reached(31)
    assert not remote.sent_wants.want(3)
    assert remote.next_offered(0) is None


@pytest.mark.parametrize(("words", "run"), [(b"\x03\x1c", (10, 13)), (b"\x03\xf8", (11, 16))])
def test_one_run_beyond_our_end_is_remembered_of_bits_too(
    words: bytes, run: tuple[int, int]
) -> None:
    """A peer that hears of new blocks a little before us is not asked again for each of them."""
    remote = peer()
    assert remote.sent_wants.want(3)
    remote.receive_range(Range(11, 2), 10)
    remote.receive_bits(HaveBits(0, words), 10)
    assert [remote.offers(index) for index in (run[0] - 1, *run)] == [False, True, False]
    remote.reached(20)
    assert not remote.sent_wants.want(3)
    assert set(remote.offered(BitMap64(range(20)))) == {0, 1, *range(*run)}


def test_bits_of_one_window_have_no_other_asked_about_again() -> None:
    remote = peer()
    assert remote.sent_wants.want(3)
    assert remote.sent_wants.want(2 * WINDOW_BLOCKS)
    remote.receive_bits(HaveBits(2 * WINDOW_BLOCKS, b"\x01\x00\x00\x00"), 10)
    remote.reached(12)
    assert not remote.sent_wants.want(3)
    assert remote.sent_wants.want(2 * WINDOW_BLOCKS)


def test_claims_beyond_our_length_cost_nothing() -> None:
    remote = peer()
    remote.receive_range(Range(5, 2**53 - 6), LENGTH)
    assert remote.offers(LENGTH - 1)
    assert remote.offers(2**40)
    remote.reached(LENGTH + 1)
    assert remote.offers(LENGTH)
    remote.receive_range(Range(LENGTH + 7, 1, drop=True), LENGTH + 1)
    assert not remote.offers(LENGTH + 1)
    remote.receive_range(Range(0, 2**53 - 1), LENGTH)
    assert remote.offers(2**40)
    remote.receive_range(Range(3, 1, drop=True), LENGTH)
    assert not remote.offers(3)
    assert remote.offers(4)
    remote.receive_bits(HaveBits(2**52, b"\xff" * 4), LENGTH)
    remote.receive_range(Range(2**52, 2**52), LENGTH)


def test_claims_beyond_any_log_can_be_stored() -> None:
    """Two such messages, and no store with the core could open it any more."""
    storage = MemoryStorage()
    log = open_log(storage)
    remote = peer()
    for start in (0, MAX_UINT):
        remote.receive_range(Range(start, MAX_UINT), 0)
        log.note_remote_contiguous(remote.contiguous_length)
        log.append([b"one more"])
    again = open_log(storage)
    assert again.head == log.head
    assert again.remote_contiguous_length == 2


def test_what_it_lacks_is_forgiven_when_it_says_it_has_it() -> None:
    remote = peer()
    remote.receive_range(Range(0, 100), LENGTH)
    remote.lacks(7)
    assert not remote.offers(7)
    assert 7 not in set(remote.offered(BitMap64(range(20))))
    remote.receive_range(Range(7, 1), LENGTH)
    assert remote.offers(7)


def test_a_peer_that_lacks_all_that_is_left_offers_nothing() -> None:
    remote = peer()
    remote.receive_range(Range(0, 100), LENGTH)
    remote.lacks(7)
    assert list(remote.offered(BitMap64([7]))) == []


def test_who_can_upgrade_us() -> None:
    remote = peer()
    assert not remote.can_upgrade_us(0, 0)
    remote.sync = sync(10)
    assert remote.can_upgrade_us(0, 0)
    assert not remote.can_upgrade_us(0, 10)
    assert not remote.can_upgrade_us(0, 5), "it does not know yet how far we are"
    remote.sync = sync(10, acknowledged=5)
    assert remote.can_upgrade_us(0, 5)
    remote.sync = sync(10, acknowledged=5, can_upgrade=False)
    assert not remote.can_upgrade_us(0, 5)
    assert not remote.may_upgrade_us(0, 5)
    remote.sync = sync(10, fork=2, can_upgrade=False)
    assert remote.can_upgrade_us(0, 0), "an empty log starts with any fork"
    assert not remote.can_upgrade_us(0, 3)
    remote.sync = sync(10)
    remote.refused_length = 10
    assert not remote.can_upgrade_us(0, 0)


def test_blocks_are_proven_by_who_has_our_length() -> None:
    remote = peer()
    assert not remote.proves_blocks(0, 0)
    remote.sync = sync(10)
    assert remote.proves_blocks(0, 10)
    assert not remote.proves_blocks(1, 10)
    assert not remote.proves_blocks(0, 11)
    remote.sent_sync = sync(11)
    assert remote.proves_blocks(0, 11), "we have its roots: its proofs end in them"
    remote.is_gone = True
    assert not remote.proves_blocks(0, 10)
