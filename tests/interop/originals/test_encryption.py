"""Follows hypercore 11.37.1 test/encryption.js with JavaScript on one side and Python on the other.

Stored blocks have equal bytes for each of the three kinds of key, also after a truncation; either
side reads and goes on with what the other encrypted, over the wire and on the disk; a blind
node of either kind in the middle serves what it cannot read, to readers who seek in the plain
text. What the original tests of sessions alone is in `tests/hypercore/originals`.

JavaScript cannot read an encrypted compat core that it knows by its key only (its cipher fails
when the kind of core shows); with the manifest given it can, and so it is tested.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from hypercore import (
    BlockCipher,
    Corestore,
    Durability,
    KeyPair,
    Manifest,
    derive_block_key,
    open_corestore,
)
from tests.interop.originals.signing_peer import SigningPeer, open_signing_peer
from tests.interop.replication_peer import connected
from tests.support.signing_party import wait_fork

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 40
KEY = b"hello world".ljust(32, b"\x01")
SEED = b"\x31" * 32
PAIR = KeyPair.from_seed(SEED)
BLOCKS = [b"hello", b"world", b"!", b"", b"\x00" * 100, bytes(range(256)) * 40]
INITIATORS = pytest.mark.parametrize("is_initiator", [True, False], ids=["we dial", "they dial"])


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[SigningPeer]:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_signing_peer(tmp_path / "javascript") as opened:
            yield opened


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


def as_hex(blocks: list[bytes]) -> list[str]:
    return [block.hex() for block in blocks]


async def test_derived_keys(peer: SigningPeer) -> None:
    for is_compat in (False, True):
        answer = await peer(
            "blockKey", key=PAIR.public_key.hex(), encryptionKey=KEY.hex(), compat=is_compat
        )
        cipher = BlockCipher(KEY, PAIR.public_key, compat=is_compat)
        assert answer == {
            "number": answer["number"],
            "blockKey": derive_block_key(KEY, PAIR.public_key, compat=is_compat).hex(),
            "blindingKey": cipher.blinding_key.hex(),
        }


@pytest.mark.parametrize("kind", ["default", "block key", "compat"])
async def test_stored_blocks_are_equal(peer: SigningPeer, store: Corestore, kind: str) -> None:
    key = PAIR.public_key if kind == "compat" else Manifest.single_signer(PAIR.public_key).key
    secret = {"blockKey" if kind == "block key" else "encryptionKey": KEY.hex()}
    answer = await peer("open", id="a", key=key.hex(), seed=SEED.hex(), **secret)
    assert answer["compat"] == (kind == "compat")
    if kind == "block key":
        core = await store.get(
            key=key, manifest=Manifest.single_signer(PAIR.public_key), key_pair=PAIR, block_key=KEY
        )
    elif kind == "compat":
        core = await store.get(key=key, key_pair=PAIR, encryption_key=KEY)
    else:
        core = await store.get(key_pair=PAIR, encryption_key=KEY)
    assert core.key == key
    for step in (BLOCKS, BLOCKS[:2]):
        answer = await peer("append", id="a", blocks=as_hex(step))
        await core.append(step)
        assert answer["treeHash"] == core.head.tree_hash.hex()
        assert answer["signature"] == core.head.signature.hex()
        assert answer["byteLength"] == core.byte_length
        stored = await peer.blocks("a", range(core.length), is_stored=True)
        assert stored == [await core.get_stored(index) for index in range(core.length)]
        answer = await peer("truncate", id="a", length=3)
        await core.truncate(3)
        assert answer["signature"] == core.head.signature.hex()


@INITIATORS
async def test_python_reads_what_javascript_encrypted(
    peer: SigningPeer, store: Corestore, is_initiator: bool
) -> None:
    answer = await peer("open", id="a", name="secret", encryptionKey=KEY.hex())
    key = bytes.fromhex(answer["key"])
    await peer("append", id="a", blocks=as_hex(BLOCKS))
    reader = await store.get(key=key, encryption_key=KEY)
    async with (
        open_corestore(None) as narrow_store,
        connected(store, peer, is_initiator=is_initiator),
        connected(narrow_store, peer, is_initiator=not is_initiator),
    ):
        narrow = await narrow_store.get(key=key, block_key=derive_block_key(KEY, key))
        for core in (reader, narrow):
            await core.wait_length(len(BLOCKS))
            assert await core.get_many(range(len(BLOCKS))) == BLOCKS
            assert core.byte_length == sum(map(len, BLOCKS))
        await peer("truncate", id="a", length=2)
        await peer("append", id="a", blocks=as_hex([b"after the cut"]))
        await wait_fork(reader, 1)
        assert await reader.get_many(range(3)) == [*BLOCKS[:2], b"after the cut"]


@INITIATORS
async def test_javascript_reads_and_seeks_in_what_python_encrypted(
    peer: SigningPeer, store: Corestore, is_initiator: bool
) -> None:
    core = await store.get(name="secret", encryption_key=KEY)
    await core.append([b"hello", b"world", b"!"])
    await peer("open", id="a", key=core.key.hex(), encryptionKey=KEY.hex())
    async with connected(store, peer, is_initiator=is_initiator):
        await peer("update", id="a")
        for offset, found in SEEKS.items():
            assert (await peer("seek", id="a", bytes=offset))["found"] == found
        assert await peer.blocks("a", range(3)) == [b"hello", b"world", b"!"]
        await core.truncate(2)
        await core.append([b"after", b"the cut"])
        answer = await peer("waitLength", id="a", length=4, fork=1)
        assert answer["byteLength"] == core.byte_length
        assert await peer.blocks("a", range(4)) == [b"hello", b"world", b"after", b"the cut"]


SEEKS = {
    0: [0, 0],
    4: [0, 4],
    5: [1, 0],
    6: [1, 1],
    9: [1, 4],
    10: [2, 0],
    11: [3, 0],
}
"""Where an offset in "hello", "world", "!" leads. Source: the original's "encrypted seek"."""


