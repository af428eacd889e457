"""Answers to requests that were withdrawn before they came."""

from __future__ import annotations

from hypercore.merkle import encode_node
from hypercore.replication.messages import Data, MessageType, encode_block_data
from tests.support.forked_logs import log_with, reader_with
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, block, copy_of, of_type, reader, writer
from tests.support.replicator_pair import Channel, Message, Node, settle
from tests.support.slow_links import Network


def asked_and_withdrawn(log: MemoryLog, indices: list[int]) -> tuple[Node, Channel, list[Message]]:
    """A reader that wants them no longer, and the answers, which are on their way."""
    asker = Node(reader())
    channel = Channel(Node(log), asker)
    settle(channel)
    holder, _ = channel.ends
    asker.want(indices)
    channel.step(0.0)
    asker.unwant(indices)
    holder.take(1 << 16)
    answers, holder.sent = holder.sent, []
    assert len(of_type(answers, MessageType.DATA)) == len(indices)
    return asker, channel, answers


def test_an_answer_is_taken_that_is_wanted_again_when_it_comes() -> None:
    log = writer(100)
    asker, channel, answers = asked_and_withdrawn(log, [50, 51])
    asker.want([50])
    channel.ends[1].receive(answers, 0.1)
    assert asker.log.blocks == {50: block(50)}
    counters = channel.ends[1].peer.counters
    assert (counters.blocks_received, counters.answers_ignored) == (1, 1)
    # It was asked for again, which is withdrawn: what comes to that is of no use.
    assert not len(channel.ends[1].peer.inflight)
    settle(channel)
    asker.want([51])
    settle(channel)
    assert asker.log.blocks == {50: block(50), 51: block(51)}
    assert not asker.errors


def test_it_is_taken_once_and_only_from_who_was_asked() -> None:
    log = writer(100)
    asker, channel, answers = asked_and_withdrawn(log, [50])
    stranger = Channel(Node(copy_of(log)), asker)
    settle(stranger)
    asker.want([50])
    stranger.ends[1].receive(answers, 0.1)
    assert not asker.log.blocks
    channel.ends[1].receive(2 * answers, 0.1)
    assert asker.log.blocks == {50: block(50)}
    counters = channel.ends[1].peer.counters
    assert (counters.blocks_received, counters.answers_ignored) == (1, 1)


def test_another_block_under_that_id_is_not_taken() -> None:
    log = writer(100)
    asker, channel, _ = asked_and_withdrawn(log, [50])
    _, _, others = asked_and_withdrawn(log, [51])
    asker.want([50, 51])
    assert len(of_type(others, MessageType.DATA)) == 1
    channel.ends[1].receive(others, 0.1)
    assert not asker.log.blocks
    assert not asker.errors


def test_a_wrong_block_is_charged_as_any_other() -> None:
    log = writer(100)
    asker, channel, answers = asked_and_withdrawn(log, [50])
    asker.want([50])
    answer = Data.decode(answers[-1][1])
    part = answer.proof.block
    assert part is not None
    nodes = [encode_node(node) for node in part.nodes]
    forged = encode_block_data(answer.request, 0, 50, b"forged", nodes)
    channel.ends[1].receive([(MessageType.DATA, forged)], 0.1)
    assert not asker.log.blocks
    assert channel.ends[1].peer.counters.invalid_data == 1


def test_what_builds_on_an_answer_that_was_not_taken_is_asked_for_again() -> None:
    """51 counts on nodes that come with 50."""
    log = writer(100)
    asker, channel, answers = asked_and_withdrawn(log, [50, 51])
    asker.want([51])
    channel.ends[1].receive(answers, 0.1)
    assert not asker.log.blocks
    settle(channel)
    assert asker.log.blocks == {51: block(51)}
    assert not asker.errors


def test_who_was_found_to_be_slow_and_answers_after_all_has_not_worked_in_vain() -> None:
    log = MemoryLog(KEY_PAIR)
    log.append([b"%d" % index for index in range(40)])
    network = Network()
    leecher = Node(reader())
    first = network.join(Node(log), leecher, round_trip_seconds=0.5)
    network.run(lambda: leecher.log.head.length == 40)
    started = network.now
    network.want(leecher, range(40))
    second = network.join(Node(copy_of(log)), leecher, round_trip_seconds=0.6)
    network.run(lambda: leecher.log.contiguous_length == 40)
    assert second.ends[1].peer.counters.hotswaps > 0
    assert network.now - started < 0.51
    assert first.ends[1].peer.counters.answers_ignored == 0


def test_who_is_asked_for_its_whole_head_is_not_charged_for_what_it_was_asked_before() -> None:
    """It holds another history, which is to be found out: the writer is at fault, not the peer."""
    asker = Node(reader_with([b"x", b"y"]))
    asker.log.clear(0, 2)
    channel = Channel(Node(log_with([b"v", b"w"])), asker)
    settle(channel)
    asker.want([0, 1])
    holder, end = channel.ends
    holder.receive(end.sent, 0.0)
    end.sent = []
    holder.take(1 << 16)
    answers, holder.sent = holder.sent, []
    assert len(answers) == 2
    for answer in answers:
        end.receive([answer], 0.0)
    settle(channel)
    assert asker.log.fork_proof is not None
    assert not asker.errors
