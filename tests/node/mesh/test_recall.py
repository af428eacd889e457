"""Nodes that were put back to an older state: none of them forks its own log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from bee.bee import Bee
from hypercore.core import Core
from hypercore.corestore import open_corestore
from hypercore.errors import StorageFailed
from hypercore.replication.messages import PROTOCOL as REPLICATION
from node.covalue.content import Content
from node.mesh.fields import FieldReader
from node.mesh.member_book import MemberBook
from node.mesh.messages import MessageType
from node.mesh.recall import (
    GRACE_SECONDS,
    LONGER_SECONDS,
    MAX_HEADS,
    OVERLAP_SECONDS,
    STALL_SECONDS,
    Recall,
    RecallState,
)
from node.mesh.replicas import ReplicaPolicy
from node.mesh.run_messages import Alive, Doubt, Head
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import (
    MeshNode,
    connected,
    identity_of,
    open_mesh_node,
    subscribed,
    wait_until,
)
from tests.node.mesh.test_serve import RAW, raw_member, receive_one, wait_closed
from tests.support.memory_mux import memory_mux_pair
from tests.support.recovering_stores import mark_all_recovering

EVERYTHING = ReplicaPolicy(everything=True)
AUTHOR = Author(1)
BEFORE = [AUTHOR.created(f"before {number}") for number in range(5)]
SINCE = [AUTHOR.created(f"since {number}", "[]", "[1]") for number in range(20)]
LATER = AUTHOR.created("later")
RUN = b"another!"


async def upload(node: MeshNode, *contents: Content) -> None:
    receipt = await node.host.receive_content("test", contents)
    assert not receipt.refused


async def wait_state(node: MeshNode, state: RecallState) -> None:
    await wait_until(lambda: node.mesh.recall.state is state)


async def ids_of(node: MeshNode) -> set[str]:
    return {co_id async for co_id in node.store.ids()}


@asynccontextmanager
async def put_back(holder: MeshNode, *, is_compacted: bool = False) -> AsyncIterator[MeshNode]:
    """A node as it was before it stored `SINCE`, of which `holder` has the log."""
    async with open_mesh_node(1) as node:
        await upload(node, *BEFORE)
        length = node.data.length
        await upload(node, *SINCE)
        if is_compacted:
            value = AUTHOR.value("edited")
            for number in range(5):
                await upload(node, value.edit("[]", with_header=not number))
            await Bee(node.data).compact()
            assert not node.data.has_range(length, node.data.length)
        async with connected(node, holder):
            log = await holder.cores.get(key=node.data.key)
            with trio.fail_after(20):
                await log.wait_length(node.data.length)
                await holder.host.load(SINCE[0].co_id)
                if holder.mesh.policy.everything:
                    await log.get_many(list(filter(node.data.has, range(node.data.length))))
            log.release()
    book = MemberBook()
    book.note(holder.identity.public_key.hex(), "holder", "writer", 0)
    async with open_mesh_node(1, stored=BEFORE, book=book) as node:
        assert node.data.length == length
        assert node.mesh.recall.state is RecallState.ASKING
        yield node


async def test_a_log_that_others_hold_whole_comes_back() -> None:
    async with open_mesh_node(2, policy=EVERYTHING) as holder, put_back(holder) as node:
        async with connected(node, holder):
            await wait_until(lambda: bool(node.mesh.recall.recovered))
            await wait_state(node, RecallState.GOING_ON)
            assert node.store.count() == 25
            assert await ids_of(node) == {content.co_id for content in [*BEFORE, *SINCE]}
            assert node.store.totals().transactions == 5 + 40
            await upload(node, LATER)
            counts = {session_id: part.stop for session_id, part in LATER.new.items()}
            await holder.wait_counts({LATER.co_id: counts})
        log = await holder.cores.get(key=node.data.key)
        assert not log.is_frozen
        assert (log.fork, log.length) == (0, node.data.length)
        assert not node.mesh.witness.forked_cores


@pytest.mark.parametrize("is_compacted", [False, True])
async def test_who_came_before_the_log_was_whole_hears_of_what_came_back(
    is_compacted: bool,
) -> None:
    """Found by seed 302265: a member that had compared already would have heard in five minutes.

    And by 513741, where nobody had all of the log any more.
    """
    wanted = SINCE[0]
    async with (
        open_mesh_node(2, policy=EVERYTHING) as holder,
        put_back(holder, is_compacted=is_compacted) as node,
        open_mesh_node(3) as third,
        subscribed(third, wanted.co_id),
        connected(node, third),
    ):
        await wait_until(lambda: third.mesh.sync_state().members[0].is_compared)
        assert not (await third.host.known_state(wanted.co_id)).header
        async with connected(node, holder):
            counts = {session_id: part.stop for session_id, part in wanted.new.items()}
            await third.wait_counts({wanted.co_id: counts})


async def test_a_log_of_which_nobody_holds_enough_goes_on_as_a_new_fork(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(2) as holder, put_back(holder) as node:
        length = node.data.length
        async with connected(node, holder):
            with trio.fail_after(STALL_SECONDS - 1):  # all are here, and none of them offers it
                while node.data.fork == 0:
                    await node.data.wait_change(node.data.length, 0)
            assert (node.data.length, node.mesh.recall.recovered) == (length, range(0))
            assert await ids_of(node) == {content.co_id for content in BEFORE}
            await upload(node, LATER)
            assert node.mesh.recall.state is RecallState.GOING_ON
            # What was merged elsewhere is found there.
            assert await node.host.load(SINCE[0].co_id) is not None
            assert await holder.host.load(LATER.co_id) is not None
            log = await holder.cores.get(key=node.data.key)
            assert not log.is_frozen
            assert log.fork == 1


async def test_who_asks_while_the_log_is_fetched_back_is_answered_when_it_can_be_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 515657: with a head whose blocks were lacking nothing seemed to be here."""
    async with (
        open_mesh_node(2) as holder,
        put_back(holder) as node,
        open_mesh_node(3) as third,
        connected(node, third),
    ):
        length = node.data.length
        async with connected(node, holder):
            with trio.fail_after(20):
                await node.data.wait_change(length, 0)
            assert node.mesh.recall.state is not RecallState.GOING_ON
            assert await third.host.load(BEFORE[0].co_id) is not None


