"""Follows hypercore 11.37.1 test/manifest.js, the tests called "multisig": logs that several sign.

All of them have their counterpart here, in the order of the original. Where it takes a part out
of a signer's own log (`partialSignature(signer.core, ...)` without a signature), the part signs
the signer's core and not the shared one; that only works under a prologue, and `sign_for` cannot
do it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hypercore import (
    Core,
    InvalidSignature,
    Manifest,
    NotWritable,
    PartialSignature,
    Prologue,
    UsageError,
    open_corestore,
)
from hypercore.log import EMPTY_HEAD
from hypercore.proof import ProofRequest, UpgradeRequest, build_proof, verify_proof
from tests.support.signing_party import SigningParty, open_signing_party, replicating, wait_fork


async def blocks_of(core: Core) -> list[bytes]:
    return [await core.get(index) for index in range(core.length)]


def numbers(start: int, stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, stop)]


async def copied(core: Core, party: SigningParty, length: int) -> None:
    """A second holder gets all of it, checking every signature."""
    async with open_corestore(None) as ours, open_corestore(None) as theirs:
        assert core.manifest is not None
        mine = await ours.get(manifest=core.manifest)
        await mine.append(
            [block for block in core.read_blocks(range(length)) if block is not None],
            signature=core.head.signature,
        )
        copy = await theirs.get(key=core.key)
        async with replicating(ours, theirs):
            await copy.wait_length(length)
            assert copy.length == core.length
            assert copy.manifest == core.manifest
            assert copy.head == core.head
            assert await blocks_of(copy) == numbers(0, length)


async def test_append() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        manifest = party.manifest()
        core = await store.get(manifest=manifest)
        assert core.key == manifest.key
        assert not core.is_writable
        await party.extend(0, 1)
        await party.extend(1, 1)
        assert party.length(0, 1) == 1
        proposal = core.propose(b"0")
        collector = proposal.collector()
        assert (collector.missing, collector.is_complete) == (2, False)
        assert [signer.public_key for signer in collector.outstanding] == party.public_keys
        collector.add(proposal.part(party.key_pair(0)))
        assert collector.missing == 1
        with pytest.raises(UsageError, match="1 of 2 signatures missing"):
            _ = collector.signature
        collector.add(proposal.part(party.key_pair(1)))
        assert [signer.public_key for signer in collector.signed] == party.public_keys[:2]
        assert await core.append(b"0", signature=collector.signature) == 0
        assert (core.length, core.durable_length) == (1, 1)
        await copied(core, party, 1)


async def test_batch_failed() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest())
        await party.extend(0, 1)
        await party.extend(1, 1)
        proposal = core.propose(b"0")
        collector = proposal.collector()
        for index in range(2):
            collector.add(proposal.part(party.key_pair(index)))
        with pytest.raises(InvalidSignature, match="signer 0 is not of a log of 1 blocks"):
            await core.append(b"hello", signature=collector.signature)
        assert core.length == 0
        assert core.head == EMPTY_HEAD
        assert not core.has(0)
        await core.append(b"0", signature=collector.signature)


async def test_patches() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest())
        await party.extend(0, 5)
        await party.extend(1, 1)
        assert party.length(0, 1) == 1
        assert core.manifest is not None
        part = party.logs[0].sign_for(core.manifest, length=1)
        assert (part.patch_length, [node.index for node in part.nodes]) == (4, [2, 5, 8])
        await core.append(b"0", signature=party.sign(core, [0, 1], 1))
        await copied(core, party, 1)


async def test_batch_append() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest())
        await party.extend(0, 4)
        await party.extend(1, 4)
        assert party.length(0, 1) == 4
        await core.append(numbers(0, 4), signature=party.sign(core, [0, 1], 4))
        await copied(core, party, 4)


async def test_batch_append_with_patches() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest())
        await party.extend(0, 6)
        await party.extend(1, 4)
        assert party.length(0, 1) == 4
        await core.append(numbers(0, 4), signature=party.sign(core, [0, 1], 4))
        await copied(core, party, 4)


async def test_cannot_divide_batch() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest())
        await party.extend(0, 4)
        await party.extend(1, 4)
        signature = party.sign(core, [0, 1], 4)
        with pytest.raises(InvalidSignature):
            await core.append(numbers(0, 2), signature=signature)
        assert core.length == 0


async def test_multiple_appends() -> None:
    async with (
        open_signing_party(3) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(manifest=party.manifest())
        other = await other_store.get(manifest=party.manifest())
        await party.extend(0, 6)
        await party.extend(1, 2)
        await core.append(numbers(0, 2), signature=party.sign(core, [0, 1], 2))
        await other.wait_length(2)
        await party.extend(1, 4)
        assert party.length(0, 1) == 4
        await other.append(numbers(2, 4), signature=party.sign(core, [0, 1], 4))
        await core.wait_length(4)
        assert await blocks_of(core) == await blocks_of(other) == numbers(0, 4)


async def test_persist_to_disk(tmp_path: Path) -> None:
    async with open_signing_party(3) as party:
        manifest = party.manifest()
        async with open_corestore(tmp_path) as store:
            core = await store.get(manifest=manifest)
            await party.extend(0, 1)
            await party.extend(1, 1)
            await core.append(b"0", signature=party.sign(core, [0, 1], 1))
        async with (
            open_corestore(tmp_path) as store,
            open_corestore(None) as other_store,
            replicating(store, other_store),
        ):
            reopened = await store.get(manifest=manifest)
            copy = await other_store.get(manifest=manifest)
            await copy.wait_length(1)
            assert copy.length == reopened.length
            assert await copy.get(0) == b"0"


async def test_overlapping_appends() -> None:
    async with (
        open_signing_party(3) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
    ):
        core = await store.get(manifest=party.manifest())
        other = await other_store.get(manifest=party.manifest())
        for index, length in enumerate((6, 2, 3)):
            await party.extend(index, length)
        assert party.length(0, 1, 2) == 3
        await core.append(numbers(0, 2), signature=party.sign(core, [1, 0], 2))
        await other.append(numbers(0, 3), signature=party.sign(other, [2, 0], 3))
        async with replicating(store, other_store):
            await core.wait_length(3)
            assert core.head == other.head


@pytest.mark.parametrize("seed", [1])
async def test_normal_operating_mode(seed: int) -> None:
    chance = random.Random(seed)
    count = 255
    async with (
        open_signing_party(3) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        cores = [await one.get(manifest=party.manifest()) for one in (store, other_store)]
        while any(core.length < count for core in cores):
            for index in range(3):
                ahead = party.logs[index].length + 1 + chance.randrange(4)
                await party.extend(index, min(count, ahead))
            place = chance.randrange(2)
            core, other = cores[place], cores[1 - place]
            signers = [[0, 1], [1, 2]][place]
            length = party.length(*signers)
            if length <= other.length:
                continue
            signature = party.sign(core, signers, length)
            await core.append(numbers(core.length, length), signature=signature)
            await other.wait_length(length)
        for core in cores:
            assert await blocks_of(core) == numbers(0, count)


async def test_large_patches() -> None:
    async with (
        open_signing_party(3) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(manifest=party.manifest())
        copy = await other_store.get(manifest=party.manifest())
        await party.extend(0, 10_000)
        await party.extend(1, 1)
        await core.append(b"0", signature=party.sign(core, [0, 1], 1))
        await copy.wait_length(1)
        assert await copy.get(0) == b"0"
        await party.extend(1, 1000)
        await party.extend(0, 20_000)
        assert party.length(0, 1) == 1000
        await core.append(numbers(1, 1000), signature=party.sign(core, [0, 1], 1000))
        await copy.wait_length(1000)


async def prologue_of(party: SigningParty, length: int) -> Prologue:
    await party.extend(0, length)
    return Prologue(party.logs[0].head.tree_hash, length)


async def test_prologue() -> None:
    async with open_signing_party(2) as party, open_corestore(None) as store:
        prologue = await prologue_of(party, 2)
        await party.extend(1, 2)
        core = await store.get(manifest=party.manifest())
        prologued = await store.get(manifest=party.manifest(prologue))
        assert core.key != prologued.key
        signature = party.sign(core, [0, 1], 1)
        await core.append(b"0", signature=signature)
        with pytest.raises(UsageError, match="prologue of 2 blocks comes whole"):
            await prologued.append(b"0", signature=signature)
        assert (core.length, prologued.length) == (1, 0)
        signature = party.sign(core, [0, 1], 2)
        await core.append(b"1", signature=signature)
        await prologued.append(numbers(0, 2), signature=signature)
        assert prologued.length == 2


async def test_prologue_without_a_signature() -> None:
    """Beyond the original: it takes any signature for a prologue, but wants one."""
    async with open_signing_party(2) as party, open_corestore(None) as store:
        prologue = await prologue_of(party, 3)
        for manifest in (party.manifest(prologue), Manifest.static(prologue.hash, 3)):
            core = await store.get(manifest=manifest)
            with pytest.raises(UsageError, match="first 3 blocks are not those of the prologue"):
                await core.append([b"0", b"1", b"other"])
            assert core.length == 0
            await core.append(numbers(0, 3))
            assert core.head.signature == b""
            with pytest.raises(NotWritable):
                await core.append(b"3")


async def test_prologue_replicate() -> None:
    async with (
        open_signing_party(2) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
    ):
        prologue = await prologue_of(party, 2)
        await party.extend(1, 2)
        manifest = party.manifest(prologue)
        core = await store.get(manifest=manifest)
        remote = await other_store.get(manifest=manifest)
        await core.append(numbers(0, 2), signature=party.sign(core, [0, 1], 2))
        assert (core.length, remote.length) == (2, 0)
        async with replicating(store, other_store):
            await remote.wait_length(2)
            assert await blocks_of(remote) == numbers(0, 2)


async def apply_unsigned(core: Core, source: Core, length: int) -> None:
    """Hand over the first blocks' tree, as a peer would without any signature."""
    request = ProofRequest(0, upgrade=UpgradeRequest(0, length))
    head = source.head
    assert head.length == length
    proof = build_proof(request, head, source.read_node)
    assert proof.upgrade is not None
    bare = type(proof.upgrade)(0, length, proof.upgrade.nodes, (), b"")
    core.commit(
        [verify_proof(type(proof)(0, upgrade=bare), core.head, core.read_node, core.verifier)]
    )


