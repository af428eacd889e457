from __future__ import annotations

import pytest

from hypercore.crypto import KeyPair
from hypercore.proof import BlockProof, Proof, path_siblings
from hypercore.replication.messages import (
    Data,
    MessageType,
    Range,
    Sync,
)
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.replication.uploads import levels_below_root
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, Recorder, copy_of, reader, writer
from tests.support.replicator_pair import Channel, Message, Node, settle


def forked_from(log: MemoryLog, length: int, blocks: list[bytes]) -> MemoryLog:
    """The same core after its writer truncated it and went on."""
    fork = MemoryLog(KEY_PAIR)
    fork.append([log.blocks[index] for index in range(log.head.length)])
    fork.truncate(length)
    fork.append(blocks)
    return fork


@pytest.mark.parametrize(("length", "common"), [(30, 10), (200, 150), (64, 64), (7, 0), (33, 32)])
def test_a_reader_follows_the_writer_to_another_fork(length: int, common: int) -> None:
    old = writer(length)
    fork = forked_from(old, common, [b"another %d" % index for index in range(9)])
    leecher = Node(copy_of(old))
    leecher.want(range(2**40))
    held = dict(leecher.log.blocks)
    channel = Channel(Node(fork), leecher)
    settle(channel)
    assert leecher.log.head == fork.head
    assert leecher.log.blocks == fork.blocks
    assert not leecher.errors
    # Only what is new was fetched.
    assert channel.ends[1].peer.counters.blocks_received == 9
    assert all(leecher.log.blocks[index] == held[index] for index in range(common))


def test_a_truncation_is_followed_live_and_passed_on() -> None:
    log = writer(100)
    seeder, middle, last = Node(log), Node(reader()), Node(reader())
    channels = [Channel(seeder, middle), Channel(middle, last)]
    for node in (middle, last):
        node.want(range(2**40))
    settle(*channels)
    log.truncate(60)
    seeder.changed()
    settle(*channels)
    assert middle.log.head == last.log.head == log.head
    log.append([b"after"] * 5)
    seeder.changed()
    settle(*channels)
    assert middle.log.blocks == last.log.blocks == log.blocks
    assert not middle.errors + last.errors


def test_a_fork_that_is_not_signed_is_not_followed() -> None:
    old = writer(20)
    stranger = MemoryLog(KeyPair.from_seed(bytes([9]) * 32))
    stranger.append([b"x"] * 30)
    stranger.truncate(10)
    stranger.key, stranger.manifest, stranger.verifier = old.key, old.manifest, old.verifier
    leecher = Node(copy_of(old))
    settle(Channel(Node(stranger), leecher))
    assert leecher.log.head == old.head
    assert len(leecher.errors) == 1


def test_a_writer_follows_nobody() -> None:
    old = writer(20)
    fork = forked_from(old, 10, [b"restored elsewhere"])
    node = Node(old)
    settle(Channel(Node(fork), node))
    assert node.log.head.fork == 0


def test_a_sparse_reader_follows_too() -> None:
    old = writer(500)
    fork = forked_from(old, 400, [b"new"] * 3)
    leecher = Node(reader())
    first = Channel(Node(old), leecher)
    leecher.want([3, 250, 450])
    settle(first)
    first.ends[1].close(0.0)
    second = Channel(Node(fork), leecher)
    settle(second)
    assert leecher.log.head == fork.head
    assert set(leecher.log.blocks) <= {3, 250}
    leecher.want(range(403))
    settle(second)
    assert leecher.log.blocks == fork.blocks


def test_a_writer_is_followed_that_has_nothing_and_does_not_say_so() -> None:
    """As JavaScript: it does not answer who asks about a window of which it has no block."""
    old = writer(64)
    fork = forked_from(old, 40, [b"new"] * 9)
    fork.clear(0, 49)
    leecher = Node(copy_of(old))
    leecher.log.clear(0, 64)
    channel = Channel(Node(fork), leecher)
    channel.change = lambda _, messages: [each for each in messages if each[0] != MessageType.WANT]
    settle(channel)
    assert leecher.log.head == fork.head
    assert channel.ends[1].peer.counters.requests_sent == 2


