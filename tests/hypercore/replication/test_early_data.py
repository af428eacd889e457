"""Who can read what is asked before the other end has proven that it knows the key."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import system_entropy
from hypercore.replication.early_data import EarlyData

KEY = b"k" * 32


@dataclass(frozen=True)
class Ending:
    """One end of a connection."""

    is_initiator: bool
    handshake_hash: bytes = b"h" * 64
    remote_public_key: bytes = b"r" * 32
    handshake_seconds: float = 0.0


OURS, THEIRS = Ending(True), Ending(False)
EARLY = EarlyData("hyperbee", b"question")


@given(st.text(max_size=20), st.binary(max_size=200), st.booleans())
def test_who_knows_the_key_reads_it(name: str, payload: bytes, is_initiator: bool) -> None:
    early = EarlyData(name, payload)
    sealed = early.seal(Ending(is_initiator), KEY, system_entropy)
    assert EarlyData.unseal(sealed, Ending(not is_initiator), KEY) == early


def test_nobody_else_reads_it_and_no_other_connection() -> None:
    sealed = EARLY.seal(OURS, KEY, system_entropy)
    assert b"question" not in sealed
    assert EarlyData.unseal(sealed, THEIRS, b"x" * 32) is None
    assert EarlyData.unseal(sealed, replace(THEIRS, handshake_hash=b"i" * 64), KEY) is None
    assert EarlyData.unseal(sealed, OURS, KEY) is None, "sent back to who said it"


def test_what_is_damaged_is_nothing() -> None:
    sealed = EARLY.seal(OURS, KEY, system_entropy)
    for size in range(len(sealed)):
        assert EarlyData.unseal(sealed[:size], THEIRS, KEY) is None
        turned = bytearray(sealed)
        turned[size] ^= 1
        assert EarlyData.unseal(bytes(turned), THEIRS, KEY) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_nothing(data: bytes) -> None:
    assert EarlyData.unseal(data, THEIRS, KEY) is None
