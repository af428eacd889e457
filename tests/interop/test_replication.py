"""JavaScript corestores and ours over TCP, in both directions and both roles."""

from __future__ import annotations

import hashlib
import random
from contextlib import suppress

import pytest
import trio

from hypercore.core import Core
from hypercore.corestore import open_corestore
from hypercore.crypto import discovery_key
from hypercore.encoding import Reader, encode_buffer
from hypercore.replication.messages import PROTOCOL, Handshake
from hypercore.replication.peer_handle import PeerHandle
from hypercore.replication.session import CoreReplication
from swarm.io.mux import MuxHandle
from tests.interop.replication_peer import (
    block,
    connected,
    dial,
    open_javascript_peer,
)
from tests.support.memory_log import MemoryLog
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 180
BOTH_ROLES = pytest.mark.parametrize("is_initiator", [True, False], ids=["we dial", "they dial"])


async def wait_held(core: Core, length: int) -> None:
    """Until blocks [0, length) are here."""
    await core.wait_length(length)
    await core.get_many(range(length))


def digest_of(core: Core) -> str:
    hasher = hashlib.sha256()
    for index in range(core.length):
        held = core.get_local(index)
        assert held is not None
        hasher.update(held)
    return hasher.hexdigest()


async def open_of_javascript(peer: PeerProcess, count: int, size: int = 100) -> bytes:
    """A JavaScript core of that many blocks, called "a"; its key."""
    answer = await peer("open", id="a", name="log")
    if count:
        await peer("fill", id="a", count=count, size=size)
    return bytes.fromhex(answer["key"])


@BOTH_ROLES
async def test_we_copy_ten_thousand_blocks_from_javascript(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 10_000))
            async with connected(store, peer, is_initiator=is_initiator):
                core.prefetch(range(10_000))
                await core.wait_length(10_000)
                await core.get_many(range(10_000))
            assert core.contiguous_length == 10_000
            assert core.get_local(9_999) == block(9_999, 100)
            assert digest_of(core) == (await peer("digest", id="a"))["digest"]
            total = core.statistics().replication.total
            assert total.blocks_received == 10_000
            assert total.answers_ignored == total.no_data_received == 0


@BOTH_ROLES
async def test_javascript_copies_ten_thousand_blocks_from_us(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await core.append([block(index, 100) for index in range(10_000)])
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=is_initiator):
                await peer("update", id="a")
                answer = await peer("download", id="a", start=0, stop=10_000)
                assert answer["contiguous"] == 10_000
                assert digest_of(core) == (await peer("digest", id="a"))["digest"]
            assert (await peer("events"))["events"] in ([], ["closed"])
            assert core.statistics().replication.total.blocks_sent >= 10_000


async def test_large_blocks_both_ways() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            ours = await store.get(name="ours")
            await ours.append([block(index, 65_536) for index in range(200)])
            theirs = await store.get(key=await open_of_javascript(peer, 200, 65_536))
            await peer("open", id="b", key=ours.key.hex())
            async with connected(store, peer, is_initiator=True):
                await wait_held(theirs, 200)
                await peer("update", id="b")
                await peer("download", id="b", start=0, stop=200)
                assert digest_of(ours) == (await peer("digest", id="b"))["digest"]
                assert digest_of(theirs) == (await peer("digest", id="a"))["digest"]


async def test_we_fetch_only_what_we_want_from_javascript() -> None:
    wanted = random.Random(5).sample(range(10_000), 200)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 10_000))
            async with connected(store, peer, is_initiator=True):
                await core.wait_length(10_000)
                assert await core.get_many(wanted) == [block(index, 100) for index in wanted]
            total = core.statistics().replication.total
            assert total.blocks_received == 200
            assert total.requests_sent <= 201


