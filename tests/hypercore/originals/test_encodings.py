"""What hypercore 11.37.1's test/encodings.js covers, with encodings that have types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from hypercore import (
    BYTES,
    JSON,
    MSGPACK,
    UTF8,
    BlockNotAvailable,
    Core,
    Corestore,
    Json,
    OutOfRange,
    Packable,
    UndecodableBlock,
    ValueEncoding,
)
from tests.support.replicating_cores import replicating


async def test_the_same_blocks_with_several_encodings(core: Core) -> None:
    values = core.encoded(JSON)
    assert await values.append({"hello": "wörld"}) == 0
    assert await values.get(0) == {"hello": "wörld"}
    assert values.length == 1
    assert await core.encoded(UTF8).get(0) == '{"hello":"wörld"}'
    assert await core.encoded(BYTES).get(0) == await core.get(0) == '{"hello":"wörld"}'.encode()


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "", "ü\n", [], [1, [2, None]], {}, {"a": {"b": [1]}}]
)
async def test_json_and_message_pack_give_back_what_they_got(core: Core, value: Json) -> None:
    await core.encoded(JSON).append(value)
    assert await core.encoded(JSON).get(0) == value
    packable: Packable = value
    await core.encoded(MSGPACK).append(packable)
    assert await core.encoded(MSGPACK).get(1) == packable


async def test_message_pack_has_bytes(core: Core) -> None:
    await core.encoded(MSGPACK).append({"key": b"\xff\x00"})
    assert await core.get(0) == b"\x81\xa3key\xc4\x02\xff\x00"
    assert await core.encoded(MSGPACK).get(0) == {"key": b"\xff\x00"}


class Celsius:
    """An encoding of one's own: degrees in one byte."""

    def encode(self, value: float, /) -> bytes:
        return bytes([round(value) + 100])

    def decode(self, block: bytes, /) -> float:
        (byte,) = block
        return byte - 100


async def test_an_encoding_of_ones_own(core: Core) -> None:
    celsius: ValueEncoding[float] = Celsius()
    degrees = core.encoded(celsius)
    await degrees.append_many([21.4, -3])
    assert await degrees.get_many([1, 0]) == [-3, 21]
    assert [value async for value in degrees.values()] == [21, -3]
    assert [value async for value in degrees.values(reverse=True)] == [-3, 21]
    assert [value async for value in degrees.values(1, 2)] == [-3]
    await core.append(b"too long")
    with pytest.raises(UndecodableBlock, match="block 2: too many values"):
        await degrees.get(2)


async def test_values_that_are_encoded_together(core: Core) -> None:
    def join(values: Sequence[str]) -> list[bytes]:
        return ["-".join(values).encode()]

    words = core.encoded(UTF8, encode_many=join)
    await words.append_many(["a", "b", "c"])
    await words.append_many(["d", "e"])
    await words.append("f")
    assert [word async for word in words.values()] == ["a-b-c", "d-e", "f"]


DAMAGE: list[tuple[ValueEncoding[Any], bytes]] = [
    (JSON, b"{"),
    (JSON, b"\xff"),
    (JSON, b""),
    (JSON, b"[" * 100_000),
    (UTF8, b"\xff"),
    (MSGPACK, b"\xc1"),
    (MSGPACK, b"\x92\x01"),
    (MSGPACK, b"\x01\x02"),
    (MSGPACK, b""),
    (MSGPACK, b"\x81\x90\x01"),
    (MSGPACK, b"\x91" * 100_000),
]


@pytest.mark.parametrize(("encoding", "block"), DAMAGE, ids=range(len(DAMAGE)))
async def test_a_block_of_another_encoding(
    core: Core, encoding: ValueEncoding[Any], block: bytes
) -> None:
    await core.append(block)
    values = core.encoded(encoding)
    with pytest.raises(UndecodableBlock, match="block 0: "):
        await values.get(0)
    with pytest.raises(UndecodableBlock, match="block 0: "):
        values.get_local(0)
    with pytest.raises(UndecodableBlock, match="block 0: "):
        await anext(values.values())


async def test_what_cannot_be_encoded_is_not_appended(core: Core) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        await core.encoded(JSON).append(float("nan"))
    with pytest.raises(ValueError, match="surrogates"):
        await core.encoded(UTF8).append_many(["fine", "\ud800"])
    assert core.length == 0


async def test_values_of_snapshots_and_copies(core: Core, other_store: Corestore) -> None:
    words = core.encoded(UTF8)
    await words.append_many(["a", "b", "c"])
    async with core.snapshot() as snapshot:
        await core.truncate(1)
        await words.append("other")
        old = snapshot.encoded(UTF8)
        assert old.length == 3
        assert [word async for word in old.values()] == ["a", "b", "c"]
        assert old.get_local(2) == "c"
        with pytest.raises(OutOfRange):
            await old.get(3)
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(2)
        with pytest.raises(BlockNotAvailable):
            await copy.encoded(UTF8).get(1, wait=False)
        assert copy.encoded(UTF8).get_local(1) is None
        assert await copy.encoded(UTF8).get(1) == "other"


async def test_following_values(core: Core) -> None:
    words = core.encoded(UTF8)
    await words.append_many(["a", "b"])
    follower = words.follow(1)
    assert await anext(follower) == "b"
    got = []

    async def read() -> None:
        got.append(await anext(follower))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await words.append("c")
    assert got == ["c"]
