"""What is no block, or no number of one, is refused before anything is done, and says why."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypercore import LIVE, UTF8, BlockCipher, Core, Manifest, OutOfRange, open_corestore

WRONG = [
    ("text", "not str"),
    (bytearray(b"abc"), "not bytearray"),
    (memoryview(b"abc"), "not memoryview"),
    (7, "not int"),
    ((b"%d" % number for number in range(2)), "not generator"),
    ([b"good", "text"], "a block is bytes, not str"),
    ([b"good", bytearray(b"abc")], "a block is bytes, not bytearray"),
]


@pytest.mark.parametrize(("given", "reason"), WRONG)
async def test_a_mistake_costs_nothing_and_the_core_goes_on(
    tmp_path: Path, given: Any, reason: str
) -> None:
    """Found by trying: a text among blocks ended the core until it was opened again."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        with pytest.raises(TypeError, match=reason):
            await core.append(given)
        with pytest.raises(TypeError, match=reason):
            async with store.atom(core) as atom:
                atom[core].append(given)
        with pytest.raises(TypeError, match="a block is bytes"):
            await core.append_pieces([[b"good"], ["text"]])  # type: ignore[list-item]
        assert core.length == 0
        assert await core.append([b"one", b"two"]) == 0
        assert await core.append(deque([b"three"])) == 2
        assert [block async for block in core.blocks()] == [b"one", b"two", b"three"]


async def downloaded(core: Core, *bounds: int, blocks: range | list[int] | None = None) -> None:
    async with core.downloading(*bounds, blocks=blocks):
        pass


BELOW_ZERO: list[Callable[[Core], Awaitable[object] | object]] = [
    lambda core: core.blocks(-3, 2),
    lambda core: core.blocks(-3, 2, reverse=True),
    lambda core: core.snapshot().blocks(-3),
    lambda core: core.encoded(UTF8).values(-3),
    lambda core: core.follow(-1),
    lambda core: core.download(-3, 2),
    lambda core: core.snapshot().download(-3, 2),
    lambda core: downloaded(core, -3, 2),
    lambda core: downloaded(core, blocks=[2, -1]),
    lambda core: downloaded(core, blocks=range(2, -3, -1)),
    lambda core: core.get_many([0, -1]),
    lambda core: core.prefetch(iter([1, -1])),
    lambda core: core.snapshot().prefetch(range(-1, 1)),
    lambda core: core.prefetch([0, -1]),
    lambda core: core.prefetch(range(-3, 2)),
    lambda core: core.snapshot().prefetch([-1]),
]
READINGS: list[Callable[[Core, Any], Awaitable[object] | object]] = [
    lambda core, index: core.get(index),
    lambda core, index: core.get_many([index]),
    lambda core, index: core.get_local(index),
    lambda core, index: core.get_stored(index),
    lambda core, index: core.snapshot().get(index),
]


async def attempt(call: Callable[[Core], Awaitable[object] | object], core: Core) -> None:
    result = call(core)
    if isinstance(result, Awaitable):
        await result


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("call", BELOW_ZERO)
async def test_there_is_no_block_below_zero(
    call: Callable[[Core], Awaitable[object] | object], is_ours: bool
) -> None:
    async with open_corestore(None) as store:
        core = await (store.get(name="log") if is_ours else store.get(key=bytes(32)))
        if is_ours:
            await core.append([b"one", b"two"])
        with pytest.raises(OutOfRange, match="is outside"):
            await attempt(call, core)


BEYOND_ALL: list[Callable[[Core], Awaitable[object] | object]] = [
    lambda core: core.download(0, 2**63),
    lambda core: core.download(0, 2**64),
    lambda core: core.download(2**64, 2**64 + 1),
    lambda core: core.snapshot().download(2**64, 2**64 + 1),
    lambda core: downloaded(core, 0, 2**64),
    lambda core: downloaded(core, blocks=[1, 2**64]),
    lambda core: core.prefetch([1, 2**64]),
    lambda core: core.prefetch(range(2**64)),
]


@pytest.mark.parametrize("call", BEYOND_ALL)
async def test_there_is_no_block_beyond_what_a_log_can_hold(
    call: Callable[[Core], Awaitable[object] | object],
) -> None:
    async with open_corestore(None) as store:
        core = await store.get(key=bytes(32))
        with pytest.raises(OutOfRange, match=r"is outside \[0, 9007199254740991\)"):
            await attempt(call, core)


CUTS: list[Callable[[Core, Any, Any], Awaitable[object] | object]] = [
    lambda core, length, fork: core.truncate(length, fork),
    lambda core, length, fork: core.propose_truncation(length, fork),
]


