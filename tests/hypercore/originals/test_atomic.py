"""Several cores in one commit: what hypercore's test/atomic.js asks, of `Corestore.atom`.

There an atom is made first and cores get sessions of it; here the atom is opened over its cores.

Without a counterpart: "atomic - overwrite" and "atomic - overwrite and user data" commit named
drafts into an atom, "atomic - flush to wrong parent" moves one to another core; this package
refuses cores made of named drafts (README, compatibility). What these two test of an atom, that
blocks of two cores and their user data arrive together, is tested with plain appends. "draft
truncate then append", which the original skips as not supported, works here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    Atom,
    Core,
    CoreFrozen,
    Corestore,
    Durability,
    NotWritable,
    OutOfRange,
    Prologue,
    UsageError,
    open_corestore,
)
from hypercore.draft import Draft
from hypercore.replication.messages import PROTOCOL
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.forked_cores import open_writer
from tests.support.forked_logs import ONE, fork_proof
from tests.support.storage_rows import verify_core
from tests.support.stream_pair import open_mux_pair


@pytest.fixture(params=["memory", "commit"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    path = None if request.param == "memory" else tmp_path
    async with open_corestore(path, durability=Durability.COMMIT) as opened:
        yield opened


@pytest.fixture
async def core(store: Corestore) -> Core:
    core = await store.get(name="one")
    await core.append([b"hello", b"world"])
    return core


@pytest.fixture
async def other(store: Corestore) -> Core:
    return await store.get(name="other")


class Abandoned(Exception):
    """Raised in an atom's block, to leave it without a commit."""


async def test_an_atom_reads_as_the_core_will_be_and_leaves_no_trace(
    store: Corestore, core: Core
) -> None:
    """atomic - session."""
    atoms: list[Atom] = []
    drafts: list[Draft] = []

    async def leave() -> None:
        async with store.atom(core) as atom:
            atoms.append(atom)
            drafts.append(draft := atom[core])
            assert draft.append(b"edits!") == 2
            assert [draft.get_local(index) for index in range(3)] == [b"hello", b"world", b"edits!"]
            assert draft.has(2)
            assert not core.has(2)
            assert (draft.byte_length, draft.length) == (16, 3)
            raise Abandoned

    with pytest.raises(Abandoned):
        await leave()
    assert (core.byte_length, core.length) == (10, 2)
    assert core.get_local(2) is None
    assert verify_core(store.storage, core.discovery_key) == 2
    with pytest.raises(UsageError, match="over"):
        atoms[0][core]
    changes: list[Callable[[], object]] = [
        lambda: drafts[0].append(b"late"),
        lambda: drafts[0].truncate(0),
        lambda: drafts[0].clear(0, 1),
        lambda: drafts[0].write_local({b"k": b"v"}),
        lambda: drafts[0].set_user_data("k", b"v"),
    ]
    for change in changes:
        with pytest.raises(UsageError, match="over"):
            change()
    await core.append(b"goes on")


async def test_an_atom_that_was_left_with_an_exception_commits_nothing_later(
    store: Corestore, core: Core
) -> None:
    with suppress(Abandoned):
        async with store.atom(core) as atom:
            atom[core].write_local({b"row": b"drafted"})
            atom[core].clear(0, 1)
            raise Abandoned
    with pytest.raises(UsageError, match="over"):
        await atom.flush()
    assert core.get_local_value(b"row") is None
    assert core.has(0)


