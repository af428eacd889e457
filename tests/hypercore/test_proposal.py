"""Appends and truncations that are signed elsewhere: what is written, when, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    Core,
    Corestore,
    Durability,
    InvalidSignature,
    KeyPair,
    Manifest,
    NotWritable,
    OutOfRange,
    Prologue,
    StorageFailed,
    UsageError,
    open_corestore,
)
from hypercore.crypto import discovery_key, sign
from hypercore.log import EMPTY_HEAD
from hypercore.proposal import Proposal
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import AuthRecord
from hypercore.stored_log import StoredLog
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.storage_rows import verify_core
from tests.support.stored_logs import FaultyStorage

PAIR = KeyPair.from_seed(b"\x41" * 32)
SOLE = Manifest.single_signer(PAIR.public_key)


@pytest.fixture(params=["memory", "commit"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    if request.param == "memory":
        async with open_corestore(None) as opened:
            yield opened
    else:
        durability = Durability.parse(request.param)
        async with open_corestore(tmp_path, durability=durability) as opened:
            yield opened


def signature_of(proposal: Proposal) -> bytes:
    """As a machine makes it that has the secret key and nothing else."""
    collector = proposal.collector()
    collector.add_signature(PAIR.public_key, sign(proposal.signable(), PAIR.secret_key))
    return collector.signature


async def test_a_core_whose_key_is_elsewhere(store: Corestore) -> None:
    core = await store.get(manifest=SOLE)
    assert not core.is_writable
    with pytest.raises(NotWritable, match="append with a signature"):
        await core.append(b"one")
    proposal = core.propose([b"one", b"two"])
    assert (proposal.head.length, core.length) == (2, 0)
    assert len(proposal.signable()) == 112
    signature = signature_of(proposal)
    assert await core.append([b"one", b"two"], signature=signature) == 0
    assert core.length == core.durable_length == core.contiguous_length == 2
    assert await core.get_many([0, 1]) == [b"one", b"two"]
    # It is the signature that the key itself would have made.
    async with open_corestore(None) as other_store:
        other = await other_store.get(key_pair=PAIR)
        await other.append([b"one", b"two"])
        assert other.head == core.head
    assert await core.append(b"three", key_pair=PAIR) == 2
    signature = signature_of(core.propose_truncation(1))
    await core.truncate(1, signature=signature)
    assert (core.length, core.fork) == (1, 1)
    await core.truncate(0, 7, key_pair=PAIR)
    assert (core.length, core.fork, core.durable_length) == (0, 7, 0)
    assert verify_core(store.storage, core.discovery_key) == 0


async def test_a_draft_of_the_log_as_it_is(store: Corestore) -> None:
    core = await store.get(key_pair=PAIR)
    await core.append([b"one", b"two"])
    proposal = core.propose()
    assert proposal.head == core.head
    assert proposal.signable() == core.propose_truncation(2, 1).signable()[:-8] + bytes(8)
    assert signature_of(proposal) == core.head.signature
    assert await core.append([], signature=signature_of(proposal)) == 2


async def test_a_signature_for_a_log_that_has_changed(store: Corestore) -> None:
    core = await store.get(key_pair=PAIR)
    await core.append(b"one")
    late = signature_of(core.propose(b"two"))
    cut = signature_of(core.propose_truncation(0))
    await core.append(b"in between")
    with pytest.raises(InvalidSignature, match="signer 0 is not of a log of 3 blocks, fork 0"):
        await core.append(b"two", signature=late)
    await core.truncate(1)
    with pytest.raises(InvalidSignature, match="not of a log of 0 blocks, fork 2"):
        await core.truncate(0, signature=cut)
    with pytest.raises(UsageError, match="fork 1 must be above"):
        await core.truncate(0, 1, signature=cut)
    with pytest.raises(OutOfRange):
        core.propose_truncation(2)
    assert (core.length, core.fork) == (1, 1)
    assert await core.get(0) == b"one"
    assert verify_core(store.storage, core.discovery_key) == 1


async def test_a_manifest_that_is_not_known_yet(store: Corestore) -> None:
    core = await store.get(key=SOLE.key)
    with pytest.raises(NotWritable, match="its manifest is not here"):
        core.propose(b"one")
    with pytest.raises(NotWritable, match="its manifest is not here"):
        core.propose_truncation(0)
    with pytest.raises(NotWritable, match="its manifest is not here"):
        await core.append(b"one", key_pair=PAIR)
    with pytest.raises(NotWritable, match="secret key is not here"):
        core.sign_for(SOLE)


async def test_a_stranger_does_not_sign(store: Corestore) -> None:
    core = await store.get(manifest=SOLE)
    stranger = KeyPair.from_seed(bytes(32))
    with pytest.raises(NotWritable, match="not a signer"):
        await core.append(b"one", key_pair=stranger)
    with pytest.raises(NotWritable, match="not a signer"):
        core.propose(b"one").part(stranger)
    assert core.head == EMPTY_HEAD


async def test_local_rows_go_with_it_or_stay_away(store: Corestore) -> None:
    core = await store.get(manifest=SOLE)
    signature = signature_of(core.propose(b"one"))
    with pytest.raises(InvalidSignature):
        await core.append(b"other", signature=signature, local={b"row": b"1"})
    assert core.get_local_value(b"row") is None
    await core.append(b"one", signature=signature, local={b"row": b"1"})
    assert core.get_local_value(b"row") == b"1"


async def test_nothing_is_shown_that_the_disk_does_not_have(tmp_path: Path) -> None:
    """Who signs elsewhere goes by what is shown: a length that is lost would be signed again."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(manifest=SOLE)
        core.append_nowait(b"one", signature=signature_of(core.propose(b"one")))
        core.append_nowait(b"two", key_pair=PAIR)
        assert (core.length, core.durable_length) == (2, 0)
        with pytest.raises(UsageError, match="only 0 of 2 blocks are durable"):
            core.sign_for(SOLE, key_pair=PAIR)
        await core.wait_durable()
        assert core.durable_length == 2
        part = core.sign_for(SOLE, key_pair=PAIR)
        assert core.verifier is not None
        assert core.verifier.assemble([part]) == core.head.signature