async def test_javascript_fetches_only_what_it_wants_from_us() -> None:
    wanted = random.Random(6).sample(range(10_000), 200)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await core.append([block(index, 100) for index in range(10_000)])
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=True):
                await peer("update", id="a")
                answer = await peer("getMany", id="a", indices=wanted)
                assert answer["blocks"] == [block(index, 100).hex() for index in wanted]
                stop = sum(len(block(index, 100)) for index in range(5000)) + 3
                assert (await peer("seek", id="a", bytes=stop))["found"] == [5000, 3]
            assert core.statistics().replication.total.blocks_sent <= 210


@BOTH_ROLES
async def test_we_follow_what_javascript_appends(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 0))
            async with connected(store, peer, is_initiator=is_initiator):
                core.prefetch(range(2**40))
                for index in range(30):
                    await peer("append", id="a", blocks=[(b"live %d" % index).hex()])
                    await core.wait_length(index + 1)
                    assert await core.get(index) == b"live %d" % index


@BOTH_ROLES
async def test_javascript_follows_what_we_append(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=is_initiator):
                await peer("follow", id="a")
                for length in range(1, 31):
                    await core.append(b"live %d" % length)
                    await peer("waitLength", id="a", length=length)
                    answer = await peer("get", id="a", index=length - 1)
                    assert bytes.fromhex(answer["block"]) == b"live %d" % length


@pytest.mark.parametrize("common", [0, 1, 128, 150, 199])
async def test_we_follow_javascript_to_another_fork(common: int) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 200))
            async with connected(store, peer, is_initiator=True):
                await wait_held(core, 200)
                core.prefetch(range(2**40))
                await peer("truncate", id="a", length=common)
                await peer("append", id="a", blocks=[b"new one".hex(), b"new two".hex()])
                while (core.fork, core.length) != (1, common + 2):  # noqa: ASYNC110  # no event for it
                    await trio.sleep(0.005)
                assert await core.get_many([common, common + 1]) == [b"new one", b"new two"]
            assert digest_of(core) == (await peer("digest", id="a"))["digest"]
            assert core.statistics().replication.total.blocks_received == 202


