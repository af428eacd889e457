"""Follows hypercore 11.37.1 test/encryption.js: blocks that only who has the key can read.

Other forms in Python:

* `get` with `decrypt: false` or `raw` is `get_stored`; `core.encryption` is `info().is_encrypted`.
* "encrypted session before ready core": there is no core that is not ready.
* "encrypted core from existing unencrypted core", "from session sessions pass encryption" and
  "session keeps encryption" build sessions on a core object; here a core is opened twice.
* "encryption backwards compatibility" compares with a fixture that hypercore 11.0.48 wrote; the
  blocks of the pinned version are in `tests/vectors` and compared with in `test_block_cipher`
  and in `interop/originals/test_encryption`. Here the same three kinds of key are told apart.
* "encrypted seek" is about the arithmetic here; "encrypted seek via replication" is in
  `interop/originals/test_encryption`, where JavaScript seeks in what a blind node serves.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore import (
    BlockCipher,
    Core,
    Corestore,
    KeyPair,
    UsageError,
    WrongEncryptionKey,
    derive_block_key,
    open_corestore,
)
from hypercore.seek import byte_offset, seek_from_roots, seek_within
from tests.support.signing_party import replicating, wait_fork

KEY = b"hello world".ljust(32, b"\x01")
OTHER = b"\x02" * 32
PADDING = BlockCipher.padding


async def stored_blocks(core: Core, start: int, stop: int) -> list[bytes]:
    return [await core.get_stored(index) for index in range(start, stop)]


async def test_encrypted_append_and_get() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        assert core.info().is_encrypted
        await core.append([b"hello"])
        assert core.info().byte_length == core.byte_length == 5
        assert core.head.byte_length == 5 + PADDING
        assert await core.get(0) == b"hello"
        (stored,) = core.read_blocks([0])
        assert stored is not None
        assert len(stored) == 5 + PADDING
        assert b"hello" not in stored


async def test_get_as_it_is_stored() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append(b"hello")
        assert await core.get(0) == b"hello"
        assert core.read_blocks([0]) == [await core.get_stored(0)] != [b"hello"]


async def test_encrypted_seek() -> None:
    """Offsets in the plain text lead to where they lead in a core that is not encrypted."""
    blocks = [b"hello", b"world", b"!", b"", b"more of it"]
    async with open_corestore(None) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        plain = await store.get(name="plain")
        await core.append(blocks)
        await plain.append(blocks)
        ends = [
            byte_offset(core.head.roots, index, core.read_node) for index in range(core.length + 1)
        ]
        assert ends == [0, 13, 26, 35, 43, 61]
        for offset in range(core.byte_length + 2):
            assert seek_from_roots(5, offset, PADDING, core.read_node) == seek_from_roots(
                5, offset, 0, plain.read_node
            )
            for top in (1, 3, 5, 8):
                found = seek_within(core.head.roots, top, offset, PADDING, core.read_node)
                assert found == seek_within(plain.head.roots, top, offset, 0, plain.read_node)
        assert [seek_from_roots(5, offset, PADDING, core.read_node) for offset in (4, 6, 9)] == [
            0,
            2,
            2,
        ]


@pytest.mark.parametrize("has_key", [True, False], ids=["with the key", "blind"])
async def test_encrypted_replication(has_key: bool) -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append([b"a", b"b", b"c", b"d", b"e"])
        copy = await other_store.get(key=core.key, encryption_key=KEY if has_key else None)
        await copy.wait_length(5)
        await copy.download(0, 5)
        assert await stored_blocks(copy, 0, 5) == await stored_blocks(core, 0, 5)
        if has_key:
            assert await copy.get_many(range(5)) == [b"a", b"b", b"c", b"d", b"e"]
        await core.append([b"f", b"g", b"h", b"i", b"j"])
        assert await stored_blocks(copy, 5, 10) == await stored_blocks(core, 5, 10)
        await core.truncate(5)
        await core.append([b"f", b"g", b"h", b"i", b"new"])
        await wait_fork(copy, 1)
        expected = await (core.get(5) if has_key else core.get_stored(5))
        assert await copy.get(5) == expected
        assert (await copy.get(9) == b"new") == has_key
        assert (copy.byte_length == core.byte_length) == has_key


async def test_a_truncated_log_does_not_use_a_key_stream_twice() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append([b"same", b"same"])
        before = await stored_blocks(core, 0, 2)
        assert before[0] != before[1]
        await core.truncate(1)
        await core.append(b"same")
        after = await stored_blocks(core, 0, 2)
        assert after[0] == before[0]
        assert after[1][PADDING:] != before[1][PADDING:]
        assert await core.get_many([0, 1]) == [b"same", b"same"]


async def opened_twice(store: Corestore) -> tuple[Core, Core]:
    """As with and without a key, the second time with it."""
    return await store.get(name="secret"), await store.get(name="secret", encryption_key=KEY)


async def test_encrypted_session() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append([b"hello"])
        session = await store.get(name="secret", encryption_key=KEY)
        assert await session.get(0) == b"hello"
        await session.append([b"world"])
        assert await session.get(1) == await core.get(1) == b"world"
        assert await session.get_stored(1) == await core.get_stored(1) != b"world"
        await session.close()
        assert await core.get(1) == b"world"


async def test_encrypted_session_on_unencrypted_core() -> None:
    async with open_corestore(None) as store:
        core, session = await opened_twice(store)
        assert session.info().is_encrypted
        await session.append([b"hello"])
        assert await session.get(0) == b"hello"
        assert b"hello" not in await core.get_stored(0)


async def test_another_key_beside_the_one_in_use_is_refused() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append(b"hello")
        with pytest.raises(UsageError, match=r"another encryption key|was not encrypted"):
            await store.get(name="secret", encryption_key=OTHER)
        assert await core.get(0) == b"hello"
        with pytest.raises(UsageError, match="exclude one another"):
            await store.get(name="secret", encryption_key=KEY, block_key=KEY)
        with pytest.raises(UsageError, match="31 bytes, 32 needed"):
            await store.get(name="secret", encryption_key=KEY[1:])


async def test_a_wrong_key_is_refused_before_it_spoils_anything(tmp_path: Path) -> None:
    """Beyond the original, which reads and writes rubbish with it."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append([b"hello", b"world"])
        plain = await store.get(name="plain")
        await plain.append(b"a plain block")
        short = await store.get(name="short")
        await short.append(b"short")
    async with open_corestore(tmp_path) as store:
        with pytest.raises(WrongEncryptionKey, match="block 0 was not encrypted with this key"):
            await store.get(name="secret", encryption_key=OTHER)
        for name in ("plain", "short"):
            with pytest.raises(WrongEncryptionKey):
                await store.get(name=name, encryption_key=KEY)
        core = await store.get(name="secret", encryption_key=KEY)
        assert await core.get(1) == b"world"