@pytest.mark.parametrize("with_manifest", [False, True])
def test_a_block_of_the_old_history_does_not_pass_for_one_of_the_new(with_manifest: bool) -> None:
    """Pushed right behind what ends the search, when the old tree is still the one in the log."""
    old = writer(8)
    fork = forked_from(old, 2, [b"another %d" % index for index in range(6)])
    leecher = Node(reader())
    first = Channel(Node(old), leecher)
    leecher.want([7])
    settle(first)
    first.ends[1].close(0.0)
    channel = Channel(Node(fork), leecher)
    channel.ends[1].peer.expected.allow(100)
    nodes = [old.nodes[index] for index in path_siblings(5, levels_below_root(5, 8), old.head)]
    manifest = fork.manifest if with_manifest else None
    pushed = Data(0, Proof(1, BlockProof(5, old.blocks[5], nodes), manifest=manifest))

    def push_behind(end: int, messages: list[Message]) -> list[Message]:
        if end == 0:
            return messages
        data = MessageType.DATA
        return [
            each
            for message in messages
            for each in ([message, (data, pushed.encode())] if message[0] == data else [message])
        ]

    channel.change = push_behind
    settle(channel)
    assert leecher.log.head == fork.head
    assert not leecher.log.blocks
    assert all(fork.nodes[index] == node for index, node in leecher.log.nodes.items())
    channel.change = lambda _, messages: messages
    leecher.want(range(8))
    settle(channel)
    assert leecher.log.blocks == fork.blocks
    assert not leecher.errors


def test_what_was_pushed_of_the_old_history_proves_nothing_of_the_new() -> None:
    """Found by chance: who followed was answered from where pushes had taken it, and ended that."""
    log = writer(50)
    seeder, leecher = Node(log), Node(reader())
    leecher.carry_out(leecher.replicator.configure(ReplicationSettings(push=PushMode.ALLOWED), 0.0))
    channel = Channel(seeder, leecher)
    settle(channel)
    holder, _ = channel.ends
    log.append([b"pushed"] * 10)
    seeder.changed()
    holder.sent.clear()  # of the longer log it hears by the push alone
    _, outputs = seeder.replicator.push_asked(holder.peer, [55])
    seeder.carry_out(outputs)
    settle(channel)
    assert leecher.log.head == log.head
    log.truncate(20)
    log.append([b"another"] * 60)
    seeder.changed()
    settle(channel)
    assert leecher.log.head == log.head
    _, outputs = seeder.replicator.push_asked(holder.peer, [55, 30])
    seeder.carry_out(outputs)
    settle(channel)
    assert leecher.log.blocks == {55: b"another", 30: b"another"}
    assert not leecher.errors


def test_a_peer_on_an_older_fork_is_not_asked_for_blocks() -> None:
    old = writer(30)
    fork = forked_from(old, 10, [b"another"])
    ahead = Node(copy_of(fork))
    channel = Channel(Node(old), ahead)
    requests = Recorder(channel, 0)
    ahead.want(range(30))
    settle(channel)
    assert not requests.of(MessageType.REQUEST)
    assert not ahead.errors


def test_an_empty_log_starts_with_whatever_fork_there_is() -> None:
    log = writer(30)
    log.truncate(10)
    log.append([b"another"])
    leecher = Node(reader())
    leecher.want(range(100))
    settle(Channel(Node(log), leecher))
    assert leecher.log.head == log.head
    assert leecher.log.blocks == log.blocks


def test_a_truncation_is_announced() -> None:
    log = writer(30)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    log.truncate(12)
    to_leecher = Recorder(channel, 1)
    seeder.changed()
    settle(channel)
    first, *_ = [kind for kind, _ in to_leecher.messages]
    assert first == MessageType.RANGE
    assert Range.decode(to_leecher.of(MessageType.RANGE)[0]) == Range(12, 18, drop=True)
    sync = Sync.decode(to_leecher.of(MessageType.SYNC)[0])
    assert (sync.fork, sync.length, sync.remote_length, sync.can_upgrade) == (1, 12, 0, False)