async def test_another_end_of_the_log(store: Corestore, core: Core) -> None:
    """atomic - checkout session; draft truncate then append."""
    lengths = []
    async with trio.open_nursery() as nursery, store.atom(core) as atom:
        draft = atom[core]
        draft.truncate(1)
        draft.append([b"edits!", b"more"])
        draft.truncate(2)
        assert draft.get_local(0) == b"hello"
        assert draft.get_local(1) == b"edits!"
        assert (draft.byte_length, draft.length, draft.fork) == (11, 2, 2)
        assert (core.byte_length, core.length, core.fork) == (10, 2, 0)
        assert core.get_local(1) == b"world"

        async def note_length() -> None:
            await core.wait_length(4)
            lengths.append(core.length)

        draft.append([b"x", b"y"])
        nursery.start_soon(note_length)
        await trio.testing.wait_all_tasks_blocked()
        assert lengths == []
    assert lengths == [4]
    assert (core.length, core.fork) == (4, 2)
    assert [block async for block in core.blocks()] == [b"hello", b"edits!", b"x", b"y"]
    assert verify_core(store.storage, core.discovery_key) == 4


async def test_appends_are_there_when_the_block_ends(store: Corestore, core: Core) -> None:
    """atomic - append."""
    async with store.atom(core) as atom:
        atom[core].append(b"edits!")
        assert (atom[core].byte_length, atom[core].length) == (16, 3)
        assert (core.byte_length, core.length) == (10, 2)
    assert (core.byte_length, core.length) == (16, 3)
    assert core.durable_length == 3


async def test_several_flushes(store: Corestore, core: Core) -> None:
    """atomic - multiple flushes."""
    async with store.atom(core) as atom:
        atom[core].append(b"edits!")
        await atom.flush()
        assert (core.byte_length, core.length) == (16, 3)
        assert core.durable_length == 3
        atom[core].append(b"more")
        assert (atom[core].byte_length, atom[core].length) == (20, 4)
        assert (core.byte_length, core.length) == (16, 3)
        await atom.flush()
        assert (core.byte_length, core.length) == (20, 4)
        await atom.flush()
    assert verify_core(store.storage, core.discovery_key) == 4


async def test_across_cores(store: Corestore, other: Core) -> None:
    """atomic - across cores."""
    core = await store.get(name="empty")
    async with store.atom(core, other) as atom:
        atom[core].append(b"1.1")
        atom[core].append(b"1.2")
        atom[other].append(b"2.2")
        assert (atom[core].length, atom[other].length) == (2, 1)
        assert (core.length, other.length) == (0, 0)
        assert not core.bitfield.get(0)
        assert not other.bitfield.get(0)
    assert (core.length, other.length) == (2, 1)
    assert core.bitfield.get(0)
    assert other.bitfield.get(0)
    assert core.statistics().blocks_appended == 2


