"""Follows hypercore 11.37.1 test/manifest.js with JavaScript on one side and Python on the other.

What the original checks in one process is checked between two here: manifests, signables and
assembled signatures have equal bytes; a core that several sign is made by either side, goes on
with signatures of both, over the wire and on the disk; patches, prologues and truncations too.
Parts of verification alone (create verifier ...) are in `interop/test_signatures`, the rest of
the original, which is one side's own business, in `tests/hypercore/originals`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from hypercore import (
    Core,
    Corestore,
    Durability,
    KeyPair,
    Manifest,
    Prologue,
    Signer,
    Verifier,
    open_corestore,
)
from tests.interop.originals.signing_peer import SigningPeer, open_signing_peer
from tests.interop.replication_peer import connected
from tests.support.signing_party import wait_fork
from tests.support.storage_rows import verify_core

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 40
SEEDS = [bytes([seed]) * 32 for seed in range(1, 4)]
PAIRS = [KeyPair.from_seed(seed) for seed in SEEDS]
KEYS = [pair.public_key for pair in PAIRS]
QUORUM = Manifest.multi_signer(KEYS, allow_patch=True)


def numbers(start: int, stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, stop)]


def as_hex(blocks: list[bytes]) -> list[str]:
    return [block.hex() for block in blocks]


class Shared:
    """A core that Alice and Carol sign here and Bob in JavaScript, as far as each has got."""

    def __init__(self, peer: SigningPeer, store: Corestore, manifest: Manifest) -> None:
        self.peer = peer
        self.store = store
        self.manifest = manifest

    async def our_part(self, signer: int, length: int, ahead: int) -> bytes:
        """By a signer here, whose log has `ahead` blocks."""
        log = await self.store.get(name=f"ours {signer}")
        await log.append(numbers(log.length, ahead))
        part = log.sign_for(self.manifest, length=length, key_pair=PAIRS[signer])
        return Verifier(self.manifest.key, self.manifest).assemble([part])

    async def their_part(self, signer: int, length: int, ahead: int) -> bytes:
        """The same by a signer in JavaScript."""
        name = f"theirs {signer}"
        answer = await self.peer("open", id=name, name=name)
        await self.peer("append", id=name, blocks=as_hex(numbers(answer["length"], ahead)))
        answer = await self.peer(
            "part", id="shared", **{"from": name}, seed=SEEDS[signer].hex(), length=length
        )
        return bytes.fromhex(answer["part"])

    async def assembled(self, core: Core, length: int, parts: list[bytes]) -> bytes:
        """What both sides put together of these parts, which are in the signers' order."""
        collector = core.propose(numbers(core.length, length)).collector()
        for part in parts:
            collector.add_encoded(part)
        theirs = await self.peer("assemble", parts=[part.hex() for part in parts])
        assert theirs["signature"] == collector.signature.hex()
        return collector.signature


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[SigningPeer]:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_signing_peer(tmp_path / "javascript") as opened:
            yield opened


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


def fields_of(manifest: Manifest) -> dict[str, Any]:
    """What a JavaScript caller would give."""
    fields: dict[str, Any] = {
        "version": manifest.version,
        "quorum": manifest.quorum,
        "allowPatch": manifest.allow_patch,
        "signers": [
            {"publicKey": signer.public_key.hex(), "namespace": signer.namespace.hex()}
            for signer in manifest.signers
        ],
    }
    if manifest.prologue is not None:
        prologue = manifest.prologue
        fields["prologue"] = {"hash": prologue.hash.hex(), "length": prologue.length}
    if manifest.linked is not None:
        fields["linked"] = [key.hex() for key in manifest.linked]
    if manifest.user_data is not None:
        fields["userData"] = manifest.user_data.hex()
    return fields


MANIFESTS = [
    *(Manifest.single_signer(KEYS[0], version) for version in range(4)),
    *(Manifest.multi_signer(KEYS, version=version, allow_patch=True) for version in range(4)),
    Manifest.multi_signer(KEYS, quorum=1),
    Manifest.multi_signer([Signer(b"\x05" * 32, KEYS[0]), Signer(b"\x06" * 32, KEYS[1])]),
    Manifest.multi_signer(KEYS, linked=[b"\x07" * 32, b"\x08" * 32]),
    Manifest.multi_signer(KEYS, user_data=b"a note", version=3),
    Manifest.multi_signer(KEYS, prologue=Prologue(b"\x09" * 32, 300), user_data=b"x"),
    Manifest.static(b"\x09" * 32, 70_000),
]


