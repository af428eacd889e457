"""Blocks that a log's owner signed, and that are no tree: a clear error, and an end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bee import Bee, BeeError, CorruptTree, Header, NotABee, UnknownFormat, Version
from bee.extension_messages import DiffRequest, GetRequest, IteratorRequest
from bee.messages import MAX_BROUGHT, encode_level, encode_record
from bee.protobuf import encode_packed
from hypercore.encoding import encode_buffer
from tests.support.bee_log import BeeLog, RemoteLog

HEADER = Header().encode()
Level = tuple[Sequence[int], Sequence[tuple[int, int]]]


def block(levels: Sequence[Level], key: bytes, value: bytes | None = b"v") -> bytes:
    """A block with these tree nodes: seqs of keys, (seq, offset) of children."""
    index = b"".join(
        encode_level(encode_packed(keys), encode_packed(n for child in children for n in child))
        for keys, children in levels
    )
    return encode_record(index, key, value)


def leaf(seq: int) -> bytes:
    return block([([seq], [])], b"key-%d" % seq)


async def read_everything(log: BeeLog) -> None:
    """Each way of reading and writing ends, with a result or a BeeError."""
    bee = Bee(log)
    for key in (b"key-1", b"key-9", b"", b"\xff"):
        with contextlib.suppress(BeeError):
            await bee.get(key)
    for reverse in (False, True):
        for gte, lt in ((None, None), (b"key-2", b"key-7")):
            with contextlib.suppress(BeeError):
                async for _ in bee.range(gte=gte, lt=lt, reverse=reverse):
                    pass
    with contextlib.suppress(BeeError):
        async for _ in bee.history():
            pass
    for version in range(1, bee.version, 3):
        with contextlib.suppress(BeeError):
            async for _ in bee.diff(version):
                pass
    handler = log.handlers["hyperbee"]
    for request in (
        GetRequest(log.length, b"key-5"),
        IteratorRequest(log.length),
        IteratorRequest(log.length, gte=b"key-3", reverse=True),
        IteratorRequest(log.length, checkpoint=(log.length - 1, 0, 1, 2, 1, 0)),
    ):
        await handler(encode_buffer(request.encode()), None)
    for key in (b"key-1", b"new", b""):
        with contextlib.suppress(BeeError):
            await Bee(BeeLog(log.blocks)).put(key, b"v")
        with contextlib.suppress(BeeError):
            await Bee(BeeLog(log.blocks)).delete(key)


def read_within_limits(blocks: Sequence[bytes]) -> None:
    async def read() -> None:
        with trio.fail_after(60):
            await read_everything(BeeLog(blocks))
            remote = RemoteLog(BeeLog(blocks))
            for key in (b"key-1", b"key-5"):
                with contextlib.suppress(BeeError):
                    await Bee(remote).get(key)
            with contextlib.suppress(BeeError):
                async for _ in Bee(remote).range(gte=b"key-2"):
                    pass

    trio.run(read)


CASES: dict[str, list[bytes]] = {
    "no record": [HEADER, b"\xff\xff"],
    "no index": [HEADER, b"\x12\x01k"],
    "no level": [HEADER, block([], b"k")],
    "a root that is its own child": [HEADER, leaf(1), block([([1], [(2, 0), (2, 0)])], b"k")],
    "a circle in one block": [
        HEADER,
        leaf(1),
        block([([1], [(2, 1), (2, 1)]), ([1], [(2, 0), (2, 0)])], b"k"),
    ],
    "a child in a later block": [
        HEADER,
        leaf(1),
        block([([1], [(3, 0), (1, 0)])], b"k"),
        block([([1], [(2, 0), (2, 0)])], b"l"),
    ],
    "a child beyond the log": [HEADER, leaf(1), block([([1], [(99, 0), (1, 0)])], b"k")],
    "a key beyond the log": [HEADER, block([([10**12], [])], b"k")],
    "a key in the header": [HEADER, block([([0], [])], b"k")],
    "a child in the header": [HEADER, leaf(1), block([([1], [(0, 0), (0, 0)])], b"k")],
    "no such level": [HEADER, leaf(1), block([([1], [(1, 5), (1, 10**9)])], b"k")],
    "too few children": [HEADER, leaf(1), block([([1], [(1, 0)])], b"k")],
    "too many children": [HEADER, leaf(1), block([([1], [(1, 0)] * 3)], b"k")],
    "too many keys": [HEADER, block([([1] * 9, [])], b"k")],
    "children without keys": [HEADER, leaf(1), block([([], [(1, 0)])], b"k")],
    "an empty leaf": [HEADER, block([([], [])], b"j"), block([([1], [(1, 0), (1, 0)])], b"k")],
    "a key twice": [HEADER, block([([1, 1, 1], [])], b"k")],
    "keys out of order": [HEADER, leaf(1), block([([2, 1], [])], b"z")],
}


@pytest.mark.parametrize("name", CASES)
def test_trees_that_are_none(name: str) -> None:
    read_within_limits(CASES[name])

    async def scan() -> None:
        async for _ in Bee(BeeLog(CASES[name])).range():
            pass

    with pytest.raises(CorruptTree):
        trio.run(scan)


def test_a_tree_that_shares_its_children_ends() -> None:
    # 30 levels, each with the level below as both of its children: 2**30 leaves to pass.
    for key_seq in (lambda _seq: 1, lambda seq: 1 + seq % 2, lambda seq: seq):
        blocks = [
            block([([key_seq(seq)], [(seq - 1, 0), (seq - 1, 0)])], b"key-%d" % seq)
            for seq in range(2, 32)
        ]
        read_within_limits([HEADER, leaf(1), *blocks])


def test_a_tree_too_deep_ends() -> None:
    blocks = [
        block([([seq], [(seq - 1, 0), (seq - 1, 0)])], b"key-%05d" % seq) for seq in range(2, 200)
    ]
    read_within_limits([HEADER, leaf(1), *blocks])


seqs = st.one_of(st.integers(0, 14), st.integers(0, 2**53))
levels = st.tuples(
    st.lists(seqs, max_size=9), st.lists(st.tuples(seqs, st.integers(0, 3)), max_size=10)
)
fitting_levels = st.lists(seqs, min_size=1, max_size=4).flatmap(
    lambda keys: st.tuples(
        st.just(keys),
        st.lists(
            st.tuples(st.integers(1, 12), st.integers(0, 2)),
            min_size=len(keys) + 1,
            max_size=len(keys) + 1,
        ),
    )
)
keys = st.sampled_from([b"key-%d" % number for number in range(12)])
invented_blocks = st.builds(
    block, st.lists(st.one_of(levels, fitting_levels), max_size=3), keys, st.none()
)


@given(st.lists(st.one_of(st.binary(max_size=30), invented_blocks), min_size=1, max_size=12))
def test_invented_blocks(blocks: list[bytes]) -> None:
    read_within_limits([HEADER, *blocks])


@given(st.data())
def test_spoiled_blocks(data: st.DataObject) -> None:
    async def write() -> list[bytes]:
        log = BeeLog()
        bee = Bee(log)
        for number in range(60):
            await bee.put(b"key-%d" % number, b"v")
        return log.blocks

    blocks = trio.run(write)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(1, len(blocks) - 1))
        spoiled = bytearray(blocks[index])
        position = data.draw(st.integers(0, len(spoiled) - 1))
        spoiled[position] = data.draw(st.integers(0, 255))
        blocks[index] = bytes(spoiled)
    read_within_limits(blocks)


async def test_a_log_of_something_else_is_named_as_such() -> None:
    log = BeeLog([b"hello", b"world"])
    for read in readers(Bee(log)):
        with pytest.raises(NotABee):
            await read()
    with pytest.raises(NotABee):
        await Bee(log).put(b"a", b"1")


async def test_a_header_of_another_format_is_named_as_such() -> None:
    """Also when everything behind it looks like a bee."""
    log = BeeLog([Header(protocol="hyperbee2").encode(), *(await written(20)).blocks[1:]])
    for read in readers(Bee(log)):
        with pytest.raises(UnknownFormat, match="hyperbee2"):
            await read()
    remote = Bee(RemoteLog(log))
    assert await remote.get(b"key-00005") is not None, "its first block is not here"
    with pytest.raises(UnknownFormat):
        await remote.header()
    with pytest.raises(UnknownFormat):
        remote.snapshot()


async def written(count: int) -> BeeLog:
    log = BeeLog()
    bee = Bee(log)
    for number in range(count):
        await bee.put(b"key-%05d" % (number * 7 % count), b"value %d" % number)
    return log


Read = Callable[[], Awaitable[object]]


def readers(bee: Bee) -> list[Read]:
    """Each way to read; those that read all of the bee come first."""

    async def scan(**bounds: Any) -> object:
        return [entry async for entry in bee.range(**bounds)]

    async def history() -> object:
        return [change async for change in bee.history()]

    async def diff() -> object:
        return [difference async for difference in bee.diff(1)]

    async def watch() -> object:
        version = Version(1, bee.snapshot().fork)
        with bee.watch(since=version) as updates:
            return [difference async for difference in await anext(updates)]

    async def get_all() -> object:
        return [await bee.get(b"key-%05d" % number) for number in range(60)]

    async def batch() -> object:
        async with bee.batch() as edits:
            return [entry async for entry in edits.range()]

    everything: list[Read] = [
        scan,
        partial(scan, reverse=True),
        history,
        diff,
        watch,
        get_all,
        partial(bee.get_many, [b"key-%05d" % number for number in range(60)]),
    ]
    if bee.is_writable:
        everything.append(batch)
    return [
        *everything,
        partial(scan, gte=b"key-00020", limit=10),
        partial(scan, since=30),
        partial(bee.peek, reverse=True),
        partial(bee.get, b"key-00030"),
    ]


ALWAYS_FOUND = 8
"""So many of the readers need every block of a bee of which nothing was overwritten."""


async def error_of(read: Read) -> CorruptTree | None:
    with trio.fail_after(20):
        try:
            await read()
        except CorruptTree as error:
            return error
    return None


@pytest.mark.parametrize("is_remote", [False, True])
async def test_a_damaged_block_is_named_and_nothing_of_it_is_kept(is_remote: bool) -> None:
    whole = await written(60)
    reference = Bee(RemoteLog(whole) if is_remote else whole)
    expected = [await read() for read in readers(reference)]
    for seq in range(1, 60, 7):
        for damage in (b"\xff\xff\xff", b"", whole.blocks[seq][:-3], b"\x00" * 50):
            owner = BeeLog(whole.blocks)
            owner.blocks[seq] = damage
            log = RemoteLog(owner) if is_remote else owner
            bee = Bee(log)
            found = 0
            ways = readers(bee)
            for number in range(len(ways)):
                owner.blocks[seq] = damage
                if isinstance(log, RemoteLog):
                    log.held.clear()
                error = await error_of(ways[number])
                if error is not None:
                    assert error.seq == seq
                    assert f"block {seq}:" in str(error)
                    assert bee.cache_statistics().nodes == 0
                    found += 1
                # Mended, the same bee reads it: what was read of the damaged one is forgotten.
                owner.blocks[seq] = whole.blocks[seq]
                if isinstance(log, RemoteLog):
                    log.held.clear()
                assert await ways[number]() == expected[number]
            assert found >= ALWAYS_FOUND - is_remote


SHAPES: dict[str, tuple[Sequence[bytes], set[int]]] = {
    "a child beyond the log": ([leaf(1), block([([1], [(99, 0), (1, 0)])], b"k")], {2, 99}),
    "a child ahead": (
        [leaf(1), block([([1], [(3, 0), (1, 0)])], b"k"), block([([1], [(2, 0)] * 2)], b"l")],
        {2, 3},
    ),
    "a key beyond the log": ([block([([99], [])], b"k")], {99}),
    "a circle": ([leaf(1), block([([1], [(2, 0)] * 2)], b"k")], {1, 2}),
    "keys out of order": (
        [leaf(1), block([([1], [])], b"b"), block([([2, 1, 3], [])], b"c")],
        {1, 2, 3},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("is_remote", [False, True])
async def test_what_is_no_tree_names_its_block(name: str, is_remote: bool) -> None:
    blocks, named = SHAPES[name]
    owner = BeeLog([HEADER, *blocks])
    told = 0
    for number in range(len(readers(Bee(RemoteLog(owner))))):
        bee = Bee(RemoteLog(owner) if is_remote else owner)
        error = await error_of(readers(bee)[number])
        if error is not None:
            assert error.seq in named
            assert bee.cache_statistics().nodes == 0, "nothing of it is kept"
            told += 1
    assert told >= 5


async def test_a_tree_of_shared_children_ends_also_where_only_newer_keys_are_wanted() -> None:
    """Its nodes are new, its only key is old: nothing in order that could be out of order."""
    blocks = [block([([1], [(seq - 1, 0), (seq - 1, 0)])], b"key-%d" % seq) for seq in range(2, 31)]
    bee = Bee(BeeLog([HEADER, leaf(1), *blocks]))
    with trio.fail_after(20), pytest.raises(CorruptTree, match="shared"):
        assert [entry async for entry in bee.range(since=2)]
    with trio.fail_after(20), pytest.raises(CorruptTree, match="shared"):
        await bee.compact(dry_run=True)


async def test_a_block_with_too_many_nodes_is_not_searched_for_them() -> None:
    for count in (MAX_BROUGHT, MAX_BROUGHT + 1):
        root = ([1], [(2, count - 1), (2, count - 2)])
        blocks = [HEADER, leaf(1), block([root, *[([2], [])] * (count - 1)], b"key-0")]
        bee = Bee(BeeLog(blocks))
        if count == MAX_BROUGHT:
            assert await bee.get(b"key-0") == (2, b"key-0", b"v")
        else:
            with pytest.raises(CorruptTree, match=f"tree node {MAX_BROUGHT} of a block"):
                await bee.get(b"key-0")


async def test_what_would_take_long_to_decode_is_not() -> None:
    """15 MB of keys took 1.6 s to split, and as many bytes of levels 29 s to look through."""
    huge_node = encode_record(encode_level(b"\1" * 5_000, b""), b"key", b"v")
    with pytest.raises(CorruptTree, match="a level of 5003 bytes"):
        await Bee(BeeLog([HEADER, huge_node])).get(b"key")
    deletion = encode_record(b"\x0a\x00" * (MAX_BROUGHT + 1), b"key", None)
    with pytest.raises(CorruptTree, match=f"more than {MAX_BROUGHT} levels"):
        assert [change async for change in Bee(BeeLog([HEADER, deletion])).history()]


class HugeLog(BeeLog):
    """Somebody's log of 2**40 blocks, of which few are here: no sooner would a count end a walk."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        super().__init__([HEADER, leaf(1)])
        self.is_writable = False
        self._first = 2**40 - len(blocks)
        self._last_blocks = blocks

    @property
    def length(self) -> int:
        return 2**40

    def get_local(self, index: int) -> bytes | None:
        if index < self._first:
            return super().get_local(index)
        return self._last_blocks[index - self._first]


async def test_shared_children_are_found_however_long_the_log_is() -> None:
    """Two trees of 30 levels without a node in common, and with but one key, which is in both."""
    last = 2**40 - 1
    blocks = [block([([1], [])] * 2, b"leaves")]
    for seq in range(last - 29, last):  # level 0 is of the one tree, level 1 of the other
        levels = [([1], [(seq - 1, tree)] * 2) for tree in (0, 1)]
        blocks.append(block(levels, b"key-%d" % seq))
    blocks.append(block([([1], [(last - 2, 1)] * 2)], b"the other root"))
    log = HugeLog(blocks)
    bee = Bee(log)
    with trio.fail_after(20), pytest.raises(CorruptTree, match="shared"):
        assert [entry async for entry in bee.range(since=2)]
    with trio.fail_after(20), pytest.raises(CorruptTree, match="shared"):
        assert [difference async for difference in bee.diff(last)]
    question = DiffRequest(last, IteratorRequest(last + 1))
    assert await log.handlers["hyperbee"](encode_buffer(question.encode()), None)
