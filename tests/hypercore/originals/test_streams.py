"""What hypercore 11.37.1's test/streams.js covers; read streams are `blocks` and `follow`.

An iterator with both an end and `live` is not to be had here: who follows does not name an end.
JavaScript's byte streams also give empty blocks; for a `trio.abc.ReceiveStream` nothing is the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from hypercore import (
    UTF8,
    BlockNotAvailable,
    ByteStream,
    Core,
    Corestore,
    OutOfRange,
    SnapshotNotAvailable,
    open_corestore,
)
from hypercore.merkle import MerkleNode, encode_node
from hypercore.storage.layout import DataKeys
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.replicating_cores import replicating

WORDS = [b"hello", b"world", b"verden", b"welt"]


async def collect(blocks: AsyncIterator[bytes] | ByteStream) -> list[bytes]:
    return [bytes(block) async for block in blocks]


async def read_all(stream: ByteStream, max_bytes: int | None = None) -> bytes:
    async with stream:
        pieces = []
        while piece := await stream.receive_some(max_bytes):
            assert max_bytes is None or len(piece) <= max_bytes
            pieces.append(piece)
        return b"".join(pieces)


async def test_blocks_in_order(core: Core) -> None:
    await core.append(WORDS)
    assert await collect(core.blocks()) == WORDS
    assert await collect(core.blocks(1)) == WORDS[1:]
    assert await collect(core.blocks(2, 3)) == WORDS[2:3]
    assert await collect(core.blocks(3, 3)) == []


async def test_blocks_backward(core: Core) -> None:
    await core.append(WORDS)
    assert await collect(core.blocks(reverse=True)) == WORDS[::-1]
    assert await collect(core.blocks(1, 3, reverse=True)) == [b"verden", b"world"]
    assert await collect(core.blocks(1, 1, reverse=True)) == []


async def test_blocks_end_where_the_log_did(core: Core) -> None:
    await core.append(WORDS)
    blocks = core.blocks()
    assert await anext(blocks) == b"hello"
    await core.append(b"later")
    assert await collect(blocks) == WORDS[1:]


async def test_blocks_backward_over_the_wire(core: Core, other_store: Corestore) -> None:
    expected = [b"%d" % index for index in range(600)]
    await core.append(expected)
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(600)
        assert await collect(copy.blocks(100, reverse=True)) == expected[:99:-1]
    assert not copy.has(99)


async def test_following(core: Core) -> None:
    await core.append(WORDS)
    follower = core.follow(2)
    assert [await anext(follower) for _ in range(2)] == WORDS[2:]
    async with trio.open_nursery() as nursery:
        got = []

        async def read() -> None:
            got.extend([await anext(follower) for _ in range(3)])

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await core.append(b"a")
        await trio.testing.wait_all_tasks_blocked()
        await core.append([b"b", b"c", b"d"])
    assert got == [b"a", b"b", b"c"]
    assert await anext(follower) == b"d"


async def test_following_over_a_cut(core: Core) -> None:
    """What was given out and is no longer true is an error; what was not goes on."""
    await core.append([b"%d" % index for index in range(10)])
    follower = core.follow()
    assert [await anext(follower) for _ in range(3)] == [b"0", b"1", b"2"]
    await core.truncate(3)
    await core.append([b"new 3", b"new 4"])
    assert await anext(follower) == b"new 3"
    await core.truncate(1)
    await core.append([b"newer"] * 5)
    with pytest.raises(SnapshotNotAvailable, match="truncated to 1 block"):
        await anext(follower)


async def test_following_a_copy_over_a_cut(core: Core, other_store: Corestore) -> None:
    await core.append([b"0", b"1", b"2"])
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        assert await copy.get(0) == b"0"
    follower = copy.follow()
    assert await anext(follower) == b"0"
    got = []

    async def read() -> None:
        got.extend([await anext(follower) for _ in range(2)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)  # waits for the old block 1
        await trio.testing.wait_all_tasks_blocked()
        await core.truncate(1)
        await core.append([b"new 1", b"new 2"])
        async with replicating(core, copy):
            await copy.download(0, 3)
            while len(got) < 2:
                await trio.testing.wait_all_tasks_blocked()
    assert got == [b"new 1", b"new 2"]


async def test_write_and_read_streams(core: Core) -> None:
    async with core.append_stream() as stream:
        await stream.wait_send_all_might_not_block()
        for word in WORDS:
            await stream.send_all(word)
    assert await collect(core.blocks()) == WORDS
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await stream.wait_send_all_might_not_block()


async def test_large_pieces_are_cut_into_blocks(core: Core) -> None:
    async with core.append_stream(4) as stream:
        await stream.send_all(bytearray(b"abcdefghij"))
        await stream.send_all(b"")
        await stream.send_all(memoryview(b"klmn"))
    assert await collect(core.blocks()) == [b"abcd", b"efgh", b"ij", b"klmn"]
    with pytest.raises(ValueError, match="at least 1"):
        core.append_stream(0)


async def test_byte_streams(core: Core) -> None:
    await core.append(WORDS)
    async with core.byte_stream() as stream:
        assert await collect(stream) == WORDS
        assert await stream.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    assert core.info().sessions == 1


async def test_byte_streams_pass_over_empty_blocks(core: Core) -> None:
    await core.append([b"", b"hello", b"world", b"", b"", b"end", b""])
    assert await collect(core.byte_stream()) == [b"hello", b"world", b"end"]
    assert await read_all(core.byte_stream(5, 10)) == b"world"
    assert core.info().sessions == 1, "read to the end it lets go by itself"


@pytest.mark.parametrize("max_bytes", [None, 1, 3, 1000])
async def test_every_byte_range(core: Core, max_bytes: int | None) -> None:
    await core.append([*WORDS, b"", b"x"])
    whole = b"".join(WORDS) + b"x"
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert await read_all(core.byte_stream(start, stop), max_bytes) == whole[start:stop]
    assert await read_all(core.byte_stream(7)) == whole[7:]


async def test_byte_ranges_that_are_none(core: Core) -> None:
    await core.append(WORDS)
    for start, stop in ((-1, 3), (0, 21), (21, None)):
        with pytest.raises(OutOfRange, match=r"byte .* is outside \[0, 20\)"):
            core.byte_stream(start, stop)
    assert core.info().sessions == 1
    async with core.byte_stream() as stream:
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(0)


async def test_byte_streams_of_encoded_and_encrypted_cores(store: Corestore) -> None:
    core = await store.get(name="secret", encryption_key=b"\x05" * 32)
    await core.encoded(UTF8).append_many([word.decode() for word in WORDS])
    assert await read_all(core.byte_stream(5, 16)) == b"worldverden"
    assert await core.seek(15) == (2, 5)


async def test_a_byte_stream_is_of_one_moment(core: Core) -> None:
    await core.append(WORDS)
    async with core.byte_stream() as stream:
        assert await stream.receive_some(3) == b"hel"
        await core.truncate(1)
        await core.append([b"other"] * 9)
        assert await read_all(stream) == b"loworldverdenwelt"


async def test_one_task_receives_at_a_time(core: Core, other_store: Corestore) -> None:
    await core.append(WORDS)
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(4)
    async with copy.byte_stream(6) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_cancelled_receiving_loses_no_byte(core: Core) -> None:
    await core.append(WORDS * 100)
    got = []
    async with core.byte_stream(3) as stream:

        async def receive() -> None:
            got.append(await stream.receive_some(7))

        while not got or got[-1]:
            await cancel_everywhere(receive)
    assert b"".join(got) == (b"".join(WORDS) * 100)[3:]


async def test_cancelled_sending_appends_all_or_nothing(core: Core) -> None:
    async with core.append_stream(2) as stream:
        for _ in range(40):
            await cancel_everywhere(lambda: stream.send_all(b"abcde"))
    assert core.length % 3 == 0
    assert await read_all(core.byte_stream()) == b"abcde" * (core.length // 3)


# --- seeking -------------------------------------------------------------------------------------


async def test_seeking_everywhere(core: Core) -> None:
    sizes = [3, 0, 1, 5, 0, 0, 2, 4, 1]
    await core.append([bytes(size) for size in sizes])
    places = [(block, offset) for block, size in enumerate(sizes) for offset in range(size)]
    for byte, place in enumerate(places):
        found = await core.seek(byte)
        # At a border it is the first block that begins there, be it empty.
        assert (sum(sizes[: found.block]) + found.offset, found.offset) == (byte, place[1])
        assert found.block <= place[0]
    assert await core.seek(sum(sizes)) == (len(sizes), 0)
    for wrong in (-1, sum(sizes) + 1):
        with pytest.raises(OutOfRange):
            await core.seek(wrong)
    assert await core.seek(0) == (0, 0)


async def test_seeking_in_a_sparse_copy(core: Core, other_store: Corestore) -> None:
    blocks = [b"x" * (index % 7) for index in range(1000)]
    await core.append(blocks)
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(1000)
        with pytest.raises(BlockNotAvailable):
            await copy.seek(1500, wait=False)
        for byte in (1, 1500, 2900, core.byte_length - 1):
            assert await copy.seek(byte) == await core.seek(byte)
        total = copy.statistics().replication.total
        assert total.blocks_received <= 5, "the block that is found, and nothing else"
        assert await copy.seek(core.byte_length) == (1000, 0)
        assert await read_all(copy.byte_stream(1500, 1520)) == b"x" * 20
        assert copy.bitfield.count(0, 1000) < 300


async def test_a_peer_that_lies_about_sizes_misleads_nobody(
    store: Corestore, core: Core, other_store: Corestore
) -> None:
    await core.append([bytes(10)] * 8)
    honest = await other_store.get(key=core.key)
    async with replicating(core, honest):
        await honest.download(0, 8)
        await honest.wait_length(8)
    await core.close()
    keys = DataKeys(0)
    batch = store.storage.batch()
    for index, size in ((4, 5), (6, 15)):  # blocks 2 and 3
        node = honest.read_node(index)
        assert node is not None
        batch.put(keys.node(index), encode_node(MerkleNode(node.index, size, node.hash)))
    store.storage.commit(batch)
    liar = await store.get(name="log")
    async with open_corestore(None) as third_store, trio.open_nursery() as nursery:
        copy = await third_store.get(key=core.key)
        found = []

        async def seek() -> None:
            found.append(await copy.seek(27))

        nursery.start_soon(seek)
        async with replicating(liar, copy):
            await copy.wait_length(8)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            assert copy.statistics().replication.peers_refused == 1
        async with replicating(honest, copy):
            while not found:
                await trio.testing.wait_all_tasks_blocked()
        assert found == [(2, 7)]


async def test_seeking_beyond_the_end_waits_for_it(core: Core, other_store: Corestore) -> None:
    await core.append(b"one")
    copy = await other_store.get(key=core.key)
    found = []

    async def seek() -> None:
        found.append(await copy.seek(4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(seek)
        async with replicating(core, copy):
            await copy.wait_length(1)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            with pytest.raises(BlockNotAvailable):
                await copy.seek(4, wait=False)
            await core.append(b"two")
            while not found:
                await trio.testing.wait_all_tasks_blocked()
    assert found == [(1, 1)]


async def test_a_seek_moves_on_when_its_peer_goes(core: Core, other_store: Corestore) -> None:
    await core.append([b"x" * 10 for _ in range(64)])
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(64)
    found = []

    async def seek() -> None:
        found.append(await copy.seek(333))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(seek)
        await trio.testing.wait_all_tasks_blocked()
        async with replicating(core, copy):
            while not found:
                await trio.testing.wait_all_tasks_blocked()
    assert found == [(33, 3)]


async def test_cancelled_seeks_are_forgotten(core: Core, other_store: Corestore) -> None:
    await core.append([b"x" * 10 for _ in range(64)])
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(64)
        await cancel_everywhere(lambda: copy.seek(333))
        assert await copy.seek(333, wait=False) == (33, 3)
