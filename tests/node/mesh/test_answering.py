"""Answers to queries: each id once, no faster than they are read, and paid for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from node.mesh.conduct import SESSIONS_PER_LOOKUP
from node.mesh.effort import MAX_CREDIT_SECONDS, SHARE
from node.mesh.messages import (
    MAX_QUERY_IDS,
    PROTOCOL,
    Answer,
    MessageType,
    Query,
    decode_message,
)
from node.mesh.serve import ACCEPTED, serve_member
from node.mesh.session import MAX_OPEN_QUERIES
from swarm.io.channel import Channel
from swarm.io.connection import open_connection
from swarm.io.mux import MAX_OUTBOX_BYTES, open_mux
from swarm.io.tasks import open_background_nursery
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import MeshNode, open_mesh_node, wait_until
from tests.node.mesh.test_serve import prove, welcome

RAW = KeyPair.from_seed(b"r" * 32)
SESSION_BYTES = 130
"""What one session of an agent takes in an answer, at the least."""


@asynccontextmanager
async def slow_reader(node: MeshNode) -> AsyncIterator[Channel]:
    """A member whose messages the test writes; its line carries what it has read, and no more."""
    near, far = trio.testing.lockstep_stream_pair()

    async def serve() -> None:
        async with (
            open_connection(near, node.identity, is_initiator=False) as connection,
            open_mux(connection, accept=ACCEPTED) as mux,
        ):
            await serve_member(node.mesh, mux, node.cores, stopwatch=trio.current_time)

    async with open_background_nursery() as nursery:
        nursery.start_soon(serve)
        async with (
            open_connection(far, RAW, is_initiator=True) as connection,
            open_mux(connection, accept=(PROTOCOL,)) as mux,
        ):
            channel = await mux.open_channel(PROTOCOL, None)
            prove(mux, channel)
            channel.send(MessageType.WELCOME, welcome())
            await wait_until(lambda: RAW.public_key in node.mesh.members)
            yield channel


async def popular(node: MeshNode, sessions: int) -> Value:
    """A value that was written to in so many sessions."""
    author = Author(1)
    value = author.value("popular")
    contents = [value.edit("[]", with_header=True)]
    contents += [author.joined(value).edit("[]") for _ in range(sessions - 1)]
    assert not (await node.host.receive_content("test", contents)).refused
    return value


def ask(channel: Channel, number: int, *values: Value) -> None:
    query = Query(number, tuple(value.id for value in values), (None,) * len(values))
    channel.send(MessageType.QUERY, query.encode())


async def receive_answers(channel: Channel, queries: int) -> dict[int, list[Answer]]:
    """The parts of the answers to so many queries."""
    answers: dict[int, list[Answer]] = {}
    while queries:
        for number, payload in await channel.receive():
            if number == MessageType.ANSWER:
                answer = decode_message(number, payload)
                assert isinstance(answer, Answer)
                answers.setdefault(answer.request_id, []).append(answer)
                queries -= not answer.more
    return answers


async def test_each_id_is_answered_once_however_often_a_query_names_it() -> None:
    async with open_mesh_node(1) as node, slow_reader(node) as channel:
        value = await popular(node, 2)
        ask(channel, 1, *[value] * MAX_QUERY_IDS)
        [answer] = (await receive_answers(channel, 1))[1]
        assert [co_id for co_id, _ in answer.values] == [value.id]


async def test_who_asks_for_more_than_it_reads_keeps_its_connection() -> None:
    sessions = MAX_OUTBOX_BYTES // MAX_OPEN_QUERIES // SESSION_BYTES + 200
    async with open_mesh_node(1) as node, slow_reader(node) as channel:
        value = await popular(node, sessions)
        for number in range(MAX_OPEN_QUERIES):
            ask(channel, number, value)
        await trio.testing.wait_all_tasks_blocked()
        answers = await receive_answers(channel, MAX_OPEN_QUERIES)
        assert list(answers) == [*range(MAX_OPEN_QUERIES)]
        for parts in answers.values():
            assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
            told = [len(held or ()) for part in parts for _, held in part.values]
            assert sum(told) == sessions
        assert RAW.public_key in node.mesh.members


async def test_who_asks_for_a_value_that_very_many_wrote_to_pays_for_the_answers(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: small questions about it took two thirds of a node's time."""
    seconds, queries = 0.05, 40
    encode = Answer.encode

    def encode_slowly(answer: Answer) -> bytes:
        autojump_clock.jump(seconds)
        return encode(answer)

    monkeypatch.setattr(Answer, "encode", encode_slowly)
    async with open_mesh_node(1) as node, slow_reader(node) as channel:
        value = await popular(node, 2 * SESSIONS_PER_LOOKUP)
        started = trio.current_time()
        for number in range(queries):
            ask(channel, number, value)
            await receive_answers(channel, 1)
        passed = trio.current_time() - started
        # Of three lookups that the value counts, two are never free.
        assert (queries - 1) * seconds * 2 / 3 <= MAX_CREDIT_SECONDS + SHARE * passed
