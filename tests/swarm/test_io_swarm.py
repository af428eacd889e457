from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.errors import InvalidProof
from swarm import (
    Connection,
    MalformedPacket,
    PeerState,
    Source,
    Swarm,
    open_connection,
    open_swarm,
)
from swarm.io.entrance import MAX_UNPROVEN_CONNECTIONS
from tests.support.swarm_party import (
    LARGE,
    LOOPBACK,
    SMALL,
    THIRD,
    Party,
    connect,
    hold,
    open_party,
    until,
)


async def test_a_static_peer_is_dialed_and_both_run_their_handlers() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left, open_party(LARGE) as right:
            await connect(left, right)
            (info,) = left.swarm.connections
            assert info.remote_public_key == LARGE.public_key
            assert info.source is Source.STATIC
            assert info.is_initiator
            assert info.address == f"{LOOPBACK}:{right.port}"
            assert info.since_unix_ms > 1_700_000_000_000
            (info,) = right.swarm.connections
            assert (info.remote_public_key, info.source) == (SMALL.public_key, Source.INCOMING)
            (peer,) = left.swarm.peers
            assert peer.state is PeerState.CONNECTED
            statistics = left.swarm.statistics()
            assert (statistics.connections, statistics.dials) == (1, 1)
            assert statistics.bytes_sent > 0


async def test_who_waits_for_changes_of_a_swarm_hears_that_it_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []

    async def wait(swarm: Swarm) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await swarm.wait_changed()
        told.append("closed")

    async def end_at_once(_: Connection) -> None:
        return

    with trio.fail_after(30):
        async with (
            trio.open_nursery() as nursery,
            open_swarm(SMALL, end_at_once, listen=None) as swarm,
        ):
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait, swarm)
            await trio.testing.wait_all_tasks_blocked()
            assert told == []
        await wait(swarm)
    assert told == ["closed"] * 2


async def test_a_peer_that_comes_back_is_connected_again() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left:
            async with open_party(LARGE) as right:
                await connect(left, right)
                port = right.port
            await left.wait(lambda: not left.open)
            async with open_party(LARGE, port=port) as right:
                await left.wait(lambda: len(left.open) == 1)
                assert left.opened == 2
                assert left.swarm.statistics().connections == 1


@pytest.mark.parametrize("is_welcome", [True, False])
async def test_who_is_welcome_and_goes_at_once_is_dialed_a_second_later(is_welcome: bool) -> None:
    async def go(party: Party, connection: Connection) -> None:
        if is_welcome:
            connection.note_welcome()

    with trio.fail_after(30):
        async with open_party(SMALL, go) as left, open_party(LARGE) as right:
            left.swarm.add_peer(LOOPBACK, right.port)
            await until(lambda: left.swarm.peers[0].failures == 2, left)
            wait = left.swarm.peers[0].next_attempt - trio.current_time()
            assert (wait < 2) is is_welcome


async def test_a_connection_that_is_ended_here_says_nothing_of_the_remote() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left, open_party(LARGE) as right:
            left.swarm.add_peer(LOOPBACK, right.port)
            for connections in range(1, 4):
                await left.wait(lambda: left.open)
                assert left.opened == connections
                left.swarm.suspend()
                await left.wait(lambda: not left.open)
                left.swarm.resume()
            left.swarm.suspend()
            right.swarm.suspend()
            left.swarm.resume()
            await until(lambda: left.swarm.peers[0].failures == 3, left)
            wait = left.swarm.peers[0].next_attempt - trio.current_time()
            assert wait < 2


async def test_a_peer_with_another_key_than_expected_is_not_handed_over() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left, open_party(LARGE) as right:
            left.swarm.add_peer(LOOPBACK, right.port, THIRD.public_key)
            await until(lambda: left.swarm.peers[0].failures, left)
            assert "another key" in left.swarm.peers[0].last_error
            assert left.opened == 0


@pytest.mark.parametrize("where", [("no..name", 1), ("x" * 64, 1), (f"ws://{'x' * 64}/")])
async def test_hearsay_of_a_host_that_cannot_be_harms_nobody(where: tuple[str, int] | str) -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left:
            left.swarm.suggest_peer(where, LARGE.public_key)
            await until(lambda: left.swarm.peers[0].failures, left)
            assert "did not answer" in left.swarm.peers[0].last_error


