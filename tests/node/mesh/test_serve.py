"""Remote nodes that misbehave: each costs itself its channel, and nobody else anything."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.covalue.ids import RawCoId
from node.mesh.effort import SHARE
from node.mesh.member import Member
from node.mesh.membership import Membership
from node.mesh.mesh_key import hello_proof
from node.mesh.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    Answer,
    Hello,
    Interest,
    MessageType,
    Query,
    Update,
    Welcome,
    decode_message,
    message_type,
)
from node.mesh.run_messages import Head
from node.mesh.session import MAX_OPEN_QUERIES
from swarm.io.channel import Channel
from swarm.io.connection import open_connection
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.tasks import open_background_nursery
from tests.node.mesh import samples
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import (
    MESH,
    MeshNode,
    connected,
    open_mesh_node,
    serve_end,
    subscribed,
    wait_until,
)

RAW = KeyPair.from_seed(b"r" * 32)


@asynccontextmanager
async def raw_connection(node: MeshNode) -> AsyncIterator[MuxHandle]:
    """A remote whose every byte the test decides."""
    near, far = trio.testing.memory_stream_pair()
    async with open_background_nursery() as nursery:
        nursery.start_soon(lambda: serve_end(node, near, is_initiator=False))
        async with (
            open_connection(far, RAW, is_initiator=True) as connection,
            open_mux(connection, accept=(PROTOCOL,)) as mux,
        ):
            yield mux


def prove(mux: MuxHandle, channel: Channel, membership: Membership = MESH) -> None:
    proof = hello_proof(membership.key, True, mux.link.handshake_hash)
    channel.send(MessageType.HELLO, Hello(1, proof).encode())


def welcome(key: bytes = b"k" * 32, length: int = 5) -> bytes:
    return Welcome(key, length, "raw", "writer", None, ()).encode()


@asynccontextmanager
async def raw_member(node: MeshNode) -> AsyncIterator[Channel]:
    """A member whose messages the test writes."""
    async with raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel)
        channel.send(MessageType.WELCOME, welcome())
        await wait_until(lambda: RAW.public_key in node.mesh.members)
        yield channel


async def wait_closed(channel: Channel) -> list[int]:
    """The types of what still came."""
    types: list[int] = []
    with trio.fail_after(20):
        try:
            while True:
                types += [number for number, _ in await channel.receive()]
        except trio.EndOfChannel:
            return types


@pytest.mark.parametrize("secret", [b"wrong", b""])
async def test_a_wrong_proof_closes_and_tells_nothing(secret: bytes) -> None:
    async with open_mesh_node(1) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel, Membership("bees", secret))
        assert await wait_closed(channel) == [MessageType.HELLO]
        await wait_until(lambda: len(node.goodbyes) == 1)


async def test_a_reflected_hello_is_a_wrong_proof() -> None:
    async with open_mesh_node(1) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        [(number, payload)] = await channel.receive()
        channel.send(number, payload)
        assert await wait_closed(channel) == []


async def test_the_welcome_comes_after_the_proof_only() -> None:
    async with open_mesh_node(1) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        [(number, _)] = await channel.receive()
        assert number == MessageType.HELLO
        prove(mux, channel)
        [(number, payload)] = await channel.receive()
        message = decode_message(number, payload)
        assert isinstance(message, Welcome)
        assert message.data_key == node.data.key


async def test_cores_are_offered_to_members_only() -> None:
    async with open_mesh_node(1) as node, raw_connection(node) as mux:
        opens = mux.remote_opens("hypercore/alpha")
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel)
        assert [number for number, _ in await channel.receive()] == [MessageType.HELLO]
        with trio.move_on_after(0.05) as scope:
            await anext(opens)
        assert scope.cancelled_caught
        channel.send(MessageType.WELCOME, welcome())
        with trio.fail_after(20):
            offered = await anext(opens)
        assert offered.id is not None


async def test_who_never_welcomes_us_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as node, raw_connection(node) as mux:
        channel = await mux.open_channel(PROTOCOL, None)
        prove(mux, channel)
        with trio.fail_after(30):
            while True:
                try:
                    await channel.receive()
                except trio.EndOfChannel:
                    break
        await wait_until(lambda: bool(node.goodbyes))
        assert "in time" in node.goodbyes[0]


async def test_who_does_not_speak_the_protocol_is_told_apart() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with open_mesh_node(1) as node, open_background_nursery() as nursery:
        nursery.start_soon(lambda: serve_end(node, near, is_initiator=False))
        async with (
            open_connection(far, RAW, is_initiator=True) as connection,
            open_mux(connection),
        ):
            await wait_until(lambda: bool(node.goodbyes))
        assert "does not speak" in node.goodbyes[0]


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (MessageType.QUERY, b"\xff"),
        (MessageType.QUERY, b"\xdd\xff\xff\xff\xff"),
        (MessageType.UPDATE, b"\x90"),
        (MessageType.INTEREST, b"\x91" * 5000),
        (MessageType.WELCOME, welcome()),
        (MessageType.HELLO, Hello(1, bytes(32)).encode()),
        (MessageType.EVIDENCE, bytes(MAX_MESSAGE_BYTES + 1)),
    ],
)
async def test_bad_messages_end_one_channel_and_disturb_nobody(number: int, payload: bytes) -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as friend:
        value = Author(1).value("shared")
        await node.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(node, friend), raw_member(node) as channel:
            channel.send(number, payload)
            await wait_closed(channel)
            await wait_until(lambda: RAW.public_key not in node.mesh.members)
            assert await friend.host.load(value.id) is not None
            assert len(node.mesh.members) == 1


async def test_messages_of_later_versions_are_ignored() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        channel.send(77, b"whatever")
        channel.send(MessageType.QUERY, Query(9, (samples.co_id(1),), (None,)).encode())
        answer = await receive_one(channel, MessageType.ANSWER)
        assert answer == Answer(9, node.data.durable_length, ((samples.co_id(1), None),))


async def receive_one(channel: Channel, wanted: MessageType) -> object:
    with trio.fail_after(20):
        while True:
            for number, payload in await channel.receive():
                if number == wanted:
                    return decode_message(number, payload)


async def test_a_flood_of_queries_ends_the_channel() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        ids = tuple(samples.co_id(number) for number in range(1000))
        for number in range(MAX_OPEN_QUERIES + 2):
            query = Query(number, ids, (None,) * len(ids))
            channel.send(MessageType.QUERY, query.encode())
        await wait_closed(channel)
        await wait_until(lambda: len(node.goodbyes) == 1)
        reasons = (f"more than {MAX_OPEN_QUERIES} queries", "cost more than they were worth")
        assert any(reason in node.goodbyes[0] for reason in reasons)


async def test_a_member_that_never_answers_costs_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as node, raw_member(node):
        started = trio.current_time()
        assert await node.host.load(samples.co_id(1)) is None
        assert 0.9 < trio.current_time() - started < 1.5


async def test_a_silent_member_does_not_hold_up_what_another_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as friend:
        value = Author(1).value("shared")
        await friend.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with connected(node, friend), raw_member(node):
            started = trio.current_time()
            assert await node.host.load(value.id) is not None
            assert trio.current_time() - started < 0.3


async def test_a_liar_that_claims_more_is_passed_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as friend:
        value = Author(1).value("shared")
        await friend.host.receive_content("test", [value.edit("[]", with_header=True)])
        async with (
            connected(node, friend),
            raw_member(node) as channel,
            open_background_nursery() as nursery,
        ):
            nursery.start_soon(claim_everything, channel)
            report = await node.host.load(value.id)
            assert report is not None
            assert report.sessions == {value.session_id: 1}
            [liar] = [m for m in node.mesh.statistics().members if m.id == RAW.public_key]
            assert liar.failures == 1


async def claim_everything(channel: Channel) -> None:
    """Answer every query with a lot of everything."""
    async with trio.open_nursery():
        while True:
            for number, payload in await channel.receive():
                message = decode_message(number, payload)
                if isinstance(message, Query):
                    held = {samples.session_id(1): 1000}
                    values = tuple((co_id, held) for co_id in message.ids)
                    answer = Answer(message.request_id, 5, values)
                    channel.send(MessageType.ANSWER, answer.encode())


async def test_updates_of_what_nobody_wants_leave_no_trace() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        for start in range(0, 8000, 2000):
            changes = tuple(
                (samples.co_id(start + number), {samples.session_id(1): 1})
                for number in range(2000)
            )
            channel.send(MessageType.UPDATE, Update(5, changes).encode())
        query = Query(1, (), ())
        channel.send(message_type(query), query.encode())
        await receive_one(channel, MessageType.ANSWER)
        assert node.mesh.statistics().announced == 0


async def test_interest_is_told_in_differences() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        first = await receive_one(channel, MessageType.INTEREST)
        assert first == Interest()
        async with subscribed(node, samples.co_id(1)):
            assert await receive_one(channel, MessageType.INTEREST) == Interest(
                added=(samples.co_id(1),)
            )
        assert await receive_one(channel, MessageType.INTEREST) == Interest(
            removed=(samples.co_id(1),)
        )


async def test_updates_wait_for_a_slow_member_merged_by_value() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        value = Author(1).value("busy")
        channel.send(MessageType.INTEREST, Interest(everything=True).encode())
        query = Query(1, (), ())
        channel.send(message_type(query), query.encode())
        await receive_one(channel, MessageType.ANSWER)
        await node.host.receive_content("test", [value.edit("[]", with_header=True)])
        for _ in range(50):
            await node.host.receive_content("test", [value.edit("[]")])
        reached = updates = 0
        while reached != value.count:
            for number, payload in await channel.receive():
                message = decode_message(number, payload)
                if isinstance(message, Update):
                    updates += 1
                    assert message.version <= node.data.durable_length
                    [(co_id, sessions)] = message.changes
                    assert co_id == value.id
                    reached = sessions[value.session_id]
        assert updates <= value.count


async def test_who_goes_before_it_is_in_the_table_leaves_nothing() -> None:
    """Found in review: what it said of our log was remembered for good."""

    def members() -> list[Member]:
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, Member)]

    async with open_mesh_node(1) as node:

        async def parted(times: int) -> None:
            await wait_until(lambda: len(node.goodbyes) == times)

        before = members()
        for number in range(5):
            async with raw_connection(node) as mux:
                channel = await mux.open_channel(PROTOCOL, None)
                prove(mux, channel)
                channel.send(MessageType.WELCOME, welcome())
                channel.send(MessageType.HEAD, Head(b"instance", 0, 0).encode())
                channel.close()
                await parted(number + 1)
        left = [each for each in members() if each not in before]
        assert len(left) < 2, "the last one may be in somebody's hands"


async def test_who_follows_something_else_again_and_again_gets_its_share_of_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: each such message had all values of the node looked through."""
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        listings: list[float] = []

        async def ids(prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
            if prefix == "co_zBee":
                listings.append(trio.current_time())
                autojump_clock.jump(1.0)
                yield Author(1).value("held").id

        monkeypatch.setattr(node.store, "ids", ids)
        started = trio.current_time()
        for number in range(100):
            for prefix in ("co_zBee", f"co_z{number}"):
                channel.send(MessageType.INTEREST, Interest(prefixes=(prefix,)).encode())
                await trio.sleep(0.1)
        passed = trio.current_time() - started
        assert 1 <= len(listings) <= 1 + SHARE * passed
