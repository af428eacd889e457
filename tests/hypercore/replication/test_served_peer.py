"""Extension messages of a peer: handled in turn, at that peer's expense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import trio
import trio.testing

from hypercore.errors import StorageError
from hypercore.replication.effort import CONNECTION_SECONDS, CONNECTION_SHARE, Effort
from hypercore.replication.peer_handle import PeerHandle
from hypercore.replication.remote import RemotePeer
from hypercore.replication.served_peer import (
    MAX_WAITING_BYTES,
    MAX_WAITING_EXTENSIONS,
    Clock,
    ServedPeer,
)
from tests.support.memory_mux import MemoryChannel, memory_mux_pair
from tests.support.replicated_logs import writer
from tests.support.replicator_pair import Node


class Sent:
    """Remembers what was sent to the peer."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, bytes]] = []

    def send_extension_to(self, _peer: RemotePeer, name: str, payload: bytes) -> None:
        self.answers.append((name, payload))

    def push_asked(self, _peer: RemotePeer, indices: Iterable[int]) -> Sequence[int]:
        return list(indices)

    def expect(self, _peer: RemotePeer, indices: Iterable[int], instead_of: Iterable[int]) -> None:
        pass

    def expect_announced(self, _peer: RemotePeer, indices: Iterable[int]) -> None:
        pass


def serve(
    sent: Sent, processor_time: Clock = trio.current_time, connection: Effort | None = None
) -> ServedPeer:
    peer, _ = Node(writer(1)).replicator.add_peer()
    channel = MemoryChannel(memory_mux_pair()[0])
    handle = PeerHandle(sent, peer, channel.link)
    connection = connection or Effort.of_connection(trio.current_time())
    return ServedPeer(peer, channel, handle, connection, processor_time)


async def test_what_a_handler_takes_is_the_peers_and_what_it_waits_for_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def work(payload: bytes, _peer: PeerHandle) -> list[bytes]:
        autojump_clock.jump(0.05)
        return [payload]

    async def wait(payload: bytes, _peer: PeerHandle) -> list[bytes]:
        await trio.sleep(0.05)
        await trio.sleep(0.05)
        return [payload]

    sent = Sent()
    served = serve(sent)
    served.add_extension("wait", b"1")
    await served.handle_extensions({"wait": wait, "work": work})
    assert served.effort.pause_seconds == 0
    served.add_extension("work", b"2")
    served.add_extension("nobody", b"3")
    await served.handle_extensions({"wait": wait, "work": work})
    assert served.effort.pause_seconds > 0
    assert sent.answers == [("wait", b"1"), ("work", b"2")]


async def test_time_that_others_take_from_the_machine_is_nobodys_effort(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found with eight busy processes beside: gets over the wire waited for two seconds."""
    own_time = 0.0

    async def be_preempted(payload: bytes, _peer: PeerHandle) -> list[bytes]:
        nonlocal own_time
        autojump_clock.jump(0.5)
        own_time += 0.001
        return [payload]

    async def work(payload: bytes, _peer: PeerHandle) -> list[bytes]:
        nonlocal own_time
        autojump_clock.jump(0.05)
        own_time += 0.05
        return [payload]

    handlers = {"preempted": be_preempted, "work": work}
    served = serve(Sent(), lambda: own_time)
    for _ in range(10):
        served.add_extension("preempted", b"")
        await served.handle_extensions(handlers)
        assert served.effort.pause_seconds == 0
    served.add_extension("work", b"")
    await served.handle_extensions(handlers)
    assert served.effort.pause_seconds > 0


@pytest.mark.parametrize("opens_anew", [False, True])
async def test_all_cores_of_one_connection_together_have_less_than_each_could(
    autojump_clock: trio.testing.MockClock, opens_anew: bool
) -> None:
    """A peer with the keys of twenty cores took all of a node's time, a twentieth at each."""
    worked = 0.0

    async def work(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
        nonlocal worked
        autojump_clock.jump(0.01)
        worked += 0.01
        return []

    connection = Effort.of_connection(trio.current_time())

    async def be_a_nuisance() -> None:
        served = serve(Sent(), lambda: worked, connection)
        while True:
            served.add_extension("name", b"")
            await served.handle_extensions({"name": work})
            await trio.sleep(served.pause_seconds)
            if opens_anew:
                served = serve(Sent(), lambda: worked, connection)

    started = trio.current_time()
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(be_a_nuisance)
    seconds = trio.current_time() - started
    assert worked < CONNECTION_SECONDS + 1.1 * CONNECTION_SHARE * seconds + 1


async def test_others_run_between_two_messages() -> None:
    order: list[str] = []

    async def handle(payload: bytes, _peer: PeerHandle) -> list[bytes]:
        order.append(payload.decode())
        return []

    async def another() -> None:
        order.append("another")

    served = serve(Sent())
    for number in range(2 * MAX_WAITING_EXTENSIONS):  # those over the bound are dropped
        served.add_extension("name", b"%d" % number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(another)
        await served.handle_extensions({"name": handle})
    assert len(order) == MAX_WAITING_EXTENSIONS + 1
    assert order.index("another") < 5


async def test_large_messages_wait_up_to_so_many_bytes() -> None:
    handled = 0

    async def handle(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
        nonlocal handled
        handled += 1
        return []

    served = serve(Sent())
    for _ in range(2):
        for _ in range(10):
            served.add_extension("name", bytes(MAX_WAITING_BYTES // 4))
        await served.handle_extensions({"name": handle})
        served.add_extension("name", bytes(2 * MAX_WAITING_BYTES))  # one may be larger
        served.add_extension("name", b"")
        await served.handle_extensions({"name": handle})
    assert handled == 2 * (4 + 1)


async def test_a_handler_is_canceled_in_the_middle() -> None:
    ended = False

    async def handle(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            ended = True

    served = serve(Sent())
    served.add_extension("name", b"")
    with trio.move_on_after(0.01) as scope:
        await served.handle_extensions({"name": handle})
    assert ended
    assert scope.cancelled_caught


@pytest.mark.parametrize("is_ours", [True, False])
async def test_an_error_of_our_storage_ends_the_channel_and_others_are_raised(
    is_ours: bool,
) -> None:
    async def handle(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        raise StorageError("broken") if is_ours else LookupError("a bug of the handler's")

    served = serve(Sent())
    served.add_extension("name", b"")
    if is_ours:
        await served.handle_extensions({"name": handle})
        assert isinstance(served.error, StorageError)
        assert served.channel.is_closed  # type: ignore[attr-defined]  # it is the one in memory
    else:
        with pytest.raises(LookupError):
            await served.handle_extensions({"name": handle})


@pytest.mark.parametrize("blocks", [0, 50])
async def test_who_has_asked_for_much_at_once_gets_its_share_unless_blocks_go_to_it(
    autojump_clock: trio.testing.MockClock, blocks: int
) -> None:
    """Thirty kilobytes of questions about a large bee took a minute of a node's time."""
    handled = 0
    served = serve(Sent())

    async def work(_payload: bytes, _peer: PeerHandle) -> list[bytes]:
        nonlocal handled
        handled += 1
        autojump_clock.jump(0.05)
        served.peer.counters.blocks_sent += blocks
        return []

    for _ in range(MAX_WAITING_EXTENSIONS):
        served.add_extension("name", b"")
    with trio.move_on_after(200):
        await served.handle_extensions({"name": work})
    share = 0.05 * handled / trio.current_time()
    assert share > 0.99 if blocks else 0.04 < share < 0.06
