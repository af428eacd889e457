"""What hypercore 11.37.1's test/streams.js covers, with JavaScript on one side of a connection.

Offsets are looked up over the wire: the side that reads has the head of the log and no block.
"""

from __future__ import annotations

import pytest
import trio

from hypercore import Core, open_corestore
from tests.interop.replication_peer import connected, open_javascript_peer
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 180
BLOCKS = [b"%d " % index * (index % 23) for index in range(3000)]
WHOLE = b"".join(BLOCKS)
OFFSETS = [1, 5_000, len(WHOLE) // 2, len(WHOLE) // 2 + 1, len(WHOLE) - 1]


def place_of(offset: int) -> tuple[int, int]:
    before = 0
    for index, block in enumerate(BLOCKS):
        if before == offset or before + len(block) > offset:
            return index, offset - before
        before += len(block)
    return len(BLOCKS), 0


async def read(core: Core, start: int, stop: int) -> bytes:
    async with core.byte_stream(start, stop) as stream:
        return b"".join([bytes(piece) async for piece in stream])


async def follow_all(core: Core, count: int) -> list[bytes]:
    follower = core.follow()
    return [await anext(follower) for _ in range(count)]


async def fill(peer: PeerProcess) -> bytes:
    key = (await peer("open", id="theirs", name="log"))["key"]
    for start in range(0, len(BLOCKS), 1000):
        blocks = [block.hex() for block in BLOCKS[start : start + 1000]]
        await peer("append", id="theirs", blocks=blocks)
    return bytes.fromhex(key)


@pytest.mark.parametrize("is_initiator", [True, False], ids=["we dial", "they dial"])
async def test_bytes_of_the_other_side(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            theirs = await store.get(key=await fill(peer))
            ours = await store.get(name="ours")
            await ours.append(BLOCKS)
            await peer("open", id="ours", key=ours.key.hex())
            async with connected(store, peer, is_initiator=is_initiator):
                await theirs.wait_length(len(BLOCKS))
                await peer("waitLength", id="ours", length=len(BLOCKS))
                for offset in OFFSETS:
                    assert await theirs.seek(offset) == place_of(offset)
                    answer = await peer("seek", id="ours", bytes=offset)
                    assert tuple(answer["found"]) == place_of(offset)
                received = theirs.statistics().replication.total.blocks_received
                assert received <= len(OFFSETS), "the block that proves the place, and no other"
                for start, length in ((5_000, 3_000), (len(WHOLE) - 1_000, 1_000), (70, 1)):
                    expected = WHOLE[start : start + length]
                    assert await read(theirs, start, start + length) == expected
                    answer = await peer("byteStream", id="ours", start=start, length=length)
                    assert bytes.fromhex(answer["bytes"]) == expected
                assert theirs.bitfield.count(0, len(BLOCKS)) < len(BLOCKS) // 2


async def test_encrypted_bytes_of_javascript() -> None:
    """An encrypted log's offsets leave out the padding, also those that peers look up."""
    key = b"\x07" * 32
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            answer = await peer("open", id="a", name="log", encryptionKey=key.hex())
            await peer("append", id="a", blocks=[block.hex() for block in BLOCKS[:300]])
            copy = await store.get(key=bytes.fromhex(answer["key"]), encryption_key=key)
            async with connected(store, peer, is_initiator=True):
                await copy.wait_length(300)
                whole = b"".join(BLOCKS[:300])
                assert copy.byte_length == len(whole)
                for offset in (1, len(whole) // 2, len(whole) - 1):
                    assert await copy.seek(offset) == place_of(offset)
                assert await read(copy, 1_000, 2_000) == whole[1_000:2_000]


async def test_what_one_side_writes_the_other_follows() -> None:
    words = [b"hello", b"world", b"verden", b"welt"]
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            theirs = await store.get(
                key=bytes.fromhex((await peer("open", id="theirs", name="log"))["key"])
            )
            ours = await store.get(name="ours")
            await peer("open", id="ours", key=ours.key.hex())
            async with (
                connected(store, peer, is_initiator=True),
                trio.open_nursery() as nursery,
            ):
                got: list[bytes] = []

                async def read_theirs() -> None:
                    got.extend(await follow_all(theirs, len(words)))

                nursery.start_soon(read_theirs)
                await peer("writeStream", id="theirs", blocks=[word.hex() for word in words])
                async with ours.append_stream() as stream:
                    for word in words:
                        await stream.send_all(word)
                await peer("waitLength", id="ours", length=len(words))
                answer = await peer("byteStream", id="ours", start=0, length=20)
                assert bytes.fromhex(answer["bytes"]) == b"".join(words)
            assert got == words