async def test_prologue_verify_hash() -> None:
    async with (
        open_signing_party(2) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
    ):
        prologue = await prologue_of(party, 2)
        core = await store.get(manifest=party.manifest(prologue))
        await apply_unsigned(core, party.logs[0], 2)
        assert core.length == 2
        remote = await other_store.get(key=core.key)
        assert remote.length == 0
        async with replicating(store, other_store):
            await remote.wait_length(2)
        assert remote.manifest == core.manifest


async def test_prologue_morphs_request() -> None:
    async with (
        open_signing_party(2) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
    ):
        prologue = await prologue_of(party, 4)
        manifest = party.manifest(prologue)
        core = await store.get(manifest=manifest)
        await apply_unsigned(core, party.logs[0], 4)
        assert core.length == 4
        await party.extend(0, 5)
        await party.extend(1, 5)
        await core.append(b"4", signature=party.sign(core, [0, 1], 5))
        assert core.length == 5
        remote = await other_store.get(manifest=manifest)
        async with replicating(store, other_store):
            await remote.wait_length(5)
        for upgrade in (UpgradeRequest(0, 4), UpgradeRequest(2, 1), UpgradeRequest(0, 5)):
            request = ProofRequest(0, upgrade=upgrade)
            proof = build_proof(request, remote.head, remote.read_node, prologue=prologue)
            assert proof.upgrade is not None
            assert (proof.upgrade.start, proof.upgrade.length) == (0, 4)
            changes = verify_proof(proof, EMPTY_HEAD, lambda _: None, core.verifier)
            assert changes.head == core.head


