"""Listing to a member what it follows, where a part of the store cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
import trio
import trio.testing

from node.covalue.ids import RawCoId
from node.errors import CorruptStore
from node.mesh import replicas, telling
from node.mesh.listing import MAX_RETRY_SECONDS, RETRY_SECONDS, Listing
from node.mesh.messages import Interest
from node.mesh.replicas import ReplicaPolicy, ToldInterest
from tests.node.mesh import samples
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import connected, open_mesh_node, wait_until
from tests.node.mesh.test_sync import upload, wait_done

FOLLOWS = ReplicaPolicy(prefixes=("co_z",))


def test_only_what_is_still_followed_is_due_again() -> None:
    listing = Listing()
    listing.note(Interest(prefixes=("co_zA", "co_zB")))
    assert listing.take()[0] == ("co_zA", "co_zB")
    listing.note(Interest(prefixes=("co_zB", "co_zC")))
    listing.failed()
    assert listing.take()[0] == ("co_zB", "co_zC")
    listing.succeeded()
    assert listing.take()[0] == ()


def test_a_listing_is_tried_again_ever_less_often() -> None:
    listing = Listing()
    assert listing.retry_seconds == inf
    pauses = []
    for _ in range(9):
        listing.failed()
        pauses.append(listing.retry_seconds)
    assert pauses[:3] == [RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    assert pauses[-1] == MAX_RETRY_SECONDS
    listing.succeeded()
    assert listing.retry_seconds == inf


async def test_what_could_not_be_listed_is_listed_when_it_can_be_read(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be, and who follows it in step, only when that follows something else."""
    value = Author(1).value("held")
    attempts: list[float] = []
    is_damaged = True
    async with open_mesh_node(1) as source, open_mesh_node(2, policy=FOLLOWS) as follower:
        await upload(source, value.edit("[]", with_header=True))
        ids_of = source.store.ids

        async def ids(prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
            attempts.append(trio.current_time())
            if is_damaged:
                raise CorruptStore(value.id, "a table is damaged")
            async for co_id in ids_of(prefix, after):
                yield co_id

        monkeypatch.setattr(source.store, "ids", ids)
        async with connected(source, follower):
            await trio.sleep(100)
            assert all(after > before for before, after in pairwise(attempts))
            assert 3 <= len(attempts) <= 6
            state = follower.mesh.sync_state()
            assert state.why == "node 1: waits for its list of what we follow"
            is_damaged = False
            await trio.sleep(100)
            await wait_done(source, follower)
            await wait_until(lambda: follower.mesh.sync_state().held == 1)
            count = len(attempts)
            await trio.sleep(1000)
            assert len(attempts) == count


async def test_a_node_without_room_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with open_mesh_node(1) as source, open_mesh_node(2, policy=FOLLOWS) as follower:
        follower.mesh.pause("no room")
        async with connected(source, follower):
            await wait_until(lambda: bool(follower.mesh.sync_state().members))
            assert follower.mesh.sync_state().members[0].state == "paused, there is no room"
            follower.mesh.resume()
            await wait_done(source, follower)


async def test_who_names_too_many_ids_is_listed_what_it_follows(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it wants to hear of everything, and reads nobody's log for that."""
    monkeypatch.setattr(replicas, "MAX_SELECTED_IDS", 3)
    monkeypatch.setattr(telling, "MAX_RECENT", 0)  # what moved lately is told in any case
    policy = replace(FOLLOWS, pinned=frozenset(samples.co_id(number) for number in range(4)))
    value = Author(1).value("held")
    async with open_mesh_node(1) as source, open_mesh_node(2, policy=policy) as follower:
        await upload(source, value.edit("[]", with_header=True))
        async with connected(source, follower):
            await wait_done(follower)
            assert follower.mesh.sync_state().held == 1


def test_a_full_replica_is_listed_nothing_beside_the_log() -> None:
    told = ToldInterest()
    [said] = told.plan(replace(FOLLOWS, everything=True), frozenset())
    assert said == Interest(everything=True)
    listing = Listing()
    listing.note(said)
    assert listing.take() == ((), frozenset())


def test_what_was_listed_is_not_listed_again_when_ids_become_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas, "MAX_SELECTED_IDS", 3)
    told, listing = ToldInterest(), Listing()
    ids = frozenset(samples.co_id(number) for number in range(4))
    due = []
    for wanted in (frozenset(), ids, frozenset()):
        [said] = told.plan(FOLLOWS, wanted)
        listing.note(said)
        due.append((listing.take()[0], told.listing_due))
    assert due == [(("co_z",), 1), ((), 2), ((), 2)]