async def test_we_get_all_of_another_fork_from_javascript_that_has_gaps() -> None:
    """It tells once what it has: while our log still has the end of the old history."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 8))
            async with connected(store, peer, is_initiator=True):
                await core.get(7)
            await peer("truncate", id="a", length=5)
            await peer("append", id="a", blocks=[(b"new %d" % index).hex() for index in range(100)])
            await peer("clear", id="a", start=0, stop=1)
            async with connected(store, peer, is_initiator=True):
                await core.wait_change(8, 0)
                await core.download(1, 105)
            assert await core.get_many([5, 104], wait=False) == [b"new 0", b"new 99"]


async def test_javascript_follows_us_to_another_fork() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await core.append([block(index, 100) for index in range(200)])
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=True):
                await peer("update", id="a")
                await peer("download", id="a", start=0, stop=200)
                await core.truncate(150)
                await core.append([b"new one", b"new two"])
                await peer("waitLength", id="a", length=152, fork=1)
                answer = await peer("getMany", id="a", indices=[149, 150, 151])
                assert bytes.fromhex(answer["blocks"][2]) == b"new two"
                assert digest_of(core) == (await peer("digest", id="a"))["digest"]


async def test_several_cores_share_one_connection() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            keys = {}
            for name in "abcde":
                answer = await peer("open", id=name, name=name)
                await peer("append", id=name, blocks=[f"theirs {name}".encode().hex()])
                keys[name] = bytes.fromhex(answer["key"])
            ours = [await store.get(name=f"core {number}") for number in range(5)]
            for number, core in enumerate(ours):
                await core.append(b"ours %d" % number)
            async with connected(store, peer, is_initiator=True):
                for name, key in keys.items():
                    core = await store.get(key=key)
                    assert await core.get(0) == f"theirs {name}".encode()
                for number, core in enumerate(ours):
                    await peer("open", id=f"o{number}", key=core.key.hex())
                    answer = await peer("get", id=f"o{number}", index=0)
                    assert bytes.fromhex(answer["block"]) == b"ours %d" % number


async def test_a_core_that_javascript_does_not_have_is_rejected() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            known = await store.get(key=await open_of_javascript(peer, 3))
            unknown = await store.get(key=bytes(range(32)))
            async with connected(store, peer, is_initiator=True):
                await wait_held(known, 3)
                assert not await unknown.update()
                assert not unknown.statistics().replication.peers


async def test_a_core_that_we_do_not_have_is_rejected() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await core.append(b"here")
            await peer("open", id="x", key=bytes(range(32)).hex())
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=True):
                answer = await peer("get", id="a", index=0)
                assert bytes.fromhex(answer["block"]) == b"here"
                assert (await peer("stats", id="x"))["peers"] == 0


async def test_a_sparse_javascript_seeder_is_asked_with_wants() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 200))
            await peer("clear", id="a", start=10, stop=20)
            await peer("clear", id="a", start=100, stop=101)
            held = [index for index in range(200) if not 10 <= index < 20 and index != 100]
            async with connected(store, peer, is_initiator=True):
                await core.wait_length(200)
                core.prefetch(range(200))
                assert await core.get_many(held) == [block(index, 100) for index in held]
            assert not core.has(15)
            assert core.statistics().replication.total.no_data_received == 0


async def test_a_sparse_seeder_of_ours_answers_wants() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_javascript_peer() as origin,
            open_javascript_peer() as reader,
            open_corestore(None) as store,
        ):
            core = await store.get(key=await open_of_javascript(origin, 1000))
            held = random.Random(9).sample(range(1000), 300)
            async with connected(store, origin, is_initiator=True):
                await core.wait_length(1000)
                await core.get_many(held)
            await reader("open", id="a", key=core.key.hex())
            async with connected(store, reader, is_initiator=True):
                await reader("update", id="a")
                answer = await reader("getMany", id="a", indices=held)
            assert answer["blocks"] == [block(index, 100).hex() for index in held]
            assert core.statistics().replication.total.no_data_sent == 0


async def test_extensions_of_javascript_are_length_prefixed() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 1))
            arrived: list[bytes] = []
            answered = trio.Event()

            async def handle(payload: bytes, sender: PeerHandle) -> list[bytes]:
                arrived.append(Reader(payload).buffer())
                answered.set()
                return []

            core.replication.set_extension("chat", handle)
            await peer("extension", id="a", name="chat", reply="and hello to you")
            async with connected(store, peer, is_initiator=True):
                await core.get(0)
                assert core.replication.send_extension("chat", encode_buffer(b"hello")) == 1
                await answered.wait()
                assert arrived == [b"and hello to you"]
                assert (await peer("events"))["events"] == ["extension: hello"]


async def wait_refused(peer: PeerProcess) -> None:
    """Return when the originals have refused a capability."""
    while not any("capability" in event for event in (await peer("events"))["events"]):  # noqa: ASYNC110 - another process
        await trio.sleep(0.01)


async def test_a_wrong_capability_ends_the_connection() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer:
            key = await open_of_javascript(peer, 3)

            async def impostor(mux: MuxHandle) -> None:
                handshake = Handshake(bytes(32)).encode()
                with suppress(trio.EndOfChannel):  # they may hang up before they answer
                    await mux.open_channel(PROTOCOL, discovery_key(key), handshake)
                await mux.wait_ended()

            await dial((await peer("listen"))["port"], impostor)
            await wait_refused(peer)


async def test_a_javascript_peer_without_the_key_loses_its_connection() -> None:
    """Two cores that differ in their keys and, by force, not in their discovery keys."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer:
            key = await open_of_javascript(peer, 3)
            log = MemoryLog(key=key)
            log.key = bytes(32)
            replication = CoreReplication(log)
            await dial((await peer("listen"))["port"], replication.serve)
            if not replication.statistics().peers_refused:
                await wait_refused(peer)  # both see it at once; they may hang up before we do
            assert log.head.length == 0
