"""As hypercore's test/fully-remote-proof.js, JavaScript on one side and Python on the other.

Of its one test ("proof and verify") all four parts are here, in both directions. The `referrer`
is user data that the original's verifier compares with its own store; our verifier has no store,
so that part is JavaScript's verdict on a proof of ours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import trio

from hypercore import InvalidProof, KeyPair, Manifest, open_corestore, verify_inclusion_proof
from hypercore.inclusion_proof import InclusionProof
from hypercore.manifest import TREE
from hypercore.proof import BlockProof
from tests.interop.replication_peer import open_javascript_peer

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 180
SCRIPT = "originals/evidence_peer.cjs"
SEED = bytes([42]) * 32
BLOCKS = [b"hello", b"world", b"", b"four" * 100, b"five"]


async def test_proof_and_verify() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer(SCRIPT) as peer, open_corestore(None) as store:
            core = await store.get(key_pair=KeyPair.from_seed(SEED))
            ours: list[bytes] = []
            for length in (2, 5):
                blocks = BLOCKS[:length]
                await core.append(blocks[core.length :])
                theirs = await peer(
                    "open",
                    id="a",
                    store="a",
                    seed=SEED.hex(),
                    blocks=[block.hex() for block in blocks],
                )
                assert theirs["key"] == core.key.hex()
                # JavaScript's are ours, byte for byte, and we verify them.
                ours = [(await core.prove()).encode()]
                proofs = [(await peer("prove", id="a"))["proof"]]
                for index, block in enumerate(blocks):
                    ours.append((await core.prove(index)).encode())
                    answer = await peer("prove", id="a", index=index, block=block.hex())
                    proofs.append(answer["proof"])
                assert proofs == [proof.hex() for proof in ours]
                for place, proof in enumerate(proofs):
                    proven = verify_inclusion_proof(bytes.fromhex(proof), core.key)
                    assert (proven.length, proven.fork) == (length, 0)
                    assert proven.index == (place - 1 if place else None)
                    assert proven.block == (blocks[place - 1] if place else None)
                # JavaScript verifies ours.
                answer = await peer("verify", store="a", proofs=[proof.hex() for proof in ours])
                for place, result in enumerate(answer["results"]):
                    assert result["key"] == core.key.hex()
                    assert result["length"] == length
                    assert result["upgrade"] == [0, length]
                    if place:
                        value = blocks[place - 1].hex()
                        assert result["block"] == {"index": place - 1, "value": value}
            answer = await peer(
                "verify", store="a", proofs=[ours[1].hex()], referrer=bytes(32).hex()
            )
            assert answer["results"] == [None]
            # "reflects upgrade arg": only a part of the way to the head is asked for.
            answer = await peer("prove", id="a", index=0, upgrade={"start": 0, "length": 1})
            part = bytes.fromhex(answer["proof"])
            upgrade = InclusionProof.decode(part).proof.upgrade
            assert upgrade is not None
            assert (upgrade.length, verify_inclusion_proof(part).length) == (1, 5)


async def test_tree_hashes_and_signables() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer(SCRIPT) as peer, open_corestore(None) as store:
            core = await store.get(key_pair=KeyPair.from_seed(SEED))
            blocks = [b"%d" % index for index in range(21)]
            await core.append(blocks)
            await peer(
                "open",
                id="a",
                store="a",
                seed=SEED.hex(),
                blocks=[block.hex() for block in blocks],
            )
            answer = await peer("hashes", id="a", lengths=list(range(22)))
            for length, (tree_hash, signable) in enumerate(answer["hashes"]):
                assert core.tree_hash(length).hex() == tree_hash
                numbers = length.to_bytes(8, "little") + bytes(8)
                assert signable == (TREE + core.key + core.tree_hash(length) + numbers).hex()


def refusal_of(proof: bytes, key: bytes) -> str:
    """Why we refuse it; empty when we do not."""
    try:
        verify_inclusion_proof(proof, key)
    except InvalidProof as error:
        return str(error)
    return ""


def is_same_but_for_the_tail(proof: bytes, honest: InclusionProof) -> bool:
    changed, upgrade = InclusionProof.decode(proof).proof, honest.proof.upgrade
    assert changed.upgrade is not None
    assert upgrade is not None
    signature = changed.upgrade.signature[:66] + upgrade.signature[66:]
    return replace(changed, upgrade=replace(changed.upgrade, signature=signature)) == honest.proof


async def test_spoiled_proofs_and_where_we_are_stricter() -> None:
    """Whatever byte is changed, JavaScript and we say the same, but for these.

    * A block whose path does not end in the signed head: JavaScript gives it back as proven.
    * Bytes after the proof, and numbers written longer than need be: the original reads past
      them; here each proof has one encoding, so that its bytes can be compared.
    * What follows the 64 bytes of the signature in a multisignature of one signer: skipped there.
    * The manifest: the original verifies by the one in its store and ignores the proof's.
    """
    manifest = Manifest.single_signer(KeyPair.from_seed(SEED).public_key)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer(SCRIPT) as peer, open_corestore(None) as store:
            core = await store.get(key_pair=KeyPair.from_seed(SEED))
            await core.append(BLOCKS)
            await peer(
                "open",
                id="a",
                store="a",
                seed=SEED.hex(),
                blocks=[block.hex() for block in BLOCKS],
            )
            honest = await core.prove(3)
            encoded = honest.encode()
            manifest_at = len(encoded) - len(manifest.encode())
            spoiled = []
            for place in range(manifest_at):
                changed = bytearray(encoded)
                changed[place] ^= 1 << place % 8
                spoiled.append(bytes(changed))
            spoiled += [encoded[:stop] for stop in range(0, manifest_at, 3)]
            answer = await peer("verify", store="a", proofs=[proof.hex() for proof in spoiled])
            reasons: Counter[str] = Counter()
            for proof, result in zip(spoiled, answer["results"], strict=True):
                refusal = refusal_of(proof, core.key)
                is_taken = result is not None and "failure" not in result
                assert refusal or is_taken, "we never take what JavaScript refuses"
                if refusal and is_taken:
                    reasons[refusal.split(":")[0]] += 1
                    if "not signed" in refusal:
                        assert is_same_but_for_the_tail(proof, honest)
            assert set(reasons) == {"not a proof", "the head of 5 blocks, fork 0, is not signed"}
            assert reasons.total() < 10
            head_only = await core.prove()
            forged = replace(
                head_only,
                proof=replace(head_only.proof, block=BlockProof(0, b"forged", [])),
            ).encode()
            answer = await peer("verify", store="a", proofs=[forged.hex()])
            assert answer["results"][0]["block"] == {"index": 0, "value": b"forged".hex()}
            with pytest.raises(InvalidProof):
                verify_inclusion_proof(forged, core.key)