async def go_on_alone(holder: MeshNode, path: Path) -> None:
    async with open_mesh_node(1, path=path, stored=BEFORE) as node:
        await node.mesh.recall.wait_settled()  # it knows of nobody to wait for
        async with connected(node, holder):
            with trio.fail_after(20):
                await trio.sleep_forever()


async def settle_late(node: MeshNode, holder: MeshNode, clock: trio.testing.MockClock) -> None:
    """Who holds the blocks is slow to come back, and waited for."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    clock.jump(LONGER_SECONDS - 1)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert node.mesh.recall.state is RecallState.ASKING
    async with connected(node, holder):
        with trio.fail_after(20):
            await node.mesh.recall.wait_settled()


async def settle_alone(node: MeshNode, clock: trio.testing.MockClock) -> float:
    """Nobody comes who is waited for; how long that takes."""
    started = trio.current_time()
    while node.mesh.recall.state is not RecallState.GOING_ON:
        await trio.testing.wait_all_tasks_blocked(0.01)
        clock.jump(1)
    return trio.current_time() - started


async def test_a_longer_head_that_shows_later_stops_the_node_and_is_settled_at_the_next_start(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Found by seed 201170: who was slow to come back was not waited for."""
    mock_clock.rate = 1.0
    async with open_mesh_node(2, policy=EVERYTHING) as holder, put_back(holder):
        with pytest.raises(BaseExceptionGroup) as stopped:
            await go_on_alone(holder, tmp_path)
        assert "51 blocks of our own log, of which we had 11: start again" in repr(stopped.value)
        async with open_mesh_node(1, path=tmp_path) as again:
            await settle_late(again, holder, mock_clock)
            assert again.store.count() == len([*BEFORE, *SINCE])
        async with open_mesh_node(1, path=tmp_path) as settled:
            with trio.fail_after(20):
                await settled.mesh.recall.wait_settled()  # nobody is there to be waited for