async def test_what_is_no_topic_port_or_key_is_refused_at_once() -> None:
    async with open_party(SMALL) as left:
        with pytest.raises(ValueError, match="a topic has 32 bytes, not 5"):
            await left.swarm.join(b"topic")
        with pytest.raises(TypeError, match="a topic is bytes, not str"):
            await left.swarm.join("a" * 32)  # type: ignore[arg-type]  # as a program without types
        with pytest.raises(ValueError, match="65536 is not a port"):
            left.swarm.add_peer(LOOPBACK, 65536)
        with pytest.raises(TypeError, match="a port is int, not float"):
            left.swarm.add_peer(LOOPBACK, 80.0)  # type: ignore[arg-type]  # as a program without types
        with pytest.raises(TypeError, match="a port is int, not float"):
            left.swarm.suggest_peer((LOOPBACK, 80.0), bytes(32))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a public key has 32 bytes, not 64"):
            left.swarm.add_peer(LOOPBACK, 1, bytes(64))
        assert left.swarm.topics == frozenset()
        assert left.swarm.peers == []


async def test_nobody_connects_to_itself() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left:
            left.swarm.add_peer(LOOPBACK, left.port)
            await until(lambda: left.swarm.peers[0].state is PeerState.OURSELVES, left)
            assert left.opened == 0


async def test_the_firewall_keeps_keys_out_before_the_handler() -> None:
    def only_third(key: bytes) -> bool:
        return key == THIRD.public_key

    with trio.fail_after(30):
        async with (
            open_party(SMALL) as left,
            open_party(LARGE, firewall=only_third) as right,
            open_party(THIRD) as third,
        ):
            left.swarm.add_peer(LOOPBACK, right.port)
            await until(lambda: right.swarm.statistics().refused, right)
            third.swarm.add_peer(LOOPBACK, right.port)
            await right.wait(lambda: len(right.open) == 1)
            assert right.opened == 1
            assert right.open[0].link.remote_public_key == THIRD.public_key


async def test_a_key_can_be_refused_later() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left, open_party(LARGE) as right:
            await connect(left, right)
            right.swarm.refuse(SMALL.public_key)
            await left.wait(lambda: not left.open)
            await right.wait(lambda: not right.open)
            await until(lambda: right.swarm.statistics().refused, right)
            assert right.opened == 1


@pytest.mark.parametrize("swap", [False, True])
async def test_two_who_dial_each_other_at_once_keep_one_connection(swap: bool) -> None:
    keys = (LARGE, SMALL) if swap else (SMALL, LARGE)
    with trio.fail_after(30):
        async with open_party(keys[0]) as left, open_party(keys[1]) as right:
            left.swarm.add_peer(LOOPBACK, right.port)
            right.swarm.add_peer(LOOPBACK, left.port)
            await left.wait(lambda: bool(left.open))
            await right.wait(lambda: bool(right.open))

            def is_settled() -> bool:
                return (
                    all(
                        len(party.open) == 1
                        and party.swarm.statistics().dials == 1
                        and party.swarm.peers[0].state is PeerState.CONNECTED
                        for party in (left, right)
                    )
                    and len({party.open[0].link.handshake_hash for party in (left, right)}) == 1
                )

            await until(is_settled, left, right)
            await left.open[0].send([b"works"])


async def test_a_second_address_of_a_connected_peer_changes_nothing() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left, open_party(LARGE) as right:
            await connect(left, right)
            first = left.open[0]
            left.swarm.add_peer("localhost", right.port)
            await until(lambda: left.swarm.statistics().duplicates, left)
            await until(lambda: right.swarm.statistics().duplicates, right)
            assert left.open == [first]
            assert right.opened == 1
            assert all(peer.state is PeerState.CONNECTED for peer in left.swarm.peers)


async def test_a_peer_that_lost_its_connection_replaces_it() -> None:
    with trio.fail_after(30):
        async with open_party(LARGE) as right:

            async def call() -> Connection:
                """A remote with SMALL's key that confirms its connection and keeps it."""
                stream = await trio.open_tcp_stream(LOOPBACK, right.port)
                connection = await stack.enter(stream)
                await connection.send([b""])
                await connection.receive()
                return connection

            async with open_stack() as stack:
                await call()
                first = right.open[0]
                second = await call()
                await right.wait(lambda: right.opened == 2 and len(right.open) == 1)
                assert right.open[0] is not first
                assert right.open[0].link.handshake_hash == second.link.handshake_hash