async def test_append_and_truncate_before_prologue() -> None:
    async with open_signing_party(2) as party, open_corestore(None) as store:
        prologue = await prologue_of(party, 2)
        await party.extend(1, 2)
        core = await store.get(manifest=party.manifest(prologue))
        assert core.manifest is not None
        parts = [log.sign_for(core.manifest, length=1) for log in party.logs]
        assert core.verifier is not None
        partial = core.verifier.assemble(parts)
        with pytest.raises(UsageError, match="prologue"):
            await core.append(b"0", signature=partial)
        await core.append(numbers(0, 2), signature=party.sign(core, [0, 1], 2))
        assert core.length == 2
        with pytest.raises(UsageError, match="cut the prologue of 2 blocks"):
            await core.truncate(1, signature=partial)
        assert (core.length, core.fork) == (2, 0)


async def test_truncate_with_a_collected_signature() -> None:
    """Beyond the original, which has no test of a signed truncation that succeeds."""
    async with (
        open_signing_party(3) as party,
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(manifest=party.manifest())
        copy = await other_store.get(key=core.key)
        for index in (0, 2):
            await party.extend(index, 5)
        await core.append(numbers(0, 5), signature=party.sign(core, [0, 2], 5))
        await copy.wait_length(5)
        proposal = core.propose_truncation(3)
        assert (proposal.head.length, proposal.head.fork) == (3, 1)
        collector = proposal.collector()
        for index in (2, 1):
            collector.add(proposal.part(party.key_pair(index)))
        with pytest.raises(InvalidSignature):
            await core.truncate(2, signature=collector.signature)
        await core.truncate(3, signature=collector.signature)
        assert (core.length, core.fork) == (3, 1)
        proposal = core.propose([b"new", b"er"])
        collector = proposal.collector()
        for index in (0, 1):
            collector.add(proposal.part(party.key_pair(index)))
        await core.append([b"new", b"er"], signature=collector.signature)
        await wait_fork(copy, 1)
        await copy.wait_length(5)
        assert await copy.get(3) == b"new"


async def test_one_key_pair_does_for_a_quorum_of_one() -> None:
    """Beyond the original, which stores a bare signature here that nobody can verify."""
    async with open_signing_party(3) as party, open_corestore(None) as store:
        manifest = Manifest.multi_signer(party.public_keys, quorum=1)
        core = await store.get(manifest=manifest, key_pair=party.key_pair(1))
        assert core.is_writable
        await core.append(numbers(0, 3))
        await core.append(b"3", key_pair=party.key_pair(2))
        assert core.verifier is not None
        assert core.verifier.verify(core.head, core.head.signature)
        await copied(core, party, 4)
        quorum = await store.get(manifest=party.manifest(), key_pair=party.key_pair(0))
        assert not quorum.is_writable
        with pytest.raises(NotWritable, match="2 signatures are needed"):
            await quorum.append(b"0")
        with pytest.raises(NotWritable, match="2 signatures are needed"):
            await quorum.append(b"0", key_pair=party.key_pair(1))
        assert quorum.length == 0


async def test_what_the_collector_refuses() -> None:
    async with open_signing_party(4) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest(allow_patch=False))
        proposal = core.propose(numbers(0, 2))
        collector = proposal.collector()
        with pytest.raises(InvalidSignature, match="no signer 7: the manifest names 4"):
            collector.add(PartialSignature(7, bytes(64)))
        with pytest.raises(InvalidSignature, match=r"signer 1 .* did not sign"):
            collector.add(PartialSignature(1, bytes(64)))
        await party.extend(0, 5)
        assert core.manifest is not None
        with pytest.raises(InvalidSignature, match="allows no patches"):
            collector.add(party.logs[0].sign_for(core.manifest, length=2))
        with pytest.raises(InvalidSignature, match="not a multisignature"):
            collector.add_encoded(b"\x05")
        stranger = (await store.get(name="stranger")).key_pair
        assert stranger is not None
        with pytest.raises(NotWritable, match="not a signer"):
            collector.add_signature(stranger.public_key, bytes(64))
        assert collector.missing == 3
        assert core.verifier is not None
        encoded = [core.verifier.assemble([proposal.part(party.key_pair(i))]) for i in (3, 1, 0)]
        for data in encoded:
            collector.add_encoded(data)
        assert [part.signer for part in core.verifier.disassemble(collector.signature)] == [0, 1, 3]
        await core.append(numbers(0, 2), signature=collector.signature)
        with pytest.raises(InvalidSignature, match="1 of the 3 signatures"):
            await core.append(b"2", signature=encoded[0])


async def test_signers_who_went_on_differently_do_not_go_together() -> None:
    async with open_signing_party(3) as party, open_corestore(None) as store:
        core = await store.get(manifest=party.manifest())
        assert core.manifest is not None
        for index, log in enumerate(party.logs):
            await log.append([b"0", b"one" if index == 0 else b"two"])
        parts = [log.sign_for(core.manifest, length=1) for log in party.logs]
        collector = core.propose(b"0").collector()
        collector.add(parts[0])
        collector.add(parts[1])
        assert collector.missing == 1
        with pytest.raises(UsageError, match="1 of 2 signatures missing"):
            _ = collector.signature
        collector.add(parts[2])
        assert collector.is_complete
        await core.append(b"0", signature=collector.signature)
        assert core.verifier is not None
        signature = core.head.signature
        assert [part.signer for part in core.verifier.disassemble(signature)] == [1, 2]