async def test_manifests_and_keys(peer: SigningPeer) -> None:
    for manifest in MANIFESTS:
        answer = await peer("manifest", **fields_of(manifest))
        assert answer["manifest"] == manifest.encode().hex()
        assert answer["key"] == manifest.key.hex()


async def test_signables(peer: SigningPeer, store: Corestore) -> None:
    core = await store.get(name="log")
    blocks = numbers(0, 20)
    await core.append(blocks)
    manifest = core.manifest
    assert manifest is not None
    await peer("open", id="a", key=core.key.hex(), manifest=manifest.encode().hex())
    async with connected(store, peer, is_initiator=True):
        await peer("waitLength", id="a", length=20)
        await peer("download", id="a")
    for length in (1, 7, 8, 20):
        for fork in (1, 5, 2**40):
            answer = await peer("signable", id="a", length=length, fork=fork)
            assert answer["signable"] == core.propose_truncation(length, fork).signable().hex()
    answer = await peer("signable", id="a", length=20, fork=0)
    assert answer["signable"] == core.propose().signable().hex()


@pytest.mark.parametrize("is_initiator", [True, False], ids=["we dial", "they dial"])
async def test_a_quorum_core_made_in_python(
    peer: SigningPeer, store: Corestore, is_initiator: bool
) -> None:
    shared = Shared(peer, store, QUORUM)
    core = await store.get(manifest=QUORUM)
    answer = await peer("open", id="shared", key=core.key.hex())
    assert answer["manifest"] is None
    async with connected(store, peer, is_initiator=is_initiator):
        # Nobody of JavaScript has signed yet.
        parts = [await shared.our_part(0, 3, 3), await shared.our_part(2, 3, 5)]
        await core.append(numbers(0, 3), signature=await shared.assembled(core, 3, parts))
        answer = await peer("waitLength", id="shared", length=3)
        assert answer["isSigned"]
        assert answer["manifest"] == QUORUM.encode().hex()
        # One signer of each; theirs is ahead, so the signature has a patch.
        parts = [await shared.our_part(0, 8, 8), await shared.their_part(1, 8, 13)]
        signature = await shared.assembled(core, 8, parts)
        answer = await peer(
            "append", id="shared", blocks=as_hex(numbers(3, 8)), signature=signature.hex()
        )
        await core.wait_length(8)
        assert core.head.tree_hash.hex() == answer["treeHash"]
        assert core.head.signature == signature
        assert await core.get_many(range(8)) == numbers(0, 8)
        # And once more from here, ours ahead.
        parts = [await shared.their_part(1, 13, 13), await shared.our_part(2, 13, 40)]
        signature = await shared.assembled(core, 13, parts)
        await core.append(numbers(8, 13), signature=signature)
        answer = await peer("waitLength", id="shared", length=13)
        assert answer["signature"] == signature.hex()
        assert await peer.blocks("shared", range(13)) == numbers(0, 13)


async def test_a_quorum_core_made_in_javascript(peer: SigningPeer, store: Corestore) -> None:
    shared = Shared(peer, store, QUORUM)
    await peer("open", id="shared", manifest=QUORUM.encode().hex())
    parts = [await shared.their_part(0, 5, 9), await shared.their_part(1, 5, 5)]
    answer = await peer("assemble", parts=[part.hex() for part in parts])
    signature = answer["signature"]
    wrong = await peer.refuses(
        "append", id="shared", blocks=as_hex(numbers(0, 4)), signature=signature
    )
    assert "invalid signature" in wrong
    await peer("append", id="shared", blocks=as_hex(numbers(0, 5)), signature=signature)
    core = await store.get(key=QUORUM.key)
    async with connected(store, peer, is_initiator=True):
        await core.wait_length(5)
        assert core.manifest == QUORUM
        assert core.head.signature.hex() == signature
        assert await core.get_many(range(5)) == numbers(0, 5)
        parts = [await shared.their_part(0, 9, 9), await shared.our_part(2, 9, 9)]
        await core.append(numbers(5, 9), signature=await shared.assembled(core, 9, parts))
        answer = await peer("waitLength", id="shared", length=9)
        assert answer["isSigned"]
        assert await peer.blocks("shared", range(9)) == numbers(0, 9)


