"""Block encryption: JS vectors, and the native cipher against the portable one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.block_cipher import BlockCipher, xsalsa20_xor, xsalsa20_xor_portable

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hypercore" / "keys.json").read_text()
)["encryption"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_blocks_are_those_of_js(vector: dict[str, Any]) -> None:
    cipher = BlockCipher(
        bytes.fromhex(vector["encryptionKey"]),
        bytes.fromhex(vector["key"]),
        is_block_key=vector["isBlock"],
        compat=vector["compat"],
    )
    assert cipher.block_key.hex() == vector["blockKey"]
    assert cipher.blinding_key.hex() == vector["blindingKey"]
    stored_bytes = 0
    for block in vector["blocks"]:
        plain, stored = bytes.fromhex(block["plain"]), bytes.fromhex(block["block"])
        assert cipher.encrypt(block["index"], block["fork"], plain) == stored
        assert cipher.decrypt(block["index"], stored) == plain
        assert len(stored) == len(plain) + cipher.padding
        stored_bytes += len(stored)
    assert stored_bytes >= vector["storedByteLength"] > vector["byteLength"]


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), st.binary(max_size=300))
def test_round_trip(index: int, fork: int, block: bytes) -> None:
    cipher = BlockCipher(bytes(range(32)), bytes(32))
    stored = cipher.encrypt(index, fork, block)
    assert cipher.decrypt(index, stored) == block
    assert len(block) < 8 or cipher.decrypt(index + 1, stored) != block


@given(
    st.one_of(st.binary(max_size=200), st.sampled_from([31, 32, 33, 64, 65]).map(bytes)),
    st.binary(min_size=24, max_size=24),
    st.binary(min_size=32, max_size=32),
)
def test_the_portable_cipher_is_the_same(message: bytes, nonce: bytes, key: bytes) -> None:
    assert xsalsa20_xor_portable(message, nonce, key) == xsalsa20_xor(message, nonce, key)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_block_or_a_value_error(stored: bytes) -> None:
    cipher = BlockCipher(bytes(32), bytes(32))
    if len(stored) < cipher.padding:
        with pytest.raises(ValueError, match="at least 8"):
            cipher.decrypt(0, stored)
    else:
        assert len(cipher.decrypt(0, stored)) == len(stored) - cipher.padding