async def test_one_batch_and_one_wait_for_the_disk(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        cores = [await store.get(name=f"{number}") for number in range(5)]
        before = cores[0].storage.durable_sequence
        async with store.atom(*cores) as atom:
            for core in cores:
                atom[core].append(b"x")
                atom[core].write_local({b"row": b"%d" % core.length})
            assert cores[0].storage.durable_sequence == before
        assert [core.durable_length for core in cores] == [1] * 5


async def test_user_data(store: Corestore, core: Core) -> None:
    """atomic - user data."""
    await core.set_user_data("hello", b"world")
    await core.set_user_data("goes", b"away")
    async with store.atom(core) as atom:
        atom[core].set_user_data("hello", b"done")
        atom[core].set_user_data("goes", None)
        assert atom[core].get_user_data("hello") == b"done"
        assert atom[core].get_user_data("goes") is None
        assert core.get_user_data("hello") == b"world"
    assert core.get_user_data("hello") == b"done"
    assert core.get_user_data("goes") is None


async def test_blocks_and_user_data_of_two_cores(store: Corestore, core: Core, other: Core) -> None:
    """atomic - append and user data; atomic - overwrite and user data."""
    async with store.atom(core, other) as atom:
        atom[core].append(b"all the way")
        atom[other].append([b"back", b"to the", b"beginning"])
        atom[core].set_user_data("hello", b"world")
        atom[other].set_user_data("goodbye", b"everybody")
        atom[other].write_local({b"k": b"v"})
        assert (core.length, other.length) == (2, 0)
        assert core.get_user_data("hello") is None
        assert other.get_user_data("goodbye") is None
        assert atom[other].get_local_value(b"k") == b"v"
        assert other.get_local_value(b"k") is None
    assert (core.length, other.length) == (3, 3)
    assert core.get_user_data("hello") == b"world"
    assert other.get_user_data("goodbye") == b"everybody"
    assert other.get_local_value(b"k") == b"v"


async def test_truncating(store: Corestore, core: Core) -> None:
    """atomic - truncate."""
    async with store.atom(core) as atom:
        draft = atom[core]
        draft.truncate(1)
        assert (core.byte_length, core.length) == (10, 2)
        assert (draft.byte_length, draft.length) == (5, 1)
        assert draft.get_local(0) == b"hello"
        assert not draft.has(1)
    assert (core.byte_length, core.length, core.fork) == (5, 1, 1)
    assert verify_core(store.storage, core.discovery_key) == 1


async def test_clearing(store: Corestore, core: Core) -> None:
    async with store.atom(core) as atom:
        draft = atom[core]
        draft.append([b"three", b"four"])
        with pytest.raises(OutOfRange, match="block -3 is outside"):
            draft.clear(-3, 2)
        draft.clear(1, 4)
        assert [draft.has(index) for index in range(4)] == [True, False, False, False]
        draft.truncate(2)
        draft.append(b"new")
        assert draft.get_local(2) == b"new"
        assert core.has(1)
    assert [core.has(index) for index in range(3)] == [True, False, True]
    assert core.contiguous_length == 1
    assert verify_core(store.storage, core.discovery_key, may_have_gaps=True) == 3


async def test_encrypted_cores(store: Corestore) -> None:
    core = await store.get(name="secret", encryption_key=bytes(range(32)))
    await core.append(b"one")
    async with store.atom(core) as atom:
        atom[core].append(b"two")
        assert [atom[core].get_local(index) for index in range(2)] == [b"one", b"two"]
        assert atom[core].byte_length == 6
    assert [block async for block in core.blocks()] == [b"one", b"two"]
    assert b"two" not in (core.read_blocks([1])[0] or b"")


# --- who may, and who waits ----------------------------------------------------------------------


async def test_only_the_cores_it_is_about(store: Corestore, core: Core, other: Core) -> None:
    async with store.atom(core) as atom:
        with pytest.raises(UsageError, match="not one of this atom's"):
            atom[other]
    async with open_corestore(None) as elsewhere:
        foreign = await elsewhere.get(name="one")
        with pytest.raises(UsageError, match="in another store"):
            async with store.atom(core, foreign):
                pass
    await core.append(b"its lock is free")


async def test_what_a_draft_refuses(store: Corestore, core: Core) -> None:
    read_only = await store.get(key=bytes(32))
    async with store.atom(core, read_only) as atom:
        with pytest.raises(NotWritable):
            atom[read_only].append(b"x")
        with pytest.raises(NotWritable):
            atom[read_only].truncate(0)
        atom[read_only].write_local({b"k": b"v"})
        with pytest.raises(IndexError):
            atom[core].truncate(3)
        with pytest.raises(IndexError):
            atom[core].clear(1, 3)
        with pytest.raises(IndexError):
            atom[core].get_local(2)
        with pytest.raises(UsageError, match="fork"):
            atom[core].truncate(1, fork=0)
        with pytest.raises(UsageError, match="local key"):
            atom[core].write_local({bytes(2049): b""})
        with pytest.raises(TypeError):
            atom[core].write_local({b"k": "v"})  # type: ignore[dict-item]  # the point of it
        with pytest.raises(TypeError):
            atom[core].set_user_data("k", "v")  # type: ignore[arg-type]  # the point of it
        assert atom[core].length == 2
    assert read_only.get_local_value(b"k") == b"v"
    assert (core.length, core.fork) == (2, 0)


async def test_who_may_only_read_drafts_no_blocks(store: Corestore, core: Core) -> None:
    async with core.session(read_only=True) as reader, store.atom(reader) as atom:
        with pytest.raises(NotWritable):
            atom[reader].append(b"x")
        with pytest.raises(NotWritable):
            atom[reader].truncate(0)
    assert (core.length, core.fork) == (2, 0)


async def test_a_draft_leaves_the_prologue(store: Corestore, core: Core) -> None:
    assert core.manifest is not None
    assert core.key_pair is not None
    manifest = replace(core.manifest, prologue=Prologue(core.tree_hash(), 2))
    fixed = await store.get(manifest=manifest, key_pair=core.key_pair)
    await fixed.copy_prologue(core)
    await fixed.append(b"more")
    async with store.atom(fixed) as atom:
        with pytest.raises(UsageError, match="prologue"):
            atom[fixed].truncate(1)
        atom[fixed].truncate(2)
    assert (fixed.length, fixed.fork) == (2, 1)


async def test_a_core_that_freezes_meanwhile_takes_nothing() -> None:
    async with open_corestore(None) as store:
        core = await open_writer(store, ONE)

        async def append() -> None:
            async with store.atom(core) as atom:
                atom[core].append(b"more")
                await core.freeze(fork_proof())

        with pytest.raises(CoreFrozen):
            await append()
        assert core.length == len(ONE)


async def test_atoms_over_the_same_cores_take_turns(
    store: Corestore, core: Core, other: Core
) -> None:
    """Whatever order they name them in."""

    async def count(*cores: Core) -> None:
        for _ in range(20):
            async with store.atom(*cores) as atom:
                number = atom[other].append(b"x")
                await trio.lowlevel.checkpoint()
                atom[core].append(b"%d" % number)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count, core, other)
            nursery.start_soon(count, other, core)
    assert other.length == 40
    numbers = [int(block) async for block in core.blocks(2)]
    assert numbers == list(range(40))