async def test_cancelling_leaves_all_of_it_or_nothing(store: Corestore) -> None:
    core = await store.get(manifest=SOLE)

    async def append_next() -> None:
        start = core.length
        block = b"block %d" % start
        await core.append(block, signature=signature_of(core.propose(block)))

    await cancel_everywhere(append_next)
    length = core.length
    assert length >= 1
    assert await core.get_many(range(length)) == [b"block %d" % index for index in range(length)]
    assert verify_core(store.storage, core.discovery_key) == length


async def test_a_store_that_is_open_for_reading(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(manifest=SOLE)
        signature = signature_of(core.propose(b"one"))
    async with open_corestore(tmp_path, read_only=True) as store:
        core = await store.get(key=SOLE.key)
        with pytest.raises(NotWritable, match="read-only"):
            await core.append(b"one", signature=signature)


def test_a_failed_write_ends_the_log() -> None:
    for when in ("fails_before", "fails_after"):
        storage = FaultyStorage()
        auth = AuthRecord(SOLE.key, discovery_key(SOLE.key), SOLE)
        record = Catalog(storage, bytes(32)).create(auth, None, {})
        log = StoredLog(CoreStorage(storage, auth.discovery_key, record))
        proposal = log.propose([b"one"])
        setattr(storage, when, True)
        with pytest.raises(OSError, match=r"no space left|input/output error"):
            log.commit_proposal(proposal, signature_of(proposal), None)
        assert log.head == EMPTY_HEAD
        setattr(storage, when, False)
        with pytest.raises(StorageFailed):
            log.commit_proposal(proposal, signature_of(proposal), None)
        with pytest.raises(StorageFailed):
            log.set_manifest(SOLE)


async def grown_over_a_prologue(core: Core, blocks: list[bytes], length: int) -> None:
    """One after the other way: at once beyond the prologue, or first to its end."""
    if length > 2:
        await core.append(blocks[:length])
    else:
        await core.append(blocks[:2])
        assert core.is_writable
        await core.append(blocks[2:length])
    await core.append(blocks[length:])


@pytest.mark.parametrize("length", [2, 3, 7])
async def test_one_signer_goes_on_after_a_prologue(store: Corestore, length: int) -> None:
    """JavaScript signs whatever comes first, and its peers then refuse the log."""
    blocks = [b"block %d" % index for index in range(8)]
    source = await store.get(name="source")
    await source.append(blocks[:2])
    prologue = Prologue(source.head.tree_hash, 2)
    manifest = Manifest.multi_signer([PAIR.public_key], prologue=prologue)
    core = await store.get(manifest=manifest, key_pair=PAIR)
    with pytest.raises(UsageError, match="first 2 blocks are not those of the prologue"):
        await core.append([b"block 0", *blocks[2:]])
    with pytest.raises(UsageError, match="comes whole"):
        await core.append(blocks[0])
    assert core.length == 0
    await grown_over_a_prologue(core, blocks, length)
    assert core.length == 8
    assert verify_core(store.storage, core.discovery_key) == 8
    with pytest.raises(UsageError, match="1 blocks would cut the prologue of 2 blocks"):
        await core.truncate(1)
    await core.truncate(2)
    await core.append(b"again")
    assert core.fork == 1


async def test_who_waits_for_a_block_gets_it_from_an_append_here() -> None:
    """A core that several sign is read from peers and appended to in one place."""
    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        core = await store.get(manifest=SOLE)
        found: list[bytes] = []

        async def read(index: int) -> None:
            found.append(await core.get(index))

        async def read_all() -> None:
            await core.download(0, 3)
            found.append(b"all")

        for index in (0, 2, 2):
            nursery.start_soon(read, index)
        nursery.start_soon(read_all)
        await trio.testing.wait_all_tasks_blocked()
        await core.append(b"one", signature=signature_of(core.propose(b"one")))
        await trio.testing.wait_all_tasks_blocked()
        assert found == [b"one"]
        await core.append([b"two", b"three"], key_pair=PAIR)
        with trio.fail_after(20):
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(found) == [b"all", b"one", b"three", b"three"]


async def test_a_signature_and_a_key_pair_exclude_one_another(store: Corestore) -> None:
    core = await store.get(manifest=SOLE)
    signature = signature_of(core.propose(b"one"))
    with pytest.raises(UsageError, match="exclude one another"):
        await core.append(b"one", signature=signature, key_pair=PAIR)
    assert core.length == 0