async def test_a_blind_python_node_between_two_of_javascript(
    peer: SigningPeer, store: Corestore, tmp_path: Path
) -> None:
    """Nothing but ciphertext passes through our node; the reader seeks and reads all the same."""
    answer = await peer("open", id="a", name="secret", encryptionKey=KEY.hex())
    await peer("append", id="a", blocks=as_hex([b"hello", b"world", b"!"]))
    blind = await store.get(key=bytes.fromhex(answer["key"]))
    async with open_signing_peer(tmp_path / "reader") as reader:
        async with connected(store, peer, is_initiator=True):
            await blind.wait_length(3)
            await blind.download()
        assert not blind.info().is_encrypted
        assert await blind.get_many(range(3)) == await peer.blocks("a", range(3), is_stored=True)
        await reader("open", id="b", key=answer["key"], encryptionKey=KEY.hex())
        async with connected(store, reader, is_initiator=False):
            await reader("update", id="b")
            for offset, found in SEEKS.items():
                assert (await reader("seek", id="b", bytes=offset))["found"] == found
            assert await reader.blocks("b", range(3)) == [b"hello", b"world", b"!"]
            answer = await reader("info", id="b")
            assert (answer["byteLength"], answer["isSigned"]) == (11, True)


async def test_a_blind_javascript_node_between_two_of_python(
    peer: SigningPeer, store: Corestore
) -> None:
    core = await store.get(name="secret", encryption_key=KEY)
    await core.append(BLOCKS)
    await peer("open", id="blind", key=core.key.hex())
    async with connected(store, peer, is_initiator=True):
        await peer("waitLength", id="blind", length=len(BLOCKS))
        await peer("download", id="blind")
    stored = [await core.get_stored(index) for index in range(core.length)]
    assert await peer.blocks("blind", range(core.length)) == stored
    async with open_corestore(None) as other_store:
        reader = await other_store.get(key=core.key, encryption_key=KEY)
        async with connected(other_store, peer, is_initiator=False):
            assert await reader.get(5) == BLOCKS[5]
            assert await reader.get_many(range(6)) == BLOCKS


async def test_compat_cores_both_ways(peer: SigningPeer, store: Corestore) -> None:
    manifest = Manifest.single_signer(PAIR.public_key)
    await peer("open", id="a", key=PAIR.public_key.hex(), seed=SEED.hex(), encryptionKey=KEY.hex())
    answer = await peer("append", id="a", blocks=as_hex(BLOCKS))
    assert len(answer["signature"]) == 128
    reader = await store.get(key=PAIR.public_key, encryption_key=KEY)
    async with connected(store, peer, is_initiator=True):
        assert await reader.get(5) == BLOCKS[5]
        assert await reader.get_many(range(6)) == BLOCKS
    assert reader.manifest == manifest
    ours = KeyPair.from_seed(b"\x32" * 32)
    core = await store.get(key=ours.public_key, key_pair=ours, encryption_key=KEY)
    await core.append(BLOCKS)
    await peer(
        "open",
        id="b",
        key=core.key.hex(),
        manifest=Manifest.single_signer(ours.public_key).encode().hex(),
        encryptionKey=KEY.hex(),
    )
    async with connected(store, peer, is_initiator=False):
        answer = await peer("waitLength", id="b", length=6)
        assert (answer["compat"], answer["isSigned"]) == (True, True)
        assert await peer.blocks("b", range(6)) == BLOCKS


async def test_an_encrypted_core_on_one_disk(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    with trio.fail_after(LIMIT_SECONDS):
        async with open_signing_peer(directory) as peer:
            answer = await peer("open", id="a", name="secret", encryptionKey=KEY.hex())
            await peer("append", id="a", blocks=as_hex(BLOCKS))
        key = bytes.fromhex(answer["key"])
        async with open_corestore(directory, durability=Durability.OS) as store:
            core = await store.get(name="secret", block_key=derive_block_key(KEY, key))
            assert core.key == key
            assert await core.get_many(range(6)) == BLOCKS
            await core.truncate(4)
            await core.append([b"from", b"Python"])
        async with open_signing_peer(directory) as peer:
            await peer("open", id="a", name="secret", encryptionKey=KEY.hex())
            assert await peer.blocks("a", range(6)) == [*BLOCKS[:4], b"from", b"Python"]