async def test_a_writer_waits_for_the_atom(store: Corestore, core: Core) -> None:
    async with trio.open_nursery() as nursery, store.atom(core) as atom:
        atom[core].append(b"first")
        nursery.start_soon(core.append, b"second")
        await trio.testing.wait_all_tasks_blocked()
        assert core.length == 2
    assert [block async for block in core.blocks(2)] == [b"first", b"second"]


async def test_a_cancelled_atom_is_whole_or_nothing(store: Corestore, core: Core) -> None:
    other = await store.get(name="other")

    async def change() -> None:
        async with store.atom(core, other) as atom:
            atom[core].append(b"x")
            await trio.lowlevel.checkpoint()
            atom[other].append(b"x")
            await trio.lowlevel.checkpoint()

    assert await cancel_everywhere(change) > 1
    assert core.length - 2 == other.length >= 1
    for log in (core, other):
        assert verify_core(store.storage, log.discovery_key) == log.length
    await core.append(b"the locks are free")


async def test_peers_hear_of_it_when_all_of_it_is_true(store: Corestore, core: Core) -> None:
    other = await store.get(name="other")
    async with (
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        copies = [await theirs.get(key=log.key) for log in (core, other)]
        nursery.start_soon(store.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            await copies[0].wait_length(2)
            async with store.atom(core, other) as atom:
                atom[core].truncate(1)
                atom[core].append([b"new", b"end"])
                atom[other].append(b"first")
                await trio.testing.wait_all_tasks_blocked()
                assert [copy.length for copy in copies] == [2, 0]
            await copies[0].wait_length(3)
            assert await copies[1].get(0) == b"first"
            assert [await copies[0].get(index) for index in range(3)] == [b"hello", b"new", b"end"]
        nursery.cancel_scope.cancel()


async def test_a_snapshot_outlives_an_atom_that_cuts_the_log(store: Corestore, core: Core) -> None:
    async with core.snapshot() as snapshot:
        async with store.atom(core) as atom:
            atom[core].truncate(1)
            atom[core].append([b"new", b"end"])
            atom[core].truncate(0)
            atom[core].append(b"other")
        assert [await snapshot.get(index) for index in range(2)] == [b"hello", b"world"]
    assert [block async for block in core.blocks()] == [b"other"]