async def test_a_longer_head_that_nobody_shows_again_is_not_waited_for_for_ever(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1.0
    async with open_mesh_node(2, policy=EVERYTHING) as holder, put_back(holder):
        with pytest.raises(BaseExceptionGroup):
            await go_on_alone(holder, tmp_path)
    async with open_mesh_node(1, path=tmp_path) as again:
        # Where the head is here, the blocks that it is about are waited for after that.
        waited = await settle_alone(again, mock_clock)
        assert LONGER_SECONDS <= waited <= LONGER_SECONDS + 2 * STALL_SECONDS + 5
        assert again.store.count() == len(BEFORE)


async def mark_recovering(path: Path) -> None:
    """As a store is marked that was salvaged, or lost a part of its write-ahead log."""
    async with open_corestore(path) as store:
        mark_all_recovering(store)


async def store_before(path: Path) -> int:
    async with open_mesh_node(1, path=path, stored=BEFORE) as node:
        return node.data.length


async def test_a_head_that_was_lost_and_is_not_shown_gets_no_second_history(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Who showed it once is away, as the row says that stopped the node then."""
    mock_clock.rate = 1.0
    length = await store_before(tmp_path)
    async with open_corestore(tmp_path) as store:
        log = await store.get(name="beemesh/data")
        await log.write_local({b"recall/longer": b""})
    async with open_mesh_node(1, path=tmp_path) as again:
        assert await settle_alone(again, mock_clock) >= LONGER_SECONDS
        assert (again.data.fork, again.data.length) == (1, length)


async def test_a_store_that_may_have_lost_the_newest_head_asks_members_first(
    tmp_path: Path,
) -> None:
    async with open_mesh_node(2, policy=EVERYTHING) as holder, put_back(holder):
        length = await store_before(tmp_path)
        await mark_recovering(tmp_path)
        async with open_mesh_node(1, path=tmp_path) as node, connected(node, holder):
            with trio.fail_after(20):
                await node.mesh.recall.wait_settled()
            assert not node.data.is_recovering
            assert node.data.length > length
            assert node.store.count() == len([*BEFORE, *SINCE])
            await upload(node, LATER)
            assert node.data.fork == 0


async def test_a_marked_store_goes_on_when_all_members_know_no_more(tmp_path: Path) -> None:
    length = await store_before(tmp_path)
    await mark_recovering(tmp_path)
    book = MemberBook()
    book.note(identity_of(2).public_key.hex(), "other", "writer", 0)
    async with (
        open_mesh_node(1, path=tmp_path, book=book) as node,
        open_mesh_node(2) as other,
        connected(node, other),
    ):
        with trio.fail_after(20):
            await node.mesh.recall.wait_settled()
        assert not node.data.is_recovering
        assert (node.data.fork, node.data.length) == (0, length)


async def test_a_marked_store_begins_a_new_fork_where_a_member_is_away(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """What it may have lost, and the member know of, must not get a second history."""
    mock_clock.rate = 1.0
    length = await store_before(tmp_path)
    await mark_recovering(tmp_path)
    book = MemberBook()
    book.note("ab" * 32, "away", "writer", 0)
    book.note(identity_of(2).public_key.hex(), "other", "writer", 0)
    async with (
        open_mesh_node(1, path=tmp_path, book=book) as node,
        open_mesh_node(2) as other,
        connected(node, other),
    ):
        assert await settle_alone(node, mock_clock) >= LONGER_SECONDS
        assert (node.data.fork, node.data.length) == (1, length)
        await upload(node, LATER)


async def test_what_was_not_settled_is_settled_at_the_next_start(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """The node dies when the longer head is here, and what it is about is not."""
    mock_clock.rate = 1.0
    async with open_mesh_node(2, policy=EVERYTHING) as holder, put_back(holder) as node:
        key = node.data.key
        async with open_mesh_node(1, path=tmp_path, stored=BEFORE) as cut_off:
            assert cut_off.data.key == key
            before = cut_off.data.length
        async with open_corestore(tmp_path) as store:
            log = await store.get(name="beemesh/data")
            await log.write_local({b"recall": b"%d" % before})
            whole = await holder.cores.get(key=key)
            near, far = memory_mux_pair()
            for mux in (near, far):
                mux.expected.add((REPLICATION, log.discovery_key))
            async with open_background_nursery() as nursery:
                nursery.start_soon(log.serve, near)
                nursery.start_soon(whole.serve, far)
                with trio.fail_after(20):
                    await log.wait_length(whole.length)
        book = MemberBook()
        book.note(holder.identity.public_key.hex(), "holder", "writer", 0)
        async with open_mesh_node(1, path=tmp_path, book=book) as again:
            assert again.store.count() == len(BEFORE)
            await settle_late(again, holder, mock_clock)
            assert again.store.count() == len([*BEFORE, *SINCE])
            assert again.data.get_local_value(b"recall") is None


async def test_the_first_append_waits_for_a_word_but_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = MemberBook()
    book.note("ab" * 32, "other", "writer", 0)
    async with open_mesh_node(1, book=book) as node:
        started = trio.current_time()
        await upload(node, *BEFORE)
        assert trio.current_time() - started == pytest.approx(GRACE_SECONDS)
    async with (
        open_mesh_node(1, book=book) as node,
        open_mesh_node(2) as other,
        connected(node, other),
    ):
        started = trio.current_time()
        await upload(node, *BEFORE)
        assert trio.current_time() - started == pytest.approx(GRACE_SECONDS), "not that one"
    book = MemberBook()
    book.note(identity_of(2).public_key.hex(), "other", "writer", 0)
    async with (
        open_mesh_node(1, book=book) as node,
        open_mesh_node(2) as other,
        connected(node, other),
    ):
        started = trio.current_time()
        await upload(node, *BEFORE)
        assert trio.current_time() - started < 0.1
    async with open_mesh_node(1) as lonely:
        started = trio.current_time()
        await upload(lonely, *BEFORE)
        assert trio.current_time() - started < 0.1


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (Head(RUN, 0, 10**6), "fork 0, length 1000000 of our log, which we did not sign"),
        (Head(RUN, 1, 5), "fork 1, length 5 of our log, which we did not sign"),
        (
            Head(RUN, 1, 5, tree_hash=bytes(32), signature=bytes(64)),
            "fork 1, length 5 of our log, which we did not sign",
        ),
    ],
)
@pytest.mark.parametrize("is_early", [True, False])
async def test_a_length_that_we_did_not_sign_is_a_lie(
    autojump_clock: trio.testing.MockClock, head: Head, reason: str, is_early: bool
) -> None:
    """Found in review: any member could have our log begin forks, each 1,024 after the last."""
    book = MemberBook()
    if is_early:
        book.note("ab" * 32, "somebody who is waited for", "writer", 0)
    async with open_mesh_node(1, book=book) as node, raw_member(node) as channel:
        if is_early:
            assert node.mesh.recall.state is RecallState.ASKING
            channel.send(MessageType.HEAD, head.encode())
            await wait_closed(channel)
        await upload(node, *BEFORE)
        fork, length = node.data.fork, node.data.length
        channel.send(MessageType.HEAD, head.encode())
        if not is_early:
            await wait_closed(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert reason in node.goodbyes[0]
        assert (node.data.fork, node.data.length) == (fork, length)
        await wait_state(node, RecallState.GOING_ON)
        await upload(node, LATER)


async def signed_by_us(length: int, fork: int) -> Head:
    """What node 1 may have signed, and forgotten."""
    async with open_corestore(None, primary_key=bytes((1,)) * 32) as store:
        log = await store.get(name="beemesh/data")
        await log.append([b"block"] * length)
        if fork:
            await log.append([b"cut off"])
            await log.truncate(length, fork)
        head = log.head
    assert (head.fork, head.length) == (fork, length)
    shown = replace(Head(RUN, fork, length), tree_hash=head.tree_hash, signature=head.signature)
    assert Head.decode(FieldReader.unpack(shown.encode(), 1000)) == shown
    return shown


@pytest.mark.parametrize("fork", [1, 10**6])
async def test_a_later_fork_that_we_signed_is_left_behind(
    autojump_clock: trio.testing.MockClock, fork: int
) -> None:
    shown = await signed_by_us(3, fork)
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        await upload(node, *BEFORE)
        length = node.data.length
        channel.send(MessageType.HEAD, shown.encode())
        await wait_until(lambda: node.data.fork == fork + 1)
        await upload(node, LATER)
        assert node.data.length > length
        assert not node.mesh.penalties.total


async def test_a_longer_head_that_we_signed_stops_the_node_though_nobody_has_what_is_in_it() -> (
    None
):
    shown = await signed_by_us(1000, 1)

    async def be_shown() -> None:
        async with open_mesh_node(1) as node:
            await upload(node, *BEFORE)
            await node.data.truncate(node.data.length - 1, 1)
            async with raw_member(node) as channel:
                channel.send(MessageType.HEAD, shown.encode())
                with trio.fail_after(5):
                    await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as stopped:
        await be_shown()
    assert "1000 blocks of our own log" in repr(stopped.value)


async def test_a_head_that_is_not_shown_at_the_start_is_no_lie(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A member that keeps single blocks may lack the tree nodes that lead there from ours."""
    fork = 0
    shown = await signed_by_us(1000, fork)
    book = MemberBook()
    book.note(RAW.public_key.hex(), "other", "writer", 0)
    async with open_mesh_node(1, stored=BEFORE, book=book) as node, raw_member(node) as channel:
        channel.send(MessageType.HEAD, shown.encode())
        channel.send(MessageType.HEAD, Head(RUN, 0, 0, Doubt.NONE).encode())
        await upload(node, LATER)
        assert node.data.fork == fork + 1, "what is appended now contradicts nothing"
        assert RAW.public_key in node.mesh.members
        assert not node.mesh.penalties.total


async def test_a_node_that_was_put_back_and_came_as_far_with_something_else_is_found_out() -> None:
    """Neither end lacks anything of the other's log, so neither ever asked."""
    async with open_mesh_node(2, policy=EVERYTHING) as holder:
        async with open_mesh_node(1) as node:
            await upload(node, *BEFORE, LATER)
            length = node.data.length
            async with connected(node, holder):
                await holder.wait_counts({LATER.co_id: {s: p.stop for s, p in LATER.new.items()}})
                log = await holder.cores.get(key=node.data.key)
                await log.wait_length(length)
                log.release()
        async with open_mesh_node(1) as node:
            await upload(node, *BEFORE, AUTHOR.created("LATER"))
            assert node.data.length == length
            async with connected(node, holder):
                await wait_until(lambda: bool(holder.mesh.witness.forked_cores))
                await wait_until(lambda: node.data.is_frozen)
            (forked,) = holder.mesh.witness.forked_cores
            assert forked.key == node.data.key


async def test_a_head_that_we_signed_counts_when_who_showed_it_has_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else we would go on from where we are, and sign a second history."""
    shown = await signed_by_us(1000, 0)
    book = MemberBook()
    book.note("ab" * 32, "somebody who is waited for", "writer", 0)
    async with open_mesh_node(1, stored=BEFORE, book=book) as node:
        async with raw_member(node) as channel:
            channel.send(MessageType.HEAD, shown.encode())
            for doubt in (Doubt.UNASKED, Doubt.NONE):
                answer = await receive_one(channel, MessageType.HEAD)
                assert isinstance(answer, Head)
                assert answer.doubt is doubt
            assert node.mesh.recall.state is RecallState.ASKING
        await wait_until(lambda: not node.mesh.members)
        await upload(node, LATER)
        assert node.data.fork == 1


class FullLog:
    """A log of ours on a disk without room."""

    length, fork, verifier, is_recovering = 7, 0, None, False

    def __init__(self, core: Core) -> None:
        self.bitfield, self.replication = core.bitfield, core.replication
        self.exclusive = core.exclusive
        self.statistics = core.statistics
        self.wait_length = core.wait_length
        self.download = core.download
        self.truncate = core.truncate
        self.end_recovering = core.end_recovering

    def get_local_value(self, key: bytes) -> bytes | None:
        return None

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        raise StorageFailed("no space left on the device")


async def test_on_a_full_disk_it_is_settled_that_nobody_knows_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_corestore(None) as store, open_background_nursery() as nursery:
        log = FullLog(await store.get(name="log"))
        recall = Recall(b"us" * 16, None, log, None, RUN, frozenset((b"somebody who is away",)))
        nursery.start_soon(recall.run)
        with trio.fail_after(GRACE_SECONDS + 1):
            await recall.wait_settled()
        assert recall.state is RecallState.GOING_ON


async def test_members_are_told_how_long_their_log_is() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        told = await receive_one(channel, MessageType.HEAD)
        assert told == Head(node.mesh.recall.instance, 0, 0)


async def test_one_word_about_our_log_after_the_other_is_too_much() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        for _ in range(MAX_HEADS + 1):
            channel.send(MessageType.HEAD, Head(RUN, 0, 0, Doubt.NONE).encode())
        await wait_closed(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert "one length of our log after the other" in node.goodbyes[0]


async def runs_seen(node: MeshNode, instances: Sequence[bytes]) -> Doubt:
    """What a member is told of its key that spoke as these runs, one after the other."""
    answer = Doubt.NONE
    for instance in instances:
        async with raw_member(node) as channel:
            await receive_one(channel, MessageType.HEAD)
            channel.send(MessageType.HEAD, Head(instance, 0, 0).encode())
            told = await receive_one(channel, MessageType.HEAD)
            assert isinstance(told, Head)
            answer = told.doubt
    return answer


async def test_a_second_node_with_one_key_is_told_so() -> None:
    """And shown what the first one says, which is asked while it is there."""
    original, copy = b"original", b"the copy"
    async with open_mesh_node(1) as node:
        assert await runs_seen(node, [original, copy]) is not Doubt.SECOND
        assert await runs_seen(node, [original, copy]) is Doubt.SECOND
        async with raw_member(node) as channel:
            await receive_one(channel, MessageType.HEAD)
            channel.send(MessageType.HEAD, Head(original, 0, 0).encode())
            asked = await receive_one(channel, MessageType.ALIVE)
            assert asked == Alive(copy)
            signed = asked.sign(RAW)
            channel.send(MessageType.ALIVE, signed.encode())
            await wait_until(lambda: node.mesh.recall.runs.tell(RAW.public_key, copy) == [signed])
        async with raw_member(node) as channel:
            await receive_one(channel, MessageType.HEAD)
            channel.send(MessageType.HEAD, Head(copy, 0, 0).encode())
            assert await receive_one(channel, MessageType.ALIVE) == signed


async def test_an_answer_about_our_key_is_no_word_about_our_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = MemberBook()
    book.note(RAW.public_key.hex(), "other", "writer", 0)
    async with open_mesh_node(1, book=book) as node, raw_member(node) as channel:
        channel.send(MessageType.HEAD, Head(RUN, 0, 0, Doubt.NONE).encode())
        await trio.sleep(GRACE_SECONDS / 2)
        assert node.mesh.recall.state is RecallState.ASKING
        channel.send(MessageType.HEAD, Head(RUN, 0, 0).encode())
        await wait_state(node, RecallState.GOING_ON)


async def test_in_doubt_the_first_append_waits_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = MemberBook()
    book.note(RAW.public_key.hex(), "other", "writer", 0)
    async with open_mesh_node(1, book=book) as node, raw_member(node) as channel:
        started = trio.current_time()
        channel.send(MessageType.HEAD, Head(RUN, 0, 0).encode())
        channel.send(MessageType.HEAD, Head(RUN, 0, 0, Doubt.OVERLAP).encode())
        await upload(node, *BEFORE)
        assert trio.current_time() - started == pytest.approx(OVERLAP_SECONDS, abs=0.1)


async def test_a_node_signs_that_it_is_another_run_and_nothing_of_itself() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        channel.send(MessageType.ALIVE, Alive(node.mesh.recall.instance).encode())
        channel.send(MessageType.ALIVE, Alive(b"the copy").encode())
        said = await receive_one(channel, MessageType.ALIVE)
        assert isinstance(said, Alive)
        assert said.instance == b"the copy"
        assert said.is_by(node.mesh.id)


async def test_a_node_that_is_shown_an_elder_run_stops() -> None:
    async def be_told() -> None:
        async with open_mesh_node(1) as node, raw_member(node) as channel:
            shown = Alive(node.mesh.recall.instance).sign(node.identity)
            channel.send(MessageType.ALIVE, shown.encode())
            with trio.fail_after(20):
                await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as stopped:
        await be_told()
    assert "another node runs with the same key" in repr(stopped.value)


@pytest.mark.parametrize(
    "claim",
    [
        lambda node: Alive(node.mesh.recall.instance, bytes(64)),
        lambda node: Alive(b"the copy").sign(node.identity),
    ],
)
async def test_no_member_stops_a_node_by_its_word(claim: Callable[[MeshNode], Alive]) -> None:
    """A signature of nobody is no proof, nor is one of ours about another run than this."""
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        channel.send(MessageType.HEAD, Head(RUN, 0, 0, Doubt.SECOND).encode())
        mine = Alive(node.mesh.recall.instance).sign(RAW)  # says something of the member's runs
        channel.send(MessageType.ALIVE, mine.encode())
        channel.send(MessageType.ALIVE, claim(node).encode())
        await wait_closed(channel)
        penalty, *_ = node.mesh.penalties.recent(trio.current_time())
        assert "and does not show it" in penalty.reason
        await node.mesh.recall.wait_settled()
