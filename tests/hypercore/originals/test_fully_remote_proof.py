"""As hypercore's test/fully-remote-proof.js, with both ends ours.

Its one test, "proof and verify", in its four parts. The third, a proof that is not taken because
the store's `referrer` is another, has no counterpart: our verifier has no store, and whoever
wants to trust some cores only gives their key. That is the third part here.
"""

from __future__ import annotations

import pytest

from hypercore import InvalidProof, open_corestore, verify_inclusion_proof
from hypercore.inclusion_proof import InclusionProof
from hypercore.proof import BlockRequest, Proof, ProofRequest, UpgradeRequest, build_proof


async def test_fully_remote_proof_proof_and_verify() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append(b"hello")
        await core.append(b"world")

        proven = verify_inclusion_proof((await core.prove()).encode(), core.key)
        assert (proven.length, proven.block) == (2, None)

        proof = (await core.prove(0)).encode()
        proven = verify_inclusion_proof(proof, core.key)
        assert (proven.index, proven.block) == (0, b"hello")

        with pytest.raises(InvalidProof, match="another core"):
            verify_inclusion_proof(proof, bytes(32))

        request = ProofRequest(0, BlockRequest(0, 0), upgrade=UpgradeRequest(0, 1))
        part = build_proof(request, core.head, core.read_node, b"hello")
        manifest = core.manifest
        assert manifest is not None
        shown = InclusionProof(
            core.discovery_key, Proof(0, part.block, upgrade=part.upgrade, manifest=manifest)
        )
        decoded = InclusionProof.decode(shown.encode())
        assert decoded.proof.upgrade is not None
        assert decoded.proof.upgrade.length == 1, "reflects upgrade arg"
        assert verify_inclusion_proof(decoded, core.key).length == 2
