"""What a node used up stays used up, whatever connection it comes on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from node.mesh.allowances import MAX_ALLOWANCES, MAX_NEW, NEW_PER_SECOND, Allowances
from node.mesh.conduct import ABSENT_PER_SECOND, MAX_ABSENT, Conduct
from node.mesh.effort import MAX_CREDIT_SECONDS, MAX_PAUSE_SECONDS, SHARE
from node.mesh.messages import PROTOCOL, MessageType
from tests.node.mesh.nodes import open_mesh_node, wait_until
from tests.node.mesh.test_serve import RAW, prove, raw_connection, raw_member, welcome

A, B = b"a" * 32, b"b" * 32


def conduct_of(allowances: Allowances, node_id: bytes, now: float) -> Conduct:
    conduct = Conduct(now)
    conduct.allowance = allowances.admit(node_id, now)
    return conduct


def paid_share(conduct: Conduct, absent: int, now: float) -> float:
    return conduct.note_looked_up(0, 0, absent, 0, now)


def test_who_comes_again_finds_its_allowance_as_it_left_it() -> None:
    allowances = Allowances()
    conduct = conduct_of(allowances, A, 0)
    assert paid_share(conduct, MAX_ABSENT, 0) == 0
    conduct.effort.spend(MAX_CREDIT_SECONDS + SHARE, 0)
    again = conduct_of(allowances, A, 0)
    assert again.effort.pause_seconds(0) == pytest.approx(1)
    assert paid_share(again, 1, 0) == 1
    assert paid_share(conduct_of(allowances, B, 0), MAX_ABSENT, 0) == 0
    later = MAX_ABSENT / ABSENT_PER_SECOND
    assert paid_share(conduct_of(allowances, A, later), MAX_ABSENT, later) == 0


def test_of_those_that_come_for_the_first_time_some_have_to_earn_their_allowance() -> None:
    """They may be one with many keys."""
    allowances = Allowances()
    for number in range(MAX_NEW):
        assert paid_share(conduct_of(allowances, bytes((number,)) * 32, 0), MAX_ABSENT, 0) == 0
    poor = conduct_of(allowances, A, 0)
    assert poor.effort.pause_seconds(0) == 0
    assert poor.note_looked_up(2 * SHARE, 1000, 0, 10**6, 0) == 1
    assert poor.effort.pause_seconds(0) == MAX_PAUSE_SECONDS
    assert poor.note_looked_up(0, 100, 0, 10**6, 60) == 0
    assert paid_share(poor, 100, 60) == 0
    assert poor.effort.pause_seconds(60) == 0
    later = 60 + 1 / NEW_PER_SECOND
    assert paid_share(conduct_of(allowances, B, later), MAX_ABSENT, later) == 0


def test_those_forgotten_are_who_was_admitted_longest_ago() -> None:
    allowances = Allowances()
    first, second = allowances.admit(A, 0), allowances.admit(B, 0)
    assert allowances.admit(A, 0) is first
    for number in range(MAX_ALLOWANCES - 1):
        allowances.admit(number.to_bytes(32, "big"), 0)
    assert allowances.admit(A, 0) is first
    assert allowances.admit(B, 0) is not second


async def test_a_new_connection_is_no_new_allowance(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found in review: a member that hung up and came again took two thirds of a node's time."""
    async with open_mesh_node(1) as node:
        async with raw_member(node):
            node.mesh.members[RAW.public_key].conduct.effort.spend(1, trio.current_time())
        await wait_until(lambda: not node.mesh.members)
        started = trio.current_time()
        async with raw_connection(node) as mux:
            channel = await mux.open_channel(PROTOCOL, None)
            prove(mux, channel)
            channel.send(MessageType.WELCOME, welcome())
            while RAW.public_key not in node.mesh.members:
                await node.mesh.wait_members_changed()
            assert trio.current_time() - started >= MAX_PAUSE_SECONDS
            conduct = node.mesh.members[RAW.public_key].conduct
            assert conduct.effort.pause_seconds(trio.current_time()) > 0