@pytest.mark.parametrize("cut", CUTS)
async def test_a_log_is_cut_at_a_whole_number_of_blocks(
    cut: Callable[[Core, Any, Any], Awaitable[object] | object],
) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        for length, fork in [(1.0, None), (1, 7.5), (True, None)]:
            with pytest.raises(TypeError, match=r"int, not (float|bool)"):
                await attempt(lambda core: cut(core, length, fork), core)  # noqa: B023
            with pytest.raises(TypeError, match=r"int, not (float|bool)"):
                async with store.atom(core) as atom:
                    atom[core].truncate(length, fork)  # type: ignore[arg-type]  # the mistake
        assert (core.length, core.fork) == (2, 0)


@pytest.mark.parametrize("reading", READINGS)
async def test_an_index_that_no_block_can_have_is_refused_as_what_it_is(
    reading: Callable[[Core, Any], Awaitable[object] | object],
) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append(b"one")
        with pytest.raises(TypeError, match="the index of a block is int, not float"):
            await attempt(lambda core: reading(core, 0.0), core)
        with pytest.raises(OutOfRange, match="is outside"):
            await attempt(lambda core: reading(core, 2**64), core)


CLEARINGS: list[Callable[[Core, Any], Awaitable[object] | object]] = [
    lambda core, number: core.clear(0, number),
    lambda core, number: core.clear_many([0, number]),
]
NUMBERS: list[Callable[[Core, Any], Awaitable[object] | object]] = [
    lambda core, number: core.get_local_many([0, number]),
    lambda core, number: core.blocks(number),
    lambda core, number: core.blocks(0, number),
    lambda core, number: core.follow(number),
    lambda core, number: core.has_range(0, number),
    lambda core, number: core.seek(number),
    lambda core, number: core.byte_stream(number),
    lambda core, number: core.byte_stream(0, number),
    lambda core, number: core.byte_stream().receive_some(number),
    lambda core, number: core.append_stream(number),
    lambda core, number: core.push([number]),
    lambda core, number: core.wait_length(number),
    lambda core, number: core.wait_change(number, 0),
    lambda core, number: core.wait_change(2, number),
    lambda core, number: core.wait_durable(number),
    lambda core, number: core.checkout(number),
    lambda core, number: core.tree_hash(number),
    lambda core, number: core.prune([number]),
    lambda core, number: core.read_node(number),
    lambda core, number: core.read_blocks([0, number]),
    lambda core, number: Manifest.static(bytes(32), number),
    lambda core, number: Manifest.multi_signer([core.key], quorum=number),
    lambda core, number: BlockCipher(bytes(32), core.key).encrypt(number, 0, b"block"),
    lambda core, number: BlockCipher(bytes(32), core.key).encrypt(0, number, b"block"),
    lambda core, number: BlockCipher(bytes(32), core.key).decrypt(number, b"a stored block"),
    lambda core, number: core.snapshot().blocks(0, number),
    lambda core, number: core.snapshot().has_range(0, number),
    lambda core, number: core.snapshot().seek(number),
    lambda core, number: core.snapshot().byte_stream(number),
]


@pytest.mark.parametrize("call", CLEARINGS + NUMBERS)
async def test_a_number_of_blocks_or_bytes_is_a_whole_one(
    call: Callable[[Core, Any], Awaitable[object] | object],
) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        with pytest.raises(TypeError, match="is int, not float"):
            await attempt(lambda core: call(core, 1.5), core)
        assert core.has_range(0, 2)


@pytest.mark.parametrize("call", CLEARINGS)
async def test_nothing_is_given_up_for_true(
    call: Callable[[Core, Any], Awaitable[object] | object],
) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        with pytest.raises(TypeError, match="is int, not bool"):
            await attempt(lambda core: call(core, True), core)
        async with store.atom(core) as atom:
            with pytest.raises(TypeError, match="is int, not bool"):
                atom[core].clear(0, True)
        assert core.has_range(0, 2)


async def test_a_live_download_from_anywhere_is_looked_at_at_once() -> None:
    async with open_corestore(None) as store:
        core = await store.get(key=bytes(32))
        async with core.downloading(blocks=range(7, LIVE)) as blocks:
            assert not blocks.is_done
        async with core.downloading(blocks=range(0)) as none:
            assert none.is_done


async def test_many_are_asked_for_by_whatever_gives_their_numbers() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two", b"three"])
        values = core.encoded(UTF8)
        assert await core.get_many(iter([2, 0])) == [b"three", b"one"]
        assert core.get_local_many(iter([2, 0])) == [b"three", b"one"]
        assert await values.get_many(iter([2, 0])) == ["three", "one"]
        async with core.snapshot() as snapshot:
            assert await snapshot.get_many(iter([2, 0])) == [b"three", b"one"]
            assert snapshot.get_local_many(iter([2, 0])) == [b"three", b"one"]
        async with core.downloading(blocks=iter([2, 7])) as download:
            assert download.missing(9) == 1