@pytest.mark.parametrize("fork", [1, 2**32, 1_800_000_000_000, 2**53 - 1])
async def test_any_fork_number_is_told_from_a_wrong_key(tmp_path: Path, fork: int) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append(b"given up")
        await core.truncate(0, fork)
        await core.append(b"hello")
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="secret", encryption_key=KEY)
        assert await core.get(0) == b"hello"


async def test_a_block_too_short_to_be_encrypted_is_no_damage_of_our_disk() -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(name="half secret")
        await core.append([BlockCipher(KEY, core.key).encrypt(0, 0, b"hello"), b"short"])
        copy = await other_store.get(key=core.key, encryption_key=KEY)
        assert await copy.get(0) == b"hello"
        for _ in range(2):
            with pytest.raises(WrongEncryptionKey, match="block 1"):
                await copy.get(1)


async def test_a_reader_with_a_wrong_key_is_told_with_the_first_block() -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append([b"hello", b"world"])
        copy = await other_store.get(key=core.key, encryption_key=OTHER)
        with pytest.raises(WrongEncryptionKey, match="block 1"):
            await copy.get(1)
        copy.set_encryption(BlockCipher(KEY, core.key))
        assert await copy.get(1) == b"world"


async def test_multiple_gets_to_replicated_encrypted_block() -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append(b"a")
        copy = await other_store.get(key=core.key, encryption_key=KEY)
        assert await copy.get_many([0, 0]) == [b"a", b"a"]


async def test_encryption_begins_and_ends_with_whoever_wants_it(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core, _ = await opened_twice(store)
        await core.append(b"hello")
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="secret")
        assert not core.info().is_encrypted
        assert await core.get(0) == await core.get_stored(0) != b"hello"
        core.set_encryption(BlockCipher(KEY, core.key))
        assert await core.get(0) == b"hello"
        assert core.byte_length == 5
        core.set_encryption(None)
        assert core.byte_length == 5 + PADDING


class XorEncryption:
    """Not safe at all, and without padding."""

    padding = 0

    def encrypt(self, index: int, fork: int, block: bytes) -> bytes:
        return bytes(byte ^ (index + 1) & 0xFF for byte in block)

    def decrypt(self, index: int, block: bytes) -> bytes:
        return self.encrypt(index, 0, block)


async def test_block_encryption_module() -> None:
    async with open_corestore(None) as store:
        encryption = XorEncryption()
        core = await store.get(name="xor", encryption=encryption)
        blocks = [b"0", b"1", b"2"]
        for block in blocks:
            await core.append(block)
        for index, block in enumerate(blocks):
            assert await core.get_stored(index) == bytes([block[0] ^ (index + 1)])
            assert await core.get(index) == block
        assert core.byte_length == core.head.byte_length == 3
        assert (await store.get(name="xor", encryption=encryption)).length == 3
        with pytest.raises(UsageError, match="another encryption"):
            await store.get(name="xor", encryption_key=KEY)