class Stack:
    """Keeps connections of a hand-made remote open."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def enter(self, stream: trio.SocketStream) -> Connection:
        async def keep(task_status: trio.TaskStatus[Connection]) -> None:
            async with open_connection(stream, SMALL, is_initiator=True) as connection:
                task_status.started(connection)
                await trio.sleep_forever()

        connection: Connection = await self._nursery.start(keep)
        return connection


@asynccontextmanager
async def open_stack() -> AsyncIterator[Stack]:
    async with trio.open_nursery() as nursery:
        yield Stack(nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "error",
    [
        MalformedPacket("nonsense"),
        InvalidProof("bad proof"),
        trio.BrokenResourceError("gone"),
        ExceptionGroup("several", [trio.EndOfChannel("over"), MalformedPacket("x")]),
    ],
)
async def test_network_errors_of_a_handler_end_its_connection_only(error: Exception) -> None:
    async def fail_for_small(party: Party, connection: Connection) -> None:
        if connection.link.remote_public_key == SMALL.public_key:
            raise error
        await hold(party, connection)

    with trio.fail_after(30):
        async with (
            open_party(LARGE, fail_for_small) as right,
            open_party(SMALL) as left,
            open_party(THIRD) as third,
        ):
            third.swarm.add_peer(LOOPBACK, right.port)
            await right.wait(lambda: len(right.open) == 1)
            left.swarm.add_peer(LOOPBACK, right.port)
            await right.wait(lambda: right.opened == 2 and len(right.open) == 1)
            assert right.open[0].link.remote_public_key == THIRD.public_key


async def test_a_bug_in_a_handler_ends_the_swarm() -> None:
    async def crash(_: Party, __: Connection) -> None:
        raise LookupError("a bug")

    with trio.fail_after(30):
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - leaves from inside
            async with open_party(LARGE, crash) as right, open_party(SMALL) as left:
                left.swarm.add_peer(LOOPBACK, right.port)
                await trio.sleep_forever()
        assert caught.group_contains(LookupError)


async def test_incoming_connections_are_bounded() -> None:
    with trio.fail_after(30):
        async with (
            open_party(LARGE, max_connections=1) as right,
            open_party(SMALL) as left,
            open_party(THIRD) as third,
        ):
            await connect(left, right)
            third.swarm.add_peer(LOOPBACK, right.port)
            await until(lambda: right.swarm.statistics().refused, right)
            assert third.opened == 0
            assert len(right.open) == 1


async def test_strangers_who_say_nothing_are_bounded() -> None:
    with trio.fail_after(30):
        async with open_party(LARGE) as right:
            streams = [
                await trio.open_tcp_stream(LOOPBACK, right.port)
                for _ in range(MAX_UNPROVEN_CONNECTIONS + 1)
            ]
            await until(lambda: right.swarm.statistics().refused, right)
            for stream in streams:
                await stream.aclose()
            async with open_party(SMALL) as left:
                await connect(left, right)


async def test_garbage_harms_nobody() -> None:
    with trio.fail_after(30):
        async with open_party(LARGE) as right, open_party(SMALL) as left:
            stream = await trio.open_tcp_stream(LOOPBACK, right.port)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 10)
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
            await stream.aclose()
            await connect(left, right)


async def test_a_taken_port_is_an_error_and_nobody_needs_to_listen() -> None:
    async def never(_: Connection) -> None:
        raise AssertionError

    async with open_party(LARGE) as right:
        with pytest.raises(OSError, match="in use"):
            async with open_swarm(SMALL, never, listen=(LOOPBACK, right.port), lan=False):
                pass
    async with open_swarm(SMALL, never, listen=None) as swarm:
        assert swarm.addresses == ()
        await swarm.wait_announced()
        swarm.add_peer(LOOPBACK, 9)
        swarm.remove_peer(LOOPBACK, 9)
        assert swarm.peers == []


async def test_who_is_on_the_way_is_not_let_in_while_suspended() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left:
            stream = await trio.open_tcp_stream(LOOPBACK, left.port)
            await trio.testing.wait_all_tasks_blocked(0.1)  # it is accepted, and says nothing
            left.swarm.suspend()
            async with open_connection(stream, LARGE, is_initiator=True) as connection:
                await until(lambda: left.swarm.statistics().refused, left)
                assert not await connection.wait_confirmed()
            assert left.opened == 0
            left.swarm.resume()
            async with open_party(LARGE) as later:
                await connect(left, later)


async def test_suspending_ends_dials_which_begin_anew_afterwards() -> None:
    with trio.fail_after(30):
        (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
        async with listener, open_party(SMALL) as left:
            left.swarm.add_peer(LOOPBACK, listener.socket.getsockname()[1])
            for dials in (1, 2):
                async with await listener.accept() as stream:
                    left.swarm.suspend()
                    with trio.fail_after(5):  # less than a handshake is given
                        while await stream.receive_some():
                            pass
                assert left.swarm.statistics().dials == dials
                assert left.swarm.peers[0].failures == 0
                left.swarm.resume()
            assert left.opened == left.swarm.statistics().dials_failed == 0


async def test_who_waits_to_replace_a_connection_is_refused_with_it() -> None:
    with trio.fail_after(30):
        async with open_party(LARGE) as right, open_party(SMALL) as left:
            await connect(left, right)
            stream = await trio.open_tcp_stream(LOOPBACK, right.port)
            async with open_connection(stream, SMALL, is_initiator=True) as second:
                await trio.testing.wait_all_tasks_blocked(0.1)
                right.swarm.refuse(SMALL.public_key)
                await right.wait(lambda: not right.open)
                await second.send([b"hello"])
                assert not await second.wait_confirmed()
            assert right.opened == 1