@pytest.mark.parametrize("by_us", [True, False], ids=["we truncate", "they truncate"])
async def test_a_truncation_that_both_sign(
    peer: SigningPeer, store: Corestore, by_us: bool
) -> None:
    shared = Shared(peer, store, QUORUM)
    core = await store.get(manifest=QUORUM)
    await peer("open", id="shared", key=core.key.hex())
    async with connected(store, peer, is_initiator=True):
        parts = [await shared.our_part(0, 6, 6), await shared.our_part(2, 6, 6)]
        await core.append(numbers(0, 6), signature=await shared.assembled(core, 6, parts))
        await peer("waitLength", id="shared", length=6)
        await peer("download", id="shared")
        proposal = core.propose_truncation(4)
        collector = proposal.collector()
        collector.add(proposal.part(PAIRS[0]))
        answer = await peer("truncationPart", id="shared", seed=SEEDS[1].hex(), length=4, fork=1)
        collector.add_encoded(bytes.fromhex(answer["part"]))
        signature = collector.signature
        if by_us:
            await core.truncate(4, signature=signature)
            # JavaScript follows a fork with what comes after it.
            proposal = core.propose(b"new")
            collector = proposal.collector()
            for pair in PAIRS[:2]:
                collector.add(proposal.part(pair))
            await core.append(b"new", signature=collector.signature)
            answer = await peer("waitLength", id="shared", length=5, fork=1)
            assert answer["isSigned"]
            assert await peer.blocks("shared", range(5)) == [*numbers(0, 4), b"new"]
        else:
            answer = await peer("truncate", id="shared", length=4, signature=signature.hex())
            await wait_fork(core, 1)
            assert (core.length, core.fork) == (4, 1)
            assert core.head.tree_hash.hex() == answer["treeHash"]
            assert core.head.signature == signature


def beginning_with(prologue: Prologue) -> list[Manifest]:
    """A core that stays as it is, and one that signers go on with."""
    return [
        Manifest.static(prologue.hash, prologue.length),
        Manifest.multi_signer(KEYS[:2], prologue=prologue),
    ]


async def test_prologues_of_javascript(peer: SigningPeer, store: Corestore) -> None:
    source = await peer("open", id="source", name="source")
    source = await peer("append", id="source", blocks=as_hex(numbers(0, 11)))
    prologue = Prologue(bytes.fromhex(source["treeHash"]), 11)
    for manifest in beginning_with(prologue):
        name = f"quorum of {manifest.quorum}"
        await peer("open", id=name, manifest=manifest.encode().hex())
        answer = await peer("copyPrologue", id=name, **{"from": "source"})
        assert (answer["length"], answer["signature"]) == (11, None)
        core = await store.get(key=manifest.key)
        async with connected(store, peer, is_initiator=True):
            await core.wait_length(11)
            assert core.manifest == manifest
            assert core.head.signature == b""
            assert await core.get_many(range(11)) == numbers(0, 11)
            if manifest.quorum:
                proposal = core.propose(b"signed")
                collector = proposal.collector()
                for pair in PAIRS[:2]:
                    collector.add(proposal.part(pair))
                await core.append(b"signed", signature=collector.signature)
                answer = await peer("waitLength", id=name, length=12)
                assert answer["isSigned"]
                assert await peer.blocks(name, [0, 11]) == [b"0", b"signed"]