async def test_encryption_backwards_compatibility() -> None:
    """Three kinds of key, on the core's own and the hashed kind of core key."""
    encryption_key = b"encryption key".ljust(32, b"\x03")
    pairs = [KeyPair.from_seed(bytes([seed]) * 32) for seed in range(3)]
    large = bytes(range(256)) * 2
    async with open_corestore(None) as store:
        cores = [
            await store.get(
                key=pairs[0].public_key, key_pair=pairs[0], encryption_key=encryption_key
            ),
            await store.get(key_pair=pairs[1], encryption_key=encryption_key),
            await store.get(key_pair=pairs[2], block_key=encryption_key),
        ]
        block_keys = [
            derive_block_key(encryption_key, cores[0].key, compat=True),
            derive_block_key(encryption_key, cores[1].key),
            encryption_key,
        ]
        assert [core.verifier and core.verifier.is_compat for core in cores] == [True, False, False]
        for core, block_key in zip(cores, block_keys, strict=True):
            await core.append([b"test: %d" % number for number in range(10)])
            await core.append(large)
            cipher = BlockCipher(block_key, core.key, is_block_key=True)
            for index in range(11):
                stored = await core.get_stored(index)
                assert cipher.encrypt(index, 0, await core.get(index)) == stored


@pytest.mark.parametrize("is_compat", [False, True])
async def test_the_key_of_one_core_reads_that_core_only(is_compat: bool) -> None:
    """A reader is handed the block key; of a core it knows by key alone, compat or not."""
    pair = KeyPair.from_seed(b"\x07" * 32)
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(
            key=pair.public_key if is_compat else None, key_pair=pair, encryption_key=KEY
        )
        other = await store.get(name="other", encryption_key=KEY)
        await core.append([b"hello", b"world"])
        await other.append(b"not for this reader")
        block_key = derive_block_key(KEY, core.key, compat=is_compat)
        reader = await other_store.get(key=core.key, block_key=block_key)
        assert await reader.get(1) == b"world"
        assert reader.byte_length == 10
        stranger = await other_store.get(key=other.key, block_key=block_key)
        with pytest.raises(WrongEncryptionKey):
            await stranger.get(0)


@pytest.mark.parametrize("is_compat", [False, True])
async def test_the_encryption_key_waits_for_the_kind_of_core(
    tmp_path: Path, is_compat: bool
) -> None:
    """JavaScript derives the other key for a compat core it knows by its key alone, and fails."""
    pair = KeyPair.from_seed(b"\x08" * 32)
    async with open_corestore(None) as store, open_corestore(tmp_path) as other_store:
        core = await store.get(
            key=pair.public_key if is_compat else None, key_pair=pair, encryption_key=KEY
        )
        reader = await other_store.get(key=core.key, encryption_key=KEY)
        await core.append([b"hello", b"world"])
        async with replicating(store, other_store):
            assert await reader.get(1) == b"world"
        assert reader.verifier is not None
        assert reader.verifier.is_compat == is_compat
    async with open_corestore(tmp_path) as store:
        reader = await store.get(key=core.key, encryption_key=KEY)
        assert await reader.get(1) == b"world"


async def test_a_blind_node_in_the_middle() -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as blind_store,
        open_corestore(None) as reader_store,
    ):
        core = await store.get(name="secret", encryption_key=KEY)
        await core.append([b"hello", b"world"])
        blind = await blind_store.get(key=core.key)
        async with replicating(store, blind_store):
            await blind.wait_length(2)
            await blind.download()
        reader = await reader_store.get(key=core.key, encryption_key=KEY)
        async with replicating(blind_store, reader_store):
            assert await reader.get_many([0, 1]) == [b"hello", b"world"]
        assert await stored_blocks(blind, 0, 2) == await stored_blocks(core, 0, 2)


async def test_an_encrypted_core_signed_elsewhere() -> None:
    """A proposal is made of what will be stored, so who signs it need not have the key."""
    pair = KeyPair.from_seed(b"\x09" * 32)
    async with open_corestore(None) as store:
        key = (await store.get(key_pair=pair)).key
    async with open_corestore(None) as store:
        manifest_owner = await store.get(key_pair=pair)
        manifest = manifest_owner.manifest
    async with open_corestore(None) as store:
        core = await store.get(key=key, manifest=manifest, encryption_key=KEY)
        assert not core.is_writable
        proposal = core.propose([b"hello", b"world"])
        assert all(b"hello" not in block for _, block in proposal.changes.blocks)
        collector = proposal.collector()
        collector.add(proposal.part(pair))
        await core.append([b"hello", b"world"], signature=collector.signature)
        await core.append(b"!", key_pair=pair)
        assert await core.get_many([0, 1, 2]) == [b"hello", b"world", b"!"]
