"""Follows hypercore 11.37.1 test/compat.js with JavaScript on one side and Python on the other.

JavaScript takes the files of Hypercore 10 into its own storage when a Corestore of version 6 is
opened: here one that `support.version10_files` wrote, so that what the Python reader is tested
with is what the original reads, too. (It reads it with one word of hypercore-storage 3.3.1 put
right, see `signing_peer.cjs`: as released it fails.) Then Python opens the store that
JavaScript made of it.
Encrypted compat cores are in `test_encryption`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hypercore import Corestore, Durability, KeyPair, Manifest, open_corestore
from tests.interop.originals.signing_peer import open_signing_peer
from tests.interop.replication_peer import connected
from tests.support.version10_files import Version10Writer

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 40
PRIMARY_KEY = b"\x61" * 32


def old_cores() -> dict[str, Version10Writer]:
    """Of both versions of the header, flushed, partly flushed, and not at all."""
    cores: dict[str, Version10Writer] = {}
    for number, (flushed, version, is_compat) in enumerate(
        [(1000, 0, True), (993, 0, True), (0, 0, True), (500, 1, True), (500, 1, False)]
    ):
        pair = KeyPair.from_seed(bytes([0x70 + number]) * 32)
        writer = Version10Writer(
            pair,
            is_compat=is_compat,
            header_version=version,
            user_data={"note": b"from version 10"},
        )
        for index in range(1000):
            if index == flushed and flushed:
                writer.flush()
            writer.append(bytes([index & 255]))
        if flushed == 1000:
            writer.flush()
        cores[f"core {number}"] = writer
    return cores


async def test_abi(tmp_path: Path) -> None:
    expected = [bytes([index & 255]) for index in range(1000)]
    cores = old_cores()
    old = tmp_path / "old"
    for writer in cores.values():
        writer.write(writer.place_in(old))
    (old / "primary-key").write_bytes(PRIMARY_KEY)
    with trio.fail_after(LIMIT_SECONDS):
        ours: dict[str, tuple[str, str]] = {}
        async with open_corestore(tmp_path / "ours", durability=Durability.OS) as store:
            for name, writer in cores.items():
                core = await store.import_version10(writer.place_in(old))
                assert await core.get_many(range(1000)) == expected
                ours[name] = core.head.tree_hash.hex(), core.head.signature.hex()
        async with open_signing_peer(old) as peer:
            for name, writer in cores.items():
                answer = await peer("open", id=name, key=writer.key.hex())
                assert (answer["length"], answer["isSigned"]) == (1000, True)
                assert answer["compat"] == writer.is_compat
                assert (answer["treeHash"], answer["signature"]) == ours[name]
                assert await peer.blocks(name, range(1000)) == expected
                await peer("append", id=name, blocks=[b"from JavaScript".hex()])
        async with open_corestore(old, durability=Durability.OS) as store:
            assert store.primary_key == PRIMARY_KEY
            await assert_continued(store, cores, expected)


async def assert_continued(
    store: Corestore, cores: dict[str, Version10Writer], expected: list[bytes]
) -> None:
    for writer in cores.values():
        core = await store.get(key=writer.key)
        assert core.is_writable
        assert await core.get_many(range(1001)) == [*expected, b"from JavaScript"]
        assert core.get_user_data("note") == b"from version 10"
        await core.append(b"from Python")


async def test_compat_and_version_0_over_the_wire(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_signing_peer(tmp_path / "theirs") as peer, open_corestore(None) as store:
            for number, version in enumerate((0, 1, 0)):
                is_compat = number == 2
                seeds = [bytes([0x50 + number]) * 32, bytes([0x60 + number]) * 32]
                pairs = [KeyPair.from_seed(seed) for seed in seeds]
                manifests = [Manifest.single_signer(pair.public_key, version) for pair in pairs]
                keys = [
                    pair.public_key if is_compat else manifest.key
                    for pair, manifest in zip(pairs, manifests, strict=True)
                ]
                encoded = manifests[0].encode().hex()
                await peer(
                    "open", id="theirs", key=keys[0].hex(), manifest=encoded, seed=seeds[0].hex()
                )
                answer = await peer("append", id="theirs", blocks=[b"one".hex(), b"two".hex()])
                assert len(answer["signature"]) == (136 if version == 1 else 128)
                core = await store.get(key=keys[1], manifest=manifests[1], key_pair=pairs[1])
                await core.append([b"one", b"two"])
                copy = await store.get(key=keys[0])
                await peer("open", id="ours", key=keys[1].hex())
                async with connected(store, peer, is_initiator=True):
                    assert await copy.get_many([0, 1]) == [b"one", b"two"]
                    assert copy.verifier is not None
                    assert copy.verifier.is_compat == is_compat
                    answer = await peer("waitLength", id="ours", length=2)
                    assert (answer["isSigned"], answer["compat"]) == (True, is_compat)
                    assert await peer.blocks("ours", [0, 1]) == [b"one", b"two"]
