"""Follows hypercore 11.37.1 test/manifest.js: who may sign, and how a core learns it.

The tests called "multisig" are in `test_manifest_multisig`. The original's mocked tree is a real
head here. Some tests have another form in Python:

* "open existing core with manifest": a wrong manifest without a key is refused there, since one
  storage is one core; in a store it is the core that it stands for, and with a key it is refused.
  The `compat` option does not exist: a core is one exactly if its key is its signer's.
* "getManifest", "setManifest", "parseManifest": a `Manifest` is one value; its bytes are
  `encode()`, read with `Manifest.parse`, and `Core.set_manifest` takes either.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore import (
    Core,
    InvalidManifest,
    InvalidSignature,
    KeyPair,
    Manifest,
    PartialSignature,
    Prologue,
    Signer,
    Verifier,
    open_corestore,
)
from hypercore.crypto import sign
from hypercore.log import EMPTY_HEAD, Head, append
from hypercore.manifest import DEFAULT_NAMESPACE

NAMESPACE = b"\x02" * 32
ALICE = KeyPair.from_seed(b"\x01" * 32)
BOB = KeyPair.from_seed(b"\x02" * 32)
SOLE = Manifest.multi_signer([ALICE.public_key], quorum=1)


def head_of(*blocks: bytes) -> Head:
    head = append(EMPTY_HEAD, blocks, lambda _: b"").head
    assert head is not None
    return head


HEAD = head_of(b"one", b"two")


def verifier_of(manifest: Manifest) -> Verifier:
    return Verifier(manifest.key, manifest)


def spoiled(signature: bytes) -> bytes:
    return signature[:5] + bytes([signature[5] ^ 0xFF]) + signature[6:]


def test_create_verifier_static_signer() -> None:
    verifier = verifier_of(Manifest.static(HEAD.tree_hash, 2))
    assert verifier.quorum == 0
    assert verifier.verify(HEAD, b"")
    assert not verifier.verify(head_of(b"one", b"two", b"three"), b"")
    assert not verifier.verify(head_of(b"one", b"2"), b"")


def test_create_verifier_single_signer_no_sign_version_0() -> None:
    manifest = Manifest(version=0, signers=(Signer(NAMESPACE, ALICE.public_key),))
    verifier = verifier_of(manifest)
    assert NAMESPACE in verifier.signable(HEAD)
    signature = sign(verifier.signable(HEAD), ALICE.secret_key)
    assert verifier.verify(HEAD, signature)
    assert not verifier.verify(HEAD, spoiled(signature))


def test_create_verifier_single_signer_no_sign() -> None:
    manifest = Manifest(signers=(Signer(NAMESPACE, ALICE.public_key),))
    verifier = verifier_of(manifest)
    assert manifest.key in verifier.signable(HEAD)
    assert NAMESPACE not in verifier.signable(HEAD)
    bare = sign(verifier.signable(HEAD), ALICE.secret_key)
    signature = verifier.assemble([PartialSignature(0, bare)])
    assert verifier.verify(HEAD, signature)
    assert not verifier.verify(HEAD, spoiled(signature))


def test_create_verifier_single_signer() -> None:
    verifier = verifier_of(Manifest(signers=(Signer(NAMESPACE, ALICE.public_key),)))
    signature = verifier.sign(HEAD, ALICE)
    assert verifier.verify(HEAD, signature)
    assert not verifier.verify(HEAD, spoiled(signature))


def test_create_verifier_multi_signer() -> None:
    signers = [Signer(b"\x02" * 32, ALICE.public_key), Signer(b"\x03" * 32, BOB.public_key)]
    verifier = verifier_of(Manifest.multi_signer(signers, quorum=2))
    alice, bob = (sign(verifier.signable(HEAD), one.secret_key) for one in (ALICE, BOB))

    def is_valid(*parts: tuple[int, bytes]) -> bool:
        return verifier.verify(HEAD, verifier.assemble([PartialSignature(*part) for part in parts]))

    assert is_valid((0, alice), (1, bob))
    assert not is_valid((0, alice), (1, alice))
    assert not is_valid((0, alice), (0, alice))
    assert not is_valid((0, alice))


def test_create_verifier_defaults() -> None:
    assert SOLE.key == Manifest.single_signer(ALICE.public_key).key
    assert SOLE.signers[0].namespace == DEFAULT_NAMESPACE
    verifier = verifier_of(SOLE)
    signature = verifier.sign(HEAD, ALICE)
    assert verifier.verify(HEAD, signature)
    assert not verifier.verify(HEAD, spoiled(signature))


def test_create_verifier_unsupported_curve() -> None:
    encoded = SOLE.encode()
    # The sixth byte is the kind of the first signer's signature.
    assert Manifest.parse(encoded[:5] + b"\x00" + encoded[6:]) == SOLE
    with pytest.raises(InvalidManifest, match="unknown kind of signature: 1"):
        Manifest.parse(encoded[:5] + b"\x01" + encoded[6:])


def test_create_verifier_compat_signer() -> None:
    manifest = Manifest(signers=(Signer(NAMESPACE, ALICE.public_key),))
    verifier = Verifier(ALICE.public_key, manifest)
    assert verifier.is_compat
    assert len(verifier.signable(HEAD)) == 80
    signature = sign(verifier.signable(HEAD), ALICE.secret_key)
    assert verifier.sign(HEAD, ALICE) == signature
    assert verifier.verify(HEAD, signature)


@pytest.mark.parametrize("version", [0, 1])
def test_create_verifier_default_quorum(version: int) -> None:
    keys = [ALICE.public_key, BOB.public_key]
    assert verifier_of(Manifest.multi_signer(keys[:1], version=version)).quorum == 1
    assert verifier_of(Manifest.multi_signer(keys, version=version)).quorum == 2


def test_manifest_encoding() -> None:
    one = (Signer(b"\x01" * 32, ALICE.public_key),)
    two = (*one, Signer(b"\x02" * 32, BOB.public_key))
    prologue = Prologue(b"\x03" * 32, 4)
    for signers, quorum in ((one, 1), (two, 2), (two, 1)):
        for allow_patch in (False, True):
            for version, fixed in ((0, None), (1, None), (1, prologue), (3, prologue)):
                manifest = Manifest(
                    version=version,
                    allow_patch=allow_patch,
                    quorum=quorum,
                    signers=signers,
                    prologue=fixed,
                )
                assert Manifest.parse(manifest.encode(), manifest.key) == manifest
    linked = Manifest.multi_signer(two, linked=[b"\x04" * 32], prologue=prologue)
    assert linked.version == 2
    assert Manifest.parse(linked.encode()) == linked
    annotated = Manifest.multi_signer(two, linked=[b"\x04" * 32], user_data=b"\xc8")
    assert Manifest.parse(annotated.encode()) == annotated
    assert Manifest.multi_signer(two, user_data=b"\xc8").version == 2


def state_of(core: Core) -> tuple[Manifest | None, bool]:
    return core.manifest, core.is_writable


async def test_open_existing_core_with_manifest(tmp_path: Path) -> None:
    key = SOLE.key
    async with open_corestore(tmp_path) as store:
        core = await store.get(key=key)
        assert core.manifest is None
        assert core.verifier is None
        assert core.key == key
    wrong = Manifest.multi_signer([bytes(32)])
    async with open_corestore(tmp_path) as store:
        with pytest.raises(InvalidManifest, match="the manifest hashes to"):
            await store.get(key=key, manifest=wrong)
        assert (await store.get(manifest=wrong)).key != key
        core = await store.get(manifest=SOLE)
        assert core.key == key
        assert core.manifest == SOLE
    async with open_corestore(tmp_path) as store:
        core = await store.get(key=key)
        assert core.manifest == SOLE
        assert core.verifier is not None
        assert not core.verifier.is_compat


async def test_persist_if_manifest_is_updated(tmp_path: Path) -> None:
    key = SOLE.key
    async with open_corestore(tmp_path) as store:
        assert (await store.get(key=key)).manifest is None
    async with open_corestore(tmp_path) as store:
        core = await store.get(key=key, manifest=SOLE)
        assert (core.manifest, core.key) == (SOLE, key)
    async with open_corestore(tmp_path, read_only=True) as store:
        core = await store.get(key=key, manifest=SOLE)
        assert (core.manifest, core.key) == (SOLE, key)


async def test_a_read_only_store_learns_no_manifest(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        await store.get(key=SOLE.key)
    async with open_corestore(tmp_path, read_only=True) as store:
        assert (await store.get(key=SOLE.key, manifest=SOLE)).manifest is None


async def test_the_bytes_of_a_manifest() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        assert core.manifest is not None
        raw = core.manifest.encode()
        assert Manifest.parse(raw, core.key) == core.manifest
        assert Manifest.parse(raw) == core.manifest


async def test_no_manifest() -> None:
    async with open_corestore(None) as store:
        assert (await store.get(key=SOLE.key)).manifest is None


@pytest.mark.parametrize("is_raw", [False, True])
async def test_set_manifest(tmp_path: Path, is_raw: bool) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(key=SOLE.key, key_pair=ALICE)
        assert state_of(core) == (None, False)
        with pytest.raises(InvalidManifest, match="the manifest hashes to"):
            await core.set_manifest(Manifest.multi_signer([BOB.public_key]))
        assert state_of(core) == (None, False)
        await core.set_manifest(SOLE.encode() if is_raw else SOLE)
        assert state_of(core) == (SOLE, True)
        await core.append(b"one")
    async with open_corestore(tmp_path) as store:
        core = await store.get(key=SOLE.key)
        assert core.manifest == SOLE
        await core.set_manifest(SOLE)
        assert core.length == 1


def test_parse_manifest_throws_if_it_does_not_hash_to_key() -> None:
    with pytest.raises(InvalidManifest, match="the manifest hashes to"):
        Manifest.parse(SOLE.encode(), b"\x01" * 32)
    assert Manifest.parse(SOLE.encode(), ALICE.public_key) == SOLE  # a compat core's


def test_parse_manifest_throws_on_an_invalid_manifest() -> None:
    with pytest.raises(InvalidManifest, match="quorum of 2 among 1"):
        Manifest.parse(Manifest(quorum=2, signers=SOLE.signers).encode())
    with pytest.raises(InvalidManifest, match="not a manifest"):
        Manifest.parse(SOLE.encode()[:-1])
    with pytest.raises(InvalidManifest, match="1 bytes too many"):
        Manifest.parse(SOLE.encode() + b"\x00")
    with pytest.raises(InvalidManifest, match="hash of 0 bytes"):
        Manifest.multi_signer([b""])


def test_the_key_of_a_manifest() -> None:
    assert Manifest.parse(SOLE.encode()).key == SOLE.key
    assert Verifier(ALICE.public_key, SOLE).key == ALICE.public_key


async def test_invalid_signature_fails() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        assert core.is_writable
        with pytest.raises(InvalidSignature, match="0 of the 1 signatures"):
            await core.append(b"hello", signature=bytes(32))
        assert core.length == 0
        await core.append([b"a", b"b"])
        with pytest.raises(InvalidSignature):
            await core.truncate(1, signature=bytes(32))
        assert (core.length, core.fork) == (2, 0)
        assert core.key_pair is not None
        proposal = core.propose(b"c")
        collector = proposal.collector()
        collector.add_signature(
            core.key_pair.public_key, sign(proposal.signable(), core.key_pair.secret_key)
        )
        await core.append(b"c", signature=collector.signature)
        assert core.length == 3


async def test_a_signature_made_elsewhere_for_every_kind_of_core() -> None:
    """Beyond the original: a node that never sees the secret key."""
    manifests = [Manifest.single_signer(ALICE.public_key, version) for version in range(4)]
    manifests += [
        Manifest.multi_signer([ALICE.public_key, BOB.public_key], version=version, allow_patch=True)
        for version in range(4)
    ]
    cores: list[tuple[bytes, Manifest]] = [(manifest.key, manifest) for manifest in manifests]
    cores.append((ALICE.public_key, manifests[1]))
    async with open_corestore(None) as store:
        for key, manifest in cores:
            core = await store.get(key=key, manifest=manifest)
            assert not core.is_writable
            for count in (1, 3):
                proposal = core.propose([b"block"] * count)
                collector = proposal.collector()
                for index, key_pair in enumerate((ALICE, BOB)[: len(manifest.signers)]):
                    bare = sign(proposal.signable(index), key_pair.secret_key)
                    collector.add_signature(key_pair.public_key, bare)
                await core.append([b"block"] * count, signature=collector.signature)
            assert core.length == 4
            with pytest.raises(InvalidSignature):
                await core.append(b"block", signature=core.head.signature)


def test_specifying_quorum_higher_than_signers_length_throws() -> None:
    for quorum in (2, -1):
        with pytest.raises(InvalidManifest, match="quorum"):
            Manifest.multi_signer([ALICE.public_key], quorum=quorum)


def test_what_a_version_cannot_say() -> None:
    with pytest.raises(InvalidManifest, match="version 2"):
        Manifest.multi_signer([ALICE.public_key], version=1, linked=[bytes(32)])
    with pytest.raises(InvalidManifest, match="version 2"):
        Manifest.multi_signer([ALICE.public_key], version=0, user_data=b"x")
    with pytest.raises(InvalidManifest, match="not both"):
        Manifest.multi_signer([ALICE.public_key], version=0, prologue=Prologue(bytes(32), 1))
    with pytest.raises(InvalidManifest, match="version 4"):
        Manifest.multi_signer([ALICE.public_key], version=4)
    with pytest.raises(InvalidManifest, match="a prologue of -1 blocks"):
        Manifest.static(bytes(32), -1)