async def test_prologues_of_python(peer: SigningPeer, store: Corestore) -> None:
    source = await store.get(name="source")
    await source.append(numbers(0, 11))
    prologue = Prologue(source.head.tree_hash, 11)
    for manifest in beginning_with(prologue):
        core = await store.get(manifest=manifest)
        await core.append(numbers(0, 11))
        if manifest.quorum:
            proposal = core.propose(b"signed")
            collector = proposal.collector()
            for pair in PAIRS[:2]:
                collector.add(proposal.part(pair))
            await core.append(b"signed", signature=collector.signature)
        name = f"quorum of {manifest.quorum}"
        await peer("open", id=name, key=core.key.hex())
        async with connected(store, peer, is_initiator=False):
            answer = await peer("waitLength", id=name, length=core.length)
            assert answer["isSigned"]
            assert answer["treeHash"] == core.head.tree_hash.hex()
            expected = [*numbers(0, 11), b"signed"][: core.length]
            assert await peer.blocks(name, range(core.length)) == expected


async def test_a_quorum_of_one_and_other_versions(peer: SigningPeer, store: Corestore) -> None:
    """One signature of several signers, which JavaScript does not assemble itself."""
    for manifest in (
        Manifest.multi_signer(KEYS, quorum=1, version=version) for version in range(4)
    ):
        core = await store.get(manifest=manifest, key_pair=PAIRS[1])
        await core.append(numbers(0, 3))
        await core.append(b"3", key_pair=PAIRS[2])
        name = f"version {manifest.version}"
        await peer("open", id=name, key=core.key.hex())
        async with connected(store, peer, is_initiator=True):
            answer = await peer("waitLength", id=name, length=4)
            assert answer["isSigned"]
            assert answer["manifest"] == manifest.encode().hex()
            assert await peer.blocks(name, range(4)) == numbers(0, 4)


async def test_a_quorum_core_on_one_disk(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    pair = Manifest.multi_signer(KEYS[:2], allow_patch=True, user_data=b"note")
    with trio.fail_after(LIMIT_SECONDS):
        async with open_signing_peer(directory) as peer:
            await peer("open", id="shared", manifest=pair.encode().hex())
            async with open_corestore(None) as store:
                shared = Shared(peer, store, pair)
                parts = [await shared.their_part(0, 2, 7), await shared.their_part(1, 2, 2)]
            answer = await peer("assemble", parts=[part.hex() for part in parts])
            blocks = as_hex(numbers(0, 2))
            await peer("append", id="shared", blocks=blocks, signature=answer["signature"])
        async with open_corestore(directory, durability=Durability.OS) as store:
            core = await store.get(key=pair.key)
            assert core.manifest == pair
            assert core.head.signature.hex() == answer["signature"]
            assert await core.get_many(range(2)) == numbers(0, 2)
            proposal = core.propose(numbers(2, 5))
            collector = proposal.collector()
            for one in PAIRS[:2]:
                collector.add(proposal.part(one))
            await core.append(numbers(2, 5), signature=collector.signature)
        async with open_signing_peer(directory) as peer:
            answer = await peer("open", id="shared", key=pair.key.hex())
            assert (answer["length"], answer["isSigned"]) == (5, True)
            assert answer["manifest"] == pair.encode().hex()
            assert answer["signature"] == collector.signature.hex()
            assert await peer.blocks("shared", range(5)) == numbers(0, 5)


async def test_static_cores_on_one_disk(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    with trio.fail_after(LIMIT_SECONDS):
        async with open_signing_peer(directory) as peer:
            await peer("open", id="source", name="source")
            source = await peer("append", id="source", blocks=as_hex(numbers(0, 9)))
            theirs = Manifest.static(bytes.fromhex(source["treeHash"]), 9)
            await peer("open", id="theirs", manifest=theirs.encode().hex())
            await peer("copyPrologue", id="theirs", **{"from": "source"})
        async with open_corestore(directory, durability=Durability.OS) as store:
            core = await store.get(key=theirs.key)
            assert core.manifest == theirs
            assert await core.get_many(range(9)) == numbers(0, 9)
            log = await store.get(name="source")
            await log.append(numbers(9, 21))
            ours = Manifest.static(log.head.tree_hash, 21)
            copy = await store.get(manifest=ours)
            await copy.copy_prologue(log)
            assert verify_core(store.storage, core.discovery_key) == 9
            assert verify_core(store.storage, copy.discovery_key) == 21
        async with open_signing_peer(directory) as peer:
            answer = await peer("open", id="ours", key=ours.key.hex())
            assert (answer["length"], answer["isSigned"]) == (21, True)
            assert await peer.blocks("ours", range(21)) == numbers(0, 21)
